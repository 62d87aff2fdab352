"""Elementwise functions, faster for contiguous float32 arrays of one shape, with numba."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import reference
from . import compiled_loops
from .broadcasts import combine_rows
from .compiled_loops import loops_for, run_loop
from .thread_pool import get_num_threads

__all__ = [
    "add_arrays", "add_scaled", "clamp", "copies_of", "erf", "floor_divide", "fmod", "log_sigmoid", "logaddexp",
    "remainder", "sigmoid", "sigmoid_slope", "sign_of", "where",
]  # fmt: skip

Array = Any
XP = Any


def add_arrays(xp: XP, x: Array, y: Array) -> Array:
    """Compute the same as the reference, by several threads if there are any. One thread is as fast in NumPy."""
    if get_num_threads() > 1 and x.shape == y.shape and (loops := loops_for("elementwise_kernels", x, y)):
        out = np.empty_like(x)
        run_loop(loops.add, x.size, x.reshape(-1), y.reshape(-1), out.reshape(-1))
        return out
    combined = combine_rows("ADD", x, y) if x.shape != y.shape else None
    return x + y if combined is None else combined


def add_scaled(xp: XP, x: Any, y: Any, factor: float) -> Array:
    """Compute the same as the reference, in one pass."""
    if type(x) is np.ndarray and type(y) is np.ndarray and x.shape == y.shape:
        if loops := loops_for("elementwise_kernels", x, y):
            out = np.empty_like(x)
            run_loop(loops.add_scaled, x.size, x.reshape(-1), y.reshape(-1), np.float32(factor), out.reshape(-1))
            return out
    return reference.add_scaled(xp, x, y, factor)


def copies_of(xp: XP, x: Array, count: int) -> list[Array]:
    """Compute the same as the reference. Threads share large copies, and two of them read x once."""
    if x.size < _MIN_COPIED or get_num_threads() < 2 or not x.flags.writeable:
        return [np.array(x, copy=True, order="C") for _ in range(count)]
    if (loops := loops_for("elementwise_kernels", x)) is None:
        return reference.copies_of(xp, x, count)
    copies: list[Array] = [np.empty_like(x) for _ in range(count)]
    flat = [a.reshape(-1) for a in copies]
    for k in range(0, count, 2):
        pair = (flat[k], flat[k + 1]) if k + 1 < count else (flat[k], flat[k][:0])
        run_loop(loops.copy, x.size, x.reshape(-1), *pair)
    return copies


_MIN_COPIED = 1 << 16  # entries, from which two threads copy faster than one


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


def sigmoid(xp: XP, x: Array) -> Array:
    """Compute the same as the reference."""
    out = _unary("SIGMOID", x)
    return reference.sigmoid(xp, x) if out is None else out


def sigmoid_slope(xp: XP, g: Array, y: Array) -> Array:
    """Compute the same as the reference."""
    out = _binary("SIGMOID_SLOPE", g, y)
    return reference.sigmoid_slope(xp, g, y) if out is None else out


def log_sigmoid(xp: XP, x: Array) -> Array:
    """Compute the same as the reference."""
    out = _unary("LOG_SIGMOID", x)
    return reference.log_sigmoid(xp, x) if out is None else out


def erf(xp: XP, x: Array) -> Array:
    """Compute the same as the reference."""
    out = _unary("ERF", x)
    return reference.erf(xp, x) if out is None else out


def sign_of(xp: XP, x: Array) -> Array:
    """Compute the same as the reference."""
    out = _unary("SIGN", x)
    return reference.sign_of(xp, x) if out is None else out


def floor_divide(xp: XP, x: Any, y: Any) -> Any:
    """Compute the same as NumPy."""
    out = _binary("FLOOR_DIVIDE", x, y)
    return np.floor_divide(x, y) if out is None else out


def fmod(xp: XP, x: Any, y: Any) -> Any:
    """Compute the same as NumPy."""
    out = _binary("FMOD", x, y)
    return np.fmod(x, y) if out is None else out


def remainder(xp: XP, x: Any, y: Any) -> Any:
    """Compute the same as NumPy."""
    out = _binary("REMAINDER", x, y)
    return np.remainder(x, y) if out is None else out


def logaddexp(xp: XP, x: Any, y: Any) -> Any:
    """Compute the same as NumPy."""
    out = _binary("LOGADDEXP", x, y)
    return np.logaddexp(x, y) if out is None else out


def _unary(code: str, x: Array) -> Array | None:
    """Return a function of each entry, or None if no compiled loop takes the array."""
    loops = loops_for("function_kernels", x) if x.size >= compiled_loops.MIN_COMPILED else None
    if loops is None:
        return None
    out = np.empty_like(x)
    run_loop(loops.unary, x.size, getattr(loops, code), x.reshape(-1), out.reshape(-1))
    return out


def _binary(code: str, x: Any, y: Any) -> Array | None:
    """Return a function of both arguments, the second of which may be a number; None if no compiled loop takes them."""
    if type(x) is not np.ndarray or x.size < compiled_loops.MIN_COMPILED:
        return None
    if type(y) in (int, float):
        y = np.full_like(x, y)
    if type(y) is not np.ndarray or y.shape != x.shape or (loops := loops_for("function_kernels", x, y)) is None:
        return None
    out = np.empty_like(x)
    exact = run_loop(loops.binary, x.size, getattr(loops, code), x.reshape(-1), y.reshape(-1), out.reshape(-1))
    return out if exact else None
