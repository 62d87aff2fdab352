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
from gpt.runs import LATEST, RunFolder
from tests.gpt.small_runs import assert_same_checkpoint, measured
from tests.torture.launch import descendants, end_each

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
try:
    find_mpiexec()
except LaunchError as error:
    pytest.skip(str(error), allow_module_level=True)


LONG = {"model__dropout": 0.3, "train__steps": 90, "train__eval_interval": 30, "train__checkpoint_interval": 15}


@pytest.fixture
def command(tiny, tmp_path, monkeypatch):
    """Return a function that starts `gpt train` in two processes, with a small configuration of the name `run`."""

    monkeypatch.delenv("TENSORLITE_NUM_THREADS", raising=False)  # conftest.py may set it, and it is not shared out

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
    assert err.count("checkpoint ") == 1
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


def test_a_launcher_that_is_killed_leaves_no_process(command, tmp_path):
    """The run saves and ends, as after SIGTERM, and the next one gets the folder."""
    run = command("alone")
    wait_for_evaluation(run)
    below = [number for number, _ in descendants(run.pid)]
    assert len(below) == 6  # mpiexec, its helper, and two processes a rank
    run.kill()
    out = run.communicate(timeout=60)[0]
    assert not end_each(below, 10)
    assert out.count("Stopped after step") == 1
    with RunFolder(tmp_path / "alone").lock():
        assert checkpoint.load(tmp_path / "alone" / LATEST).step >= 30


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


WAITING = """
import os, time
from gpt.cli.rank_process import go_on_in_a_child
parent = os.getpid()
go_on_in_a_child(0)
print(parent, os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell of the end of a parent")
def test_a_rank_ends_with_its_parent():
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True) as process:
        parent, child = map(int, process.stdout.readline().split())
        os.kill(parent, signal.SIGKILL)
        assert not end_each([child], 10)


def test_a_rank_ends_with_its_launcher():
    """mpiexec cannot end the ranks of a machine whose helper was killed."""
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAITING!r}])"
    with subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True) as process:
        numbers = list(map(int, process.stdout.readline().split()))
        process.kill()
        assert not end_each(numbers, 10)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGABRT"])
def test_the_parent_of_a_rank_that_has_not_connected_ends_by_a_signal(name):
    """mpiexec ends the others then. After an exit they would wait for this rank in MPI_Init."""
    code = PROGRAM.replace('activity.write("step 7")\n', "")
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -(signal.SIGTERM if name == "SIGTERM" else signal.SIGKILL)
    assert done.stderr.startswith(f"Error: rank 3 was killed by {name} (before the first step)")


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
