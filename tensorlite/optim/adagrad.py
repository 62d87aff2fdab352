"""Adagrad, steps divided by the root of the sum of squares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..autograd.graph import wrap
from ..backends.registry import BACKENDS
from ..tensors.tensor import Tensor
from .optimizer import Optimizer, Params, require_number

__all__ = ["Adagrad"]


class Adagrad(Optimizer):
    """An optimizer that divides the gradient by the root of the sum of all its squares so far.

    For ``d = g + weight_decay * p``, gradient g and step t (from 1)::

        s += d^2
        p -= lr / (1 + (t - 1) * lr_decay) * d / (sqrt(s) + eps)

    params: Tensors, named Tensors, or groups with their own options.
    lr: the learning rate.
    lr_decay: how fast the rate decreases, as above.
    weight_decay: ``weight_decay * p`` is added to the gradient first.
    initial_accumulator_value: the value of s before the first step.
    eps: a small number that keeps the denominator away from 0.
    maximize: follow the gradient upwards, to maximize the loss.

    Raises ValueError for an option out of range, and the errors of :meth:`Optimizer.add_param_group`.
    Source: Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization",
    JMLR 12, 2011.
    """

    _entries = ("step", "sum")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
                "maximize": maximize,
            },
        )

    def _check(self, group: Mapping[str, Any]) -> None:
        for option in ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            require_number("Adagrad", option, group[option])

    def _update(self, p: Tensor, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp = BACKENDS[type(p.array)]
        if not state:
            state["step"] = 0
            state["sum"] = wrap(xp.full_like(p.array, group["initial_accumulator_value"]))
        state["step"] += 1
        d = -g if group["maximize"] else g
        if group["weight_decay"]:
            d = d + group["weight_decay"] * p.array
        s = state["sum"].array
        s += d * d
        rate = group["lr"] / (1.0 + (state["step"] - 1) * group["lr_decay"])
        p.array -= rate * (d / (xp.sqrt(s) + group["eps"]))
