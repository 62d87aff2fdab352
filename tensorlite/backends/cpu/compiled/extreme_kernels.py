"""The largest or smallest entry of each row of float32 numbers, NaN where there is one, as loops that numba compiles.

NumPy takes 100 ns for a row besides its entries. The form of the kernels is that of ``kernels.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from .parallel_for import bind_kernel, parallel_for
from .simd import LANES, F32x16, f32x16, largest_lane, load_16, max_16, splat_16
from .support import ENTRY, INNER, njit

__all__ = ["row_extremes"]

Array = Any
f32 = np.float32


@intrinsic
def _min_16(context: Any, x: Any, y: Any) -> Any:
    """Return the smaller number of each lane; y where x is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return f32x16(f32x16, f32x16), generate


@intrinsic
def _mark_nan(context: Any, x: Any, y: Any, marks: Any) -> Any:
    """Return marks with a 1 in each lane in which x or y is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y, marks = args
        return builder.select(builder.fcmp_unordered("uno", x, y), ir.Constant(F32x16, [1.0] * LANES), marks)

    return f32x16(f32x16, f32x16, f32x16), generate


@intrinsic
def _negative(context: Any, x: Any) -> Any:
    """Return ``-x``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fsub(ir.Constant(F32x16, [-0.0] * LANES), args[0])

    return f32x16(f32x16), generate


@njit(**INNER)
def _extreme(largest: bool, row: Array) -> Any:
    n, at = row.size, np.int64(row.ctypes.data)
    a = b = c = d = last = load_16(at + 4 * (n - 16))  # the last entries, some of which come again
    marks = _mark_nan(last, last, splat_16(f32(0)))
    for j in range(0, n - 63, 64):
        w, x = load_16(at + 4 * j), load_16(at + 4 * j + 64)
        y, z = load_16(at + 4 * j + 128), load_16(at + 4 * j + 192)
        if largest:
            a, b, c, d = max_16(w, a), max_16(x, b), max_16(y, c), max_16(z, d)
        else:
            a, b, c, d = _min_16(w, a), _min_16(x, b), _min_16(y, c), _min_16(z, d)
        marks = _mark_nan(y, z, _mark_nan(w, x, marks))
    for j in range(n - n % 64, n - 15, 16):
        w = load_16(at + 4 * j)
        a = max_16(w, a) if largest else _min_16(w, a)
        marks = _mark_nan(w, w, marks)
    if largest_lane(marks) > f32(0):
        return f32(np.nan)
    if largest:
        return largest_lane(max_16(max_16(a, b), max_16(c, d)))
    return -largest_lane(_negative(_min_16(_min_16(a, b), _min_16(c, d))))


@njit(**INNER)
def row_extremes_range(largest: bool, x: Array, out: Array, start: int, stop: int) -> None:
    for i in range(start, stop):
        out[i] = _extreme(True, x[i]) if largest else _extreme(False, x[i])  # a loop for each


@njit(**ENTRY)
def row_extremes(pool: int, largest: bool, x: Array, out: Array) -> None:
    """Write the largest or smallest entry of each row of x (n, m), for m of 16 or more."""
    parallel_for(pool, bind_kernel(row_extremes_range, (largest, x, out)), len(x), 1, 1)
