"""The logarithm of a softmax, and the gradients of both, as loops over the rows of float32 arrays.

The form of the kernels is that of ``kernels.py``: all arrays are contiguous, and the first argument is a thread pool.
Sums are added in float32 for at most ``_RUN`` entries, and the sums of such runs in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .extremes import row_max
from .parallel_for import bind_kernel, parallel_for
from .scalar_functions import exp, log
from .support import ENTRY, LOOP, njit

__all__ = ["log_softmax", "log_softmax_backward", "softmax_backward"]

Array = Any
f32 = np.float32

_RUN = 4096


@njit(**LOOP)
def _sum_of(x: Array) -> Any:
    total = f32(0)
    for j in range(x.size):
        total += x[j]
    return total


@njit(**LOOP)
def _sum_of_products(x: Array, y: Array) -> Any:
    total = f32(0)
    for j in range(x.size):
        total += x[j] * y[j]
    return total


@njit(**LOOP)
def _sum_of_exp(x: Array, top: Any) -> Any:
    """Return the sum of ``exp(x - top)``."""
    total = f32(0)
    for j in range(x.size):
        total += exp(x[j] - top)
    return total


# A function without flags of its own has those of its caller, which may add the maximum and the logarithm first.
@njit(**{**LOOP, "fastmath": {"contract"}})
def _subtract_both(x: Array, top: Any, total: Any, y: Array) -> None:
    """Write ``(x - top) - log(total)`` in this order: a large maximum plus the logarithm would lose digits."""
    logarithm = log(total)
    for j in range(x.size):
        y[j] = (x[j] - top) - logarithm


@njit(**LOOP)
def softmax_backward_range(g: Array, y: Array, dx: Array, start: int, stop: int) -> None:
    n = y.shape[1]
    for i in range(start, stop):
        total = 0.0
        for first in range(0, n, _RUN):
            total += _sum_of_products(g[i, first : first + _RUN], y[i, first : first + _RUN])
        mean = f32(total)
        for j in range(n):
            dx[i, j] = y[i, j] * (g[i, j] - mean)


@njit(**ENTRY)
def softmax_backward(pool: int, g: Array, y: Array, dx: Array) -> None:
    """Write rows ``y (g - sum(g y))`` into dx, for the softmax y and its gradient g."""
    parallel_for(pool, bind_kernel(softmax_backward_range, (g, y, dx)), len(y), 1, 1)


@njit(**LOOP)
def log_softmax_range(x: Array, y: Array, start: int, stop: int) -> None:
    n = x.shape[1]
    for i in range(start, stop):
        top, total = row_max(x[i]), 0.0
        for first in range(0, n, _RUN):
            total += _sum_of_exp(x[i, first : first + _RUN], top)
        _subtract_both(x[i], top, f32(total), y[i])


@njit(**ENTRY)
def log_softmax(pool: int, x: Array, y: Array) -> None:
    """Write rows ``(x - max) - log(sum(exp(x - max)))`` into y."""
    parallel_for(pool, bind_kernel(log_softmax_range, (x, y)), len(x), 1, 1)


@njit(**LOOP)
def log_softmax_backward_range(g: Array, y: Array, dx: Array, start: int, stop: int) -> None:
    n = y.shape[1]
    for i in range(start, stop):
        total = 0.0
        for first in range(0, n, _RUN):
            total += _sum_of(g[i, first : first + _RUN])
        factor = f32(total)
        for j in range(n):
            dx[i, j] = g[i, j] - exp(y[i, j]) * factor


@njit(**ENTRY)
def log_softmax_backward(pool: int, g: Array, y: Array, dx: Array) -> None:
    """Write rows ``g - exp(y) sum(g)`` into dx, for the logarithm y of a softmax and its gradient g."""
    parallel_for(pool, bind_kernel(log_softmax_backward_range, (g, y, dx)), len(y), 1, 1)
