"""Measure what a training step costs where the cores are not free: next to another process, with a limit, and so on.

    python benchmarks/bench_load.py                 all shapes, tensorlite and PyTorch
    python benchmarks/bench_load.py --shape M --only tensorlite

Each situation is compared with the quiet one: a process alone on the machine. Blocks of all situations alternate. The
loaded time is divided by the quiet one, so 2.0 means that a step takes twice as long. The column `ideal` is the ratio
if the whole step used all cores and no time were lost. The Python part of a step uses one core, so a small model can
have a lower ratio.

The ratio of means counts, because a limit of the operating system stops all threads for tens of milliseconds in some
steps and not in others.
"""

import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from disturbance import Disturbance
from environment import available_cores, describe_environment, saved
from processes import options, start_process
from step_sides import SHAPES, SIDES, Shape, Weights, make_step, run_steps, why_left_out

CORES = available_cores()
QUOTA = 1.5  # cores
BLOCK = 0.25  # seconds at least, so that a block contains several time slices of the operating system
ROUNDS = 7
CGROUPS = Path("/sys/fs/cgroup")


# ---- the situations -------------------------------------------------------------------------


@contextmanager
def variables(**values: int) -> Iterator[None]:
    """Set environment variables, which a process started in this block inherits."""
    before = dict(os.environ)
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def one_thread() -> Any:
    """Let each library use one thread."""
    return variables(OPENBLAS_NUM_THREADS=1, OMP_NUM_THREADS=1)


def many_threads() -> Any:
    """Let each library use twice as many threads as there are cores."""
    return variables(TENSORLITE_NUM_THREADS=2 * CORES, OMP_NUM_THREADS=2 * CORES)


@contextmanager
def one_core() -> Iterator[None]:
    """Let a process started in this block run on one core, as taskset does."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cgroup_with_quota() -> Path:
    """Make a cgroup with a quota of QUOTA cores and return its folder. Raises OSError if the system does not let us."""
    version_1 = (CGROUPS / "cpu" / "cpu.cfs_quota_us").exists()
    own = re.search(r"^\d+:cpu(?:,cpuacct)?:/(.*)$", Path("/proc/self/cgroup").read_text("utf-8"), re.MULTILINE)
    group = (CGROUPS / "cpu" / (own[1] if own else "") if version_1 else CGROUPS) / f"tensorlite-bench-{os.getpid()}"
    group.mkdir()
    try:
        if version_1:
            (group / "cpu.cfs_period_us").write_text("100000", "ascii")
            (group / "cpu.cfs_quota_us").write_text(str(int(QUOTA * 100_000)), "ascii")
        else:
            (group / "cpu.max").write_text(f"{int(QUOTA * 100_000)} 100000", "ascii")
    except OSError:
        group.rmdir()
        raise
    return group


def remove(group: Path) -> None:
    """Remove a cgroup, whose processes may take a moment to end."""
    for _ in range(50):
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.1)
    print(f"{group} is left: remove it with rmdir")


@contextmanager
def limited(group: Path) -> Iterator[None]:
    """Let a process started in this block run within a cgroup."""
    (group / "cgroup.procs").write_text(str(os.getpid()), "ascii")
    try:
        yield
    finally:
        (group.parent / "cgroup.procs").write_text(str(os.getpid()), "ascii")


@contextmanager
def busy_process(wanted: bool) -> Iterator[None]:
    """Keep a core busy during this block, from another process, if ``wanted``."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-S", "-E", "-c", "while True: pass"]) as process:
        time.sleep(0.05)  # until Python has started
        try:
            yield
        finally:
            process.kill()


class Situation(NamedTuple):
    """A process to measure, and what happens while it does."""

    what: str
    ideal: float  # the ratio to the quiet time if no time is lost
    goal: float | None = None  # the ratio of means that tensorlite promises at most
    process: str = "quiet"
    threads: int = 1  # Python threads that train at once, each a model of its own
    busy: bool = False


SITUATIONS = (
    Situation("quiet", 1.0),
    Situation("one other busy process", (CORES + 1) / CORES, goal=2.0, busy=True),
    Situation("two Python threads train", 2.0, goal=2.2, threads=2),
    Situation("OPENBLAS_NUM_THREADS=1, OMP_NUM_THREADS=1", CORES, process="one thread"),
    Situation(f"{2 * CORES} threads", 1.0, process="many threads"),
    Situation("one core, by affinity", CORES, process="one core"),
    Situation(f"a cgroup's limit of {QUOTA} cores", max(1.0, CORES / QUOTA), process="quota"),
)


# ---- the processes --------------------------------------------------------------------------


