"""Find what made the first value of a run that is not finite: the batch, the op and the parameter.

The losses are read after some steps, so that no step waits for the device. The weights are lost by then, because a
gradient that is not finite makes all of them so. So the steps are repeated from the last checkpoint, or from the first
weights, up to the step; a run on the same machine has the same bits. The step itself is then computed in
`tl.detect_anomaly`. A healthy run only keeps its random states, every tenth step.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import numpy as np

import tensorlite as tl
from gpt import checkpoint
from gpt.checkpoint import Checkpoint
from gpt.config import Config
from gpt.data import Dataset
from gpt.data.order import Order
from gpt.errors import UserError, short
from gpt.model import GPT, build_model
from gpt.runs import RunFolder
from gpt.train.interrupt import Interrupt
from gpt.train.progress import Meter
from gpt.train.saver import Saver
from gpt.train.step import Stepper
from tensorlite import Tensor, distributed, nn

LONGEST = 60.0  # Seconds that the repeated steps may take.

Batches = Sequence[tuple[Tensor, ...]]


class Mark(NamedTuple):
    """The random states before a step, from which its batches and its dropout can be drawn again.

    Batches of later steps can be drawn as well, but not their dropout.
    """

    step: int
    batches: Any
    order: dict[str, Any] | None
    dropout: dict[str, Any]


class Run(Protocol):
    """What this file needs of a `Trainer`."""

    config: Config
    dataset: Dataset
    model: GPT
    folder: RunFolder
    base: Any
    parameters: list[nn.Parameter]
    rng: np.random.Generator
    order: Order
    step: int
    saver: Saver
    meter: Meter
    last_mark: Mark | None
    is_new: bool

    @property
    def stepper(self) -> Stepper:
        """Return what takes the steps."""

    def draw(self) -> list[tuple[Tensor, ...]]:
        """Return the batches of the next step."""

    def train_step(self) -> Any:
        """Take a step."""

    def load_state(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint."""


Make = Callable[..., Run]


def mark(run: Run) -> Mark:
    """Return the random states of now, before the next step."""
    return Mark(run.step + 1, run.rng.bit_generator.state, run.order.get_state(), tl.get_rng_state())


def explain(run: Run, step: int, make: Make | None) -> str:
    """Return sentences about a step whose loss or gradient is not finite. The run cannot go on afterwards.

    make: makes another run like this one, to repeat its steps; None if the weights are still those before the step.
    """
    run.saver.wait()  # because the last checkpoint may still be written
    place = run.last_mark
    if place is None or place.step > step:
        return describe_weights(run.model, "now")
    text = describe_batch(redraw(run, place, step), run.dataset)
    if make is None:
        return f"{text} {examine(run, place)}"
    try:
        with TemporaryDirectory() as folder:
            repeated = repeat(run, step, make, Path(folder))
    except (UserError, MemoryError, OSError) as error:  # The first error is the one to report.
        repeated = f"The steps cannot be repeated ({type(error).__name__}). {advice(run)}"
    return f"{text} {repeated or describe_weights(run.model, 'now')}".rstrip()


def redraw(run: Run, place: Mark, step: int) -> list[tuple[Tensor, ...]]:
    """Return the batches of a step, and leave the random numbers where the forward pass of the mark's step begins."""
    run.rng.bit_generator.state = place.batches
    if place.order is not None:
        run.order.set_state(place.order)
    tl.set_rng_state(place.dropout)
    for _ in range(step - place.step):
        run.draw()
    return run.draw()


def describe_batch(batches: Batches, dataset: Dataset) -> str:
    """Return a sentence that identifies the batches of a step, by a hash of their tokens and their first text."""
    inputs = [batch[0].cpu().numpy() for batch in batches]
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(x, np.dtype("<i8")).tobytes() for x in inputs)).hexdigest()
    first = dataset.tokenizer.decode(inputs[0][0, :24].tolist())
    count = sum(len(x) for x in inputs)
    return f"The {count} sequences of its batch (SHA-256 {digest[:16]}) begin with {short(first[:24])}."


