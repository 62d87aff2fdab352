"""The public API is what tests/project/public_api.txt lists, and every name in it says what it is.

After a deliberate change, `.venv/bin/python -m tests.project.test_public_api` writes the list anew; its diff is then
part of the change, and CHANGELOG.md says what users have to know.
"""
import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.project.test_layers import PUBLIC_MODULES

LIST = Path(__file__).with_name("public_api.txt")
COMPILED = importlib.util.find_spec("numba") is not None  # tensorlite.compiled needs it
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
    """Every exported name with its module; a class's members follow it where it is exported first."""
    names, seen = set(), set()
    for module, name in EXPORTS:
        value = getattr(module, name)
        names.add(f"{module.__name__}.{name}")
        if inspect.isclass(value) and value not in seen:
            seen.add(value)
            names.update(f"{module.__name__}.{name}.{member}" for member in members(value))
    return sorted(names)


def undocumented(value: object) -> bool:
    """Whether `value` is something to call or import, and has no docstring of its own."""
    if inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, ModuleType):
        return not value.__doc__
    return callable(value) and value.__doc__ in (None, "", type(value).__doc__)


def test_exports_are_the_listed_ones():
    listed = LIST.read_text("utf-8").splitlines()
    assert public_names() == [name for name in listed if COMPILED or not name.startswith("tensorlite.compiled.")]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_is_well_formed(module):
    assert len(set(module.__all__)) == len(module.__all__)
    assert not [name for name in module.__all__ if name.startswith("_") and name != "__version__"]
    assert not [name for name in module.__all__ if not hasattr(module, name)]


@pytest.mark.parametrize("module", [m for m in MODULES if hasattr(m, "__path__")], ids=lambda m: m.__name__)
def test_a_package_shows_nothing_it_does_not_export(module):
    """A helper imported into an __init__.py would look public: tl.np, tl.annotations."""
    names = {name for name in vars(module) if name.isidentifier()}  # pytest adds "@pytest_ar" to what it rewrites
    stray = {name for name in names if not name.startswith("_")} - set(module.__all__)
    assert not {name for name in stray if f"{module.__name__}.{name}" not in rooms(module)}


def rooms(package: ModuleType) -> set[str]:
    folder = Path(str(package.__file__)).parent
    return {f"{package.__name__}.{path.stem}" for path in folder.iterdir()}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_has_a_docstring(module):
    assert not undocumented(module)
    assert not [name for name in module.__all__ if undocumented(getattr(module, name))]


def test_every_public_method_has_a_docstring():
    """Its own or the one of the method it overrides."""
    assert not sorted(
        f"{cls.__qualname__}.{member}"
        for cls in CLASSES
        for member in members(cls)
        if callable(getattr(cls, member)) and not inspect.getdoc(getattr(cls, member))
    )


def test_what_is_loaded_when_it_is_asked_for_is_what_was_asked_for():
    """A room of the same name would take its place: `from tensorlite.testing import programs` was a module."""
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
