"""One step of training on several ranks, which average their gradients."""

from collections.abc import Callable
from typing import Any

import tensorlite as tl
import tensorlite.distributed as dist
from gpt.model import GPT
from gpt.train.step import Batches, Judge, Result, Stepper
from tensorlite import Tensor, nn


class Reporting(nn.Module):
    """A model with two more numbers, whose gradients are a rank's loss and whether it was asked to stop.

    They are part of a bucket of gradients, so that a step sends no other message. No optimizer has them.
    """

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.reported = nn.Parameter(tl.zeros(2, device=model.device))
        self.model = model


class ParallelStepper(Stepper):
    """A stepper of one of several ranks. Gradients, and the loss that a step returns, are means over the ranks.

    A batch has inputs and targets, (B / ranks, T) each. Then it may have the numbers of documents or None, and the
    weight of its mean loss, 0-d.
    """

    def __init__(self, group: dist.Group, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.reporting = Reporting(self.model)
        self.parallel = dist.DataParallel(self.reporting, group)

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
        self.report(sum(losses[1:], losses[0]))
        self.scaled(last).backward()
        return self.finish(lambda loss: self.update(loss, before_update, judge))

    def compiled(self) -> Callable[[Batches], Result]:
        """Return a step of which the parts before and after the transfer are recorded, and replayed later."""
        backward, update = tl.compile(self.backward), tl.compile(self.update)

        def step(batches: Batches) -> Result:
            with self.parallel.no_sync():
                self.report(backward(batches))
            self.parallel.average_gradients()
            result = self.finish(lambda loss: update())
            self.optimizer.zero_grad()
            return result

        return step

    def report(self, loss: Tensor) -> None:
        """Put the loss of this rank, and whether it was asked to stop, into a bucket."""
        self.reporting.reported.grad = tl.stack([loss.float(), tl.full_like(loss, float(self.stop)).float()])

    def finish(self, update: Callable[[Tensor], Tensor]) -> Result:
        """Update the weights, and return the loss of all ranks and the norm."""
        report = self.reporting.reported.grad
        assert report is not None
        norm = update(report[0])
        self.stopping = float(report[1].item()) > 0
        return report[0], norm
