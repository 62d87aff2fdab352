"""Distances between all pairs of float32 vectors, and their gradients, as loops that numba compiles.

Differences are computed, never the expansion ``a^2 - 2ab + b^2``. A tile of 4 times 32 results stays in registers. A
result adds up at most ``_RUN`` terms one after the other, and then the sums of such runs. The form of the kernels is
that of ``kernels.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from .parallel_for import bind_kernel, parallel_for
from .simd import F32x16, f32x16, fma_16, load_16, splat_16, store_16
from .support import ENTRY, INNER, keep_alive, njit

__all__ = ["ABSOLUTE", "COLUMNS", "LARGEST", "SQUARES", "distances", "pulls"]

Array = Any
f32 = np.float32

SQUARES, ABSOLUTE, LARGEST = range(3)
COLUMNS = 32  # of a tile: two vectors
_ROWS = 4  # of a tile
_RUN = 256


def _vector_operation(count: int, build: Callable[..., Any]) -> Any:
    """Make a compiled function of ``count`` vectors."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return build(builder, *args)

    signature = f32x16(*[f32x16] * count)
    if count == 2:
        return intrinsic(lambda context, x, y: (signature, generate))
    return intrinsic(lambda context, x, y, z: (signature, generate))


def _size(builder: Any, x: Any) -> Any:
    minus = builder.fsub(ir.Constant(F32x16, [-0.0] * 16), x)
    return builder.select(builder.fcmp_ordered("<", x, ir.Constant(F32x16, [0.0] * 16)), minus, x)


def _or_nan(builder: Any, total: Any, d: Any) -> Any:
    """Return the larger one, and NaN if one of them is."""
    replaces = builder.or_(builder.fcmp_unordered("uno", d, d), builder.fcmp_ordered(">", d, total))
    return builder.select(replaces, d, total)


def _signed(builder: Any, total: Any, d: Any, weight: Any) -> Any:
    """Return ``total + sign(d) weight``."""
    zero = ir.Constant(F32x16, [0.0] * 16)
    negative = builder.fsub(total, weight)
    with_sign = builder.select(builder.fcmp_ordered("<", d, zero), negative, total)
    return builder.select(builder.fcmp_ordered(">", d, zero), builder.fadd(total, weight), with_sign)


_subtract = _vector_operation(2, lambda builder, x, y: builder.fsub(x, y))
_add_size = _vector_operation(2, lambda builder, total, d: builder.fadd(total, _size(builder, d)))
_keep_size = _vector_operation(2, lambda builder, total, d: _or_nan(builder, total, _size(builder, d)))
_add_signed = _vector_operation(3, _signed)


@njit(**INNER)
def _add(code: int, total: Any, d: Any) -> Any:
    """Return the total with one more difference."""
    if code == SQUARES:
        return fma_16(d, d, total)
    if code == ABSOLUTE:
        return _add_size(total, d)
    return _keep_size(total, d)


@njit(**INNER)
def _distance_tile(code: int, rows: Any, y: int, step: int, k: int, tile: Array) -> None:
    """Write the totals of k differences of four rows from 32 columns, all given by their addresses."""
    r0, r1, r2, r3 = rows
    zero = splat_16(f32(0))
    a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = zero
    for i in range(k):
        y0, y1 = load_16(y + step * i), load_16(y + step * i + 64)
        x = splat_16(r0[i])
        a0, a1 = _add(code, a0, _subtract(x, y0)), _add(code, a1, _subtract(x, y1))
        x = splat_16(r1[i])
        b0, b1 = _add(code, b0, _subtract(x, y0)), _add(code, b1, _subtract(x, y1))
        x = splat_16(r2[i])
        c0, c1 = _add(code, c0, _subtract(x, y0)), _add(code, c1, _subtract(x, y1))
        x = splat_16(r3[i])
        d0, d1 = _add(code, d0, _subtract(x, y0)), _add(code, d1, _subtract(x, y1))
    at = np.int64(tile.ctypes.data)
    for j, vector in enumerate((a0, a1, b0, b1, c0, c1, d0, d1)):
        store_16(at + 64 * j, vector)


