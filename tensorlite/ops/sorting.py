"""Sorting: sorted values, the largest entries, search in a sorted vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import Array, Namespace
from ..errors import ShapeError
from ..missing_names import pair_getattr
from ..scalars import int_in
from .arguments import dim_in, numpy_names, shape_of
from .gather_scatter import pick_along

__all__ = ["argsort", "searchsorted", "sort", "topk"]

V = TypeVar("V")


class Sorted(NamedTuple, Generic[V]):
    """The result of ``sort`` or ``topk``: the values, and their indices in the input."""

    values: V
    indices: V


if not TYPE_CHECKING:  # because a type checker would then accept any attribute
    Sorted.__getattr__ = pair_getattr


@op()
def argsort(xp: Namespace, x: Array, dim: int = -1, descending: bool = False, stable: bool = False) -> Array:
    """Return the indices that sort the input along a dimension, int64. NaN counts as the largest.

    stable: keep equal entries in their order.
    """
    d = dim_in("", dim, x.ndim)
    if x.ndim == 0:
        return xp.zeros((), xp.int64)
    if not descending:
        return xp.places_in_order(x, d, bool(stable))
    return x.shape[d] - 1 - xp.flip(xp.places_in_order(xp.flip(x, d), d, bool(stable)), d)


@numpy_names
def sort(input: Value, dim: int = -1, descending: bool = False, stable: bool = False) -> Sorted[Value]:
    """Sort along a dimension. Return ``(values, indices)``, with the int64 indices of the values in the input.

    NaN counts as the largest. stable: keep equal entries in their order.
    """
    dim_in("sort", dim, len(shape_of("sort", input)))
    indices = argsort(input, dim, descending, stable)
    return Sorted(pick_along("sort", input, dim, indices, unique=True), indices)


@op()
def topk_(xp: Namespace, x: Array, k: int, dim: int, largest: bool, sorted: bool) -> Array:
    """Return the indices of the k largest (or smallest) entries along a dimension."""
    d = dim_in("", dim, x.ndim)
    n = x.shape[d] if x.ndim else 1
    k = int_in("", "k", k)
    if not 0 <= k <= n:
        raise IndexError(f"k={k} is out of range for dim {d} of size {n}")
    if x.ndim == 0:
        return xp.zeros((), xp.int64)
    return xp.top_places(x, k, d, largest, sorted)


@numpy_names
def topk(input: Value, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Sorted[Value]:
    """Return ``(values, indices)`` of the k largest (or smallest) entries along a dimension, in order if ``sorted``.

    NaN counts as the largest. Raises IndexError if k is negative or larger than the dimension.
    """
    indices = topk_(input, k, dim, largest, sorted)
    return Sorted(pick_along("topk", input, dim, indices, unique=True), indices)


@op()
def searchsorted(
    xp: Namespace, sorted_sequence: Array, input: Array, right: bool = False, side: str | None = None,
    sorter: Array | None = None, out_int32: bool = False,
) -> Array:  # fmt: skip
    """Return the positions at which ``input`` would be inserted into a sorted vector, or row by row into sorted rows.

    sorted_sequence: (n,), or (..., n) for an input (..., m).
    right: insert after equal entries instead of before them.
    side: "left" or "right", another way to say so.
    sorter: the int64 indices that sort the sequence, in its shape; None if it is sorted.
    out_int32: return int32 instead of int64.

    Raises ShapeError for other shapes, ValueError for another side.
    """
    if side not in (None, "left", "right") or (right and side == "left"):
        raise ValueError(f"side must be None, 'left' or 'right', and fit right={right}, got {side!r}")
    edges, values, chosen = sorted_sequence, xp.asarray(input), side or ("right" if right else "left")
    if edges.ndim != 1 and (edges.ndim != values.ndim or edges.shape[:-1] != values.shape[:-1] or not edges.ndim):
        raise ShapeError(
            f"expected a sorted vector, or rows in the leading shape of the input, got shapes {edges.shape} and "
            f"{values.shape}"
        )
    if sorter is not None:
        if sorter.shape != edges.shape:
            raise ShapeError(f"sorter has shape {sorter.shape}, the sequence {edges.shape}")
        edges = xp.take_along_axis(edges, sorter, axis=-1)
    if edges.ndim == 1:
        found = xp.searchsorted(edges, values, side=chosen)
    else:
        found = xp.search_rows(edges, values, chosen)
    return found.astype(xp.int32) if out_int32 else found
