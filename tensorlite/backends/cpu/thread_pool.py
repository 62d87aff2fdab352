"""Threads that share the loops of the CPU kernels.

NumPy's loops and products release the interpreter's lock, so two Python threads that work on two halves of an array
take half the time. Waking a sleeping thread takes 40 us (measured on two cores), so sharing pays for work that takes
longer than about 200 us. With numba a worker looks for more work before it sleeps, so sharing pays for much shorter
loops (see ``compiled/parallel_for.py``).

If NumPy's BLAS is not an OpenBLAS that we can control, it occupies the cores, so we use one thread (see ``blas.py``).
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache
from itertools import count
from queue import SimpleQueue
from typing import Any, TypeAlias

import numpy as np

from ...scalars import as_integer
from .blas import find_openblas
from .cores import available_cores
from .environment import check_variables, is_on
from .find_compiled import find_compiled

__all__ = [
    "are_deterministic_algorithms_enabled", "get_num_threads", "parallel_for", "run_parallel", "set_num_threads",
    "use_deterministic_algorithms",
]  # fmt: skip

VARIABLE = "TENSORLITE_NUM_THREADS"
MAX_THREADS = 1024
_MAX_DEFAULT_THREADS = 8  # Python threads pass the interpreter's lock around between calls, so more of them would wait

# ---- the number of threads ------------------------------------------------------------------



def _read_variable() -> int | None:
    """Return the number that the environment variable sets, or None."""
    text = os.environ.get(VARIABLE, "")
    if text and not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_THREADS):
        raise ValueError(
            f"{VARIABLE}: expected an integer from 1 to {MAX_THREADS}, got {text!r}. Correct or unset this environment "
            "variable."
        )
    return int(text) if text else None


# at import, so that a wrong value does not fail within an op
_num_threads: int | None = _read_variable()
check_variables()


def _available_threads() -> int:
    """Return the number of this process's cores, or fewer if OpenBLAS was set to fewer; 1 without OpenBLAS."""
    blas = find_openblas()
    if blas is None:
        return 1
    return max(1, min(available_cores(), blas.initial_num_threads, _MAX_DEFAULT_THREADS))


def get_num_threads() -> int:
    """Return the number of threads that ops on the CPU may use.

    It is the number given to ``set_num_threads``, else that of the environment variable ``TENSORLITE_NUM_THREADS``, an
    integer from 1 to 1024, which is read when tensorlite is imported. By default it is the number of cores that this
    process and OpenBLAS may use (``OPENBLAS_NUM_THREADS``, ``OMP_NUM_THREADS``), at most 8. The process may use the
    cores of its affinity (``taskset``), and no more than the quota of its container (``cpu.max`` of a Linux control
    group), which is rounded up if it exceeds an integer by more than a quarter.
    """
    global _num_threads
    if _num_threads is None:
        _num_threads = _available_threads()
    return _num_threads


def set_num_threads(n: int) -> None:
    """Set the number of threads that ops on the CPU may use. Raises ValueError unless ``n`` is from 1 to 1024."""
    global _num_threads
    threads = as_integer(n)
    if threads is None or not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"set_num_threads: expected an integer from 1 to {MAX_THREADS}, got {n!r}")
    _num_threads = threads


# ---- the order of sums ----------------------------------------------------------------------

_FIXED_CHUNKS = 8  # as many as the default number of threads at most, so that each of them has work
_fixed_order = False


def use_deterministic_algorithms(mode: bool) -> None:
    """Set whether ops on the CPU give the same bits with any number of threads.

    Ops always give the same bits twice with one number of threads. But sums that threads share are split by their
    number, so another number gives other last digits. With ``mode=True`` they are always split into 8 parts, and
    NumPy's BLAS uses one thread for each. This costs a few percent. A program starts in this mode if the environment
    variable ``TENSORLITE_DETERMINISTIC`` is 1. The mode says nothing about GPUs, where threads add in any order, nor
    about other processors, for which NumPy chooses other instructions.

    Raises TypeError if ``mode`` is not a bool. The name is that of ``torch.use_deterministic_algorithms``.
    """
    global _fixed_order
    if not isinstance(mode, bool):
        raise TypeError(f"use_deterministic_algorithms: expected a bool, got {mode!r}")
    if mode != _fixed_order and (openblas := find_openblas()) is not None:
        openblas.set_num_threads(1 if mode else openblas.initial_num_threads)
    _fixed_order = mode


