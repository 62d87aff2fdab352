"""The sums of ``cpu/sums.py`` as loops over float32, which numba compiles to machine code.

A sum is added in float32 for at most ``_RUN`` entries, the sums of such runs in float64. One thread adds each result,
in the order of its entries, so the bits do not depend on the number of threads.

The form of the kernels is that of ``kernels.py``: all arrays are contiguous, and the first argument is a thread pool.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .parallel_for import bind_kernel, parallel_for
from .support import ENTRY, INNER, LOOP, njit

__all__ = ["embedding_backward", "row_moments", "row_squares", "row_sums", "running_sum", "sum_rows"]

Array = Any
f32 = np.float32

_RUN = 128  # entries that are added one after the other
_ROW_RUN = 4096  # entries of a row that the lanes of a vector share
_FOLDED = 64  # columns up to which rows are joined, because a loop over few columns is not vectorised
_BLOCK = 2048  # columns whose sums stay in the first-level cache

# ---- sums of rows ---------------------------------------------------------------------------


@njit(**INNER)
def _add_rows(x: Array, width: int, part: Array, row: int, stop: int, column: int) -> None:
    """Write the sums of rows ``row`` to ``stop`` into ``part``, which begins at a column. x is flat."""
    n = part.size
    part[:] = f32(0)
    while row + 4 <= stop:  # four at a time, so that the sums are read and written less often
        i = row * width + column
        a, b = x[i : i + n], x[i + width : i + width + n]
        c, d = x[i + 2 * width : i + 2 * width + n], x[i + 3 * width : i + 3 * width + n]
        for j in range(n):
            part[j] += (a[j] + b[j]) + (c[j] + d[j])
        row += 4
    while row < stop:
        a = x[row * width + column : row * width + column + n]
        for j in range(n):
            part[j] += a[j]
        row += 1


@njit(**INNER)
def sum_rows_range(x: Array, width: int, totals: Array, start: int, stop: int) -> None:
    n = x.size // width
    for column in range(start, stop, _BLOCK):
        total = totals[column : min(column + _BLOCK, stop)]
        part = np.empty(total.size, f32)
        for row in range(0, n, _RUN):
            _add_rows(x, width, part, row, min(row + _RUN, n), column)
            for j in range(total.size):
                total[j] += part[j]


@njit(**ENTRY)
def sum_rows(pool: int, x: Array, out: Array) -> None:
    """Write the sum of the rows of x, a flat array, into ``out``, (width,)."""
    width = out.size
    joined = max(1, _FOLDED // width)
    wide = joined * width
    whole = x.size - x.size % wide
    totals = np.zeros(wide)
    parallel_for(pool, bind_kernel(sum_rows_range, (x[:whole], wide, totals)), wide, 16, 1)
    for i in range(whole, x.size):
        totals[(i - whole) % width] += x[i]
    for j in range(width):
        total = totals[j]
        for k in range(1, joined):
            total += totals[k * width + j]
        out[j] = f32(total)


@njit(**INNER)
def embedding_backward_range(g: Array, order: Array, starts: Array, out: Array, start: int, stop: int) -> None:
    n = out.shape[1]
    part, total = np.empty(n, f32), np.empty(n)
    for row in range(start, stop):
        y, first, last = out[row], starts[row], starts[row + 1]
        if last - first == 1:
            x = g[order[first]]
            for j in range(n):
                y[j] += x[j]
            continue
        if last - first > _RUN:
            total[:] = 0.0
        for run in range(first, last, _RUN):
            x = g[order[run]]
            for j in range(n):
                part[j] = x[j]
            for k in range(run + 1, min(run + _RUN, last)):
                x = g[order[k]]
                for j in range(n):
                    part[j] += x[j]
            if last - first > _RUN:
                for j in range(n):
                    total[j] += part[j]
        if last - first > _RUN:
            for j in range(n):
                y[j] += f32(total[j])
        elif last > first:
            for j in range(n):
                y[j] += part[j]


@njit(**ENTRY)
def embedding_backward(pool: int, g: Array, ids: Array, lowest: int, out: Array) -> bool:
    """Add row k of g to row ``ids[k]`` of ``out``, if all ids are rows of it; return whether they are.

    lowest: 0, or minus the number of rows if negative ids count from the end.
    """
    rows, n = len(out), ids.size
    starts = np.zeros(rows + 1, np.int64)  # the place of each row's first id, when the ids are in order
    for k in range(n):
        row = ids[k]
        if not lowest <= row < rows:
            return False
        starts[(row + rows if row < 0 else row) + 1] += 1
    for row in range(rows):
        starts[row + 1] += starts[row]
    order, place = np.empty(n, np.int64), starts[:rows].copy()
    for k in range(n):
        row = ids[k] + rows if ids[k] < 0 else ids[k]
        order[place[row]] = k
        place[row] += 1
    parallel_for(pool, bind_kernel(embedding_backward_range, (g, order, starts, out)), rows, 1, 4)
    return True


# ---- running sums ---------------------------------------------------------------------------


@njit(**INNER)
def running_sum_range(x: Array, out: Array, start: int, stop: int) -> None:
    _, n, columns = x.shape
    totals = np.empty(columns)
    for row in range(start, stop):
        if columns == 1:
            total, a, b = 0.0, x[row].reshape(n), out[row].reshape(n)
            for i in range(n):
                total += a[i]
                b[i] = f32(total)
            continue
        totals[:] = 0.0
        for i in range(n):
            a, b = x[row, i], out[row, i]
            for j in range(columns):
                totals[j] += a[j]
                b[j] = f32(totals[j])


@njit(**ENTRY)
def running_sum(pool: int, x: Array, out: Array) -> None:
    """Write the running sums of x (rows, n, columns) along its second axis into ``out``."""
    parallel_for(pool, bind_kernel(running_sum_range, (x, out)), len(x), 1, 1)


# ---- moments --------------------------------------------------------------------------------



@njit(**LOOP)
def _sum_less(x: Array, mean: Any) -> Any:
    """Return the sum of ``x - mean``."""
    total = f32(0)
    for j in range(x.size):
        total += x[j] - mean
    return total


@njit(**LOOP)
def _sum_squares(x: Array, mean: Any) -> Any:
    """Return the sum of ``(x - mean)^2``."""
    total = f32(0)
    for j in range(x.size):
        d = x[j] - mean
        total += d * d
    return total


_SUM_RUN = 1024  # entries of a row, likewise; each lane adds 16 of them, as NumPy's pairwise sum does


@njit(**INNER)
def row_sums_range(x: Array, sums: Array, start: int, stop: int) -> None:
    n = x.shape[1]
    for i in range(start, stop):
        if n <= _SUM_RUN:
            sums[i] = _sum_less(x[i], f32(0))
            continue
        total = 0.0
        for j in range(0, n, _SUM_RUN):
            total += _sum_less(x[i, j : j + _SUM_RUN], f32(0))
        sums[i] = total


@njit(**ENTRY)
def row_sums(pool: int, x: Array, sums: Array) -> None:
    """Write each row's sum into ``sums``, float64."""
    parallel_for(pool, bind_kernel(row_sums_range, (x, sums)), len(x), 1, 1)