@njit(**INNER)
def _fill(code: int, x: Array, y: Array, out: Array, first: int) -> None:
    """Write the distances of four rows from ``first``, or of fewer at the end, from the columns of y."""
    n, k = x.shape
    m = out.shape[1]
    tile = np.empty(_ROWS * COLUMNS, f32)
    last = n - 1
    for j in range(0, m, COLUMNS):
        for start in range(0, max(k, 1), _RUN):
            stop = min(start + _RUN, k)
            rows = (
                x[first, start:stop], x[min(first + 1, last), start:stop], x[min(first + 2, last), start:stop],
                x[min(first + 3, last), start:stop],
            )  # fmt: skip
            _distance_tile(
                code, rows, np.int64(y.ctypes.data) + 4 * (start * y.shape[1] + j), 4 * y.shape[1], stop - start, tile
            )
            for i in range(first, min(first + _ROWS, n)):
                part = tile[(i - first) * COLUMNS : (i - first + 1) * COLUMNS]
                target = out[i, j : j + COLUMNS]
                if start == 0:
                    for c in range(target.size):
                        target[c] = part[c]
                elif code == LARGEST:
                    for c in range(target.size):
                        larger = part[c] > target[c] or part[c] != part[c]
                        target[c] = part[c] if larger else target[c]
                else:
                    for c in range(target.size):
                        target[c] += part[c]
    keep_alive(tile)
    if code == SQUARES:
        for i in range(first, min(first + _ROWS, n)):
            for c in range(m):
                out[i, c] = np.sqrt(out[i, c])


@njit(**INNER)
def distances_range(code: int, x: Array, y: Array, out: Array, start: int, stop: int) -> None:
    groups = -(-x.shape[1] // _ROWS)
    for group in range(start, stop):
        batch, first = group // groups, group % groups * _ROWS
        if code == SQUARES:  # the constants give a loop for each
            _fill(SQUARES, x[batch], y[batch], out[batch], first)
        elif code == ABSOLUTE:
            _fill(ABSOLUTE, x[batch], y[batch], out[batch], first)
        else:
            _fill(LARGEST, x[batch], y[batch], out[batch], first)


@njit(**ENTRY)
def distances(pool: int, code: int, x: Array, y: Array, out: Array) -> None:
    """Write the distances of rows x (B, n, k) from columns y (B, k, at least m, a multiple of 32) into (B, n, m).

    code: SQUARES for the length of the differences, ABSOLUTE for the sum of their sizes, LARGEST for the largest size.
    """
    groups = -(-x.shape[1] // _ROWS)
    parallel_for(pool, bind_kernel(distances_range, (code, x, y, out)), len(x) * groups, 1, 1)


@njit(**INNER)
def _pull(code: int, total: Any, x: Any, y: Any, weight: Any) -> Any:
    d = _subtract(x, y)
    return fma_16(weight, d, total) if code == SQUARES else _add_signed(total, d, weight)


@njit(**INNER)
def _pull_row(code: int, weights: Array, x: Array, y: Array, out: Array) -> None:
    """Write the sum over rows of y of ``weight slope(x - row)``, for one row x."""
    at, step = np.int64(y.ctypes.data), 4 * y.shape[1]
    for c in range(0, x.size, 2 * COLUMNS):
        wide = c + COLUMNS < x.size
        second = COLUMNS if wide else 0
        a, o = np.int64(x.ctypes.data) + 4 * c, np.int64(out.ctypes.data) + 4 * c
        x0, x1, x2, x3 = load_16(a), load_16(a + 64), load_16(a + 4 * second), load_16(a + 4 * second + 64)
        t0 = t1 = t2 = t3 = splat_16(f32(0))
        for first in range(0, weights.size, _RUN):
            s0 = s1 = s2 = s3 = splat_16(f32(0))
            for j in range(first, min(first + _RUN, weights.size)):
                w, row = splat_16(weights[j]), at + step * j + 4 * c
                s0, s1 = _pull(code, s0, x0, load_16(row), w), _pull(code, s1, x1, load_16(row + 64), w)
                if wide:
                    s2 = _pull(code, s2, x2, load_16(row + 128), w)
                    s3 = _pull(code, s3, x3, load_16(row + 192), w)
            one = splat_16(f32(1))
            t0, t1 = fma_16(s0, one, t0), fma_16(s1, one, t1)
            t2, t3 = fma_16(s2, one, t2), fma_16(s3, one, t3)
        store_16(o, t0)
        store_16(o + 64, t1)
        if wide:
            store_16(o + 128, t2)
            store_16(o + 192, t3)


@njit(**INNER)
def pulls_range(code: int, weights: Array, x: Array, y: Array, out: Array, start: int, stop: int) -> None:
    n = x.shape[1]
    for row in range(start, stop):
        batch, i = row // n, row % n
        if code == SQUARES:
            _pull_row(SQUARES, weights[batch, i], x[batch, i], y[batch], out[batch, i])
        else:
            _pull_row(ABSOLUTE, weights[batch, i], x[batch, i], y[batch], out[batch, i])


@njit(**ENTRY)
def pulls(pool: int, code: int, weights: Array, x: Array, y: Array, out: Array) -> None:
    """Write for each row of x (B, n, k) the sum over rows of y (B, m, k) of ``weight slope``, into (B, n, k).

    weights: (B, n, m). slope: the difference for SQUARES, its sign for ABSOLUTE. k is a multiple of 32.
    """
    parallel_for(pool, bind_kernel(pulls_range, (code, weights, x, y, out)), len(x) * x.shape[1], 4, 1)
