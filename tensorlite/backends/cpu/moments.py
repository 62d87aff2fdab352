"""The kernels of ``reference`` for means, squares and norms along axes, in a faster form on NumPy arrays.

Squares overflow or vanish long before a norm does. So few float32 entries are squared in float64, and many are scaled
first if the result says that it is necessary.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import reference
from . import compiled_sums
from .compiled_sums import FLOAT32

__all__ = ["deviation", "root_sum_squares", "variance"]  # the kernels of the namespace

Array = Any
XP = Any

_SMALL = 1024  # entries up to which a call takes longer than its arithmetic
_MIN_ROW = 4  # entries of a row, from which a loop over the rows of several parts is faster than NumPy
_SMALL_ROOT = {t: float(np.sqrt(np.finfo(t).tiny / np.finfo(t).eps)) for t in "efd"}
"""Roots below which the squares of a sum may have lost digits, by the code of the dtype."""


def root_sum_squares(xp: XP, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """Compute the same as the reference, and again with scaled entries if squares overflow or vanish."""
    if x.size <= _SMALL and x.dtype == FLOAT32:
        wide = x.astype(np.float64)
        wide *= wide
        return np.sqrt(wide.sum(axis=axes, keepdims=keepdims)).astype(FLOAT32)
    out = _compiled_roots(x, axes, keepdims)
    if out is None:
        out = reference.root_sum_squares(xp, x, axes, keepdims)
    if not x.size or _are_exact(out):
        return out
    top = np.abs(x).max(axis=axes, keepdims=True)
    top = np.where((top > 0) & np.isfinite(top), top, np.ones_like(top))
    out = reference.root_sum_squares(xp, x / top, axes, True) * top
    return out if keepdims else out.squeeze(axes)


def _compiled_roots(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array | None:
    """Return the roots of the sums of squares over the last axes, or None if no compiled loop takes these arrays."""
    compiled = compiled_sums.sums_for(x)
    if compiled is None or not _are_last(axes, x.ndim):
        return None
    kept = [n for d, n in enumerate(x.shape) if d not in axes]
    out = np.empty(kept + [1] * len(axes) * keepdims, x.dtype)
    compiled_sums.run_sum(compiled.row_squares, x.size, x.reshape(out.size, -1), out.reshape(-1))
    return np.sqrt(out, out=out)


def _are_last(axes: tuple[int, ...], ndim: int) -> bool:
    """Return whether the axes are the last of an array, in any order."""
    return bool(axes) and sorted(axes) == list(range(ndim - len(axes), ndim))


def _are_exact(roots: Array) -> bool:
    """Return whether no square of these roots overflowed or lost digits."""
    return bool(roots.min() > _SMALL_ROOT[roots.dtype.char] and roots.max() < math.inf)


def variance(xp: XP, x: Array, axes: tuple[int, ...], factor: float) -> tuple[Array, Array, Array]:
    """Compute the same as the reference."""
    moments = _moments(x, axes)
    if moments is not None:
        squares, middle, rest = moments
        if squares.dtype != FLOAT32 or squares.max() < math.inf:
            return (squares * factor).astype(x.dtype), middle, rest
    return reference.variance(xp, x, axes, factor)


def deviation(xp: XP, x: Array, axes: tuple[int, ...], factor: float) -> tuple[Array, Array, Array]:
    """Compute the same as the reference."""
    moments = _moments(x, axes)
    if moments is not None:
        squares, middle, rest = moments
        root = np.sqrt(squares)
        if root.dtype != FLOAT32 or _are_exact(root):
            return (root * math.sqrt(factor)).astype(x.dtype), middle, rest
    return reference.deviation(xp, x, axes, factor)


def _moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array] | None:
    """Return sums of ``(x - mean)**2`` and the two parts of the mean, or None if no fast form takes these arrays.

    The sums are float64 for few entries, where nothing overflows.
    """
    size = x.size
    if not size:
        return None
    if size <= _SMALL and x.dtype == FLOAT32:
        wide = x.astype(np.float64)
        mean = np.add.reduce(wide, axis=axes, keepdims=True)
        mean /= size // max(1, mean.size)
        wide -= mean
        wide *= wide
        middle = mean.astype(FLOAT32)
        mean -= middle
        return np.add.reduce(wide, axis=axes, keepdims=True), middle, mean.astype(FLOAT32)
    return moments_of_many(x, axes)


def moments_of_many(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array] | None:
    """Return sums of ``(x - mean)**2`` and the two parts of the mean by a compiled loop over rows, or None."""
    compiled = compiled_sums.sums_for(x)
    split = None if compiled is None else _split(x.shape, axes)
    if split is None:
        return None
    outer, kept, inner = split
    middle, rest, squares = (np.empty((outer, kept), x.dtype) for _ in range(3))
    flat = (middle.reshape(-1), rest.reshape(-1), squares.reshape(-1))
    compiled_sums.run_sum(compiled.row_moments, x.size, x.reshape(outer * kept, inner), *flat)
    if outer > 1:
        squares, middle, rest = _joined(squares, middle, rest, inner)
    shape = [1 if d in axes else n for d, n in enumerate(x.shape)]
    return squares.reshape(shape), middle.reshape(shape), rest.reshape(shape)


def _split(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return the sizes of the first axes that are reduced, of those that are kept, and of the last that are reduced.

    Returns None if the axes lie in another order, or if there are too few entries along the last.
    """
    outer = inner = 0
    while outer in axes:
        outer += 1
    while len(shape) - 1 - inner in axes and inner < len(shape) - outer:
        inner += 1
    if outer + inner != len(axes):
        return None
    last = len(shape) - inner
    sizes = math.prod(shape[:outer]), math.prod(shape[outer:last]), math.prod(shape[last:])
    return sizes if sizes[2] >= _MIN_ROW or (not outer and inner) else None


def _joined(squares: Array, middles: Array, rests: Array, count: int) -> tuple[Array, Array, Array]:
    """Return the moments of the columns' entries, given those of ``count`` entries for each number, (n, columns).

    Source: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
    """
    means = np.add(middles, rests, dtype=np.float64)
    mean = means.mean(axis=0)
    means -= mean
    means *= means
    wide = squares.sum(axis=0, dtype=np.float64) + count * means.sum(axis=0)
    middle = mean.astype(FLOAT32)
    return wide.astype(FLOAT32), middle, (mean - middle).astype(FLOAT32)
