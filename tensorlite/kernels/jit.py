"""The kernels of ``reference`` as plain loops over float32, which numba compiles to machine code.

A loop makes one pass over memory where NumPy makes one for each operation, so these are 3 to 10 times as fast. numba is
an extra (``pip install 'tensorlite[fast]'``); without it ``cpu`` computes with NumPy alone. Nobody imports this file
before a kernel is called on a large array. The first call of each kernel compiles it, for a fraction of a second; what
was compiled is kept beside this file, or in the user's cache, and loaded the next time.

All arrays are contiguous float32. Those of rows are worked on from row ``start`` to ``stop``, so that threads can share
them; no loop holds the interpreter's lock. (A loop from ``start`` over entries would not be vectorised: for all that
the compiler knows, an index could be negative, and mean one from the end.)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .crew import njit
from .reference import ERF_TANH

__all__ = [
    "adam_step", "attention_probabilities", "attention_scores_backward", "attention_softmax", "cross_entropy",
    "cross_entropy_backward", "gelu", "gelu_backward", "layer_norm", "layer_norm_backward", "softmax",
]  # fmt: skip

Array = Any
f32 = np.float32

# Sums may be reordered, so that they are vectorised; NaN and infinity stay what they are.
_LOOP: dict[str, Any] = {
    "nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "arcp", "nsz"},
}  # fmt: skip
# Without fused multiply-add, where a product is taken from the same product: rounded once, both are equal.
_EXACT: dict[str, Any] = {**_LOOP, "fastmath": {"reassoc", "arcp", "nsz"}}
_INLINE: dict[str, Any] = {"inline": "always", "error_model": "numpy", "fastmath": {"contract"}}

# ---- functions of one number ----------------------------------------------------------------


@intrinsic
def _as_float(context: Any, bits: Any) -> Any:
    """The float32 of these bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


# exp(x) = 2^n exp(r) with r = x - n log 2, |r| <= log(2) / 2; log 2 in two parts, so that r is exact (Cody and Waite,
# "Software Manual for the Elementary Functions", 1980). exp(r) = 1 + r + r^2 p(r), a minimax fit of Cephes' expf.
_LOG2_E, _LOG2_HIGH, _LOG2_LOW = f32(1.4426950408889634), f32(0.693359375), f32(-2.12194440e-4)
_P2, _P3, _P4 = f32(0.5), f32(1.6666665459e-1), f32(4.1665795894e-2)
_P5, _P6, _P7 = f32(8.3334519073e-3), f32(1.3981999507e-3), f32(1.9875691500e-4)
_LEAST, _MOST = f32(-88.0), f32(88.37)  # where 2^n is 0 (all bits of an exponent of -127), and the largest


@njit(**_INLINE)
def _exp(x: Any) -> Any:
    """exp of a float32 to its last digit or two; 0 below -87.6, 2e38 above 88.3, NaN of NaN."""
    y = min(max(x, _LEAST), _MOST)
    n = np.floor(y * _LOG2_E + f32(0.5))
    r = (y - n * _LOG2_HIGH) - n * _LOG2_LOW
    p = ((((_P7 * r + _P6) * r + _P5) * r + _P4) * r + _P3) * r + _P2
    return (p * r * r + r + f32(1)) * _as_float((np.int32(n) + np.int32(127)) << np.int32(23))


# The normal distribution's cdf(x) = sigmoid(2 x p(x^2)): see reference.ERF_TANH. Lowest power first.
_CDF = [math.sqrt(2.0) * 0.5**k * c for k, c in enumerate(ERF_TANH)]
_C0, _C1, _C2, _C3, _C4, _C5, _C6 = map(f32, _CDF)
_T0, _T1 = f32(2.0 * math.sqrt(2.0 / math.pi)), f32(2.0 * math.sqrt(2.0 / math.pi) * 0.044715)
_DENSITY = f32(1.0 / math.sqrt(2.0 * math.pi))
_FAR = f32(-1e3)  # from where the cdf is 0, so that -inf has no part in a product with it
_SQUARED = f32(40.0)  # of the largest x for which the polynomial is made; beyond it the cdf is 0 or 1


