"""Sums and products of a float32 matrix and a row or a column, and of a column and a row, as loops that numba compiles.

NumPy starts its loop anew for each row. The form of the kernels is that of ``elementwise_kernels.py``.
"""

from __future__ import annotations

from typing import Any

from .parallel_for import bind_kernel, parallel_for
from .support import ENTRY, INNER, njit

__all__ = ["ADD", "MULTIPLY", "outer", "with_column", "with_row"]

Array = Any

ADD, MULTIPLY = range(2)


@njit(**INNER)
def with_row_range(code: int, x: Array, y: Array, out: Array, start: int, stop: int) -> None:
    for i in range(start, stop):
        row, target = x[i], out[i]
        if code == ADD:
            for j in range(target.size):
                target[j] = row[j] + y[j]
        else:
            for j in range(target.size):
                target[j] = row[j] * y[j]


@njit(**ENTRY)
def with_row(pool: int, code: int, x: Array, y: Array, out: Array) -> None:
    """Write the sum or the product of each row of x (n, m) and y (m,)."""
    parallel_for(pool, bind_kernel(with_row_range, (code, x, y, out)), len(x), 1, 1)


@njit(**INNER)
def with_column_range(code: int, x: Array, y: Array, out: Array, start: int, stop: int) -> None:
    for i in range(start, stop):
        row, number, target = x[i], y[i], out[i]
        if code == ADD:
            for j in range(target.size):
                target[j] = row[j] + number
        else:
            for j in range(target.size):
                target[j] = row[j] * number


@njit(**ENTRY)
def with_column(pool: int, code: int, x: Array, y: Array, out: Array) -> None:
    """Write the sum or the product of each row of x (n, m) and its number in y (n,)."""
    parallel_for(pool, bind_kernel(with_column_range, (code, x, y, out)), len(x), 1, 1)


@njit(**INNER)
def outer_range(x: Array, y: Array, out: Array, start: int, stop: int) -> None:
    for i in range(start, stop):
        number, target = x[i], out[i]
        for j in range(target.size):
            target[j] = number * y[j]


@njit(**ENTRY)
def outer(pool: int, x: Array, y: Array, out: Array) -> None:
    """Write ``x[i] y[j]`` into (n, m)."""
    parallel_for(pool, bind_kernel(outer_range, (x, y, out)), len(x), 1, 1)
