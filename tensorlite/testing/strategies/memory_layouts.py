"""Strategies for the memory layout of arrays."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ...tensors.tensor import Tensor
from .arguments import Shape
from .entries import Array

__all__ = ["C_ORDER", "lay_out", "layout_choices", "layouts"]

# Ways to lay out an array: how, and along which axis.
Layout: TypeAlias = tuple[str, int]
C_ORDER: Layout = ("C", 0)


@lru_cache(maxsize=512)
def layout_choices(shape: Shape, constant: tuple[int, ...]) -> SearchStrategy[Layout]:
    """All layouts for a shape whose entries are, or may be, constant along these axes; plain ones in a third."""
    dims = range(len(shape))
    ways = [("F", 0)] if len(shape) > 1 else []
    ways += [("offset", 0)] if not shape else []
    ways += [("strided", d) for d in dims] + [("reversed", d) for d in dims]
    ways += [("broadcast", d) for d in constant]
    return st.sampled_from([C_ORDER, *ways, *[C_ORDER] * (len(ways) // 2)])


def lay_out(array: Array, way: Layout) -> Array:
    """The same entries, in new memory."""
    how, axis = way
    if how == "F":
        return array.copy(order="F")
    if how == "offset":
        return np.array([np.zeros_like(array), array])[1:].reshape(())
    if how == "strided":
        room = list(array.shape)
        room[axis] = 2 * room[axis] + 1
        view = np.ones(room, array.dtype)[_along(axis, slice(1, None, 2))]
        view[...] = array
        return view
    if how == "reversed":
        return np.flip(np.flip(array, axis).copy(), axis)
    if how == "broadcast":
        return np.broadcast_to(array[_along(axis, slice(0, 1))].copy(), array.shape)
    return array.copy(order="C")


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, part)


def layouts(array: Any) -> SearchStrategy[Array]:
    """The same entries in new memory, laid out in every way: C, Fortran (transposed), with steps, with negative
    strides and, along dimensions in which all entries are equal, with a stride of 0 (these are read-only).

    Shrinks to C. Takes an array or what ``np.asarray`` makes one of.
    """
    known = np.asarray(array.array if isinstance(array, Tensor) else array)
    constant = tuple(
        d for d, n in enumerate(known.shape) if n > 1 and bool((known == known[_along(d, slice(0, 1))]).all())
    )
    return layout_choices(known.shape, constant).map(lambda way: lay_out(known, way))
