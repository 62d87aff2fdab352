"""Measure how much of the machine other processes use while a benchmark runs.

A benchmark is disturbed if other processes use more than LIMIT of the cores, or if the hypervisor takes more than that
from this machine. Then minima may still hold, and medians do not.

Linux counts the time of all cores in /proc/stat, in ticks of usually 10 ms, and each process's in /proc/PID/stat. What
this process and its descendants did not use, other processes used. Another system has no such files, and the benchmark
says so.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

LIMIT = 0.05  # of all cores: above this a measurement is disturbed
PROC = Path("/proc")


class Ticks(NamedTuple):
    """Time in ticks, since the machine started."""

    total: float  # of all cores, idle time included
    busy: float  # of all processes
    stolen: float  # by the hypervisor, for other machines
    own: float  # of this process and its descendants


def own_ticks(proc: Path, pid: int) -> float:
    """Return the processor time of a process, its living descendants, and the dead ones that were waited for."""
    times: dict[int, float] = {}
    parents: dict[int, int] = {}
    for path in proc.glob("[0-9]*/stat"):
        try:
            fields = path.read_text("utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # the process has ended since
            continue
        one = int(path.parent.name)
        parents[one], times[one] = int(fields[1]), sum(map(float, fields[11:15]))

    def is_own(one: int) -> bool:
        while one not in (pid, 0):
            one = parents.get(one, 0)
        return one == pid

    return sum(seconds for one, seconds in times.items() if is_own(one))


def read_ticks(proc: Path = PROC, pid: int | None = None) -> Ticks | None:
    """Return the times so far; None where the system has no such files."""
    try:
        line = (proc / "stat").read_text("ascii").splitlines()[0]
    except OSError:
        return None
    user, nice, system, idle, wait, irq, softirq, stolen = map(float, line.split()[1:9])
    busy = user + nice + system + irq + softirq
    return Ticks(busy + idle + wait + stolen, busy, stolen, own_ticks(proc, os.getpid() if pid is None else pid))


class Disturbance:
    """The part of the cores that others used during the blocks of a measurement."""

    def __init__(self) -> None:
        self.shares: list[tuple[float, float, float]] = []  # of a block: seconds, used by others, stolen
        self.before: tuple[float, Ticks | None] = (0.0, None)

    def __enter__(self) -> "Disturbance":
        """Begin a block."""
        self.before = time.perf_counter(), read_ticks()
        return self

    def __exit__(self, *exc: object) -> None:
        """End a block."""
        self.end(time.perf_counter(), read_ticks())

    def end(self, now: float, after: Ticks | None) -> None:
        """Add the block from ``before`` to now; after: the ticks now."""
        began, before = self.before
        if before is not None and after is not None and after.total > before.total:
            total, busy, stolen, own = (b - a for a, b in zip(before, after, strict=True))
            self.shares.append((now - began, max(0.0, busy - own) / total, stolen / total))

    def mean(self, index: int) -> float:
        """Return the share used by others (1) or stolen (2), weighted by the lengths of the blocks."""
        return sum(share[0] * share[index] for share in self.shares) / sum(share[0] for share in self.shares)

    @property
    def disturbed(self) -> bool:
        """Whether others used more than LIMIT, so that the medians do not hold."""
        return bool(self.shares) and self.mean(1) + self.mean(2) > LIMIT

    def describe(self) -> str:
        """Return a line for the end of a table."""
        if not self.shares:
            return "what other processes used is unknown on this system"
        line = f"other processes used {100 * self.mean(1):.1f}% of the cores, the hypervisor {100 * self.mean(2):.1f}%"
        return line + (f": DISTURBED, more than {100 * LIMIT:.0f}%, measure again" if self.disturbed else "")
