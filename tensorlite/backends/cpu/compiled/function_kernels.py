"""Functions of float32 numbers that NumPy computes in several passes, or one number at a time.

``unary`` and ``binary`` each have one loop for each function, which a code chooses. The form of the kernels is that of
``elementwise_kernels.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...reference import ERF_NEAR, ERFC_FAR
from .parallel_for import bind_kernel, parallel_for
from .scalar_functions import exp, log1p_unit
from .support import ENTRY, INLINE, LOOP, njit

__all__ = [
    "ERF", "FLOOR_DIVIDE", "FMOD", "LOGADDEXP", "LOG_SIGMOID", "REMAINDER", "SIGMOID", "SIGMOID_SLOPE", "SIGN",
    "binary", "unary",
]  # fmt: skip

Array = Any
f32, f64 = np.float32, np.float64

SIGMOID, LOG_SIGMOID, ERF, SIGN = range(4)
FMOD, REMAINDER, LOGADDEXP, FLOOR_DIVIDE, SIGMOID_SLOPE = range(5)

_GRAIN_SIZE = 1024  # entries, 4 KB
_NEAR, _FAR = tuple(map(f32, ERF_NEAR)), tuple(map(f32, ERFC_FAR))
_LOG_2 = f32(np.log(2))
_MAX_WHOLE = 2.0**24  # up to it float32 has each integer
_MAX_QUOTIENT = 2.0**28  # up to it the quotient of two float32 numbers has its exact integer part in float64


@njit(**INLINE)
def _polynomial(u: Any, coefficients: Any) -> Any:
    p = coefficients[0]
    for c in coefficients[1:]:
        p = p * u + c
    return p


@njit(**INLINE)
def _erf(x: Any) -> Any:
    """Return erf(x), as ``reference.erf`` does."""
    size = abs(x)
    near = x * _polynomial(f32(2) * x * x - f32(1), _NEAR)
    far = min(max(size, f32(1)), f32(6))
    u = (f32(3) / (far + f32(3))) * f32(4.8) - f32(2.6)
    tail = f32(1) - _polynomial(u, _FAR) * exp(-far * far)
    return near if size < f32(1) else x if x != x else -tail if x < f32(0) else tail


@njit(**LOOP)
def unary_range(code: int, x: Array, out: Array, start: int, stop: int) -> None:
    x, out = x[start:stop], out[start:stop]
    if code == SIGMOID:
        for i in range(out.size):
            out[i] = f32(1) / (f32(1) + exp(-x[i]))
    elif code == LOG_SIGMOID:
        for i in range(out.size):
            a = f32(0) if x[i] > f32(0) else x[i]  # NaN stays
            out[i] = a - log1p_unit(exp(-abs(x[i])))
    elif code == SIGN:
        for i in range(out.size):
            out[i] = f32(x[i] > f32(0)) - f32(x[i] < f32(0))  # 0 for NaN
    else:
        for i in range(out.size):
            out[i] = _erf(x[i])


@njit(**ENTRY)
def unary(pool: int, code: int, x: Array, out: Array) -> None:
    """Write the sigmoid of x, its logarithm, the error function or the sign, as the code says."""
    parallel_for(pool, bind_kernel(unary_range, (code, x, out)), out.size, _GRAIN_SIZE, 1)


@njit(**INLINE)
def _rest(a: Any, b: Any) -> Any:
    """Return ``a - trunc(a / b) b`` of float64 numbers, exact for float32 ones with a quotient up to the largest."""
    q = np.trunc(a / b)
    return a if q == 0 else a - q * b


@njit(**INLINE)
def _whole_quotient(a: Any, b: Any) -> Any:
    """Return ``floor(a / b)`` of float64 numbers as NumPy does: NaN for an infinite a, -1 for -1 / inf."""
    q = np.floor(a / b)
    q = -1.0 if (q == 0) & (a != 0) & ((a < 0) != (b < 0)) else q
    return np.nan if (abs(a) == np.inf) & (b != 0) else q


@njit(**LOOP)
def binary_range(code: int, x: Array, y: Array, out: Array, failed: Array, start: int, stop: int) -> None:
    x, y, out = x[start:stop], y[start:stop], out[start:stop]
    failures = np.int64(0)
    if code == SIGMOID_SLOPE:
        for i in range(out.size):
            out[i] = x[i] * (y[i] * (f32(1) - y[i]))
        return
    if code == LOGADDEXP:
        for i in range(out.size):
            a, b = x[i], y[i]
            d = -abs(a - b)
            total = (a if a > b else b) + log1p_unit(exp(d))
            total = d if d != d else total
            out[i] = a + _LOG_2 if a == b else total  # equal infinities have no difference
        return
    limit = _MAX_WHOLE if code == FLOOR_DIVIDE else _MAX_QUOTIENT
    for i in range(out.size):
        q = abs(f64(x[i]) / f64(y[i]))
        failures += (q >= limit) & (q < np.inf)
    if code == FMOD:
        for i in range(out.size):
            out[i] = np.copysign(f32(_rest(f64(x[i]), f64(y[i]))), x[i])
    elif code == FLOOR_DIVIDE:
        for i in range(out.size):
            out[i] = f32(_whole_quotient(f64(x[i]), f64(y[i])))
    else:
        for i in range(out.size):
            b = f64(y[i])
            rest = _rest(f64(x[i]), b)
            zero, crosses = rest == 0, (rest < 0) != (b < 0)
            whole = f32(rest + b if crosses else rest)
            out[i] = np.copysign(f32(0), y[i]) if zero else whole
    if failures:
        failed[0] = True


@njit(**ENTRY)
def binary(pool: int, code: int, x: Array, y: Array, out: Array) -> bool:
    """Write ``fmod(x, y)``, ``x % y``, ``log(exp(x) + exp(y))`` or ``x // y``, as the code says.

    Returns whether each remainder and each quotient is exact.
    """
    failed = np.zeros(1, np.bool_)
    parallel_for(pool, bind_kernel(binary_range, (code, x, y, out, failed)), out.size, _GRAIN_SIZE, 1)
    return not failed[0]
