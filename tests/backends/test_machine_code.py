"""The machine code of compiled functions: equal bits from the compiler and from disk, damaged files, no compiler."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tensorlite.backends import reference

REPOSITORY = Path(__file__).parents[2]


def run_python(*args, **environment):
    """Run Python in the repository with more environment variables; return its output and its error output."""
    done = subprocess.run(
        [sys.executable, *args], cwd=REPOSITORY, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def others_than_results(folder, names):
    """Return the files that shutil.copytree leaves out: other tests are writing them now."""
    kept = (".code", ".pickle", ".txt")
    return {name for name in names if not name.endswith(kept) and not os.path.isdir(os.path.join(folder, name))}


def test_the_process_that_compiles_computes_the_bits_of_later_ones(tmp_path):
    """Every kernel, a training run, and a run resumed from a state that the first process saved."""
    pytest.importorskip("tensorlite.compiled", exc_type=ImportError)
    program, environment = ("-m", "tests.support.compiled_bits", str(tmp_path)), {"NUMBA_CACHE_DIR": str(tmp_path)}
    if ready := os.environ.get("TENSORLITE_COMPILED_BITS"):  # .ci/run has run the first process, with another folder
        shutil.copytree(ready, tmp_path, ignore=others_than_results, dirs_exist_ok=True)
        compiled = (tmp_path / "output.txt").read_text("utf-8")
    else:
        compiled, _ = run_python(*program, **environment)
    files = sorted(tmp_path.rglob("*.code"))
    times = [file.stat().st_mtime_ns for file in files]
    loaded, _ = run_python(*program, **environment)
    assert loaded.splitlines() == compiled.splitlines()
    straight, resumed = [line for line in loaded.splitlines() if line.startswith("run")]
    assert resumed == straight
    assert len(files) > 10
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.rglob("*.code"))] == times  # nothing compiled again


# ---- damaged files, and folders that cannot be written --------------------------------------


@pytest.fixture
def make_function(tmp_path, monkeypatch):
    """Return a function that compiles ``3 x + 1`` with a cache in an empty folder."""
    support = pytest.importorskip("tensorlite.backends.cpu.compiled.support", exc_type=ImportError)
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    support.warn_once.cache_clear()

    def plain(x):
        return 3.0 * x + 1.0

    return lambda: support.njit("f8(f8)", nogil=True, cache=True)(plain)


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_code_is_loaded_from_disk(make_function, tmp_path):
    assert make_function()(2.0) == 7.0
    (file,) = files_in(tmp_path)
    written = file.stat().st_mtime_ns
    assert make_function()(2.0) == 7.0
    assert file.stat().st_mtime_ns == written


def test_a_compilation_is_logged_and_prints_nothing(make_function, caplog, capfd):
    caplog.set_level("INFO", "tensorlite.compiled")
    counts = []
    for _ in range(2):
        make_function()
        counts.append(len(caplog.records))
    assert counts == [1, 1]  # The second one is loaded from disk.
    assert "plain" in caplog.text
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "longer"])
def test_a_damaged_file_is_compiled_anew(make_function, tmp_path, damage):
    make_function()
    (file,) = files_in(tmp_path)
    whole = file.read_bytes()
    flipped = [whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :] for i in range(0, len(whole), len(whole) // 5)]
    contents = {"cut": [whole[:-1], whole[: len(whole) // 2], whole[:20]], "empty": [b""], "flip": flipped,
                "longer": [whole + b"0"]}[damage]  # fmt: skip
    for content in contents:
        file.write_bytes(content)
        assert make_function()(2.0) == 7.0
        assert file.read_bytes() != content
        assert len(files_in(tmp_path)) == 1


def test_a_full_disk_gives_one_warning(make_function, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.warns(RuntimeWarning, match=r"cannot be saved in .*No space left.*NUMBA_CACHE_DIR") as warned:
        assert [make_function()(2.0), make_function()(3.0)] == [7.0, 10.0]
    assert len(warned) == 1
    assert files_in(tmp_path) == []


def test_no_folder_for_the_code_gives_one_warning(make_function, monkeypatch):
    def no_locator(*args):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.core.caching.FunctionCache.__init__", no_locator)
    with pytest.warns(RuntimeWarning, match="no locator available.*NUMBA_CACHE_DIR") as warned:
        assert [make_function()(2.0), make_function()(3.0)] == [7.0, 10.0]
    assert len(warned) == 1


# ---- changed sources ------------------------------------------------------------------------


def test_the_code_is_compiled_again_when_a_source_of_the_kernels_changes(make_function, tmp_path, monkeypatch):
    """numba looks only at the file of the function, but code and constants of other files are compiled into it."""
    make_function()
    (before,) = files_in(tmp_path)
    code = importlib.import_module("tensorlite.backends.cpu.compiled.machine_code")
    sources = code.kernel_sources()
    changed = tmp_path / "changed.py"
    changed.write_text("# longer")
    monkeypatch.setattr(code, "kernel_sources", lambda: [changed, *sources[1:]])
    make_function()
    changed.unlink()
    (after,) = files_in(tmp_path)  # the old code is deleted
    assert after.name != before.name


def test_every_file_that_compiled_kernels_import_is_one_of_their_sources():
    """A constant of any of these files may be frozen into machine code."""
    code = pytest.importorskip("tensorlite.backends.cpu.compiled.machine_code", exc_type=ImportError)
    folder, sources = Path(code.__file__).parent, code.kernel_sources()
    imported = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                package = path.parents[node.level - 1] / (node.module or "").replace(".", "/")
                names = [package.with_suffix(".py")] if node.module else [package / f"{a.name}.py" for a in node.names]
                imported |= {name for name in names if name.exists()}
    assert Path(reference.__file__) in imported
    assert imported <= set(sources)


# ---- a compiler that does not work ----------------------------------------------------------

GELU = "import tensorlite as tl; x = tl.ones(100, 100); print(tl.nn.functional.gelu(x @ x).sum().item())"


@pytest.fixture(scope="module")
def without_jit():
    return run_python("-c", GELU, TENSORLITE_JIT="0")


@pytest.mark.parametrize(
    "line",
    ["raise SystemError('no LLVM')", "raise ImportError('needs NumPy 1')", "import nothing_of_this_name", "config = 1"],
)
def test_a_broken_numba_gives_one_warning_and_numpys_results(tmp_path, line, without_jit):
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text(line)
    out, errors = run_python("-c", GELU, PYTHONPATH=f"{tmp_path}:{REPOSITORY}")
    assert (out, "") == without_jit
    assert np.isfinite(float(out))
    assert errors.count("RuntimeWarning") == 1
    assert "tensorlite: numba is installed but does not work" in errors
    assert "TENSORLITE_JIT=0" in errors


def test_without_numba_there_is_no_warning():
    """Without numba, there is usually no llvmlite either."""
    code = "import sys; sys.modules['numba'] = sys.modules['llvmlite'] = None; " + GELU
    assert run_python("-c", code)[1] == ""
