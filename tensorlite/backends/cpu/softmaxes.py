"""The kernels of ``reference`` for the logarithm of a softmax and for the gradients of both, faster on NumPy arrays.

They take the last axis of contiguous float32 arrays, with numba. All other cases go to the reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import reference
from .compiled_loops import loops_for, run_loop
from .memory_views import rows_of

__all__ = ["log_softmax", "log_softmax_backward", "softmax_backward"]

Array = Any
XP = Any


def _loops_along(axis: int, *arrays: Array) -> Any:
    """Return the compiled loops if they take these arrays along this axis, else None."""
    return loops_for("softmax_kernels", *arrays) if axis in (-1, arrays[0].ndim - 1) else None


def softmax_backward(xp: XP, g: Array, y: Array, axis: int) -> Array:
    """Compute the same as the reference."""
    loops = _loops_along(axis, y, g)
    if loops is None:
        return reference.softmax_backward(xp, g, y, axis)
    dx = np.empty_like(y)
    run_loop(loops.softmax_backward, y.size, rows_of(g), rows_of(y), rows_of(dx))
    return dx


def log_softmax(xp: XP, x: Array, axis: int) -> Array:
    """Compute the same as the reference."""
    loops = _loops_along(axis, x)
    if loops is None:
        return reference.log_softmax(xp, x, axis)
    y = np.empty_like(x)
    run_loop(loops.log_softmax, x.size, rows_of(x), rows_of(y))
    return y


def log_softmax_backward(xp: XP, g: Array, y: Array, axis: int) -> Array:
    """Compute the same as the reference."""
    loops = _loops_along(axis, y, g)
    if loops is None:
        return reference.log_softmax_backward(xp, g, y, axis)
    dx = np.empty_like(y)
    run_loop(loops.log_softmax_backward, y.size, rows_of(g), rows_of(y), rows_of(dx))
    return dx
