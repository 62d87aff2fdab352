"""Order statistics: medians and quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, overload

import numpy as np

from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import BACKENDS, Array, Namespace, describe_array
from ..errors import DTypeError, ShapeError
from ..missing_names import pair_getattr
from ..scalars import flag_in, fraction_in
from .arguments import array_of, dim_in, numpy_names, shape_of, without_scalar
from .elementwise import convert, lerp, mul, sub, where
from .gather_scatter import pick_along
from .half_precision import rounds_once
from .reduce import sum
from .shape import broadcast_to, movedim, reshape, squeeze
from .sorting import sort

__all__ = ["median", "nanmedian", "nanquantile", "quantile"]

V = TypeVar("V")

# ---- medians --------------------------------------------------------------------------------


class Median(NamedTuple, Generic[V]):
    """The result of ``median`` along a dimension: the values, and their indices in the input."""

    values: V
    indices: V


if not TYPE_CHECKING:  # because a type checker would then accept any attribute
    Median.__getattr__ = pair_getattr


@op()
def _median_index(xp: Namespace, x: Array, dim: int, ignore_nan: bool) -> Array:
    """Return the indices of the medians along a dimension, which keeps size 1."""
    d = dim_in("", dim, x.ndim)
    if x.ndim == 0:
        return xp.zeros((), xp.int64)
    if not x.shape[d]:
        raise IndexError(f"there are no entries to choose from along dim {dim}")
    return xp.median_places(x, d, ignore_nan)


def _share_equally(g: Value, x: Value, out: Value, in_shape: Sequence[int]) -> Value:
    """Return the gradient of a median of all entries. Equal entries share it, and so do NaNs."""
    hit = (x == out) | ((x != x) & (out != out))
    return where(hit, broadcast_to(g / convert(sum(hit), g.dtype, None), in_shape), 0.0)


@op(_share_equally)
def _median_of_all(xp: Namespace, x: Array, ignore_nan: bool) -> Array:
    flat = x.reshape(-1)
    if not flat.size:
        return xp.full((), math.nan, x.dtype)
    return xp.median_of_all(flat, ignore_nan)


def _median(name: str, x: Value, dim: int | None, keepdim: bool, ignore_nan: bool) -> Any:
    shape, keepdim = shape_of(name, x), flag_in(name, "keepdim", keepdim)
    if dim is None:
        return _median_of_all(x, ignore_nan)
    d = dim_in(name, dim, len(shape))
    index = _median_index(x, d, ignore_nan)
    values = pick_along(name, x, d, index, unique=True)
    if keepdim or not shape:
        return Median(reshape(values, index.shape), index)
    return Median(squeeze(values, d), squeeze(index, d))


@overload
def median(input: Value, dim: None = None) -> Value: ...
@overload
def median(input: Value, dim: int, keepdim: bool = False) -> Median[Value]: ...
@numpy_names
def median(input: Value, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return the median: of an even number of entries the lower one of both in the middle, as in PyTorch.

    ``median(input)`` is that of all entries, and equal entries share its gradient. ``median(input, dim)`` is a pair
    ``(values, indices)``, and the gradient goes to the entry at the index. A NaN among the entries gives NaN.
    Raises IndexError if there are no entries along the dimension.
    """
    return _median("median", input, dim, keepdim, False)


