"""One step of training on several ranks, which average their gradients."""

from collections.abc import Callable
from typing import Any

import tensorlite as tl
import tensorlite.distributed as dist
from gpt.train.step import Batches, Judge, Result, Stepper
from tensorlite import Tensor


class ParallelStepper(Stepper):
    """A stepper of one of several ranks. Gradients, and the loss that a step returns, are means over the ranks.

    A batch has inputs and targets, (B / ranks, T) each. Then it may have the numbers of documents or None, and the
    weight of its mean loss, 0-d.
    """

    def __init__(self, group: dist.Group, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.parallel = dist.DataParallel(self.model, group, values=2)

    def loss(self, x: Tensor, y: Tensor, documents: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """Return the weighted mean loss of the rows of this rank, 0-d."""
        loss = super().loss(x, y, documents)
        return loss if weight is None else loss * weight

    def step(
        self, batches: Batches, before_update: Callable[[], None] | None = None, judge: Judge | None = None
    ) -> Result:
        """Take a step. Return the loss of all ranks, and the norm of its gradient before clipping, both 0-d.

        The buckets of gradients are sent while the last backward pass goes on. `judge` gets what this returns, so that
        all ranks judge the same.
        """
        with self.parallel.no_sync():
            losses = [self.accumulate(batch, len(batches)) for batch in batches[:-1]]
        last = self.loss(*batches[-1]) / len(batches)
        losses.append(last.detach())
        self.parallel.set_values(self.report(sum(losses[1:], losses[0]), tl.full_like(last, self.stop)))
        self.scaled(last).backward()
        loss, stopping = self.parallel.mean_values().unbind()
        norm = self.update(loss, before_update, judge)
        self.stopping = bool(stopping.item())
        return loss, norm

    def compiled(self) -> Callable[[Batches], Result]:
        """Return a step that is recorded, and replayed later. It sends the buckets after the backward pass."""
        recorded = tl.compile(self.averaged_step)

        def step(batches: Batches) -> Result:
            with self.parallel.no_sync():
                values, norm = recorded(batches, tl.tensor(float(self.stop), device=self.model.device))
            loss, stopping = values.unbind()
            self.stopping = bool(stopping.item())
            return loss, norm

        return step

    def averaged_step(self, batches: Batches, stop: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step, and set the gradients to None. Return what all ranks report, (2,), and the norm, 0-d."""
        loss = self.backward(batches)
        values = self.parallel.average_gradients(self.report(loss, stop))
        assert values is not None
        norm = self.update(loss)
        self.optimizer.zero_grad()
        return values, norm

    def report(self, loss: Tensor, stop: Tensor) -> Tensor:
        """Return what travels with the gradients: the loss, and whether this rank was asked to stop, (2,)."""
        return tl.stack([loss, stop]).float()
