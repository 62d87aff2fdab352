"""pyright and mypy over programs that use tensorlite as an installed package: strict, except for the experiments."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXPRESSIONS = HERE / "expressions.py"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LESSONS = [path for path in EXAMPLES if "01" <= path.name[:2] <= "06"]
EXPERIMENTS = [path for path in EXAMPLES if path not in LESSONS]  # Their functions take arrays without type parameters.
PROGRAMS = [HERE / "program.py", *EXAMPLES]
Errors = Mapping[str, Mapping[int, str]]
"""The first message on each line with an error, for each file name."""


def find_pyright() -> str | None:
    """Return the path of pyright, or of basedpyright, which is the same checker as one wheel without downloads."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which("basedpyright", path=places) or shutil.which("pyright", path=places)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a user's folder with the programs, and an environment in which this tensorlite is installed."""
    folder = tmp_path_factory.mktemp("project")
    packages = folder / "env" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (folder / "env" / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    for name in ("tensorlite", "gpt"):
        (packages / name).symlink_to(ROOT / name)
    for name in ("numpy", "matplotlib"):
        if spec := importlib.util.find_spec(name):
            (packages / name).symlink_to(Path(str(spec.origin)).parent)
    (folder / "user").mkdir()
    for path in (EXPRESSIONS, *PROGRAMS):
        shutil.copy(path, folder / "user")
    return folder


@pytest.fixture(scope="module")
def pyright_errors(project: Path) -> Errors:
    pyright = find_pyright()
    if pyright is None:
        pytest.skip("pyright is not installed: pip install basedpyright")
    settings = {"venvPath": ".", "venv": "env", "typeCheckingMode": "strict", "include": ["user"]}
    if importlib.util.find_spec("matplotlib") is None:
        settings["reportMissingImports"] = settings["reportUnknownVariableType"] = "none"
    (project / "pyrightconfig.json").write_text(json.dumps(settings))
    for path in EXPERIMENTS:
        copy = project / "user" / path.name
        copy.write_text("# pyright: standard\n" + path.read_text("utf-8"), "utf-8")
    run = subprocess.run([pyright, "--outputjson", "-p", str(project)], capture_output=True, text=True, check=False)
    notes, _, report = run.stdout.partition("{")  # the wrapper from PyPI may print notes first
    if not report:
        pytest.skip(f"pyright does not start: {notes[-200:]}{run.stderr[-200:]}")
    errors: dict[str, dict[int, str]] = {}
    experiments = {path.name for path in EXPERIMENTS}
    for found in json.loads("{" + report)["generalDiagnostics"]:
        name = Path(found["file"]).name
        # A loop over a list that is never empty binds its variables. The rule has another name in basedpyright.
        unbound = name in experiments and found.get("rule", "").startswith("reportPossiblyUnbound")
        if found["severity"] == "error" and not unbound:
            lines = errors.setdefault(name, {})
            lines.setdefault(found["range"]["start"]["line"] + 1, found["message"])
    return errors


@pytest.fixture(scope="module")
def mypy_errors(project: Path) -> Errors:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed: pip install mypy")
    options = (
        f"mypy_path = {ROOT}\nscripts_are_modules = true\n"
        "[mypy-tensorlite.*,gpt.*]\nfollow_imports = silent\n"
        "[mypy-numba.*,torch.*,transformers.*]\nfollow_imports = skip\n"
        "[mypy-matplotlib.*]\nignore_missing_imports = true\n"
    )
    (project / "mypy.ini").write_text(f"[mypy]\nstrict = true\n{options}")
    (project / "standard.ini").write_text(f"[mypy]\ncheck_untyped_defs = true\n{options}")
    errors: dict[str, dict[int, str]] = {}
    cache = ROOT / ".mypy_cache" / "users"
    for path in sorted((project / "user").glob("*.py")):
        config = "standard.ini" if ROOT / "examples" / path.name in EXPERIMENTS else "mypy.ini"
        command = [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", str(cache), str(path)]
        run = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert run.returncode in (0, 1), run.stdout + run.stderr
        pattern = rf"^(?:.*/)?{re.escape(path.name)}:(\d+): error: (.*)$"
        for line, message in re.findall(pattern, run.stdout, re.MULTILINE):
            errors.setdefault(path.name, {}).setdefault(int(line), message)
    return errors


def check_expressions(errors: Errors) -> None:
    """Assert that the lines of expressions.py with an error are those that end in ``# wrong``."""
    lines = EXPRESSIONS.read_text("utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("  # wrong")}
    found = errors.get(EXPRESSIONS.name, {})
    assert {number: f"{lines[number - 1]}: {found[number]}" for number in found.keys() - wrong} == {}
    assert {number: lines[number - 1] for number in wrong - found.keys()} == {}, "not refused"


def test_pyright_finds_the_types(pyright_errors):
    check_expressions(pyright_errors)


def test_mypy_finds_the_types(mypy_errors):
    check_expressions(mypy_errors)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_pyright_accepts(path, pyright_errors):
    assert pyright_errors.get(path.name, {}) == {}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_mypy_accepts(path, mypy_errors):
    assert mypy_errors.get(path.name, {}) == {}


def test_enough_expressions():
    text = EXPRESSIONS.read_text("utf-8")
    assert text.count("\nassert_type(") >= 150
    assert text.count("  # wrong\n") >= 50
