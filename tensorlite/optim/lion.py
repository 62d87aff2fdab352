"""Lion, steps of the size of the learning rate in the direction of a sign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..autograd.graph import wrap
from ..backends.registry import BACKENDS
from ..tensors.tensor import Tensor
from .optimizer import Optimizer, Params, require_betas, require_number

__all__ = ["Lion"]


class Lion(Optimizer):
    """An optimizer that moves every number by the learning rate, up or down, by the sign of a momentum.

    For gradient g and momentum m, which starts at 0::

        p *= 1 - lr * weight_decay
        p -= lr * sign(b1 m + (1 - b1) g)
        m = b2 m + (1 - b2) g

    It keeps one array for each parameter, Adam two. The learning rate is usually 3 to 10 times smaller than AdamW's,
    and the weight decay larger by the same factor.

    params: Tensors, named Tensors, or groups with their own options.
    lr: the learning rate.
    betas: b1 and b2, each at least 0 and below 1.
    weight_decay: decoupled, as in AdamW.
    maximize: follow the gradient upwards, to maximize the loss.

    Raises ValueError for an option out of range, and the errors of :meth:`Optimizer.add_param_group`.
    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023.
    """

    _entries = ("exp_avg",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        betas = tuple(betas) if isinstance(betas, list) else betas
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize})

    def _check(self, group: Mapping[str, Any]) -> None:
        for option in ("lr", "weight_decay"):
            require_number("Lion", option, group[option])
        require_betas("Lion", group["betas"])

    def _update(self, p: Tensor, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp, (beta1, beta2) = BACKENDS[type(p.array)], group["betas"]
        if not state:
            state["exp_avg"] = wrap(xp.zeros_like(p.array))
        m = state["exp_avg"].array
        g = -g if group["maximize"] else g
        if group["weight_decay"]:
            p.array *= 1.0 - group["lr"] * group["weight_decay"]
        p.array -= group["lr"] * xp.sign(beta1 * m + (1.0 - beta1) * g)
        m *= beta2
        m += (1.0 - beta2) * g
