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

from ..backends.registry import Array
from .communicator import DistributedError

if TYPE_CHECKING:
    from mpi4py import MPI

__all__ = ["MpiEngine", "connect", "launched_size"]

# What the launchers of MPI libraries set: MPICH, Intel MPI and SLURM (PMI), Open MPI (and PRRTE), MVAPICH.
SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
TEXT = 512  # bytes of an announced call
ANNOUNCE, ENDED, ROLL_CALL = 0, 1, 2  # tags of messages
WAIT_FOR_REPORT = 1.0  # seconds in which the rank that reports an error ends the others


def launched_size(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many processes a launcher such as mpiexec has started, 1 without one."""
    for name in SIZE_VARIABLES:
        if environment.get(name, "").isdigit():
            return max(1, int(environment[name]))
    return 1


def connect() -> MpiEngine:
    """Return the engine of all processes that mpiexec has started. Raises DistributedError."""
    expected = launched_size()
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise DistributedError(
            f"init: expected the package mpi4py and an MPI library for {expected} processes, got {error}. "
            "Run pip install 'tensorlite[mpi]'"
        ) from error
    world = MPI.COMM_WORLD
    if world.size != expected:
        library = MPI.Get_library_version().split("\n")[0].strip(" \0")
        raise DistributedError(
            f"init: expected a group of {expected} processes, got one of {world.size}. mpiexec is not that of the MPI "
            f"library which mpi4py uses ({library}). Run the mpiexec of that library"
        )
    return MpiEngine(world.Dup())


class MpiEngine:
    """A rank that is a process of MPI. communicator: one that nobody else uses."""

    def __init__(self, communicator: MPI.Intracomm) -> None:
        from mpi4py import MPI

        self.mpi, self.comm = MPI, communicator
        self.rank, self.size = communicator.rank, communicator.size
        self.others = [rank for rank in range(self.size) if rank != self.rank]
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

    def abort(self, status: int = 1) -> None:
        """End all processes of the group at once."""
        sys.stdout.flush()
        sys.stderr.flush()
        self.comm.Abort(status)

    def local_ranks(self) -> int:
        """Return the number of ranks on this machine."""
        local = self.comm.Split_type(self.mpi.COMM_TYPE_SHARED)
        size = local.size
        local.Free()
        return size

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
