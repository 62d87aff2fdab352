"""Selections, scatters and windows of float32 arrays along one axis, as loops that numba compiles.

An array is taken as (outer, n, inner), where n is the size of the indexed axis. The places (outer, m, inner) are given
flat, with their strides in entries, which may be 0. They are from 0 to n - 1. The form of the kernels is that of
``kernels.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .parallel_for import bind_kernel, parallel_for
from .support import ENTRY, INNER, njit

__all__ = ["gather", "pool_places", "scatter_add"]

Array = Any
f32 = np.float32
u64 = np.uint64  # as an index it needs no check for a negative one

_RUN = 128  # values that one entry gets in float32, one after the other; more are added in float64


@njit(**INNER)
def gather_range(x: Array, places: Array, strides: Any, sizes: Any, out: Array, start: int, stop: int) -> None:
    (n, m, inner), (step_outer, step, step_inner) = sizes, strides
    for o in range(start, stop):
        source, target = x[o * n * inner : (o + 1) * n * inner], out[o * m * inner : (o + 1) * m * inner]
        row = places[o * step_outer : o * step_outer + m * step]
        if inner == 1:
            for j in range(m):
                target[j] = source[u64(row[j])]
        elif step_inner == 0:
            for j in range(m):
                target[j * inner : (j + 1) * inner] = source[row[j] * inner : (row[j] + 1) * inner]
        else:
            for j in range(m):
                for i in range(inner):
                    target[j * inner + i] = source[u64(row[j * inner + i]) * u64(inner) + u64(i)]


@njit(**ENTRY)
def gather(pool: int, x: Array, places: Array, strides: Any, sizes: Any, out: Array) -> None:
    """Write ``x[o, places[o, j, i], i]`` into ``out``, (outer, m, inner). sizes: n, m and inner."""
    outer = out.size // (sizes[1] * sizes[2])
    parallel_for(pool, bind_kernel(gather_range, (x, places, strides, sizes, out)), outer, 1, 1)


@njit(**INNER)
def _add_at(values: Array, places: Array, step_inner: int, inner: int, totals: Array) -> None:
    """Add values (m, inner) to totals (n, inner) at their places."""
    if inner == 1:  # a loop of its own, because the inner loop below is vectorised for many entries
        for j in range(values.size):
            totals[u64(places[j])] += values[j]
    elif step_inner == 0:
        for j in range(values.size // inner):
            first, k = j * inner, places[j] * inner
            for i in range(inner):
                totals[k + i] += values[first + i]
    else:
        for first in range(0, values.size, inner):
            for i in range(inner):
                totals[u64(places[first + i]) * u64(inner) + u64(i)] += values[first + i]


@njit(**INNER)
def scatter_add_range(
    source: Array, places: Array, strides: Any, sizes: Any, out: Array, start: int, stop: int
) -> None:  # fmt: skip
    (n, m, inner), (step_outer, step, step_inner) = sizes, strides
    totals = np.empty(n * inner if m > _RUN else 0)
    for o in range(start, stop):
        values, target = source[o * m * inner : (o + 1) * m * inner], out[o * n * inner : (o + 1) * n * inner]
        row = places[o * step_outer : o * step_outer + m * step]
        if m <= _RUN:
            _add_at(values, row, step_inner, inner, target)
            continue
        totals[:] = 0.0
        _add_at(values, row, step_inner, inner, totals)
        for k in range(n * inner):
            target[k] += f32(totals[k])


@njit(**ENTRY)
def scatter_add(pool: int, source: Array, places: Array, strides: Any, sizes: Any, out: Array) -> None:
    """Add ``source[o, j, i]`` to ``out[o, places[o, j, i], i]``. sizes: n, m and inner."""
    outer = source.size // (sizes[1] * sizes[2])
    parallel_for(pool, bind_kernel(scatter_add_range, (source, places, strides, sizes, out)), outer, 1, 1)


@njit(**INNER)
def pool_places_range(x: Array, windows: Any, places: Array, start: int, stop: int) -> None:
    (kernel_h, stride_h, pad_h, step_h), (kernel_w, stride_w, pad_w, step_w) = windows
    height, width = x.shape[1:]
    for image in range(start, stop):
        for p in range(places.shape[1]):
            for q in range(places.shape[2]):
                best, found = f32(0), np.int64(-1)
                for a in range(kernel_h):
                    h = p * stride_h - pad_h + a * step_h
                    if not 0 <= h < height:
                        continue
                    for b in range(kernel_w):
                        w = q * stride_w - pad_w + b * step_w
                        if not 0 <= w < width:
                            continue
                        value = x[image, h, w]
                        if found < 0 or value > best or (value != value and best == best):
                            best, found = value, h * width + w
                places[image, p, q] = found


@njit(**ENTRY)
def pool_places(pool: int, x: Array, windows: Any, places: Array) -> None:
    """Write where the largest entry of each window of images x is in the flattened image, the first of equal ones.

    windows: for height and width a tuple of the kernel's size, its stride, the padding and the step within a window.
    """
    parallel_for(pool, bind_kernel(pool_places_range, (x, windows, places)), len(x), 1, 1)
