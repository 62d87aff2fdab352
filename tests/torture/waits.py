"""Measure how long training waits for a save, as a share of the time that the save takes.

`python -m tests.torture.waits` trains models of some sizes, first with saves in the background and then without.
"""

import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from gpt.config import Config
from gpt.runs import LATEST
from gpt.train import Trainer, start
from tests.torture.__main__ import machine, write_text

SIZES: dict[str, dict[str, Any]] = {
    "0.8 million": {},
    "10.7 million": {"model.n_layer": 6, "model.n_head": 6, "model.n_embd": 384, "model.block_size": 64},
    "85 million": {"model.n_layer": 12, "model.n_head": 12, "model.n_embd": 768, "train.batch_size": 1},
}
SAVES = 5


def main() -> int:
    """Print a table, and return 0."""
    print(machine())
    print("| parameters | checkpoint | save in the foreground | wait | share | step | step during a save |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, options in SIZES.items():
        with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
            print(f"| {name} | {measure(Path(folder), options)} |", flush=True)
    return 0


def measure(place: Path, options: dict[str, Any]) -> str:
    """Return a row of the table for a model."""
    run = make_run(place, options)
    run.train_step()
    run.saver.reserve(run.state_arrays())
    run.saver.wait()
    plain: list[float] = []
    during: list[float] = []
    waits: list[float] = []
    saves: list[float] = []
    for _ in range(SAVES):
        plain += [timed(run.train_step) for _ in range(3)]
        before = run.saver.waited
        run.saver.submit([LATEST], run.take_snapshot)
        during.append(timed(run.train_step))  # It waits for the copy of a large model.
        waits.append(run.saver.waited - before)
        while run.saver.is_writing():
            during.append(timed(run.train_step))
        run.saver.wait()
        run.saver.poll()
        saves.append(timed(lambda: run.save(LATEST)))
    size = (run.folder.path / LATEST).stat().st_size
    wait, save, step = median(waits), median(saves), median(plain)
    return (
        f"{size / 1e6:.0f} MB | {1e3 * save:.0f} ms | {1e3 * wait:.1f} ms | {wait / save:.1%} | {1e3 * step:.0f} ms | "
        f"{1e3 * median(during):.0f} ms"
    )


def make_run(place: Path, options: dict[str, Any]) -> Trainer:
    """Return a run that writes to a folder."""
    own = {"data.dataset": str(write_text(place)), "train.out_dir": str(place / "run"), "train.log_layers": 0}
    with contextlib.redirect_stdout(io.StringIO()):
        return start(Config.load("shakespeare-char-cpu", {**own, **options}))


def timed(function: Any) -> float:
    """Call a function and return the seconds that it took."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
