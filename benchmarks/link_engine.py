"""An engine of collectives whose transfers take the time of a link, around another engine on one machine.

    communicator.engine = LinkEngine(communicator.engine, Link(bandwidth=1.25e9, latency=50e-6))

Each rank has a link that sends and receives at once. A transfer of n bytes to the others is done n / B + L after the
last rank has started it, with the bandwidth B and the latency L. The ranks gather in ceil(log2 N) rounds, each with its
latency: the model of `gpt/model/scaling.py`. All ranks need the same clock, as those of one machine have.
"""

import math
import time
from collections.abc import Callable

import numpy as np

from gpt.model.scaling import ANNOUNCEMENT, Link
from tensorlite.distributed.communicator import Engine, Request


class LinkEngine:
    """An engine that delays the transfers of another one. link: may be changed between two collectives.

    sent: the bytes that this rank has sent so far.
    """

    def __init__(self, engine: Engine, link: Link, clock: Callable[[], float] = time.monotonic) -> None:
        self.engine, self.link, self.clock = engine, link, clock
        self.rank, self.size = engine.rank, engine.size
        self.rounds = math.ceil(math.log2(engine.size))
        self.sent = 0

    def announce(self, text: str) -> "DelayedAnnouncement":
        size = ANNOUNCEMENT * (self.size - 1)
        self.sent += size
        return DelayedAnnouncement(self, text, size / self.link.bandwidth + self.link.latency)

    def exchange(self, sent: np.ndarray, received: np.ndarray) -> "DelayedRequest":
        return self._delayed(self.engine.exchange(sent, received), sent[0].nbytes * (self.size - 1), 1)

    def gather(self, sent: np.ndarray, received: np.ndarray) -> "DelayedRequest":
        return self._delayed(self.engine.gather(sent, received), sent.nbytes * (self.size - 1), self.rounds)

    def spread(self, array: np.ndarray, source: int) -> "DelayedRequest":
        return self._delayed(self.engine.spread(array, source), array.nbytes, self.rounds)

    def ended(self) -> list[int]:
        return self.engine.ended()

    def roll_call(self, seconds: float) -> list[int]:
        return self.engine.roll_call(seconds)

    def close(self, error: BaseException | None = None) -> None:
        self.engine.close(error)

    def abort(self, status: int = 1) -> None:
        self.engine.abort(status)

    def _delayed(self, request: Request, size: int, rounds: int) -> "DelayedRequest":
        self.sent += size
        return DelayedRequest(self, request, size / self.link.bandwidth + rounds * self.link.latency)


class DelayedRequest:
    """A transfer that is done some seconds after the last rank has started it."""

    def __init__(self, engine: LinkEngine, request: Request, seconds: float) -> None:
        self.engine, self.seconds = engine, seconds
        self.starts = np.empty((engine.size, 1))
        # A rank may be late, so each tells the others when it has started.
        self.waiting: list[Request] = [request, engine.engine.gather(np.array([engine.clock()]), self.starts)]

    def test(self) -> bool:
        """Return whether the bytes have come, and their time has passed."""
        self.waiting = [request for request in self.waiting if not request.test()]
        return not self.waiting and self.engine.clock() >= self.starts.max() + self.seconds


class DelayedAnnouncement:
    """An announcement that is done some seconds after the last rank has made it. Its text has the time of its start."""

    def __init__(self, engine: LinkEngine, text: str, seconds: float) -> None:
        self.engine, self.seconds = engine, seconds
        self.announcement = engine.engine.announce(f"{text}\0{engine.clock()!r}")
        self.end: float | None = None

    @property
    def texts(self) -> list[str | None]:
        """Return the calls of the ranks, None for those that have not called yet."""
        return [None if text is None else text.rpartition("\0")[0] for text in self.announcement.texts]

    def test(self) -> bool:
        """Return whether all have called, and the time of the message has passed."""
        if self.end is None:
            if not self.announcement.test():
                return False
            starts = [float(text.rpartition("\0")[2]) for text in self.announcement.texts if text is not None]
            self.end = max(starts) + self.seconds
        return self.engine.clock() >= self.end