def train_in_threads(library: str, name: str, shape: Shape, weights: Weights, pipe: Connection) -> None:
    """Run in a process of its own: for each (threads, steps) received, send the seconds that a step of each took."""
    models: list[tuple[Callable[..., float], np.random.Generator]] = []

    def run(index: int, steps: int) -> None:
        run_steps(models[index][0], shape, models[index][1], steps)

    while order := pipe.recv():
        count, steps = order
        while len(models) < count:
            models.append((make_step(name, shape, weights), np.random.default_rng(0)))
            run(-1, 1)
        run(0, 1)  # the first step of a block fills the caches
        threads = [threading.Thread(target=run, args=(index, steps)) for index in range(count)]
        start = time.perf_counter()
        if count == 1:
            times = [seconds for seconds, _ in run_steps(models[0][0], shape, models[0][1], steps)]
        else:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            times = [(time.perf_counter() - start) / steps] * steps
        pipe.send(times)


class Trainer:
    """A library in one situation's process."""

    def __init__(self, name: str, shape: Shape, weights: Weights) -> None:
        self.process, self.pipe = start_process(SIDES[name].library, train_in_threads, name, shape, weights)

    def run(self, threads: int, steps: int) -> list[float]:
        """Return the seconds of each step."""
        self.pipe.send((threads, steps))
        return list(self.pipe.recv())

    def stop(self) -> None:
        self.pipe.send(None)
        self.process.join()


def start_trainers(name: str, shape: Shape, group: Path | None, quick: bool) -> dict[str, Trainer]:
    """Start a process for each kind of limit; for the first one only, if ``quick``."""
    weights = shape.weights()
    trainers = {"quiet": Trainer(name, shape, weights)}  # first, so that Python's helper process has no limit
    limits: dict[str, Any] = {"one thread": one_thread(), "many threads": many_threads()}
    if hasattr(os, "sched_setaffinity"):
        limits["one core"] = one_core()
    if group is not None:
        limits["quota"] = limited(group)
    for kind, limit in list(limits.items())[: 1 if quick else None]:
        with limit:
            trainers[kind] = Trainer(name, shape, weights)
    return trainers


def print_table(title: str, name: str, situations: list[Situation], times: dict[str, list[float]]) -> None:
    """Print one row a situation; times: seconds of each step by situation, the quiet one first."""
    print(f"\n{title}\n")
    print(f"{'ms a step':44}{'minimum':>9}{'median':>9}{'mean':>9}  ratios of medians, means{'ideal':>7}{'goal':>7}")
    summaries = (min, statistics.median, statistics.fmean)
    quiet = [summary(times["quiet"]) for summary in summaries]
    for situation in situations:
        found = [summary(times[situation.what]) for summary in summaries]
        ratios = [a / b for a, b in zip(found, quiet, strict=True)][1:]
        goal = situation.goal if name.startswith("tensorlite") else None
        end = "" if goal is None else f"{goal:7.2f}" + ("  MISSED" if ratios[1] > goal else "")
        print(
            f"{situation.what:44}" + "".join(f"{1e3 * value:9.2f}" for value in found)
            + f"{ratios[0]:19.2f}{ratios[1]:7.2f}{situation.ideal:7.2f}{end}"
        )  # fmt: skip


def measure(name: str, shape_name: str, group: Path | None, quick: bool) -> None:
    """Print the table of one shape and library."""
    shape = SHAPES[shape_name]
    trainers = start_trainers(name, shape, group, quick)
    situations = [situation for situation in SITUATIONS if situation.process in trainers]
    once = min(trainers["quiet"].run(1, 3))
    steps = 1 if quick else max(1, round(BLOCK / once))
    rounds = 1 if quick else ROUNDS
    times: dict[str, list[float]] = {situation.what: [] for situation in situations}
    disturbance = Disturbance()
    for number in range(rounds + 1):  # the first round warms up
        for situation in situations[:: -1 if number % 2 else 1]:
            with busy_process(situation.busy), disturbance:
                seconds = trainers[situation.process].run(situation.threads, steps)
            if number > 0:
                times[situation.what] += seconds
    for trainer in trainers.values():
        trainer.stop()
    print_table(f"shape {shape_name}, {name}: {rounds} rounds of blocks of {steps} steps", name, situations, times)
    if group is None:
        print("a cgroup's limit is left out, because this user cannot make a cgroup with a quota here")
    print(disturbance.describe(), flush=True)


def main() -> None:
    parser = options(__doc__.splitlines()[0], SHAPES, SIDES)
    args = parser.parse_args()
    try:
        group = cgroup_with_quota()
    except OSError:
        group = None
    try:
        with saved("load", args.save):
            print(describe_environment(*(["torch"] if args.only is None else []), "numba"))
            for shape in SHAPES if args.shape == "all" else [args.shape]:
                for name in [args.only] if args.only else ["tensorlite", "torch"]:
                    reason = why_left_out(name)
                    if reason:
                        print(f"\n{name} is left out: {reason}")
                    else:
                        measure(name, shape, group, args.quick)
    finally:
        if group is not None:
            remove(group)


if __name__ == "__main__":
    main()
