"""The kernels of ``reference`` for extremes and products along axes, in the form that is fast on NumPy arrays.

NumPy's reduction calls its inner loop for each row, which takes 20 ns or more. It multiplies one entry after the other.
So rows of few entries are combined column by column, and longer rows of factors first half by half.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .compiled_loops import loops_for, run_loop

__all__ = ["largest", "product", "smallest"]

Array = Any
XP = Any

_SMALL = 1024  # entries up to which a call takes longer than its loops
_NARROW = 32  # entries of a row up to which columns are combined in less time than NumPy's reduction takes
_COMPILED = 16  # factors of a row from which a compiled loop is faster
_BLOCK = 1 << 14  # entries of the rows that are combined while they are in the cache
_MANY = 1 << 8  # rows of such a block at least, because each step over them has a fixed cost
_JOINED = 64  # columns up to which several rows are joined to one


def largest(xp: XP, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """Compute the same as the reference."""
    return _reduce(np.maximum, x, axes, keepdims)


def smallest(xp: XP, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """Compute the same as the reference."""
    return _reduce(np.minimum, x, axes, keepdims)


def product(xp: XP, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """Compute the same as the reference, in another order."""
    if x.dtype.kind != "f":
        return x.prod(axis=axes, keepdims=keepdims)
    return _reduce(np.multiply, x, axes, keepdims)


def _reduce(f: Any, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """Return ``f.reduce`` of x along axes, in a faster form for large contiguous arrays."""
    if x.size <= _SMALL or x.dtype.kind != "f" or not x.flags.c_contiguous:
        return f.reduce(x, axis=axes, keepdims=keepdims)
    kept = [1 if d in axes else n for d, n in enumerate(x.shape) if keepdims or d not in axes]
    return _reduce_contiguous(f, x, tuple(sorted(axes))).reshape(kept)


def _reduce_contiguous(f: Any, x: Array, axes: tuple[int, ...]) -> Array:
    """Return ``f.reduce`` along axes, in increasing order, of an array that is contiguous."""
    last = 0  # the number of reduced axes at the end
    while last < len(axes) and axes[-1 - last] == x.ndim - 1 - last:
        last += 1
    if last:
        kept = x.shape[: x.ndim - last]
        rows = x.reshape(math.prod(kept), math.prod(x.shape[x.ndim - last :]))
        y = _reduce_rows(f, rows).reshape(kept)
        return _reduce_contiguous(f, y, axes[:-last]) if last < len(axes) else y
    width = math.prod(x.shape[len(axes) :])
    if not width or 2 * width > _JOINED or axes != tuple(range(len(axes))) or x.size <= _SMALL:
        return np.asarray(f.reduce(x, axis=axes))
    rows = x.reshape(-1, width)
    joined = _JOINED // width
    whole = len(rows) - len(rows) % joined
    wide = f.reduce(rows[:whole].reshape(-1, joined * width), axis=0).reshape(joined, width)
    return np.asarray(f.reduce(np.concatenate([wide, rows[whole:]]), axis=0))


def _reduce_rows(f: Any, rows: Array) -> Array:
    """Return ``f.reduce`` of each row of a matrix."""
    n = rows.shape[1]
    if f is np.multiply and n >= _COMPILED and (loops := loops_for("factor_kernels", rows)):
        out = np.empty(len(rows), rows.dtype)
        run_loop(loops.row_products, rows.size, rows, out)
        return out
    if n > _NARROW and len(rows) > 1 and f is not np.multiply and (loops := loops_for("extreme_kernels", rows)):
        out = np.empty(len(rows), rows.dtype)
        run_loop(loops.row_extremes, rows.size, f is np.maximum, rows, out)
        return out
    if n < 2 or (n > _NARROW and f is not np.multiply):
        return f.reduce(rows, axis=1)
    out = np.empty(len(rows), rows.dtype)
    step = max(_BLOCK // n, _MANY)
    for start in range(0, len(rows), step):
        _reduce_block(f, rows[start : start + step], out[start : start + step])
    return out


def _reduce_block(f: Any, rows: Array, out: Array) -> None:
    """Write ``f.reduce`` of each row of a matrix of at least two columns. f may have any order of entries."""
    while rows.shape[1] > _NARROW:
        n, half = rows.shape[1], rows.shape[1] // 2
        halves = f(rows[:, :half], rows[:, half : 2 * half])
        if n % 2:
            f(halves[:, 0], rows[:, -1], out=halves[:, 0])
        rows = halves
    if len(rows) < _NARROW:
        f.reduce(rows, axis=1, out=out)
        return
    f(rows[:, 0], rows[:, 1], out=out)
    for k in range(2, rows.shape[1]):
        f(out, rows[:, k], out=out)
