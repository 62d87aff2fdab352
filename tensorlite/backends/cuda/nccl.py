"""Transfers between the GPUs of several processes by NCCL, through CuPy's bindings.

Data moves as bytes, so that NCCL computes nothing. A transfer runs on a stream of its own, after the work that the
current stream has at that time, and the host does not wait for it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from ...errors import DeviceError

__all__ = ["NcclConnection", "NcclTransfer", "NcclTransport", "find_nccl"]

Array = Any


@cache
def find_nccl() -> tuple[Any, str]:
    """Return CuPy's module of NCCL and an empty string, or None and the reason why it cannot be used."""
    install = "pip install nvidia-nccl-cu12 or nvidia-nccl-cu13, to match the driver"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy warns about a missing library, and the reason says it
            from cupy.cuda import nccl
        if not nccl.available:
            return None, f"CuPy cannot load the library NCCL; {install}"
        nccl.get_version()  # because the import alone does not prove that the library can be called
    except Exception as error:
        return None, f"CuPy cannot use the library NCCL ({type(error).__name__}: {error}); {install}"
    return nccl, ""


@contextlib.contextmanager
def nccl_errors(what: str) -> Iterator[None]:
    """Context manager that makes a DeviceError of an error of NCCL or CUDA. what: what was expected, in words."""
    try:
        yield
    except RuntimeError as error:  # the class of NcclError and of CUDARuntimeError
        raise DeviceError(f"NCCL: expected {what}, got {error}. Set NCCL_DEBUG=INFO to see the reason") from error


class NcclTransport:
    """What connects the GPUs of several processes. find: returns the module of NCCL, or the reason against it."""

    def __init__(self, cupy: Any, find: Callable[[], tuple[Any, str]] = find_nccl) -> None:
        self.cupy, self.find = cupy, find

    def problem(self) -> str:
        """Return why this process cannot use NCCL, or an empty string."""
        return self.find()[1]

    def place_of(self, array: Array) -> str:
        """Return a name of the GPU that holds an array, which is the same in every process of a machine."""
        return str(self.cupy.cuda.Device(array.device.id).pci_bus_id)

    def new_identifier(self) -> bytes:
        """Return the 128 bytes by which the processes of a group find each other. One of them makes it for all."""
        with nccl_errors("an identifier of a group"):
            return bytes(self.find()[0].get_unique_id())

    def connect(self, array: Array, size: int, rank: int, identifier: bytes) -> NcclConnection:
        """Return the connection of the GPU that holds an array. Waits until all ranks have called it.

        Raises DeviceError.
        """
        return NcclConnection(self.cupy, self.find()[0], array.device.id, size, rank, identifier)


class NcclConnection:
    """The connection of one GPU to those of the other ranks. index: the ordinal of the GPU.

    Arrays are C-contiguous and on this GPU. They must not change before the transfer is done. Raises DeviceError.
    """

    def __init__(self, cupy: Any, nccl: Any, index: int, size: int, rank: int, identifier: bytes) -> None:
        self.cupy, self.nccl, self.index, self.size, self.rank = cupy, nccl, index, size, rank
        with nccl_errors(f"a connection of {size} GPUs"), cupy.cuda.Device(index):
            self.communicator = nccl.NcclCommunicator(size, identifier, rank)
            self.stream = cupy.cuda.Stream(non_blocking=True)

    def exchange(self, sent: Array, received: Array) -> NcclTransfer:
        """Send row i of ``sent`` (size, k) to rank i. Row i of ``received`` becomes what rank i sent."""
        width, kind = sent.nbytes // self.size, self.nccl.NCCL_UINT8

        def start(stream: int) -> None:
            with self.stream:
                received[self.rank] = sent[self.rank]
            self.nccl.groupStart()
            try:
                for peer in range(self.size):
                    if peer != self.rank:
                        self.communicator.send(sent.data.ptr + peer * width, width, kind, peer, stream)
                        self.communicator.recv(received.data.ptr + peer * width, width, kind, peer, stream)
            finally:
                self.nccl.groupEnd()

        return self._start(start, width, sent, received)

    def gather(self, sent: Array, received: Array) -> NcclTransfer:
        """Send ``sent`` (k,) to every rank. Row i of ``received`` (size, k) becomes what rank i sent."""

        def start(stream: int) -> None:
            kind = self.nccl.NCCL_UINT8
            self.communicator.allGather(sent.data.ptr, received.data.ptr, sent.nbytes, kind, stream)

        return self._start(start, sent.nbytes, sent, received)

    def spread(self, array: Array, source: int) -> NcclTransfer:
        """Fill ``array`` with that of the rank ``source``."""

        def start(stream: int) -> None:
            pointer, kind = array.data.ptr, self.nccl.NCCL_UINT8
            self.communicator.broadcast(pointer, pointer, array.nbytes, kind, source, stream)

        return self._start(start, array.nbytes, array)

    def _start(self, start: Callable[[int], None], nbytes: int, *arrays: Array) -> NcclTransfer:
        """Start a transfer after the work of the current stream, unless there is nothing to send."""
        cuda = self.cupy.cuda
        with nccl_errors("a transfer between GPUs"), cuda.Device(self.index):
            ready, done = (cuda.Event(disable_timing=True) for _ in range(2))
            if nbytes:
                ready.record(cuda.get_current_stream())
                self.stream.wait_event(ready)
                start(self.stream.ptr)
            done.record(self.stream)
        return NcclTransfer(self, done, arrays)

    def close(self, abort: bool) -> None:
        """End the connection. abort: leave transfers unfinished, which other ranks may wait in."""
        with contextlib.suppress(RuntimeError):  # the process ends anyway
            if abort:
                self.communicator.abort()
            else:
                self.communicator.destroy()


class NcclTransfer:
    """A transfer that was started. It keeps its arrays, because their memory must not be used again before its end."""

    def __init__(self, connection: NcclConnection, done: Any, arrays: tuple[Array, ...]) -> None:
        self.connection, self.event, self.arrays = connection, done, arrays

    def test(self) -> bool:
        """Return whether the transfer is done. Raises DeviceError if the connection has failed."""
        with nccl_errors("the end of a transfer between GPUs"):
            if self.event.done:
                return True
            self.connection.communicator.check_async_error()
        return False
