"""Functions of float32 arrays that have a different formula in each of two ranges, as loops that numba compiles.

The form of the kernels is that of ``elementwise_kernels.py``. They round each operation as NumPy does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .parallel_for import bind_kernel, parallel_for
from .support import ENTRY, INNER, njit

__all__ = ["HUBER", "HUBER_SLOPE", "LEAKY", "LERP", "RELU_SLOPE", "of_two", "weighted"]

Array = Any
f32 = np.float32

HUBER, HUBER_SLOPE, LEAKY, LERP, RELU_SLOPE = range(5)

_GRAIN_SIZE = 1024  # entries, 4 KB


@njit(**INNER)
def _kept(d: Any, a: Any) -> Any:
    """Return d, kept between -a and a. NaN stays."""
    c = -a if d < -a else d
    return a if c > a else c


@njit(**INNER)
def of_two_range(code: int, x: Array, y: Array, a: Any, b: Any, out: Array, start: int, stop: int) -> None:
    x, y, out = x[start:stop], y[start:stop], out[start:stop]
    if code == HUBER:
        for i in range(out.size):
            d = x[i] - y[i]
            c = _kept(d, a)
            out[i] = c * (d - f32(0.5) * c)
    elif code == HUBER_SLOPE:
        for i in range(out.size):
            out[i] = _kept(x[i] - y[i], a)
    elif code == LEAKY:
        for i in range(out.size):
            scaled = x[i] * a
            out[i] = x[i] if y[i] > f32(0) else scaled
    elif code == RELU_SLOPE:
        for i in range(out.size):
            out[i] = f32(0) if y[i] <= f32(0) else x[i]  # NaN stays
    elif a < f32(0.5) and a > f32(-0.5):
        for i in range(out.size):
            out[i] = x[i] + a * (y[i] - x[i])
    else:
        for i in range(out.size):
            out[i] = y[i] - b * (y[i] - x[i])


@njit(**ENTRY)
def of_two(pool: int, code: int, x: Array, y: Array, a: Any, b: Any, out: Array) -> None:
    """Write what the code says.

    HUBER: ``c (d - c / 2)`` for d = x - y and c, which is d kept between -a and a. HUBER_SLOPE: c. LEAKY: x where y is
    positive, else ``a x``. RELU_SLOPE: 0 where y is at most 0, else x. LERP: ``x + a (y - x)``, computed from the
    nearer end, with b = 1 - a.
    """
    parallel_for(pool, bind_kernel(of_two_range, (code, x, y, a, b, out)), out.size, _GRAIN_SIZE, 1)


@njit(**INNER)
def weighted_range(x: Array, y: Array, weight: Array, out: Array, start: int, stop: int) -> None:
    x, y, weight, out = x[start:stop], y[start:stop], weight[start:stop], out[start:stop]
    for i in range(out.size):
        w, d = weight[i], y[i] - x[i]
        low, high = x[i] + w * d, y[i] - (f32(1) - w) * d
        out[i] = low if abs(w) < f32(0.5) else high


@njit(**ENTRY)
def weighted(pool: int, x: Array, y: Array, weight: Array, out: Array) -> None:
    """Write ``x + weight (y - x)``, computed from the nearer end."""
    parallel_for(pool, bind_kernel(weighted_range, (x, y, weight, out)), out.size, _GRAIN_SIZE, 1)
