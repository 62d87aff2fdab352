"""The cores: how many this library may use, and a function that is run on all of them at once.

NumPy's loops and products release the interpreter's lock, so two Python threads that work on two halves of an array
take half the time. BLAS has threads of its own, which spin for a while when they are done and would keep the cores
from ours; so while a kernel here computes, BLAS gets one thread, and each of our threads calls it for its own part.
Where we cannot tell BLAS so (it is not an OpenBLAS that we can find), it keeps the cores and we use one.

Measured on two cores: handing work over and back takes 20 to 40 us, so only what takes longer is worth it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["get_num_threads", "one_blas_thread", "set_num_threads", "spread"]

VARIABLE = "TENSORLITE_NUM_THREADS"
_MOST = 8  # Python threads hand the interpreter's lock around between calls: more would wait for it

# ---- BLAS -----------------------------------------------------------------------------------


class _Blas:
    """The OpenBLAS that NumPy computes with, as far as it can be told how many threads to use."""

    def __init__(self, library: Any, prefix: str, suffix: str) -> None:
        self.set = getattr(library, f"{prefix}openblas_set_num_threads{suffix}")
        self.get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}")
        self.set.argtypes, self.set.restype = [ctypes.c_int], None
        self.get.argtypes, self.get.restype = [], ctypes.c_int
        self.threads = int(self.get())  # before anyone has changed it


@cache
def _blas() -> _Blas | None:
    """What NumPy has loaded: its wheels bring an OpenBLAS of their own, distributions have one in the system."""
    home = Path(np.__file__).parent
    paths = [p for folder in (home.parent / "numpy.libs", home / ".dylibs") for p in folder.glob("*openblas*")]
    try:
        maps = Path("/proc/self/maps").read_text("utf-8")
        paths += {Path(line.split(maxsplit=5)[5]) for line in maps.splitlines() if "openblas" in line}
    except (OSError, IndexError):
        pass
    for path in paths:
        for prefix in ("scipy_", ""):
            for suffix in ("64_", ""):
                try:
                    return _Blas(ctypes.CDLL(str(path)), prefix, suffix)
                except (OSError, AttributeError):
                    continue
    return None


_depth = threading.local()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS computes on the calling thread alone inside this block."""
    blas = _blas()
    if blas is None:
        yield
        return
    before = blas.get()
    blas.set(1)
    try:
        yield
    finally:
        blas.set(before)


# ---- how many -------------------------------------------------------------------------------

_threads: int | None = None


def _available() -> int:
    """The cores of this process, or fewer if BLAS was told to use fewer; 1 if BLAS would not listen to us."""
    blas = _blas()
    if blas is None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, blas.threads, _MOST))


def get_num_threads() -> int:
    """How many threads ops on the CPU may use: by ``set_num_threads``, else ``TENSORLITE_NUM_THREADS``, else as many as
    there are cores and BLAS would use (``OPENBLAS_NUM_THREADS``, ``OMP_NUM_THREADS``), at most 8.

    Raises ValueError if the variable is no positive number.
    """
    global _threads
    if _threads is None:
        text = os.environ.get(VARIABLE, "")
        if text and not (text.isdecimal() and int(text)):
            raise ValueError(f"{VARIABLE} must be a number of 1 or more, got {text!r}")
        _threads = int(text) if text else _available()
    return _threads


def set_num_threads(n: int) -> None:
    """Let ops on the CPU use ``n`` threads from now on. Raises ValueError unless it is an int of 1 or more."""
    global _threads
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"set_num_threads: expected an int of 1 or more, got {n!r}")
    _threads = n


# ---- work on all of them ----------------------------------------------------------------------

Part = Callable[[int, int], None]


class _Job:
    """``part(start, stop)`` for pieces of ``range(n)``, which whoever is free takes, one after the other."""

    def __init__(self, part: Part, n: int, size: int) -> None:
        self.part, self.n, self.size = part, n, size
        self.take = count().__next__  # atomic
        self.error: BaseException | None = None

    def work(self) -> None:
        try:
            while (start := self.take() * self.size) < self.n:
                self.part(start, min(start + self.size, self.n))
        except BaseException as error:
            self.error = error
            self.n = 0


class _Worker(threading.Thread):
    """A thread that waits for jobs, without spinning."""

    def __init__(self) -> None:
        super().__init__(name="tensorlite", daemon=True)
        self.job: _Job
        self.wake, self.done = threading.Lock(), threading.Lock()
        self.wake.acquire()
        self.done.acquire()
        self.start()

    def run(self) -> None:
        with np.errstate(all="ignore"):  # as in an op
            while True:
                self.wake.acquire()
                self.job.work()
                del self.job
                self.done.release()


_workers: list[_Worker] = []
_busy = threading.Lock()


def _after_fork() -> None:
    """In a child process there is only the thread that forked."""
    global _busy
    _workers.clear()
    _busy = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def spread(part: Part, n: int, pieces: int = 1) -> None:
    """Call ``part(start, stop)`` for ranges that make up ``range(n)``, on all threads; return when all is done.

    pieces: how many ranges each thread gets, if it is not delayed; more of them even out what other processes take.
    The ranges must not depend on one another. Inside another call, or while another thread computes, there is one
    range, on the calling thread. What a part raises is raised here.
    """
    threads = min(get_num_threads(), n)
    if threads <= 1 or not _busy.acquire(blocking=False):
        part(0, n)
        return
    try:
        while len(_workers) < threads - 1:
            _workers.append(_Worker())
        job = _Job(part, n, -(-n // (threads * pieces)))
        helpers = _workers[: threads - 1]
        for worker in helpers:
            worker.job = job
            worker.wake.release()
        job.work()
        for worker in helpers:
            worker.done.acquire()
        if job.error is not None:
            raise job.error
    finally:
        _busy.release()
