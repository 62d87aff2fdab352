"""One step of training: the function that a run calls again and again."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import tensorlite as tl
from gpt.config import Config
from gpt.model import GPT
from gpt.model.size import memory
from gpt.train.spikes import scaled_rates
from tensorlite import Tensor, nn, optim
from tensorlite.amp import GradScaler
from tensorlite.optim import lr_scheduler

# Steps of a run from which recording pays. It makes two steps slower, by a tenth of a second each.
MIN_COMPILED_STEPS = 100
# Bytes of activations up to which a step is recorded. Larger ones gain a hundredth, and recording keeps all arrays.
MAX_COMPILED_BYTES = 1 << 27
COMPILED_ON = ("cpu",)  # Types of devices whose steps `tl.compile` replays.


Batches = Sequence[tuple[Any, ...]]  # of tensors, and of None for those that a batch does not have
Result = tuple[Tensor, Tensor]  # the loss and the norm of its gradient before clipping, 0-d each
Judge = Callable[[Tensor, Tensor], float]  # takes these, and returns a factor for the learning rate


class Stepper:
    """What takes an optimizer step on a list of batches, whose gradients are averaged.

    autocast: makes the context in which the model computes, None for none. scaler: of the loss, None for none.
    parameters: those whose gradients are clipped to the norm `max_norm`.

    stop: whether a signal has asked this process to stop. stopping: whether it has asked any of several, after a step.
    """

    stop = stopping = False

    def __init__(
        self, model: GPT, optimizer: optim.Optimizer, schedule: lr_scheduler.LRScheduler, parameters: Sequence[Tensor],
        max_norm: float, autocast: Callable[[], AbstractContextManager[Any]] | None, scaler: GradScaler | None,
    ) -> None:  # fmt: skip
        self.model, self.optimizer, self.schedule, self.parameters = model, optimizer, schedule, parameters
        self.max_norm, self.autocast, self.scaler = max_norm, autocast, scaler

    def loss(self, x: Tensor, y: Tensor, documents: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch (B, T), 0-d. documents: see `GPT.hidden_states`."""
        if self.autocast is None:
            return self.model(x, y, documents=documents)[1]
        with self.autocast():
            return self.model(x, y, documents=documents)[1]

    def step(
        self, batches: Batches, before_update: Callable[[], None] | None = None, judge: Judge | None = None
    ) -> Result:
        """Take a step. Return the loss and the norm of the gradient before clipping, both 0-d.

        batches: inputs and targets, (B, T) each, and with packed documents their numbers.
        before_update: called when the gradients are there, before clipping.
        judge: takes what this returns, and returns a factor for the learning rate of this step. With 0 the step
            leaves out the update: the optimizer and the schedule stay as they are.
        """
        loss = self.backward(batches)
        return loss, self.update(loss, before_update, judge)

    def backward(self, batches: Batches) -> Tensor:
        """Add the gradients of the mean loss over some batches to those of the parameters. Return the loss, 0-d."""
        losses = [self.accumulate(batch, len(batches)) for batch in batches]
        return sum(losses[1:], losses[0])

    def accumulate(self, batch: tuple[Tensor, ...], count: int) -> Tensor:
        """Add the gradients of one of `count` batches. Return its share of the loss, 0-d."""
        loss = self.loss(*batch) / count
        self.scaled(loss).backward()
        return loss.detach()

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss in the scale of the backward pass."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def update(
        self, loss: Tensor, before_update: Callable[[], None] | None = None, judge: Judge | None = None
    ) -> Tensor:
        """Clip the gradients and change the weights. Return the norm before clipping, 0-d. See `step`."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if before_update is not None:
            before_update()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        scale = 1.0 if judge is None else judge(loss, norm)
        if scale == 1.0:
            self.change()
        elif scale:
            with scaled_rates(self.optimizer, scale):
                self.change()
        if scale:
            self.schedule.step()
        if self.scaler is not None:
            self.scaler.update()
        return norm

    def change(self) -> None:
        """Change the weights by the gradients."""
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)

    def step_and_clear(self, batches: Batches) -> Result:
        """Take a step, and set the gradients to None, so that a compiled step keeps them to itself."""
        result = self.step(batches)
        self.optimizer.zero_grad()
        return result

    def compiled(self) -> Callable[[Batches], Result]:
        """Return a step that is recorded, and replayed later. It sets the gradients to None."""
        return tl.compile(self.step_and_clear)


def can_compile(config: Config, model: GPT, steps: int) -> bool:
    """Return whether a run of this number of steps replays a recorded step, if `train.compile` says so.

    It does on a CPU, without mixed precision and activation checkpointing, which `tl.compile` does not record. A large
    step spends little of its time in Python, so it is not recorded either.
    """
    t = config.train
    plain = not t.is_mixed and not t.activation_checkpointing and model.device.type in COMPILED_ON
    small = memory(config)["activations (estimate)"] <= MAX_COMPILED_BYTES
    recordable = config.data.documents != "packed"  # The masks of documents are other ones in each step.
    return t.compile and plain and small and recordable and steps >= MIN_COMPILED_STEPS
