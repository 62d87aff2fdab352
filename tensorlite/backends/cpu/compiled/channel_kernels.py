"""The loops of ``cpu/channel_norms.py`` over float32, which numba compiles: sums of products, and a map of each entry.

A channel is a row, with the entries of one example, or a column, with one entry of each example. The form of the
kernels is that of ``kernels.py``: all arrays are contiguous, and the first argument is a thread pool.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .parallel_for import bind_kernel, parallel_for
from .support import ENTRY, INNER, LOOP, njit

__all__ = ["column_moments", "column_products", "map_columns", "map_rows", "row_products"]

Array = Any
f32 = np.float32

_RUN = 4096  # entries of a row that are added up in float32; the sums of such runs are added in float64
_RUN_ROWS = 128  # rows, likewise: each of their entries is added to another sum, so none is shared by vector lanes
_BLOCK = 512  # columns whose sums stay in the first-level cache

# ---- sums -----------------------------------------------------------------------------------


@njit(**LOOP)
def _products(g: Array, x: Array, middle: Any) -> Any:
    """Return the sums of g and of ``g (x - middle)``."""
    total, product = f32(0), f32(0)
    for j in range(g.size):
        total += g[j]
        product += g[j] * (x[j] - middle)
    return total, product


@njit(**INNER)
def row_products_range(g: Array, x: Array, middles: Array, sums: Array, start: int, stop: int) -> None:
    for i in range(start, stop):
        sums[0, i], sums[1, i] = 0.0, 0.0
        for j in range(0, g.shape[1], _RUN):
            total, product = _products(g[i, j : j + _RUN], x[i, j : j + _RUN], middles[i])
            sums[0, i] += total
            sums[1, i] += product


@njit(**ENTRY)
def row_products(pool: int, g: Array, x: Array, middles: Array, sums: Array) -> None:
    """Write the sums of each row of g and of ``g (x - middle)`` into ``sums``, (2, rows), float64."""
    parallel_for(pool, bind_kernel(row_products_range, (g, x, middles, sums)), len(g), 1, 1)


@njit(**LOOP)
def _add_products(g: Array, x: Array, first: int, less: Array, middle: Array, total: Array, product: Array) -> None:
    """Add the columns of ``g - less`` and of ``(g - less) (x - middle)`` from column ``first`` on to the sums."""
    n = total.size
    for i in range(0, len(g) - 1, 2):  # two rows at a time, so that the sums are read and written less often
        a, b = g[i, first : first + n], g[i + 1, first : first + n]
        c, d = x[i, first : first + n], x[i + 1, first : first + n]
        for j in range(n):
            p, q = a[j] - less[j], b[j] - less[j]
            total[j] += p + q
            product[j] += p * (c[j] - middle[j]) + q * (d[j] - middle[j])
    if len(g) % 2:
        a, c = g[len(g) - 1, first : first + n], x[len(g) - 1, first : first + n]
        for j in range(n):
            p = a[j] - less[j]
            total[j] += p
            product[j] += p * (c[j] - middle[j])


@njit(**INNER)
def column_products_range(
    g: Array, x: Array, less: Array, middle: Array, sums: Array, start: int, stop: int
) -> None:  # fmt: skip
    for first in range(start, stop, _BLOCK):
        last = min(first + _BLOCK, stop)
        total, product = np.empty(last - first, f32), np.empty(last - first, f32)
        for i in range(0, len(g), _RUN_ROWS):
            total[:], product[:] = f32(0), f32(0)
            rows = g[i : i + _RUN_ROWS], x[i : i + _RUN_ROWS]
            _add_products(*rows, first, less[first:last], middle[first:last], total, product)
            for j in range(last - first):
                sums[0, first + j] += total[j]
                sums[1, first + j] += product[j]


@njit(**ENTRY)
def column_products(pool: int, g: Array, x: Array, less: Array, middle: Array, sums: Array) -> None:
    """Add the sums of each column of ``g - less`` and of ``(g - less) (x - middle)`` to ``sums``.

    less, middle: a number for each column. sums: (2, columns), float64.
    """
    parallel_for(pool, bind_kernel(column_products_range, (g, x, less, middle, sums)), g.shape[1], 16, 1)


@njit(**INNER)
def column_moments_range(x: Array, means: Array, rests: Array, squares: Array, start: int, stop: int) -> None:
    n = len(x)
    sums, near = np.zeros((2, x.shape[1])), np.zeros(x.shape[1], f32)
    column_products_range(x, x, near, near, sums, start, stop)
    for _ in range(2):
        far = False
        for j in range(start, stop):
            near[j] = f32(near[j] + sums[0, j] / n)
            sums[0, j], sums[1, j] = 0.0, 0.0
        column_products_range(x, x, near, near, sums, start, stop)
        for j in range(start, stop):
            far |= not sums[0, j] * (sums[0, j] / n) <= 1e-3 * sums[1, j]
        if not far:  # else the first means were not near enough, because of rounding
            break
    for j in range(start, stop):
        less = sums[0, j] / n
        mean = np.float64(near[j]) + less
        square = sums[1, j] - sums[0, j] * less
        means[j], rests[j] = f32(mean), f32(mean - f32(mean))
        squares[j] = f32(0.0 if square < 0.0 else square)  # NaN stays


@njit(**ENTRY)
def column_moments(pool: int, x: Array, means: Array, rests: Array, squares: Array) -> None:
    """Write each column's mean in two parts, rounded and the rest, and its sum of ``(x - mean)^2``."""
    parallel_for(pool, bind_kernel(column_moments_range, (x, means, rests, squares)), x.shape[1], 16, 1)


# ---- maps -----------------------------------------------------------------------------------


@njit(**LOOP)
def map_rows_range(x: Array, g: Array, numbers: Array, out: Array, start: int, stop: int) -> None:
    for i in range(start, stop):
        middle, factor, offset, slope = numbers[0, i], numbers[1, i], numbers[2, i], numbers[3, i]
        row, target = x[i], out[i]
        if g.size:
            other = g[i]
            for j in range(target.size):
                target[j] = (row[j] - middle) * factor + offset + other[j] * slope
        else:
            for j in range(target.size):
                target[j] = (row[j] - middle) * factor + offset


@njit(**ENTRY)
def map_rows(pool: int, x: Array, g: Array, numbers: Array, out: Array) -> None:
    """Write ``(x - middle) factor + offset + g slope``; without the last term if g is empty.

    numbers: middle, factor, offset and slope of each row, (4, rows).
    """
    parallel_for(pool, bind_kernel(map_rows_range, (x, g, numbers, out)), len(x), 1, 1)


@njit(**LOOP)
def map_columns_range(x: Array, g: Array, numbers: Array, out: Array, start: int, stop: int) -> None:
    middle, factor, offset, slope = numbers[0], numbers[1], numbers[2], numbers[3]
    for i in range(start, stop):
        row, target = x[i], out[i]
        if g.size:
            other = g[i]
            for j in range(target.size):
                target[j] = (row[j] - middle[j]) * factor[j] + offset[j] + other[j] * slope[j]
        else:
            for j in range(target.size):
                target[j] = (row[j] - middle[j]) * factor[j] + offset[j]


@njit(**ENTRY)
def map_columns(pool: int, x: Array, g: Array, numbers: Array, out: Array) -> None:
    """Write the same as :func:`map_rows`, for the numbers of each column, (4, columns)."""
    parallel_for(pool, bind_kernel(map_columns_range, (x, g, numbers, out)), len(x), 1, 1)
