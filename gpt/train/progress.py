"""Measurements of a step, and the progress bar, while a model trains."""

import math
import os
import shlex
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gpt.errors import extra
from tensorlite import Tensor

if TYPE_CHECKING:
    from tqdm import tqdm


PROGRESS = "TENSORLITE_GPT_PROGRESS"  # "1" shows progress bars on a stderr that is not a terminal.


class Meter:
    """Losses, gradient norms and time of the steps since the last line of metrics.

    The values stay on the device until they are read, because reading one waits for the device. `with meter:` times its
    block.
    """

    def __init__(self, tokens_per_step: int) -> None:
        self.tokens_per_step = tokens_per_step
        self.pending: list[tuple[Tensor, Tensor]] = []
        self.losses: list[float] = []
        self.norm = 0.0
        self.seconds = 0.0
        self.tokens = 0  # The steps themselves count them.

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.seconds += time.perf_counter() - self.began

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Add the loss of a step and the norm of its gradient, 0-d each."""
        self.pending.append((loss, norm))

    def has_steps(self) -> bool:
        """Return whether there is a step for the next line of metrics."""
        return bool(self.pending or self.losses)

    def read(self) -> list[tuple[float, float]]:
        """Return (loss, norm) of each step since the last reading."""
        if not self.pending:  # Without a step there is no time to count.
            return []
        with self:
            values = [(float(loss.item()), float(norm.item())) for loss, norm in self.pending]
        self.pending = []
        self.losses += [loss for loss, _ in values]
        self.norm = next((norm for _, norm in values[::-1] if math.isfinite(norm)), self.norm)
        return values

    def averages(self) -> dict[str, float]:
        """Return the averages over the steps that were read, as a line of metrics has them, and begin anew."""
        steps, seconds, tokens = len(self.losses), self.seconds, self.tokens
        mean = sum(self.losses) / steps
        self.losses, self.seconds, self.tokens = [], 0.0, 0
        return {
            "loss": mean,
            "grad_norm": self.norm,
            "ms_per_step": round(1000 * seconds / steps, 3),
            "tokens_per_second": round(tokens / seconds, 1),
        }

    def get_state(self) -> dict[str, Any]:
        """Return the steps that no line of metrics has yet, in types that JSON has."""
        return {"losses": self.losses, "seconds": self.seconds}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that `get_state` returned."""
        self.losses, self.seconds = [float(loss) for loss in state["losses"]], float(state["seconds"])
        self.tokens = self.tokens_per_step * len(self.losses)


def progress_bar(step: int, steps: int, hidden: bool = False) -> "tqdm[Any]":
    """Return a progress bar on stderr, which shows the measurements first.

    It is hidden if stderr is not a terminal, or if `hidden` is true.
    """
    # The bar itself comes last, because a narrow terminal cuts off the end. The numbers fit into 80 columns.
    form = "step {n_fmt}/{total_fmt}{postfix}, {remaining} left {bar}"
    return bar_on_stderr(form, hidden, total=steps, initial=step)


def evaluation_bar(tokens: int) -> "tqdm[Any]":
    """Return a progress bar on stderr for an evaluation of a number of tokens; hidden if that is not a terminal."""
    form = "evaluating: {percentage:3.0f} % of {total:,} tokens, {remaining} left {bar}"
    return bar_on_stderr(form, total=tokens, leave=False)


def bar_on_stderr(form: str, hidden: bool = False, **options: Any) -> "tqdm[Any]":
    """Return a progress bar on stderr that looks like `form`; hidden if stderr is not a terminal."""
    with extra():
        from tqdm import tqdm

    size = {"dynamic_ncols": True} if knows_its_width(sys.stderr) else {"ncols": 80, "nrows": 24}
    # mpiexec passes the output of several processes on to the terminal.
    passed_on = os.environ.get(PROGRESS) == "1"
    return tqdm(bar_format=form, disable=hidden or (False if passed_on else None), file=sys.stderr, **options, **size)


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
