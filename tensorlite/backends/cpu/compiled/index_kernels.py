"""Selections, scatters and windows of float32 arrays along one axis, as loops that numba compiles.

An array is taken as (outer, n, inner), where n is the size of the indexed axis. The places (outer, m, inner) are given
flat, with their strides in entries, which may be 0. Each loop checks its places while it reads them, because a pass of
its own takes as long as the selection. ``lowest`` is 0, or -n if negative places count from the end. The form of the
kernels is that of ``kernels.py``; they return whether all places are in range.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .parallel_for import bind_kernel, parallel_for
from .support import ENTRY, INLINE, INNER, copy_float32, njit

__all__ = ["gather", "gather_last", "pool_places", "scatter", "scatter_add"]

Array = Any
f32, i32 = np.float32, np.int32
u64 = np.uint64  # as an index it needs no check for a negative one

_RUN = 128  # values that one entry gets in float32, one after the other; more are added in float64
_GRAIN_SIZE = 1024  # entries, 4 KB


@njit(**INLINE)
def _from_end(k: Any, lowest: int) -> Any:
    """Return a place counted from 0. One out of range is then n or more as an unsigned number."""
    return u64(np.int64(k) - lowest) if np.int64(k) < 0 else k


# ---- selections -----------------------------------------------------------------------------
#
# An outer index has the entries of x, places and out from an offset on. A slice for each of them would cost more than a
# short row.


@njit(**INNER)
def _gather_entries(
    x: Array, at: int, places: Array, first: int, n: int, lowest: int, out: Array, to: int, m: int
) -> bool:  # fmt: skip
    """Write m selected entries of a row, four at a time, because one branch then checks four places."""
    size, base, p, q, one = u64(n), u64(at), u64(first), u64(to), u64(1)
    for _ in range(m // 4):
        a, b, c, d = u64(places[p]), u64(places[p + one]), u64(places[p + u64(2)]), u64(places[p + u64(3)])
        if (a >= size) | (b >= size) | (c >= size) | (d >= size):
            a, b, c, d = _from_end(a, lowest), _from_end(b, lowest), _from_end(c, lowest), _from_end(d, lowest)
            if (a >= size) | (b >= size) | (c >= size) | (d >= size):
                return False
        out[q], out[q + one], out[q + u64(2)], out[q + u64(3)] = x[base + a], x[base + b], x[base + c], x[base + d]
        p, q = p + u64(4), q + u64(4)
    for _ in range(m % 4):
        a = u64(places[p])
        if a >= size:
            a = _from_end(a, lowest)
            if a >= size:
                return False
        out[q] = x[base + a]
        p, q = p + one, q + one
    return True


@njit(**INNER)
def _gather_rows(
    x: Array, at: int, places: Array, first: int, step_inner: int, sizes: Any, lowest: int, out: Array, to: int, m: int
) -> bool:  # fmt: skip
    """Write m selected rows of a matrix; all places of a row are equal if ``step_inner`` is 0."""
    n, _, inner = sizes
    size, width, base, q, p, one = u64(n), u64(inner), u64(at), u64(to), u64(first), u64(1)
    if step_inner == 0:
        source, target = np.int64(x.ctypes.data) + 4 * at, np.int64(out.ctypes.data) + 4 * to
        for j in range(m):
            k = u64(places[p + u64(j)])
            if k >= size:
                k = _from_end(k, lowest)
                if k >= size:
                    return False
            copy_float32(target + 4 * j * inner, source + 4 * np.int64(k) * inner, inner)
        return True
    for _ in range(m):
        for i in range(inner):
            k = u64(places[p])
            if k >= size:
                k = _from_end(k, lowest)
                if k >= size:
                    return False
            out[q] = x[base + k * width + u64(i)]
            p, q = p + one, q + one
    return True


@njit(**INNER)
def gather_range(
    x: Array, places: Array, strides: Any, sizes: Any, lowest: int, out: Array, failed: Array, start: int, stop: int
) -> None:  # fmt: skip
    (n, m, inner), (step_outer, step, step_inner) = sizes, strides
    o, j = start // m, start % m
    while start < stop:  # one part of the range for each outer index
        count, at, first = min(m - j, stop - start), o * n * inner, o * step_outer + j * step
        if inner == 1:
            inside = _gather_entries(x, at, places, first, n, lowest, out, start, count)
        else:
            inside = _gather_rows(x, at, places, first, step_inner, sizes, lowest, out, start * inner, count)
        if not inside:
            failed[0] = True
            return
        start, o, j = start + count, o + 1, 0


@njit(**ENTRY)
def gather(pool: int, x: Array, places: Array, strides: Any, sizes: Any, lowest: int, out: Array) -> bool:
    """Write ``x[o, places[o, j, i], i]`` into ``out``, (outer, m, inner). sizes: n, m and inner."""
    failed, inner = np.zeros(1, np.bool_), sizes[2]
    arguments = (x, places, strides, sizes, lowest, out, failed)
    parallel_for(pool, bind_kernel(gather_range, arguments), out.size // inner, max(1, _GRAIN_SIZE // inner), 1)
    return not failed[0]


# ---- scatters -------------------------------------------------------------------------------


@njit(**INNER)
def _add_at(
    values: Array, first: int, places: Array, first_place: int, step_inner: int, sizes: Any, lowest: int, totals: Array,
    at: int,
) -> bool:  # fmt: skip
    """Add values (m, inner) to totals (n, inner) at their places; return whether all are in range."""
    n, m, inner = sizes
    size, width, base, v, p, one = u64(n), u64(inner), u64(at), u64(first), u64(first_place), u64(1)
    if inner == 1:  # a loop of its own, because the inner loop below is vectorised for many entries
        for _ in range(m):
            k = u64(places[p])
            if k >= size:
                k = _from_end(k, lowest)
                if k >= size:
                    return False
            totals[base + k] += values[v]
            v, p = v + one, p + one
    elif step_inner == 0:
        for j in range(m):
            k = u64(places[first_place + j])
            if k >= size:
                k = _from_end(k, lowest)
                if k >= size:
                    return False
            source, row = values[first + j * inner : first + (j + 1) * inner], at + np.int64(k) * inner
            target = totals[row : row + inner]
            for i in range(inner):
                target[i] += source[i]
    else:
        for _ in range(m):
            for i in range(inner):
                k = u64(places[p])
                if k >= size:
                    k = _from_end(k, lowest)
                    if k >= size:
                        return False
                totals[base + k * width + u64(i)] += values[v]
                v, p = v + one, p + one
    return True


@njit(**INNER)
def scatter_add_range(
    source: Array, places: Array, strides: Any, sizes: Any, lowest: int, out: Array, failed: Array, start: int,
    stop: int,
) -> None:  # fmt: skip
    (n, m, inner), (step_outer, _, step_inner) = sizes, strides
    totals = np.empty(n * inner if m > _RUN else 0)
    for o in range(start, stop):
        first, place, at = o * m * inner, o * step_outer, o * n * inner
        if m <= _RUN:
            inside = _add_at(source, first, places, place, step_inner, sizes, lowest, out, at)
        else:
            totals[:] = 0.0
            inside = _add_at(source, first, places, place, step_inner, sizes, lowest, totals, 0)
        if not inside:
            failed[0] = True
            return
        if m > _RUN:
            target = out[at : at + n * inner]
            for k in range(n * inner):
                target[k] += f32(totals[k])


@njit(**ENTRY)
def scatter_add(pool: int, source: Array, places: Array, strides: Any, sizes: Any, lowest: int, out: Array) -> bool:
    """Add ``source[o, j, i]`` to ``out[o, places[o, j, i], i]``. sizes: n, m and inner."""
    failed, outer = np.zeros(1, np.bool_), source.size // (sizes[1] * sizes[2])
    arguments = (source, places, strides, sizes, lowest, out, failed)
    parallel_for(pool, bind_kernel(scatter_add_range, arguments), outer, 1, 1)
    return not failed[0]


@njit(**INNER)
def scatter_range(
    source: Array, step_source: int, places: Array, strides: Any, sizes: Any, lowest: int, out: Array, failed: Array,
    start: int, stop: int,
) -> None:  # fmt: skip
    (n, m, inner), (step_outer, step, step_inner) = sizes, strides
    size, width, step_v, step_p = u64(n), u64(inner), u64(step_source), u64(step_inner if inner > 1 else step)
    # The rows of several entries are the inner loop, or all rows of one entry.
    rows, columns = (m, inner) if inner > 1 else (1, m)
    for o in range(start, stop):
        at = u64(o * n * inner)
        for j in range(rows):
            v, p = u64((o * rows + j) * columns * step_source), u64(o * step_outer + j * step)
            for i in range(columns):
                k = u64(places[p])
                if k >= size:
                    k = _from_end(k, lowest)
                    if k >= size:
                        failed[0] = True
                        return
                out[at + (k if inner == 1 else k * width + u64(i))] = source[v]
                v, p = v + step_v, p + step_p


@njit(**ENTRY)
def scatter(
    pool: int, source: Array, step_source: int, places: Array, strides: Any, sizes: Any, lowest: int, out: Array
) -> bool:  # fmt: skip
    """Store ``source[o, j, i]`` in ``out[o, places[o, j, i], i]``; the last of several values stays.

    step_source: 1, or 0 for a source of one entry. sizes: n, m and inner.
    """
    failed, outer = np.zeros(1, np.bool_), out.size // (sizes[0] * sizes[2])
    arguments = (source, step_source, places, strides, sizes, lowest, out, failed)
    parallel_for(pool, bind_kernel(scatter_range, arguments), outer, 1, 1)
    return not failed[0]


@njit(**INNER)
def gather_last_range(
    x: Array, places: Array, strides: Any, sizes: Any, lowest: int, out: Array, failed: Array, start: int, stop: int
) -> None:  # fmt: skip
    (n, m, inner), (step_outer, step, step_inner) = sizes, strides
    size, width, one = u64(n), u64(inner), u64(1)
    seen = np.full(n * inner, np.int64(-1))  # for each entry of x, the latest outer index with a place there
    for o in range(start, stop):
        base = u64(o * n * inner)
        for j in range(m - 1, -1, -1):
            v, p = u64((o * m + j) * inner), u64(o * step_outer + j * step)
            for i in range(inner):
                k = u64(places[p])
                if k >= size:
                    k = _from_end(k, lowest)
                    if k >= size:
                        failed[0] = True
                        return
                at = k * width + u64(i)
                value, is_last = x[base + at], seen[at] != o  # both are read, so that there is no branch
                out[v] = value if is_last else f32(0)
                seen[at] = o
                v, p = v + one, p + u64(step_inner)


@njit(**ENTRY)
def gather_last(pool: int, x: Array, places: Array, strides: Any, sizes: Any, lowest: int, out: Array) -> bool:
    """Write the same as :func:`gather`, and 0 where a later j has the same place."""
    failed, outer = np.zeros(1, np.bool_), x.size // (sizes[0] * sizes[2])
    arguments = (x, places, strides, sizes, lowest, out, failed)
    parallel_for(pool, bind_kernel(gather_last_range, arguments), outer, 1, 1)
    return not failed[0]


# ---- windows --------------------------------------------------------------------------------


@njit(**INNER)
def _keep_larger(row: Array, first: int, stride: int, place: int, best: Array, found: Array) -> None:
    """Compare entry ``first + q stride`` of a row with the best of window q, and keep the larger one and its place.

    The loop has no branch, so that it is vectorised. A NaN is the largest.
    """
    for q in range(best.size):
        value, top = row[u64(first + q * stride)], best[q]
        larger = (value > top) | ((value != value) & (top == top))
        best[q] = value if larger else top
        found[q] = i32(place + q * stride) if larger else found[q]


@njit(**INNER)
def _pool_rows(x: Array, windows: Any, places: Array) -> None:
    """Write the places of the largest entries of windows that all lie within an image."""
    (kernel_h, stride_h, _, step_h), (kernel_w, stride_w, _, step_w) = windows
    rows, columns = places.shape
    width = x.shape[1]
    best, found = np.empty(columns, f32), np.empty(columns, i32)
    for p in range(rows):
        for q in range(columns):
            best[q], found[q] = x[p * stride_h, q * stride_w], i32(p * stride_h * width + q * stride_w)
        for a in range(kernel_h):
            h = p * stride_h + a * step_h
            for b in range(0 if a else 1, kernel_w):  # the first entry is there already
                w = b * step_w
                if stride_w == 1:  # a loop for each common stride, because the compiler then loads vectors
                    _keep_larger(x[h], w, 1, h * width + w, best, found)
                elif stride_w == 2:
                    _keep_larger(x[h], w, 2, h * width + w, best, found)
                else:
                    _keep_larger(x[h], w, stride_w, h * width + w, best, found)
        for q in range(columns):
            places[p, q] = found[q]


@njit(**INNER)
def pool_places_range(x: Array, windows: Any, places: Array, start: int, stop: int) -> None:
    (kernel_h, stride_h, pad_h, step_h), (kernel_w, stride_w, pad_w, step_w) = windows
    height, width = x.shape[1:]
    last_h = (places.shape[1] - 1) * stride_h + (kernel_h - 1) * step_h
    last_w = (places.shape[2] - 1) * stride_w + (kernel_w - 1) * step_w
    if pad_h == pad_w == 0 and last_h < height and last_w < width and height * width < 1 << 31:
        for image in range(start, stop):
            _pool_rows(x[image], windows, places[image])
        return
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
