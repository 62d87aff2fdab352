"""Start a worker, send it signals, and wait for its end.

A launcher is a function of an order and a file for the output. It returns an `Attempt`, which may be several processes.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from gpt.cli.launch import find_mpiexec
from tests.torture.ranks import fork, lead
from tests.torture.worker import RUN, Order, make_config, options_of, work

LONGEST = 120.0  # Seconds that an attempt may take.
RANKS = 2
LOOK = 0.2  # Seconds between two looks at which processes `mpiexec` has started.


class Attempt(Protocol):
    """A worker in progress."""

    def send(self, number: int, rng: random.Random) -> str:
        """Send it a signal, if it has not ended. Return which of its processes got it, "" if it is one."""

    def wait(self, seconds: float) -> int | None:
        """Return its exit status, negative for a signal, or None if it still goes on after some seconds."""

    def end(self, seconds: float) -> list[int]:
        """Return the processes that still run after some seconds, and kill them. Call it after the launcher's end."""


class Forked:
    """A worker in a fork of this process, which has imported everything: it starts in some milliseconds."""

    def __init__(self, order: Order, output: Path) -> None:
        self.status: int | None = None
        self.number = self.start(order, output)

    def start(self, order: Order, output: Path) -> int:
        """Start the worker, and return the number of its process."""
        return fork(lambda: 0 if work(order) else 3, output)

    def send(self, number: int, rng: random.Random) -> str:
        if self.wait(0) is None:
            os.kill(self.number, number)
        return ""

    def wait(self, seconds: float) -> int | None:
        end = time.monotonic() + seconds
        while self.status is None:
            found, status = os.waitpid(self.number, os.WNOHANG)
            if found:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= end:
                break
            else:
                time.sleep(0.001)
        return self.status

    def end(self, seconds: float) -> list[int]:
        return []


class ForkedRanks(Forked):
    """A run of several ranks, which are forks of a process that leads them."""

    def start(self, order: Order, output: Path) -> int:
        reader, writer = os.pipe()

        def tell(numbers: Sequence[int]) -> None:
            os.write(writer, " ".join(map(str, numbers)).encode())

        leader = fork(partial(lead, order, RANKS, output, tell), output)
        self.ranks = list(map(int, os.read(reader, 100).split()))
        os.close(reader)
        os.close(writer)
        return leader

    def send(self, number: int, rng: random.Random) -> str:
        targets = {f"rank {rank}": [process] for rank, process in enumerate(self.ranks)} | {"all ranks": self.ranks}
        if number != signal.SIGKILL:  # What becomes of the ranks then, `mpiexec` has to say.
            targets["the launcher"] = [self.number]
        who = rng.choice(list(targets))
        if self.wait(0) is None:
            send_each(targets[who], number)
        return who

    def end(self, seconds: float) -> list[int]:
        return end_each(self.ranks, seconds)


class Started:
    """A worker in a new process, as a user starts one."""

    def __init__(self, order: Order, output: Path) -> None:
        with output.open("ab") as file:
            command = [sys.executable, "-m", "tests.torture.worker", order.to_json()]
            self.process = subprocess.Popen(command, stdout=file, stderr=file)

    def send(self, number: int, rng: random.Random) -> str:
        self.process.send_signal(number)
        return ""

    def wait(self, seconds: float) -> int | None:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self, seconds: float) -> list[int]:
        return []


class MpiRanks(Started):
    """A run of several processes that `mpiexec` starts, as a user does."""

    def __init__(self, order: Order, output: Path) -> None:
        options_of(order).write_text(make_config(Path(order.root) / RUN, Path(order.text), order.variant).to_toml())
        worker = [sys.executable, "-m", "tests.torture.worker", order.to_json()]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        with output.open("ab") as file:
            self.process = subprocess.Popen(
                [find_mpiexec(), "-n", str(RANKS), *worker], stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                env=environment, start_new_session=True,
            )  # fmt: skip
        self.seen: set[int] = set()  # The processes below it, which have to end with it.

    def wait(self, seconds: float) -> int | None:
        end = time.monotonic() + seconds
        while (status := super().wait(max(0.0, min(LOOK, end - time.monotonic())))) is None:
            self.seen |= {process for process, _ in descendants(self.process.pid)}
            if time.monotonic() >= end:
                break
        return status

    def send(self, number: int, rng: random.Random) -> str:
        below = descendants(self.process.pid)
        self.seen |= {process for process, _ in below}
        # Each rank is a parent, and a child that does the work.
        ranks = [process for process, leaf in below if leaf]
        targets = {"the launcher": [self.process.pid]}
        if len(ranks) == RANKS:
            targets |= {"a rank": [rng.choice(ranks)], "all ranks": ranks}
        who = rng.choice(list(targets))
        if self.wait(0) is None:
            send_each(targets[who], number)
        return who

    def end(self, seconds: float) -> list[int]:
        return end_each(self.seen, seconds)


def descendants(number: int) -> list[tuple[int, bool]]:
    """Return the processes below one, each with whether it has none below it."""
    try:
        children = [int(child) for child in Path(f"/proc/{number}/task/{number}/children").read_text().split()]
    except FileNotFoundError:
        return []
    found = []
    for child in children:
        below = descendants(child)
        found += [(child, not below), *below]
    return found


def send_each(processes: Iterable[int], number: int) -> None:
    """Send a signal to processes, of which some may have ended."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def end_each(processes: Iterable[int], seconds: float) -> list[int]:
    """Return the processes that still run after some seconds, and kill them."""
    limit = time.monotonic() + seconds
    while (left := [process for process in processes if is_running(process)]) and time.monotonic() < limit:
        time.sleep(0.001)
    send_each(left, signal.SIGKILL)
    return left


def is_running(process: int) -> bool:
    """Return whether a process runs. One that has ended, and for which nobody has waited yet, does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


LAUNCHERS: dict[str, Callable[[Order, Path], Attempt]] = {
    "forked": Forked, "started": Started, "ranks": ForkedRanks, "mpiexec": MpiRanks,
}  # fmt: skip
OF_RANKS = ("ranks", "mpiexec")  # the launchers of several ranks
