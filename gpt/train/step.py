"""One step of training: the function that a run calls again and again."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

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


class Stepper:
    """What takes an optimizer step on a list of batches, whose gradients are averaged.

    autocast: makes the context in which the model computes, None for none. scaler: of the loss, None for none.
    parameters: those whose gradients are clipped to the norm `max_norm`.
    """

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
        self,
        batches: Sequence[tuple[Tensor, ...]],
        before_update: Callable[[], None] | None = None,
        judge: Callable[[Tensor, Tensor], float] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Take a step. Return the loss and the norm of the gradient before clipping, both 0-d.

        batches: inputs and targets, (B, T) each, and with packed documents their numbers.
        before_update: called when the gradients are there, before clipping.
        judge: takes what this returns, and returns a factor for the learning rate of this step. With 0 the step
            leaves out the update: the optimizer and the schedule stay as they are.
        """
        losses, scaler = [], self.scaler
        for batch in batches:
            loss = self.loss(*batch) / len(batches)
            (loss if scaler is None else scaler.scale(loss)).backward()
            losses.append(loss.detach())
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        if before_update is not None:
            before_update()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        if judge is not None:
            total = sum(losses[1:], losses[0])
            self.update(judge(total, norm))
            return total, norm
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        self.schedule.step()
        return sum(losses[1:], losses[0]), norm

    def update(self, scale: float) -> None:
        """Change the weights with a learning rate that is multiplied by a factor; with 0, change nothing."""
        if scale:
            with scaled_rates(self.optimizer, scale):
                if self.scaler is None:
                    self.optimizer.step()
                else:
                    self.scaler.step(self.optimizer)
            self.schedule.step()
        if self.scaler is not None:
            self.scaler.update()

    def step_and_clear(self, batches: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
        """Take a step, and set the gradients to None, so that a compiled step keeps them to itself."""
        result = self.step(batches)
        self.optimizer.zero_grad()
        return result


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
