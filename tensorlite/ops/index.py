"""Indexing: ``x[index]``, ``x[index] = value``, and their gradients.

An index is applied in two steps, as in PyTorch. Integers, slices and None come first and give a view. Then come index
arrays and masks, which copy. The gradient of a selection adds into zeros, because an index array may select an entry
more than once.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..autograd.function import op
from ..autograd.graph import Value, Variable
from ..autograd.views import replay_view
from ..backends.reference import last_writes
from ..backends.registry import BACKENDS, Array, Namespace, describe_array, plain_array
from ..dtypes import DType, check_number, is_floating, kind_of
from ..errors import DeviceError, DTypeError, ShapeError
from .arguments import Index, Operand, array_of, check_fit, check_range, outlier, wide_index
from .elementwise import convert, convert_to_discrete, where
from .shape import reshape

__all__: list[str] = []  # users write x[index] instead

_BASIC = {int, slice, type(None), type(...)}
_ALL = slice(None)


# ---- the two steps of an index --------------------------------------------------------------


class _Index(NamedTuple):
    """An index in two steps: ``x[index]`` is ``x[basic][slots]``, where a number k in ``slots`` means ``arrays[k]``."""

    basic: tuple[Any, ...]
    slots: tuple[Any, ...] = ()
    arrays: tuple[Array, ...] = ()


def _parse(name: str, x: Array, index: Any) -> _Index:
    """Split an index of the raw array x into its two steps. Raises IndexError for anything that is not an index."""
    items = index if type(index) is tuple else (index,)
    if all(type(item) in _BASIC for item in items):
        return _Index(items if Ellipsis in items else (*items, ...))
    items = tuple(_item(name, item) for item in items)
    taken = sum(1 if type(i) in (int, slice) else 0 if type(i) in _BASIC else _width(i) for i in items)
    if taken > x.ndim:
        raise IndexError(f"{name}: too many indices: {taken} for a tensor of shape {x.shape}")
    if not any(item is Ellipsis for item in items):
        items = (*items, ...)
    basic: list[Any] = []
    slots: list[Any] = []
    arrays: list[Array] = []
    dim = 0  # the dimension of x that the next item indexes
    for item in items:
        if item is Ellipsis:
            basic += [_ALL] * (x.ndim - taken)
            slots += [_ALL] * (x.ndim - taken)
            dim += x.ndim - taken
        elif type(item) in _BASIC:
            basic.append(item)
            if type(item) is not int:
                slots.append(_ALL)
            dim += item is not None
        else:
            width = _width(item)
            basic += [_ALL] * width if item.ndim else [None]
            slots.append(len(arrays))
            arrays.append(_checked_index_array(name, item, x, dim))
            dim += width
    while slots and slots[-1] is _ALL:
        slots.pop()
    first = () if all(item is _ALL for item in basic) else (*basic, ...)
    return _Index(first, tuple(slots), tuple(arrays))


def _item(name: str, item: Any) -> Any:
    """Return an entry of an index as one of the basic types, or as an array of integers or booleans."""
    if isinstance(item, (list, tuple, range)):
        if _holds_tensors(item):
            raise IndexError(f"{name}: a list of tensors can mean two things. stack() them, or pass a tuple of them.")
        try:
            item = np.asarray(item)
        except ValueError:
            raise IndexError(f"{name}: the nested lists of an index have different lengths") from None
        item = item if item.size else item.astype(np.int64)
    item = np.asarray(item) if isinstance(item, (bool, np.bool_)) else array_of(item)
    if type(item) in _BASIC:
        whole = type(item) is slice and item.start is None and item.stop is None and item.step is None
        return _ALL if whole else item
    if isinstance(item, np.ndarray):
        item = plain_array(name, item)
    if type(item) not in BACKENDS:
        try:
            return operator.index(item)
        except TypeError:
            raise IndexError(f"{name}: {item!r} is not an integer, slice, None, ..., index array or mask") from None
    if item.dtype.kind not in "biu" or item.dtype == np.uint8:
        got = describe_array(item)
        hint = ". It is a mask in PyTorch and holds indices in NumPy. Convert it with .bool() or .long()."
        raise IndexError(
            f"{name}: expected an index of integers, or a mask of booleans, got {got}{hint * (item.dtype == np.uint8)}"
        )
    if item.dtype.kind == "b":
        return item
    return int(item) if item.ndim == 0 else wide_index(item)


def _holds_tensors(items: Any) -> bool:
    """Return whether nested lists contain a Tensor."""
    return any(isinstance(i, Variable) or (isinstance(i, (list, tuple)) and _holds_tensors(i)) for i in items)


def _width(array: Array) -> int:
    """Return the number of dimensions that an index array stands for."""
    return int(array.ndim) if array.dtype.kind == "b" else 1


def _checked_index_array(name: str, index: Array, x: Array, dim: int) -> Array:
    """Return an index array on the device of x, after the checks that NumPy does not do later."""
    xp, sizes = BACKENDS[type(x)], tuple(x.shape[dim : dim + _width(index)])
    if index.ndim == 0:  # a single boolean selects from a new dimension of size 1: its entry, or nothing
        return xp.zeros(int(index), xp.int64)
    if index.dtype.kind == "b":
        if index.shape != sizes:
            raise IndexError(f"{name}: a mask of shape {index.shape} does not fit dimensions of sizes {sizes}")
    elif type(index) is not type(x) or not sizes[0]:  # NumPy does not check where the result is empty
        check_range(name, index, dim, sizes[0], -sizes[0])
    return index if type(index) is type(x) or type(x) is np.ndarray else xp.asarray(index)


def _at(slots: Sequence[Any], arrays: Sequence[Array]) -> tuple[Any, ...]:
    """Return the index ``slots`` with the arrays in it."""
    return tuple(arrays[s] if type(s) is int else s for s in slots)


# ---- x[index] -------------------------------------------------------------------------------


@op(lambda g, index, in_shape: _unslice(g, index, in_shape), view=True)
def slice_(xp: Namespace, x: Array, index: tuple[Any, ...]) -> Array:
    """Return ``x[index]`` for integers, slices, None and an Ellipsis, with which the result is always a view."""
    return x[index]


@op(lambda g, index: slice_(g, index), bfloat16=True)
def _unslice(xp: Namespace, x: Array, index: tuple[Any, ...], shape: Sequence[int]) -> Array:
    """Return zeros of this shape with x at ``index``: the transpose of :func:`slice_`."""
    out = xp.zeros(shape, x.dtype)
    out[index] = x
    return out


@op(
    lambda g, slots, unique, arrays, in_shape: _unindex(g, in_shape, slots, unique, *arrays), None, None, None,
    bfloat16=True,
)  # fmt: skip
def index_(xp: Namespace, x: Array, slots: tuple[Any, ...], unique: bool, *arrays: Array) -> Array:
    """Return ``x[slots]`` for index arrays and masks. ``unique`` promises that no entry is selected twice."""
    if len(arrays) == 1 and arrays[0].dtype.kind != "b":
        return xp.take_slices(x, len(slots) - 1, arrays[0], True)
    out = xp.take_at(x, _at(slots, arrays))
    return out if out.flags.c_contiguous else out.copy()


@op(lambda g, slots, unique, arrays: index_(g, slots, unique, *arrays), None, None, None, None, bfloat16=True)
def _unindex(xp: Namespace, x: Array, shape: Sequence[int], slots: Any, unique: bool, *arrays: Array) -> Array:
    """Return zeros of this shape with x added at ``slots``: the transpose of :func:`index_`."""
    out, mask = xp.zeros(shape, x.dtype), len(arrays) == 1 and arrays[0].dtype.kind == "b"
    if unique or mask:
        out[_at(slots, arrays)] = x
        return out
    if slots == (0,) and x.size and x.ndim > arrays[0].ndim:  # rows of a table: the embedding kernel computes them
        ids = arrays[0]
        return xp.embedding_backward(x.reshape(ids.size, -1), ids, shape[0], True).reshape(shape)
    return xp.scatter_add_into(out, _at(slots, arrays), x)


def getitem(x: Value, index: Index) -> Value:
    """Return ``x[index]``. It is a view if the index has neither index arrays nor masks, otherwise a copy.

    index: an integer, slice, None, Ellipsis, index array or mask (Tensor, array or list), or a tuple of these. As in
        PyTorch, integers never move the dimensions of index arrays. As in NumPy, steps may be negative and a nested
        list is one index array.

    Raises IndexError if an index is out of range or not an index.
    """
    basic, slots, arrays = parsed = _parse("getitem", array_of(x), index)
    try:
        if basic:
            x = slice_(x, basic)
        return index_(x, slots, False, *arrays) if slots else x
    except IndexError as error:
        raise _explained("getitem", array_of(x), parsed, error) from None


def _explained(name: str, x: Array, index: _Index, error: IndexError) -> IndexError:
    """Return the error that explains why NumPy refused an index."""
    if index.basic.count(...) > 1:
        return IndexError(f"{name}: an index may have one ..., got {index.basic.count(...)}")
    head = index.basic.index(...) if ... in index.basic else len(index.basic)
    taken = [item for item in index.basic if item is not None and item is not ...]
    if len(taken) > x.ndim:
        return IndexError(f"{name}: too many indices: {len(taken)} for a tensor of shape {x.shape}")
    before = sum(item is not None for item in index.basic[:head])
    for k, item in enumerate(taken):
        dim = k if k < before else x.ndim - len(taken) + k
        if type(item) is int and not -x.shape[dim] <= item < x.shape[dim]:
            return IndexError(f"{name}: index {item} is out of range for dim {dim} of size {x.shape[dim]}")
    view = x[index.basic] if index.basic else x
    whole = [a for a in index.arrays if a.dtype.kind != "b"]
    try:
        np.broadcast_shapes(*(a.shape for a in whole))
    except ValueError:
        shapes = ", ".join(str(a.shape) for a in whole)
        return IndexError(f"{name}: index arrays of shapes {shapes} do not broadcast together")
    dim = 0
    for slot in index.slots:
        if type(slot) is not int:
            dim += 1
            continue
        array = index.arrays[slot]
        if array.dtype.kind != "b" and (found := outlier(array, view.shape[dim], -view.shape[dim])):
            n = view.shape[dim]
            given = describe_array(x)
            return IndexError(f"{name}: index {found} is out of range for a dimension of size {n} of {given}")
        dim += _width(array)
    return IndexError(f"{name}({describe_array(x)}): {error}")


# ---- x[index] = value -----------------------------------------------------------------------


def fitting(name: str, value: Any, dtype: DType) -> Any:
    """Return a value converted to the dtype of the tensor in which it is stored.

    Raises DTypeError for floats in a tensor of integers, or a number out of the dtype's range.
    """
    if value is None:
        raise TypeError(f"{name}: expected a Tensor or a number as the value, got None")
    value = value.item() if isinstance(value, np.generic) else value
    if type(value) in (int, float):
        if dtype.kind in "biu" and (value % 1 or (dtype.kind == "b" and value not in (0, 1))):
            raise DTypeError(f"{name}: {value} does not fit into a tensor of {dtype}. Convert one of them.")
        check_number(name, value, dtype)
        return {"b": bool, "u": int, "i": int}.get(dtype.kind, float)(value)
    array = array_of(value)
    found = getattr(array, "dtype", dtype)
    if found == dtype:
        return value
    if kind_of(found) in "fc" and kind_of(dtype) not in "fc":
        raise DTypeError(f"{name}: {found} values do not fit into a tensor of {dtype}. Convert one of them.")
    check_fit(name, array, dtype)
    return convert(value, dtype, found) if is_floating(found) else convert_to_discrete(value, dtype)


def _put_value(g: Value, in_shape: Sequence[int], basic: Any, slots: Any, accumulate: bool, arrays: Any) -> Value:
    """Return the gradient of the value of :func:`index_put_`."""
    g = slice_(g, basic) if basic else g
    if slots:
        view = tuple(g.shape)
        g = index_(g, slots, False, *arrays)
        stays = None if accumulate else _stays(view, slots, arrays)
        g = g if stays is None else where(stays.reshape((*stays.shape, *(1,) * (len(g.shape) - stays.ndim))), g, 0.0)
    missing = len(in_shape) - len(g.shape)  # a value may have further leading dimensions of size 1
    return reshape(g, (1,) * missing + tuple(g.shape)) if missing > 0 else g


def _stays(shape: tuple[int, ...], slots: Sequence[Any], arrays: Sequence[Array]) -> Array | None:
    """Return which values stay when ``x[slots]`` is assigned, as a mask of its leading dimensions; None for all.

    shape: the shape of x. Where an entry is named twice, the last value stays.
    """
    xp = BACKENDS[type(arrays[0])]
    found = last_writes(xp, shape, _at(slots, arrays))
    if found is None:
        return None
    last, indexed, start = found
    return (last == xp.arange(last.size)).reshape((*(1,) * start, *indexed))


@op(
    lambda g, basic, slots, accumulate, arrays: g if accumulate else index_put_(g, 0, basic, slots, False, *arrays),
    _put_value, None, None, None, None,
)  # fmt: skip
def index_put_(
    xp: Namespace, x: Array, value: Array, basic: tuple[Any, ...], slots: tuple[Any, ...], accumulate: bool,
    *arrays: Array,
) -> Array:  # fmt: skip
    """Return a copy of x with ``value`` stored, or added, at an index."""
    if type(value) in BACKENDS and type(value) is not type(x):  # because a backend would copy it implicitly
        raise TypeError("the value is not on the device of the tensor")
    out = x.copy()
    view = out[basic] if basic else out
    if not accumulate:
        _write(view, slots, arrays, value)
    elif slots:
        xp.scatter_add_into(view, _at(slots, arrays), xp.asarray(value, x.dtype))
    else:
        view += value
    return out


def _write(view: Array, slots: Sequence[Any], arrays: Sequence[Array], value: Any) -> None:
    """Set ``view[slots] = value`` in a raw array. Where an entry is named twice, the last value stays.

    Raises ShapeError if the value does not broadcast.
    """
    while getattr(value, "ndim", 0) > 1 and value.shape[0] == 1:  # NumPy accepts no more dimensions than a mask leaves
        value = value[0]
    places = _at(slots, arrays) if slots else ...
    try:
        if slots and hasattr(value, "ndim"):
            BACKENDS[type(view)].assign_into(view, places, value)
        else:
            view[places] = value
    except ValueError:
        given, indexed = tuple(getattr(value, "shape", ())), view[places].shape
        raise ShapeError(f"a value of shape {given} does not broadcast to the indexed shape {indexed}") from None


def index_put(x: Value, index: Any, value: Operand, accumulate: bool = False) -> Value:
    """Return a copy of x in which ``x[index] = value``, or ``x[index] += value`` if ``accumulate``.

    An entry that the index selects twice gets both values with ``accumulate``. Otherwise the last value stays, and it
    alone gets a gradient. ``value`` broadcasts to ``x[index]``.
    Gradients flow to x and to ``value``.
    Raises IndexError as :func:`getitem`, ShapeError if ``value`` does not broadcast, DTypeError for floats in a tensor
    of integers.
    """
    array = array_of(x)
    basic, slots, arrays = parsed = _parse("index_put", array, index)
    value = fitting("index_put", value, array.dtype)
    try:
        return index_put_(x, value, basic, slots, accumulate, *arrays)
    except IndexError as error:
        raise _explained("index_put", array, parsed, error) from None


def _outside(g: Value, steps: Any, shape: Sequence[int]) -> Value:
    """Return g with 0 in the entries that the view shows, whatever their order in memory."""
    xp = BACKENDS[type(array_of(g))]
    size = math.prod(shape)
    covered = xp.zeros(size, bool)
    covered[replay_view(steps, xp.arange(size).reshape(shape)).reshape(-1)] = True
    return where(covered.reshape(shape), 0.0, g)


@op(lambda g, steps, in_shape: _outside(g, steps, in_shape), lambda g, steps: replay_view(steps, g), bfloat16=True)
def with_view(xp: Namespace, x: Array, part: Array, steps: Any) -> Array:
    """Return x after ``part`` was written to a view of it: the same memory, with a new node in the graph.

    steps: the view ops from x to the view, as in ``Variable.view_info``.
    """
    return x


def assign(array: Array, index: Any, value: Any, name: str = "setitem") -> None:
    """Set ``array[index] = value`` in a raw array, for an index as in :func:`getitem`. ``name`` is for messages.

    Raises IndexError for an index out of range, ShapeError if ``value`` does not broadcast, DeviceError if it is on
    another device.
    """
    basic, slots, arrays = parsed = _parse(name, array, index)
    value = array_of(value)
    if type(value) not in BACKENDS:
        value = _number(name, value, array)
    elif type(value) is not type(array):
        raise DeviceError(
            f"{name}: the value is {describe_array(value)}, but the tensor is {describe_array(array)}. Move it."
        )
    check_fit(name, value, array.dtype)
    try:
        _write(array[basic] if basic else array, slots, arrays, value)
    except IndexError as error:
        raise _explained(name, array, parsed, error) from None


def _number(name: str, value: Any, array: Array) -> Any:
    """Return a number, or nested lists of numbers as an array. Raises an error if they do not fit into the array."""
    value = value.item() if isinstance(value, np.generic) else value
    if type(value) in (int, float):
        check_number(name, value, array.dtype)
        return value
    if isinstance(value, np.ndarray):
        value = plain_array(name, value)
    try:
        given = np.asarray(value)
    except ValueError:
        raise ShapeError(f"{name}: the nested lists of the value have different lengths") from None
    if given.dtype.kind not in ("biufc" if array.dtype.kind == "c" else "biuf"):
        raise TypeError(f"{name}: expected a Tensor or numbers that fit into {array.dtype}, got {value!r:.80}")
    check_fit(name, given, array.dtype)
    return value if given.ndim == 0 else BACKENDS[type(array)].asarray(given)
