"""Reductions: sums, means, extremes, running sums.

dim: one dimension, several, or None for all. A negative one counts from the end.
keepdim: keep the reduced dimensions, with size 1.

Raises IndexError if a dimension is out of range, ValueError if it is named twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

from ..autograd.function import op
from ..autograd.graph import Value, Variable
from ..backends.registry import BACKENDS, Array, Namespace
from ..dtypes import kind_of
from ..errors import ShapeError
from ..missing_names import pair_getattr
from ..scalars import as_integer, flag_in, number_in
from .arguments import Dim, Operand, all_or_dims_in, dim_in, dims_in, numpy_names, shape_of, without_scalar
from .elementwise import convert, maximum, minimum, where
from .shape import broadcast_to, cat, flip, narrow, reshape, squeeze, swapaxes, unsqueeze

__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "cumsum", "logsumexp", "max", "mean", "min", "prod",
    "std", "sum", "var",
]  # fmt: skip

V = TypeVar("V")


def _axes(x: Array, dim: Dim) -> tuple[int, ...]:
    """Return the dimensions in ``dim``, counted from the front. An empty sequence means all, as in PyTorch."""
    return all_or_dims_in("", dim, x.ndim)


def _filled_axes(x: Array, dim: Dim) -> tuple[int, ...]:
    """Return the dimensions as :func:`_axes` does. Raises ShapeError if there are no entries along them."""
    axes = _axes(x, dim)
    if not math.prod(x.shape[a] for a in axes):
        raise ShapeError(f"there are no entries to choose from along dim {axes if dim is None else dim}")
    return axes


def _count(shape: Sequence[int], dim: Dim) -> int:
    """Return the number of entries that are reduced to one."""
    return math.prod(shape if dim is None else [shape[d] for d in all_or_dims_in("", dim, len(shape))])


def _fold(g: Value, shape: Sequence[int], dim: Dim) -> Value:
    """Return a reduced value with the reduced dimensions, of size 1, unless all are reduced."""
    if len(g.shape) == len(shape) or g.shape == ():
        return g
    folded = all_or_dims_in("", dim, len(shape))
    return reshape(g, tuple(1 if d in folded else n for d, n in enumerate(shape)))


def _unfold(g: Value, shape: Sequence[int], dim: Dim) -> Value:
    """Broadcast a reduced value back to the shape from which it was reduced."""
    return broadcast_to(_fold(g, shape, dim), shape)


# ---- sums -----------------------------------------------------------------------------------


@op(lambda g, in_shape, dim: _unfold(g, in_shape, dim), accepts_dtype=True, bfloat16=True)
def sum(xp: Namespace, x: Array, dim: Dim = None, keepdim: bool = False) -> Array:
    """Return the sum of the entries. The sum of integers or booleans is an int64."""
    return xp.sum_over(_wide(xp, x), _axes(x, dim), keepdim)


def _wide(xp: Namespace, x: Array) -> Array:
    """Return x, as int64 if it is unsigned: NumPy would return a uint64."""
    return x.astype(xp.int64) if x.dtype.kind == "u" else x


@op(lambda g, in_shape: broadcast_to(g, in_shape), bfloat16=True)
def sum_to_size(xp: Namespace, x: Array, shape: Sequence[int]) -> Array:
    """Sum over leading and broadcast dimensions down to ``shape``: the transpose of ``broadcast_to``.

    Raises ShapeError if ``shape`` does not broadcast to the input's shape.
    """
    lead = x.ndim - len(shape)
    if lead < 0 or [*shape] != [n if n == 1 else m for n, m in zip(shape, x.shape[lead:], strict=True)]:
        raise ShapeError(f"shape {tuple(shape)} does not broadcast to {x.shape}")
    return x.copy() if x.shape == tuple(shape) else xp.sum_to(_wide(xp, x), tuple(shape))


@op(
    lambda g, in_shape, dim: _unfold(g / (_count(in_shape, dim) or 1), in_shape, dim),
    dtypes="floating", accepts_dtype=True, widen=True,
)  # fmt: skip
def mean(xp: Namespace, x: Array, dim: Dim = None, keepdim: bool = False) -> Array:
    """Return the arithmetic mean of the entries; NaN if there are none. Raises DTypeError for integers."""
    axes = _axes(x, dim)
    return xp.sum_over(x, axes, keepdim) / math.prod(x.shape[a] for a in axes)


def _estimate(dim: Dim, correction: float | None) -> tuple[Dim, float]:
    """Return the dimensions and the correction of ``var(x, dim, correction)`` and of PyTorch's ``var(x, unbiased)``."""
    if isinstance(dim, bool):
        return None, int(dim)
    if correction is None or isinstance(correction, bool):
        return dim, int(correction is not False)
    return dim, number_in("", "correction", correction)


