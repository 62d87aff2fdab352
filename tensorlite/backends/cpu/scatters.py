"""The kernels of ``reference`` that store or add values along an axis, and their transposes, with numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import reference
from .compiled_loops import loops_for, run_loop
from .compiled_sums import run_sum, sums_for
from .indexing import AlongAxis, check_places, places_along, run_selection

__all__ = ["scatter_into", "take_last_entries"]

Array = Any
XP = Any

_MAX_IN_PLACE = 128  # places along the axis up to which the compiled loop adds without an array of wide sums


def take_last_entries(xp: XP, x: Array, axis: int, index: Array) -> Array:
    """Compute the same as the reference. Raises IndexError for an index out of range."""
    out = run_selection("gather_last", x, axis, index, False)
    if out is not None:
        return out
    check_places(index, x.shape[axis])
    return reference.take_last_entries(xp, x, axis, index)


def scatter_into(
    xp: XP, out: Array, axis: int, index: Array, source: Any, add: bool, negative: bool = False
) -> Array:  # fmt: skip
    """Compute the same as the reference. Raises IndexError for an index out of range, maybe after some values."""
    if _scatter(out, axis, index, source, add, negative):
        return out
    if not negative:  # else NumPy checks
        check_places(index, out.shape[axis])
    return reference.scatter_into(xp, out, axis, index, source, add)


def _scatter(out: Array, axis: int, index: Array, source: Any, add: bool, negative: bool) -> bool:
    """Store or add values by a compiled loop; return whether that was possible, with all places in range."""
    is_array = isinstance(source, np.ndarray)
    loops = None if add and not is_array else loops_for("index_kernels", out, *([source] if is_array else []))
    if loops is None:
        return False
    found = places_along(out.shape, axis, index, negative)
    if found is None or (is_array and source.shape != found.shape):
        return False
    values = source.reshape(-1) if is_array else np.full(1, source, out.dtype)
    if add:
        return _add(loops, found, values, out)
    places = (found.places, found.strides, found.sizes, found.lowest)
    return bool(run_loop(loops.scatter, max(out.size, index.size), values, int(is_array), *places, out.reshape(-1)))


def _add(loops: Any, found: AlongAxis, values: Array, out: Array) -> bool:
    """Add values by a compiled loop; return whether that was possible."""
    n, m, inner = found.sizes
    is_matrix = out.size == n * inner and inner > 1 and found.strides[2] == 0
    if is_matrix and (compiled := sums_for(values)):
        rows = (values.reshape(m, inner), found.places, found.lowest, out.reshape(n, inner))
        return bool(run_sum(compiled.embedding_backward, 4 * values.size, *rows))
    if m > _MAX_IN_PLACE and 4 * values.size < out.size:
        return False
    return bool(run_sum(loops.scatter_add, 4 * values.size, values, *found[:4], out.reshape(-1)))
