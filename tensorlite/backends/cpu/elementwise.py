"""Elementwise functions, faster for contiguous float32 arrays of one shape, with numba."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import reference
from . import compiled_loops
from .compiled_loops import loops_for, run_loop
from .thread_pool import get_num_threads

__all__ = ["add_arrays", "clamp", "where"]

Array = Any
XP = Any


def add_arrays(xp: XP, x: Array, y: Array) -> Array:
    """Compute the same as the reference, by several threads if there are any. One thread is as fast in NumPy."""
    if get_num_threads() > 1 and x.shape == y.shape and (loops := loops_for("elementwise_kernels", x, y)):
        out = np.empty_like(x)
        run_loop(loops.add, x.size, x.reshape(-1), y.reshape(-1), out.reshape(-1))
        return out
    return x + y


def where(xp: XP, condition: Array, *values: Any) -> Any:
    """Return the first value where the condition is true, else the second, as NumPy does."""
    if condition.size >= compiled_loops.MIN_COMPILED and len(values) == 2 and condition.flags.c_contiguous:
        out = _where(condition, *values)
        if out is not None:
            return out
    return np.where(condition, *values)


def _where(condition: Array, x: Any, y: Any) -> Array | None:
    """Return the choice by a compiled loop, or None if no loop takes these arrays and numbers."""
    arrays = [a for a in (x, y) if type(a) not in (int, float)]
    if not arrays or condition.dtype != bool or any(getattr(a, "shape", None) != condition.shape for a in arrays):
        return None
    loops = loops_for("elementwise_kernels", *arrays)
    if loops is None:
        return None
    out = np.empty_like(arrays[0])
    flat = condition.reshape(-1), out.reshape(-1)
    if len(arrays) == 2:
        run_loop(loops.where, out.size, flat[0], x.reshape(-1), y.reshape(-1), flat[1])
    else:
        array, number, kept = (x, y, True) if arrays[0] is x else (y, x, False)
        run_loop(loops.where_number, out.size, flat[0], kept, array.reshape(-1), np.float32(number), flat[1])
    return out


def clamp(xp: XP, x: Array, low: Any, high: Any) -> Array:
    """Compute the same as the reference."""
    if x.size >= compiled_loops.MIN_COMPILED and (loops := loops_for("elementwise_kernels", x)):
        bounds = (-math.inf if low is None else low), (math.inf if high is None else high)
        if all(type(b) in (int, float) and b == b for b in bounds):
            out = np.empty_like(x)
            run_loop(loops.clamp, x.size, x.reshape(-1), *map(np.float32, bounds), out.reshape(-1))
            return out
    return reference.clamp(xp, x, low, high)
