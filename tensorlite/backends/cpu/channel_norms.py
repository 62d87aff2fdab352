"""The kernels of ``reference`` that normalise and scale channels, faster for contiguous float32 arrays with numba.

A compiled loop makes one pass for the sums of each channel and one for the result. All else is computed on one number
for each channel of each example, in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import reference
from .compiled_loops import FLOAT32, loops_for, run_loop
from .moments import moments_of_many

__all__ = ["channel_moments", "channel_norm", "channel_norm_backward", "scale_channels", "scale_channels_backward"]

Array = Any
XP = Any
Moments = tuple[Array, Array, Array]

_MIN_ROW = 4  # entries of a channel, from which the loops over rows are faster than NumPy
_EACH = (0, 3)  # the axes over which each channel has one number
_TINY, _HUGE = 1e-15, 1e15  # the square of an inverse deviation between them has all its digits in float32


def _loops(axes: tuple[int, ...], *arrays: Array) -> Any:
    """Return the compiled loops if they take these arrays (N, G, K, S), else None. axes: see ``reference``."""
    if arrays[0].shape[-1] < _MIN_ROW and not (axes[0] == 0 and _is_table(arrays[0])):
        return None
    return loops_for("channel_kernels", *arrays)


def _is_table(x: Array) -> bool:
    """Return whether x (N, G, K, S) has one entry of each channel in an example, so that channels are columns."""
    return bool(x.shape[-1] == 1 == x.shape[2])


def _map(loops: Any, x: Array, g: Array | None, middle: Any, factor: Any, offset: Any, slope: Any = 0.0) -> Array:
    """Return ``(x - middle) factor + offset + g slope``, for numbers that broadcast to (N, G, K, 1)."""
    columns = _is_table(x)
    numbers = np.empty((4, 1 if columns else len(x), *x.shape[1:-1], 1), FLOAT32)
    numbers[0], numbers[1], numbers[2], numbers[3] = middle, factor, offset, slope
    out = np.empty_like(x)
    rows = x.reshape((len(x), -1) if columns else (-1, x.shape[-1]))
    other = rows[:0] if g is None else g.reshape(rows.shape)
    kernel = loops.map_columns if columns else loops.map_rows
    run_loop(kernel, x.size, rows, other, numbers.reshape(4, -1), out.reshape(rows.shape))
    return out


def _products(loops: Any, g: Array, x: Array, middle: Array) -> tuple[Array, Array]:
    """Return the sums of g and of ``g (x - middle)`` over the last axis, float64 (N, G, K, 1).

    Those of a table are added over the examples, too: (1, G, 1, 1).
    """
    if _is_table(x):
        sums, table = np.zeros((2, x.shape[1])), x.reshape(len(x), -1)
        zeros = np.zeros(x.shape[1], FLOAT32)
        run_loop(loops.column_products, x.size, g.reshape(table.shape), table, zeros, middle.reshape(-1), sums)
        return sums[0].reshape(middle.shape), sums[1].reshape(middle.shape)
    shape = (*x.shape[:-1], 1)
    sums, middles = np.empty((2, math.prod(shape))), np.empty(shape, FLOAT32)
    middles[...] = middle
    rows = x.reshape(-1, x.shape[-1])
    run_loop(loops.row_products, x.size, g.reshape(rows.shape), rows, middles.reshape(-1), sums)
    return sums[0].reshape(shape), sums[1].reshape(shape)


def channel_moments(xp: XP, x: Array, axes: tuple[int, ...]) -> Moments:
    """Compute the same as the reference. The deviation is float64, or infinite where squares overflow."""
    loops = _loops(axes, x)
    if loops is not None and _is_table(x):
        middle, rest, squares = np.empty((3, 1, x.shape[1], 1, 1), FLOAT32)
        flat = middle.reshape(-1), rest.reshape(-1), squares.reshape(-1)
        run_loop(loops.column_moments, x.size, x.reshape(len(x), -1), *flat)
    elif loops is None or (moments := moments_of_many(x, axes)) is None:
        return reference.channel_moments(xp, x, axes)
    else:
        squares, middle, rest = moments
    return np.sqrt(squares / np.float64(math.prod([x.shape[a] for a in axes]))), middle, rest


def channel_norm(
    xp: XP, x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...], eps: float,
    moments: Moments | None,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """Compute the same as the reference."""
    loops = _loops(axes, x)
    if loops is None:
        return reference.channel_norm(xp, x, weight, bias, axes, eps, moments)
    deviation, middle, rest = channel_moments(xp, x, axes) if moments is None else moments
    wide = 1.0 / np.sqrt(np.square(deviation, dtype=np.float64) + eps)
    if not _is_usual(wide):
        return reference.channel_norm(xp, x, weight, bias, axes, eps, None)
    factor = wide if weight is None else wide * weight
    offset = -rest * factor if bias is None else bias - rest * factor
    return _map(loops, x, None, middle, factor, offset), middle, rest, wide.astype(FLOAT32)


def _is_usual(rstd: Array) -> bool:
    """Return whether the inverse deviations are numbers of a usual size."""
    return bool(rstd.size and rstd.min() > _TINY and rstd.max() < _HUGE)


def channel_norm_backward(
    xp: XP, g: Array, x: Array, weight: Array | None, middle: Array, rest: Array, rstd: Array, axes: tuple[int, ...]
) -> tuple[Array, Array, Array]:
    """Compute the same as the reference."""
    loops = _loops(axes, x, g)
    if loops is None or not _is_usual(rstd):
        return reference.channel_norm_backward(xp, g, x, weight, middle, rest, rstd, axes)
    total, product = _products(loops, g, x, middle)
    wide = rstd.astype(np.float64)
    product = (product - rest * total) * wide  # the sum of g (x - mean) / deviation
    dweight, dbias = product.sum(_EACH, keepdims=True), total.sum(_EACH, keepdims=True)
    count = math.prod(x.shape[a] for a in axes)
    scale = 1.0 if weight is None else weight.astype(np.float64)
    mean, mean_product = (np.sum(a * scale, axis=axes, keepdims=True) / count for a in (total, product))
    slope = -wide * wide * mean_product
    dx = _map(loops, x, g, middle, slope, -wide * mean - rest * slope, wide * scale)
    return dx, dweight.astype(FLOAT32), dbias.astype(FLOAT32)


def scale_channels(xp: XP, x: Array, shift: Array, factor: Array, offset: Array) -> Array:
    """Compute the same as the reference."""
    loops = _loops(_EACH, x)
    return (reference.scale_channels(xp, x, shift, factor, offset) if loops is None
            else _map(loops, x, None, shift, factor, offset))  # fmt: skip


def scale_channels_backward(
    xp: XP, g: Array, x: Array, shift: Array, factor: Array
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """Compute the same as the reference."""
    loops = _loops(_EACH, x, g)
    if loops is None:
        return reference.scale_channels_backward(xp, g, x, shift, factor)
    total, product = (a.sum(_EACH, keepdims=True).astype(FLOAT32) for a in _products(loops, g, x, shift))
    return _map(loops, g, None, 0.0, factor, 0.0), -factor * total, product, total
