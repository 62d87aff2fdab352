"""Train a model from start to end."""

import os
import shlex
import sys
import time
from contextlib import nullcontext, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import tensorlite as tl
import tensorlite.distributed as dist
from gpt.config import Config
from gpt.runs import RunFolder
from gpt.train.adapted import report_before, take_best, write_adapter
from gpt.train.interrupt import Interrupt
from gpt.train.output import say
from gpt.train.progress import this_python
from gpt.train.report import report, summary
from gpt.train.setup import check_config, start
from gpt.train.setup import resume as resume_run
from gpt.train.trainer import Trainer


def train(
    config: Config,
    resume: str | Path | None = None,
    init_from: str | Path | None = None,
    *,
    finetune: bool = False,
    merge: bool = False,
    timeout: float = 600.0,
) -> bool:
    """Train a model, evaluate it, and print what was written. Return whether the run was finished.

    resume: a checkpoint to continue from, as if the run had never stopped; `config` is then the one in the checkpoint,
        except for RESUMABLE_OPTIONS. (More steps stretch the cosine of the learning rate.)

    init_from: a model to start from, as `gpt.sources.find` takes it. It gives the weights, the tokenizer and the shape.
        Of `config.model` only the options of dropout and a shorter context are used.

    finetune: evaluate the model before the first step, too. merge: write the merged model after low-rank adaptation.

    Processes that `mpiexec` has started train together: each calls this, and rank 0 prints and writes. A signal to one
    of them stops all. timeout: the seconds that each waits for the others, see `tensorlite.distributed.init`.

    Ctrl-C, SIGTERM or SIGHUP finishes the step and saves; a second one stops immediately. Signals reach the main thread
    only, so in another thread nothing is caught. Raises TrainingError for a loss that is not finite, ConfigError for
    options that differ from the checkpoint, and RunFolderError for a folder that cannot be used. Raises other kinds of
    UserError for data or a checkpoint that cannot be used, and DistributedError for ranks that do not do the same.
    """
    check_config("train", config)
    threads = tl.get_num_threads()
    group = dist.init(timeout)
    resume = None if resume is None else Path(resume)
    folder = RunFolder(config.run_dir if resume is None else resume.parent)
    with Interrupt() as stop, folder.lock() if group.rank == 0 else nullcontext():
        trainer = start(config, folder, init_from, group) if resume is None else resume_run(config, resume, group)
        if trainer.ranks.is_first:
            say(summary(trainer))
            if note := slow_without_numba():
                say(note)
        if finetune:
            trainer.ranks.alone(partial(report_before, trainer))
        began, first = time.perf_counter(), trainer.step
        try:
            done = trainer.optimize()
        except (KeyboardInterrupt, SystemExit):
            if stop.requested and trainer.ranks.is_first:
                kept = f"{folder.latest} is kept, from its last save" if folder.latest.exists() else "nothing is saved"
                with suppress(OSError):
                    print(f"\nStopped at once, in step {trainer.step + 1}; {kept}.", file=sys.stderr)
            raise
        stopped = stop.requested or trainer.ranks.stopping
        command = f"{this_python()} -m gpt {'finetune' if finetune else 'train'} --resume"
        command += f" {shlex.quote(str(folder.path))}" + (" --merge" if merge else "")
        if trainer.ranks.is_first and not stopped:
            tl.set_num_threads(threads)  # The other ranks wait without computing.
            if trainer.patience.is_over():
                say(trainer.patience.text())
            say(f"{trainer.step - first} steps in {time.perf_counter() - began:.1f} s")
        with trainer.ranks.activity("report"):
            reported = trainer.ranks.alone(lambda: finish(trainer, stop, command, merge))
    return done and not stopped and reported is not False


def finish(trainer: Trainer, stop: Interrupt, command: str, merge: bool) -> bool:
    """Report on a run after its last step, and return whether that was done: whether no signal came.

    command: what continues the run.
    """
    if stop.requested or trainer.ranks.stopping:
        say(f"Stopped after step {trainer.step} and saved. To continue: {command}")
        take_best(trainer)  # as a run that is finished, so that the run and its adapter are the same model
        write_adapter(trainer)
        return False
    try:
        report(trainer, merge)
    except (KeyboardInterrupt, SystemExit):
        if stop.number is None:  # It is not from a signal.
            raise
        say(
            f"\nStopped after the last step, {trainer.step}, which is saved. The evaluation of the whole "
            f"validation set and the sample are left out. To make them: {command}"
        )
        return False
    return True


def slow_without_numba() -> str:
    """Return a sentence about the extra `fast` if it is not installed, and otherwise an empty string."""
    # TENSORLITE_JIT=0 is a deliberate choice, and tensorlite warns of a numba that does not work.
    try:
        installed = find_spec("numba") is not None
    except ImportError:
        installed = False
    if installed or os.environ.get("TENSORLITE_JIT") == "0":
        return ""
    return "numba is not installed, so training on a CPU takes several times as long: pip install 'tensorlite[fast]'"


def profile(config: Config, steps: int = 20, warmup: int = 5) -> str:
    """Return a table of the time that each op takes in a few steps. Leaves the folder of the run unchanged."""
    check_config("profile", config)
    with TemporaryDirectory() as folder:
        trainer = start(config, RunFolder(Path(folder)))
        for _ in range(warmup):
            trainer.train_step()
        with tl.profiler.profile() as measured:
            for _ in range(steps):
                trainer.train_step()
    ms = 1e3 * measured.seconds / steps
    return f"{measured.table()}\n{steps} steps after {warmup} to warm up; {ms:.2f} ms per step"
