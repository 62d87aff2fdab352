"""Where a NumPy array lies in the memory of another one, and arrays that show the memory of another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["memory_offset", "rows_of", "view_at"]

Array = Any


def memory_offset(array: Array, owner: Array) -> int:
    """Return the distance in bytes from the first entry of ``owner`` to that of ``array``, a view of it."""
    return int(array.__array_interface__["data"][0]) - int(owner.__array_interface__["data"][0])


def view_at(owner: Array, offset: int, shape: Sequence[int], dtype: Any, strides: Sequence[int]) -> Array:
    """Return the view of a contiguous array that starts ``offset`` bytes behind its start. Strides are in bytes."""
    memory = owner if owner.flags.c_contiguous else owner.T
    return np.ndarray(tuple(shape), dtype, memory, offset if 0 not in shape else 0, tuple(strides))


def rows_of(x: Array) -> Array:
    """Return an array as a matrix whose rows are those of its last dimension."""
    return x.reshape(-1, x.shape[-1])
