"""Test the wheel, its metadata, and the commands of the Makefile."""
import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import tensorlite as tl

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

# The distributions of modules that have another name than their distribution.
DISTRIBUTION_OF = {
    "tiktoken_ext": "tiktoken", "cupy": "cupy-cuda13x", "cupyx": "cupy-cuda13x", "llama_cpp": "llama-cpp-python",
}  # fmt: skip

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def named(*requirements: str) -> set[str]:
    """Return the distributions that requirements name: {"cupy-cuda12x"} for "cupy-cuda12x[ctk]>=14"."""
    return {re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0] for requirement in requirements}


def imported_by(*folders: str) -> set[str]:
    """Return the distributions that the files in `folders` import from, also inside functions."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    # Scripts import each other by their stems, modules of a package do not.
    scripts = {path.stem for path in paths if not (path.parent / "__init__.py").exists()}
    found -= sys.stdlib_module_names | {"tensorlite", "gpt", "tests", "tools"} | scripts
    return {DISTRIBUTION_OF.get(module, module) for module in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    script = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(folder / done.stdout.split()[-1]) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_holds_every_file_of_both_packages(wheel):
    here = {
        path.relative_to(ROOT).as_posix()
        for package in ("tensorlite", "gpt")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == here
    assert {"tensorlite/py.typed", "tensorlite/ops/__init__.pyi", "tensorlite/backends/cuda/elementwise.cu"} <= here
    assert any(name.startswith("gpt/config/presets/") for name in here)


def test_metadata(metadata):
    assert metadata["Name"] == "tensorlite"
    assert metadata["Version"] == tl.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert set(metadata.get_all("Provides-Extra")) == set(EXTRAS)


def test_numpy_is_the_only_requirement(metadata):
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert named(*required) == {"numpy"}


def test_scripts_say_what_is_missing():
    """A plain `pip install` installs the commands and numpy, but not the other packages that the commands need."""
    for target in PROJECT["scripts"].values():
        module, _, function = target.partition(":")
        script = f"import sys; sys.modules['click'] = None; from {module} import {function}; {function}()"
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr == "Error: the gpt commands need some packages: pip install 'tensorlite[gpt,plot]'\n"


def test_the_changelog_has_a_heading_for_this_version():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings
    assert {"Unreleased", tl.__version__} & set(headings[:2])


def test_every_import_is_declared():
    declared = named(*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra))
    assert imported_by("tensorlite", "tests", "benchmarks") <= declared
    extras = [line for name in ("gpt", "grammar", "hub", "plot", "serve", "tensorboard") for line in EXTRAS[name]]
    assert imported_by("gpt", "examples") <= named("numpy", *extras)


def test_every_declared_requirement_is_used():
    assert named(*EXTRAS["gpt"], *EXTRAS["plot"]) <= imported_by("gpt", "tensorlite")


@needs_make
def test_make_alone_lists_every_command():
    text = (ROOT / "Makefile").read_text("utf-8")
    commands = set(re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)[1].split())
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"^make ([a-z-]+) +\S", done.stdout, re.MULTILINE)) == commands


@needs_make
def test_gpu_check_without_a_gpu_says_so():
    command = ["make", "gpu-check", "GPU_PYTHON=/no/such/python"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "nothing to check" in done.stdout
    assert "/no/such/python" in done.stdout


def unchecked_imports(source: str) -> list[str]:
    """Return what a test file imports from packages that a GPU machine may lack, without importorskip before it."""
    known = {*sys.stdlib_module_names, "numpy", "pytest", "tensorlite", "gpt", "tests", "benchmarks", "tools"}
    found = []
    for node in ast.parse(source).body:
        match node:
            case ast.Expr(ast.Call(ast.Attribute(attr="importorskip"), [ast.Constant(name), *_])):
                known.add(name.partition(".")[0])
            case ast.Assign(value=ast.Call(ast.Attribute(attr="importorskip"), [ast.Constant(name), *_])):
                known.add(name.partition(".")[0])
            case ast.Import(names):
                found += [alias.name for alias in names if alias.name.partition(".")[0] not in known]
            case ast.ImportFrom(module=str(name), level=0) if name.partition(".")[0] not in known:
                found.append(name)
    return found


def test_gpu_check_can_collect_every_file():
    """A GPU machine has CuPy, NumPy and pytest. An import of another package would end the collection with an error."""
    wrong = {path.name: unchecked_imports(path.read_text("utf-8")) for path in (ROOT / "tests").rglob("test_*.py")}
    assert not {name: imports for name, imports in wrong.items() if imports}
    assert unchecked_imports("import click.testing\npytest.importorskip('click')\nimport click") == ["click.testing"]


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell script")
def test_an_interpreter_that_is_too_old_is_named(tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho 'is Python 3.9.2' >&2\nexit 1\n", "utf-8")
    old.chmod(0o755)
    done = subprocess.run([ROOT / "tools" / "make-venv", old], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert f"{old}: is Python 3.9.2" in done.stderr
    assert not (tmp_path / ".venv").exists()
