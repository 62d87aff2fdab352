"""The largest entry of a row of float32 numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .simd import largest_lane, load_16, max_16, splat_16
from .support import INNER, njit

__all__ = ["row_max"]

Array = Any
f32 = np.float32


@njit(**INNER)
def row_max(x: Array) -> Any:
    """Return the largest entry of a contiguous row. NaN is left out; -inf if there is nothing else.

    numba compares one entry after the other, because of NaN. Here 32 are compared at a time.
    """
    n, at = x.size, np.int64(x.ctypes.data)
    if n < 16:
        top = f32(-np.inf)
        for j in range(n):
            top = x[j] if x[j] > top else top
        return top
    a = b = splat_16(f32(-np.inf))
    for j in range(0, n - 31, 32):
        a, b = max_16(load_16(at + 4 * j), a), max_16(load_16(at + 4 * j + 64), b)
    if n % 32 >= 16:
        a = max_16(load_16(at + 4 * (n - n % 32)), a)
    return largest_lane(max_16(max_16(load_16(at + 4 * (n - 16)), a), b))  # the last entries, some of them again
