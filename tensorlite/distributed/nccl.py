"""Ranks whose arrays on a GPU move from GPU to GPU.

All else moves by the engine of the host, such as MPI: what ranks call, whether they are there, and arrays of the host.
Where the GPUs cannot be connected, their arrays are copied through the host. All ranks decide this together.
"""

from __future__ import annotations

import json
import logging
import socket
from typing import Any

import numpy as np

from ..backends.registry import BACKENDS, Array, device_of
from ..errors import DeviceError
from .communicator import Announcement, Engine, Request, Steps, StepsRequest

__all__ = ["NcclEngine"]

LOGGER = logging.getLogger("tensorlite.distributed")
IDENTIFIER = 128  # bytes of the identifier of a group
REPORT = 512  # bytes in which a rank says what it can use


class NcclEngine:
    """A rank whose arrays on a device move by the ``peer_transport`` of their backend. host: the engine for all else.

    The first transfer connects the devices of all ranks, in the same collective on each of them. Each rank uses one
    device of each type.
    """

    def __init__(self, host: Engine) -> None:
        self.host = host
        self.rank, self.size, self.local_rank = host.rank, host.size, host.local_rank
        self._connections: dict[type, StepsRequest] = {}

    # ---- transfers --------------------------------------------------------------------------

    def announce(self, text: str) -> Announcement:
        return self.host.announce(text)

    def exchange(self, sent: Array, received: Array) -> Request:
        if isinstance(sent, np.ndarray):
            return self.host.exchange(sent, received)
        return self._start(received, self._send("exchange", sent, received))

    def gather(self, sent: Array, received: Array) -> Request:
        if isinstance(sent, np.ndarray):
            return self.host.gather(sent, received)
        return self._start(received, self._send("gather", sent, received))

    def spread(self, array: Array, source: int) -> Request:
        if isinstance(array, np.ndarray):
            return self.host.spread(array, source)
        return self._start(array, self._spread(array, source))

    def _start(self, array: Array, steps: Steps) -> StepsRequest:
        """Return a transfer. It starts now if the devices are connected, and else when it is waited in.

        So every rank uses the host's engine in the same order, because all of them wait in the same order.
        """
        request = StepsRequest(steps)
        connection = self._connections.get(type(array))
        if connection is not None and connection.done:
            request.test()
        return request

    def _send(self, call: str, sent: Array, received: Array) -> Steps:
        connection = yield from self._connected(received)
        if connection is not None:
            yield getattr(connection, call)(sent, received)
            return
        copy = np.empty(received.shape, received.dtype)
        yield getattr(self.host, call)(host_copy(sent), copy)
        received[...] = device_copy(copy, received)

    def _spread(self, array: Array, source: int) -> Steps:
        connection = yield from self._connected(array)
        if connection is not None:
            yield connection.spread(array, source)
            return
        copy = host_copy(array) if self.rank == source else np.empty(array.shape, array.dtype)
        yield self.host.spread(copy, source)
        if self.rank != source:
            array[...] = device_copy(copy, array)

    # ---- connections ------------------------------------------------------------------------

    def _connected(self, array: Array) -> Steps:
        """Return the connection of the device that holds an array, or None if arrays are copied through the host."""
        kind = type(array)
        if kind not in self._connections:
            self._connections[kind] = StepsRequest(self._connect(array))
        request = self._connections[kind]
        yield request
        connection = request.result
        if connection is not None and connection.index != BACKENDS[kind].index_of(array):
            used = device_of(array).type
            raise DeviceError(
                f"distributed: expected arrays on {used}:{connection.index}, which the first transfer of this rank "
                f"used, got one on {device_of(array)}. Use one device in each process."
            )
        return connection

    def _connect(self, array: Array) -> Steps:
        """Connect the devices of all ranks. Return the connection, or None if a rank cannot be connected."""
        transport = BACKENDS[type(array)].peer_transport
        device = device_of(array).type
        problem = f"{device} has no transfers between processes" if transport is None else transport.problem()
        place = "" if problem else f"{transport.place_of(array)} of {socket.gethostname()}"
        reports = np.zeros((self.size, REPORT), np.uint8)
        yield self.host.gather(padded(json.dumps([problem[:200], place[:100]]).encode(), REPORT), reports)
        reason = why_not([json.loads(row.tobytes().rstrip(b"\0")) for row in reports])
        if reason:
            if self.rank == 0:
                LOGGER.info("arrays on %s are copied through the host, because %s", device, reason)
            return None
        identifier = padded(transport.new_identifier() if self.rank == 0 else b"", IDENTIFIER)
        yield self.host.spread(identifier, 0)
        return transport.connect(array, self.size, self.rank, identifier.tobytes())

    # ---- other ranks ------------------------------------------------------------------------

    def ended(self) -> list[int]:
        return self.host.ended()

    def roll_call(self, seconds: float) -> list[int]:
        return self.host.roll_call(seconds)

    def close(self, error: BaseException | None = None) -> None:
        for request in self._connections.values():
            if request.result is not None:
                request.result.close(abort=error is not None)
        self._connections.clear()
        self.host.close(error)

    def abort(self, status: int = 1) -> None:
        self.host.abort(status)


def why_not(reports: list[list[str]]) -> str:
    """Return why the devices of the ranks cannot be connected, or an empty string. reports: problem, place of each."""
    for rank, (problem, _) in enumerate(reports):
        if problem:
            return f"of rank {rank}: {problem}"
    places = [place for _, place in reports]
    for rank, place in enumerate(places):
        first = places.index(place)
        if first < rank:
            return f"ranks {first} and {rank} use the same device, {place}"
    return ""


def padded(content: bytes, width: int) -> Any:
    """Return bytes as an array of this width, with zeros at its end."""
    return np.frombuffer(bytearray(content.ljust(width, b"\0")), np.uint8)


def host_copy(array: Array) -> Any:
    """Return a copy of an array in the memory of the host, C-contiguous."""
    return np.ascontiguousarray(BACKENDS[type(array)].to_numpy(array)).reshape(array.shape)


def device_copy(copy: Any, array: Array) -> Array:
    """Return an array of the host as one on the device of another array."""
    xp = BACKENDS[type(array)]
    return xp.from_numpy(copy, xp.index_of(array))
