"""Strategies for dimensions and indices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from ...tensors.creation import from_numpy
from .arguments import Shape, as_int, as_shape
from .entries import Array
from .primitives import BOOLEANS, byte_strings, integers
from .sizes import draw_broadcastable_to, shapes_between

__all__ = ["axes", "indices"]

_AXIS_KINDS = ("int", "negative", "tuple", "none")


def axes(ndim: int, kinds: Sequence[str] = _AXIS_KINDS) -> SearchStrategy[int | tuple[int, ...] | None]:
    """What a ``dim`` argument may be for a tensor of ``ndim`` dimensions.

    kinds: of ``"int"`` (from 0 up), ``"negative"``, ``"tuple"`` (one dimension or several, no two the same, in any
    order and with either sign) and ``"none"``. A 0-d tensor counts as having one dimension, as in PyTorch.
    Raises ValueError for another kind.
    """
    if isinstance(kinds, str) or not kinds or set(kinds) - set(_AXIS_KINDS):
        raise ValueError(f"axes: kinds is made of {', '.join(map(repr, _AXIS_KINDS))}, got {kinds!r}")
    if as_int("axes: ndim", ndim) < 0:
        raise ValueError(f"axes: ndim is 0 or more, got {ndim}")
    count = max(ndim, 1)
    ways: list[SearchStrategy[Any]] = []
    if "int" in kinds:
        ways.append(integers(0, count - 1))
    if "negative" in kinds:
        ways.append(integers(-count, -1).map(lambda d: -count - 1 - d))  # -1 is the simplest
    if "tuple" in kinds:
        ways.append(_axis_tuples(count))
    if "none" in kinds:
        ways.append(st.none())
    return st.one_of(ways)


@st.composite
def _axis_tuples(draw: DrawFn, count: int) -> tuple[int, ...]:
    left = list(range(count))
    picked = [left.pop(draw(integers(0, len(left) - 1))) for _ in range(draw(integers(1, count)))]
    signs = draw(integers(0, 2 ** len(picked) - 1))
    return tuple(d - count if signs >> i & 1 else d for i, d in enumerate(picked))


_INDEX_KINDS = ("int", "slice", "none", "ellipsis", "array", "mask")


def indices(shape: Shape, kinds: Sequence[str] = _INDEX_KINDS) -> SearchStrategy[Any]:
    """Indices of every kind that ``x[index]`` takes for an x of this shape; all are valid.

    kinds: of ``"int"`` (of either sign), ``"slice"`` (with any step, past the end, empty), ``"none"``, ``"ellipsis"``,
    ``"array"`` (NumPy arrays, lists and Tensors of int64, of any sign, which may name a place twice and broadcast
    against each other) and ``"mask"`` (booleans over one dimension or several). An index is one of them or a tuple
    of several. Shrinks to ``()``. Raises ValueError for another kind.
    """
    if isinstance(kinds, str) or not kinds or set(kinds) - set(_INDEX_KINDS):
        raise ValueError(f"indices: kinds is made of {', '.join(map(repr, _INDEX_KINDS))}, got {kinds!r}")
    return _indices(as_shape("indices", shape), frozenset(kinds))


@lru_cache(maxsize=256)
def _one_of(ways: tuple[str, ...]) -> SearchStrategy[str]:
    return st.sampled_from(ways)


@st.composite
def _indices(draw: DrawFn, shape: Shape, kinds: frozenset[str]) -> Any:
    """First a way for every dimension; then what picks from several, which has to broadcast; then None and ``...``."""
    items: list[Any] = []
    picks: list[tuple[int, str, Shape]] = []  # the place among items, the way, the sizes it picks from
    dim = 0
    while dim < len(shape):
        sizes = shape[dim:]
        ways = ["whole"]
        ways += ["slice"] if "slice" in kinds else []
        ways += ["int"] if "int" in kinds and sizes[0] else []
        ways += ["array"] if "array" in kinds else []
        ways += ["mask"] if "mask" in kinds else []
        way = draw(_one_of(tuple(ways)))
        width = draw(integers(1, len(sizes))) if way == "mask" else 1
        if way in ("array", "mask"):
            picks.append((len(items), way, sizes[:width]))
        item: Any = _ALL
        if way == "slice":
            item = _draw_slice(draw, sizes[0])
        elif way == "int":
            item = draw(integers(-sizes[0], sizes[0] - 1))
        items.append(item)
        dim += width
    if not shape and "mask" in kinds and draw(BOOLEANS):
        picks.append((0, "mask", ()))
        items.append(_ALL)
    for place, item in _draw_picks(draw, picks):
        items[place] = item
    if "ellipsis" in kinds and draw(BOOLEANS):  # in the place of some that are whole, or of none
        first = last = draw(integers(0, len(items)))
        while last < len(items) and items[last] is _ALL:
            last += 1
        items[first:last] = [...]
    elif "slice" not in kinds or draw(BOOLEANS):
        while items and items[-1] is _ALL:
            items.pop()
    if "none" in kinds and draw(BOOLEANS):
        for _ in range(draw(integers(1, 2))):
            items.insert(draw(integers(0, len(items))), None)
    return items[0] if len(items) == 1 and draw(BOOLEANS) else tuple(items)


_ALL = slice(None)


def _draw_slice(draw: DrawFn, size: int) -> slice:
    """From anywhere to anywhere, past both ends too, with any step."""
    ends = _ends(size)
    return slice(draw(ends), draw(ends), draw(_STEPS))


@lru_cache(maxsize=64)
def _ends(size: int) -> SearchStrategy[int | None]:
    return st.sampled_from([None, *range(size + 2), *range(-1, -size - 2, -1)])


_STEPS = st.sampled_from([None, 2, -1, 1, 3, -2])


def _draw_picks(draw: DrawFn, picks: list[tuple[int, str, Shape]]) -> Iterable[tuple[int, Any]]:
    """The index arrays and masks of one index, with their places. What they pick has to broadcast together."""
    empty = any(0 in sizes for _, _, sizes in picks)  # whoever picks from nothing picks nothing, and so do the others
    masks = [(place, sizes) for place, way, sizes in picks if way == "mask"]
    common: Shape = ()
    if masks:
        place, sizes = masks[0]
        bits = 0 if empty else draw(integers(0, 2 ** math.prod(sizes) - 1))
        common = (bits.bit_count(),)
        yield place, np.array([bits >> i & 1 for i in range(math.prod(sizes))], bool).reshape(sizes)
        for place, sizes in masks[1:]:
            count = common[0] if common[0] <= math.prod(sizes) else 1
            yield place, _mask_of(draw, sizes, count)
    elif picks:
        common = (0,) if empty else draw(shapes_between(0, 2, 0, 3))
    for place, way, sizes in picks:
        if way == "array":
            (size,) = sizes
            shape = draw_broadcastable_to(draw, common) if size else common
            yield place, _as_index(draw, size, shape)


def _mask_of(draw: DrawFn, sizes: Shape, count: int) -> Array:
    """A mask that picks so many places."""
    mask, left = np.zeros(math.prod(sizes), bool), list(range(math.prod(sizes)))
    for _ in range(count):
        mask[left.pop(draw(integers(0, len(left) - 1)))] = True
    return mask.reshape(sizes)


def _as_index(draw: DrawFn, size: int, shape: Shape) -> Any:
    """Places, duplicates among them, as an array of int64 or int32, a Tensor or, where there are some, a list."""
    count = math.prod(shape)
    picked = [byte % (2 * size) for byte in draw(byte_strings(count))] if count else []
    array = np.array([p if p < size else size - 1 - p for p in picked], np.int64).reshape(shape)
    form = draw(_FORMS)
    if form == "list" and array.ndim and count:
        return array.tolist()
    if form == "int32":
        return array.astype(np.int32)
    return from_numpy(array) if form == "tensor" else array


_FORMS = st.sampled_from(["array", "list", "tensor", "int32"])
