"""The kernels of ``reference`` for orders of entries, faster on NumPy arrays: top k, medians, the order of integers.

NumPy's partition is a vectorised selection, while a stable sort of floating point numbers compares one pair at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import reference
from . import compiled_loops
from .compiled_loops import run_loop
from .memory_views import rows_of

__all__ = ["median_of_all", "median_places", "places_in_order", "search_rows", "top_places"]

Array = Any
XP = Any

_MAX_INSERTED = 16  # entries, up to which inserting into a list of the best takes less time than a partition
_COMPILED = tuple(map(np.dtype, ("float32", "float64", "int64")))


def top_places(xp: XP, x: Array, k: int, axis: int, largest: bool, ordered: bool) -> Array:
    """Compute the same as the reference. A few entries are found in one pass, in order, the first of equal ones."""
    loops = None
    if 0 < k <= _MAX_INSERTED and x.size >= compiled_loops.MIN_COMPILED and x.dtype in _COMPILED:
        loops = compiled_loops.load_loops("order_kernels")
    if loops is None:
        return reference.top_places(xp, x, k, axis, largest, ordered)
    rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    found = np.empty((*rows.shape[:-1], k), np.int64)
    best = np.empty(found.shape, x.dtype)
    run_loop(loops.top_places, x.size, rows_of(rows), largest, rows_of(best), rows_of(found))
    return np.moveaxis(found, -1, axis)


def places_in_order(xp: XP, x: Array, axis: int, stable: bool) -> Array:
    """Compute the same as the reference. Many integers are sorted next to their places, as one number for both."""
    n = x.shape[axis]
    bits = max(n - 1, 1).bit_length()
    if x.dtype.kind not in "iu" or x.size < compiled_loops.MIN_COMPILED or n < 2:
        return reference.places_in_order(xp, x, axis, stable)
    low, high = int(x.min()), int(x.max())
    if high - low >= 1 << (63 - bits) or high >= 1 << 63:
        return reference.places_in_order(xp, x, axis, stable)
    keys = np.moveaxis(x, axis, -1).astype(np.int64)
    keys -= low
    keys <<= bits
    keys |= np.arange(n)
    keys.sort(axis=-1)
    keys &= (1 << bits) - 1
    return np.moveaxis(keys, -1, axis)


def search_rows(xp: XP, edges: Array, values: Array, side: str) -> Array:
    """Compute the same as the reference, in one loop for short rows."""
    loops = None
    if edges.dtype == values.dtype in _COMPILED and values.size >= compiled_loops.MIN_COMPILED:
        loops = compiled_loops.load_loops("order_kernels") if edges.shape[-1] else None
    if loops is None:
        return reference.search_rows(xp, edges, values, side)
    found = np.empty(values.shape, np.int64)
    rows = (rows_of(np.ascontiguousarray(a)) for a in (edges, values))
    run_loop(loops.search_rows, values.size, *rows, side == "right", rows_of(found))
    return found


def median_places(xp: XP, x: Array, axis: int, ignore_nan: bool) -> Array:
    """Compute the same as the reference."""
    rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    nan = np.isnan(rows) if x.dtype.kind == "f" else np.zeros((), bool)
    has_nan = nan.any()
    if has_nan and ignore_nan:
        return reference.median_places(xp, x, axis, ignore_nan)
    middle = (rows.shape[-1] - 1) // 2
    values = np.partition(rows, middle, axis=-1)[..., middle : middle + 1]
    hit = rows == values
    if has_nan or np.count_nonzero(hit) != values.size:
        less = np.count_nonzero(rows < values, axis=-1, keepdims=True)
        if has_nan:  # the median of a row with NaN is its first NaN
            spoiled = nan.any(axis=-1, keepdims=True)
            hit, less = np.where(spoiled, nan, hit), np.where(spoiled, middle, less)
        hit = np.cumsum(hit, axis=-1) == middle - less + 1  # the one of equal entries that a stable sort would choose
    return np.moveaxis(hit.argmax(axis=-1, keepdims=True), -1, axis)


def median_of_all(xp: XP, x: Array, ignore_nan: bool) -> Array:
    """Compute the same as the reference."""
    if x.dtype.kind == "f" and np.isnan(x).any():
        return reference.median_of_all(xp, x, ignore_nan)
    middle = (x.size - 1) // 2
    return np.partition(x, middle)[middle : middle + 1].reshape(())
