"""Muon, momentum with orthogonalized updates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..autograd.graph import wrap
from ..backends.registry import BACKENDS
from ..errors import ShapeError
from ..scalars import as_integer
from ..tensors.tensor import Tensor
from .optimizer import Optimizer, Params, require_number

__all__ = ["Muon"]

_ADJUSTMENTS = ("original", "match_rms_adamw")


class Muon(Optimizer):
    """An optimizer for matrices: it follows the momentum with its singular values replaced by about 1.

    So a step has about the same size in all directions of the matrix. With the momentum m of the gradient g::

        m += (1 - mu) (g - m)
        u = g + mu (m - g)                 # m without nesterov
        p *= 1 - lr * weight_decay
        p -= lr * f * orthogonal(u)

    Use it for the matrices inside a network, and AdamW for embeddings, the head, norms and biases.

    params: Tensors, named Tensors, or groups with their own options.
    lr: the learning rate.
    weight_decay: decoupled, as in AdamW.
    momentum: mu.
    nesterov: whether u looks ahead, as above.
    ns_coefficients, ns_steps: (a, b, c) and the number of the Newton-Schulz iterations
        ``x = a x + (b x x^T + c (x x^T)^2) x``, which bring the singular values near 1 without computing them.
    eps: the iteration starts from ``u / max(|u|, eps)``.
    adjust_lr_fn: the factor f for a matrix (A, B). None and "original" are ``sqrt(max(1, A / B))``. "match_rms_adamw"
        is ``0.2 sqrt(max(A, B))``; with it, a learning rate and weight decay that suit AdamW suit Muon.

    Raises ShapeError for a parameter that is not a matrix, ValueError for an option out of range, and the errors of
    :meth:`Optimizer.add_param_group`.
    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Liu et al., "Muon is
    Scalable for LLM Training", 2025.
    """

    _entries = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "nesterov": nesterov,
                "ns_coefficients": tuple(ns_coefficients) if isinstance(ns_coefficients, list) else ns_coefficients,
                "eps": eps,
                "ns_steps": ns_steps,
                "adjust_lr_fn": adjust_lr_fn,
            },
        )

    def _check(self, group: Mapping[str, Any]) -> None:
        for option in ("lr", "weight_decay", "momentum", "eps"):
            require_number("Muon", option, group[option])
        steps, coefficients = group["ns_steps"], group["ns_coefficients"]
        if as_integer(steps) is None or not 1 <= steps < 100:
            raise ValueError(f"Muon: ns_steps must be an int from 1 to 99, got {steps!r}")
        if not isinstance(coefficients, (tuple, list)) or len(coefficients) != 3:
            raise ValueError(f"Muon: ns_coefficients must be three numbers, got {coefficients!r}")
        for c in coefficients:
            require_number("Muon", "each of ns_coefficients", c, least=float("-inf"))
        if group["adjust_lr_fn"] not in (None, *_ADJUSTMENTS):
            raise ValueError(
                f"Muon: adjust_lr_fn must be None or one of {', '.join(map(repr, _ADJUSTMENTS))}, got "
                f"{group['adjust_lr_fn']!r}"
            )

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group of matrices, as :meth:`Optimizer.add_param_group` does.

        Raises ShapeError for a parameter that is not a matrix.
        """
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.ndim != 2:
                del self.param_groups[-1]
                raise ShapeError(f"Muon: can only optimize matrices, got one of shape {p.shape}. Use AdamW for it.")

    def _update(self, p: Tensor, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp = BACKENDS[type(p.array)]
        if not state:
            state["momentum_buffer"] = wrap(xp.zeros_like(p.array))
        rows, columns = p.shape
        if group["adjust_lr_fn"] == "match_rms_adamw":
            factor = 0.2 * math.sqrt(max(rows, columns))
        else:
            factor = math.sqrt(max(1.0, rows / columns)) if columns else 1.0
        xp.muon_step(p.array, g, state["momentum_buffer"].array, group["lr"], factor, group["momentum"],
                     group["weight_decay"], group["nesterov"], tuple(group["ns_coefficients"]), group["ns_steps"],
                     group["eps"])  # fmt: skip
