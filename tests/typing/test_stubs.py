"""The generated type stubs are up to date, and declare what exists at runtime."""

import ast
import importlib
import importlib.util
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tensorlite as tl

ROOT = Path(__file__).resolve().parents[2]
STUBS = sorted((ROOT / "tensorlite").rglob("*.pyi"))
OPERATORS = {"__init__", "__hash__", "__pos__", "__eq__", "__ne__"}


def test_the_stubs_match_the_ops():
    run = subprocess.run(
        [sys.executable, "tools/make_stubs.py", "--check"], cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


def module_of(stub: Path) -> str:
    parts = stub.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def declared() -> Iterator[tuple[str, ast.FunctionDef, object]]:
    """Return every function and method that a stub declares, with the object of that name at runtime."""
    for stub in STUBS:
        module = importlib.import_module(module_of(stub))
        for node in ast.parse(stub.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                yield f"{module.__name__}.{node.name}", node, getattr(module, node.name)
            elif isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, ast.FunctionDef):
                        cls = getattr(module, node.name)
                        yield f"{node.name}.{member.name}", member, vars(cls)[member.name]


@pytest.mark.parametrize(("name", "node", "value"), [pytest.param(*d, id=d[0]) for d in declared()])
def test_a_declaration_fits_the_function(name, node, value):
    """A call by position and a call by the declared names both reach the function's own parameters."""
    signature = inspect.signature(value)
    arguments = node.args
    by_position = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    by_name = [a.arg for a in (*arguments.args[name.startswith("OpMethods") and not arguments.posonlyargs :],
                               *arguments.kwonlyargs)]  # fmt: skip
    signature.bind(*by_position, **{a.arg: None for a in arguments.kwonlyargs})
    if name.split(".")[-1].startswith("__"):
        return
    known = signature.parameters
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        assert set(by_name) <= set(known), f"the stub of {name} names arguments that the function does not have"


def test_defaults_are_the_functions():
    wrong = []
    for name, node, value in declared():
        parameters = inspect.signature(value).parameters
        arguments = [*node.args.posonlyargs, *node.args.args]
        given = dict(zip([a.arg for a in arguments[len(arguments) - len(node.args.defaults) :]], node.args.defaults))
        given |= {a.arg: d for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults) if d is not None}
        given = {arg: ast.literal_eval(default) for arg, default in given.items()}
        wrong += [f"{name}({arg}=)" for arg, default in given.items() if parameters[arg].default != default]
    assert wrong == []


def test_every_export_and_method_is_declared():
    for stub in STUBS:
        tree, module = ast.parse(stub.read_text("utf-8")), importlib.import_module(module_of(stub))
        exported = next(ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign))
        assert exported == list(module.__all__)
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                names = {m.name for m in node.body if isinstance(m, ast.FunctionDef)}
                names |= {ast.unparse(t) for m in node.body if isinstance(m, ast.Assign) for t in m.targets}
                cls = getattr(module, node.name)
                assert {n for n, f in vars(cls).items() if callable(f)} - names == set()


@pytest.mark.parametrize("name", ["exp", "cat", "max", "sum", "where", "einsum"])
def test_help_names_the_arguments(name):
    """``help(tl.exp)`` and ``help(tl.Tensor.exp)`` show PyTorch's names, and no namespace."""
    parameters = list(inspect.signature(getattr(tl, name)).parameters)
    assert parameters[0] in ("input", "tensors", "condition", "equation")
    assert "xp" not in parameters


@pytest.mark.parametrize("stub", STUBS, ids=module_of)
def test_a_stub_hides_no_code(stub):
    """Type checkers do not read the module next to a stub, so it must be a list of imports or of assignments."""
    tree = ast.parse(stub.with_suffix(".py").read_text("utf-8"))
    functions = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    assert set(functions) <= OPERATORS
