"""Counts of values: bincount, histc, unique, count_nonzero. None of them has a gradient."""

from __future__ import annotations

from typing import Any, Literal, overload

from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import Array, Namespace
from ..dtypes import is_floating
from ..errors import DTypeError, ShapeError
from ..scalars import int_in, number_in
from .arguments import Dim, dim_in, numpy_names, shape_of
from .reduce import sum

__all__ = ["bincount", "count_nonzero", "histc", "unique"]


@op()
def bincount(xp: Namespace, input: Array, weights: Array | None = None, minlength: int = 0) -> Array:
    """Return how often each number 0, 1, ... occurs in a vector of integers, as int64 (largest + 1,).

    weights: a number for each entry, in the shape of the input; then these are added up, in float32 for float32 and
        otherwise in float64.
    minlength: the least length of the result.

    Raises ShapeError for another shape, DTypeError for an input that does not hold integers, ValueError for negative
    ones and for a negative minlength. It waits for a GPU, to read the largest number.
    """
    minlength = int_in("", "minlength", minlength)
    if minlength < 0:
        raise ValueError(f"expected minlength to be 0 or more, got {minlength}")
    if input.ndim != 1 or (weights is not None and weights.shape != input.shape):
        shapes = f"{input.shape}" + ("" if weights is None else f" and weights {weights.shape}")
        raise ShapeError(f"expected a vector, and weights of its shape, got shape {shapes}")
    if input.dtype.kind not in "iu":
        raise DTypeError(f"expected integers, got {input.dtype}. Convert with .long().")
    if input.size and int(input.min()) < 0:
        raise ValueError(f"expected integers of 0 or more, got {int(input.min())}")
    counts = xp.bincount(input.astype(xp.int64), weights, minlength)
    if weights is None:
        return counts.astype(xp.int64)
    return counts.astype(xp.float32 if weights.dtype == xp.float32 else xp.float64)


@op()
def histc(xp: Namespace, input: Array, bins: int = 100, min: float = 0, max: float = 0) -> Array:
    """Return how many entries fall into each of ``bins`` intervals of equal length from min to max.

    min, max: the ends, which count as inside. Equal ones stand for the least and the largest entry. Entries outside,
        and NaN, are not counted.

    Returns (bins,) in the dtype of the input. Raises DTypeError for integers, ValueError for fewer than one bin, for
    ends in the wrong order and for ends that are not finite.
    """
    bins = int_in("", "bins", bins)
    low, high = (number_in("", what, value) for what, value in (("min", min), ("max", max)))
    if bins < 1:
        raise ValueError(f"expected bins to be 1 or more, got {bins}")
    if not is_floating(input.dtype):
        raise DTypeError(f"expected floating point numbers, got {input.dtype}. Convert with .float().")
    x = input.reshape(-1).astype(xp.float64)
    if low == high and x.size:
        low, high = float(x.min()), float(x.max())
    if low == high:
        low, high = low - 1, high + 1
    if not high > low or low == -xp.inf or high == xp.inf:
        raise ValueError(f"expected finite ends with max above min, got min={low} and max={high}")
    x = x[(x >= low) & (x <= high)]
    places = xp.minimum(((x - low) / (high - low) * bins).astype(xp.int64), bins - 1)
    return xp.bincount(places, None, bins).astype(input.dtype)


def count_nonzero(input: Value, dim: Dim = None) -> Value:
    """Return how many entries are not 0, in all or along one dimension or several, as int64."""
    shape_of("count_nonzero", input)
    return count_all_(input != 0) if dim is None else sum(input != 0, dim)


@op()
def count_all_(xp: Namespace, x: Array) -> Array:
    """Return how many booleans are true."""
    return xp.asarray(xp.count_nonzero(x), xp.int64)


@op()
def unique_(xp: Namespace, x: Array, part: int, dim: int | None) -> Array:
    """Return one of: the values, the position of each entry among the values, how often each value occurs."""
    options: dict[str, Any] = {"return_inverse": True} if part == 1 else {"return_counts": True} if part == 2 else {}
    found = xp.unique(x, axis=dim, equal_nan=False, **options)
    result = found[1] if options else found
    return result.reshape(x.shape if dim is None else -1) if part == 1 else result


@overload
def unique(
    input: Value,
    sorted: bool = True,
    return_inverse: Literal[False] = False,
    return_counts: Literal[False] = False,
    dim: int | None = None,
) -> Value: ...
@overload
def unique(
    input: Value, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any: ...
@numpy_names
def unique(
    input: Value, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """Return the different values of a tensor in ascending order, (n,), or its different slices along a dimension.

    sorted: ignored; the values are always sorted.
    return_inverse: return the int64 position of each entry among the values too, in the shape of the input; along a
        dimension, that of each slice.
    return_counts: return how often each value occurs too, int64 (n,).
    dim: the dimension of the slices; None takes single entries.

    Returns the values, or a tuple of them and what else was asked for. Each NaN is a value of its own. Raises
    IndexError for a dimension out of range. It waits for a GPU.
    """
    axis = None if dim is None else dim_in("unique", dim, len(shape_of("unique", input)))
    asked = [0] + [1] * bool(return_inverse) + [2] * bool(return_counts)
    results = tuple(unique_(input, part, axis) for part in asked)
    return results if len(results) > 1 else results[0]
