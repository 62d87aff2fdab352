"""The kernels of ``reference`` for running products and for products of all others, faster for float32 with numba."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import reference
from .compiled_loops import loops_for, run_loop
from .memory_views import rows_of

__all__ = ["other_products", "running_product", "running_product_backward"]

Array = Any
XP = Any


def other_products(xp: XP, x: Array) -> Array:
    """Compute the same as the reference, in another order."""
    x = np.ascontiguousarray(x)
    loops = loops_for("factor_kernels", x)
    if loops is None or x.shape[-1] < 3:
        return reference.other_products(xp, x)
    out = np.empty_like(x)
    run_loop(loops.other_products, x.size, rows_of(x), rows_of(out))
    return out


def _along(x: Array, axis: int) -> Array:
    """Return a contiguous array as (outer, n, inner), where n is the size of the axis."""
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))


def running_product(xp: XP, x: Array, axis: int) -> Array:
    """Compute the same as the reference."""
    loops = loops_for("factor_kernels", x)
    if loops is None:
        return reference.running_product(xp, x, axis)
    out = np.empty_like(x)
    run_loop(loops.running_products, x.size, _along(x, axis), _along(out, axis))
    return out


def running_product_backward(xp: XP, g: Array, x: Array, axis: int) -> Array:
    """Compute the same as the reference."""
    g = np.ascontiguousarray(g)
    loops = loops_for("factor_kernels", x, g)
    if loops is None:
        return reference.running_product_backward(xp, g, x, axis)
    out = np.empty_like(x)
    run_loop(loops.running_products_backward, x.size, _along(g, axis), _along(x, axis), _along(out, axis))
    return out
