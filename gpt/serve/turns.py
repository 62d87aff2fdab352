"""A lock whose holders take turns."""

import threading
from collections import deque


class Turns:
    """A lock that passes from one thread to the next in the order in which they came.

    A `threading.Lock` often goes back to the thread that has just released it, so that others never get it.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held = False
        self._queue: deque[threading.Lock] = deque()

    @property
    def waiting(self) -> int:
        """Return how many threads wait."""
        return len(self._queue)

    def __enter__(self) -> None:
        with self._mutex:
            if not self._held:
                self._held = True
                return
            own = threading.Lock()
            own.acquire()
            self._queue.append(own)
        own.acquire()  # `__exit__` of the thread before releases it.

    def __exit__(self, *exc: object) -> None:
        with self._mutex:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._held = False
