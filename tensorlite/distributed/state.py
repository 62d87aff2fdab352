"""The group of this process: made once, and the same everywhere."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ..backends.cpu.thread_pool import VARIABLE, get_num_threads, set_num_threads
from ..tensors.tensor import Tensor
from .communicator import Communicator, DistributedError
from .group import Group
from .mpi import connect, launched_size
from .nccl import NcclEngine
from .threads import run_threads

__all__ = [
    "all_gather", "all_reduce", "barrier", "broadcast", "init", "rank", "reduce_scatter", "run_ranks", "size",
]  # fmt: skip

R = TypeVar("R")
TIMEOUT = 600.0  # seconds


class _Current(threading.local):
    """The group of a thread: that of the process, except in the threads of :func:`run_ranks`."""

    group: Group | None = None


_current = _Current()
_of_process: Group | None = None
_lock = threading.Lock()


def init(timeout: float = TIMEOUT) -> Group:
    """Return the group of the processes that a launcher such as ``mpiexec`` or ``srun`` has started.

    Without a launcher it is a group of size 1, and MPI is not loaded. The first call connects the processes and shares
    out the cores of each machine (``tl.set_num_threads``), unless the environment variable ``TENSORLITE_NUM_THREADS``
    says how many threads each process uses. Later calls return the same group.

    timeout: seconds that a call waits for the other ranks, before it raises an error that names those that do not come.

    An error that ends one process then ends all of them. Raises DistributedError if the processes cannot be connected,
    and ValueError for a timeout that is not positive.
    """
    global _of_process
    if not isinstance(timeout, (int, float)) or not timeout > 0:
        raise ValueError(f"init: expected a timeout in seconds, above 0, got {timeout!r}")
    if _current.group is not None:
        return _current.group
    with _lock:
        if _of_process is None:
            if launched_size() == 1:
                _of_process = Group()
            else:
                processes = connect()
                processes.end_on_error()
                if VARIABLE not in os.environ:
                    set_num_threads(max(1, min(get_num_threads(), int(processes.core_share() + 1e-6))))
                engine = NcclEngine(processes)
                atexit.register(engine.close)  # before that of the processes, so that transfers end first
                _of_process = Group(Communicator(engine, float(timeout)) if engine.size > 1 else None)
        return _of_process


def current(call: str) -> Group:
    """Return the group that `init` has made. Raises DistributedError if it was not called in one of several processes.

    Without a launcher there is nothing to connect, so the call makes the group of size 1.
    """
    if _current.group is not None:
        return _current.group
    if _of_process is None and launched_size() != 1:
        raise DistributedError(f"{call}: expected a group. Call tensorlite.distributed.init() first")
    return init()


def rank() -> int:
    """Return the number of this process in its group, from 0."""
    return current("rank").rank


def size() -> int:
    """Return the number of processes of the group."""
    return current("size").size


def all_reduce(x: Tensor, op: str = "sum") -> Tensor:
    """Return the reduction of the tensors of all ranks: see :meth:`Group.all_reduce`."""
    return current("all_reduce").all_reduce(x, op)


def reduce_scatter(x: Tensor, op: str = "sum") -> Tensor:
    """Return this rank's row of the reduction of the tensors of all ranks: see :meth:`Group.reduce_scatter`."""
    return current("reduce_scatter").reduce_scatter(x, op)


def all_gather(x: Tensor) -> Tensor:
    """Return the tensors of all ranks, (size, ...): see :meth:`Group.all_gather`."""
    return current("all_gather").all_gather(x)


def broadcast(x: Tensor, src: int = 0) -> Tensor:
    """Return the tensor of the rank ``src``: see :meth:`Group.broadcast`."""
    return current("broadcast").broadcast(x, src)


def barrier() -> None:
    """Wait until every rank has called this: see :meth:`Group.barrier`."""
    current("barrier").barrier()


def run_ranks(function: Callable[[Group], R], size: int, timeout: float = TIMEOUT) -> list[R]:
    """Return what ``function(group)`` returns on each of ``size`` ranks, which are threads of this process.

    No MPI is needed, so this shows and tests what several processes do. :func:`init` returns the group of the thread.
    The threads share the random numbers and the settings of the process. If a rank raises, so does this.
    """

    def run(communicator: Communicator) -> Any:
        _current.group = Group(communicator)
        try:
            return function(_current.group)
        finally:
            _current.group = None

    return run_threads(run, size, timeout)