def are_deterministic_algorithms_enabled() -> bool:
    """Return whether :func:`use_deterministic_algorithms` is on."""
    return _fixed_order


def _num_chunks(num_threads: int) -> int:
    """Return the number of parts into which work for this number of threads is split."""
    return _FIXED_CHUNKS if _fixed_order else num_threads


if is_on("TENSORLITE_DETERMINISTIC", default=False):
    use_deterministic_algorithms(True)


# ---- workers --------------------------------------------------------------------------------

RangeFunction: TypeAlias = Callable[[int, int], None]
_MAX_SPINS = 50_000  # how often a worker looks for work before it sleeps; a look takes about 20 ns


@cache
def _sched_yield_pointer() -> int:
    """Return the address of the system's ``sched_yield``, or 0 if the C library has none."""
    try:
        return int(ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0)
    except (AttributeError, OSError, TypeError):
        return 0


class _Job:
    """A set of calls ``function(start, stop)`` for chunks of ``range(n)``. Threads claim one chunk after the other."""

    def __init__(self, function: RangeFunction, n: int, chunk_size: int) -> None:
        self.function, self.n, self.chunk_size = function, n, chunk_size
        self.next_chunk, self.finish = count().__next__, count(1).__next__  # atomic under the interpreter's lock
        self.error: BaseException | None = None
        # One lock per job, because a thread interrupted while it waits must not mistake this job's completion for the
        # next one's.
        self.done = threading.Lock()
        self.done.acquire()

    def run(self, num_helpers: int) -> None:
        """Run chunks as one of the helpers; the last helper to finish releases the lock ``done``."""
        self.run_chunks()
        if self.finish() == num_helpers:
            self.done.release()

    def run_chunks(self) -> None:
        """Claim and process chunks until none is left. An error is stored in ``error`` and ends the job."""
        try:
            while (start := self.next_chunk() * self.chunk_size) < self.n:
                self.function(start, min(start + self.chunk_size, self.n))
        except BaseException as error:
            self.error = error
            self.n = 0


class _Worker(threading.Thread):
    """A thread that runs jobs. Between jobs it spins for compiled work for a while, then it sleeps."""

    def __init__(self, pool: _Pool) -> None:
        super().__init__(name="tensorlite", daemon=True)
        self.pool, self.index = pool, len(pool.workers) + 1
        self.job: tuple[_Job, int] | None = None
        self.asleep = self.stopped = False
        self.wake: SimpleQueue[None] = SimpleQueue()
        self.wake_flag = np.zeros(1, np.int64) if pool.compiled is None else pool.compiled.aligned_zeros(8)
        self.start()

    def submit(self, job: tuple[_Job, int] | None) -> None:
        """Give the worker a job and its number of helpers, or None to wake it for compiled work."""
        if job is not None:
            self.job = job
            self.wake_flag[0] = 1
        if self.asleep:
            self.asleep = False
            self.wake.put(None)

    def stop(self) -> None:
        """Make the thread end after its current job."""
        self.stopped, self.wake_flag[0] = True, 1
        self.submit(None)

    def run(self) -> None:
        """Run jobs and compiled work until :meth:`stop` is called; the thread starts here."""
        compiled, wake_flag = self.pool.compiled, self.wake_flag.ctypes.data
        with np.errstate(all="ignore"):  # as in an op, because NumPy's settings are per thread
            while not self.stopped:
                if self.job is not None:
                    (job, num_helpers), self.job, self.wake_flag[0] = self.job, None, 0
                    job.run(num_helpers)
                    del job
                elif compiled is None or not compiled.worker_loop(
                    self.pool.address, self.index, wake_flag, _MAX_SPINS
                ):
                    self.asleep = True
                    if self.job is None and not self.stopped:  # a job may have come since the last look
                        self.wake.get()
                    self.asleep = False


