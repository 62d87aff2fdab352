"""Norms of vectors, and of matrices.

dim: one dimension, several, or None for all. A negative one counts from the end.
keepdim: keep the reduced dimensions, with size 1.

Raises IndexError if a dimension is out of range, ValueError if it is named twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import Array, Namespace
from ..dtypes import DTypeLike
from ..errors import ShapeError
from ..scalars import as_number, flag_in, ints_in, number_in
from .arguments import Dim, all_or_dims_in, numpy_names, shape_of
from .elementwise import abs, convert, pow, sign, where
from .factorizations import svdvals
from .reduce import amax, amin, sum
from .shape import broadcast_to, movedim, reshape, unsqueeze

__all__ = ["norm"]

# ---- values ---------------------------------------------------------------------------------


def _scaled_sum(xp: Namespace, sizes: Array, axes: tuple[int, ...], order: float) -> Array:
    """Return ``sum(sizes**order)**(1/order)``, which does not overflow before the norm itself does."""
    if not math.prod(sizes.shape[a] for a in axes):
        return xp.sum_over(sizes, axes, True)
    top = (sizes.max if order > 0 else sizes.min)(axis=axes, keepdims=True)
    top = xp.where((top > 0) & xp.isfinite(top), top, xp.ones_like(top))
    return top * xp.sum_over((sizes / top) ** order, axes, True) ** (1.0 / order)


_VALUES: dict[float, Callable[[Namespace, Array, tuple[int, ...]], Array]] = {
    0.0: lambda xp, x, axes: xp.sum_over((x != 0).astype(x.dtype), axes, True),
    1.0: lambda xp, x, axes: xp.sum_over(xp.abs(x), axes, True),
    2.0: lambda xp, x, axes: xp.root_sum_squares(x, axes, True),
    math.inf: lambda xp, x, axes: xp.abs(x).max(axis=axes, keepdims=True),
    -math.inf: lambda xp, x, axes: xp.abs(x).min(axis=axes, keepdims=True),
}
"""The norms that have a formula of their own, by their order."""


def _norm(xp: Namespace, x: Array, order: float, dim: Dim, keepdim: bool) -> Array:
    axes = all_or_dims_in("", dim, x.ndim)
    if (order < 0 or order == math.inf) and not math.prod(x.shape[a] for a in axes):
        raise ShapeError(f"a norm of order {order} needs at least one entry along dim {axes}, got shape {x.shape}")
    wide = xp.abs(x) if x.dtype.kind == "c" else x
    value = _VALUES.get(order)
    out = _scaled_sum(xp, xp.abs(wide), axes, order) if value is None else value(xp, wide, axes)
    return out if keepdim else out.reshape([n for d, n in enumerate(x.shape) if d not in axes])


# ---- gradients ------------------------------------------------------------------------------


def _nonzero(x: Value) -> tuple[Value, Value]:
    """Return where x is 0, and x with ones there."""
    zero = x == 0
    return zero, where(zero, 1.0, x)


def _two_norm_gradient(g: Value, x: Value, out: Value, axes: tuple[int, ...]) -> Value:
    zero, length = _nonzero(out)
    return where(zero, 0.0, g) * (x / length)  # x * (g / length) vanishes where x is large and g is small


def _extreme_gradient(g: Value, x: Value, out: Value, axes: tuple[int, ...]) -> Value:
    """Return the gradient of the largest or smallest ``|x|``. Equal entries share it, and so do NaNs."""
    hit = (abs(x) == out) | (x != x)
    ties = convert(sum(hit, axes, True), g.dtype, None) if axes else 1.0
    return sign(x) * where(hit, g / ties, 0.0)


def _power_norm_gradient(g: Value, x: Value, out: Value, order: float) -> Value:
    """Return ``g sign(x) (|x| / out)**(order - 1)``, and 0 where x or the norm is 0."""
    flat, (none, length) = x == 0, _nonzero(out)
    if order < 0:  # an infinite entry among others changes nothing
        flat = flat | ((abs(x) == math.inf) & (out < math.inf))
    safe = where(flat, 1.0, x)
    ratio = where(flat | none, 0.0, pow(abs(safe) / length, order - 1))  # a small number to a negative power is inf
    return g * sign(x) * ratio


_GRADIENTS: dict[float, Callable[[Value, Value, Value, tuple[int, ...]], Value]] = {
    0.0: lambda g, x, out, axes: broadcast_to(where(out == out, 0.0, g), x.shape),
    1.0: lambda g, x, out, axes: g * sign(x),
    2.0: _two_norm_gradient,
    math.inf: _extreme_gradient,
    -math.inf: _extreme_gradient,
}
"""The gradients of the norms in ``_VALUES``. ``g`` and ``out`` have the reduced dimensions, with size 1."""


def _gradient(g: Value, x: Value, out: Value, in_shape: Sequence[int], order: Any, dim: Dim) -> Value:
    axes = all_or_dims_in("", dim, len(in_shape))
    kept = tuple(1 if d in axes else n for d, n in enumerate(in_shape))
    g, out, order = reshape(g, kept), reshape(out, kept), float(order)
    rule = _GRADIENTS.get(order)
    return _power_norm_gradient(g, x, out, order) if rule is None else rule(g, x, out, axes)


# ---- norms of vectors -----------------------------------------------------------------------


@op(
    lambda g, x, out, in_shape, ord, dim: _gradient(g, x, out, in_shape, ord, dim),
    dtypes="floating",
    accepts_dtype=True,
    widen=True,
)
def vector_norm(xp: Namespace, x: Array, ord: float = 2, dim: Dim = None, keepdim: bool = False) -> Array:
    """Return the norm ``sum(|x|**ord)**(1/ord)`` of the vectors along dimensions.

    ord: any number. inf and -inf give the largest and the smallest ``|x|``, 0 gives the number of nonzero entries.
    dim: the dimensions of a vector. None takes all entries as one vector.
    keepdim: keep these dimensions, with size 1.
    dtype: convert the input first.

    Where an entry or the norm is 0, its gradient is 0. float16 is computed in float32. Raises ShapeError for a negative
    or infinite order of no entries, TypeError for another order, DTypeError for integers.
    """
    return _norm(xp, x, float(number_in("", "ord", ord)), dim, keepdim)


# ---- norms of matrices ----------------------------------------------------------------------


def _largest(x: Value) -> Value:
    """Return the largest entries along the last dimension; 0 for no entries, as a norm of an empty matrix."""
    return amax(x, -1) if x.shape[-1] else sum(x, -1)


# Each norm of matrices whose rows are the dimension before the last, and whose columns are the last.
_OF_MATRICES: dict[Any, Callable[[Value], Value]] = {
    "fro": lambda x: vector_norm(x, 2, (-2, -1)),
    "nuc": lambda x: sum(svdvals(x), -1),
    1: lambda x: _largest(sum(abs(x), -2)),
    -1: lambda x: amin(sum(abs(x), -2), -1),
    2: lambda x: _largest(svdvals(x)),
    -2: lambda x: amin(svdvals(x), -1),
    math.inf: lambda x: _largest(sum(abs(x), -1)),
    -math.inf: lambda x: amin(sum(abs(x), -1), -1),
}


def matrix_norm(
    A: Value,
    ord: float | str = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: DTypeLike | None = None,
) -> Value:
    """Return the norms of the matrices along two dimensions.

    ord: "fro" is the root of the sum of squares; "nuc" is the sum of the singular values; 2 and -2 are the largest and
        the smallest one. 1 and -1 are the largest and the smallest sum of ``|x|`` of a column, inf and -inf of a row.
    dim: the dimensions of the rows and of the columns.
    keepdim: keep them, with size 1.
    dtype: convert the input first.

    Raises ValueError for another ord, ShapeError unless dim names two dimensions, DTypeError for integers.
    """
    shape, keepdim = shape_of("matrix_norm", A), flag_in("matrix_norm", "keepdim", keepdim)
    dims = ints_in("matrix_norm", "dim", dim)
    if len(shape) < 2 or len(dims) != 2:
        raise ShapeError(f"matrix_norm: expected two dimensions of the matrices, got shape {shape} and dim {dim}")
    axes = all_or_dims_in("matrix_norm", dims, len(shape))
    norm_of = _OF_MATRICES.get(ord if isinstance(ord, str) else as_number(ord))
    if norm_of is None:
        raise ValueError(f"matrix_norm: ord must be 'fro', 'nuc', 1, -1, 2, -2, inf or -inf, got {ord!r}")
    out = norm_of(movedim(A if dtype is None else A.to(dtype=dtype), axes, (-2, -1)))
    for d in sorted(axes) if keepdim else ():
        out = unsqueeze(out, d)
    return out


# ---- the norm of tensorlite itself ----------------------------------------------------------


@op(
    lambda g, x, out, in_shape, p, dim: _gradient(g, x, out, in_shape, 2 if p == "fro" else p, dim),
    dtypes="floating",
    widen=True,
)
def norm_(xp: Namespace, x: Array, p: float | str | None, dim: Dim, keepdim: bool) -> Array:
    """Return the p-norm of vectors."""
    return _norm(xp, x, 2.0 if p in ("fro", None) else float(number_in("", "p", p)), dim, keepdim)


@numpy_names
def norm(
    input: Value, p: float | str | None = "fro", dim: Dim = None, keepdim: bool = False, dtype: DTypeLike | None = None
) -> Value:
    """Return the p-norm ``sum(|x|**p)**(1/p)``.

    p: inf and -inf give the largest and the smallest ``|x|``, 0 gives the number of nonzero entries. "fro" and
        None mean 2. "nuc" gives the sum of the singular values of matrices.
    dtype: convert the input first.

    Where the norm is 0 its gradient is 0. Raises TypeError for another p, DTypeError for integers.
    """
    x = input if dtype is None else input.to(dtype=dtype)
    if p == "nuc":
        axes = tuple(range(len(shape_of("norm", x)))) if dim is None else ints_in("norm", "dim", dim)
        return matrix_norm(x, p, axes, keepdim)
    return norm_(x, 2.0 if p == "fro" else p, dim, keepdim)
