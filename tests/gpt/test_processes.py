"""Test runs in several processes, as users start them: with --processes, and with mpiexec."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("click")
pytest.importorskip("mpi4py")
pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
from click.testing import CliRunner

from gpt import checkpoint
from gpt.cli import main
from gpt.cli.launch import LaunchError, find_mpiexec
from gpt.cli.rank_process import launched
from gpt.runs import LATEST
from tests.gpt.small_runs import assert_same_checkpoint, measured

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
try:
    find_mpiexec()
except LaunchError as error:
    pytest.skip(str(error), allow_module_level=True)


LONG = {"model__dropout": 0.3, "train__steps": 90, "train__eval_interval": 30, "train__checkpoint_interval": 15}


@pytest.fixture
def command(tiny, tmp_path):
    """Return a function that starts `gpt train` in two processes, with a small configuration of the name `run`."""

    def make(run, *arguments):
        path = tmp_path / f"{run}.toml"
        path.write_text(tiny(run, train__sample_chars=0, **LONG).to_toml())
        what = arguments or ("--config", str(path))
        line = [sys.executable, "-m", "gpt", "train", "--processes", "2", *what]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return make


def wait_for_evaluation(process):
    """Read the output of a process until the first evaluation, and return it."""
    read = ""
    for line in process.stdout:
        read += line
        if line.startswith("step     30 "):
            return read
    raise AssertionError(f"{read}\n{process.stderr.read()}")


def test_two_processes_stop_by_a_signal_and_go_on(command, tmp_path):
    """The run has the bits of one that was not stopped. Each process has other dropout."""
    out, err = (whole := command("whole")).communicate(timeout=120)
    assert whole.returncode == 0, err
    assert "2 processes, 1 thread each, share the sequences of a step\n" in out
    assert out.count("validation loss") == 1
    states = checkpoint.load(tmp_path / "whole" / LATEST, training=True).state["dropout_of_ranks"]
    assert states[0] != states[1]

    stopped = command("broken")
    wait_for_evaluation(stopped)
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate(timeout=120)
    assert (stopped.returncode, out.count("Stopped after step"), err.count("SIGTERM: finishing")) == (143, 1, 1)
    out, err = (resumed := command("broken", "--resume", str(tmp_path / "broken"))).communicate(timeout=120)
    assert resumed.returncode == 0, err
    assert_same_checkpoint(tmp_path / "broken" / LATEST, tmp_path / "whole" / LATEST)
    assert measured(tmp_path / "broken") == measured(tmp_path / "whole")


def test_a_process_that_is_killed_is_named(command, tmp_path):
    run = command("killed")
    wait_for_evaluation(run)
    os.kill(last_child(run.pid), signal.SIGKILL)
    err = run.communicate(timeout=120)[1]
    assert run.returncode != 0
    assert re.search(r"Error: rank [01] was killed by SIGKILL \((step|evaluation after step) \d+\), and all", err)
    assert err.count("Error: ") == 1
    assert checkpoint.load(tmp_path / "killed" / LATEST).step % 15 == 0


def last_child(number):
    """Return the last process below one: that of a rank, below its parent, below mpiexec."""
    children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    return last_child(int(children[-1])) if children else number


def test_an_error_of_all_ranks_is_told_once(command, tmp_path):
    run = command("odd", "--config", str(tmp_path / "odd.toml"), "--batch-size", "3")
    out, err = run.communicate(timeout=60)
    assert run.returncode != 0
    assert err.count("Error: --batch-size 3: 2 processes cannot share it equally. Use --batch-size 2 or 4") == 1
    assert "Traceback" not in out + err
    assert not (tmp_path / "odd" / LATEST).exists()


PROGRAM = """
import os, signal, sys
from gpt.cli.rank_process import go_on_in_a_child
activity = go_on_in_a_child(3)
activity.write("step 7")
if sys.argv[1] == "exit":
    sys.exit(5)
os.kill(os.getpid(), getattr(signal, sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ("exit", 5, ""),
        ("SIGKILL", 137, "Error: rank 3 was killed by SIGKILL (step 7), and all processes stop. The system kills"),
        ("SIGABRT", 134, "Error: rank 3 was killed by SIGABRT (step 7), and all processes stop. The last checkpoint"),
    ],
)
def test_the_parent_of_a_rank_tells_how_it_ended(how, status, words):
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert done.stderr.startswith(words)
    assert bool(done.stderr) == bool(words)


def test_a_missing_mpiexec_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(main, ["train", "--processes", "2"])
    assert result.exit_code == 2
    assert "expected the program mpiexec, which is not installed. Run pip install 'tensorlite[mpi]'" in result.output


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        ({"PMI_RANK": "2", "PMI_SIZE": "4"}, (2, 4)),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, None),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, (1, 2)),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8"}, (3, 8)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),  # the shell of a batch script
        ({"PMIX_RANK": "5"}, (5, None)),
    ],
)
def test_launchers(monkeypatch, variables, found):
    for name in [name for name in os.environ if name.startswith(("PMI", "OMPI", "MV2", "SLURM"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched() == found


def test_another_number_of_processes_than_that_of_the_launcher_is_an_error(monkeypatch):
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    result = CliRunner().invoke(main, ["train", "--processes", "3"])
    assert "--processes 3 does not fit: the launcher has started 2. Leave it out" in result.output


def test_profile_has_one_process():
    result = CliRunner().invoke(main, ["train", "--processes", "2", "--profile"])
    assert "give --profile or --processes, not both" in result.output