@overload
def nanmedian(input: Value, dim: None = None) -> Value: ...
@overload
def nanmedian(input: Value, dim: int, keepdim: bool = False) -> Median[Value]: ...
@numpy_names
def nanmedian(input: Value, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return the median of the entries that are not NaN, and NaN if there are none. The forms are :func:`median`'s."""
    return _median("nanmedian", input, dim, keepdim, True)


# ---- quantiles ------------------------------------------------------------------------------

Interpolation = Literal["linear", "lower", "higher", "midpoint", "nearest"]
"""The way to choose between the two entries that a quantile lies between."""


@op()
def _whole_rank(xp: Namespace, rank: Array, how: str) -> Array:
    """Return ranks rounded as the interpolation says, int64."""
    rounded = {"higher": xp.ceil, "nearest": xp.rint}.get(how, xp.floor)
    return rounded(rank).astype(xp.int64)


def _rank_limits(xp: Namespace, rows: Array, ignore_nan: bool) -> tuple[Array, Array | None]:
    """Return the highest rank of each row (..., 1), and where a row has a NaN (None if NaN is ignored)."""
    numbers = (rows == rows).sum(axis=-1, keepdims=True)
    if ignore_nan:
        return xp.maximum(numbers - 1, 0).astype(rows.dtype), None
    return xp.full_like(numbers, rows.shape[-1] - 1).astype(rows.dtype), numbers < rows.shape[-1]


def _checked_quantile(name: str, x: Value, q: Any) -> Value:
    """Return q as an array or Tensor of the dtype of x. Raises ShapeError, DTypeError or ValueError if it is none."""
    array = array_of(x)
    shape_of(name, x)
    xp = BACKENDS[type(array)]
    if array.dtype not in (xp.float32, xp.float64):
        raise DTypeError(f"{name}: expected floating point numbers, got {describe_array(array)}. Use .float().")
    raw = array_of(q)
    if type(raw) not in BACKENDS or not raw.ndim:
        return xp.asarray(fraction_in(name, "q", q), array.dtype)
    if raw.ndim > 1:
        raise ShapeError(f"{name}: q must be a number or a vector, got shape {raw.shape}")
    if raw.dtype != array.dtype:
        raise DTypeError(f"{name}: q must have the dtype of the input, {array.dtype}, got {raw.dtype}.")
    if type(raw) is np.ndarray and not ((raw >= 0) & (raw <= 1)).all():  # on a GPU the check would force a sync
        raise ValueError(f"{name}: q must be from 0 to 1, got {raw.tolist()}")
    return q


def _quantile(name: str, x: Value, q: Any, dim: int | None, keepdim: bool, how: str, ignore_nan: bool) -> Value:
    x = without_scalar(x)
    q = _checked_quantile(name, x, q)
    if how not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise ValueError(
            f"{name}: interpolation must be 'linear', 'lower', 'higher', 'midpoint' or 'nearest', got {how!r}"
        )
    shape = shape_of(name, x)
    rows = reshape(x, (-1,)) if dim is None or not shape else movedim(x, dim_in(name, dim, len(shape)), -1)
    if not rows.shape[-1]:
        raise ShapeError(f"{name}: there are no entries to choose from in a tensor of shape {shape}")
    if dim is not None:
        dim_in(name, dim, len(shape))
    found = _interpolated(rows, reshape(q, (-1,)), how, ignore_nan)
    kept = _kept_shape(shape, dim, flag_in(name, "keepdim", keepdim))
    if not len(q.shape):
        return reshape(found, kept)
    return reshape(movedim(found, -1, 0), (q.shape[0], *kept))


def _kept_shape(shape: Sequence[int], dim: int | None, keepdim: bool) -> tuple[int, ...]:
    """Return the shape of a result that is reduced along dim."""
    if dim is None or not shape:
        return (1,) * len(shape) if keepdim else ()
    d = dim % len(shape)
    return tuple(1 if k == d else n for k, n in enumerate(shape) if keepdim or k != d)


def _interpolated(rows: Value, q: Value, how: str, ignore_nan: bool) -> Value:
    """Return the quantiles q (m,) of rows (..., n), as (..., m)."""
    ordered = sort(rows, -1).values
    array = array_of(rows)
    highest, spoiled = _rank_limits(BACKENDS[type(array)], array, ignore_nan)
    rank = mul(q, highest)
    if spoiled is not None:
        rank = where(spoiled, highest, rank)  # the last entry, a NaN
    whole = _whole_rank(rank, how)
    below = pick_along("quantile", ordered, -1, whole)
    if how in ("lower", "higher", "nearest"):
        return below
    above = pick_along("quantile", ordered, -1, _whole_rank(rank, "higher"))
    return lerp(below, above, 0.5 if how == "midpoint" else sub(rank, convert(whole, array.dtype, None)))


@numpy_names
@rounds_once
def quantile(
    input: Value, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: Interpolation = "linear"
) -> Value:
    """Return the entry below which a share q of the entries lies.

    q: a number from 0 to 1, or a vector (m,) of them in the input's dtype. A vector gives results (m, ...).
    dim: the dimension of the entries. None takes all of them.
    keepdim: keep the dimension, with size 1.
    interpolation: of n sorted entries, rank ``q * (n - 1)`` may lie between two. "linear" interpolates between them,
        "lower", "higher" and "nearest" choose one, "midpoint" takes their mean.

    A NaN among the entries gives NaN. Raises ValueError for another q or interpolation, DTypeError unless the input is
    of floating point, ShapeError if there are no entries.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


@numpy_names
@rounds_once
def nanquantile(
    input: Value, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: Interpolation = "linear"
) -> Value:
    """Return :func:`quantile` of the entries that are not NaN, and NaN if there are none."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)