def _inverse(freedom: float) -> float:
    """Return ``1 / max(0, n - correction)`` for the degrees of freedom, ``n - correction``."""
    return 1.0 / freedom if freedom > 0 else math.inf


def _without(x: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
    """Return an array without reduced dimensions, of size 1, unless they are to be kept."""
    return x if keepdim else x.reshape([n for d, n in enumerate(x.shape) if d not in axes])


@op(lambda g, dim: g - mean(g, dim, True))
def _deviations(xp: Namespace, x: Array, middle: Array, rest: Array, dim: Dim) -> Array:
    """Return x minus its mean along dimensions, which is ``middle + rest``."""
    d = xp.asarray(x - middle)
    d -= rest
    return d


def _var_gradient(
    g: Value, x: Value, middle: Array, rest: Array, in_shape: Sequence[int], dim: Dim, correction: float | None
) -> Value:
    dim, less = _estimate(dim, correction)
    g = _unfold(g * (2.0 * _inverse(_count(in_shape, dim) - less)), in_shape, dim)
    return g * _deviations(x, middle, rest, dim)


def _std_gradient(
    g: Value, x: Value, out: Value, middle: Array, rest: Array, in_shape: Sequence[int], dim: Dim,
    correction: float | None,
) -> Value:  # fmt: skip
    zero = 1.0 / out == math.inf  # or so small that its inverse overflows
    g = where(zero, 0.0, g / (2.0 * where(zero, 1.0, out)))
    return _var_gradient(g, x, middle, rest, in_shape, dim, correction)


@op(_var_gradient, aux=("middle", "rest"), dtypes="floating", widen=True)
def var(
    xp: Namespace, x: Array, dim: Dim = None, correction: float | None = 1, keepdim: bool = False
) -> tuple[Array, Array, Array]:
    """Return the variance ``sum((x - mean)**2) / max(0, n - correction)`` of n entries.

    If n is at most ``correction``, it is infinite, or NaN if all entries are equal.

    correction: 1 is the unbiased estimate, 0 the variance of the entries themselves. ``unbiased=`` sets it too, and so
        does ``var(x, False)``, which means ``var(x, correction=0)``. None is 1.

    Raises DTypeError for integers.
    """
    dim, less = _estimate(dim, correction)
    axes = _axes(x, dim)
    out, middle, rest = xp.variance(x, axes, _inverse(math.prod(x.shape[a] for a in axes) - less))
    return _without(out, axes, keepdim), middle, rest


@op(_std_gradient, aux=("middle", "rest"), dtypes="floating", widen=True)
def std(
    xp: Namespace, x: Array, dim: Dim = None, correction: float | None = 1, keepdim: bool = False
) -> tuple[Array, Array, Array]:
    """Return the standard deviation, the square root of :func:`var`. Where it is 0 the gradient is 0."""
    dim, less = _estimate(dim, correction)
    axes = _axes(x, dim)
    out, middle, rest = xp.deviation(x, axes, _inverse(math.prod(x.shape[a] for a in axes) - less))
    return _without(out, axes, keepdim), middle, rest


@op(lambda g, dim: flip(cumsum(flip(g, dim), dim), dim) if g.shape else g, accepts_dtype=True, bfloat16=True)
def cumsum(xp: Namespace, x: Array, dim: int) -> Array:
    """Return the running sum along a dimension: ``out[i] = x[0] + ... + x[i]``. That of integers is an int64."""
    dim = dim_in("", dim, x.ndim)
    x = x if kind_of(x.dtype) in "fc" else x.astype(xp.int64)  # NumPy would keep uint64 and the like
    return xp.running_sum(x, dim) if x.ndim else x + xp.zeros_like(x)


# ---- products -------------------------------------------------------------------------------


def _prod_gradient(g: Value, x: Value, in_shape: Sequence[int], dim: int | None) -> Value:
    """Return ``g`` times the product of the other entries, which ``out / x`` is not where x or out is 0 or infinite."""
    g = _unfold(g, in_shape, dim)
    if not in_shape:
        return g
    others = _products_of_others(reshape(x, (-1,)) if dim is None else swapaxes(x, dim, -1))
    return g * (reshape(others, in_shape) if dim is None else swapaxes(others, dim, -1))


def _products_of_others(x: Value) -> Value:
    """Return for each entry the product of all others in its row.

    Neighbours are multiplied, then those products, and so on, as in a binary tree. So time and memory are
    proportional to the number of entries, for the gradients of this function, too.
    """
    n = x.shape[-1]
    if n < 2:
        return x**0 if n else x
    if n == 2:
        return flip(x, -1)
    pairs = reshape(narrow(x, -1, 0, n - n % 2), (*x.shape[:-1], n // 2, 2))
    left, right = narrow(pairs, -1, 0, 1), narrow(pairs, -1, 1, 1)
    products = squeeze(left * right, -1)
    last = [narrow(x, -1, n - 1, 1)] if n % 2 else []
    outside = _products_of_others(cat([products, *last], -1) if last else products)
    around = unsqueeze(narrow(outside, -1, 0, n // 2), -1)
    others = reshape(cat([around * right, around * left], -1), (*x.shape[:-1], n - n % 2))
    return cat([others, narrow(outside, -1, n // 2, 1)], -1) if last else others


@op(_prod_gradient, widen=True)
def _prod(xp: Namespace, x: Array, dim: int | None, keepdim: bool) -> Array:
    return xp.product(x, _axes(x, dim), keepdim)


def _prod_backward(xp: Namespace, g: Array, x: Array, dim: int | None) -> tuple[Array]:
    g = _unfold(g, x.shape, dim)
    if not x.ndim:
        return (g,)
    if dim is None:
        return (g * xp.other_products(x.reshape(-1)).reshape(x.shape),)
    return (g * xp.other_products(x.swapaxes(dim, -1)).swapaxes(dim, -1),)


@op(backward=_prod_backward, composite=_prod, accepts_dtype=True, widen=True)
def prod(xp: Namespace, x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
    """Return the product of the entries. Its gradient is also correct where some of them are 0."""
    axes = _axes(x, dim if dim is None else dim_in("", dim, x.ndim))
    return xp.product(_wide(xp, x), axes, keepdim)


# ---- extremes -------------------------------------------------------------------------------


def _extreme_gradient(g: Value, x: Value, out: Value, in_shape: Sequence[int], dim: Dim) -> Value:
    """Return the gradient of an extreme, shared equally among equal entries, and among NaNs."""
    hit = (x == _unfold(out, in_shape, dim)) | (x != x)
    ties = convert(sum(hit, dim, True), g.dtype, None)
    return where(hit, _unfold(g, in_shape, dim) / ties, 0.0)


@op(_extreme_gradient, widen="backward")
def amax(xp: Namespace, x: Array, dim: Dim = None, keepdim: bool = False) -> Array:
    """Return the largest entry. Equal entries share the gradient. Raises ShapeError if there are no entries."""
    return xp.largest(x, _filled_axes(x, dim), keepdim)


@op(_extreme_gradient, widen="backward")
def amin(xp: Namespace, x: Array, dim: Dim = None, keepdim: bool = False) -> Array:
    """Return the smallest entry. Equal entries share the gradient. Raises ShapeError if there are no entries."""
    return xp.smallest(x, _filled_axes(x, dim), keepdim)


@op()
def argmax(xp: Namespace, x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
    """Return the index of the first largest entry, int64. With ``dim=None`` it counts in the flattened tensor.

    Raises ShapeError if there are no entries.
    """
    return _argextreme(x.argmax, x, dim, keepdim)


@op()
def argmin(xp: Namespace, x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
    """Return the index of the first smallest entry, int64. With ``dim=None`` it counts in the flattened tensor.

    Raises ShapeError if there are no entries.
    """
    return _argextreme(x.argmin, x, dim, keepdim)


def _argextreme(find: Any, x: Array, dim: int | None, keepdim: bool) -> Array:
    axis = None if dim is None else dim_in("", dim, x.ndim)
    _filled_axes(x, dim)
    return find(axis=axis if x.ndim else None, keepdims=keepdim)


def _pick_gradient(g: Value, index: Array, in_shape: Sequence[int], dim: int) -> Value:
    return _unpick(_fold(g, in_shape, dim), index, in_shape, dim) if in_shape else g


@op(lambda h, index, dim: _pick(h, index, dim, True), None)
def _unpick(xp: Namespace, g: Array, index: Array, shape: Sequence[int], dim: int) -> Array:
    """Return zeros of this shape with g at ``index``: the transpose of :func:`_pick`, with ``keepdim``."""
    out = xp.zeros(shape, g.dtype)
    return xp.scatter_into(out, dim % len(shape), index, g, False)


@op(_pick_gradient)
def _pick(xp: Namespace, x: Array, index: Array, dim: int, keepdim: bool) -> Array:
    """Return the entries at ``index``, which has size 1 along ``dim``."""
    if x.ndim == 0:
        return x + xp.zeros_like(x)
    out = xp.take_along_axis(x, index, axis=dim)
    return out if keepdim else out.squeeze(dim)


class MaxMin(NamedTuple, Generic[V]):
    """The result of ``max`` or ``min`` along a dimension: the values, and their indices in the input."""

    values: V
    indices: V


if not TYPE_CHECKING:  # because a type checker would then accept any attribute
    MaxMin.__getattr__ = pair_getattr


def _max_or_min(name: str, x: Any, dim: Any, keepdim: bool, whole: Any, both: Any, arg: Any) -> Any:
    keepdim = flag_in(name, "keepdim", keepdim)
    if dim is None:
        return whole(x)
    shape = shape_of(name, x)
    if isinstance(dim, Variable) or type(dim) in BACKENDS:
        return both(x, dim)
    x = without_scalar(x)
    dim = dim_in(name, dim, len(shape))
    index = arg(x, dim, True)
    values = _pick(x, index.array if isinstance(index, Variable) else index, dim, keepdim)
    return MaxMin(values, index if keepdim or not index.shape else reshape(index, values.shape))


@overload
def max(input: Value, dim: None = None) -> Value: ...
@overload
def max(input: Value, dim: int, keepdim: bool = False) -> MaxMin[Value]: ...
@overload
def max(input: Value, other: Value, /) -> Value: ...
@overload
def max(input: Value, *, other: Value) -> Value: ...
@numpy_names
def max(input: Value, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Return the largest entry, the larger entries of two tensors, or the largest ones along a dimension.

    ``max(input)`` is :func:`amax` of all entries. ``max(input, other)`` is :func:`maximum`. ``max(input, dim)`` is a
    pair ``(values, indices)``; the gradient goes to the entry at the index, the first of equal entries.
    Raises ShapeError if there are no entries.
    """
    return _max_or_min("max", input, dim if other is None else other, keepdim, amax, maximum, argmax)


@overload
def min(input: Value, dim: None = None) -> Value: ...
@overload
def min(input: Value, dim: int, keepdim: bool = False) -> MaxMin[Value]: ...
@overload
def min(input: Value, other: Value, /) -> Value: ...
@overload
def min(input: Value, *, other: Value) -> Value: ...
@numpy_names
def min(input: Value, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Return the smallest entry, the smaller entries of two tensors, or the smallest ones along a dimension.

    The forms are those of :func:`max`.
    """
    return _max_or_min("min", input, dim if other is None else other, keepdim, amin, minimum, argmin)


# ---- truth ----------------------------------------------------------------------------------


def _named_axes(x: Array, dim: Dim) -> tuple[int, ...]:
    """Return the dimensions as :func:`_axes` does, but none for an empty sequence: PyTorch's all and any do so."""
    return _axes(x, dim) if dim is None or as_integer(dim) is not None else dims_in("", dim, x.ndim)


@op()
def all(xp: Namespace, x: Array, dim: Dim = None, keepdim: bool = False) -> Array:
    """Return whether all entries are nonzero, as a boolean."""
    return x.astype(bool).all(axis=_named_axes(x, dim), keepdims=keepdim)


@op()
def any(xp: Namespace, x: Array, dim: Dim = None, keepdim: bool = False) -> Array:
    """Return whether any entry is nonzero, as a boolean."""
    return x.astype(bool).any(axis=_named_axes(x, dim), keepdims=keepdim)


# ---- logsumexp ------------------------------------------------------------------------------


@op(
    lambda h, x, top, total, dim: sum(h * _share_out(1.0, x, top, total, dim), dim, True),
    lambda h, x, top, total, dim, out: h * out - _share_out(1.0, x, top, total, dim) * sum(h * out, dim, True),
)
def _share_out(xp: Namespace, g: Operand, x: Array, top: Array, total: Array, dim: Dim) -> Array:
    """Return ``g * exp(x - top) / total``: each entry's share of the gradient of the logsumexp along ``dim``."""
    return xp.exp_below(x, top) * (g / total)


@op(
    lambda g, x, in_shape, dim, top, total: _share_out(_fold(g, in_shape, dim), x, top, total, dim),
    dtypes="float",
    aux=("top", "total"),
    widen=True,
)
def logsumexp(xp: Namespace, x: Array, dim: Dim, keepdim: bool = False) -> tuple[Array, Array, Array]:
    """Return ``log(sum(exp(x)))`` along dimensions, computed without overflow. It is -inf if there are no entries.

    Entries of infinity share the gradient equally. If all entries are -inf, it is 0.
    """
    if dim is None:
        raise TypeError("dim must be an int or several, got None. For all dimensions pass ().")
    axes = _axes(x, dim)
    if x.size:
        # The gradient uses the maximum and the sum, because rounding loses the log of the sum next to a large maximum.
        top = xp.largest(x, axes, True)
        total = xp.sum_over(xp.exp_below(x, top), axes, True)
        total = xp.where(top == -math.inf, math.inf, total)
        out = xp.where(top == -math.inf, top, xp.log(total) + top)
    else:
        top = total = x.sum(axis=axes, keepdims=True)
        out = xp.log(total)  # -inf, because there are no entries
    return out if keepdim else out.reshape([n for d, n in enumerate(out.shape) if d not in axes]), top, total
