"""Test the rules of structure: the layers of the packages, and what a file must not do.

import-linter checks the layers; its contracts are in pyproject.toml, under tool.importlinter. The other rules are
functions here, which read syntax trees.
"""
import ast
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The modules that users may import. All others in tensorlite are private, although their names have no underscore.
PUBLIC_MODULES = [
    "tensorlite", "tensorlite.autograd", "tensorlite.compiled", "tensorlite.cuda", "tensorlite.distributed",
    "tensorlite.errors",
    "tensorlite.learn",
    "tensorlite.func", "tensorlite.linalg", "tensorlite.nn", "tensorlite.nn.functional", "tensorlite.nn.init",
    "tensorlite.nn.utils",
    "tensorlite.optim", "tensorlite.optim.lr_scheduler", "tensorlite.profiler", "tensorlite.pytree",
    "tensorlite.quantized",
    "tensorlite.serialization", "tensorlite.testing", "tensorlite.testing.strict", "tensorlite.utils",
    "tensorlite.utils.checkpoint", "tensorlite.utils.data", "tensorlite.viz",
]

# The packages that a module of tensorlite may import at its top, in addition to numpy. No other module imports one of
# these modules at its top, so that `import tensorlite` loads numpy alone.
LOADED_LAZILY = {
    "tensorlite.backends.cuda": {"cupy"},
    "tensorlite.backends.cpu.compiled": {"llvmlite", "numba"},
    "tensorlite.compiled": {"llvmlite", "numba"},
    "tensorlite.testing.strategies": {"hypothesis"},
    "tensorlite.testing.gradtests": {"hypothesis"},
    "tensorlite.testing.random_programs": {"hypothesis"},
}

# The only package that may name CuPy, and those that may compare with the name of a device. autograd and tensors do so
# because their messages show the device.
CUPY_AWARE = ("tensorlite.backends",)
DEVICE_AWARE = (*CUPY_AWARE, "tensorlite.autograd", "tensorlite.tensors", "tensorlite.cuda")
DEVICE_NAMES = {"cpu", "cuda", "gpu", "cupy", "numpy"}

UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


class File(NamedTuple):
    """A Python file: its dotted name, its path below the root, its syntax tree."""

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
    """An imported name: `from module import name` or, with no name, `import module`."""

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
    """Yield the nodes below `tree` that run on import, and in calls if `in_functions`; none under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and dotted(node.test)[-1] == "TYPE_CHECKING":
            continue
        if in_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from nodes(node, in_functions)


def imports(file: File, in_functions: bool = True) -> Iterator[Import]:
    """Yield what the file imports, with relative imports made absolute."""
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


# ---- the rules: each takes a file and returns the lines that break it ----------------------------------------


def lazy_package(module: str) -> str | None:
    """Return the entry of LOADED_LAZILY that `module` belongs to, or None."""
    return next((package for package in LOADED_LAZILY if inside(module, (package,))), None)


def heavy_imports(file: File) -> list[str]:
    """Return the imports at the top of a file, except numpy, the standard library and tensorlite."""
    own = lazy_package(file.module)
    allowed = {"tensorlite", "numpy", *sys.stdlib_module_names, *LOADED_LAZILY.get(own or "", ())}
    wrong = []
    for item in imports(file, in_functions=False):
        top = item.module.partition(".")[0]
        lazy = lazy_package(item.module) or lazy_package(item.target)
        if top not in allowed or (lazy is not None and not LOADED_LAZILY[lazy] <= allowed):
            wrong.append(file.at(item.node, f"imports {item.target} at its top, not inside a function"))
    return wrong


def cupy_names(file: File) -> list[str]:
    """Return the mentions of CuPy."""
    fields = ("id", "attr", "arg", "name", "module")
    named = ((node, str(getattr(node, field, ""))) for node in ast.walk(file.tree) for field in fields)
    return [file.at(node, f"names {name}") for node, name in named if "cupy" in name.lower()]


def device_branches(file: File) -> list[str]:
    """Return the branches on the device or the array library, such as `if gpu`."""
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
    """Return the uses of eval, exec and their like, and of anything that unpickles."""
    wrong = []
    for item in imports(file):
        if item.module.partition(".")[0] in UNPICKLERS:
            wrong.append(file.at(item.node, f"imports {item.module}"))
    for node in ast.walk(file.tree):
        is_read = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)  # a field may be called compile
        if is_read and node.id in {"eval", "exec", "compile", "__import__"}:
            wrong.append(file.at(node, f"uses {node.id}"))
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                wrong.append(file.at(node.value, "allows pickles"))
    return wrong


def private_use(file: File) -> list[str]:
    """Return the uses of private names, of tensorlite's or any other."""
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
    """Return ["tl", "nn", "Linear"] for the expression tl.nn.Linear, and [""] for one that is not a chain of names."""
    if isinstance(node, ast.Attribute):
        return [*dotted(node.value), node.attr]
    return [node.id if isinstance(node, ast.Name) else ""]