class _Pool:
    """The workers for one number of threads, with the memory through which compiled loops are shared."""

    def __init__(self, num_threads: int, num_chunks: int) -> None:
        self.num_threads, self.num_chunks, self.compiled = num_threads, num_chunks, find_compiled()
        self.memory = None if self.compiled is None else self.compiled.create_pool(num_chunks, _sched_yield_pointer())
        self.address = 0 if self.memory is None else self.memory.ctypes.data
        self.workers: list[_Worker] = []

    def get_workers(self, count: int) -> list[_Worker]:
        """Return ``count`` workers. Missing ones are started. Raises RuntimeError if the system starts no more."""
        while len(self.workers) < count:
            try:
                self.workers.append(_Worker(self))
            except RuntimeError as error:
                raise RuntimeError(
                    f"set_num_threads: expected to start {count} threads, got {len(self.workers)}. Set a smaller "
                    f"number, with set_num_threads or {VARIABLE}."
                ) from error
        return self.workers[:count]


_pool: _Pool | None = None
_pool_lock = threading.RLock()


def _get_workers(num_threads: int, count: int) -> list[_Worker]:
    """Return ``count`` workers of the pool for ``num_threads`` threads; workers of another pool are stopped."""
    global _pool
    pool, num_chunks = _pool, _num_chunks(num_threads)
    if pool is None or pool.num_threads != num_threads or pool.num_chunks != num_chunks:
        _pool = None  # first, because an interrupt must not leave a pool whose workers stop
        for worker in [] if pool is None else pool.workers:
            worker.stop()
        _pool = pool = _Pool(num_threads, num_chunks)
    return pool.get_workers(count)


def _with_pool(parallel: Callable[..., Any], serial: Callable[..., Any], *args: Any) -> Any:
    """Return ``parallel(*args)`` while this thread owns the pool, or ``serial(*args)`` if the pool is in use.

    It is also in use if this thread owns it already, in an outer call.
    """
    is_owned = _pool_lock._is_owned  # type: ignore[attr-defined]
    nested = is_owned()
    try:
        if nested or not _pool_lock.acquire(blocking=False):
            return serial(*args)
        result = parallel(*args)
        _pool_lock.release()
        return result
    except BaseException:  # an interrupt may come between any two lines
        if not nested and is_owned():
            _pool_lock.release()
        raise


def _after_fork() -> None:
    """Forget the pool in a forked child, where only the thread that forked exists."""
    global _pool_lock, _pool
    _pool = None
    _pool_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

# ---- shared work ----------------------------------------------------------------------------


def parallel_for(function: RangeFunction, n: int) -> None:
    """Call ``function(start, stop)`` on all threads for ranges that make up ``range(n)``; return when all are done.

    The ranges must not depend on one another. Their bounds depend only on ``n`` and the number of threads. Inside
    another call, or while another thread uses the pool, the calling thread runs all ranges. An exception that the
    function raises is raised here.
    """
    max_threads = get_num_threads()  # read once, because another thread may set it
    num_threads, num_chunks = min(max_threads, n), min(_num_chunks(max_threads), n)
    if num_chunks <= 1:
        function(0, n)
        return
    job = _Job(function, n, -(-n // num_chunks))

    def parallel() -> None:
        helpers = _get_workers(max_threads, num_threads - 1)
        for worker in helpers:
            worker.submit((job, len(helpers)))
        job.run_chunks()
        job.done.acquire()

    _with_pool(parallel if num_threads > 1 else job.run_chunks, job.run_chunks)
    if job.error is not None:
        raise job.error


def run_parallel(kernel: Callable[..., Any], *args: Any) -> Any:
    """Return ``kernel(pool, *args)`` for a compiled function that shares its loops among the threads of a pool.

    pool: an int to pass on to ``tensorlite.compiled.parallel_for``. It is 0 if only one thread may be used. The result
    depends only on the arguments and the number of threads, to the bit.
    """
    num_threads = get_num_threads()  # read once, because another thread may set it
    if num_threads <= 1:
        return _run_serially(1, kernel, *args) if _fixed_order else kernel(0, *args)
    return _with_pool(_run_with_workers, _run_serially, num_threads, kernel, *args)


def _run_with_workers(num_threads: int, kernel: Callable[..., Any], *args: Any) -> Any:
    workers = _get_workers(num_threads, num_threads - 1)
    for worker in workers:
        if worker.asleep:
            worker.submit(None)
    return kernel(workers[0].pool.address, *args)


def _run_serially(num_threads: int, kernel: Callable[..., Any], *args: Any) -> Any:
    """Run a kernel with a pool that has no workers, so that it makes the same chunks and the same bits."""
    memory = find_compiled().create_pool(_num_chunks(num_threads))
    return kernel(memory.ctypes.data, *args)
