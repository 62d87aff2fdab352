"""Start a worker, send it signals, and wait for its end.

A launcher is a function of an order and a file for the output. It returns an `Attempt`. A launcher of several ranks
starts them together, sends a signal to one of them or to all, and waits for all. Nothing else changes.
"""

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.torture.worker import Order, work

LONGEST = 120.0  # Seconds that an attempt may take.


class Attempt(Protocol):
    """A worker in progress."""

    def send(self, number: int) -> None:
        """Send it a signal, if it has not ended."""

    def wait(self, seconds: float) -> int | None:
        """Return its exit status, negative for a signal, or None if it still goes on after some seconds."""


class Forked:
    """A worker in a fork of this process, which has imported everything: it starts in some milliseconds."""

    def __init__(self, order: Order, output: Path) -> None:
        self.status: int | None = None
        self.number = os.fork()
        if self.number:
            return
        code = 70
        try:
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            code = 0 if work(order) else 3
        except SystemExit as stop:
            code = int(stop.code or 0)
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)

    def send(self, number: int) -> None:
        if self.wait(0) is None:
            os.kill(self.number, number)

    def wait(self, seconds: float) -> int | None:
        end = time.monotonic() + seconds
        while self.status is None:
            found, status = os.waitpid(self.number, os.WNOHANG)
            if found:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= end:
                break
            else:
                time.sleep(0.001)
        return self.status


class Started:
    """A worker in a new process, as a user starts one."""

    def __init__(self, order: Order, output: Path) -> None:
        with output.open("ab") as file:
            command = [sys.executable, "-m", "tests.torture.worker", order.to_json()]
            self.process = subprocess.Popen(command, stdout=file, stderr=file)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float) -> int | None:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


LAUNCHERS: dict[str, Callable[[Order, Path], Attempt]] = {"forked": Forked, "started": Started}
KILLED = -signal.SIGKILL
