"""Averages of the weights of a model over the steps of its training."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from ..autograd.grad_mode import no_grad
from ..dtypes import is_floating
from ..nn.module import Module
from ..tensors.creation import tensor
from ..tensors.tensor import Tensor
from .optimizer import require_number

__all__ = ["AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn"]

AvgFn: TypeAlias = Callable[[Tensor, Tensor, Any], Tensor]
"""A function of (average, current value, number of averaged models) that returns the new average."""
MultiAvgFn: TypeAlias = Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]
"""The same for lists, which changes the averages in place."""


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAvgFn:
    """Return a function that sets each average to ``decay * average + (1 - decay) * current``, in place.

    The function takes lists of averages and of current values, and the number of models, which it ignores. Integers
    become the integer part of the result. Raises ValueError unless ``0 <= decay <= 1``.
    """
    weight = 1.0 - _require_decay("get_ema_multi_avg_fn", decay)

    def update(averages: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Any) -> None:
        with no_grad():
            for average, value in zip(averages, current, strict=True):
                if is_floating(average.dtype):
                    average.copy_(average.lerp(value, weight))
                else:
                    average.copy_(average * (1.0 - weight) + value * weight)

    return update


def get_swa_multi_avg_fn() -> MultiAvgFn:
    """Return a function that moves each average to the mean of all models so far, in place.

    The function takes lists of averages and of current values, and the number n of models that the averages hold:
    ``average += (current - average) / (n + 1)``.
    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018.
    """

    def update(averages: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Any) -> None:
        with no_grad():
            for average, value in zip(averages, current, strict=True):
                average.copy_(average + (value - average) / (float(num_averaged) + 1.0))

    return update


def get_ema_avg_fn(decay: float = 0.999) -> AvgFn:
    """Return the function ``(average, current, n) -> decay * average + (1 - decay) * current`` of two tensors.

    Raises ValueError unless ``0 <= decay <= 1``.
    """
    decay = _require_decay("get_ema_avg_fn", decay)

    def average_of(average: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
        with no_grad():
            return average * decay + current * (1.0 - decay)

    return average_of


def get_swa_avg_fn() -> AvgFn:
    """Return the function ``(average, current, n) -> average + (current - average) / (n + 1)`` of two tensors."""

    def average_of(average: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
        with no_grad():
            return average + (current - average) / (float(num_averaged) + 1.0)

    return average_of


def _require_decay(name: str, decay: float) -> float:
    """Return the decay. Raises ValueError unless it is a number from 0 to 1."""
    number = require_number(name, "decay", decay)
    if number > 1.0:
        raise ValueError(f"{name}: decay must be a number from 0 to 1, got {decay!r}")
    return number


class AveragedModel(Module):
    """A module with the average of the weights of another module, of which it is a copy at first.

        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
        for x, y in batches:
            ...                                  # a step of the optimizer on model
            average.update_parameters(model)
        average(x)                               # what a model with the averaged weights returns

    model: the module, which is copied. The copy takes as much memory as its parameters and buffers.
    device: where the copy is; None leaves it where the model is.
    avg_fn: a function of (average, current, n) that returns the new average of one tensor.
    multi_avg_fn: the same for lists of tensors, which it changes in place. Give one of both, or none for the mean of
        all models.
    use_buffers: whether buffers are averaged, too; else they are copied.

    module: the copy. n_averaged: the number of models in the average, int64, 0-d.

    Raises ValueError if both functions are given.
    Source: the interface is that of ``torch.optim.swa_utils``.
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: AvgFn | None = None,
        multi_avg_fn: MultiAvgFn | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("AveragedModel: expected avg_fn or multi_avg_fn, got both. Leave one out.")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, device=device))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the module with the averaged weights returns."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the weights of ``model`` into the average. The first ones are copied.

        Raises ValueError if the model has another number of tensors.
        """
        averages, current = self._tensors(self.module), self._tensors(model)
        if len(averages) != len(current):
            raise ValueError(
                f"AveragedModel: expected a model with {len(averages)} tensors, got one with {len(current)}. Pass the "
                f"model that the average was made of."
            )
        n = int(self.n_averaged.item())
        with no_grad():
            values = [value.detach().to(average.device) for average, value in zip(averages, current, strict=True)]
            targets = [average.detach() for average in averages]
            if n == 0:
                for average, value in zip(targets, values, strict=True):
                    average.copy_(value)
            elif self.avg_fn is not None:
                for average, value in zip(targets, values, strict=True):
                    average.copy_(self.avg_fn(average, value, n))
            else:
                (self.multi_avg_fn or get_swa_multi_avg_fn())(targets, values, n)
            if not self.use_buffers:
                for buffer, own in zip(self.module.buffers(), model.buffers(), strict=True):
                    buffer.detach().copy_(own.detach().to(buffer.device))
            self.n_averaged.copy_(self.n_averaged + 1)

    def _tensors(self, model: Module) -> list[Tensor]:
        """Return the tensors of a model that are averaged."""
        parameters: Iterable[Tensor] = model.parameters()
        return list(itertools.chain(parameters, model.buffers()) if self.use_buffers else parameters)
