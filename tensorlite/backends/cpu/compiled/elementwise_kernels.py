"""Elementwise functions of float32 numbers as loops that numba compiles.

NumPy's ``where`` has a branch for each entry, which takes 3 ns where the condition is irregular. These loops have none.
The form of the kernels is that of ``kernels.py``: all arrays are flat and contiguous, and the first argument is a
thread pool.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .parallel_for import bind_kernel, parallel_for
from .support import ENTRY, INNER, copy_float32, njit

__all__ = ["add", "add_scaled", "clamp", "copy", "where", "where_number"]

Array = Any

_GRAIN_SIZE = 1024  # entries, 4 KB
_BLOCK = 2048  # entries, 8 KB


@njit(**INNER)
def add_range(x: Array, y: Array, out: Array, start: int, stop: int) -> None:
    x, y, out = x[start:stop], y[start:stop], out[start:stop]
    for i in range(out.size):
        out[i] = x[i] + y[i]


@njit(**ENTRY)
def add(pool: int, x: Array, y: Array, out: Array) -> None:
    """Write ``x + y``."""
    parallel_for(pool, bind_kernel(add_range, (x, y, out)), out.size, _GRAIN_SIZE, 1)


@njit(**INNER)
def add_scaled_range(x: Array, y: Array, factor: Any, out: Array, start: int, stop: int) -> None:
    x, y, out = x[start:stop], y[start:stop], out[start:stop]
    for i in range(out.size):
        out[i] = x[i] + factor * y[i]


@njit(**ENTRY)
def add_scaled(pool: int, x: Array, y: Array, factor: Any, out: Array) -> None:
    """Write ``x + factor y`` for a float32 number."""
    parallel_for(pool, bind_kernel(add_scaled_range, (x, y, factor, out)), out.size, _GRAIN_SIZE, 1)


@njit(**INNER)
def copy_range(x: Array, first_copy: Array, second_copy: Array, start: int, stop: int) -> None:
    source, first, second = np.int64(x.ctypes.data), np.int64(first_copy.ctypes.data), np.int64(second_copy.ctypes.data)
    for i in range(start, stop, _BLOCK):
        size = min(_BLOCK, stop - i)
        copy_float32(first + 4 * i, source + 4 * i, size)
        if second_copy.size:  # while the block is in the first-level cache
            copy_float32(second + 4 * i, source + 4 * i, size)


@njit(**ENTRY)
def copy(pool: int, x: Array, first: Array, second: Array) -> None:
    """Write x into an array, or into two; the second is empty for one."""
    parallel_for(pool, bind_kernel(copy_range, (x, first, second)), x.size, _GRAIN_SIZE, 1)


@njit(**INNER)
def where_range(condition: Array, x: Array, y: Array, out: Array, start: int, stop: int) -> None:
    condition, x, y, out = condition[start:stop], x[start:stop], y[start:stop], out[start:stop]
    for i in range(out.size):
        a, b = x[i], y[i]
        out[i] = a if condition[i] else b


@njit(**ENTRY)
def where(pool: int, condition: Array, x: Array, y: Array, out: Array) -> None:
    """Write x where the condition is true, else y."""
    parallel_for(pool, bind_kernel(where_range, (condition, x, y, out)), out.size, _GRAIN_SIZE, 1)


@njit(**INNER)
def where_number_range(condition: Array, kept: bool, x: Array, y: Any, out: Array, start: int, stop: int) -> None:
    condition, x, out = condition[start:stop], x[start:stop], out[start:stop]
    for i in range(out.size):
        a = x[i]
        out[i] = a if condition[i] == kept else y


@njit(**ENTRY)
def where_number(pool: int, condition: Array, kept: bool, x: Array, y: Any, out: Array) -> None:
    """Write x where the condition equals ``kept``, else the number y."""
    parallel_for(pool, bind_kernel(where_number_range, (condition, kept, x, y, out)), out.size, _GRAIN_SIZE, 1)


@njit(**INNER)
def clamp_range(x: Array, low: Any, high: Any, out: Array, start: int, stop: int) -> None:
    x, out = x[start:stop], out[start:stop]
    for i in range(out.size):
        a = low if x[i] < low else x[i]
        out[i] = high if a > high else a


@njit(**ENTRY)
def clamp(pool: int, x: Array, low: Any, high: Any, out: Array) -> None:
    """Write ``minimum(maximum(x, low), high)``. NaN stays."""
    parallel_for(pool, bind_kernel(clamp_range, (x, low, high, out)), out.size, _GRAIN_SIZE, 1)
