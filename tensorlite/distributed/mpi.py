"""Ranks that are processes of MPI. Only this file imports mpi4py.

Data moves as bytes, so that every dtype is the same to the MPI library: no layout, no arithmetic, and no NaN is left to
it. Transfers are non-blocking, so that a rank can give up on the others.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.cpu.cores import cpu_quota
from ..backends.registry import Array
from .communicator import DistributedError

if TYPE_CHECKING:
    from mpi4py import MPI

__all__ = ["MpiEngine", "connect", "launched_size"]

# What launchers set: mpiexec of MPICH and Intel MPI and `srun --mpi=pmi2`, mpiexec of Open MPI and of MVAPICH, and srun
# with any --mpi. srun is last, because the mpiexec of a job may use it to start its helpers. SLURM_NTASKS is set in the
# shell of a job, too, in which a plain `python` is one process.
SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
PMIX_RANK = "PMIX_RANK"  # of a process that PMIx has started, as prterun does. It gives no size.
TEXT = 512  # bytes of an announced call
ANNOUNCE, ENDED, ROLL_CALL = 0, 1, 2  # tags of messages
WAIT_FOR_ENDS = 1.0  # seconds in which the end of the program waits for that of the other ranks
MAX_NAME = 256  # bytes of the name of a machine
MAX_CORES = 1 << 13  # of a machine: Linux is built for at most 8,192
WAIT_FOR_REPORT = 1.0  # seconds in which the rank that reports an error ends the others


def launched_size(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many processes a launcher such as mpiexec has started.

    1 without one, and 0 if only the MPI library knows.
    """
    for name in SIZE_VARIABLES:
        if environment.get(name, "").isdigit():
            return max(1, int(environment[name]))
    return 0 if PMIX_RANK in environment else 1


def connect() -> MpiEngine:
    """Return the engine of all processes that a launcher has started. Raises DistributedError."""
    expected = launched_size()
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise DistributedError(
            f"init: expected the package mpi4py and an MPI library for {expected or 'several'} processes, got {error}. "
            "Run pip install 'tensorlite[mpi]'"
        ) from error
    world = MPI.COMM_WORLD
    if expected not in (0, world.size):
        raise DistributedError(
            f"init: expected a group of {expected} processes, got one of {world.size}. "
            + other_launcher(expected, MPI.Get_library_version().split("\n")[0].strip(" \0"))
        )
    return MpiEngine(world.Dup())