def describe_weights(model: GPT, when: str) -> str:
    """Return a sentence with the first weights of a model that are not finite, else an empty text."""
    names = [name for name, value in model.named_parameters() if not is_finite(value)]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"Parameters that are not finite {when}: {names[0]}{more}." if names else ""


def is_finite(value: Tensor) -> bool:
    """Return whether all entries are finite."""
    return bool(tl.isfinite(value.detach()).all().item())


def repeat(run: Run, step: int, make: Make, folder: Path) -> str:
    """Repeat the steps up to one from a checkpoint or from the first weights, and examine that step.

    Return sentences about what was found, or about why the steps are not repeated. Raises UserError.
    """
    if distributed.size() > 1:
        return f"The steps are not repeated in several processes. {advice(run)}"
    other, source = other_run(run, make, folder)
    if other is None or other.step >= step:
        return f"The steps are not repeated, because their first weights are not there. {advice(run)}"
    seconds = (step - 1 - other.step) * run.meter.seconds / max(1, len(run.meter.losses))
    if seconds > LONGEST:
        return f"The steps from {source} are not repeated, because they take about {seconds:.0f} s. {advice(run)}"
    run.saver.tell(f"Repeating the steps from {source} to step {step}, to find what made a value that is not finite")
    end, first = time.monotonic() + 2 * LONGEST, other.step + 1
    while other.step < step - 1:
        if time.monotonic() > end or (Interrupt.outermost is not None and Interrupt.outermost.requested):
            return f"The steps from {source} were repeated up to step {other.step} only. {advice(run)}"
        other.train_step()
    return f"Steps {first} to {step}, repeated from {source}, show: {examine(other, mark(other))}"


def advice(run: Run) -> str:
    """Return a sentence about how to find the op by hand."""
    again = f"--resume {run.folder.path} with" if run.folder.latest.exists() else "the same command with"
    return f"To name the op, repeat them: {again} --on-spike stop ends before the update."


def other_run(run: Run, make: Make, folder: Path) -> tuple[Run | None, str]:
    """Return a run like this one in its last checkpoint, or with the first weights, and where it begins, in words.

    The run is None if the first weights are those of another model. Raises UserError.
    """
    config = run.config.replace({"train.log_layers": 0, "train.out_dir": str(folder)})
    if run.folder.latest.exists():
        saved = checkpoint.load(run.folder.latest, run.config.train.device, training=True)
        other = make(config, run.dataset, saved.model, RunFolder(folder), run.base)
        other.load_state(saved)
        source = f"the checkpoint of step {saved.step}"
    elif run.is_new:
        tl.manual_seed(config.train.seed)
        model = build_model(config.model, config.train.device, config.train.parameter_dtype)
        other, source = make(config, run.dataset, model, RunFolder(folder), run.base), "the first weights"
    else:
        return None, ""
    other.saver.tell = lambda text: None
    return other, source


def examine(run: Run, place: Mark) -> str:
    """Compute the loss and the gradients of the mark's step again. Return what is not finite first, in sentences."""
    if text := describe_weights(run.model, "before the step"):
        return text
    op = ""
    try:
        with tl.detect_anomaly():
            backward(run, redraw(run, place, place.step))
    except tl.AnomalyError as error:
        op = "; ".join(line.strip() for line in str(error).splitlines()) + "."
    loss = backward(run, redraw(run, place, place.step))
    gradients = [name for name, p in run.model.named_parameters() if p.grad is not None and not is_finite(p.grad)]
    if not op and not gradients and np.isfinite(loss):
        return "the loss and all gradients of the step are finite this time."
    more = f" and {len(gradients) - 1} more" if len(gradients) > 1 else ""
    last = f" Parameters with a gradient that is not finite: {gradients[0]}{more}." if gradients else ""
    return (op or "no op made a NaN of finite values; an infinity or a constant led to it.") + last


def backward(run: Run, batches: Batches) -> float:
    """Set the gradients of a step, without clipping, and return its loss."""
    for parameter in run.parameters:
        parameter.grad = None
    total, scaler = 0.0, run.stepper.scaler
    for batch in batches:
        loss = run.stepper.loss(*batch) / len(batches)
        (loss if scaler is None else scaler.scale(loss)).backward()
        total += float(loss.item())
    return total
