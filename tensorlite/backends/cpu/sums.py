"""The kernels of ``reference`` that add up, in the form that is accurate and fast on NumPy arrays.

NumPy adds pairwise along the axis that is contiguous in memory, but one entry after the other along all others. At a
million float32 entries such a sum is off by a percent. So the kernels here add at most ``_RUN`` entries in a row: they
sum blocks of that many, and then the sums of the blocks. A block of contiguous rows is summed by a product with ones,
because BLAS reads memory faster than NumPy's loop over rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...dtypes import accumulate_dtype
from .. import reference
from .blas import one_blas_thread

__all__ = ["embedding_backward", "running_sum", "scatter_add_into", "sum_over", "sum_to"]

Array = Any
XP = Any

_FLOAT32 = np.dtype(np.float32)
_RUN = 128  # entries that are added one after the other; each such run has an error of 1e-6, at most 128 * 6e-8
_NARROW = 96  # columns up to which a product with ones is faster than NumPy's sum of rows
_IN_CACHE = 1 << 22  # entries up to which it is faster for any number of columns
_CUMSUM_RUN = 1024  # entries of a running sum that are added one after the other
_VECTOR_RUN, _MATRIX_RUN = 512, 1 << 15  # products that BLAS adds in one call
_BLOCK = 1 << 15  # entries of a part that stays in the cache
_MAX_ONEHOT = 256  # rows of a table up to which a product with the one-hot matrix is faster than sorting
_SMALL = 1024  # entries up to which no sum is worth a closer look


# ---- sums along axes ------------------------------------------------------------------------


def sum_over(xp: XP, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """Compute the same as the reference, in float32 for float32."""
    dtype = x.dtype
    if dtype is _FLOAT32 or dtype == _FLOAT32:
        if x.size <= _SMALL or (len(axes) == x.ndim and x.flags.c_contiguous):
            return x.sum(axis=axes, keepdims=keepdims)
        return _sum(x, axes, keepdims)
    wide = accumulate_dtype(dtype)
    if wide != dtype:
        return sum_over(xp, x.astype(wide), axes, keepdims).astype(dtype)
    return x.sum(axis=axes, keepdims=keepdims)


def sum_to(xp: XP, x: Array, shape: tuple[int, ...]) -> Array:
    """Compute the same as the reference."""
    lead = x.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(d + lead for d, n in enumerate(shape) if n == 1 and x.shape[d + lead] != 1)
    return np.asarray(sum_over(xp, x, axes)).reshape(shape)


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
    if math.prod(x.shape[a] for a in outer) <= _RUN:
        return x.sum(axis=axes)
    if outer != axes:
        x = x.sum(axis=last)  # pairwise
    axis = max(outer, key=lambda a: x.shape[a])
    rest = tuple(a - (a > axis) for a in outer if a != axis)
    return _sum_ordered(_sum_axis(x, axis), rest) if rest else _sum_axis(x, axis)


def _sum_axis(x: Array, axis: int) -> Array:
    """Return the sum over one axis that is not the fastest in memory."""
    n, lead = x.shape[axis], (slice(None),) * axis
    if n <= _RUN:
        return x.sum(axis=axis)
    whole = n - n % _RUN
    blocks = x[(*lead, slice(whole))].reshape(*x.shape[:axis], whole // _RUN, _RUN, *x.shape[axis + 1 :])
    if axis == x.ndim - 2 and (x.shape[-1] < _NARROW or x.size < _IN_CACHE) and x.strides[-1] == x.itemsize:
        with one_blas_thread:
            partial = np.matmul(np.ones(_RUN, x.dtype), blocks)
    else:
        partial = blocks.sum(axis=axis + 1)
    out = _sum_axis(partial, axis)
    if whole < n:
        out += x[(*lead, slice(whole, None))].sum(axis=axis)
    return out


# ---- running sums ---------------------------------------------------------------------------


def running_sum(xp: XP, x: Array, axis: int) -> Array:
    """Compute the same as the reference: running sums within blocks, to which the sum of the blocks before is added."""
    wide = accumulate_dtype(x.dtype)
    if wide != x.dtype:
        return running_sum(xp, x.astype(wide), axis).astype(x.dtype)
    n, before = x.shape[axis], None
    if x.dtype != _FLOAT32 or n <= _CUMSUM_RUN:
        return np.cumsum(x, axis=axis)
    lead: Any = (slice(None),) * axis
    out: Array = np.empty(x.shape, x.dtype)
    rows = max(1, _BLOCK // max(1, x.size // n) // _CUMSUM_RUN) * _CUMSUM_RUN  # a part stays in the cache
    whole = n - n % _CUMSUM_RUN
    for start in [*range(0, whole, rows), *range(whole, n, _CUMSUM_RUN)]:
        stop = min(start + rows, whole) if start < whole else n
        run = min(_CUMSUM_RUN, stop - start)
        shape = (*x.shape[:axis], (stop - start) // run, run, *x.shape[axis + 1 :])
        part = out[(*lead, slice(start, stop))].reshape(shape)
        np.cumsum(x[(*lead, slice(start, stop))].reshape(shape), axis=axis + 1, out=part)
        sums = part[(*lead, slice(None), -1)].astype(np.float64)
        starts = np.cumsum(sums if before is None else np.concatenate([before, sums], axis), axis=axis)
        if before is not None:
            part += np.expand_dims(starts[(*lead, slice(-1))], axis + 1).astype(x.dtype)
        elif shape[axis] > 1:
            part[(*lead, slice(1, None))] += np.expand_dims(starts[(*lead, slice(-1))], axis + 1).astype(x.dtype)
        before = starts[(*lead, slice(-1, None))]
    return out


# ---- matrix products ------------------------------------------------------------------------


def long_matmul(x: Array, y: Array) -> Array | None:
    """Return ``x @ y`` of float32 arrays, added in parts, if each entry is a long sum; otherwise None.

    BLAS adds the products of a vector and a matrix one after the other, and those of two matrices in blocks of a few
    hundred. The parts are added pairwise, or in float64.
    """
    n = x.shape[-1]
    vector = x.ndim == 1 or y.ndim == 1 or (x.ndim == y.ndim == 2 and 1 in (x.shape[0], y.shape[1]))
    run = _VECTOR_RUN if vector else _MATRIX_RUN
    if n < 2 * run or n != y.shape[max(y.ndim - 2, 0)]:
        return None
    whole = n - n % run
    if x.ndim <= 2 and y.ndim <= 2 and vector:
        left = x[..., :whole].reshape(*x.shape[:-1] or (1,), whole // run, run).swapaxes(0, 1)
        right = y[:whole].reshape(whole // run, run, *y.shape[1:] or (1,))
        out = np.asarray(sum_over(None, np.matmul(left, right), (0,))).reshape((*x.shape[:-1], *y.shape[1:]))
        return np.asarray(out + np.matmul(x[..., whole:], y[whole:]) if whole < n else out)
    total: Array = 0.0
    for start in range(0, n, run):
        part = slice(start, start + run)
        total = total + np.matmul(x[..., part], y[part] if y.ndim == 1 else y[..., part, :]).astype(np.float64)
    return np.asarray(total, x.dtype)


# ---- scatters -------------------------------------------------------------------------------


def scatter_add_into(xp: XP, out: Array, index: Any, source: Array) -> Array:
    """Compute the same as the reference. The values that one entry gets are added in float64."""
    arrays = [a for a in (index if isinstance(index, tuple) else (index,)) if isinstance(a, np.ndarray)]
    hits = max(a.size for a in (source, *arrays))
    if out.dtype.kind != "f" or out.dtype.itemsize > 4 or (hits <= _RUN and out.dtype.itemsize == 4):
        return reference.scatter_add_into(xp, out, index, source)
    total = np.zeros(out.shape)
    if out.ndim == source.ndim == 1 and len(arrays) == 1 and arrays[0].shape == source.shape:
        [places] = arrays
        for start in range(0, hits, _BLOCK):  # in parts, so that the wide numbers stay in the cache
            part = slice(start, start + _BLOCK)
            np.add.at(total, places[part], source[part].astype(np.float64))
    else:
        np.add.at(total, index, source.astype(np.float64))
    if hits * 4 > out.size:
        out += total.astype(np.float32) if out.dtype == np.float32 else total
    else:
        out[index] = out[index] + total[index]  # touches only the memory that gets a value
    return out


def embedding_backward(xp: XP, g: Array, ids: Array, rows: int) -> Array:
    """Compute the same as the reference.

    For few rows it is a product with the one-hot matrix. For many, gradients are sorted by row and each run is summed.
    """
    wide = accumulate_dtype(g.dtype)
    if wide != g.dtype:
        return embedding_backward(xp, g.astype(wide), ids, rows).astype(g.dtype)
    width = g.shape[-1]
    flat, g = ids.reshape(-1), g.reshape(ids.size, width)
    if not g.size:
        return np.zeros((rows, width), g.dtype)
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
    step = min(max(g.size, _BLOCK) // rows, _MATRIX_RUN)
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
    lengths = np.diff(starts, append=len(ids))
    long = lengths.max() > _RUN
    if long:  # parts of the runs first, because NumPy adds the rows one after the other
        starts = np.flatnonzero((np.arange(len(ids)) - np.repeat(starts, lengths)) % _RUN == 0)
    sums = np.add.reduceat(g, starts, axis=0)
    return _sum_runs(sums, ids[starts]) if long else (sums, ids[starts])
