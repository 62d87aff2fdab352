"""Adam, and AdamW with its decoupled weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..autograd.graph import wrap
from ..backends.registry import BACKENDS
from ..tensors.tensor import Tensor
from .optimizer import Optimizer, Params, require_number

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Steps along the running mean of the gradient over the root of that of its square, both corrected for their start.

    ``m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)``

    weight_decay: the gradient is first given ``weight_decay * p``.
    maximize: go up the gradient.

    Raises ValueError for an option out of range, and as :meth:`add_param_group` does.
    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015.
    """

    _entries = ("step", "exp_avg", "exp_avg_sq")
    _decoupled = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        betas = tuple(betas) if isinstance(betas, list) else betas
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        )

    def _check(self, group: Mapping[str, Any]) -> None:
        name = type(self).__name__
        for option in ("lr", "eps", "weight_decay"):
            require_number(name, option, group[option])
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"{name}: betas must be two numbers, got {betas!r}")
        for beta in betas:
            require_number(name, "each of betas", beta, below=1.0)

    def _update(self, p: Tensor, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp = BACKENDS[type(p.array)]
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = wrap(xp.zeros_like(p.array)), wrap(xp.zeros_like(p.array))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        xp.adam_step(p.array, g, state["exp_avg"].array, state["exp_avg_sq"].array, state["step"], group["lr"], beta1,
                     beta2, group["eps"], group["weight_decay"], self._decoupled, group["maximize"])  # fmt: skip


class AdamW(Adam):
    """Adam whose weight decay leaves the gradient alone: each step first makes ``p *= 1 - lr * weight_decay``.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.
    """

    _decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, maximize=maximize)
