"""RMSprop, steps divided by the root of a running mean square."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..autograd.graph import wrap
from ..backends.registry import BACKENDS
from ..tensors.tensor import Tensor
from .optimizer import Optimizer, Params, require_number

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """An optimizer that divides the gradient by the root of the running mean of its square.

    For ``d = g + weight_decay * p`` and gradient g::

        v = alpha v + (1 - alpha) d^2
        p -= lr * d / (sqrt(v) + eps)

    params: Tensors, named Tensors, or groups with their own options.
    lr: the learning rate.
    alpha: the part of the running mean that a step keeps, at least 0 and below 1.
    eps: a small number that keeps the denominator away from 0.
    weight_decay: ``weight_decay * p`` is added to the gradient first.
    momentum: mu. If it is not 0, a step is ``b = mu b + d / (sqrt(v) + eps); p -= lr * b``.
    centered: whether the square of the running mean of d is subtracted from v, so that it is a variance.
    maximize: follow the gradient upwards, to maximize the loss.

    Raises ValueError for an option out of range, and the errors of :meth:`Optimizer.add_param_group`.
    Sources: Hinton, "Neural Networks for Machine Learning", lecture 6, 2012; for ``centered``, Graves, "Generating
    Sequences With Recurrent Neural Networks", 2013.
    """

    _entries = ("square_avg",)
    _optional_entries = ("grad_avg", "momentum_buffer")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
                "maximize": maximize,
            },
        )

    def _check(self, group: Mapping[str, Any]) -> None:
        for option in ("lr", "eps", "weight_decay", "momentum"):
            require_number("RMSprop", option, group[option])
        require_number("RMSprop", "alpha", group["alpha"], below=1.0)

    def _update(self, p: Tensor, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp, alpha, momentum = BACKENDS[type(p.array)], group["alpha"], group["momentum"]
        used = ["square_avg", *(["grad_avg"] if group["centered"] else []), *(["momentum_buffer"] if momentum else [])]
        for name in used:
            if name not in state:
                state[name] = wrap(xp.zeros_like(p.array))
        d = -g if group["maximize"] else g
        if group["weight_decay"]:
            d = d + group["weight_decay"] * p.array
        v = state["square_avg"].array
        v *= alpha
        v += (1.0 - alpha) * (d * d)
        if group["centered"]:
            mean = state["grad_avg"].array
            mean += (1.0 - alpha) * (d - mean)
            v = xp.maximum(v - mean * mean, 0.0)  # a variance that rounding made negative has no root
        d = d / (xp.sqrt(v) + group["eps"])
        if momentum:
            b = state["momentum_buffer"].array
            b *= momentum
            b += d
            d = b
        p.array -= group["lr"] * d
