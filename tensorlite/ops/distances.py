"""Distances and angles between vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import Array, Namespace
from ..errors import ShapeError
from ..scalars import number_in
from .elementwise import clamp
from .half_precision import rounds_once
from .norms import norm, vector_norm
from .reduce import sum
from .shape import broadcast_tensors, unsqueeze

__all__ = ["cdist", "cosine_similarity"]

_BLOCK = 2**18
"""The number of differences to hold at once, if one for each pair of vectors is fewer."""


def _blocks(pairs: int, features: int) -> Iterator[slice]:
    """Yield slices of the features, so that the differences of all pairs in one slice take little memory."""
    step = max(1, _BLOCK // max(pairs, 1))
    return (slice(k, k + step) for k in range(0, features, step))


def _cdist_composite(x1: Value, x2: Value, p: float) -> Value:
    d = unsqueeze(x1, -2) - unsqueeze(x2, -3)
    return vector_norm(d, p, -1) if d.shape[-1] else sum(d, -1)


def _slope(xp: Namespace, d: Array, length: Array, p: float) -> Array:
    """Return the derivative of the p-norm of vectors d whose norm is ``length``."""
    if p == 2:
        return d / length
    if p == 1:
        return xp.sign(d)
    if p == math.inf:
        return xp.where(xp.abs(d) == length, xp.sign(d), xp.zeros_like(d))
    zero = d == 0
    ratio = xp.abs(xp.where(zero, xp.ones_like(d), d)) / length
    return xp.zeros_like(d) if p == 0 else xp.where(zero, xp.zeros_like(d), xp.sign(d) * ratio ** (p - 1))


def _cdist_backward(xp: Namespace, g: Array, x1: Array, x2: Array, out: Array, p: float) -> tuple[Array, Array]:
    """Return the gradients, in blocks of features. Where two vectors are equal, the gradient is 0."""
    first = xp.zeros((*g.shape[:-1], x1.shape[-1]), g.dtype)
    second = xp.zeros((*g.shape[:-2], g.shape[-1], x2.shape[-1]), g.dtype)
    zero = out == 0
    length, factor = xp.where(zero, xp.ones_like(out), out)[..., None], xp.where(zero, xp.zeros_like(g), g)[..., None]
    for part in _blocks(g.size, x1.shape[-1]):
        d = x1[..., :, None, part] - x2[..., None, :, part]
        slope = factor * _slope(xp, d, length, p)
        first[..., part] = xp.sum_over(slope, (slope.ndim - 2,))
        second[..., part] = -xp.sum_over(slope, (slope.ndim - 3,))
    return first, second


@op(backward=_cdist_backward, composite=_cdist_composite, dtypes="floating", widen=True)
def cdist_(xp: Namespace, x1: Array, x2: Array, p: float) -> Array:
    """Return the distances of all pairs of vectors."""
    if x1.ndim < 2 or x2.ndim < 2 or x1.shape[-1] != x2.shape[-1]:
        raise ShapeError(f"expected shapes (..., n, k) and (..., m, k), got {x1.shape} and {x2.shape}")
    if not p >= 0:
        raise ValueError(f"p must be a number from 0 to inf, got {p!r}")
    batch = np.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    out = xp.zeros((*batch, x1.shape[-2], x2.shape[-2]), x1.dtype)
    for part in _blocks(out.size, x1.shape[-1]):
        d = xp.abs(x1[..., :, None, part] - x2[..., None, :, part])
        if p == math.inf:
            out = xp.maximum(out, d.max(axis=-1))
        else:
            powers = (d != 0).astype(d.dtype) if p == 0 else d if p == 1 else d * d if p == 2 else d**p
            out = out + xp.sum_over(powers, (d.ndim - 1,))
    return out if p in (0, 1, math.inf) else xp.sqrt(out) if p == 2 else out ** (1.0 / p)


def cdist(x1: Value, x2: Value, p: float = 2.0, compute_mode: str | None = None) -> Value:
    """Return the distances of all pairs of vectors: the p-norm of ``x1[..., i, :] - x2[..., j, :]`` at (..., i, j).

    x1: n vectors (..., n, k). x2: m vectors (..., m, k). Leading dimensions broadcast.
    p: from 0 to inf. 0 counts the entries that differ.
    compute_mode: accepted as in PyTorch, without effect. The differences are always computed, never from the expansion
        ``(a - b)^2 = a^2 - 2ab + b^2``, which loses digits.

    Returns (..., n, m). Where two vectors are equal, the gradient is 0. Raises ShapeError for shapes that do not fit,
    ValueError for a negative p.
    """
    return cdist_(x1, x2, p)


@rounds_once
def cosine_similarity(x1: Value, x2: Value, dim: int = 1, eps: float = 1e-8) -> Value:
    """Return ``<x1, x2> / (max(|x1|, eps) max(|x2|, eps))`` along ``dim``.

    x1, x2: Tensors that broadcast. The result has their shape without ``dim``.
    """
    x1, x2 = broadcast_tensors(x1, x2)
    # The product of the lengths may overflow.
    first, second = (x / clamp(norm(x, 2, dim, True), number_in("cosine_similarity", "eps", eps)) for x in (x1, x2))
    return sum(first * second, dim)