@njit(**_INLINE)
def _cdf(x: Any, tanh: bool) -> Any:
    """The factor by which GELU multiplies x."""
    s = x * x
    if tanh:
        return f32(1) / (f32(1) + _exp(-x * (_T0 + _T1 * s)))
    s = min(s, _SQUARED)
    z = ((((((_C6 * s + _C5) * s + _C4) * s + _C3) * s + _C2) * s + _C1) * s + _C0) * x
    return f32(1) / (f32(1) + _exp(-z))


# ---- activations ----------------------------------------------------------------------------


@njit(**_LOOP)
def gelu(x: Array, y: Array, tanh: bool) -> None:
    """``y = x cdf(x)`` of flat arrays."""
    if tanh:
        for i in range(x.size):
            y[i] = max(x[i], _FAR) * _cdf(x[i], True)
    else:
        for i in range(x.size):
            y[i] = max(x[i], _FAR) * _cdf(x[i], False)


@njit(**_LOOP)
def gelu_backward(g: Array, x: Array, dx: Array, tanh: bool) -> None:
    """``dx = g (cdf + x pdf)`` of flat arrays; of the tanh form cdf' is ``2 cdf (1 - cdf) slope``."""
    if tanh:
        for i in range(x.size):
            a = min(max(x[i], _FAR), -_FAR)  # farther out the slope overflows, and the cdf is 0 or 1
            c = _cdf(a, True)
            dx[i] = g[i] * (c + a * c * (f32(1) - c) * (_T0 + f32(3) * _T1 * a * a))
    else:
        for i in range(x.size):
            a = x[i]
            dx[i] = g[i] * (_cdf(a, False) + a * _DENSITY * _exp(f32(-0.5) * a * a))


# ---- rows -----------------------------------------------------------------------------------


@njit(**_LOOP)
def softmax(x: Array, y: Array, start: int, stop: int) -> None:
    """Rows ``exp(x - max) / sum``."""
    n = x.shape[1]
    for i in range(start, stop):
        top = x[i, 0]
        for j in range(1, n):
            top = max(top, x[i, j])
        total = f32(0)
        for j in range(n):
            e = _exp(x[i, j] - top)
            y[i, j] = e
            total += e
        for j in range(n):
            y[i, j] /= total


@njit(**_LOOP)
def layer_norm(
    x: Array, weight: Array, y: Array, mean: Array, rstd: Array, eps: float, start: int, stop: int
) -> None:  # fmt: skip
    """Rows ``(x - mean) rstd weight``; the bias is the caller's."""
    n = x.shape[1]
    for i in range(start, stop):
        total = f32(0)
        for j in range(n):
            total += x[i, j]
        m = total / f32(n)
        total = f32(0)
        for j in range(n):
            d = x[i, j] - m
            total += d * d
        r = f32(1) / np.sqrt(total / f32(n) + f32(eps))
        mean[i], rstd[i] = m, r
        for j in range(n):
            y[i, j] = (x[i, j] - m) * r * weight[j]


