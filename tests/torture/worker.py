"""Train as a user does after a crash: resume if there is a checkpoint, and otherwise begin.

`python -m tests.torture.worker ORDER` takes an `Order` as JSON, in a process of its own. Several of them, which
`mpiexec` starts, are the ranks of a run: they run the command `train`, as `python -m gpt` does.
"""

import dataclasses
import json
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gpt import checkpoint, train
from gpt.checkpoint import Snapshot
from gpt.cli import main
from gpt.cli import train as command
from gpt.cli.rank_process import launched
from gpt.config import Config
from gpt.runs import LATEST, RunFolder
from gpt.train import report, saver
from tests.torture.recorder import Recorder

RUN = Path("runs", "run")  # the folder of a run, below the root

TINY = {
    "name": "tiny",
    "model.block_size": 8,
    "model.n_layer": 1,
    "model.n_head": 2,
    "model.n_embd": 16,
    "model.dropout": 0.2,
    "optim.lr": 1e-2,
    "optim.min_lr": 1e-3,
    "optim.warmup_steps": 5,
    "train.steps": 30,
    "train.batch_size": 4,
    "train.eval_interval": 10,
    "train.eval_batches": 2,
    "train.checkpoint_interval": 5,
    "train.sample_chars": 0,
    "train.log_layers": 5,
}

# What the runs differ in, so that each part of the state of a run is in one of them at least.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"train.grad_accum": 2},
    "muon": {"optim.optimizer": "muon", "train.keep": 3, "train.eval_interval": 7, "train.checkpoint_interval": 4},
    "compiled": {"train.steps": 120, "train.checkpoint_interval": 15, "train.eval_interval": 30, "train.keep": 2},
    "foreground": {"train.save_in_background": False, "train.dtype": "float64", "train.log_layers": 1},
    "often": {"train.checkpoint_interval": 1, "train.eval_interval": 3, "train.on_save_error": "continue"},
    "watched": {"train.ema_decay": 0.9, "train.on_spike": "skip", "train.spike_factor": 0.5, "train.patience": 9},
    "schedule": {"optim.schedule": "wsd", "model.previous_tokens": 2, "train.checkpoint_interval": 3},
}
LATE_COPIES = ("plain", "compiled", "schedule")  # the runs that copy as large models do


@dataclass(frozen=True)
class Order:
    """What a worker does.

    root: the folder that holds everything that the run writes. text: the file to train on. journal: see `Recorder`,
    as are kill_at and ignored. kill_rank: the rank that kills itself, at the event `kill_at` if it is rank 0, which
    writes, and another at its call of that number.
    """

    root: str
    text: str
    variant: str
    journal: str
    kill_at: int = 0
    ignored: str = ""
    kill_rank: int = 0

    def to_json(self) -> str:
        """Return the order as an argument of the command line."""
        return json.dumps(dataclasses.asdict(self))


def work(order: Order, rank: int = 0) -> bool:
    """Train, and return whether the run is finished."""
    prepare(order, rank)
    folder = Path(order.root) / RUN
    latest = folder / LATEST
    if latest.exists():
        return train.train(checkpoint.load_config(latest), resume=latest)
    return train.train(make_config(folder, Path(order.text), order.variant))


def prepare(order: Order, rank: int) -> None:
    """Record in rank 0 what it writes, and change what a short run is too short for."""
    # A shell lets its background jobs ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if rank == 0:
        kill_at = order.kill_at if order.kill_rank == 0 else 0
        recorder = Recorder(Path(order.root), Path(order.journal), kill_at, order.ignored)
        recorder.install()
        note_saves(recorder)
    # The lock of tqdm is one of all forks of a process, and a fork that is killed may hold it.
    tqdm.set_lock(threading.RLock())
    if order.variant in LATE_COPIES:
        saver.LATE_COPY = 0
    report.draw_curve = lambda trainer: False  # because it takes longer than the steps


def work_as_command(order: Order) -> None:
    """Run the command `train`, which ends the process. It is one of several that `mpiexec` has started."""
    start = command.start_processes

    def start_processes(count: int | None) -> None:
        """Prepare the child that goes on with the command."""
        start(count)
        prepare(order, (launched() or (0, None))[0])

    command.start_processes = start_processes
    folder = Path(order.root) / RUN
    if (folder / LATEST).exists():
        main(["train", "--resume", str(folder)])
    main(["train", "--config", str(options_of(order))])


def options_of(order: Order) -> Path:
    """Return the file that has the options of a run of several processes."""
    return Path(f"{order.journal}.toml")


def make_config(folder: Path, text: Path, variant: str) -> Config:
    """Return the configuration of a run."""
    own = {"data.dataset": str(text), "train.out_dir": str(folder)}
    return Config.load("shakespeare-char-cpu", {**TINY, **own, **VARIANTS[variant]})


def note_saves(recorder: Recorder) -> None:
    """Note in the journal when the run believes that its latest checkpoint is on the disk."""
    write, keep = Snapshot.write, RunFolder.keep_numbered

    def noted_write(content: Snapshot, path: Path) -> None:
        write(content, path)
        if path.name == LATEST:
            recorder.note("saved", step=content.step)

    def noted_keep(folder: RunFolder, step: int, count: int) -> None:
        keep(folder, step, count)
        recorder.note("saved", step=step)

    Snapshot.write, RunFolder.keep_numbered = noted_write, noted_keep  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    given = Order(**json.loads(sys.argv[1]))
    if launched() is not None:
        work_as_command(given)
    sys.exit(0 if work(given) else 3)
