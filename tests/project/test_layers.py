"""The house rules that syntax trees can hold: which way imports run, and what no file may do.

A file added to tensorlite/ or gpt/ fails here until it has its place in FLOORS.
"""
import ast
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Lowest first. A file imports only files that stand before it, inside functions too, so there is no circle; and
# whoever reads them in this order meets nothing unexplained. A package's name stands for its __init__.py.
FLOORS = """
    tensorlite.errors  tensorlite.dtypes
    tensorlite.backends  tensorlite.backends.reference
    tensorlite.backends.cpu  tensorlite.backends.cpu.compiled  tensorlite.backends.cpu.compiled.parallel_for
    tensorlite.backends.cpu.thread_pool
    tensorlite.backends.cpu.compiled.kernels  tensorlite.backends.cpu.compiled.row_kernels
    tensorlite.backends.cpu.kernels  tensorlite.backends.cuda  tensorlite.backends.cuda.kernels
    tensorlite.backends.cpu.malloc
    tensorlite.backends.registry  tensorlite.random
    tensorlite.autograd.version_counter  tensorlite.autograd.anomaly_mode  tensorlite.autograd.engine
    tensorlite.autograd.checkpointing  tensorlite.autograd
    tensorlite.ops.elementwise  tensorlite.ops.shape  tensorlite.ops.reduce  tensorlite.ops.linalg
    tensorlite.ops.index  tensorlite.ops.gather_scatter  tensorlite.ops.nn  tensorlite.ops
    tensorlite.tensors  tensorlite.tensors.tensor  tensorlite.tensors.comparison  tensorlite.tensors.creation
    tensorlite.func  tensorlite.profiler
    tensorlite.nn.parameter  tensorlite.nn.module  tensorlite.nn.functional  tensorlite.nn.init  tensorlite.nn.utils
    tensorlite.nn.linear  tensorlite.nn.embedding  tensorlite.nn.normalization  tensorlite.nn.dropout
    tensorlite.nn.activation  tensorlite.nn.loss  tensorlite.nn.containers  tensorlite.nn.attention  tensorlite.nn
    tensorlite.optim.optimizer  tensorlite.optim.sgd  tensorlite.optim.adam  tensorlite.optim.muon
    tensorlite.optim.lr_scheduler  tensorlite.optim
    tensorlite.serialization
    tensorlite  tensorlite.compiled
    tensorlite.testing.numerical  tensorlite.testing.report  tensorlite.testing.subject  tensorlite.testing.verdict
    tensorlite.testing.messages  tensorlite.testing.gradients  tensorlite.testing.operators
    tensorlite.testing.plugin  tensorlite.testing.samples  tensorlite.testing.spec
    tensorlite.testing.strategies  tensorlite.testing.gradtests  tensorlite.testing.random_programs
    tensorlite.testing.strict  tensorlite.testing
    gpt  gpt.errors  gpt.config  gpt.info  gpt.fetch  gpt.tokenizer  gpt.data
    gpt.optimizer  gpt.model  gpt.evaluate  gpt.decoder  gpt.sample  gpt.checkpoint  gpt.metrics  gpt.plot
    gpt.progress  gpt.train  gpt.cli  gpt.__main__
""".split()

# What a stranger may import; the rest of tensorlite is private, whatever its name.
PUBLIC_MODULES = [
    "tensorlite", "tensorlite.autograd", "tensorlite.compiled", "tensorlite.errors", "tensorlite.func",
    "tensorlite.nn", "tensorlite.nn.functional", "tensorlite.nn.init", "tensorlite.nn.utils",
    "tensorlite.optim", "tensorlite.optim.lr_scheduler", "tensorlite.profiler", "tensorlite.serialization",
    "tensorlite.testing", "tensorlite.testing.strict",
]

# Files of tensorlite that may import more than numpy at their top, because nobody imports them at theirs.
LOADED_LAZILY = {
    "tensorlite.backends.cuda.kernels": {"cupy"}, "tensorlite.backends.cpu.compiled.kernels": {"llvmlite", "numba"},
    "tensorlite.backends.cpu.compiled.parallel_for": {"llvmlite", "numba"},
    "tensorlite.backends.cpu.compiled.row_kernels": {"llvmlite", "numba"},
    "tensorlite.compiled": {"llvmlite", "numba"},
    "tensorlite.testing.strategies": {"hypothesis"}, "tensorlite.testing.gradtests": {"hypothesis"},
    "tensorlite.testing.random_programs": {"hypothesis"},
}