@njit(**_LOOP)
def layer_norm_backward(
    g: Array, x: Array, weight: Array, mean: Array, rstd: Array, dx: Array, dweight: Array, dbias: Array,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Rows of dx; dweight and dbias get the sums over these rows alone."""
    n = x.shape[1]
    dweight[:] = f32(0)
    dbias[:] = f32(0)
    for i in range(start, stop):
        m, r = mean[i], rstd[i]
        h_sum, hn_sum = f32(0), f32(0)
        for j in range(n):
            z = (x[i, j] - m) * r
            h = g[i, j] * weight[j]
            dweight[j] += g[i, j] * z
            dbias[j] += g[i, j]
            h_sum += h
            hn_sum += h * z
        h_mean, hn_mean = h_sum / f32(n), hn_sum / f32(n)
        for j in range(n):
            z = (x[i, j] - m) * r
            dx[i, j] = r * (g[i, j] * weight[j] - h_mean - z * hn_mean)


# ---- losses ---------------------------------------------------------------------------------


@njit(**_LOOP)
def cross_entropy(
    x: Array, target: Array, loss: Array, lse: Array, ignore_index: int, smoothing: float, start: int, stop: int
) -> None:  # fmt: skip
    """Losses of rows of logits, and their logsumexp."""
    n = x.shape[1]
    for i in range(start, stop):
        top = x[i, 0]
        for j in range(1, n):
            top = max(top, x[i, j])
        total, values = f32(0), f32(0)
        for j in range(n):
            total += _exp(x[i, j] - top)
            values += x[i, j]
        lse[i] = np.log(total) + top
        loss[i] = f32(0)
        if target[i] != ignore_index:
            loss[i] = lse[i] - f32(1 - smoothing) * x[i, target[i]]
            if smoothing != 0:
                loss[i] -= f32(smoothing) * (values / f32(n))


@njit(**_LOOP)
def cross_entropy_backward(
    g: Array, x: Array, target: Array, lse: Array, dx: Array, ignore_index: int, smoothing: float,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Rows ``g (softmax - (1 - smoothing) onehot - smoothing / n)``, 0 where the target is ignored."""
    n = x.shape[1]
    for i in range(start, stop):
        if target[i] == ignore_index:
            dx[i, :] = f32(0)
            continue
        for j in range(n):
            dx[i, j] = g[i] * (_exp(x[i, j] - lse[i]) - f32(smoothing / n))
        dx[i, target[i]] -= g[i] * f32(1 - smoothing)


# ---- attention ------------------------------------------------------------------------------
#
# Scores (heads, queries, keys): query t of a block that starts at ``first`` may see keys 0 to first + t, or all.


@njit(**_INLINE)
def _row_softmax(row: Array, scale: Any, last: int, top: Any) -> Any:
    """``exp(scale row - top)`` in place, 0 behind ``last``; returns the sum."""
    total = f32(0)
    for j in range(row.size):  # whole rows are faster than parts of odd lengths
        e = _exp(scale * row[j] - top)
        e = e if j <= last else f32(0)
        row[j] = e
        total += e
    return total


@njit(**_EXACT)
def attention_softmax(scores: Array, scale: float, causal: bool, first: int, lse: Array) -> None:
    """``softmax(scale scores)`` in place, and the logsumexp of each row of ``scale scores``."""
    heads, queries, keys = scores.shape
    s = f32(scale)
    for h in range(heads):
        for t in range(queries):
            row, last = scores[h, t], first + t if causal else keys
            top = f32(-np.inf)
            for j in range(keys):
                top = max(top, s * row[j] if j <= last else f32(-np.inf))
            total = _row_softmax(row, s, last, top)
            lse[h, t] = top + np.log(total)
            part = f32(1) / total
            for j in range(keys):
                row[j] *= part


@njit(**_EXACT)
def attention_probabilities(scores: Array, scale: float, causal: bool, first: int, lse: Array) -> None:
    """The same softmax again, from what is known of each row."""
    heads, queries, keys = scores.shape
    s = f32(scale)
    for h in range(heads):
        for t in range(queries):
            row, known, last = scores[h, t], lse[h, t], first + t if causal else keys
            for j in range(keys):
                e = _exp(s * row[j] - known)
                row[j] = e if j <= last else f32(0)


@njit(**_LOOP)
def attention_scores_backward(p: Array, dp: Array, scale: float) -> None:
    """``dp`` becomes ``scale p (dp - sum_j p_j dp_j)``."""
    heads, queries, keys = p.shape
    for h in range(heads):
        for t in range(queries):
            total = f32(0)
            for j in range(keys):
                total += p[h, t, j] * dp[h, t, j]
            for j in range(keys):
                dp[h, t, j] = f32(scale) * p[h, t, j] * (dp[h, t, j] - total)


# ---- optimizers -----------------------------------------------------------------------------


@njit(**_LOOP)
def adam_step(
    p: Array, g: Array, m: Array, v: Array, sign: float, kept: float, decay: float, beta1: float, rest1: float,
    beta2: float, rest2: float, correction2: float, eps: float, rate: float,
) -> None:  # fmt: skip
    """As elementwise.cu's adam_step, of flat arrays.

    kept: what decoupled decay leaves of p, 1 - lr decay. decay: what is added to the gradient, as a part of p.
    correction2: sqrt(1 - beta2^t). rate: lr / (1 - beta1^t).
    """
    for i in range(p.size):
        x = p[i] * f32(kept)
        d = f32(sign) * g[i] + f32(decay) * x
        mean = f32(beta1) * m[i] + f32(rest1) * d
        square = f32(beta2) * v[i] + f32(rest2) * (d * d)
        m[i], v[i] = mean, square
        p[i] = x - f32(rate) * (mean / (np.sqrt(square) / f32(correction2) + f32(eps)))
