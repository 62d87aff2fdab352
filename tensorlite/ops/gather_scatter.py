"""Ops that pick elements along a dimension, by masks, by their order, or from tables, and put values there.

All picking is :func:`~tensorlite.ops.index.index_` with the right index arrays, and all putting ``put_``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..autograd.engine import Value, Variable, describe, op
from ..backends.registry import BACKENDS, Array, Namespace
from ..errors import DeviceError, DTypeError, ShapeError
from .elementwise import eq, mul
from .elementwise import where as _where
from .index import array_of, check_range, fitting, getitem, index_, index_put_, outlier
from .shape import (
    broadcast_tensors,
    broadcast_to,
    dim_in,
    flatten,
    ints_in,
    numpy_names,
    reshape,
    shape_of,
    unsqueeze,
)

__all__ = ["Sorted", "argsort", "embedding", "gather", "index_add", "index_select", "masked_fill", "masked_select",
           "nonzero", "one_hot", "repeat_interleave", "scatter", "scatter_add", "searchsorted", "sort",
           "take_along_dim", "topk", "tril", "triu", "where"]  # fmt: skip

_ALL = slice(None)


# ---- along one dimension --------------------------------------------------------------------


def _ids(name: str, x: Any, index: Any) -> Array:
    """The raw array of an index tensor, checked."""
    ids, array = array_of(index), array_of(x)
    if type(ids) not in BACKENDS or ids.dtype.kind not in "iu":
        raise DTypeError(f"{name}: expected an index tensor of int64 or int32, got {describe(ids)}")
    if type(ids) is not type(array):
        raise DeviceError(f"{name}: the index is {describe(ids)}, but the tensor is {describe(array)}")
    return ids


def _grid(name: str, x: Any, dim: int, index: Any) -> tuple[tuple[int, ...], list[Array]]:
    """What ``index`` points at, as one index array a dimension: itself for ``dim``, the own place for the others."""
    ids, shape = _ids(name, x, index), shape_of(name, x)
    d = dim_in(name, dim, len(shape))
    if max(ids.ndim, 1) != max(len(shape), 1):
        raise ShapeError(f"{name}: index of shape {ids.shape} must have as many dimensions as the tensor, {shape}")
    if any(m > n for k, (m, n) in enumerate(zip(ids.shape, shape)) if k != d):
        raise ShapeError(f"{name}: index of shape {ids.shape} is larger than the tensor, {shape}, outside of dim {d}")
    check_range(name, ids, d, shape[d] if shape else 1)
    xp = BACKENDS[type(ids)]
    grid = [xp.arange(m).reshape(-1, *(1,) * (ids.ndim - k - 1)) for k, m in enumerate(ids.shape)]
    grid[d : d + 1] = [ids]
    return tuple(range(len(grid))), grid


def _along(name: str, x: Any, dim: int, index: Any, unique: bool = False) -> Any:
    """The entries of x that ``index`` points at along a dimension; ``unique`` promises that it names none twice."""
    slots, grid = _grid(name, x, dim, index)
    return index_(x if shape_of(name, x) else reshape(x, (1,)), slots, unique, *grid)


@numpy_names
def gather(input: Any, dim: int, index: Any) -> Any:
    """``out[i][j][k] = input[i][index[i][j][k]][k]`` for ``dim=1``, and so on; ``index`` has as many dimensions.

    Raises IndexError for an index out of range, ShapeError if ``index`` is larger than the input outside of ``dim``.
    """
    return _along("gather", input, dim, index)


@numpy_names
def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Any:
    """As :func:`gather`, where the two broadcast outside of ``dim``; without one both are flattened."""
    if dim is None:
        return _along("take_along_dim", reshape(input, (-1,)), 0, reshape(indices, (-1,)))
    shape, ids = shape_of("take_along_dim", input), shape_of("take_along_dim", indices)
    d = dim_in("take_along_dim", dim, len(shape))
    if len(shape) != len(ids):
        raise ShapeError(f"take_along_dim: shapes {shape} and {ids} have different numbers of dimensions")
    if not shape:
        return _along("take_along_dim", input, dim, indices)
    try:
        common = np.broadcast_shapes((*shape[:d], 1, *shape[d + 1 :]), (*ids[:d], 1, *ids[d + 1 :]))
    except ValueError:
        raise ShapeError(f"take_along_dim: shapes {shape} and {ids} do not broadcast outside of dim {d}") from None
    both = ((input, shape[d]), (indices, ids[d]))
    wide, places = (broadcast_to(t, (*common[:d], n, *common[d + 1 :])) for t, n in both)
    return _along("take_along_dim", wide, d, places)


def scatter(input: Any, dim: int, index: Any, src: Any = None, *, value: Any = None) -> Any:
    """A copy of the input in which ``input[i][index[i][j][k]][k] = src[i][j][k]`` for ``dim=1``, and so on.

    src, or value: a number, or a tensor at least as large as ``index``. Where ``index`` names an entry twice, one is
    taken.
    Raises as :func:`gather` does, and DTypeError for floats among integers.
    """
    if (src is None) == (value is None):
        raise TypeError("scatter: expected a tensor src, or a number value")
    return _scattered("scatter", input, dim, index, value if src is None else src, False)


def scatter_add(input: Any, dim: int, index: Any, src: Any) -> Any:
    """As :func:`scatter`, but the values are added: an entry that ``index`` names twice gets both."""
    return _scattered("scatter_add", input, dim, index, src, True)


def _scattered(name: str, x: Any, dim: int, index: Any, src: Any, accumulate: bool) -> Any:
    slots, grid = _grid(name, x, dim, index)
    shape, ids = shape_of(name, x), shape_of(name, index)
    if isinstance(src, Variable) or type(src) in BACKENDS:
        given = shape_of(name, src)
        if len(given) != len(ids) or any(n < m for n, m in zip(given, ids)):
            raise ShapeError(f"{name}: src of shape {given} has no value for each entry of the index, of shape {ids}")
        if given != ids:
            src = getitem(src, tuple(slice(n) for n in ids))
    src = fitting(name, src, array_of(x).dtype)
    out = index_put_(x if shape else reshape(x, (1,)), src, (), slots, accumulate, *grid)
    return out if shape else reshape(out, ())


@numpy_names
def index_select(input: Any, dim: int, index: Any) -> Any:
    """The entries along a dimension that a vector of indices names. Raises IndexError for one out of range."""
    ids, shape = _vector("index_select", input, dim, index)
    d = dim_in("index_select", dim, len(shape))
    out = index_(input if shape else reshape(input, (1,)), (*(_ALL,) * d, 0), False, ids)
    return out if shape else reshape(out, ())


@numpy_names
def repeat_interleave(input: Any, repeats: Any, dim: int | None = None) -> Any:
    """Each entry along ``dim`` (None: of the flattened tensor) ``repeats`` times in a row.

    repeats: an int, or a vector of ints with one for each entry. Raises ShapeError if it has another length, ValueError
    if a number is negative.
    """
    if dim is None:
        input, dim = flatten(input), 0
    shape = shape_of("repeat_interleave", input)
    n = shape[dim_in("repeat_interleave", dim, len(shape))] if shape else 1
    xp = BACKENDS[type(array_of(input))]
    if isinstance(repeats, int):
        counts = repeats
    else:
        counts = xp.to_numpy(_ids("repeat_interleave", input, repeats))  # the result's size is needed on the host
        if counts.shape not in ((), (1,), (n,)):
            raise ShapeError(f"repeat_interleave: repeats of shape {counts.shape} for the {n} entries along dim {dim}")
    if np.any(np.asarray(counts) < 0):
        raise ValueError(f"repeat_interleave: repeats must not be negative, got {counts}")
    return index_select(input, dim, xp.asarray(np.repeat(np.arange(n), counts)))


def index_add(input: Any, dim: int, index: Any, source: Any, alpha: float = 1) -> Any:
    """A copy in which entry ``index[i]`` along a dimension has got ``alpha`` times entry i of ``source`` added.

    Raises IndexError for an index out of range, ShapeError if ``source`` is of another shape outside of ``dim``.
    """
    ids, shape = _vector("index_add", input, dim, index)
    d = dim_in("index_add", dim, len(shape))
    given = shape_of("index_add", source)
    if given != (*shape[:d], *(ids.shape if shape else ()), *shape[d + 1 :]):
        raise ShapeError(f"index_add: source of shape {given} for {len(ids)} indices into dim {d} of shape {shape}")
    source = fitting("index_add", source if alpha == 1 else mul(source, alpha), array_of(input).dtype)
    out = index_put_(input if shape else reshape(input, (1,)), source, (), (*(_ALL,) * d, 0), True, ids)
    return out if shape else reshape(out, ())


def _vector(name: str, x: Any, dim: int, index: Any) -> tuple[Array, tuple[int, ...]]:
    """A vector of indices into a dimension of x, checked, and the shape of x."""
    ids, shape = _ids(name, x, index), shape_of(name, x)
    if ids.ndim > 1 or (not shape and ids.size != 1):
        raise ShapeError(f"{name}: expected a vector of indices, got shape {ids.shape} for a tensor of shape {shape}")
    d = dim_in(name, dim, len(shape))
    check_range(name, ids, d, shape[d] if shape else 1)
    return ids.reshape(-1), shape


# ---- masks ----------------------------------------------------------------------------------


def _check_mask(name: str, mask: Any) -> None:
    array = array_of(mask)
    if type(array) not in BACKENDS or array.dtype.kind != "b":
        raise DTypeError(f"{name}: expected a mask of booleans, got {describe(array)}; convert it with .bool()")


def masked_fill(input: Any, mask: Any, value: Any) -> Any:
    """``value``, a number or a 0-d tensor, where ``mask`` is true, else the input, whose dtype is kept; they broadcast.

    Raises DTypeError if the mask is not of booleans or the value does not fit the dtype, ShapeError if it is not 0-d.
    """
    _check_mask("masked_fill", mask)
    dtype, fill = array_of(input).dtype, array_of(value)
    if getattr(fill, "ndim", 0):
        raise ShapeError(f"masked_fill: expected a number or a 0-d tensor as the value, got shape {fill.shape}")
    return where(mask, fitting("masked_fill", value, dtype), input)


def masked_select(input: Any, mask: Any) -> Any:
    """The entries of the input where ``mask`` is true, as a vector; they broadcast.

    Raises DTypeError if the mask is not of booleans.
    """
    _check_mask("masked_select", mask)
    if shape_of("masked_select", input) != shape_of("masked_select", mask):
        input, mask = broadcast_tensors(input, mask)
    if not shape_of("masked_select", input):
        input, mask = reshape(input, (1,)), reshape(mask, (1,))
    return getitem(input, mask)


@op(lambda g, diagonal: tril(g, diagonal))
def tril(xp: Namespace, x: Array, diagonal: int = 0) -> Array:
    """The lower triangles of the matrices (..., n, m) in x, zero elsewhere; ``diagonal=1`` keeps one more diagonal."""
    return xp.tril(_matrices(x), *ints_in("", "diagonal", diagonal))


@op(lambda g, diagonal: triu(g, diagonal))
def triu(xp: Namespace, x: Array, diagonal: int = 0) -> Array:
    """The upper triangles of the matrices (..., n, m) in x, zero elsewhere; ``diagonal=1`` keeps one less diagonal."""
    return xp.triu(_matrices(x), *ints_in("", "diagonal", diagonal))


def _matrices(x: Array) -> Array:
    if x.ndim < 2:
        raise ShapeError("expected a tensor of at least 2 dimensions")
    return x


@op()
def _argwhere(xp: Namespace, x: Array) -> Array:
    return xp.argwhere(x) if x.ndim else xp.zeros((int(x != 0), 0), xp.int64)


def nonzero(input: Any, as_tuple: bool = False) -> Any:
    """The places where the input is not zero, int64: (n, ndim), or with ``as_tuple`` one vector for each dimension."""
    shape = shape_of("nonzero", input)
    if not as_tuple:
        return _argwhere(input)
    places = _argwhere(input if shape else reshape(input, (1,)))
    return tuple(getitem(places, (slice(None), d)) for d in range(max(len(shape), 1)))


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """``input`` where ``condition`` is true, else ``other``: tensors or numbers that broadcast.

    ``where(condition)`` alone is ``nonzero(condition, as_tuple=True)``. Raises DTypeError if the condition is not of
    booleans.
    """
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return _where(condition, input, other)


# ---- order ----------------------------------------------------------------------------------


class Sorted(NamedTuple):
    """The result of ``sort`` or ``topk``: the values, and where in the input they were."""

    values: Any
    indices: Any


@op()
def argsort(xp: Namespace, x: Array, dim: int = -1, descending: bool = False, stable: bool = False) -> Array:
    """The indices that sort x along a dimension, int64; NaN counts as the largest. ``stable`` keeps equals in order."""
    d = dim_in("", dim, x.ndim)
    if x.ndim == 0:
        return xp.zeros((), xp.int64)
    kind = "stable" if stable else None
    if not descending:
        return xp.argsort(x, axis=d, kind=kind)
    return x.shape[d] - 1 - xp.flip(xp.argsort(xp.flip(x, d), axis=d, kind=kind), d)


@numpy_names
def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Sorted:
    """The input sorted along a dimension, and the indices that do it: ``(values, indices)``. NaN counts as the largest.

    ``stable`` keeps equal entries in their order.
    """
    dim_in("sort", dim, len(shape_of("sort", input)))
    indices = argsort(input, dim, descending, stable)
    return Sorted(_along("sort", input, dim, indices, unique=True), indices)


@op()
def topk_(xp: Namespace, x: Array, k: int, dim: int, largest: bool, sorted: bool) -> Array:
    """The indices of the k largest (or smallest) entries along a dimension."""
    d = dim_in("", dim, x.ndim)
    n = x.shape[d] if x.ndim else 1
    if not isinstance(k, int):
        raise TypeError(f"k must be an int, got {k!r}")
    if not 0 <= k <= n:
        raise IndexError(f"k={k} is out of range for dim {d} of size {n}")
    if x.ndim == 0:
        return xp.zeros((), xp.int64)
    part = (*(_ALL,) * d, slice(n - k, n) if largest else slice(k))
    if k in (0, n):
        found = xp.broadcast_to(xp.arange(n).reshape(-1, *(1,) * (x.ndim - d - 1)), x.shape)[part]
    else:
        found = xp.argpartition(x, n - k if largest else k - 1, axis=d)[part]
    if sorted:
        order = xp.argsort(xp.take_along_axis(x, found, axis=d), axis=d)
        found = xp.take_along_axis(found, xp.flip(order, d) if largest else order, axis=d)
    return found


@numpy_names
def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Sorted:
    """The k largest (or smallest) entries along a dimension, in order if ``sorted``: ``(values, indices)``.

    NaN counts as the largest. Raises IndexError if k is negative or larger than the dimension.
    """
    indices = topk_(input, k, dim, largest, sorted)
    return Sorted(_along("topk", input, dim, indices, unique=True), indices)


@op()
def searchsorted(xp: Namespace, sorted_sequence: Array, values: Array, right: bool = False) -> Array:
    """Where to insert ``values`` in a sorted vector, int64: before equal entries, or with ``right`` after them."""
    if sorted_sequence.ndim != 1:
        raise ShapeError(f"expected a sorted vector, got shape {sorted_sequence.shape}")
    return xp.searchsorted(sorted_sequence, values, side="right" if right else "left")


# ---- tables ---------------------------------------------------------------------------------


def _embedding_gradient(g: Value, input: Array, in_shape: Sequence[int], padding_idx: int | None) -> Value:
    if padding_idx is not None:
        g = where(unsqueeze(eq(input, padding_idx % in_shape[0]), -1), 0.0, g)
    return _embedding_backward(g, input, in_shape[0])


@op(_embedding_gradient, None)
def embedding(xp: Namespace, weight: Array, input: Array, padding_idx: int | None = None) -> Array:
    """The rows of ``weight`` (V, C) that the integers ``input`` (...) name, as (..., C).

    Row ``padding_idx`` gets no gradient. Raises IndexError for an integer that is no row, if they are on the host.
    """
    ids = _ids("embedding", weight, input)
    if weight.ndim != 2:
        raise ShapeError(f"expected a table (V, C), got shape {weight.shape}")
    rows = weight.shape[0]
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise IndexError(f"padding_idx {padding_idx} is out of range for a table of {rows} rows")
    if found := outlier(ids, rows):
        raise IndexError(f"id {found} is not in the table of {rows} rows (0 to {rows - 1})")
    return xp.take(weight, ids, axis=0)


@op(lambda g, input: embedding(g, input), None)
def _embedding_backward(xp: Namespace, g: Array, input: Array, rows: int) -> Array:
    """A table of so many rows, where row i has the sum of the rows of g (..., C) whose ``input`` is i."""
    return xp.embedding_backward(g, input, rows)


@op()
def one_hot(xp: Namespace, x: Array, num_classes: int = -1) -> Array:
    """Vectors with a 1 at the place that x (...) names and 0 elsewhere, int64 (..., num_classes); -1 means ``max + 1``.

    Raises IndexError for a negative or too large class, if they are on the host.
    """
    ids = _ids("one_hot", x, x)
    if num_classes == -1:
        if not x.size:
            raise ValueError("the number of classes cannot be found from an empty tensor; give num_classes")
        num_classes = max(int(x.max()), 0) + 1
    elif num_classes < 0:
        raise ValueError(f"num_classes must not be negative (-1 means max + 1), got {num_classes}")
    if found := outlier(ids, num_classes):
        raise IndexError(f"class {found} is not one of {num_classes} (0 to {num_classes - 1})")
    return (ids[..., None] == xp.arange(num_classes)).astype(xp.int64)
