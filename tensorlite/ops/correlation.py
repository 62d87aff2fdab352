"""Sliding products of an array and a kernel, which convolutions compute.

There are three: the product itself, and its gradients for the array and for the kernel. Each is linear in both of its
arguments, and the gradients of each are the other two. So the gradient can be differentiated to any order.

Shapes: x (N, G, C, *S), weight (G, O, C, *K), result (N, G, O, *P), for N examples, G groups, C channels in and O out
of a group, and P = (S + 2 padding - dilation (K - 1) - 1) // stride + 1 positions in each dimension. padding: the
number of zeros at both ends of each dimension; () is none.

The CPU computes float32 with few channels in a group in loops without a copy of the windows (``direct_correlate`` and
the like). Otherwise the windows are copied block by block, and a block is a product of matrices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from ..autograd.function import op
from ..backends.registry import Array, Namespace
from ..dtypes import DType, accumulate_dtype, cast_array
from .reduce import sum

__all__ = ["correlate", "correlate_input", "correlate_weight"]

_BLOCK = 1 << 19  # entries of the copied windows: 2 MB of float32, which the cache holds

Ints = Sequence[int]
Block = tuple[slice, tuple[slice, ...]]  # of the examples, and of the positions in each dimension


def _positions(sizes: Ints, kernel: Ints, stride: Ints, dilation: Ints) -> tuple[int, ...]:
    return tuple((s - d * (k - 1) - 1) // t + 1 for s, k, t, d in zip(sizes, kernel, stride, dilation, strict=True))


def _padded(xp: Namespace, x: Array, padding: Ints) -> Array:
    """Return a copy of x with zeros at both ends of its last dimensions, or x if there are none to add."""
    if not any(padding):
        return x
    sizes = [n + 2 * p for n, p in zip(x.shape[3:], padding, strict=True)]
    wide = xp.zeros((*x.shape[:3], *sizes), x.dtype)
    wide[_inner(padding)] = x
    return wide


def _inner(padding: Ints) -> tuple[Any, ...]:
    """Return the index of the entries of a padded array that are not padding."""
    return (..., *(slice(p, -p if p else None) for p in padding))


def _blocks(n: int, window: int, positions: Ints) -> Iterator[Block]:
    """Split examples, and the positions of large ones, so that the windows of a block fit the cache.

    window: the number of entries that a position reads.
    """
    room = max(1, _BLOCK // max(window, 1))  # positions
    lengths = []
    for size in reversed(positions):
        lengths.append(max(1, min(size, room)))
        room = room // max(size, 1) if room >= size else 1
    parts = [_parts(size, length) for size, length in zip(positions, reversed(lengths), strict=True)]
    for block in product(_parts(n, max(1, room)), *parts):
        yield block[0], block[1:]


def _parts(n: int, length: int) -> list[slice]:
    return [slice(start, min(start + length, n)) for start in range(0, n, length)]


def _meetings(kernel: Ints, places: Sequence[slice], stride: Ints, dilation: Ints) -> Iterator[tuple[Any, Any, int]]:
    """Yield which windows (G, C, *kernel, N, *positions) are which entries (N, G, C, *sizes), in the fewest parts.

    A part is one element of the kernel at all positions of a block, or the whole kernel at one position. It is the
    index of the windows, that of the entries, and the place of the examples among the dimensions of these windows.
    """
    every, steps = slice(None), list(zip(kernel, places, stride, dilation, strict=True))
    if math.prod(kernel) <= math.prod(_sizes(places)):
        for offset in product(*map(range, kernel)):
            parts = [
                slice(k * d + place.start * t, k * d + (place.stop - 1) * t + 1, t)
                for k, (_, place, t, d) in zip(offset, steps, strict=True)
            ]
            yield (every, every, *offset), (every, every, every, *parts), 2
        return
    for at in product(*map(range, _sizes(places))):
        starts = [(place.start + i) * t for i, (_, place, t, _) in zip(at, steps, strict=True)]
        parts = [
            slice(start, start + (k - 1) * d + 1, d) for start, (k, _, _, d) in zip(starts, steps, strict=True)
        ]
        yield (..., *at), (every, every, every, *parts), -1


def _windows(
    xp: Namespace, x: Array, kernel: Ints, block: Block, stride: Ints, dilation: Ints
) -> Array:  # fmt: skip
    """Return a copy of what the kernel meets in a block, as matrices (G, C K, examples times positions)."""
    examples, places = block
    part = x[examples]
    n, groups, channels = part.shape[:3]
    sizes = _sizes(places)
    windows = xp.empty((groups, channels, *kernel, n, *sizes), x.dtype)
    for index, entries, to in _meetings(kernel, places, stride, dilation):
        windows[index] = xp.moveaxis(part[entries], 0, to)
    return windows.reshape(groups, channels * math.prod(kernel), n * math.prod(sizes))


def _sizes(places: Sequence[slice]) -> tuple[int, ...]:
    return tuple(place.stop - place.start for place in places)


def _of_block(y: Array, block: Block) -> Array:
    """Return a view of the entries of a result at the positions of a block."""
    return y[(block[0], slice(None), slice(None), *block[1])]


def _as_columns(xp: Namespace, g: Array, block: Block) -> Array:
    """Return a block of a result as matrices (G, O, examples times positions)."""
    part = xp.moveaxis(_of_block(g, block), 0, 2)
    return part.reshape(*part.shape[:2], math.prod(part.shape[2:]))


def _products(xp: Namespace, x: Array, y: Array, dtype: DType) -> Array:
    """Return ``x @ y`` in a dtype, that of x or the one in which its numbers are added, for one matrix of each group.

    A single group is one product of matrices, which threads share.
    """
    multiply = xp.matmul if dtype == x.dtype else xp.wide_matmul
    return multiply(x[0], y[0])[None] if len(x) == 1 else multiply(x, y)


def _in_dtype(x: Array, dtype: DType) -> Array:
    return x if x.dtype == dtype else cast_array(x, dtype)


@op(
    lambda g, weight, in_shape, stride, dilation, padding, given_dtype: correlate_input(
        g, weight, in_shape, stride, dilation, padding, given_dtype),
    lambda g, x, in_shape, stride, dilation, padding, given_dtype: correlate_weight(
        g, x, in_shape, stride, dilation, padding, given_dtype),
    lambda g: sum(g, (0, *range(3, g.ndim))),
    dtypes="same", widen=True,
)
def correlate(
    xp: Namespace, x: Array, weight: Array, bias: Array | None, stride: Ints, dilation: Ints, padding: Ints = (),
    out_dtype: DType | None = None,
) -> Array:  # fmt: skip
    """Return ``y[n, g, o, p] = bias[g, o] + sum_ck x[n, g, c, stride p + dilation k - padding] weight[g, o, c, k]``.

    bias: (G, O), or None for zeros.
    out_dtype: the dtype of the result; None is that of x.
    """
    n, groups, outs, kernel = len(x), weight.shape[0], weight.shape[1], weight.shape[3:]
    padding = padding or (0,) * len(kernel)
    sizes = [size + 2 * p for size, p in zip(x.shape[3:], padding, strict=True)]
    positions = _positions(sizes, kernel, stride, dilation)
    found = xp.direct_correlate(x, weight, bias, stride, dilation, padding, positions)
    if found is not None:
        return _in_dtype(found, out_dtype or x.dtype)
    x = _padded(xp, x, padding)
    y = xp.zeros((n, groups, outs, *positions), out_dtype or x.dtype)
    matrix = weight.reshape(groups, outs, math.prod(weight.shape[2:]))
    for block in _blocks(n, math.prod(weight.shape) // max(outs, 1), positions):
        part = _products(xp, matrix, _windows(xp, x, kernel, block, stride, dilation), y.dtype)
        out = _of_block(y, block)
        out[...] = xp.moveaxis(part.reshape(groups, outs, len(out), *out.shape[3:]), 2, 0)
    if bias is not None:
        y += bias.reshape(groups, outs, *(1,) * len(kernel))
    return y


@op(
    lambda g, weight, stride, dilation, padding, given_dtype: correlate(
        g, weight, None, stride, dilation, padding, given_dtype),
    lambda g, y, in_shape, stride, dilation, padding, given_dtype: correlate_weight(
        y, g, in_shape, stride, dilation, padding, given_dtype), dtypes="same", widen=True,
)
def correlate_input(
    xp: Namespace, y: Array, weight: Array, shape: Ints, stride: Ints, dilation: Ints, padding: Ints = (),
    out_dtype: DType | None = None,
) -> Array:  # fmt: skip
    """Return the gradient of :func:`correlate` for x, of this shape, given that of its result.

    It is also the transposed convolution of y: entry ``stride p + dilation k - padding`` of the result
    gets
    ``sum_o y[n, g, o, p] weight[g, o, c, k]``.
    """
    (groups, outs, channels), kernel = weight.shape[:3], weight.shape[3:]
    padding = padding or (0,) * len(kernel)
    found = xp.direct_correlate_input(y, weight, shape, stride, dilation, padding)
    if found is not None:
        return _in_dtype(found, out_dtype or y.dtype)
    sizes = [size + 2 * p for size, p in zip(shape[3:], padding, strict=True)]
    x = xp.zeros((*shape[:3], *sizes), accumulate_dtype(y.dtype))
    matrix = xp.moveaxis(weight.reshape(groups, outs, channels * math.prod(kernel)), 1, 2)
    for block in _blocks(len(y), math.prod(weight.shape) // max(outs, 1), y.shape[3:]):
        columns = _as_columns(xp, y, block)
        examples, places = block
        part = _products(xp, matrix, columns, x.dtype)
        part = part.reshape(groups, channels, *kernel, examples.stop - examples.start, *_sizes(places))
        out = x[examples]
        for index, entries, to in _meetings(kernel, places, stride, dilation):
            out[entries] += xp.moveaxis(part[index], to, 0)
    return _in_dtype(x[_inner(padding)], out_dtype or y.dtype)


@op(
    lambda g, x, stride, dilation, padding, given_dtype: correlate(
        x, g, None, stride, dilation, padding, given_dtype),
    lambda g, y, in_shape, stride, dilation, padding, given_dtype: correlate_input(
        y, g, in_shape, stride, dilation, padding, given_dtype), dtypes="same", widen=True,
)
def correlate_weight(
    xp: Namespace, y: Array, x: Array, shape: Ints, stride: Ints, dilation: Ints, padding: Ints = (),
    out_dtype: DType | None = None,
) -> Array:  # fmt: skip
    """Return the gradient of :func:`correlate` for the weight, of this shape, given x and that of the result."""
    groups, outs, kernel = shape[0], shape[1], shape[3:]
    padding = padding or (0,) * len(kernel)
    found = xp.direct_correlate_weight(y, x, shape, stride, dilation, padding)
    if found is not None:
        return _in_dtype(found, out_dtype or y.dtype)
    x = _padded(xp, x, padding)
    matrix = xp.zeros((groups, outs, math.prod(shape[2:])), accumulate_dtype(y.dtype))
    for block in _blocks(len(x), math.prod(shape) // max(outs, 1), y.shape[3:]):
        windows = _windows(xp, x, kernel, block, stride, dilation)
        matrix += _products(xp, _as_columns(xp, y, block), xp.moveaxis(windows, 1, 2), matrix.dtype)
    return _in_dtype(matrix.reshape(tuple(shape)), out_dtype or y.dtype)
