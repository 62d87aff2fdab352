"""Call a function on many values in several processes, with the results in order."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from gpt.data.text import DataError

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # Calls that wait for each process, so that none is idle and few results are in memory.


class Workers:
    """Processes that call functions; a single one is this process itself. Use it in a `with` statement."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self.pool: ProcessPoolExecutor | None = None
        if processes > 1:
            # A copy of this process (fork) would have the locks of its threads, too.
            context = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(processes, context, attend)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def in_order(self, function: Callable[[T], R], values: Iterable[T]) -> Iterator[R]:
        """Yield the results for all values in their order. Raises what the function raises, and DataError.

        With several processes, the function and the values are sent there by pickle.
        """
        if self.pool is None:
            yield from map(function, values)
            return
        waiting: deque[Future[R]] = deque()
        try:
            for value in values:
                waiting.append(self.pool.submit(function, value))
                if len(waiting) > AHEAD * self.processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise DataError(
                "a process that encodes was ended by the system, perhaps for lack of memory. Run the command again, "
                "which continues; --processes 1 needs the least memory"
            ) from None


def attend(*_: Any) -> None:
    """Prepare a process: leave Ctrl-C to the first one, and end when that one has ended, whatever ended it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=watch, daemon=True).start()