def other_launcher(expected: int, library: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return what to do where the launcher and the MPI library do not know each other.

    expected: the number of processes that the launcher gives. library: the name of the MPI library.
    """
    if environment.get(SIZE_VARIABLES[-1]) != str(expected):
        return f"mpiexec is not that of the MPI library which mpi4py uses ({library}). Run the mpiexec of that library"
    return (
        f"srun has not connected the tasks of this step by a way that the MPI library knows ({library}). Choose one "
        "that `srun --mpi=list` shows: --mpi=pmix for Open MPI, --mpi=pmi2 for MPICH and Intel MPI. For tasks that do "
        f"not work together, unset {SIZE_VARIABLES[-1]} in each"
    )


class MpiEngine:
    """A rank that is a process of MPI. communicator: one that nobody else uses."""

    def __init__(self, communicator: MPI.Intracomm) -> None:
        from mpi4py import MPI

        self.mpi, self.comm = MPI, communicator
        self.rank, self.size = communicator.rank, communicator.size
        self.others = [rank for rank in range(self.size) if rank != self.rank]
        machines = np.empty((self.size, MAX_NAME), np.uint8)
        self.comm.Allgather(self._buffer(self._machine()), self._buffer(machines))
        self.local_rank = int((machines[: self.rank] == machines[self.rank]).all(axis=1).sum())
        self._ended: set[int] = set()
        self._sent: list[Any] = []  # messages that are on their way, with their buffers
        self._closed = False

    # ---- transfers --------------------------------------------------------------------------

    def announce(self, text: str) -> _MpiAnnouncement:
        return _MpiAnnouncement(self, text)

    def exchange(self, sent: Array, received: Array) -> _MpiRequest:
        return _MpiRequest(self.comm.Ialltoall(self._buffer(sent), self._buffer(received)), sent, received)

    def gather(self, sent: Array, received: Array) -> _MpiRequest:
        return _MpiRequest(self.comm.Iallgather(self._buffer(sent), self._buffer(received)), sent, received)

    def spread(self, array: Array, source: int) -> _MpiRequest:
        return _MpiRequest(self.comm.Ibcast(self._buffer(array), source), array)

    def _buffer(self, array: Array) -> list[Any]:
        assert array.flags.c_contiguous
        return [array.reshape(-1).view(np.uint8), self.mpi.BYTE]

    # ---- other ranks ------------------------------------------------------------------------

    def send(self, rank: int, buffer: Any, tag: int) -> None:
        """Send bytes to a rank without waiting."""
        self._sent = [entry for entry in self._sent if not entry[0].Test()]
        self._sent.append((self.comm.Isend([buffer, self.mpi.BYTE], rank, tag), buffer))

    def ended(self) -> list[int]:
        for rank in self.others:
            if rank not in self._ended and self.comm.Iprobe(rank, ENDED):
                self._ended.add(rank)
        return sorted(self._ended)

    def roll_call(self, seconds: float) -> list[int]:
        for rank in self.others:
            self.send(rank, bytes(1), ROLL_CALL)
        silent, limit = list(self.others), time.monotonic() + seconds
        while silent and time.monotonic() < limit:
            silent = [rank for rank in silent if not self.comm.Iprobe(rank, ROLL_CALL)]
            time.sleep(0.01)
        return silent

    def close(self, error: BaseException | None = None) -> None:
        if not self._closed and not self.mpi.Is_finalized():
            self._closed = True
            for rank in self.others:
                self.send(rank, bytes(1), ENDED)
            self._receive_ends()

    def _receive_ends(self) -> None:
        """Receive that the other ranks end, if they do so soon. UCX warns of each message that nobody receives."""
        waiting, limit = list(self.others), time.monotonic() + WAIT_FOR_ENDS
        while waiting and time.monotonic() < limit:
            for rank in list(waiting):
                if self.comm.Iprobe(rank, ENDED):
                    self.comm.Recv([bytearray(1), self.mpi.BYTE], rank, ENDED)
                    waiting.remove(rank)
            time.sleep(0.001)

    def abort(self, status: int = 1) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.comm.Abort(status)

    def core_share(self) -> float:
        """Return how many cores this rank has, where each core is divided by the ranks that may use it.

        A launcher such as srun may bind each rank to cores of its own, and then nothing is divided. A quota of the
        container is divided by the ranks of the machine. Its name tells which these are: Split_type(COMM_TYPE_SHARED)
        of Open MPI finds no other rank where a PMIx of another version has started them.
        """
        mine = np.zeros(MAX_NAME + MAX_CORES, np.uint8)
        mine[:MAX_NAME] = self._machine()
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        mine[[MAX_NAME + core for core in cores]] = 1
        ranks = np.empty((self.size, len(mine)), np.uint8)
        self.comm.Allgather(self._buffer(mine), self._buffer(ranks))
        local = ranks[(ranks[:, :MAX_NAME] == mine[:MAX_NAME]).all(axis=1), MAX_NAME:]
        share = float((1 / local.sum(axis=0, dtype=np.int64)[mine[MAX_NAME:] > 0]).sum())
        quota = cpu_quota()
        return share if quota is None else min(share, quota / len(local))

    def _machine(self) -> Any:
        """Return the name of this machine as an array of ``MAX_NAME`` bytes."""
        name = self.mpi.Get_processor_name().encode()[:MAX_NAME]
        return np.frombuffer(name.ljust(MAX_NAME, b"\0"), np.uint8)

    def end_on_error(self) -> None:
        """End all ranks when this one ends by an error, and tell the others when it ends otherwise.

        Without this the others would wait for a rank that has raised.
        """
        previous = sys.excepthook

        def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            if isinstance(error, DistributedError):
                if error.reporter not in (None, self.rank):
                    time.sleep(WAIT_FOR_REPORT)
                else:
                    print(f"rank {self.rank}: {error}", file=sys.stderr)
            elif previous is sys.__excepthook__:
                lines = "".join(traceback.format_exception(kind, error, trace))
                print(f"rank {self.rank} of {self.size} ended with an error:\n{lines}", end="", file=sys.stderr)
            else:
                previous(kind, error, trace)
            self.abort()

        sys.excepthook = end
        atexit.register(self.close)


class _MpiRequest:
    """A request of MPI, with the arrays that it uses."""

    def __init__(self, request: MPI.Request, *arrays: Array) -> None:
        self.request, self.arrays = request, arrays

    def test(self) -> bool:
        return bool(self.request.Test())


class _MpiAnnouncement:
    """The message of each rank about the call that comes next."""

    def __init__(self, engine: MpiEngine, text: str) -> None:
        self.texts: list[str | None] = [None] * engine.size
        self.texts[engine.rank] = text
        message = text.encode()[:TEXT].ljust(TEXT, b"\0")
        self.waiting: dict[int, tuple[Any, bytearray]] = {}
        for rank in engine.others:
            buffer = bytearray(TEXT)
            self.waiting[rank] = engine.comm.Irecv([buffer, engine.mpi.BYTE], rank, ANNOUNCE), buffer
            engine.send(rank, message, ANNOUNCE)

    def test(self) -> bool:
        for rank, (request, buffer) in list(self.waiting.items()):
            if request.Test():
                self.texts[rank] = bytes(buffer).rstrip(b"\0").decode(errors="replace")
                del self.waiting[rank]
        return not self.waiting
