"""Ranks that are processes of MPI: the same bits as ranks that are threads, and errors that end all of them."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("mpi4py")
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="needs mpiexec, which the extra mpi installs")


def run(size: int, what: str) -> tuple[int, str, str, float]:
    """Return the exit status, the output, the errors and the seconds of the program."""
    command = [str(MPIEXEC), "-n", str(size), sys.executable, "-m", "tests.distributed.mpi_program", what]
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment.pop("TENSORLITE_NUM_THREADS", None)  # conftest.py may set it, and it is not shared out
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    return done.returncode, done.stdout, done.stderr, time.monotonic() - begun


def test_processes_give_the_bits_of_threads():
    status, out, err, _ = run(3, "compute")
    assert (status, out.strip()) == (0, "same 3 True"), err


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("raise", "rank 1 of 2 ended with an error:\nTraceback"),
        ("end", "rank 0: rank 1 ended the program, and rank 0 waits in all_reduce(sum) of float32(3,). The last call "
                "of rank 1 was barrier (step 3)"),
        ("hang", "rank 0: rank 1 did not call all_reduce(sum) of float32(3,) within 3 seconds. The last call of rank "
                 "1 was barrier (step 3)"),
        ("differ", "rank 0: rank 0 called all_reduce(sum) of float32(3,); rank 1 called barrier."),
    ],
)  # fmt: skip
def test_an_error_of_a_rank_ends_all_of_them(what, words):
    status, out, err, _ = run(2, what)
    assert status != 0
    assert words in out + err
    assert (out + err).count("Traceback") == (1 if what == "raise" else 0)