OUTSIDE_ALL = {"tensorlite.bfloat16"}  # because ``from tensorlite import *`` does not import ml_dtypes


@cache
def not_public(path: str) -> str | None:
    """Return why `path`, say "tensorlite.nn.Linear", is not public API; None if it is."""
    value: object = importlib.import_module("tensorlite")
    names = path.split(".")
    for i, name in enumerate(names[1:], start=1):
        if not isinstance(value, ModuleType):
            return None
        here = ".".join(names[: i + 1])
        if here not in PUBLIC_MODULES and here not in OUTSIDE_ALL and name not in getattr(value, "__all__", ()):
            return f"uses {here}, which is not public: {value.__name__}.__all__ does not have it"
        value = importlib.import_module(here) if here in PUBLIC_MODULES else getattr(value, name)
    return None


# ---- the files follow the rules ------------------------------------------------------------------------------------

TENSORLITE, GPT, EXAMPLES = read("tensorlite"), read("gpt"), read("examples")


def output_of(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    """Run import-linter on the packages in `folder`, with the contracts of its pyproject.toml."""
    pytest.importorskip("importlinter")
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", script, "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def check(files: list[File], rule: Callable[[File], list[str]]) -> None:
    wrong = [line for file in files for line in rule(file)]
    assert not wrong, f"{rule.__doc__}\n" + "\n".join(wrong)


def test_the_files_are_found():
    assert len(TENSORLITE) > 5
    assert len(GPT) > 5


def test_the_layers_hold():
    """No import runs up a layer, and there is no cycle inside a folder."""
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout[done.stdout.find("Broken") :] + done.stderr


@pytest.mark.parametrize(
    ("path", "source", "contract"),
    [
        ("tensorlite/backends/new.py", "def f():\n    from ..autograd import Variable", "the layers of tensorlite"),
        (
            "tensorlite/ops/new.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..tensors.tensor import Tensor",
            "the layers of tensorlite",
        ),
        ("tensorlite/new/__init__.py", "", "the layers of tensorlite"),
        ("tensorlite/nn/new.py", "import gpt.config", "gpt uses tensorlite, never the reverse"),
        ("tensorlite/nn/new.py", "def f():\n    import numba", "numba is imported by the compiled kernels alone"),
        ("tensorlite/nn/new.py", "def f():\n    import cupy", "CuPy is imported by the CUDA backend alone"),
        ("gpt/model/new.py", "from gpt.train import trainer", "the layers of gpt"),
        ("tensorlite/optim/new.py", "from . import new2", "no import cycle inside a folder"),
    ],
)
def test_a_contract_finds_a_breach(path, source, contract, tmp_path):
    for package in ("tensorlite", "gpt"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text(source)
    (tmp_path / "tensorlite/optim/new2.py").write_text("from . import new" if "new2" in source else "")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout


def test_the_core_imports_numpy_alone():
    check(TENSORLITE, heavy_imports)


def test_no_device_branch_outside_the_backend():
    check([file for file in TENSORLITE + GPT if not inside(file.module, CUPY_AWARE)], cupy_names)
    check([file for file in TENSORLITE + GPT if not inside(file.module, DEVICE_AWARE)], device_branches)


def test_no_file_executes_data():
    # It loads the machine code that this computer has saved, as numba does. A checksum tells what it wrote.
    machine_code = Path("tensorlite/backends/cpu/compiled/machine_code.py")
    check([file for file in TENSORLITE + GPT + EXAMPLES if file.path != machine_code], code_from_data)


def test_gpt_and_examples_use_the_public_api_alone():
    check(GPT + EXAMPLES, private_use)


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


# ---- the rules find breaches -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (heavy_imports, "tensorlite/tensors/tensor.py", "import scipy.special"),
        (heavy_imports, "tensorlite/tensors/tensor.py", "try:\n    import scipy\nexcept ImportError: pass"),
        (heavy_imports, "tensorlite/tensors/tensor.py", "class A:\n    import torch"),
        (heavy_imports, "tensorlite/backends/registry.py", "from .cuda import kernels"),
        (heavy_imports, "tensorlite/backends/registry.py", "from .cuda.kernels import softmax"),
        (heavy_imports, "tensorlite/testing/plugin.py", "from .strategies import tensors"),
        (heavy_imports, "tensorlite/testing/strategies/entries.py", "import pytest"),
        (cupy_names, "tensorlite/tensors/tensor.py", "def f():\n    import cupy"),
        (cupy_names, "tensorlite/tensors/tensor.py", "from cupy import asnumpy"),
        (cupy_names, "tensorlite/tensors/tensor.py", "def f(cupy_array): pass"),
        (device_branches, "tensorlite/nn/layers.py", "if x.device.type == 'cuda': pass"),
        (device_branches, "tensorlite/nn/layers.py", "y = a if kind in ('gpu', 'tpu') else b"),
        (device_branches, "tensorlite/nn/layers.py", "str(x.device).startswith('cuda')"),
        (device_branches, "tensorlite/nn/layers.py", "match kind:\n    case 'cpu': pass"),
        (device_branches, "tensorlite/nn/layers.py", "if x.is_cuda: pass"),
        (code_from_data, "gpt/config/toml.py", "exec(open('config.py').read())"),
        (code_from_data, "gpt/config/toml.py", "run = eval"),
        (code_from_data, "gpt/checkpoint/native.py", "def f():\n    import pickle"),
        (code_from_data, "gpt/checkpoint/native.py", "from pickle import loads"),
        (code_from_data, "gpt/checkpoint/native.py", "np.load(path, allow_pickle=True)"),
        (private_use, "gpt/model/gpt.py", "from tensorlite.backends import reference"),
        (private_use, "gpt/model/gpt.py", "from tensorlite import backends"),
        (private_use, "gpt/model/gpt.py", "import tensorlite.backends.reference"),
        (private_use, "gpt/model/gpt.py", "import tensorlite as tl\ntl.backends.registry.BACKENDS"),
        (private_use, "gpt/model/gpt.py", "import tensorlite\ntensorlite.nn.nowhere(3)"),
        (private_use, "gpt/model/gpt.py", "from tensorlite import nn\nnn.functional.nowhere(3)"),
        (private_use, "gpt/model/gpt.py", "parameter._version += 1"),
    ],
)
def test_a_rule_finds_a_breach(rule, path, source):
    assert rule(File.parse(Path(path), source))


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (heavy_imports, "tensorlite/tensors/tensor.py", "import math\nimport numpy.linalg\nfrom . import errors"),
        (heavy_imports, "tensorlite/tensors/tensor.py", "def f():\n    import safetensors"),
        (heavy_imports, "tensorlite/backends/cuda/kernels.py", "import cupy"),
        (heavy_imports, "tensorlite/testing/gradtests.py", "import hypothesis\nfrom .strategies import tensors"),
        (cupy_names, "tensorlite/tensors/tensor.py", "# cupy\nx = 'cupy'"),
        (device_branches, "tensorlite/tensors/creation.py", "def cpu(x):\n    return x.to('cpu')"),
        (code_from_data, "gpt/train/trainer.py", "model.eval()\nnp.load(path, allow_pickle=False)"),
        (private_use, "gpt/model/gpt.py", "import tensorlite as tl\ntl.nn.functional.gelu"),
        (private_use, "gpt/model/gpt.py", "from tensorlite import nn\nnn.Linear(1, 2).weight"),
        (private_use, "gpt/model/gpt.py", "import tensorlite.nn.functional as F\nF.gelu\nself._x = x.__class__"),
    ],
)
def test_a_rule_accepts_other_code(rule, path, source):
    assert not rule(File.parse(Path(path), source))