# The only files that may name CuPy, and that may compare with the name of a device: the generator has a state on
# each, and autograd and tensor show the device in messages and in repr.
CUPY_AWARE = ("tensorlite.backends",)
DEVICE_AWARE = (*CUPY_AWARE, "tensorlite.random", "tensorlite.autograd.engine", "tensorlite.tensors.tensor")
DEVICE_NAMES = {"cpu", "cuda", "gpu", "cupy", "numpy"}

UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


class File(NamedTuple):
    """One Python file: its dotted name, its path below the root, its syntax tree."""

    module: str
    path: Path
    tree: ast.Module

    @classmethod
    def parse(cls, path: Path, source: str) -> "File":
        parts = path.with_suffix("").parts
        return cls(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path, ast.parse(source))

    def at(self, node: ast.AST, what: str) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 0)}: {what}"


class Import(NamedTuple):
    """One imported name: `from module import name` or, with no name, `import module`."""

    node: ast.Import | ast.ImportFrom
    module: str
    name: str | None
    bound: str

    @property
    def target(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


def read(folder: str) -> list[File]:
    paths = sorted((ROOT / folder).rglob("*.py"))
    return [File.parse(path.relative_to(ROOT), path.read_text("utf-8")) for path in paths]


def nodes(tree: ast.AST, in_functions: bool = True) -> Iterator[ast.AST]:
    """The nodes below `tree` that run on import, or in calls too: none under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and dotted(node.test)[-1] == "TYPE_CHECKING":
            continue
        if in_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from nodes(node, in_functions)


def imports(file: File, in_functions: bool = True) -> Iterator[Import]:
    """What the file imports, relative imports made absolute."""
    for node in nodes(file.tree, in_functions):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node, alias.name, None, alias.asname or alias.name.partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            folder = file.path.parents[node.level - 1].parts if node.level else ()
            module = ".".join([*folder, node.module] if node.module else folder)
            for alias in node.names:
                yield Import(node, module, alias.name, alias.asname or alias.name)


def inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


# ---- the rules: each takes a file and returns what is wrong with it ----------------------------------------


def upward_imports(file: File) -> list[str]:
    """Imports of a file that stands on the same floor or above."""
    if file.module not in FLOORS:
        return [f"{file.path}: give it its place in FLOORS, tests/project/test_layers.py"]
    wrong = []
    for item in imports(file):
        target = item.target if item.target in FLOORS else item.module
        if not inside(target, ("tensorlite", "gpt")):
            continue
        if target not in FLOORS:
            wrong.append(file.at(item.node, f"imports {target}, which has no place in FLOORS"))
        elif FLOORS.index(target) >= FLOORS.index(file.module):
            wrong.append(file.at(item.node, f"imports {target}, which stands above it"))
    return wrong


def heavy_imports(file: File) -> list[str]:
    """What importing a file of tensorlite loads besides numpy, the standard library and tensorlite."""
    allowed = {"tensorlite", "numpy", *sys.stdlib_module_names, *LOADED_LAZILY.get(file.module, ())}
    wrong = []
    for item in imports(file, in_functions=False):
        top = item.module.partition(".")[0]
        lazy = {item.module, item.target} & LOADED_LAZILY.keys()
        if top not in allowed or any(not LOADED_LAZILY[name] <= allowed for name in lazy):
            wrong.append(file.at(item.node, f"imports {item.target} at its top, not inside a function"))
    return wrong


def cupy_names(file: File) -> list[str]:
    """Mentions of CuPy outside the backend."""
    fields = ("id", "attr", "arg", "name", "module")
    named = ((node, str(getattr(node, field, ""))) for node in ast.walk(file.tree) for field in fields)
    return [file.at(node, f"names {name}") for node, name in named if "cupy" in name.lower()]


def device_branches(file: File) -> list[str]:
    """Branches on the device or the array library, an `if gpu`."""
    wrong = []
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Attribute) and node.attr in {"is_cuda", "is_gpu", "is_cpu"}:
            wrong.append(file.at(node, f"asks {node.attr}"))
        compared: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            compared = [node.value]
        elif isinstance(node, ast.Call) and dotted(node.func)[-1] == "startswith":
            compared = node.args
        for side in compared:
            for leaf in ast.walk(side):
                if isinstance(leaf, ast.Constant) and leaf.value in DEVICE_NAMES:
                    wrong.append(file.at(node, f"branches on {leaf.value!r}"))
    return wrong


def code_from_data(file: File) -> list[str]:
    """Calls of eval, exec and their like, and anything that unpickles."""
    wrong = []
    for item in imports(file):
        if item.module.partition(".")[0] in UNPICKLERS:
            wrong.append(file.at(item.node, f"imports {item.module}"))
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Name) and node.id in {"eval", "exec", "compile", "__import__"}:
            wrong.append(file.at(node, f"uses {node.id}"))
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                wrong.append(file.at(node.value, "allows pickles"))
    return wrong


def private_use(file: File) -> list[str]:
    """Uses of tensorlite, and of anyone's underscored names, that a stranger has no right to."""
    wrong, bound = [], {}
    for item in imports(file):
        if inside(item.module, ("tensorlite",)):
            what = f"{item.module}.{item.name}" if item.name else item.module
            if problem := not_public(what):
                wrong.append(file.at(item.node, problem))
            elif item.name or item.bound != "tensorlite":
                bound[item.bound] = what
            else:
                bound["tensorlite"] = "tensorlite"
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.Attribute):
            continue
        if node.attr.startswith("_") and not node.attr.endswith("__"):
            if not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}):
                wrong.append(file.at(node, f"uses the private name {ast.unparse(node)}"))
        root, *rest = dotted(node)
        if root in bound and (problem := not_public(".".join([bound[root], *rest]))):
            wrong.append(file.at(node, problem))
    return wrong


