"""Sliding products of an array and a kernel, which convolutions compute.

There are three: the product itself, and its gradients for the array and for the kernel. Each is linear in both of its
arguments, and the gradients of each are the other two. So the gradient can be differentiated to any order.

Shapes: x (N, G, C, *S), weight (G, O, C, *K), result (N, G, O, *P), for N examples, G groups, C channels in and O out
of a group, and P = (S - dilation (K - 1) - 1) // stride + 1 positions in each dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from ..autograd.function import op
from ..backends.registry import Array, Namespace

__all__ = ["correlate", "correlate_input", "correlate_weight"]

_BLOCK = 1 << 19  # entries of the copied windows: 2 MB of float32, which the cache holds

Ints = Sequence[int]
Block = tuple[slice, slice]  # of the examples, and of the positions in the first dimension


def _positions(sizes: Ints, kernel: Ints, stride: Ints, dilation: Ints) -> tuple[int, ...]:
    return tuple((s - d * (k - 1) - 1) // t + 1 for s, k, t, d in zip(sizes, kernel, stride, dilation, strict=True))


def _blocks(n: int, window: int, positions: Ints) -> Iterator[Block]:
    """Split examples, and large examples along the first dimension, so that the windows of a block fit the cache.

    window: the number of entries that a position reads.
    """
    row = window * math.prod(positions[1:])
    rows = max(1, min(positions[0], _BLOCK // max(row, 1)))
    examples = max(1, _BLOCK // max(row * positions[0], 1)) if rows == positions[0] else 1
    for start in range(0, n, examples):
        for first in range(0, positions[0], rows):
            yield slice(start, min(start + examples, n)), slice(first, min(first + rows, positions[0]))


def _entries(offset: Ints, rows: slice, positions: Ints, stride: Ints, dilation: Ints) -> tuple[Any, ...]:
    """Return the index of the entries that one element of the kernel meets at the positions of a block."""
    ranges = [(rows.start, rows.stop), *((0, p) for p in positions[1:])]
    parts = [
        slice(k * d + start * t, k * d + (stop - 1) * t + 1, t)
        for k, d, t, (start, stop) in zip(offset, dilation, stride, ranges, strict=True)
    ]
    return (slice(None), slice(None), slice(None), *parts)


def _windows(
    xp: Namespace, x: Array, kernel: Ints, positions: Ints, block: Block, stride: Ints, dilation: Ints
) -> Array:  # fmt: skip
    """Return a copy of what the kernel meets in a block, as matrices (G, C K, examples times positions)."""
    examples, rows = block
    part = x[examples]
    n, groups, channels = part.shape[:3]
    sizes = (rows.stop - rows.start, *positions[1:])
    windows = xp.empty((groups, channels, math.prod(kernel), n, *sizes), x.dtype)
    for i, offset in enumerate(product(*map(range, kernel))):
        entries = part[_entries(offset, rows, positions, stride, dilation)]
        windows[:, :, i] = xp.moveaxis(entries, 0, 2)
    return windows.reshape(groups, channels * math.prod(kernel), n * math.prod(sizes))


def _as_columns(xp: Namespace, g: Array, block: Block) -> Array:
    """Return a block of a result as matrices (G, O, examples times positions)."""
    part = xp.moveaxis(g[block[0]][:, :, :, block[1]], 0, 2)
    return part.reshape(*part.shape[:2], math.prod(part.shape[2:]))


@op(
    lambda g, weight, in_shape, stride, dilation: correlate_input(g, weight, in_shape, stride, dilation),
    lambda g, x, in_shape, stride, dilation: correlate_weight(g, x, in_shape, stride, dilation),
    dtypes="same", widen=True,
)
def correlate(xp: Namespace, x: Array, weight: Array, stride: Ints, dilation: Ints) -> Array:
    """Return ``y[n, g, o, p] = sum_ck x[n, g, c, stride p + dilation k] weight[g, o, c, k]``."""
    n, groups, outs, kernel = len(x), weight.shape[0], weight.shape[1], weight.shape[3:]
    positions = _positions(x.shape[3:], kernel, stride, dilation)
    y = xp.zeros((n, groups, outs, *positions), x.dtype)
    matrix = weight.reshape(groups, outs, math.prod(weight.shape[2:]))
    for block in _blocks(n, math.prod(weight.shape) // max(outs, 1), positions):
        part = xp.matmul(matrix, _windows(xp, x, kernel, positions, block, stride, dilation))
        out = y[block[0]][:, :, :, block[1]]
        out[...] = xp.moveaxis(part.reshape(groups, outs, len(out), *out.shape[3:]), 2, 0)
    return y


@op(
    lambda g, weight, stride, dilation: correlate(g, weight, stride, dilation),
    lambda g, y, in_shape, stride, dilation: correlate_weight(y, g, in_shape, stride, dilation),
    dtypes="same", widen=True,
)
def correlate_input(
    xp: Namespace, y: Array, weight: Array, shape: Ints, stride: Ints, dilation: Ints
) -> Array:  # fmt: skip
    """Return the gradient of :func:`correlate` for x, of this shape, given that of its result.

    It is also the transposed convolution of y: entry ``stride p + dilation k`` of the result gets
    ``sum_o y[n, g, o, p] weight[g, o, c, k]``.
    """
    (groups, outs, channels), kernel = weight.shape[:3], weight.shape[3:]
    x = xp.zeros(tuple(shape), y.dtype)
    matrix = xp.moveaxis(weight.reshape(groups, outs, channels * math.prod(kernel)), 1, 2)
    for block in _blocks(len(y), math.prod(weight.shape) // max(outs, 1), y.shape[3:]):
        columns = _as_columns(xp, y, block)
        examples, rows = block
        sizes = (rows.stop - rows.start, *y.shape[4:])
        part = xp.matmul(matrix, columns)
        part = part.reshape(groups, channels, math.prod(kernel), examples.stop - examples.start, *sizes)
        out = x[examples]
        for i, offset in enumerate(product(*map(range, kernel))):
            out[_entries(offset, rows, y.shape[3:], stride, dilation)] += xp.moveaxis(part[:, :, i], 2, 0)
    return x


@op(
    lambda g, x, stride, dilation: correlate(x, g, stride, dilation),
    lambda g, y, in_shape, stride, dilation: correlate_input(y, g, in_shape, stride, dilation),
    dtypes="same", widen=True,
)
def correlate_weight(
    xp: Namespace, y: Array, x: Array, shape: Ints, stride: Ints, dilation: Ints
) -> Array:  # fmt: skip
    """Return the gradient of :func:`correlate` for the weight, of this shape, given x and that of the result."""
    groups, outs, kernel = shape[0], shape[1], shape[3:]
    matrix = xp.zeros((groups, outs, math.prod(shape[2:])), y.dtype)
    for block in _blocks(len(x), math.prod(shape) // max(outs, 1), y.shape[3:]):
        windows = _windows(xp, x, kernel, y.shape[3:], block, stride, dilation)
        matrix += xp.matmul(_as_columns(xp, y, block), xp.moveaxis(windows, 1, 2))
    return matrix.reshape(tuple(shape))

