"""A short description of an array's values, to notice whether they are computed again with the same result."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backends.registry import BACKENDS, Array

__all__ = ["fingerprint", "is_same"]

_WEIGHTS = np.random.Generator(np.random.PCG64(0)).standard_normal(251)
_TOLERANCE = 1e-5  # of the norm: the last bits may differ on a GPU, where the order of atomic additions does


def fingerprint(x: Array) -> tuple[Any, Any]:
    """Return a random projection of the values and the square of their norm, as 0-d arrays on the array's device.

    The projection of the difference of two arrays is about the norm of that difference. So it shows a change of one
    entry, and entries in another order. The norm is estimated from partial projections, which are fewer numbers.
    """
    xp = BACKENDS[type(x)]
    flat = x.reshape(-1)
    if flat.dtype.kind != "f" or flat.dtype.itemsize < 4:
        flat = flat.astype(xp.float32)
    level, n = 0, len(_WEIGHTS)
    square = flat @ flat if flat.size <= n else None
    while flat.size > n:
        rows = flat.size // n
        weights = xp.asarray(np.roll(_WEIGHTS, level).astype(flat.dtype))
        flat = xp.concatenate([xp.matmul(flat[: rows * n].reshape(rows, n), weights), flat[rows * n :]])
        square = flat @ flat if square is None else square
        level += 1
    return flat @ xp.asarray(_WEIGHTS[: flat.size].astype(flat.dtype)), square


def is_same(first: tuple[Any, Any], second: tuple[Any, Any]) -> bool:
    """Return whether two fingerprints are those of equal values. Values with NaN or infinity all count as equal."""
    (p, square_p), (q, square_q) = ([float(v) for v in pair] for pair in (first, second))
    if not all(map(math.isfinite, (p, q))):
        return math.isfinite(p) == math.isfinite(q)
    return abs(p - q) <= _TOLERANCE * math.sqrt(max(square_p, square_q))