def dotted(node: ast.expr) -> list[str]:
    """["tl", "nn", "Linear"] for the expression tl.nn.Linear, [""] for one that is no chain of names."""
    if isinstance(node, ast.Attribute):
        return [*dotted(node.value), node.attr]
    return [node.id if isinstance(node, ast.Name) else ""]


@cache
def not_public(path: str) -> str | None:
    """What keeps `path`, say "tensorlite.nn.Linear", from being public API; None if it is."""
    value: object = importlib.import_module("tensorlite")
    names = path.split(".")
    for i, name in enumerate(names[1:], start=1):
        if not isinstance(value, ModuleType):
            return None
        here = ".".join(names[: i + 1])
        if here not in PUBLIC_MODULES and name not in getattr(value, "__all__", ()):
            return f"uses {here}, which is not public: {value.__name__}.__all__ does not have it"
        value = importlib.import_module(here) if here in PUBLIC_MODULES else getattr(value, name)
    return None


# ---- the rules, held --------------------------------------------------------------------------------------

TENSORLITE, GPT, EXAMPLES = read("tensorlite"), read("gpt"), read("examples")


def output_of(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def held(files: list[File], rule: Callable[[File], list[str]]) -> None:
    wrong = [line for file in files for line in rule(file)]
    assert not wrong, f"{rule.__doc__}\n" + "\n".join(wrong)


def test_there_are_files_to_look_at():
    assert len(TENSORLITE) > 5
    assert len(GPT) > 5


def test_imports_run_one_way():
    held(TENSORLITE + GPT, upward_imports)


def test_floors_name_files_that_exist_once():
    assert set(FLOORS) == {file.module for file in TENSORLITE + GPT}
    assert len(set(FLOORS)) == len(FLOORS)


def test_the_core_imports_numpy_alone():
    held(TENSORLITE, heavy_imports)


def test_no_device_branch_outside_the_backend():
    held([file for file in TENSORLITE + GPT if not inside(file.module, CUPY_AWARE)], cupy_names)
    held([file for file in TENSORLITE + GPT if not inside(file.module, DEVICE_AWARE)], device_branches)


def test_no_code_from_data():
    held(TENSORLITE + GPT + EXAMPLES, code_from_data)


def test_gpt_and_examples_use_the_public_api_alone():
    held(GPT + EXAMPLES, private_use)


def test_importing_tensorlite_loads_numpy_alone():
    # A module without a spec was not imported: Cython's runtime, within numpy, makes itself one.
    script = (
        "import sys; before = set(sys.modules); import tensorlite\n"
        "print(*(name for name in set(sys.modules) - before if getattr(sys.modules[name], '__spec__', None)))"
    )
    loaded = {name.partition(".")[0] for name in output_of(sys.executable, "-c", script).split()}
    assert loaded - sys.stdlib_module_names == {"tensorlite", "numpy"}


def test_no_large_file_in_git():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in output_of("git", "ls-files", "-z").split("\0") if name]
    assert paths
    assert not [path for path in paths if path.is_file() and path.stat().st_size > 1_000_000]


