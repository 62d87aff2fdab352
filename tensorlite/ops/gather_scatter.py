"""Ops that select entries along a dimension or by a mask, or store values there.

They use :func:`~tensorlite.ops.index.index_` and ``index_put_`` with the right index arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np

from ..autograd.function import op
from ..autograd.graph import Value, Variable
from ..backends.registry import BACKENDS, Array, Namespace, describe_array
from ..errors import DeviceError, DTypeError, ShapeError
from ..scalars import as_integer, flag_in, int_in, number_in
from .arguments import Operand, array_of, check_range, dim_in, index_array, numpy_names, shape_of
from .elementwise import clone, mul
from .elementwise import where as choose
from .index import fitting, getitem, index_, index_put_
from .shape import broadcast_tensors, broadcast_to, flatten, reshape

__all__ = ["gather", "index_add", "index_select", "masked_fill", "masked_select", "nonzero", "repeat_interleave",
           "scatter", "scatter_add", "take_along_dim", "where"]  # fmt: skip

_ALL = slice(None)


# ---- along one dimension --------------------------------------------------------------------


def _check_sizes(name: str, ids: Sequence[int], shape: Sequence[int], dim: int) -> None:
    """Raise ShapeError if an index of shape ``ids`` is larger than the tensor outside of a dimension."""
    if any(m > n for k, (m, n) in enumerate(zip(ids, shape)) if k != dim):
        raise ShapeError(f"{name}: index of shape {ids} is larger than the tensor, {shape}, outside of dim {dim}")


def _grid(name: str, x: Any, dim: int, index: Any) -> tuple[tuple[int, ...], list[Array]]:
    """Return one index array for each dimension: ``index`` for ``dim``, and the entry's own position for the others.

    A 0-d tensor counts as a vector. An empty index is returned alone, for the flattened tensor.

    Raises DTypeError, DeviceError, ShapeError or IndexError if ``index`` does not fit x.
    """
    ids, shape = index_array(name, x, index), shape_of(name, x)
    d = dim_in(name, dim, len(shape))
    if not ids.size:  # an empty index selects nothing, whatever its dimensions, as in PyTorch
        return (0,), [ids]
    if max(ids.ndim, 1) != max(len(shape), 1):
        raise ShapeError(f"{name}: index of shape {ids.shape} must have as many dimensions as the tensor, {shape}")
    _check_sizes(name, ids.shape, shape, d)
    check_range(name, ids, d, shape[d] if shape else 1)
    xp = BACKENDS[type(ids)]
    grid = [xp.arange(m).reshape(-1, *(1,) * (ids.ndim - k - 1)) for k, m in enumerate(ids.shape)]
    grid[d : d + 1] = [ids]
    return tuple(range(len(grid))), grid


@op(
    lambda g, dim, index, unique, negative, in_shape: _unselect(g, dim, index, unique, negative, in_shape), None, None,
    bfloat16=True,
)  # fmt: skip
def _select(xp: Namespace, x: Array, dim: int, index: Array, unique: bool, negative: bool) -> Array:
    """Return the entries of x at ``index`` along a dimension, or slices at a vector of indices.

    unique: whether no entry is selected twice. negative: whether -1 is the last place.
    """
    take = xp.take_entries if index.ndim == x.ndim else xp.take_slices
    out = take(x, dim, index, negative)
    return out if out.flags.c_contiguous else out.copy()


@op(lambda g, dim, index, unique, negative: _select(g, dim, index, unique, negative), None, None, bfloat16=True)
def _unselect(
    xp: Namespace, x: Array, dim: int, index: Array, unique: bool, negative: bool, shape: Sequence[int]
) -> Array:  # fmt: skip
    """Return zeros of this shape with x added at ``index``: the transpose of :func:`_select`."""
    return xp.scatter_into(xp.zeros(shape, x.dtype), dim, index, x, not unique, negative)


def _select_along(
    name: str, x: Value, dim: int, index: Array, unique: bool = False, negative: bool = False
) -> Value:  # fmt: skip
    """Return the result of :func:`_select`. Raises IndexError for an index out of range."""
    try:
        return _select(x, dim, index, unique, negative)
    except IndexError:
        size = shape_of(name, x)[dim]
        check_range(name, index, dim, size, -size if negative else 0)
        raise


def pick_along(
    name: str, x: Value, dim: int, index: Value, unique: bool = False, negative: bool = False
) -> Value:  # fmt: skip
    """Return the entries of x at ``index`` along a dimension; ``unique`` and ``negative`` as for :func:`_select`.

    Raises DTypeError, DeviceError, ShapeError or IndexError if ``index`` does not fit x.
    """
    ids, shape = index_array(name, x, index), shape_of(name, x)
    if ids.size and ids.ndim == len(shape) > 0:
        d = dim_in(name, dim, len(shape))
        _check_sizes(name, ids.shape, shape, d)
        return _select_along(name, x, d, ids, unique, negative)
    slots, grid = _grid(name, x, dim, index)
    return index_(x if len(slots) == len(shape) else reshape(x, (-1,)), slots, unique, *grid)


@numpy_names
def gather(input: Value, dim: int, index: Value) -> Value:
    """Return ``out[i][j][k] = input[i][index[i][j][k]][k]`` for ``dim=1``, and correspondingly for other dimensions.

    index: integers, with as many dimensions as the input, or empty. The result has its shape.

    Raises IndexError for an index out of range, ShapeError if ``index`` is larger than the input outside of ``dim``.
    """
    return pick_along("gather", input, dim, index)


@numpy_names
def take_along_dim(input: Value, indices: Value, dim: int | None = None) -> Value:
    """Return the entries at ``indices``, as :func:`gather`, with broadcasting outside of ``dim``.

    Without ``dim`` both tensors are flattened. With one, -1 is the last entry. Raises ShapeError if they do not
    broadcast, IndexError as gather.
    """
    if dim is None:
        return pick_along("take_along_dim", reshape(input, (-1,)), 0, reshape(indices, (-1,)))
    shape, ids = shape_of("take_along_dim", input), shape_of("take_along_dim", indices)
    d = dim_in("take_along_dim", dim, len(shape))
    places = index_array("take_along_dim", input, indices)
    if len(shape) != len(ids):
        raise ShapeError(f"take_along_dim: shapes {shape} and {ids} have different numbers of dimensions")
    if not shape:
        return pick_along("take_along_dim", input, dim, places + (places < 0))
    if ids[:d] == shape[:d] and ids[d + 1 :] == shape[d + 1 :]:
        return pick_along("take_along_dim", input, d, places, negative=True)
    try:
        common = np.broadcast_shapes((*shape[:d], 1, *shape[d + 1 :]), (*ids[:d], 1, *ids[d + 1 :]))
    except ValueError:
        raise ShapeError(f"take_along_dim: shapes {shape} and {ids} do not broadcast outside of dim {d}") from None
    both = ((input, shape[d]), (places, ids[d]))
    wide, places = (broadcast_to(t, (*common[:d], n, *common[d + 1 :])) for t, n in both)
    return pick_along("take_along_dim", wide, d, places, negative=True)


@overload
def scatter(
    input: Value, dim: int, index: Value, src: Operand, *, reduce: Literal["add", "multiply"] | None = None
) -> Value: ...
@overload
def scatter(
    input: Value, dim: int, index: Value, *, value: Operand, reduce: Literal["add", "multiply"] | None = None
) -> Value: ...
def scatter(
    input: Value, dim: int, index: Value, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Any:
    """Return a copy of the input in which ``input[i][index[i][j][k]][k] = src[i][j][k]``, for ``dim=1``.

    src, value: a tensor at least as large as ``index``, or a number. If ``index`` selects an entry twice, the last
        value stays, and it alone gets a gradient.
    reduce: "add" or "multiply" adds the values to the entries or multiplies both, instead of storing the values. An
        entry that is selected twice gets both.

    Raises IndexError and ShapeError as :func:`gather`, DTypeError for floats in a tensor of integers, TypeError if not
    exactly one of ``src`` and ``value`` is given, ValueError for another ``reduce``.
    """
    if (src is None) == (value is None):
        raise TypeError("scatter: expected a tensor src, or a number value")
    return _scattered("scatter", input, dim, index, value if src is None else src, reduce)


def scatter_add(input: Value, dim: int, index: Value, src: Value) -> Value:
    """Return a copy of the input with values added, as :func:`scatter`. An entry that is selected twice gets both."""
    return _scattered("scatter_add", input, dim, index, src, "add")


def _scattered(name: str, x: Any, dim: int, index: Any, src: Any, reduce: str | None) -> Any:
    """Return x with the values of ``src`` stored, added or multiplied at ``index`` along a dimension."""
    if reduce not in (None, "add", "multiply"):
        raise ValueError(f"{name}: reduce must be 'add', 'multiply' or None, got {reduce!r}")
    shape, places = shape_of(name, x), index_array(name, x, index)
    ids = places.shape
    along = dim_in(name, dim, len(shape)) if places.size and len(ids) == len(shape) > 0 else None
    slots: tuple[int, ...] = ()
    grid: list[Array] = []
    if along is None or reduce == "multiply":
        slots, grid = _grid(name, x, dim, index)
    else:
        _check_sizes(name, ids, shape, along)
    if not places.size:
        return clone(x)
    if isinstance(src, Variable) or type(src) in BACKENDS:
        given = shape_of(name, src)
        if len(given) != len(ids) or any(n < m for n, m in zip(given, ids)):
            raise ShapeError(f"{name}: src of shape {given} has no value for each entry of the index, of shape {ids}")
        if given != ids:
            src = getitem(src, tuple(slice(n) for n in ids))
    src = fitting(name, src, array_of(x).dtype)
    if reduce == "multiply":
        return _multiplied(x, src, ids, grid)
    if along is not None:
        return _put_along(name, x, src, along, places, reduce == "add")
    out = index_put_(x if shape else reshape(x, (1,)), src, (), slots, reduce == "add", *grid)
    return out if shape else reshape(out, ())


def _put_along(name: str, x: Value, src: Value, dim: int, index: Array, add: bool) -> Value:
    """Return the result of :func:`_put`. Raises IndexError for an index out of range."""
    try:
        return _put(x, src, dim, index, add)
    except IndexError:
        check_range(name, index, dim, shape_of(name, x)[dim])
        raise
    except DeviceError as error:
        raise DeviceError(f"{name}{str(error).removeprefix('put')}") from None


@op(
    lambda g, dim, index, add: g if add else _put(g, 0.0, dim, index, False),
    lambda g, dim, index, add: _select(g, dim, index, False, False) if add else _select_last(g, dim, index),
    None, None,
)  # fmt: skip
def _put(xp: Namespace, x: Array, src: Operand, dim: int, index: Array, add: bool) -> Array:
    """Return a copy of x with ``src`` stored at ``index`` along a dimension, or added; a vector names slices."""
    if type(src) in BACKENDS and type(src) is not type(x):  # because a backend would copy it implicitly
        raise TypeError("the values are not on the device of the tensor")
    return xp.scatter_into(x.copy(), dim, index, src, add)


@op(lambda g, dim, index, in_shape: _put(_zeros(g, in_shape), g, dim, index, False), None, None)
def _select_last(xp: Namespace, x: Array, dim: int, index: Array) -> Array:
    """Return the entries of x at ``index`` along a dimension, and 0 where a later place has the same entry."""
    return xp.take_last_entries(x, dim, index)


def _zeros(g: Value, shape: Sequence[int]) -> Array:
    """Return zeros of a shape, on the device and with the dtype of g."""
    array = array_of(g)
    return BACKENDS[type(array)].zeros(shape, array.dtype)


def _multiplied(x: Any, src: Any, ids: tuple[int, ...], grid: list[Array]) -> Any:
    """Return x with its entries at the index arrays ``grid``, of shape ``ids``, multiplied by the values of ``src``.

    Each round multiplies every entry by one of its values, so it takes as many rounds as an entry has values.
    """
    xp, shape = BACKENDS[type(grid[0])], shape_of("scatter", x)
    size = math.prod(shape)
    places = xp.broadcast_to(xp.arange(size).reshape(shape or (1,))[tuple(grid)], ids).reshape(-1)
    order, flat = xp.arange(places.size), reshape(x, (size,))
    values = reshape(src, (-1,)) if hasattr(array_of(src), "ndim") else None
    while places.size:
        found, first = xp.unique(places, return_index=True)
        factor = src if values is None else index_(values, (0,), True, order[first])
        flat = index_put_(flat, mul(index_(flat, (0,), True, found), factor), (), (0,), False, found)
        left = xp.ones(places.size, bool)
        left[first] = False
        places, order = places[left], order[left]
    return reshape(flat, shape)


@numpy_names
def index_select(input: Value, dim: int, index: Value) -> Value:
    """Return the entries along a dimension at a vector of indices. Raises IndexError if one is out of range."""
    ids, shape = _vector("index_select", input, dim, index)
    d = dim_in("index_select", dim, len(shape))
    if shape and ids.size:
        return _select_along("index_select", input, d, ids)
    out = index_(input if shape else reshape(input, (1,)), (*(_ALL,) * d, 0), False, ids)
    return out if shape else reshape(out, ())


@numpy_names
def repeat_interleave(
    input: Value, repeats: int | Value, dim: int | None = None, *, output_size: int | None = None
) -> Value:
    """Repeat each entry along a dimension ``repeats`` times in a row.

    repeats: an int, or a vector of ints with one for each entry.
    dim: without one, the flattened tensor is repeated.
    output_size: the size of the result along the dimension, for compatibility; it is checked.

    Raises ShapeError if ``repeats`` has another length or ``output_size`` is not right, ValueError if a number is
    negative.
    """
    if dim is None:
        input, dim = flatten(input), 0
    shape = shape_of("repeat_interleave", input)
    n = shape[dim_in("repeat_interleave", dim, len(shape))] if shape else 1
    xp = BACKENDS[type(array_of(input))]
    counts: Any = as_integer(repeats)
    if counts is None and isinstance(repeats, (bool, float)):
        raise TypeError(f"repeat_interleave: repeats must be an int or a vector of integers, got {repeats!r}")
    if counts is None:
        # Copy the counts to the CPU, because the size of the result depends on them.
        counts = xp.to_numpy(index_array("repeat_interleave", input, repeats))
        if counts.shape not in ((), (1,), (n,)):
            raise ShapeError(f"repeat_interleave: repeats of shape {counts.shape} for the {n} entries along dim {dim}")
    if np.any(np.asarray(counts) < 0):
        raise ValueError(f"repeat_interleave: repeats must not be negative, got {counts}")
    places = np.repeat(np.arange(n), counts)
    if output_size is not None and int_in("repeat_interleave", "output_size", output_size) != len(places):
        raise ShapeError(f"repeat_interleave: output_size {output_size} is not {len(places)}, the sum of the repeats")
    return index_select(input, dim, xp.asarray(places))


def index_add(input: Value, dim: int, index: Value, source: Value, alpha: float = 1) -> Value:
    """Return a copy of the input: to entry ``index[i]`` along a dimension, ``alpha * source[i]`` is added.

    Raises IndexError for an index out of range, ShapeError if ``source`` has another shape outside of ``dim``.
    """
    ids, shape = _vector("index_add", input, dim, index)
    d = dim_in("index_add", dim, len(shape))
    given = shape_of("index_add", source)
    if given != (*shape[:d], *(ids.shape if shape else ()), *shape[d + 1 :]):
        raise ShapeError(f"index_add: source of shape {given} for {len(ids)} indices into dim {d} of shape {shape}")
    factor = number_in("index_add", "alpha", alpha)
    scaled = source if factor == 1 else mul(source, factor)
    source = fitting("index_add", scaled, array_of(input).dtype)
    if shape and ids.size:
        return _put_along("index_add", input, source, d, ids, True)
    out = index_put_(input if shape else reshape(input, (1,)), source, (), (*(_ALL,) * d, 0), True, ids)
    return out if shape else reshape(out, ())


def _vector(name: str, x: Any, dim: int, index: Any) -> tuple[Array, tuple[int, ...]]:
    """Return a vector of indices into a dimension of x, and the shape of x. Raises an error if their shape is wrong."""
    ids, shape = index_array(name, x, index), shape_of(name, x)
    if ids.ndim > 1 or (not shape and ids.size != 1):
        raise ShapeError(f"{name}: expected a vector of indices, got shape {ids.shape} for a tensor of shape {shape}")
    d = dim_in(name, dim, len(shape))
    if not shape or not ids.size:  # else the op checks them
        check_range(name, ids, d, shape[d] if shape else 1)
    return ids.reshape(-1), shape


# ---- masks ----------------------------------------------------------------------------------


def _check_mask(name: str, mask: Any) -> None:
    """Raise DTypeError if the mask does not hold booleans."""
    array = array_of(mask)
    if type(array) not in BACKENDS or array.dtype.kind != "b":
        raise DTypeError(f"{name}: expected a mask of booleans, got {describe_array(array)}. Convert it with .bool().")


def masked_fill(input: Value, mask: Value, value: Operand) -> Value:
    """Return ``value`` where the mask is true, otherwise the input, in the input's dtype. The shapes broadcast.

    value: a number or a 0-d tensor.

    Raises ShapeError for a value of another shape, DTypeError if it does not fit the dtype or if the mask does not hold
    booleans.
    """
    _check_mask("masked_fill", mask)
    dtype, fill = array_of(input).dtype, array_of(value)
    if getattr(fill, "ndim", 0):
        raise ShapeError(f"masked_fill: expected a number or a 0-d tensor as the value, got shape {fill.shape}")
    return where(mask, fitting("masked_fill", value, dtype), input)


def masked_select(input: Value, mask: Value) -> Value:
    """Return the entries where the mask is true, as a vector. The shapes broadcast.

    Raises DTypeError for a mask that does not hold booleans.
    """
    _check_mask("masked_select", mask)
    if shape_of("masked_select", input) != shape_of("masked_select", mask):
        input, mask = broadcast_tensors(input, mask)
    if not shape_of("masked_select", input):
        input, mask = reshape(input, (1,)), reshape(mask, (1,))
    return getitem(input, mask)


@op()
def _argwhere(xp: Namespace, x: Array) -> Array:
    """Return the positions of the nonzero entries, one row for each."""
    return xp.argwhere(x) if x.ndim else xp.zeros((int(x != 0), 0), xp.int64)


@overload
def nonzero(input: Value, as_tuple: Literal[False] = False) -> Value: ...
@overload
def nonzero(input: Value, as_tuple: Literal[True]) -> tuple[Value, ...]: ...
def nonzero(input: Value, as_tuple: bool = False) -> Any:
    """Return the positions of the n nonzero entries, int64, as (n, ndim).

    as_tuple: return one vector (n,) for each dimension instead.

    On a GPU it forces a sync, because the shape of the result depends on the values.
    """
    shape = shape_of("nonzero", input)
    if not flag_in("nonzero", "as_tuple", as_tuple):
        return _argwhere(input)
    places = _argwhere(input if shape else reshape(input, (1,)))
    return tuple(getitem(places, (slice(None), d)) for d in range(max(len(shape), 1)))


@overload
def where(condition: Value) -> tuple[Value, ...]: ...
@overload
def where(condition: Value, input: Operand, other: Operand) -> Value: ...
def where(condition: Value, input: Any = None, other: Any = None) -> Any:
    """Return ``input`` where the condition is true, otherwise ``other``. They are tensors or numbers, and broadcast.

    ``where(condition)`` alone is ``nonzero(condition, as_tuple=True)``. Raises DTypeError if the condition does not
    hold booleans.
    """
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return choose(condition, input, other)
