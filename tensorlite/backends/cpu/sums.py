"""The kernels of ``reference`` that add up, in the form that is accurate and fast on NumPy arrays.

NumPy adds pairwise along the axis that is contiguous in memory, but one entry after the other along all others. At a
million float32 entries such a sum is off by a percent. So the kernels here add at most ``_RUN`` entries in a row: they
sum blocks of that many, and then the sums of the blocks. With numba, ``compiled/sum_kernels.py`` does so in one pass.
Without it, a block of contiguous rows is summed by a product with ones, because BLAS reads memory faster than NumPy's
loop over rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...dtypes import accumulate_dtype, cast_array, is_floating
from .. import reference
from .blas import one_blas_thread
from .compiled_loops import loops_for
from .compiled_sums import FLOAT32, run_sum, sums_for
from .indexing import along_axis

__all__ = ["embedding_backward", "running_sum", "scatter_add_into", "sum_over", "sum_to"]

Array = Any
XP = Any

_RUN = 128  # entries that are added one after the other, a few times as many at the end; the error is about 1e-6
_MIN_ROWS = 16  # rows from which a product with ones is faster than NumPy's sum of rows
_NARROW = 96  # columns up to which a product with ones is faster than NumPy's sum of rows
_ONE_THREAD = 9216  # entries of a matrix up to which OpenBLAS multiplies it with a vector in one thread
_IN_CACHE = 1 << 22  # entries up to which it is faster for any number of columns
_FEW = 32  # entries of a row up to which NumPy's loop over rows takes longer than one over columns
_STEPS = 8  # entries of a running sum that are added one after the other
_SHORT_RUN, _LONG_RUN = 512, 1 << 12  # products that BLAS adds in one call, for one vector or a large matrix
_SMALL_PRODUCT = 1 << 12  # entries of a product that are few enough to keep one for each run
_BLOCK = 1 << 15  # entries of a part that stays in the cache
_WIDE_BLOCK = 1 << 16  # the same, where a part is read and written several times
_MAX_ONEHOT = 256  # rows of a table up to which a product with the one-hot matrix is faster than sorting
_ROW = 1 << 12  # entries of a part of a sum over all
_SMALL = 1024  # entries up to which no sum is worth a closer look


# ---- sums along axes ------------------------------------------------------------------------


def sum_over(xp: XP, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """Compute the same as the reference, in float32 for float32."""
    dtype = x.dtype
    if dtype is FLOAT32 or dtype == FLOAT32:
        if x.size <= _SMALL:
            return x.sum(axis=axes, keepdims=keepdims)
        if x.flags.c_contiguous:
            count, ndim = len(axes), x.ndim
            if count == ndim or (count == 1 and axes[0] == ndim - 1) or _are_last(axes, ndim):
                return _sum_last(x, axes, keepdims)
            if count == 1 and ndim == 2:
                return _sum_axis(x, 0).reshape((1, x.shape[1]) if keepdims else x.shape[1:])
        if math.prod(x.shape[a] for a in axes) <= 4 * _RUN and not x.flags.c_contiguous:
            return x.sum(axis=axes, keepdims=keepdims)
        return _sum(x, axes, keepdims)
    wide = accumulate_dtype(dtype)
    if wide != dtype:
        return sum_over(xp, cast_array(x, wide), axes, keepdims).astype(dtype)
    return x.sum(axis=axes, keepdims=keepdims)


def sum_to(xp: XP, x: Array, shape: tuple[int, ...]) -> Array:
    """Compute the same as the reference."""
    lead = x.ndim - len(shape)
    if len(shape) == 1 and lead > 0 and x.shape[-1] == shape[0] > 0 and x.flags.c_contiguous:
        rows = x.reshape(-1, shape[0])  # the gradient of a bias
        return _sum_axis(rows, 0) if x.dtype == FLOAT32 and x.size > _SMALL else sum_over(xp, rows, (0,))
    axes = tuple(range(lead)) + tuple(d + lead for d, n in enumerate(shape) if n == 1 and x.shape[d + lead] != 1)
    return np.asarray(sum_over(xp, x, axes)).reshape(shape)


def _are_last(axes: tuple[int, ...], ndim: int) -> bool:
    """Return whether the axes are the last of an array, in their order."""
    return len(axes) > 0 and axes == tuple(range(ndim - len(axes), ndim))


def _sum_last(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """Return the sum of a contiguous array over its last axes, or over all."""
    compiled = sums_for(x)
    if compiled is None:
        return x.sum(axis=axes, keepdims=keepdims)  # pairwise
    if len(axes) < x.ndim:
        rows, tail = x.reshape(-1, math.prod(x.shape[a] for a in axes)), None
    else:  # in rows, so that threads share them
        flat, whole = x.reshape(-1), x.size - x.size % _ROW
        rows, tail = flat[:whole].reshape(-1, _ROW), flat[whole:]
    sums: Array = np.empty(len(rows))
    run_sum(compiled.row_sums, x.size, rows, sums)
    if tail is not None:
        sums = np.add.reduce(sums) + np.add.reduce(tail, dtype=np.float64)
    kept = [1 if d in axes else n for d, n in enumerate(x.shape) if keepdims or d not in axes]
    return np.asarray(sums, x.dtype).reshape(kept)


def _sum(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """Return the sum of a float32 array over some of its axes."""
    shape, strides = x.shape, x.strides
    order = [d for d in range(x.ndim) if shape[d] != 1]
    if not x.flags.c_contiguous:
        order.sort(key=lambda d: -abs(strides[d]))  # the order of memory, the slowest axis first
    factor = 1
    if not all(strides[d] for d in order):  # the array is broadcast: its entries along such an axis are equal
        flat = [d for d in order if d in axes and not strides[d]]
        factor = math.prod(shape[d] for d in flat)
        order = [d for d in order if d not in flat]
    sizes: list[int] = []
    reduced: list[int] = []
    for k, d in enumerate(order):
        before = order[k - 1]
        if k and (d in axes) == (before in axes) and strides[before] == strides[d] * shape[d]:
            sizes[-1] *= shape[d]  # merges the two axes
            continue
        if d in axes:
            reduced.append(len(sizes))
        sizes.append(shape[d])
    y = x[tuple(slice(None) if d in order else 0 for d in range(x.ndim))] if len(order) < x.ndim else x
    places = [d for d in range(x.ndim) if d in order]
    out = _sum_ordered(y.transpose([places.index(d) for d in order]).reshape(sizes), tuple(reduced))
    kept = [d for d in order if d not in axes]
    if kept != sorted(kept):
        out = out.reshape([shape[d] for d in kept]).transpose([kept.index(d) for d in sorted(kept)])
    wanted = [1 if d in axes else n for d, n in enumerate(shape) if keepdims or d not in axes]
    return np.multiply(out, factor, dtype=x.dtype).reshape(wanted) if factor != 1 else out.reshape(wanted)


def _sum_ordered(x: Array, axes: tuple[int, ...]) -> Array:
    """Return the sum over some axes of an array whose axes are in the order of its memory, the slowest first."""
    last = x.ndim - 1
    outer = axes[:-1] if axes and axes[-1] == last else axes
    if outer != axes and sums_for(x):
        return _sum_ordered(_sum_last(x, (last,), False), outer) if outer else _sum_last(x, (last,), False)
    if math.prod(x.shape[a] for a in outer) <= 4 * _RUN:
        return x.sum(axis=axes)
    if outer != axes:
        x = x.sum(axis=last)  # pairwise
    axis = max(outer, key=lambda a: x.shape[a])
    rest = tuple(a - (a > axis) for a in outer if a != axis)
    return _sum_ordered(_sum_axis(x, axis), rest) if rest else _sum_axis(x, axis)


def _sum_axis(x: Array, axis: int) -> Array:
    """Return the sum over one axis that is not the fastest in memory."""
    n, lead = x.shape[axis], (slice(None),) * axis
    if axis == 0 and x.ndim == 2 and x.shape[1] and n >= _MIN_ROWS and (compiled := sums_for(x)):
        out: Array = np.empty(x.shape[1], x.dtype)
        run_sum(compiled.sum_rows, x.size // 32, x.reshape(-1), out)  # one core reads memory nearly as fast as all
        return out
    by_blas = axis == x.ndim - 2 and (x.shape[-1] < _NARROW or x.size < _IN_CACHE) and x.strides[-1] == x.itemsize
    if n <= (8 if by_blas else 4) * _RUN:  # BLAS adds four rows at a time
        return _sum_rows(x) if by_blas and n >= _MIN_ROWS else x.sum(axis=axis)
    whole = n - n % _RUN
    blocks = x[(*lead, slice(whole))].reshape(*x.shape[:axis], whole // _RUN, _RUN, *x.shape[axis + 1 :])
    out = _sum_axis(_sum_rows(blocks) if by_blas else blocks.sum(axis=axis + 1), axis)
    if whole < n:
        out += _sum_axis(x[(*lead, slice(whole, None))], axis)
    return out


def _sum_rows(x: Array) -> Array:
    """Return the sum over the last axis but one, as a product with ones."""
    n, width = x.shape[-2:]
    ones = np.ones(n, x.dtype)
    if n * width <= _ONE_THREAD:
        return np.matmul(ones, x)
    with one_blas_thread:
        return np.matmul(ones, x)


# ---- running sums ---------------------------------------------------------------------------


def running_sum(xp: XP, x: Array, axis: int) -> Array:
    """Compute the same as the reference.

    The sums are added in float64. NumPy waits for each sum before it adds the next entry. So runs of ``_STEPS`` entries
    are summed at the same time, and then the sums of the runs are added to them.
    """
    wide = accumulate_dtype(x.dtype)
    if wide != x.dtype:
        return running_sum(xp, x.astype(wide), axis).astype(x.dtype)
    n = x.shape[axis]
    if x.dtype != FLOAT32 or n <= _RUN:
        return _short_running_sum(x) if 1 < n <= _FEW < x.size // n and axis == x.ndim - 1 else np.cumsum(x, axis=axis)
    compiled = sums_for(x)
    if compiled is None and x.size <= _BLOCK // 2:
        return np.cumsum(x, axis=axis, dtype=np.float64).astype(x.dtype)
    out: Array = np.empty(x.shape, x.dtype)
    shape = (math.prod(x.shape[:axis]), n, math.prod(x.shape[axis + 1 :]))
    source, target = x.reshape(shape), out.reshape(shape)
    if compiled is not None:
        run_sum(compiled.running_sum, x.size, source, target)
        return out
    rows = max(1, _WIDE_BLOCK // (n * shape[2]))
    for row in range(0, shape[0], rows):
        _running_sum_into(target[row : row + rows], source[row : row + rows])
    return out


def _short_running_sum(x: Array) -> Array:
    """Return the running sums of rows of few entries, column by column."""
    out: Array = np.empty(x.shape, x.dtype)
    n = x.shape[-1]
    rows, sums = x.reshape(-1, n), out.reshape(-1, n)
    step = _BLOCK // n
    for start in range(0, len(rows), step):
        block, part = rows[start : start + step], sums[start : start + step]
        part[:, 0] = block[:, 0]
        for k in range(1, n):
            np.add(part[:, k - 1], block[:, k], out=part[:, k])
    return out


def _running_sum_into(out: Array, x: Array) -> None:
    """Write the running sums of x (rows, n, columns) along its second axis into ``out``."""
    rows, n, columns = x.shape
    before: Array = np.zeros((rows, 1, columns))
    whole = n - n % _STEPS
    size = max(1, _WIDE_BLOCK // (rows * columns * _STEPS)) * _STEPS  # so that a part stays in the cache
    # Few columns one by one, because NumPy's inner loop would be over them.
    each = [(..., c) for c in range(columns)] if columns < _STEPS else [(...,)]
    for start in range(0, whole, size):
        stop = min(start + size, whole)
        shape = (rows, (stop - start) // _STEPS, _STEPS, columns)
        y, o = x[:, start:stop].reshape(shape), out[:, start:stop].reshape(shape)
        o[:, :, 0] = y[:, :, 0]
        for j in range(1, _STEPS):
            for c in each:
                np.add(o[:, :, j - 1][c], y[:, :, j][c], out=o[:, :, j][c])
        sums = np.cumsum(np.concatenate([before, o[:, :, -1]], 1), axis=1)
        for c in each:
            o[c] += sums[:, :-1, None][c].astype(x.dtype)
        before = sums[:, -1:]
    if whole < n:
        out[:, whole:] = before + np.cumsum(x[:, whole:], axis=1)


# ---- matrix products ------------------------------------------------------------------------


def _sizes_of_product(x: Array, y: Array) -> tuple[int, int, int]:
    """Return the rows and columns of ``x @ y``, and how many products BLAS adds well enough in one call."""
    height, width = math.prod(x.shape[-2:-1]), 1 if y.ndim == 1 else y.shape[-1]
    short = (height != 1 or width != 1) if height * width <= _SMALL_PRODUCT else (height == 1) != (width == 1)
    return height, width, _SHORT_RUN if short else _LONG_RUN


def is_long_product(x: Array, y: Array) -> bool:
    """Return whether :func:`long_matmul` adds the product of two matrices in parts."""
    return bool(x.shape[-1] > 4 * _sizes_of_product(x, y)[2])


def long_matmul(xp: XP, x: Array, y: Array) -> Array | None:
    """Return ``x @ y`` of float32 arrays, added in parts, if each entry is a long sum; otherwise None.

    BLAS adds the products of a vector and a matrix one after the other, and those of two matrices in blocks of a few
    hundred. The parts are added pairwise, or in float64.
    """
    height, width, run = _sizes_of_product(x, y)
    n, small = x.shape[-1], height * width <= _SMALL_PRODUCT
    if n <= 4 * run or n != y.shape[max(y.ndim - 2, 0)]:
        return None
    if small:
        rows, columns = (x[None] if x.ndim == 1 else x), (y[:, None] if y.ndim == 1 else y)
        whole = n - n % run
        left = rows[..., :whole].reshape(*rows.shape[:-1], whole // run, run)
        right = columns[..., :whole, :].reshape(*columns.shape[:-2], whole // run, run, width)
        left, right = np.moveaxis(left, -2, 0), np.moveaxis(right, -3, 0)
        if 1 in (height, width):
            parts = np.matmul(left, right)
        else:
            with one_blas_thread:  # because each product is small
                parts = np.matmul(left, right)
        out = np.asarray(sum_over(None, parts, (0,)))
        if whole < n:
            out = out + np.matmul(rows[..., whole:], columns[..., whole:, :])
        out = out[..., 0] if y.ndim == 1 else out
        return out if x.ndim > 1 else out[..., 0] if y.ndim == 1 else out[..., 0, :]
    total: Array = 0.0
    for start in range(0, n, run):
        part = slice(start, start + run)
        total = total + xp.matmul(x[..., part], y[part] if y.ndim == 1 else y[..., part, :]).astype(np.float64)
    return np.asarray(total, x.dtype)


# ---- scatters -------------------------------------------------------------------------------


def scatter_add_into(xp: XP, out: Array, index: Any, source: Array) -> Array:
    """Compute the same as the reference. The values that one entry gets are added in float64."""
    arrays = [a for a in (index if isinstance(index, tuple) else (index,)) if isinstance(a, np.ndarray)]
    hits = max(a.size for a in (source, *arrays))
    if _scatter_along_axis(out, index, source):
        return out
    if not is_floating(out.dtype) or out.dtype.itemsize > 4 or (hits <= _RUN and out.dtype.itemsize == 4):
        return reference.scatter_add_into(xp, out, index, source)
    if _are_rows(out, index, source):
        [ids] = arrays
        out += embedding_backward(xp, source, ids, len(out), True).reshape(out.shape)
        return out
    total = np.zeros(out.shape)
    if out.ndim == source.ndim == 1 and len(arrays) == 1 and arrays[0].shape == source.shape:
        [places] = arrays
        for start in range(0, hits, _BLOCK):  # in parts, so that the wide numbers stay in the cache
            part = slice(start, start + _BLOCK)
            np.add.at(total, places[part], source[part].astype(np.float64))
    else:
        np.add.at(total, index, source.astype(np.float64))
    if hits * 4 > out.size:
        out[...] = out + (total.astype(np.float32) if out.dtype == np.float32 else total)
    else:
        out[index] = out[index] + total[index]  # touches only the memory that gets a value
    return out


def _scatter_along_axis(out: Array, index: Any, source: Array) -> bool:
    """Compute ``out[index] += source`` by a compiled loop along one axis; return whether that was possible."""
    loops = loops_for("index_kernels", source, out)
    found = None if loops is None or _are_rows(out, index, source) else along_axis(out.shape, index)
    if found is None or found.shape != source.shape or (found.sizes[1] > _RUN and 4 * source.size < out.size):
        return False
    return bool(run_sum(loops.scatter_add, 4 * source.size, source.reshape(-1), *found[:4], out.reshape(-1)))


def _are_rows(out: Array, index: Any, source: Array) -> bool:
    """Return whether whole rows are added, by a compiled loop: the rows of a matrix at a vector of indices."""
    ids = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    if not isinstance(ids, np.ndarray) or ids.dtype.kind != "i" or ids.ndim != 1 or source.ndim != 2 or out.ndim != 2:
        return False
    if source.shape != (ids.size, out.shape[1]) or 4 * source.size < out.size or not sums_for(source):
        return False
    return bool(-len(out) <= ids.min() and ids.max() < len(out))  # else NumPy raises


def embedding_backward(xp: XP, g: Array, ids: Array, rows: int, negative: bool = False) -> Array:
    """Compute the same as the reference.

    Without numba it is a product with the one-hot matrix for few rows. For many, gradients are sorted by row and each
    run is summed.
    """
    wide = accumulate_dtype(g.dtype)
    if wide != g.dtype:
        return cast_array(embedding_backward(xp, cast_array(g, wide), ids, rows, negative), g.dtype)
    width = g.shape[-1]
    flat, g = ids.reshape(-1), g.reshape(ids.size, width)
    if not g.size:
        return np.zeros((rows, width), g.dtype)
    if compiled := sums_for(g):
        out: Array = np.zeros((rows, width), g.dtype)
        places = np.ascontiguousarray(flat, np.int64)
        if run_sum(compiled.embedding_backward, 4 * g.size, g, places, -rows if negative else 0, out):
            return out
    if negative:
        flat = flat % rows
    if rows <= _MAX_ONEHOT:
        out = _onehot_product(xp, g, flat, rows)
        if np.isfinite(out).all():  # 0 times infinity is NaN in the rows of other ids
            return out
    order = np.argsort(flat, kind="stable")
    sums, ids = _sum_runs(g[order], flat[order])
    out = np.zeros((rows, width), g.dtype)
    out[ids] = sums
    return out


def _onehot_product(xp: XP, g: Array, ids: Array, rows: int) -> Array:
    """Return the sums of the rows of g with each id, as a product with a matrix that has no more entries than g."""
    n = len(ids)
    step = min(max(g.size, _BLOCK) // rows, _LONG_RUN)
    total: Array = None
    for start in range(0, n, step):
        part = ids[start : start + step]
        onehot = np.zeros((rows, len(part)), g.dtype)
        onehot[part, np.arange(len(part))] = 1
        product = xp.matmul(onehot, g[start : start + step])
        if step >= n:
            return product
        total = product.astype(np.float64) if total is None else total + product
    return total.astype(g.dtype)


def _sum_runs(g: Array, ids: Array) -> tuple[Array, Array]:
    """Return the sums of the rows of g with equal ids, and these ids. The ids are sorted."""
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    parts = -(-np.diff(starts, append=len(ids)) // _RUN)
    long = parts.max() > 1
    if long:  # parts of the runs first, because NumPy adds the rows one after the other
        first = np.repeat(starts - _RUN * (np.cumsum(parts) - parts), parts)
        starts = first + _RUN * np.arange(len(first))
    sums = np.add.reduceat(g, starts, axis=0)
    return _sum_runs(sums, ids[starts]) if long else (sums, ids[starts])
