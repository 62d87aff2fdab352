"""Measurements of a step, the progress bar, and Ctrl-C, while a model trains."""

import os
import shlex
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TextIO

from tensorlite import Tensor

if TYPE_CHECKING:
    from tqdm import tqdm


class Meter:
    """Losses, gradient norms and time of the steps since the last reading.

    The values stay on the device until they are read, because reading one waits for the device. `with meter:` times its
    block.
    """

    def __init__(self, tokens_per_step: int) -> None:
        self.tokens_per_step = tokens_per_step
        self.pending: list[tuple[Tensor, Tensor]] = []
        self.seconds = 0.0

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.seconds += time.perf_counter() - self.began

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Add the loss of a step and the norm of its gradient, 0-d each."""
        self.pending.append((loss, norm))

    def read(self) -> tuple[list[tuple[float, float]], dict[str, float]]:
        """Return (loss, norm) of each step, and their averages as a line of metrics has them; then reset."""
        with self:
            values = [(float(loss.item()), float(norm.item())) for loss, norm in self.pending]
        steps, seconds = len(values), self.seconds
        self.pending, self.seconds = [], 0.0
        return values, {
            "loss": sum(loss for loss, _ in values) / steps,
            "grad_norm": values[-1][1],
            "ms_per_step": round(1000 * seconds / steps, 3),
            "tokens_per_second": round(steps * self.tokens_per_step / seconds, 1),
        }


def progress_bar(step: int, steps: int) -> "tqdm[Any]":
    """Return a progress bar on stderr, which shows the measurements first; hidden if stderr is not a terminal."""
    from tqdm import tqdm

    # The bar itself comes last, because a narrow terminal cuts off the end. The numbers fit into 80 columns.
    form = "step {n_fmt}/{total_fmt}{postfix}, {remaining} left {bar}"
    size = {"dynamic_ncols": True} if knows_its_width(sys.stderr) else {"ncols": 80, "nrows": 24}
    return tqdm(total=steps, initial=step, bar_format=form, disable=None, file=sys.stderr, **size)


def knows_its_width(stream: TextIO) -> bool:
    """Return whether a terminal reports its width; some report 0, such as those that `script` opens."""
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):  # The stream is not a terminal, or not a file.
        return False


def format_metrics(line: dict[str, Any]) -> str:
    """Return a line of metrics as text for the progress bar."""
    return (
        f"loss {line['loss']:.3f}, lr {line['lr']:.1e}, {line['ms_per_step']:.1f} ms/step, "
        f"{line['tokens_per_second'] / 1000:.1f}k tok/s"
    )


def this_python() -> str:
    """Return the shell command for the running interpreter, which need not be on PATH after `make train`."""
    path = Path(sys.executable)
    if (found := shutil.which("python")) and Path(found).absolute() == path:
        return "python"
    with suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return shlex.quote(str(path))


class Interrupt:
    """Context manager in which Ctrl-C sets `requested`, and a second Ctrl-C raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.requested = False
        self.installed = False

    def __enter__(self) -> Self:
        # Respect an existing SIGINT handler, and SIG_IGN of background jobs.
        self.installed = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self.installed:
            signal.signal(signal.SIGINT, self.handle)
        return self

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle the first Ctrl-C, and restore the default for the second."""
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # print() could fail here, because the signal may have interrupted another print().
        os.write(2, b"\nFinishing the step and saving; Ctrl-C again stops at once.\n")

    def __exit__(self, *exception: object) -> None:
        if self.installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
