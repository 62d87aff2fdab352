"""Ops on the channels of an array (N, C, ...): their normalisation, and a factor and an offset for each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import Array, Namespace
from ..errors import ShapeError
from .elementwise import rsqrt
from .reduce import mean
from .shape import reshape

__all__ = ["normalize_channels", "scale_channels"]


def _sizes(shape: Sequence[int], groups: int | None) -> tuple[int, int, int, int]:
    """Return the shape (N, C, ...) as (N, G, K, S): examples, groups, channels of a group, entries of a channel."""
    n, channels = shape[:2]
    groups = channels if groups is None else groups
    return n, groups, channels // groups if groups else 1, math.prod(shape[2:])


def _axes(groups: int | None) -> tuple[int, ...]:
    """Return the axes of the entries that are normalised together."""
    return (0, 2, 3) if groups is None else (2, 3)


def _of_channels(values: Array | None, sizes: tuple[int, int, int, int]) -> Array | None:
    """Return numbers of channels (C,) as (1, G, K, 1). Raises ShapeError for another shape."""
    if values is None:
        return None
    channels = sizes[1] * sizes[2]
    if values.shape != (channels,):
        raise ShapeError(f"expected numbers of {channels} channels, ({channels},), got shape {values.shape}")
    return values.reshape(1, *sizes[1:3], 1)


def _normalize_composite(
    x: Value, weight: Value, bias: Value, groups: int | None, eps: float, moments: Any
) -> Value:  # fmt: skip
    sizes, axes = _sizes(x.shape, groups), _axes(groups)
    centred = reshape(x, sizes)
    centred = centred - mean(centred, axes, True)
    centred = centred - mean(centred, axes, True)  # what the rounding of a large mean left
    y = centred * rsqrt(mean(centred * centred, axes, True) + eps)
    y = y if weight is None else y * reshape(weight, (1, *sizes[1:3], 1))
    y = y if bias is None else y + reshape(bias, (1, *sizes[1:3], 1))
    return reshape(y, x.shape)


def _normalize_backward(
    xp: Namespace, g: Array, x: Array, weight: Array | None, middle: Array, rest: Array, rstd: Array,
    groups: int | None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    sizes = _sizes(x.shape, groups)
    dx, dweight, dbias = xp.channel_norm_backward(
        g.reshape(sizes), x.reshape(sizes), _of_channels(weight, sizes), middle, rest, rstd, _axes(groups)
    )
    return dx.reshape(x.shape), dweight.reshape(-1), dbias.reshape(-1)


@op(
    backward=_normalize_backward,
    composite=_normalize_composite,
    aux=("middle", "rest", "rstd"),
    dtypes="floating", widen=True,
)  # fmt: skip
def normalize_channels(
    xp: Namespace, x: Array, weight: Array | None = None, bias: Array | None = None, groups: int | None = None,
    eps: float = 1e-5, moments: list[Array] | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    """Return ``(x - mean) / sqrt(variance + eps) * weight + bias`` for x (N, C, ...), weight (C,) and bias (C,).

    groups: the number of groups of channels, each of which has a mean and a variance in each example. With None each
        channel has them, over the batch.
    moments: a list that gets the standard deviation and the mean in two parts, (1 or N, G, 1, 1), or None.

    The further results are the mean in two parts, and ``1 / sqrt(variance + eps)``.
    Source: Ioffe and Szegedy, "Batch Normalization", 2015; Wu and He, "Group Normalization", 2018.
    """
    sizes = _sizes(x.shape, groups)
    scales = _of_channels(weight, sizes), _of_channels(bias, sizes)
    found = xp.channel_moments(x.reshape(sizes), _axes(groups))
    if moments is not None:
        moments[:] = found
    y, *rest = xp.channel_norm(x.reshape(sizes), *scales, _axes(groups), eps, found)
    return y.reshape(x.shape), *rest


def _scale_composite(x: Value, shift: Value, factor: Value, offset: Value) -> Value:
    shape = (-1, *(1,) * (len(x.shape) - 2))
    return (x - reshape(shift, shape)) * reshape(factor, shape) + reshape(offset, shape)


def _scale_backward(xp: Namespace, g: Array, x: Array, shift: Array, factor: Array) -> tuple[Array, ...]:
    sizes = _sizes(x.shape, None)
    dx, *gradients = xp.scale_channels_backward(
        g.reshape(sizes), x.reshape(sizes), _of_channels(shift, sizes), _of_channels(factor, sizes)
    )
    return dx.reshape(x.shape), *(a.reshape(-1) for a in gradients)


@op(backward=_scale_backward, composite=_scale_composite, dtypes="floating", widen=True)
def scale_channels(xp: Namespace, x: Array, shift: Array, factor: Array, offset: Array) -> Array:
    """Return ``(x - shift) * factor + offset`` for x (N, C, ...) and a number for each channel, (C,)."""
    sizes = _sizes(x.shape, None)
    numbers = (_of_channels(a, sizes) for a in (shift, factor, offset))
    return xp.scale_channels(x.reshape(sizes), *numbers).reshape(x.shape)
