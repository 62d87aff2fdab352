"""How many cores this process may use: the smallest of its affinity and the quotas of its Linux control groups.

A container with a quota of 2 cores on a machine of 64 still sees 64. Once its threads together have used the quota of a
period, usually 100 ms, the system stops all of them for the rest of it. So more threads than the quota only wait.
Kernel documentation: ``Documentation/admin-guide/cgroup-v2.rst`` (``cpu.max``) and ``scheduler/sched-bwc.rst``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_cores", "cpu_quota"]


def _read(path: Path) -> str:
    """Return the text of a file, or an empty string if it cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _own_groups(proc: Path) -> Iterator[tuple[str, str]]:
    """Yield the controllers and the path of each control group of this process; version 2 has no controllers."""
    for line in _read(proc / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "" or "cpu" in controllers.split(","):
            yield controllers, path


def _mounts(proc: Path, controllers: str) -> Iterator[tuple[str, Path]]:
    """Yield the group at the root of each mount of a hierarchy, and the folder where it is mounted."""
    for line in _read(proc / "mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.partition(" ")
        version_2 = kind == "cgroup2" and controllers == ""
        version_1 = kind == "cgroup" and controllers != "" and "cpu" in options.rpartition(" ")[2].split(",")
        if version_1 or version_2:
            root, folder = fields.split()[3:5]
            # A space is written as \040, for example.
            yield root, Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), folder))


def _read_quota(group: Path) -> float | None:
    """Return the quota of one control group, in cores; None if it has none."""
    numbers = _read(group / "cpu.max").split()  # version 2: quota or "max", and the period, in microseconds
    if not numbers:
        numbers = [_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    try:
        quota, period = map(int, numbers)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None  # version 1 writes -1 for none


def cpu_quota(proc: Path = Path("/proc/self")) -> float | None:
    """Return the number of cores that control groups let this process use at a time, or None without a limit.

    proc: the folder of the process in Linux's ``/proc``; another system has none. The number need not be an integer. A
    group's quota holds for all groups below it, so the smallest one from this process's group up to the root counts.
    """
    found: list[float] = []
    for controllers, path in _own_groups(proc):
        for root, folder in _mounts(proc, controllers):
            # In a container, the mount may begin at its own group, and the path may be the one outside.
            inside = path.removeprefix(root.rstrip("/")) if (path + "/").startswith(root.rstrip("/") + "/") else ""
            parts = [part for part in inside.split("/") if part not in ("", "..")]
            groups = [folder.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
            found += [quota for quota in map(_read_quota, groups) if quota is not None]
    return min(found, default=None)


def available_cores(proc: Path = Path("/proc/self")) -> int:
    """Return how many threads it pays to use: the number of cores, or the quota rounded up, and at least 1.

    A quota that exceeds an integer by at most a quarter is rounded down. With a quota of 1.5 cores, two threads took
    0.70 to 0.75 times as long as one for a step of the GPTs M and L of ``benchmarks/``. With a quota of 1 core, they
    took 1.15 times as long or more, because the system stopped both in each period.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(proc)
    return cores if quota is None else max(1, min(cores, math.ceil(quota - 0.25)))
