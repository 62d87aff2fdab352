"""Distances and angles between vectors."""

from __future__ import annotations

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


def _cdist_composite(x1: Value, x2: Value, p: float) -> Value:
    d = unsqueeze(x1, -2) - unsqueeze(x2, -3)
    return vector_norm(d, p, -1) if d.shape[-1] else sum(d, -1)


@op(
    backward=lambda xp, g, x1, x2, out, p: xp.distances_of_pairs_backward(g, x1, x2, out, p),
    composite=_cdist_composite, dtypes="floating", widen=True,
)  # fmt: skip
def cdist_(xp: Namespace, x1: Array, x2: Array, p: float) -> Array:
    """Return the distances of all pairs of vectors."""
    if x1.ndim < 2 or x2.ndim < 2 or x1.shape[-1] != x2.shape[-1]:
        raise ShapeError(f"expected shapes (..., n, k) and (..., m, k), got {x1.shape} and {x2.shape}")
    if not p >= 0:
        raise ValueError(f"p must be a number from 0 to inf, got {p!r}")
    return xp.distances_of_pairs(x1, x2, p)


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
