"""Checks of the arguments that users give to strategies."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, TypeAlias

__all__ = ["Shape", "as_int", "as_shape", "check_range"]

Shape: TypeAlias = tuple[int, ...]

def as_int(what: str, value: Any) -> int:
    """Return the value as an int. Raise TypeError, with ``what`` as its subject, if it is not an integer."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an int, got {value!r:.60}") from None


def as_shape(name: str, shape: Any) -> Shape:
    """Return the shape as a tuple of ints. Raise TypeError or ValueError if it is not a shape."""
    if isinstance(shape, str) or not isinstance(shape, Iterable):
        raise TypeError(f"{name}: expected a shape, a tuple of sizes, got {shape!r:.60}")
    sizes = tuple(as_int(f"{name}: a size", n) for n in shape)
    if min(sizes, default=0) < 0:
        raise ValueError(f"{name}: expected sizes of 0 or more, got {sizes}")
    return sizes


def check_range(name: str, low: int, high: int) -> None:
    """Raise ValueError unless 0 <= low <= high."""
    low, high = (as_int(name, n) for n in (low, high))
    if not 0 <= low <= high:
        raise ValueError(f"{name}: expected 0 <= minimum <= maximum, got {low} and {high}")
