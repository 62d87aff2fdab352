"""Adam, with and without decoupled weight decay (AdamW)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..autograd.graph import wrap
from ..backends.registry import BACKENDS
from ..dtypes import accumulate_dtype
from ..tensors.tensor import Tensor
from .optimizer import Optimizer, Params, require_betas, require_number

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """An optimizer that divides the running mean of the gradient by the root of the running mean of its square.

    For gradient g at step t, with both means corrected for their start at 0::

        m = b1 m + (1 - b1) g
        v = b2 v + (1 - b2) g^2
        p -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    params: Tensors, named Tensors, or groups with their own options.
    lr: the learning rate.
    betas: b1 and b2, each at least 0 and below 1.
    eps: a small number that keeps the denominator away from 0.
    weight_decay: ``weight_decay * p`` is added to the gradient first.
    maximize: follow the gradient upwards, to maximize the loss.

    Raises ValueError for an option out of range, and the errors of :meth:`Optimizer.add_param_group`.
    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015.
    """

    _entries = ("step", "exp_avg", "exp_avg_sq")
    _implied = {"amsgrad": False, "decoupled_weight_decay": False}  # noqa: RUF012  # declared by the base class
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
        require_betas(name, group["betas"])

    def _update_group(self, params: list[Tensor], group: dict[str, Any]) -> None:
        kinds = {(type(p.array), p.array.dtype) for p in params}
        for kind in kinds:
            same = params if len(kinds) == 1 else [p for p in params if (type(p.array), p.array.dtype) == kind]
            if accumulate_dtype(kind[1]) == kind[1]:
                self._update_all(same, group)
            else:
                super()._update_group(same, group)

    def _update_all(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Update parameters of one dtype and type of array in one call of a kernel."""
        by_step: dict[int, list[tuple[Any, ...]]] = {}  # parameters that were frozen for a while have made fewer steps
        for p in params:
            state = self._next_state(p.array, self.state.setdefault(p, {}))
            arrays = (p.array, p.accumulated_grad.array, state["exp_avg"].array, state["exp_avg_sq"].array)
            by_step.setdefault(state["step"], []).append(arrays)
        beta1, beta2 = group["betas"]
        xp = BACKENDS[type(params[0].array)]
        every = group["params"]
        for step, tuples in by_step.items():
            entries = 0 if len(tuples) == len(every) else sum(p.array.size for p in every)
            xp.adam_all_step(*zip(*tuples, strict=True), step, group["lr"], beta1, beta2, group["eps"],
                             group["weight_decay"], self._decoupled, group["maximize"], entries)  # fmt: skip

    def _next_state(self, p: Any, state: dict[str, Any]) -> dict[str, Any]:
        """Count a step in the state of a parameter, which gets its means at the first step. Return the state."""
        if not state:
            xp = BACKENDS[type(p)]
            state.update(step=0, exp_avg=wrap(xp.zeros_like(p)), exp_avg_sq=wrap(xp.zeros_like(p)))
        state["step"] += 1
        return state

    def _update(self, p: Tensor, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        self._next_state(p.array, state)
        beta1, beta2 = group["betas"]
        BACKENDS[type(p.array)].adam_step(
            p.array, g, state["exp_avg"].array, state["exp_avg_sq"].array, state["step"], group["lr"], beta1, beta2,
            group["eps"], group["weight_decay"], self._decoupled, group["maximize"],
        )  # fmt: skip


class AdamW(Adam):
    """An Adam optimizer with decoupled weight decay: a step begins with ``p *= 1 - lr * weight_decay``.

    The options and errors are those of :class:`Adam`.
    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.
    """

    _implied = {"amsgrad": False, "decoupled_weight_decay": True}  # noqa: RUF012  # declared by the base class
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
