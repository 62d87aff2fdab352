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
    """Draw valid ``dim`` arguments for a tensor of ``ndim`` dimensions.

    kinds: some of ``"int"`` (0 or more), ``"negative"``, ``"tuple"`` (one or several different dimensions, in any order
        and with either sign) and ``"none"``.
    A 0-d tensor counts as having one dimension, as in PyTorch. Raises ValueError for an unknown kind.
    """
    if isinstance(kinds, str) or not kinds or set(kinds) - set(_AXIS_KINDS):
        raise ValueError(f"axes: expected some of the kinds {', '.join(map(repr, _AXIS_KINDS))}, got {kinds!r}")
    if as_int("axes: ndim", ndim) < 0:
        raise ValueError(f"axes: expected ndim of 0 or more, got {ndim}")
    count = max(ndim, 1)
    choices: list[SearchStrategy[Any]] = []
    if "int" in kinds:
        choices.append(integers(0, count - 1))
    if "negative" in kinds:
        choices.append(integers(-count, -1).map(lambda d: -count - 1 - d))  # -1 is the simplest
    if "tuple" in kinds:
        choices.append(_axis_tuples(count))
    if "none" in kinds:
        choices.append(st.none())
    return st.one_of(choices)


@st.composite
def _axis_tuples(draw: DrawFn, count: int) -> tuple[int, ...]:
    left = list(range(count))
    picked = [left.pop(draw(integers(0, len(left) - 1))) for _ in range(draw(integers(1, count)))]
    signs = draw(integers(0, 2 ** len(picked) - 1))
    return tuple(d - count if signs >> i & 1 else d for i, d in enumerate(picked))


_INDEX_KINDS = ("int", "slice", "none", "ellipsis", "array", "mask")


def indices(shape: Shape, kinds: Sequence[str] = _INDEX_KINDS) -> SearchStrategy[Any]:
    """Draw valid indices of all kinds for a tensor x of this shape, for ``x[index]``.

    kinds: some of ``"int"`` (of either sign), ``"slice"`` (with any step, past the end, empty), ``"none"``,
        ``"ellipsis"``, ``"array"`` (arrays, lists and Tensors of integers of either sign, with duplicates, which
        broadcast together) and ``"mask"`` (booleans over one or several dimensions).
    An index is one of these, or a tuple of several. Shrinks to ``()``. Raises ValueError for an unknown kind.
    """
    if isinstance(kinds, str) or not kinds or set(kinds) - set(_INDEX_KINDS):
        raise ValueError(f"indices: expected some of the kinds {', '.join(map(repr, _INDEX_KINDS))}, got {kinds!r}")
    return _indices(as_shape("indices", shape), frozenset(kinds))


@lru_cache(maxsize=256)
def _one_of(allowed: tuple[str, ...]) -> SearchStrategy[str]:
    return st.sampled_from(allowed)


@st.composite
def _indices(draw: DrawFn, shape: Shape, kinds: frozenset[str]) -> Any:
    """Draw an index: a kind for each dimension, arrays and masks that broadcast, then None and ``...``."""
    items: list[Any] = []
    picks: list[tuple[int, str, Shape]] = []  # the position in items, the kind, the sizes it selects from
    dim = 0
    while dim < len(shape):
        sizes = shape[dim:]
        allowed = ["full"]
        allowed += ["slice"] if "slice" in kinds else []
        allowed += ["int"] if "int" in kinds and sizes[0] else []
        allowed += ["array"] if "array" in kinds else []
        allowed += ["mask"] if "mask" in kinds else []
        kind = draw(_one_of(tuple(allowed)))
        width = draw(integers(1, len(sizes))) if kind == "mask" else 1
        if kind in ("array", "mask"):
            picks.append((len(items), kind, sizes[:width]))
        item: Any = _ALL
        if kind == "slice":
            item = _draw_slice(draw, sizes[0])
        elif kind == "int":
            item = draw(integers(-sizes[0], sizes[0] - 1))
        items.append(item)
        dim += width
    if not shape and "mask" in kinds and draw(BOOLEANS):
        picks.append((0, "mask", ()))
        items.append(_ALL)
    for position, item in _draw_picks(draw, picks):
        items[position] = item
    if "ellipsis" in kinds and draw(BOOLEANS):  # it replaces some full slices, or none
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
    """Draw a slice with any start, stop and step, also past both ends."""
    ends = _ends(size)
    return slice(draw(ends), draw(ends), draw(_STEPS))


@lru_cache(maxsize=64)
def _ends(size: int) -> SearchStrategy[int | None]:
    return st.sampled_from([None, *range(size + 2), *range(-1, -size - 2, -1)])


_STEPS = st.sampled_from([None, 2, -1, 1, 3, -2])


def _draw_picks(draw: DrawFn, picks: list[tuple[int, str, Shape]]) -> Iterable[tuple[int, Any]]:
    """Draw the index arrays and masks of one index, with their positions. Their shapes broadcast together."""
    # An index into a dimension of size 0 must be empty, and so must all indices that broadcast with it.
    empty = any(0 in sizes for _, _, sizes in picks)
    masks = [(position, sizes) for position, kind, sizes in picks if kind == "mask"]
    common: Shape = ()
    if masks:
        position, sizes = masks[0]
        bits = 0 if empty else draw(integers(0, 2 ** math.prod(sizes) - 1))
        common = (bits.bit_count(),)
        yield position, np.array([bits >> i & 1 for i in range(math.prod(sizes))], bool).reshape(sizes)
        for position, sizes in masks[1:]:
            count = common[0] if common[0] <= math.prod(sizes) else 1
            yield position, _mask_of(draw, sizes, count)
    elif picks:
        common = (0,) if empty else draw(shapes_between(0, 2, 0, 3))
    for position, kind, sizes in picks:
        if kind == "array":
            (size,) = sizes
            shape = draw_broadcastable_to(draw, common) if size else common
            yield position, _as_index(draw, size, shape)


def _mask_of(draw: DrawFn, sizes: Shape, count: int) -> Array:
    """Draw a mask with ``count`` entries that are True."""
    mask, left = np.zeros(math.prod(sizes), bool), list(range(math.prod(sizes)))
    for _ in range(count):
        mask[left.pop(draw(integers(0, len(left) - 1)))] = True
    return mask.reshape(sizes)


def _as_index(draw: DrawFn, size: int, shape: Shape) -> Any:
    """Draw integer indices, with duplicates, as an int64 or int32 array, a Tensor or (if there are any) a list."""
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