# ---- the rules see what they look for ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (upward_imports, "tensorlite/nowhere.py", ""),
        (upward_imports, "tensorlite/backends/registry.py", "from tensorlite.autograd.engine import Variable"),
        (upward_imports, "tensorlite/backends/registry.py", "from .. import autograd"),
        (upward_imports, "tensorlite/backends/registry.py", "import tensorlite.autograd.engine"),
        (upward_imports, "tensorlite/backends/registry.py", "from tensorlite import tensor"),
        (upward_imports, "tensorlite/backends/registry.py", "from .nowhere import x"),
        (upward_imports, "tensorlite/backends/registry.py", "from .registry import x"),
        (upward_imports, "tensorlite/backends/registry.py", "def f():\n    from ..tensor import Tensor"),
        (upward_imports, "tensorlite/ops/reduce.py", "from ..tensor import Tensor"),
        (upward_imports, "tensorlite/ops/shape.py", "from .reduce import sum"),
        (upward_imports, "tensorlite/ops/__init__.py", "from ..tensor import Tensor"),
        (upward_imports, "tensorlite/nn/__init__.py", "from gpt import config"),
        (heavy_imports, "tensorlite/tensors/tensor.py", "import scipy.special"),
        (heavy_imports, "tensorlite/tensors/tensor.py", "try:\n    import scipy\nexcept ImportError: pass"),
        (heavy_imports, "tensorlite/tensors/tensor.py", "class A:\n    import torch"),
        (heavy_imports, "tensorlite/backends/registry.py", "from .cuda import kernels"),
        (heavy_imports, "tensorlite/backends/registry.py", "from .cuda.kernels import softmax"),
        (heavy_imports, "tensorlite/testing/plugin.py", "from .strategies import tensors"),
        (heavy_imports, "tensorlite/testing/strategies.py", "import pytest"),
        (cupy_names, "tensorlite/tensors/tensor.py", "def f():\n    import cupy"),
        (cupy_names, "tensorlite/tensors/tensor.py", "from cupy import asnumpy"),
        (cupy_names, "tensorlite/tensors/tensor.py", "def f(cupy_array): pass"),
        (device_branches, "tensorlite/nn/layers.py", "if x.device.type == 'cuda': pass"),
        (device_branches, "tensorlite/nn/layers.py", "y = a if kind in ('gpu', 'tpu') else b"),
        (device_branches, "tensorlite/nn/layers.py", "str(x.device).startswith('cuda')"),
        (device_branches, "tensorlite/nn/layers.py", "match kind:\n    case 'cpu': pass"),
        (device_branches, "tensorlite/nn/layers.py", "if x.is_cuda: pass"),
        (code_from_data, "gpt/config.py", "exec(open('config.py').read())"),
        (code_from_data, "gpt/config.py", "run = eval"),
        (code_from_data, "gpt/checkpoint.py", "def f():\n    import pickle"),
        (code_from_data, "gpt/checkpoint.py", "from pickle import loads"),
        (code_from_data, "gpt/checkpoint.py", "np.load(path, allow_pickle=True)"),
        (private_use, "gpt/model.py", "from tensorlite.backends import reference"),
        (private_use, "gpt/model.py", "from tensorlite import backend"),
        (private_use, "gpt/model.py", "import tensorlite.backends.reference"),
        (private_use, "gpt/model.py", "import tensorlite as tl\ntl.backends.registry.BACKENDS"),
        (private_use, "gpt/model.py", "import tensorlite\ntensorlite.nn.nowhere(3)"),
        (private_use, "gpt/model.py", "from tensorlite import nn\nnn.functional.nowhere(3)"),
        (private_use, "gpt/model.py", "parameter._version += 1"),
    ],
)
def test_a_rule_sees_a_breach(rule, path, source):
    assert rule(File.parse(Path(path), source))


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (upward_imports, "tensorlite/ops/reduce.py", "from ..autograd import op\nfrom . import shape"),
        (upward_imports, "tensorlite/backends/registry.py", "if TYPE_CHECKING:\n    from ..tensor import Tensor"),
        (upward_imports, "tensorlite/ops/__init__.py", "from .shape import reshape"),
        (heavy_imports, "tensorlite/tensors/tensor.py", "import math\nimport numpy.linalg\nfrom . import errors"),
        (heavy_imports, "tensorlite/tensors/tensor.py", "def f():\n    import safetensors"),
        (heavy_imports, "tensorlite/backends/cuda/kernels.py", "import cupy"),
        (heavy_imports, "tensorlite/testing/gradtests.py", "import hypothesis\nfrom .strategies import tensors"),
        (cupy_names, "tensorlite/tensors/tensor.py", "# cupy\nx = 'cupy'"),
        (device_branches, "tensorlite/tensors/creation.py", "def cpu(x):\n    return x.to('cpu')"),
        (code_from_data, "gpt/train.py", "model.eval()\nnp.load(path, allow_pickle=False)"),
        (private_use, "gpt/model.py", "import tensorlite as tl\ntl.nn.functional.gelu"),
        (private_use, "gpt/model.py", "from tensorlite import nn\nnn.Linear(1, 2).weight"),
        (private_use, "gpt/model.py", "import tensorlite.nn.functional as F\nF.gelu\nself._x = x.__class__"),
    ],
)
def test_a_rule_lets_the_rest_be(rule, path, source):
    assert not rule(File.parse(Path(path), source))
