"""Stop a run when a signal asks for it: Ctrl-C, a container's or a batch system's end, a closed terminal."""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")

# The signals that stop a run, each with what a user calls it. Windows has no SIGHUP.
NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP"}
SIGNALS = {getattr(signal, name): words for name, words in NAMES.items() if hasattr(signal, name)}

# What a process does with these signals if nobody has changed it. A handler of the program that calls us stays, and so
# does SIG_IGN, which a shell sets for background jobs and `nohup` for SIGHUP.
DEFAULTS = (signal.default_int_handler, signal.SIG_DFL)

# Seconds in which SIGTERM and SIGHUP count as one request: `make` and shells pass on a signal that was sent to us, too.
SAME_REQUEST = 0.2


class Stopped(Exception):
    """A signal asked the run to stop, while it did something that can be done again later."""


class Interrupt:
    """Context manager in which SIGINT, SIGTERM and SIGHUP stop a run in order.

    The first one raises an exception at once, or in a `deferred` block only sets `number`; a second one always raises.
    The exception is KeyboardInterrupt for SIGINT, and otherwise SystemExit with the exit status that a shell gives a
    process that the signal ended, 128 + number. Changes nothing in a thread, because only the main thread may.

    `with Interrupt() as interrupt` inside another one gives the outer one.
    """

    outermost: ClassVar["Interrupt | None"] = None
    """The one that has set the handlers of the process."""

    passed_on: ClassVar[bool] = False
    """Whether a launcher passes signals on, so that Ctrl-C may come twice, too."""

    silent: ClassVar[bool] = False
    """Whether another process tells the user of a signal."""

    number: int | None
    """The number of the last signal, None before the first."""

    def __init__(self) -> None:
        self.number = None
        self._deferred = False
        self._time = -SAME_REQUEST
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Return whether a signal has asked the run to stop."""
        return self.number is not None

    @property
    def exit_status(self) -> int:
        """Return the exit status of a process that the last signal ended; that of Ctrl-C if there was none."""
        return 128 + (self.number or signal.SIGINT)

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is not threading.main_thread():
            return self
        if Interrupt.outermost is not None:
            return Interrupt.outermost
        Interrupt.outermost = self
        self._before = {n: signal.getsignal(n) for n in SIGNALS if signal.getsignal(n) in DEFAULTS}
        for number in self._before:
            # An explicit handler is also called in process 1 of a container, where the default would ignore SIGTERM.
            signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        if Interrupt.outermost is self:
            Interrupt.outermost = None
            for number, handler in self._before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Context manager in which the first signal only sets `number`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def until_requested(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; raise Stopped before the next one when a signal has come."""
        for item in items:
            if self.requested:
                raise Stopped
            yield item

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.number = self.requested, number
        before, self._time = self._time, time.monotonic()
        twice = self.passed_on or number != signal.SIGINT
        if again and self._deferred and twice and self._time - before < SAME_REQUEST:
            return
        if again or not self._deferred:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        if self.silent:
            return
        word = SIGNALS[number]
        # print() could fail here, because the signal may have interrupted another print(). A closed terminal cannot be
        # written to.
        with suppress(OSError):
            os.write(2, f"\n{word}: finishing the step and saving; {word} again stops at once.\n".encode())
