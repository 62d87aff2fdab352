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

# The layout of an array: its name, and the axis that it applies to.
Layout: TypeAlias = tuple[str, int]
C_ORDER: Layout = ("C", 0)


@lru_cache(maxsize=512)
def layout_choices(shape: Shape, constant: tuple[int, ...]) -> SearchStrategy[Layout]:
    """Return a strategy for all layouts of a shape. A third of them are C-contiguous.

    constant: the axes along which all entries are equal, which allows a stride of 0.
    """
    dims = range(len(shape))
    choices = [("F", 0)] if len(shape) > 1 else []
    choices += [("offset", 0)] if not shape else []
    choices += [("strided", d) for d in dims] + [("reversed", d) for d in dims]
    choices += [("broadcast", d) for d in constant]
    return st.sampled_from([C_ORDER, *choices, *[C_ORDER] * (len(choices) // 2)])


def lay_out(array: Array, layout: Layout) -> Array:
    """Return a copy with this layout."""
    name, axis = layout
    if name == "F":
        return array.copy(order="F")
    if name == "offset":
        return np.array([np.zeros_like(array), array])[1:].reshape(())
    if name == "strided":
        padded = list(array.shape)
        padded[axis] = 2 * padded[axis] + 1
        view = np.ones(padded, array.dtype)[_along(axis, slice(1, None, 2))]
        view[...] = array
        return view
    if name == "reversed":
        return np.flip(np.flip(array, axis).copy(), axis)
    if name == "broadcast":
        return np.broadcast_to(array[_along(axis, slice(0, 1))].copy(), array.shape)
    return array.copy(order="C")


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, part)


def layouts(array: Any) -> SearchStrategy[Array]:
    """Draw copies of an array in all memory layouts.

    They are C-contiguous, Fortran-contiguous (transposed), strided or reversed. Along dimensions in which all entries
    are equal they may be broadcast with a stride of 0, which makes them read-only. Shrinks to C-contiguous.
    array: an array, or an argument of ``np.asarray``.
    """
    known = np.asarray(array.array if isinstance(array, Tensor) else array)
    constant = tuple(
        d for d, n in enumerate(known.shape) if n > 1 and bool((known == known[_along(d, slice(0, 1))]).all())
    )
    return layout_choices(known.shape, constant).map(lambda layout: lay_out(known, layout))
