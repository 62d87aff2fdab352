"""The kernels of ``reference`` that choose between formulas, faster for contiguous float32 arrays of one shape.

All other cases go to the reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import reference
from . import compiled_loops
from .compiled_loops import loops_for, run_loop

__all__ = ["huber", "huber_slope", "leaky", "lerp", "relu_slope"]

Array = Any
XP = Any


def _loops(*arrays: Any) -> Any:
    """Return the compiled loops if they take these arrays, else None."""
    if any(type(a) is not np.ndarray or a.shape != arrays[0].shape for a in arrays):
        return None
    return loops_for("piecewise_kernels", *arrays)


def _of_two(code: str, x: Any, y: Any, a: Any, b: float = 0.0) -> Array | None:
    """Return the function of two arrays and of numbers, or None if no compiled loop takes them."""
    if type(a) not in (int, float) or (loops := _loops(x, y)) is None:
        return None
    out = np.empty_like(x)
    numbers = np.float32(a), np.float32(b)
    run_loop(loops.of_two, x.size, getattr(loops, code), x.reshape(-1), y.reshape(-1), *numbers, out.reshape(-1))
    return out


def huber(xp: XP, x: Array, y: Array, delta: float) -> Array:
    """Compute the same as the reference."""
    out = _of_two("HUBER", x, y, delta)
    return reference.huber(xp, x, y, delta) if out is None else out


def huber_slope(xp: XP, x: Array, y: Array, delta: float) -> Array:
    """Compute the same as the reference."""
    out = _of_two("HUBER_SLOPE", x, y, delta)
    return reference.huber_slope(xp, x, y, delta) if out is None else out


def leaky(xp: XP, x: Array, sign: Array, slope: float) -> Array:
    """Compute the same as the reference."""
    out = _of_two("LEAKY", x, sign, slope)
    return reference.leaky(xp, x, sign, slope) if out is None else out


def relu_slope(xp: XP, g: Array, y: Array) -> Array:
    """Compute the same as the reference."""
    out = _of_two("RELU_SLOPE", g, y, 0.0)
    return reference.relu_slope(xp, g, y) if out is None else out


def lerp(xp: XP, x: Array, y: Array, weight: Any) -> Array:
    """Compute the same as the reference."""
    if type(weight) in (int, float):
        out = _of_two("LERP", x, y, weight, 1.0 - weight)
        return reference.lerp(xp, x, y, weight) if out is None else out
    loops = _loops(x, y, weight) if x.size >= compiled_loops.MIN_COMPILED else None
    if loops is None:
        return reference.lerp(xp, x, y, weight)
    out = np.empty_like(x)
    run_loop(loops.weighted, x.size, x.reshape(-1), y.reshape(-1), weight.reshape(-1), out.reshape(-1))
    return out
