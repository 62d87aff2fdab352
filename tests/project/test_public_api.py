"""Test that the public API is the list in tests/project/public_api.txt, and that every name in it has a docstring.

After a deliberate change, `.venv/bin/python -m tests.project.test_public_api` writes the list again. Commit its diff
with the change, and describe the change for users in CHANGELOG.md.
"""
import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("hypothesis")

from tests.project.test_layers import PUBLIC_MODULES

LIST = Path(__file__).with_name("public_api.txt")
COMPILED = importlib.util.find_spec("numba") is not None  # because tensorlite.compiled needs it
MODULES = [importlib.import_module(name) for name in PUBLIC_MODULES if COMPILED or name != "tensorlite.compiled"]
EXPORTS = [(module, name) for module in MODULES for name in module.__all__]


CLASSES = {value for module, name in EXPORTS if inspect.isclass(value := getattr(module, name))}


def defined_names(cls: type) -> set[str]:
    """Return the names that a class of tensorlite and its bases in tensorlite define."""
    return {name for base in cls.__mro__ if base.__module__.startswith("tensorlite") for name in vars(base)}


def members(cls: type) -> list[str]:
    """Return the public methods and attributes that a class of tensorlite adds to those of its exported bases."""
    inherited = {name for base in cls.__mro__[1:] if base in CLASSES for name in defined_names(base)}
    return sorted(name for name in defined_names(cls) - inherited if not name.startswith("_"))


def public_names() -> list[str]:
    """Return every exported name with its module, and the members of each class once, where it is exported first."""
    names, seen = set(), set()
    for module, name in EXPORTS:
        value = getattr(module, name)
        names.add(f"{module.__name__}.{name}")
        if inspect.isclass(value) and value not in seen:
            seen.add(value)
            names.update(f"{module.__name__}.{name}.{member}" for member in members(value))
    return sorted(names)


def undocumented(value: object) -> bool:
    """Return whether `value` is a class, a module or callable, and has no docstring of its own."""
    if inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, ModuleType):
        return not value.__doc__
    return callable(value) and value.__doc__ in (None, "", type(value).__doc__)


def test_exports_equal_the_list():
    listed = LIST.read_text("utf-8").splitlines()
    assert public_names() == [name for name in listed if COMPILED or not name.startswith("tensorlite.compiled.")]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_is_well_formed(module):
    assert len(set(module.__all__)) == len(module.__all__)
    assert not [name for name in module.__all__ if name.startswith("_") and name != "__version__"]
    assert not [name for name in module.__all__ if not hasattr(module, name)]


@pytest.mark.parametrize("module", [m for m in MODULES if hasattr(m, "__path__")], ids=lambda m: m.__name__)
def test_a_package_has_only_the_names_that_it_exports(module):
    """A helper that an __init__.py imports would look public, as tl.np would."""
    names = {name for name in vars(module) if name.isidentifier()}  # pytest adds "@pytest_ar" to modules
    stray = {name for name in names if not name.startswith("_")} - set(module.__all__)
    assert not {name for name in stray if f"{module.__name__}.{name}" not in submodules(module)}


def submodules(package: ModuleType) -> set[str]:
    """Return the dotted names of the modules in a package."""
    folder = Path(str(package.__file__)).parent
    return {f"{package.__name__}.{path.stem}" for path in folder.iterdir()}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_has_a_docstring(module):
    assert not undocumented(module)
    assert not [name for name in module.__all__ if undocumented(getattr(module, name))]


def test_every_public_method_has_a_docstring():
    """The docstring may be that of the method that it overrides."""
    assert not sorted(
        f"{cls.__qualname__}.{member}"
        for cls in CLASSES
        for member in members(cls)
        if callable(getattr(cls, member)) and not inspect.getdoc(getattr(cls, member))
    )


def test_names_that_are_loaded_on_first_use_are_not_modules():
    """A module of the same name would hide the function: `from tensorlite.testing import programs` gave a module."""
    lines = [
        "import tensorlite.testing",
        "for name in tensorlite.testing.__all__:",
        "    scope = {}",
        "    exec(f'from tensorlite.testing import {name}', scope)",
        "    assert type(scope[name]).__name__ != 'module', name",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


if __name__ == "__main__":
    LIST.write_text("\n".join(public_names()) + "\n", "utf-8")
