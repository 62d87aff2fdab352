"""Ranks that are threads of one process: for tests, and to see what a group does without starting several processes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from ..backends.registry import Array
from .communicator import Communicator

__all__ = ["ThreadEngine", "run_threads"]

R = TypeVar("R")
GRACE = 3.0  # seconds in which the other threads stop after an error of one


class Postings:
    """What the ranks of a group have posted, by the number of the call, and how many have read it."""

    def __init__(self, size: int) -> None:
        self.size, self.lock = size, threading.Lock()
        self.posts: dict[tuple[str, int], list[Any]] = {}
        self.readers: dict[tuple[str, int], int] = {}
        self.ended: set[int] = set()
        self.answers: set[int] = set()
        self.error: BaseException | None = None

    def post(self, key: tuple[str, int], rank: int, value: Any) -> None:
        """Post a value of a rank."""
        with self.lock:
            self.posts.setdefault(key, [None] * self.size)[rank] = value

    def read(self, key: tuple[str, int]) -> list[Any] | None:
        """Return the values of all ranks, which each rank reads once, or None if one is missing."""
        with self.lock:
            if self.error is not None:
                raise _Ended from self.error
            values = self.posts[key]
            if any(value is None for value in values):
                return None
            self.readers[key] = self.readers.get(key, 0) + 1
            if self.readers[key] == self.size:
                del self.posts[key], self.readers[key]
            return values


class _Ended(Exception):
    """Another rank has raised an error, which is the one to report."""


class _Request:
    """A request that is done when all ranks have posted. receive: takes what they posted."""

    def __init__(self, postings: Postings, key: tuple[str, int], receive: Callable[[list[Any]], None]) -> None:
        self.postings, self.key, self.receive, self.texts = postings, key, receive, postings.posts[key]

    def test(self) -> bool:
        values = self.postings.read(self.key)
        if values is None:
            return False
        self.receive(values)
        return True


class ThreadEngine:
    """A rank that is a thread. All ranks of a group share a postings."""

    def __init__(self, postings: Postings, rank: int) -> None:
        self.postings, self.rank, self.size = postings, rank, postings.size
        self.local_rank = rank
        self.calls: Counter[str] = Counter()

    def _start(self, kind: str, value: Any, receive: Callable[[list[Any]], None]) -> _Request:
        self.calls[kind] += 1
        key = kind, self.calls[kind]
        self.postings.post(key, self.rank, value)
        return _Request(self.postings, key, receive)

    def announce(self, text: str) -> _Request:
        return self._start("announce", text, lambda values: None)

    def exchange(self, sent: Array, received: Array) -> _Request:
        def receive(values: list[Any]) -> None:
            for rank, value in enumerate(values):  # an index, because iterating would be slow on a device
                received[rank] = value[self.rank]

        return self._start("exchange", sent.copy(), receive)

    def gather(self, sent: Array, received: Array) -> _Request:
        def receive(values: list[Any]) -> None:
            for rank, value in enumerate(values):
                received[rank] = value

        return self._start("gather", sent.copy(), receive)

    def spread(self, array: Array, source: int) -> _Request:
        def receive(values: list[Any]) -> None:
            array[...] = values[source]

        return self._start("spread", array.copy() if self.rank == source else (), receive)

    def ended(self) -> list[int]:
        return sorted(self.postings.ended)

    def roll_call(self, seconds: float) -> list[int]:
        self.postings.answers.add(self.rank)
        time.sleep(seconds)
        return [rank for rank in range(self.size) if rank not in self.postings.answers]

    def close(self, error: BaseException | None = None) -> None:
        with self.postings.lock:
            if error is None:
                self.postings.ended.add(self.rank)
            elif self.postings.error is None:
                self.postings.error = error

    def abort(self, status: int = 1) -> None:
        """Leave the other ranks alone: an error that this one raises ends them."""


def run_threads(function: Callable[[Communicator], R], size: int, timeout: float) -> list[R]:
    """Call ``function`` with the communicator of each rank, in a thread each, and return the results.

    If a rank raises, the others stop at their next collective, and its error is raised here.
    """
    postings = Postings(size)
    results: list[Any] = [None] * size

    def run(rank: int) -> None:
        engine = ThreadEngine(postings, rank)
        try:
            results[rank] = function(Communicator(engine, timeout))
        except _Ended:
            pass
        except BaseException as error:
            engine.close(error)
        else:
            engine.close()

    threads = [threading.Thread(target=run, args=(rank,), name=f"rank {rank}", daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    error_time = 0.0
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(0.05)
        if postings.error is not None:  # A rank that hangs is left behind: it is a daemon.
            error_time = error_time or time.monotonic()
            if time.monotonic() - error_time > GRACE:
                break
    if postings.error is not None:
        raise postings.error
    return results
