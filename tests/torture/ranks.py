"""Ranks that are forks of one process, which sockets connect. They start in milliseconds, where MPI takes a second.

Each rank is a process with its own memory, signals and random numbers, as with MPI. What is imitated is `mpiexec`, by
`lead`, and the way of the bytes, by `SocketEngine`. As in MPI, a rank that is killed is not noticed by the others:
`lead` ends them.
"""

import os
import signal
import socket
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import tensorlite as tl
import tensorlite.distributed as dist
from gpt.train import Interrupt
from tensorlite.distributed.communicator import Communicator
from tests.torture.worker import Order, work

ERROR = 70  # The exit status of a worker that raised.
TIMEOUT = 60.0  # Seconds that a rank waits for the others.
HEADER = struct.Struct("<QQ")  # the number of a message, and the bytes that follow
ENDED, ROLL_CALL = 0, 1  # The numbers of messages that belong to no call.
MOST_BYTES = 1 << 16  # that are read at once

Receive = Callable[[list[bytes]], None]


def fork(function: Callable[[], int], output: Path) -> int:
    """Call a function in a fork of this process, whose output goes to a file. Return the number of the process.

    Its exit status is the result of the function, or ERROR.
    """
    number = os.fork()
    if number:
        return number
    code = ERROR
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = function()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def lead(order: Order, count: int, output: Path, tell: Callable[[Sequence[int]], None]) -> int:
    """Fork ranks, pass signals on to them, and return the exit status of the first one that fails, 0 if none does.

    A rank that a signal kills or that raises ends the others, as with mpiexec. tell: gets the numbers of the processes.
    """
    numbers: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for rank in numbers:
            with suppress(ProcessLookupError):
                os.kill(rank, number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    ends: list[dict[int, socket.socket]] = [{} for _ in range(count)]
    for a in range(count):
        for b in range(a):
            ends[a][b], ends[b][a] = socket.socketpair()
    for rank in range(count):
        numbers.append(fork(lambda rank=rank: work_as_rank(order, rank, ends[rank]), output))  # type: ignore[misc]
    tell(numbers)
    for end in ends:
        for each in end.values():
            each.close()
    first = 0
    while numbers:
        number, status = os.wait()
        numbers.remove(number)
        code = os.waitstatus_to_exitcode(status)
        first = first or (code if code >= 0 else 128 - code)
        if code < 0 or code == ERROR:
            pass_on(signal.SIGKILL, None)
    return first


def work_as_rank(order: Order, rank: int, sockets: dict[int, socket.socket]) -> int:
    """Train as a rank, as `gpt.cli.processes.start_processes` lets it, and return the exit status."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    engine = SocketEngine(rank, sockets, 0 if rank == 0 else order.kill_at if order.kill_rank == rank else 0)
    group = dist.Group(Communicator(engine, TIMEOUT))
    dist.init = lambda timeout=TIMEOUT: group
    tl.set_num_threads(1)
    Interrupt.passed_on, Interrupt.silent = True, rank > 0
    try:
        status = 0 if work(order, rank) else 3
    except (KeyboardInterrupt, SystemExit):
        engine.close()
        raise
    calls_of(order).write_text(str(engine.calls["announced"]))
    return status


def calls_of(order: Order) -> Path:
    """Return the file that has the number of calls of each rank."""
    return Path(f"{order.journal}-calls.txt")


class SocketEngine:
    """A rank that sockets connect with the others: an `Engine` of `tensorlite.distributed`.

    kill_at: the number of the call, from 1, at which the process kills itself; 0 never.
    """

    def __init__(self, rank: int, sockets: dict[int, socket.socket], kill_at: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, len(sockets) + 1, rank
        self.sockets, self.kill_at = sockets, kill_at
        self.to_send = {other: bytearray() for other in sockets}
        self.read = {other: bytearray() for other in sockets}
        self.arrived: dict[tuple[int, int], bytes] = {}
        self.said: dict[int, set[int]] = {ENDED: set(), ROLL_CALL: set()}
        self.calls: Counter[str] = Counter()
        for each in sockets.values():
            each.setblocking(False)

    # ---- calls ----------------------------------------------------------------------------------------------

    def announce(self, text: str) -> "SocketRequest":
        if self.calls["announced"] + 1 == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        request = self.start([text.encode()] * self.size, lambda parts: None, "announced")
        request.texts[self.rank] = text
        return request

    def exchange(self, sent: Any, received: Any) -> "SocketRequest":
        return self.start([row.tobytes() for row in sent], fill_rows(received))

    def gather(self, sent: Any, received: Any) -> "SocketRequest":
        return self.start([sent.tobytes()] * self.size, fill_rows(received))

    def spread(self, array: Any, source: int) -> "SocketRequest":
        def receive(parts: list[bytes]) -> None:
            array[...] = np.frombuffer(parts[source], array.dtype)

        return self.start([array.tobytes() if self.rank == source else b""] * self.size, receive)

    def start(self, parts: list[bytes], receive: Receive, kind: str = "moved") -> "SocketRequest":
        """Send a part to each rank, and return the request for the parts that come from them.

        A call may be announced on one rank before the data of the last one moves, and on another one after it. So both
        kinds are counted alone.
        """
        self.calls[kind] += 1
        number = 2 * self.calls[kind] + (kind == "moved")
        for other in self.sockets:
            self.send(other, number, parts[other])
        return SocketRequest(self, number, parts[self.rank], receive)

    # ---- other ranks ----------------------------------------------------------------------------------------

    def ended(self) -> list[int]:
        self.pump()
        return sorted(self.said[ENDED])

    def roll_call(self, seconds: float) -> list[int]:
        for other in self.sockets:
            self.send(other, ROLL_CALL, b"")
        limit = time.monotonic() + seconds
        while len(self.said[ROLL_CALL]) < len(self.sockets) and time.monotonic() < limit:
            self.pump()
            time.sleep(0.01)
        return sorted(self.sockets.keys() - self.said[ROLL_CALL])

    def close(self, error: BaseException | None = None) -> None:
        for other in self.sockets:
            self.send(other, ENDED, b"")
        self.pump()

    def abort(self, status: int = 1) -> None:
        os._exit(ERROR)

    # ---- bytes ----------------------------------------------------------------------------------------------

    def send(self, other: int, number: int, content: bytes) -> None:
        """Send bytes to a rank, now or during a later `pump`."""
        self.to_send[other] += HEADER.pack(number, len(content)) + content
        self.pump()

    def pump(self) -> bool:
        """Send and receive what is possible without waiting. Return whether everything is sent.

        A rank that was killed takes nothing and sends nothing.
        """
        for other, each in self.sockets.items():
            with suppress(BlockingIOError, ConnectionError):
                while self.to_send[other]:
                    del self.to_send[other][: each.send(self.to_send[other])]
            with suppress(BlockingIOError, ConnectionError):
                while part := each.recv(MOST_BYTES):
                    self.read[other] += part
            self.take_messages(other)
        return not any(self.to_send.values())

    def take_messages(self, other: int) -> None:
        """Take the whole messages out of what was read from a rank."""
        buffer = self.read[other]
        while len(buffer) >= HEADER.size:
            number, length = HEADER.unpack_from(buffer)
            end = HEADER.size + length
            if len(buffer) < end:
                return
            if number in self.said:
                self.said[number].add(other)
            else:
                self.arrived[other, number] = bytes(buffer[HEADER.size : end])
            del buffer[:end]


def fill_rows(received: Any) -> Receive:
    """Return a function that makes row i of an array what rank i sent."""

    def receive(parts: list[bytes]) -> None:
        for row, part in zip(received, parts, strict=True):
            row[...] = np.frombuffer(part, received.dtype)

    return receive


class SocketRequest:
    """A request that is done when the parts of all ranks are there. texts: the parts that are, as text."""

    def __init__(self, engine: SocketEngine, number: int, own: bytes, receive: Receive) -> None:
        self.engine, self.number, self.receive = engine, number, receive
        self.parts: dict[int, bytes] = {engine.rank: own}
        self.texts: list[str | None] = [None] * engine.size
        self.done = False

    def test(self) -> bool:
        if self.done:
            return True
        sent = self.engine.pump()
        for other in self.engine.sockets.keys() - self.parts.keys():
            part = self.engine.arrived.pop((other, self.number), None)
            if part is not None:
                self.parts[other] = part
                self.texts[other] = part.decode(errors="replace")
        if sent and len(self.parts) == self.engine.size:
            self.receive([self.parts[rank] for rank in range(self.engine.size)])
            self.done = True
        return self.done
