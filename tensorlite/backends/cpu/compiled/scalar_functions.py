"""Functions of one float32 number, in a form that loops vectorise."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .support import INLINE, njit

__all__ = ["exp", "log", "log1p_unit"]

f32 = np.float32


@intrinsic
def _bits_to_float32(context: Any, bits: Any) -> Any:
    """Reinterpret the bits of an int32 as a float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _float32_to_bits(context: Any, x: Any) -> Any:
    """Reinterpret a float32 as an int32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


# exp(x) = 2^n exp(r) with r = x - n log 2, |r| <= log(2) / 2. log 2 is in two parts, so that r is exact (Cody and
# Waite, "Software Manual for the Elementary Functions", 1980). exp(r) = 1 + r + r^2 p(r), a minimax fit from Cephes.
_LOG2_E, _LOG2_HIGH, _LOG2_LOW = f32(1.4426950408889634), f32(0.693359375), f32(-2.12194440e-4)
_P2, _P3, _P4 = f32(0.5), f32(1.6666665459e-1), f32(4.1665795894e-2)
_P5, _P6, _P7 = f32(8.3334519073e-3), f32(1.3981999507e-3), f32(1.9875691500e-4)
_MIN_X, _MAX_X = f32(-88.0), f32(89.0)  # 2^n is 0 at the first, and infinite at the second


@njit(**INLINE, fastmath={"contract"})
def exp(x: Any) -> Any:
    """Return exp(x) of a float32, accurate to its last digit or two: 0 below -87.6, inf above 88.3, NaN for NaN."""
    y = min(max(x, _MIN_X), _MAX_X)
    n = np.floor(y * _LOG2_E + f32(0.5))
    r = (y - n * _LOG2_HIGH) - n * _LOG2_LOW
    p = ((((_P7 * r + _P6) * r + _P5) * r + _P4) * r + _P3) * r + _P2
    return (p * r * r + r + f32(1)) * _bits_to_float32((np.int32(n) + np.int32(127)) << np.int32(23))


# log(x) = n log 2 + log(1 + f) for x = 2^n (1 + f) with 1 + f from sqrt(1/2) to sqrt(2). The fit of log(1 + f) is from
# Cephes, highest power first.
_ROOT_HALF, _INFINITY = np.int32(0x3F3504F3), f32(np.inf)
_L8, _L7, _L6 = f32(7.0376836292e-2), f32(-1.1514610310e-1), f32(1.1676998740e-1)
_L5, _L4, _L3 = f32(-1.2420140846e-1), f32(1.4249322787e-1), f32(-1.6668057665e-1)
_L2, _L1, _L0 = f32(2.0000714765e-1), f32(-2.4999993993e-1), f32(3.3333331174e-1)


@njit(**INLINE, fastmath={"contract"})
def _log_near(f: Any, n: Any) -> Any:
    """Return ``n log 2 + log(1 + f)``."""
    s = f * f
    p = ((((((((_L8 * f + _L7) * f + _L6) * f + _L5) * f + _L4) * f + _L3) * f + _L2) * f + _L1) * f + _L0) * f * s
    p = (p + n * _LOG2_LOW) - f32(0.5) * s
    return (f + p) + n * _LOG2_HIGH


@njit(**INLINE, fastmath={"contract"})
def log1p_unit(x: Any) -> Any:
    """Return log(1 + x) of a float32 from 0 to 1, accurate to its last digit or two."""
    large = x > f32(0.41421357)
    return _log_near((x - f32(1)) * f32(0.5) if large else x, f32(1) if large else f32(0))


@njit(**INLINE, fastmath={"contract"})
def log(x: Any) -> Any:
    """Return log(x) of a float32 that is positive and not subnormal, accurate to its last digit or two."""
    bits = _float32_to_bits(x)
    n = (bits - _ROOT_HALF) >> np.int32(23)
    f = _bits_to_float32(bits - (n << np.int32(23))) - f32(1)
    return _log_near(f, f32(n)) if x < _INFINITY else x