@njit(**LOOP)
def _moments_about(x: Array, near: Any) -> Any:
    """Return the sums of ``x - near`` and of its squares."""
    total, square = f32(0), f32(0)
    for j in range(x.size):
        d = x[j] - near
        total += d
        square += d * d
    return total, square


@njit(**INNER)
def row_moments_range(x: Array, means: Array, rests: Array, squares: Array, start: int, stop: int) -> None:
    n = x.shape[1]
    for i in range(start, stop):
        total = 0.0
        for j in range(0, n, _ROW_RUN):
            total += _sum_less(x[i, j : j + _ROW_RUN], f32(0))
        mean = total / n
        for _ in range(2):
            near, less, square = f32(mean), 0.0, 0.0
            for j in range(0, n, _ROW_RUN):
                part, part_square = _moments_about(x[i, j : j + _ROW_RUN], near)
                less += part
                square += part_square
            mean = np.float64(near) + less / n
            shift = less * (less / n)
            if shift <= 1e-3 * square:  # else the first mean was not near enough, because of rounding
                break
        near = f32(mean)
        square -= shift
        means[i], rests[i] = near, f32(mean - near)
        squares[i] = f32(0.0 if square < 0.0 else square)  # NaN stays


@njit(**ENTRY)
def row_moments(pool: int, x: Array, means: Array, rests: Array, squares: Array) -> None:
    """Write each row's mean in two parts, rounded and the rest, and its sum of ``(x - mean)^2``."""
    parallel_for(pool, bind_kernel(row_moments_range, (x, means, rests, squares)), len(x), 1, 1)


@njit(**INNER)
def row_squares_range(x: Array, squares: Array, start: int, stop: int) -> None:
    for i in range(start, stop):
        square = 0.0
        for j in range(0, x.shape[1], _ROW_RUN):
            square += _sum_squares(x[i, j : j + _ROW_RUN], f32(0))
        squares[i] = f32(square)


@njit(**ENTRY)
def row_squares(pool: int, x: Array, squares: Array) -> None:
    """Write each row's sum of squares."""
    parallel_for(pool, bind_kernel(row_squares_range, (x, squares)), len(x), 1, 1)
