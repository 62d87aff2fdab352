"""Sums and products of float32 arrays of different shapes, faster with numba: with a row, with a column, of both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import compiled_loops
from .compiled_loops import FLOAT32, loops_for, run_loop
from .memory_views import rows_of

__all__ = ["multiply_arrays"]

Array = Any
XP = Any


def multiply_arrays(xp: XP, x: Array, y: Array) -> Array:
    """Compute the same as the reference."""
    out = combine_rows("MULTIPLY", x, y) if x.shape != y.shape else None
    return x * y if out is None else out


def combine_rows(code: str, x: Array, y: Array) -> Array | None:
    """Return the sum or product of an array and a row or a column, or of a column and a row; None for other shapes."""
    if x.ndim == y.ndim == 2 and x.shape[1] == y.shape[0] == 1 and code == "MULTIPLY":
        return _outer(x, y)
    if x.ndim < 2 or y.ndim > x.ndim or not y.ndim or (loops := loops_for("broadcast_kernels", x, y)) is None:
        return None
    if y.size == y.shape[-1] == x.shape[-1]:
        kernel = loops.with_row
    elif y.shape == (*x.shape[:-1], 1):
        kernel = loops.with_column
    else:
        return None
    out = np.empty_like(x)
    run_loop(kernel, x.size, getattr(loops, code), rows_of(x), y.reshape(-1), rows_of(out))
    return out


def _outer(x: Array, y: Array) -> Array | None:
    """Return the products of all entries of a column and a row, or None if no compiled loop takes them."""
    for a in (x, y):
        if a.dtype != FLOAT32 or not a.flags.c_contiguous:
            return None
    size = math.prod((x.size, y.size))
    loops = compiled_loops.load_loops("broadcast_kernels") if size >= compiled_loops.MIN_COMPILED else None
    if loops is None:
        return None
    out = np.empty((x.size, y.size), FLOAT32)
    run_loop(loops.outer, size, x.reshape(-1), y.reshape(-1), out)
    return out
