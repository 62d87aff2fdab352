"""Strategies for shapes."""

from __future__ import annotations

from functools import lru_cache

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from .arguments import Shape, as_int, check_range
from .primitives import BOOLEANS, integers

__all__ = ["broadcastable", "draw_broadcastable_to", "shapes", "shapes_between", "size_choices"]


@lru_cache(maxsize=64)
def size_choices(low: int, high: int) -> SearchStrategy[int]:
    """Return a strategy for a size. It shrinks to 1. Where 0 is allowed, one size in sixteen is 0."""
    above = [n for n in range(low, high + 1) if n]
    if low > 0 or not above:
        return st.sampled_from(above or [0])
    return st.sampled_from([*(above * 15)[:15], 0])


def shapes(min_dims: int = 0, max_dims: int = 3, *, min_size: int = 0, max_size: int = 3) -> SearchStrategy[Shape]:
    """Draw shapes, 0-d ones included. One size in sixteen is 0. Shrinks to few dimensions of size 1.

    Raises ValueError if a minimum is above its maximum.
    """
    check_range("shapes: dims", min_dims, max_dims)
    check_range("shapes: sizes", min_size, max_size)
    return shapes_between(min_dims, max_dims, min_size, max_size)


@st.composite
def shapes_between(draw: DrawFn, min_dims: int, max_dims: int, min_size: int, max_size: int) -> Shape:
    """Draw a shape without checking the arguments."""
    size = size_choices(min_size, max_size)
    return tuple(draw(size) for _ in range(draw(integers(min_dims, max_dims))))


def broadcastable(
    count: int = 2, *, min_dims: int = 0, max_dims: int = 3, min_size: int = 0, max_size: int = 3
) -> SearchStrategy[tuple[Shape, ...]]:
    """Draw ``count`` shapes that broadcast together: equal, with 1s, with fewer dimensions, 0-d, or with size 0.

    min_dims: the least number of dimensions of each shape. Shrinks to equal shapes.
    Raises ValueError if a minimum is above its maximum, or for a count below 1.
    """
    check_range("broadcastable: dims", min_dims, max_dims)
    check_range("broadcastable: sizes", min_size, max_size)
    if as_int("broadcastable: count", count) < 1:
        raise ValueError(f"broadcastable: expected a count of 1 or more, got {count}")
    return _broadcastable(count, min_dims, max_dims, min_size, max_size)


@st.composite
def _broadcastable(
    draw: DrawFn, count: int, min_dims: int, max_dims: int, min_size: int, max_size: int
) -> tuple[Shape, ...]:
    full = draw(shapes_between(min_dims, max_dims, min_size, max_size))
    return tuple(draw_broadcastable_to(draw, full, min_dims, min_size) for _ in range(count))


def draw_broadcastable_to(draw: DrawFn, full: Shape, min_dims: int = 0, min_size: int = 0) -> Shape:
    """Draw a shape that broadcasts to ``full``. Half of them are ``full``; the others lack dims or have sizes of 1."""
    if not full or not draw(BOOLEANS):
        return full
    shape = full[draw(integers(0, len(full) - min_dims)) :]
    ones = draw(integers(0, 2 ** len(shape) - 1)) if min_size <= 1 else 0
    return tuple(1 if ones >> i & 1 else n for i, n in enumerate(shape))
