"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..autograd.graph import wrap
from ..backends.registry import BACKENDS
from ..tensors.tensor import Tensor
from .optimizer import Optimizer, Params, require_number

__all__ = ["SGD"]


class SGD(Optimizer):
    """An optimizer, stochastic gradient descent: ``p -= lr * d`` for ``d = g + weight_decay * p`` and gradient g.

    params: Tensors, named Tensors, or groups with their own options.
    lr: the learning rate.
    momentum: mu. If it is not 0, a step is ``v = mu v + (1 - dampening) d; p -= lr * v``. The first v is d.
    dampening: the part of a gradient that v leaves out.
    weight_decay: ``weight_decay * p`` is added to the gradient first.
    nesterov: use ``d + mu v`` instead of v. It needs a momentum and no dampening.
    maximize: follow the gradient upwards, to maximize the loss.

    Raises ValueError for an option out of range, and the errors of :meth:`Optimizer.add_param_group`.
    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.
    """

    _entries = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def _check(self, group: Mapping[str, Any]) -> None:
        for option in ("lr", "momentum", "weight_decay"):
            require_number("SGD", option, group[option])
        require_number("SGD", "dampening", group["dampening"], least=float("-inf"))
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("SGD: nesterov needs a momentum above 0 and a dampening of 0")

    def _update(self, p: Tensor, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp = BACKENDS[type(p.array)]
        velocity, dampening = None, group["dampening"]
        if group["momentum"]:
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = wrap(xp.zeros_like(p.array))
                dampening = 0.0
            velocity = state["momentum_buffer"].array
        xp.sgd_step(p.array, g, velocity, group["lr"], group["momentum"], dampening, group["weight_decay"],
                    group["nesterov"], group["maximize"])  # fmt: skip
