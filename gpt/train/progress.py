"""What a person sees and does while a model trains: the measurements of a step, the progress bar, Ctrl-C."""

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
from typing import Any, Self, TextIO

from tqdm import tqdm

from tensorlite import Tensor


class Meter:
    """Losses, gradient norms and time of the steps since the last reading.

    The numbers stay on the device until they are read, because to read one is to wait for it. What happens inside
    `with meter:` is timed.
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
        """The loss of a step and the norm of its gradient, 0-d."""
        self.pending.append((loss, norm))

    def read(self) -> tuple[list[tuple[float, float]], dict[str, float]]:
        """(loss, norm) of each step, and what a line of metrics says about them all. Starts anew."""
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
    """A line of numbers on stderr, if that is a terminal, and a bar in what room they leave."""
    # The bar comes last: a narrow terminal cuts the end off, and 80 columns hold the numbers alone.
    form = "step {n_fmt}/{total_fmt}{postfix}, {remaining} left {bar}"
    size = {"dynamic_ncols": True} if knows_its_width(sys.stderr) else {"ncols": 80, "nrows": 24}
    return tqdm(total=steps, initial=step, bar_format=form, disable=None, file=sys.stderr, **size)


def knows_its_width(stream: TextIO) -> bool:
    """Whether a terminal says how wide it is; some say 0, as does one that a program has opened (`script`)."""
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):  # no terminal, no file
        return False


def shown(line: dict[str, Any]) -> str:
    """A line of metrics for the bar."""
    return (
        f"loss {line['loss']:.3f}, lr {line['lr']:.1e}, {line['ms_per_step']:.1f} ms/step, "
        f"{line['tokens_per_second'] / 1000:.1f}k tok/s"
    )


def this_python() -> str:
    """The running interpreter, as it is called in a shell here: after `make train` no environment is active."""
    path = Path(sys.executable)
    if (found := shutil.which("python")) and Path(found).absolute() == path:
        return "python"
    with suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return shlex.quote(str(path))


class Interrupt:
    """Ctrl-C within a `with` block asks to stop (`requested`); a second one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.requested = False
        self.ours = False

    def __enter__(self) -> Self:
        # Another handler, or none, as for a job in the background, is somebody's wish.
        self.ours = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self.ours:
            signal.signal(signal.SIGINT, self.handle)
        return self

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # No print: the signal may have come in the middle of another one.
        os.write(2, b"\nFinishing the step and saving; Ctrl-C again stops at once.\n")

    def __exit__(self, *exception: object) -> None:
        if self.ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
