"""The kernels of ``reference`` that select along an axis, and that find the largest entries of windows, with numba."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import reference
from .compiled_loops import FLOAT32, loops_for, run_loop

__all__ = ["pool_places", "take_at", "take_entries", "take_slices"]

Array = Any
XP = Any

_INT64 = np.dtype(np.int64)


class AlongAxis(NamedTuple):
    """An index that selects along one axis of an array (outer, n, inner), as compiled loops take it.

    places: indices (outer, m, inner), flat, with their strides in entries. sizes: n, m and inner. lowest: 0, or -n if
    negative places count from the end. shape: that of the selection.
    """

    places: Array
    strides: tuple[int, int, int]
    sizes: tuple[int, int, int]
    lowest: int
    shape: tuple[int, ...]


def along_axis(shape: tuple[int, ...], index: Any) -> AlongAxis | None:
    """Return an index of an array of this shape in the form of the loops, or None if it selects otherwise.

    The index is one vector after slices without bounds, or an array for each dimension: that of the places for one of
    them, and for the others ``arange``.
    """
    index = index if isinstance(index, tuple) else (index,)
    places = index[-1]
    if type(places) is np.ndarray and places.ndim == 1 and all(type(item) is slice for item in index[:-1]):
        if all(item == slice(None) for item in index[:-1]):
            return places_along(shape, len(index) - 1, places, True)
    if len(index) != len(shape) or any(type(a) is not np.ndarray for a in index):
        return None
    axis = max(range(len(shape)), key=lambda d: index[d].size)
    places = index[axis]
    if places.ndim != len(shape):
        return None
    others = (d for d in range(len(shape)) if d != axis)
    if not all(_is_arange(index[d], len(shape) - d, shape[d]) for d in others):
        return None
    return places_along(shape, axis, places, True)


def places_along(shape: tuple[int, ...], axis: int, places: Array, negative: bool) -> AlongAxis | None:
    """Return integers that select along an axis of an array of this shape in the form of the loops, or None.

    places: a vector for slices, else an array with a place for each entry of the result. The loops do not take it if
    the result has no entries, or leaves out some outside of the axis. negative: whether -1 is the last place.
    """
    n, inner = shape[axis], math.prod(shape[axis + 1 :])
    if places.ndim == 1:
        strides, selected = (0, 1, 0), (*shape[:axis], places.size, *shape[axis + 1 :])
    else:
        strides, selected = (places.shape[axis] * inner, inner, 1), places.shape
        if selected[:axis] != shape[:axis] or selected[axis + 1 :] != shape[axis + 1 :]:
            return None
    flags = places.flags
    if places.dtype != _INT64 or not (flags.c_contiguous and flags.writeable):
        if places.dtype.kind != "i":
            return None
        places = np.array(places, _INT64, order="C")  # numba would compile a loop again for a read-only array
    flat = places if places.ndim == 1 else places.reshape(-1)
    return AlongAxis(flat, strides, (n, selected[axis], inner), -n if negative else 0, selected) if flat.size else None


def _is_arange(array: Array, ndim: int, n: int) -> bool:
    """Return whether an index array of this many dimensions holds each of n positions along its first dimension."""
    return array.ndim == ndim and array.size == len(array) == n and bool((array.reshape(-1) == np.arange(n)).all())


def check_places(index: Array, n: int) -> None:
    """Raise IndexError if a place is not from 0 to n - 1."""
    if index.size and not 0 <= index.min() <= index.max() < n:
        raise IndexError(f"an index is out of range for a dimension of size {n}")


def take_at(xp: XP, x: Array, index: tuple[Any, ...]) -> Array:
    """Compute the same as the reference. An index out of range raises IndexError there."""
    if loops := loops_for("index_kernels", x):
        found = along_axis(x.shape, index)
        if found is not None and math.prod(found.shape) >= _MIN_SELECTED:
            out: Array = np.empty(found.shape, FLOAT32)
            if run_loop(loops.gather, out.size, x.reshape(-1), *found[:4], out.reshape(-1)):
                return out
    return x[index]


_MIN_SELECTED = 256  # entries, from which a compiled loop is faster than NumPy's selection


def take_slices(xp: XP, x: Array, axis: int, index: Array, negative: bool = False) -> Array:
    """Compute the same as the reference. Raises IndexError for an index out of range."""
    out = run_selection("gather", x, axis, index.reshape(-1), negative)
    if out is not None:
        return out if index.ndim == 1 else out.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    if not negative:  # else NumPy checks
        check_places(index, x.shape[axis])
    return x.take(index, axis)


def take_entries(xp: XP, x: Array, axis: int, index: Array, negative: bool = False) -> Array:
    """Compute the same as the reference. Raises IndexError for an index out of range."""
    out = run_selection("gather", x, axis, index, negative)
    if out is not None:
        return out
    if not negative:
        check_places(index, x.shape[axis])
    return reference.take_entries(xp, x, axis, index)


def run_selection(kernel: str, x: Array, axis: int, index: Array, negative: bool) -> Array | None:
    """Return the result of a compiled kernel, or None if it does not take the arrays or an index is out of range.

    index: a vector for slices, else an array with a place for each entry of the result.
    """
    flags = x.flags
    if not (flags.c_contiguous and flags.writeable and x.size and (x.dtype is FLOAT32 or x.dtype == FLOAT32)):
        return None
    found = places_along(x.shape, axis, index, negative)
    if found is None:
        return None
    out: Array = np.empty(found.shape, FLOAT32)
    loops = loops_for("index_kernels", out if out.size > x.size else x) if out.size >= _MIN_SELECTED else None
    if loops is None:
        return None
    inside = run_loop(getattr(loops, kernel), out.size, x.reshape(-1), *found[:4], out.reshape(-1))
    return out if inside else None


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
