"""The kernels of ``reference`` that select along an axis, and that find the largest entries of windows, with numba."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import reference
from .compiled_loops import FLOAT32, loops_for, run_loop

__all__ = ["pool_places", "take_at"]

Array = Any
XP = Any


class AlongAxis(NamedTuple):
    """An index that selects along one axis of an array (outer, n, inner), as compiled loops take it.

    places: indices (outer, m, inner) from 0, flat, with their strides in entries. sizes: n, m and inner.
    shape: that of the selection.
    """

    places: Array
    strides: tuple[int, int, int]
    sizes: tuple[int, int, int]
    shape: tuple[int, ...]


def along_axis(shape: tuple[int, ...], index: Any) -> AlongAxis | None:
    """Return an index of an array of this shape in the form of the loops, or None if it selects otherwise.

    The index is one vector after slices without bounds, or an array for each dimension: that of the places for one of
    them, and for the others ``arange``, as gather has them.
    """
    index = index if isinstance(index, tuple) else (index,)
    places = index[-1]
    if type(places) is np.ndarray and places.ndim == 1 and all(type(item) is slice for item in index[:-1]):
        axis = len(index) - 1
        if all(item == slice(None) for item in index[:-1]):
            return _form(shape, axis, places, (0, 1, 0), (*shape[:axis], places.size, *shape[axis + 1 :]))
    if len(index) != len(shape) or any(type(a) is not np.ndarray for a in index):
        return None
    axis = max(range(len(shape)), key=lambda d: index[d].size)
    places, inner = index[axis], math.prod(shape[axis + 1 :])
    if places.ndim != len(shape):
        return None
    selected = (*shape[:axis], places.shape[axis], *shape[axis + 1 :])
    others = (d for d in range(len(shape)) if d != axis)
    if places.shape != selected or not all(_is_arange(index[d], len(shape) - d, shape[d]) for d in others):
        return None
    return _form(shape, axis, places, (places.shape[axis] * inner, inner, 1), selected)


def _form(
    shape: tuple[int, ...], axis: int, places: Array, strides: tuple[int, int, int], selected: tuple[int, ...]
) -> AlongAxis | None:  # fmt: skip
    if places.dtype.kind != "i" or not places.size or not math.prod(selected):
        return None
    n = shape[axis]
    flat = np.ascontiguousarray(places, np.int64).reshape(-1)
    if flat.view(np.uint64).max() >= n:  # negative places are then the largest
        if flat.min() < -n or flat.max() >= n:  # NumPy raises the error
            return None
        flat = flat + n * (flat < 0)
    sizes = (n, places.shape[axis] if places.ndim > 1 else places.size, math.prod(shape[axis + 1 :]))
    return AlongAxis(flat, strides, sizes, selected)


def _is_arange(array: Array, ndim: int, n: int) -> bool:
    """Return whether an index array of this many dimensions holds each of n positions along its first dimension."""
    return array.ndim == ndim and array.size == len(array) == n and bool((array.reshape(-1) == np.arange(n)).all())


def take_at(xp: XP, x: Array, index: tuple[Any, ...]) -> Array:
    """Compute the same as the reference. An index out of range raises IndexError there."""
    if loops := loops_for("index_kernels", x):
        found = along_axis(x.shape, index)
        if found is not None and math.prod(found.shape) >= _MIN_SELECTED:
            out: Array = np.empty(found.shape, FLOAT32)
            run_loop(loops.gather, out.size, x.reshape(-1), *found[:3], out.reshape(-1))
            return out
    return x[index]


_MIN_SELECTED = 256  # entries, from which a compiled loop is faster than NumPy's selection


def pool_places(
    xp: XP, x: Array, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    sizes: Sequence[int],
) -> Array:  # fmt: skip
    """Compute the same as the reference."""
    loops = loops_for("index_kernels", x)
    if loops is None:
        return reference.pool_places(xp, x, kernel, stride, padding, dilation, sizes)
    places: Array = np.empty((*x.shape[:2], *sizes), np.int64)
    windows = tuple(zip(kernel, stride, padding, dilation, strict=True))
    if len(sizes) == 1:  # a sequence is an image of one row
        windows = ((1, 1, 0, 1), *windows)
    images = x.reshape(-1, *((1,) if len(sizes) == 1 else ()), *x.shape[2:])
    out = places.reshape(-1, *((1,) if len(sizes) == 1 else ()), *sizes)
    run_loop(loops.pool_places, 4 * x.size, images, windows, out)
    return places
