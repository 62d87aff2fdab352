"""Test Ctrl-C and the progress bar."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("platformdirs")
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")
from gpt import checkpoint
from gpt.runs import LATEST, METRICS, read
from gpt.train.interrupt import Interrupt
from gpt.train.progress import format_metrics, progress_bar, this_python

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("default_ctrl_c")


# --- Ctrl-C


def test_the_second_ctrl_c_stops_at_once(capfd):
    with Interrupt() as interrupt, interrupt.deferred():
        assert not interrupt.requested
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        assert "Ctrl-C again stops at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_existing_handler_is_kept(monkeypatch):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupt() as interrupt, interrupt.deferred():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.raise_signal(signal.SIGINT)
        assert not interrupt.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_this_python(tmp_path, monkeypatch):
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "python.exe"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folder / ("python.exe" if os.name == "nt" else "python")))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert this_python() == sys.executable  # PATH has no python.
    monkeypatch.chdir(tmp_path)
    assert Path(this_python()) == Path(sys.executable).relative_to(tmp_path)
    monkeypatch.setenv("PATH", str(folder))  # The environment is active.
    assert this_python() == "python"


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for one process on Windows")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_and_resume_on_the_command_line(text, tmp_path, number):
    pytest.importorskip("click")
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "gpt", "train"]
    options = (
        f"--data {text} --out {folder} --name tiny --block-size 8 --n-layer 1 --n-head 1 --n-embd 8 --batch-size 2 "
        "--steps 1000000 --eval-interval 1000000 --checkpoint-interval 1000000 --warmup-steps 5"
    )
    process = subprocess.Popen(
        [*command, *options.split()], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not read(folder / METRICS) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number, err
    assert f" -m gpt train --resume {folder}\n" in out
    assert "Traceback" not in err
    step = checkpoint.load(folder / LATEST).step
    assert step >= 10
    if number != signal.SIGINT:
        return
    more = f"--resume {folder} --steps {step + 3} --sample-chars 0"
    done = subprocess.run([*command, *more.split()], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(folder / LATEST).step == step + 3


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_run_goes_on_without_a_reader(text, tmp_path):
    """The reader of the output has ended before the first line, as in `train | true`."""
    pytest.importorskip("click")
    options = f"--data {text} --out run --block-size 8 --n-layer 1 --n-head 1 --n-embd 8 --batch-size 2 --steps 3"
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "gpt", "train", *options.split()], cwd=tmp_path, stdout=write_end,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120, check=False,
    )  # fmt: skip
    os.close(write_end)
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "Nobody reads the output any longer (Broken pipe). Training goes on without it; Ctrl-C stops it.\n"
    )
    assert "final_val_loss" in read(tmp_path / "run" / METRICS)[-1]


# --- the progress bar


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals on Windows")
@pytest.mark.parametrize("columns", [0, 80, 120])
def test_the_bar_shows_every_number_in_80_columns(monkeypatch, columns):
    """A terminal that reports no width is treated as 80 columns wide."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    line = {"loss": 3.99506, "lr": 9.9e-05, "ms_per_step": 326.278, "tokens_per_second": 18037.1}
    shows = b""
    with open(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_bar(1230, 2000) as bar:
            bar.set_postfix_str(format_metrics(line))
            while select.select([ours], [], [], 0.1)[0]:
                shows += os.read(ours, 10000)
        monkeypatch.undo()
    os.close(ours)
    shows = shows.decode().split("\r")[-1]
    assert re.match(
        r"step 1230/2000, loss 3\.995, lr 9\.9e-05, 326.3 ms/step, 18.0k tok/s, (\?|[\d:]+) left", shows
    ), shows
    assert len(shows) <= (columns or 80)
