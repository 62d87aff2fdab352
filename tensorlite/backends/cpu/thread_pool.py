"""The cores: how many this library may use, and how work is shared among them.

NumPy's loops and products release the interpreter's lock, so two Python threads that work on two halves of an array
take half the time. BLAS has threads of its own, which spin for a while when they are done and would keep the cores
from ours, and which wait for each other for milliseconds where something else needs a core; so while a kernel here
computes, BLAS gets one thread, and each of our threads calls it for its own part. Where we cannot tell BLAS so (it is
not an OpenBLAS that we can find), it keeps the cores and we use one.

Measured on two cores: a sleeping thread takes 40 us to come, so only what takes longer than about 200 is worth it. With
numba, a worker that has just worked looks around for more before it sleeps (see ``crew``).
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache
from itertools import count
from queue import SimpleQueue
from typing import Any

import numpy as np

from .blas import find_blas
from .find_compiled import load_crew

__all__ = ["get_num_threads", "set_num_threads", "share", "spread"]

VARIABLE = "TENSORLITE_NUM_THREADS"
_MOST = 8  # Python threads hand the interpreter's lock around between calls: more would wait for it

# ---- how many -------------------------------------------------------------------------------

_threads: int | None = None


def _available() -> int:
    """The cores of this process, or fewer if BLAS was told to use fewer; 1 if BLAS would not listen to us."""
    blas = find_blas()
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
_PATIENCE = 50_000  # looks of about 20 ns


@cache
def _sched_yield() -> int:
    """The address of the system's function that offers the core to others; 0 where there is none."""
    try:
        return int(ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0)
    except (AttributeError, OSError, TypeError):
        return 0


class _Job:
    """``part(start, stop)`` for pieces of ``range(n)``, which whoever is free takes, one after the other."""

    def __init__(self, part: Part, n: int, size: int) -> None:
        self.part, self.n, self.size = part, n, size
        self.take, self.leave = count().__next__, count(1).__next__  # atomic
        self.error: BaseException | None = None
        # A job's own, so that who is interrupted while waiting for one does not take its end for that of the next.
        self.done = threading.Lock()
        self.done.acquire()

    def help(self, helpers: int) -> None:
        """Work on it as one of so many helpers; the last one to leave says that it is done."""
        self.work()
        if self.leave() == helpers:
            self.done.release()

    def work(self) -> None:
        try:
            while (start := self.take() * self.size) < self.n:
                self.part(start, min(start + self.size, self.n))
        except BaseException as error:
            self.error = error
            self.n = 0


class _Worker(threading.Thread):
    """A thread that waits for jobs: looking for compiled work for a while, then asleep."""

    def __init__(self, pool: _Pool) -> None:
        super().__init__(name="tensorlite", daemon=True)
        self.pool, self.number = pool, len(pool.workers) + 1
        self.job: tuple[_Job, int] | None = None
        self.asleep = self.over = False
        self.wake: SimpleQueue[None] = SimpleQueue()
        self.called = np.zeros(1, np.int64) if pool.crew is None else pool.crew.numbers(8)
        self.start()

    def call(self, job: tuple[_Job, int] | None) -> None:
        """Hand it a job, and how many helpers it has; or with None just wake it."""
        if job is not None:
            self.job = job
            self.called[0] = 1
        if self.asleep:
            self.asleep = False
            self.wake.put(None)

    def end(self) -> None:
        self.over, self.called[0] = True, 1
        self.call(None)

    def run(self) -> None:
        crew, called = self.pool.crew, self.called.ctypes.data
        with np.errstate(all="ignore"):  # as in an op
            while not self.over:
                if self.job is not None:
                    (job, helpers), self.job, self.called[0] = self.job, None, 0
                    job.help(helpers)
                    del job
                elif crew is None or not crew.serve(self.pool.address, self.number, called, _PATIENCE):
                    self.asleep = True
                    if self.job is None and not self.over:  # else it came just now
                        self.wake.get()
                    self.asleep = False


class _Pool:
    """The workers, and the board on which work is put for them and who calls them: so many threads."""

    def __init__(self, threads: int) -> None:
        self.threads, self.crew = threads, load_crew()
        self.board = None if self.crew is None else self.crew.board(threads, _sched_yield())
        self.address = 0 if self.board is None else self.board.ctypes.data
        self.workers: list[_Worker] = []

    def of(self, count: int) -> list[_Worker]:
        while len(self.workers) < count:
            self.workers.append(_Worker(self))
        return self.workers[:count]


_pool: _Pool | None = None
_busy = threading.RLock()


def _workers(threads: int, count: int) -> list[_Worker]:
    """So many of the workers that there are for a number of threads. Those for another number are sent home."""
    global _pool
    pool = _pool
    if pool is None or pool.threads != threads:
        _pool = None  # first: an interrupt must not leave a pool whose workers end
        for worker in [] if pool is None else pool.workers:
            worker.end()
        _pool = pool = _Pool(threads)
    return pool.of(count)


def _with_workers(together: Callable[..., Any], alone: Callable[..., Any], *args: Any) -> Any:
    """``together(*args)``, in which the workers are this thread's; ``alone(*args)`` if they are taken, by this thread
    too."""
    mine = _busy._is_owned  # type: ignore[attr-defined]
    nested = mine()
    try:
        if nested or not _busy.acquire(blocking=False):
            return alone(*args)
        result = together(*args)
        _busy.release()
        return result
    except BaseException:  # an interrupt may come between any two lines
        if not nested and mine():
            _busy.release()
        raise


def _after_fork() -> None:
    """In a child process there is only the thread that forked."""
    global _busy, _pool
    _pool = None
    _busy = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def spread(part: Part, n: int) -> None:
    """Call ``part(start, stop)`` for ranges that make up ``range(n)``, on all threads; return when all is done.

    The ranges must not depend on one another; which they are depends on n and the number of threads alone.
    Inside another call, or while another thread computes, all are worked on by the calling thread. What a part raises
    is raised here.
    """
    most = get_num_threads()  # once: another thread may set it
    threads = min(most, n)
    if threads <= 1:
        part(0, n)
        return
    job = _Job(part, n, -(-n // threads))

    def together() -> None:
        helpers = _workers(most, threads - 1)
        for worker in helpers:
            worker.call((job, len(helpers)))
        job.work()
        job.done.acquire()

    _with_workers(together, job.work)
    if job.error is not None:
        raise job.error


def share(kernel: Callable[..., Any], *args: Any) -> Any:
    """``kernel(board, *args)`` for a compiled function that shares its loops over a board (see ``crew``).

    Its bits depend on its arguments and the number of threads alone, not on who helps.
    """
    threads = get_num_threads()  # once: another thread may set it
    if threads <= 1:
        return kernel(0, *args)
    return _with_workers(_on_their_board, _on_a_new_board, threads, kernel, *args)


def _on_their_board(threads: int, kernel: Callable[..., Any], *args: Any) -> Any:
    workers = _workers(threads, threads - 1)
    for worker in workers:
        if worker.asleep:
            worker.call(None)
    return kernel(workers[0].pool.address, *args)


def _on_a_new_board(threads: int, kernel: Callable[..., Any], *args: Any) -> Any:  # the same pieces, without help
    board = load_crew().board(threads)
    return kernel(board.ctypes.data, *args)
