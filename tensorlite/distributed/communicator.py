"""Run the collectives of a group of ranks one after another, in the same order on every rank.

A collective is a generator that yields what it waits for. Every rank tells the others what it calls, before any data
moves. So different calls, a rank that has ended, and a rank that does not come are errors that name the rank.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, Protocol

from ..backends.registry import Array

__all__ = [
    "Announcement", "Communicator", "DistributedError", "Engine", "Request", "Steps", "StepsRequest", "Work",
    "name_ranks",
]  # fmt: skip

# A wait spins this often before it sleeps: a short wait costs no switch, and a long one leaves the core to others. It
# sleeps for a part of the time that it has waited for a request, so that it ends little later than it could.
SPINS = 200
SLEEP_PART, SHORTEST_SLEEP, LONGEST_SLEEP = 1 / 16, 20e-6, 1e-3  # seconds
CHECK_INTERVAL = 0.1  # seconds between two looks at whether another rank has ended
ROLL_CALL = 2.0  # seconds in which a rank that still runs answers after a timeout


class DistributedError(RuntimeError):
    """An error for ranks that do not do the same: different calls or values, a rank that has ended, a timeout.

    reporter: the rank that should tell the user, so that one error of all ranks is one message. None: each should.
    """

    reporter: int | None = None


class Request(Protocol):
    """A transfer that was started. ``test`` returns whether it is done, and makes it go on."""

    def test(self) -> bool: ...


class Announcement(Request, Protocol):
    """A call that was announced. ``texts`` has the call of each rank, None for those that have not called yet."""

    @property
    def texts(self) -> Sequence[str | None]: ...


class Engine(Protocol):
    """What moves bytes between ranks: MPI, NCCL, or threads. All arrays are C-contiguous and of one dtype.

    local_rank: the number of the rank among those of its machine, from 0.
    """

    rank: int
    size: int
    local_rank: int

    def announce(self, text: str) -> Announcement:
        """Tell every rank what this one calls."""

    def exchange(self, sent: Array, received: Array) -> Request:
        """Send row i of ``sent`` (size, k) to rank i. Row i of ``received`` becomes what rank i sent."""

    def gather(self, sent: Array, received: Array) -> Request:
        """Send ``sent`` (k,) to every rank. Row i of ``received`` (size, k) becomes what rank i sent."""

    def spread(self, array: Array, source: int) -> Request:
        """Fill ``array`` with that of the rank ``source``."""

    def ended(self) -> list[int]:
        """Return the ranks that have ended their program."""

    def roll_call(self, seconds: float) -> list[int]:
        """Return the ranks that do not answer within this time."""

    def close(self, error: BaseException | None = None) -> None:
        """Tell the other ranks that this one ends. error: what ended it."""

    def abort(self, status: int = 1) -> None:
        """End the processes of all ranks at once. Ranks that are threads of one process go on."""


Steps = Generator[Request, None, Any]
"""The steps of a collective: it yields the requests that it waits for, and returns its result."""


class StepsRequest:
    """A request that is made of steps. done: whether it is done. result: what the steps return, then."""

    def __init__(self, steps: Steps) -> None:
        self.result: Any = None
        self.done = False
        self._steps = steps
        self._request: Request | None = None

    def test(self) -> bool:
        """Go on as far as possible without waiting. Return whether it is done."""
        while not self.done:
            if self._request is not None and not self._request.test():
                return False
            try:
                self._request = self._next_request()
            except StopIteration as stop:
                self.result, self.done = stop.value, True
        return True

    def _next_request(self) -> Request:
        """Return what the steps wait for next. Raises StopIteration, with their result, after the last one."""
        return next(self._steps)


class Work(StepsRequest):
    """A collective that was started. ``wait()`` returns its result."""

    def __init__(self, communicator: Communicator, call: str, steps: Steps) -> None:
        super().__init__(self._checked(steps))
        self.call = call
        self._communicator = communicator
        # At once, so that the announcement arrives while the collectives before this one go on.
        self.announcement = communicator.engine.announce("\0".join((call, communicator.activity)))

    def _next_request(self) -> Request:
        self._communicator.requests_done += 1
        return super()._next_request()

    def _checked(self, steps: Steps) -> Steps:
        yield self.announcement
        self._communicator.check_calls(self.announcement.texts)
        return (yield from steps)

    def wait(self, timeout: float | None = None) -> Any:
        """Return the result. timeout: in seconds, None for that of the communicator. Raises DistributedError."""
        return self._communicator.finish(self, self._communicator.timeout if timeout is None else timeout)


class Communicator:
    """What runs the collectives of one rank, in the order of their calls.

    timeout: seconds that a collective waits for the other ranks. activity: what this rank is doing, in words, which the
        other ranks name in their errors. requests_done: how many requests this rank has seen the end of.
    """

    def __init__(self, engine: Engine, timeout: float) -> None:
        self.engine, self.timeout, self.activity = engine, timeout, ""
        self.rank, self.size = engine.rank, engine.size
        self.requests_done = 0
        self._queue: deque[Work] = deque()
        self._known: list[str] = [""] * self.size  # the last call of each rank
        self._error: DistributedError | None = None

    def submit(self, call: str, steps: Steps) -> Work:
        """Start a collective and return it. call: what it is, in words that are the same on every rank."""
        if self._error is not None:
            raise self._error
        work = Work(self, call, steps)
        self._queue.append(work)
        self.progress()
        return work

    def progress(self) -> None:
        """Go on with what was started, as far as possible without waiting."""
        while self._queue and self._queue[0].test():
            self._queue.popleft()

    def finish(self, work: Work, timeout: float) -> Any:
        """Wait for a collective, and for those that were started before it. Return its result."""
        begun = checked = time.monotonic()
        suspects: list[int] = []
        spins, requests, since, now = 0, self.requests_done, begun, begun
        while not self._is_done(work):
            if requests != self.requests_done:  # What comes next may be quick, although this was not.
                spins, requests, since = 0, self.requests_done, time.monotonic()
                now = since
            spins += 1
            if spins <= SPINS:
                continue
            time.sleep(min(max(SHORTEST_SLEEP, SLEEP_PART * (now - since)), LONGEST_SLEEP))
            now = time.monotonic()
            if now - checked >= CHECK_INTERVAL:
                checked = now
                # Its last messages may come after that of its end, so a rank has to be absent in two looks.
                absent = [rank for rank in self.engine.ended() if rank in self.absent()]
                if gone := [rank for rank in absent if rank in suspects]:
                    raise self.fail(gone, self.describe_ended(gone))
                suspects = absent
                if now - begun >= timeout:
                    raise self.timed_out(timeout)
        return work.result

    def _is_done(self, work: Work) -> bool:
        """Go on, and return whether a collective is done."""
        if not work.done:
            self.progress()
        return work.done

    # ---- errors -----------------------------------------------------------------------------

    def fail(self, culprits: Sequence[int], text: str) -> DistributedError:
        """Return an error, which every later call raises, too. culprits: the ranks that do not report it."""
        error = DistributedError(text)
        others = [rank for rank in range(self.size) if rank not in culprits]
        error.reporter = others[0] if others else 0
        self._error = error
        return error

    def check_calls(self, texts: Sequence[str | None]) -> None:
        """Raise DistributedError unless all ranks made the same call."""
        self._known = [text or "" for text in texts]
        calls: dict[str, list[int]] = {}
        for rank, text in enumerate(self._known):
            calls.setdefault(text.partition("\0")[0], []).append(rank)
        if len(calls) == 1:
            return
        parts = [f"{name_ranks(ranks)} called {call}{self.doing(ranks[0])}" for call, ranks in calls.items()]
        raise self.fail((), f"{'; '.join(parts)}. All ranks have to make the same calls in the same order")

    def doing(self, rank: int) -> str:
        """Return what a rank was doing at its last call, in brackets, or an empty string."""
        activity = self._known[rank].partition("\0")[2]
        return f" ({activity})" if activity else ""

    def absent(self) -> list[int]:
        """Return the ranks that have not made the call that this one waits in."""
        return [rank for rank, text in enumerate(self._queue[0].announcement.texts) if text is None]

    def describe_ended(self, ended: Sequence[int]) -> str:
        """Return the text of an error for ranks that have ended their program."""
        call = self._queue[0].call
        last = self.describe_last(ended[0])
        return f"{name_ranks(ended)} ended the program, and {name_ranks([self.rank])} waits in {call}. {last}"

    def describe_last(self, rank: int) -> str:
        """Return a sentence about the last call of a rank that all ranks know."""
        call = self._known[rank].partition("\0")[0]
        if not call:
            return f"Rank {rank} has made no call yet"
        return f"The last call of rank {rank} was {call}{self.doing(rank)}"

    def timed_out(self, timeout: float) -> DistributedError:
        """Return the error for a collective that other ranks do not take part in."""
        work = self._queue[0]
        missing = self.engine.roll_call(ROLL_CALL)
        absent = self.absent()
        seconds = f"{timeout:g} seconds"
        if absent:
            culprits = [rank for rank in absent if rank in missing] or absent
            text = (
                f"{name_ranks(culprits)} did not call {work.call} within {seconds}. "
                f"{self.describe_last(culprits[0])}. It may hang, compute for longer, or run other code"
            )
        elif missing:
            culprits = missing
            text = f"{name_ranks(missing)} stopped in {work.call}{self.doing(missing[0])}: no answer within {seconds}"
        else:
            culprits = []
            text = f"{work.call} did not finish within {seconds}, although all ranks wait for it"
        return self.fail(culprits, text)


def name_ranks(ranks: Sequence[int]) -> str:
    """Return ranks in words."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"
