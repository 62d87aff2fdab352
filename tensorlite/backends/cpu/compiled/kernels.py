"""The kernels of ``reference`` as plain loops over float32, which numba compiles to machine code.

A loop makes one pass over memory where NumPy makes one for each operation, so these are 3 to 10 times as fast. numba is
an extra (``pip install 'tensorlite[fast]'``); without it ``cpu`` computes with NumPy alone. Nobody imports this file
before a kernel is called on a large array. The first call of each kernel compiles it, for a fraction of a second; what
was compiled is kept beside this file, or in the user's cache, and loaded the next time.

All arrays are contiguous float32; those of attention may have any strides but the last. Each kernel takes a pool first
(see ``crew``): its loop, of the same name with an underscore, works on entries, rows or heads ``start`` to ``stop``,
and is shared over the pool; with 0 for a pool it runs as a whole. No loop holds the interpreter's lock.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from ...reference import ERF_TANH
from .gemm import AS_IT_IS, TRANSPOSED, sgemm
from .parallel_for import bind_kernel, cut, parallel_for
from .support import floats, njit

__all__ = [
    "adam_step", "attention", "attention_backward", "cross_entropy", "cross_entropy_backward", "gelu", "gelu_backward",
    "layer_norm", "layer_norm_backward", "softmax",
]  # fmt: skip

Array = Any
f32 = np.float32

# Sums may be reordered, so that they are vectorised; NaN and infinity stay what they are.
_LOOP: dict[str, Any] = {
    "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "no_cfunc_wrapper": True, "no_cpython_wrapper": True,
}  # fmt: skip
_KERNEL: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "no_cfunc_wrapper": True}
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

_UNIT = 1024  # entries: 4 KB, of which threads take whole ones

# (Parts are cut off first, since a loop from ``start`` would not be vectorised: for all that the compiler knows, an
# index could be negative, and mean one from the end.)


@njit(**_LOOP)
def _gelu(x: Array, y: Array, tanh: bool, start: int, stop: int) -> None:
    x, y = x[start:stop], y[start:stop]
    if tanh:
        for i in range(x.size):
            y[i] = max(x[i], _FAR) * _cdf(x[i], True)
    else:
        for i in range(x.size):
            y[i] = max(x[i], _FAR) * _cdf(x[i], False)


@njit(**_KERNEL)
def gelu(pool: int, x: Array, y: Array, tanh: bool) -> None:
    """``y = x cdf(x)`` of flat arrays."""
    parallel_for(pool, bind_kernel(_gelu, (x, y, tanh)), x.size, _UNIT, 1)


@njit(**_LOOP)
def _gelu_backward(g: Array, x: Array, dx: Array, tanh: bool, start: int, stop: int) -> None:
    g, x, dx = g[start:stop], x[start:stop], dx[start:stop]
    if tanh:
        for i in range(x.size):
            a = min(max(x[i], _FAR), -_FAR)  # farther out the slope overflows, and the cdf is 0 or 1
            c = _cdf(a, True)
            dx[i] = g[i] * (c + a * c * (f32(1) - c) * (_T0 + f32(3) * _T1 * a * a))
    else:
        for i in range(x.size):
            a = x[i]
            dx[i] = g[i] * (_cdf(a, False) + a * _DENSITY * _exp(f32(-0.5) * a * a))


@njit(**_KERNEL)
def gelu_backward(pool: int, g: Array, x: Array, dx: Array, tanh: bool) -> None:
    """``dx = g (cdf + x pdf)`` of flat arrays; of the tanh form cdf' is ``2 cdf (1 - cdf) slope``."""
    parallel_for(pool, bind_kernel(_gelu_backward, (g, x, dx, tanh)), x.size, _UNIT, 1)


# ---- rows -----------------------------------------------------------------------------------


@njit(**_LOOP)
def _softmax(x: Array, y: Array, start: int, stop: int) -> None:
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


@njit(**_KERNEL)
def softmax(pool: int, x: Array, y: Array) -> None:
    """Rows ``exp(x - max) / sum``."""
    parallel_for(pool, bind_kernel(_softmax, (x, y)), len(x), 1, 1)


@njit(**_LOOP)
def _layer_norm(
    x: Array, weight: Array, y: Array, mean: Array, rstd: Array, eps: float, start: int, stop: int
) -> None:  # fmt: skip
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


@njit(**_KERNEL)
def layer_norm(pool: int, x: Array, weight: Array, y: Array, mean: Array, rstd: Array, eps: float) -> None:
    """Rows ``(x - mean) rstd weight``; the bias is the caller's."""
    parallel_for(pool, bind_kernel(_layer_norm, (x, weight, y, mean, rstd, eps)), len(x), 1, 1)


@njit(**_LOOP)
def _layer_norm_backward(
    g: Array, x: Array, weight: Array, mean: Array, rstd: Array, dx: Array, sums: Array, length: int,
    start: int, stop: int,
) -> None:  # fmt: skip
    n = x.shape[1]
    # Room of one's own: two threads that write to one cache line would wait for each other.
    dweight, dbias = np.zeros(n, f32), np.zeros(n, f32)
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
    for j in range(n):
        sums[start // length, 0, j], sums[start // length, 1, j] = dweight[j], dbias[j]


@njit(**_KERNEL)
def layer_norm_backward(
    pool: int, g: Array, x: Array, weight: Array, mean: Array, rstd: Array, dx: Array
) -> Array:  # fmt: skip
    """Rows of dx; returns the gradients of weight and bias, (2, width), summed piece by piece in their order."""
    pieces, length = cut(pool, len(x), 1, 1)
    sums = np.empty((max(1, pieces), 2, x.shape[1]), f32)
    parallel_for(pool, bind_kernel(_layer_norm_backward, (g, x, weight, mean, rstd, dx, sums, length)), len(x), 1, 1)
    for piece in range(1, pieces):
        for j in range(x.shape[1]):
            sums[0, 0, j] += sums[piece, 0, j]
            sums[0, 1, j] += sums[piece, 1, j]
    return sums[0]


# ---- losses ---------------------------------------------------------------------------------


@njit(**_LOOP)
def _cross_entropy(
    x: Array, target: Array, loss: Array, lse: Array, ignore_index: int, smoothing: float, start: int, stop: int
) -> None:  # fmt: skip
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


@njit(**_KERNEL)
def cross_entropy(
    pool: int, x: Array, target: Array, loss: Array, lse: Array, ignore_index: int, smoothing: float
) -> None:  # fmt: skip
    """Losses of rows of logits, and their logsumexp."""
    parallel_for(pool, bind_kernel(_cross_entropy, (x, target, loss, lse, ignore_index, smoothing)), len(x), 1, 1)


@njit(**_LOOP)
def _cross_entropy_backward(
    g: Array, x: Array, target: Array, lse: Array, dx: Array, ignore_index: int, smoothing: float,
    start: int, stop: int,
) -> None:  # fmt: skip
    n = x.shape[1]
    for i in range(start, stop):
        if target[i] == ignore_index:
            dx[i, :] = f32(0)
            continue
        for j in range(n):
            dx[i, j] = g[i] * (_exp(x[i, j] - lse[i]) - f32(smoothing / n))
        dx[i, target[i]] -= g[i] * f32(1 - smoothing)


@njit(**_KERNEL)
def cross_entropy_backward(
    pool: int, g: Array, x: Array, target: Array, lse: Array, dx: Array, ignore_index: int, smoothing: float
) -> None:  # fmt: skip
    """Rows ``g (softmax - (1 - smoothing) onehot - smoothing / n)``, 0 where the target is ignored."""
    arguments = (g, x, target, lse, dx, ignore_index, smoothing)
    parallel_for(pool, bind_kernel(_cross_entropy_backward, arguments), len(x), 1, 1)


# ---- attention ------------------------------------------------------------------------------
#
# q (B, H, T, D), k (B, H, S, D), v (B, H, S, E), whose last dimension lies together in memory. A block of queries at a
# time, so that the scores stay in the cache: what a causal mask hides of a block's keys is not computed.
# Source: Dao et al., "FlashAttention", 2022, whose backward pass computes the scores again, too.

_QUERIES = 64  # in a block


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
def _softmax_of_scores(scores: Array, scale: Any, causal: bool, first: int, lse: Array) -> None:
    """``softmax(scale scores)`` in place, and the logsumexp of each row. Query t is first + t: it sees keys 0 to that
    if causal."""
    queries, keys = scores.shape
    for t in range(queries):
        row, last = scores[t], first + t if causal else keys
        top = f32(-np.inf)
        for j in range(keys):
            top = max(top, scale * row[j] if j <= last else f32(-np.inf))
        total = _row_softmax(row, scale, last, top)
        lse[t] = top + np.log(total)
        part = f32(1) / total
        for j in range(keys):
            row[j] *= part


@njit(**_EXACT)
def _probabilities(scores: Array, scale: Any, causal: bool, first: int, lse: Array) -> None:
    """The same softmax again, from what is known of each row."""
    queries, keys = scores.shape
    for t in range(queries):
        row, known, last = scores[t], lse[t], first + t if causal else keys
        for j in range(keys):
            e = _exp(scale * row[j] - known)
            row[j] = e if j <= last else f32(0)


@njit(**_LOOP)
def _scores_backward(p: Array, dp: Array, scale: Any) -> None:
    """``dp`` becomes ``scale p (dp - sum_j p_j dp_j)``."""
    queries, keys = p.shape
    for t in range(queries):
        total = f32(0)
        for j in range(keys):
            total += p[t, j] * dp[t, j]
        for j in range(keys):
            dp[t, j] = scale * p[t, j] * (dp[t, j] - total)


@njit(**_INLINE)
def _matrix(x: Array, head: int) -> tuple[int, int]:
    """The address of a head's matrix, and the entries from a row to the next."""
    heads = x.shape[1]
    return (
        np.int64(x.ctypes.data) + (head // heads) * x.strides[0] + (head % heads) * x.strides[1],
        x.strides[2] // 4,
    )


@njit(**_LOOP)
def _attention(
    gemm: int, q: Array, k: Array, v: Array, out: Array, lse: Array, causal: bool, scale: Any, start: int, stop: int
) -> None:  # fmt: skip
    T, S, D, E = q.shape[2], k.shape[2], q.shape[3], v.shape[3]
    room = np.empty(min(_QUERIES, T) * S, f32)
    for head in range(start, stop):
        (qs, ldq), (ks, ldk) = _matrix(q, head), _matrix(k, head)
        (vs, ldv), (to, ldo) = _matrix(v, head), _matrix(out, head)
        for first in range(0, T, _QUERIES):
            queries = min(_QUERIES, T - first)
            keys = min(first + queries, S) if causal else S
            p = room[: queries * keys].reshape(queries, keys)
            at = np.int64(p.ctypes.data)
            sgemm(gemm, AS_IT_IS, TRANSPOSED, queries, keys, D, qs + 4 * first * ldq, ldq, ks, ldk, f32(0), at, keys)
            _softmax_of_scores(p, scale, causal, first, lse[head, first : first + queries])
            sgemm(gemm, AS_IT_IS, AS_IT_IS, queries, E, keys, at, keys, vs, ldv, f32(0), to + 4 * first * ldo, ldo)


@njit(**_KERNEL)
def attention(
    pool: int, gemm: int, q: Array, k: Array, v: Array, out: Array, lse: Array, causal: bool, scale: float
) -> None:  # fmt: skip
    """``softmax(scale q k^T) v`` into out, (B, H, T, E), and the logsumexp of each row into lse, (B H, T).

    gemm: the address of BLAS's.
    """
    parallel_for(pool, bind_kernel(_attention, (gemm, q, k, v, out, lse, causal, f32(scale))), len(lse), 1, 1)


@njit(**_LOOP)
def _attention_backward(
    gemm: int, g: Array, q: Array, k: Array, v: Array, dq: Array, dk: Array, dv: Array, lse: Array, causal: bool,
    scale: Any, start: int, stop: int,
) -> None:  # fmt: skip
    T, S, D, E = q.shape[2], k.shape[2], q.shape[3], v.shape[3]
    room, other_room = np.empty(min(_QUERIES, T) * S, f32), np.empty(min(_QUERIES, T) * S, f32)
    for head in range(start, stop):
        (gs, ldg), (qs, ldq), (ks, ldk) = _matrix(g, head), _matrix(q, head), _matrix(k, head)
        (vs, ldv), (to_q, ldo) = _matrix(v, head), _matrix(dq, head)
        (to_k, ldp), (to_v, ldr) = _matrix(dk, head), _matrix(dv, head)
        for s in range(S):
            carray(floats(to_k + 4 * s * ldp), D)[:] = f32(0)
            carray(floats(to_v + 4 * s * ldr), E)[:] = f32(0)
        for first in range(0, T, _QUERIES):
            queries = min(_QUERIES, T - first)
            keys = min(first + queries, S) if causal else S
            p, dp = room[: queries * keys].reshape(queries, keys), other_room[: queries * keys].reshape(queries, keys)
            at, d_at = np.int64(p.ctypes.data), np.int64(dp.ctypes.data)
            q_block, g_block = qs + 4 * first * ldq, gs + 4 * first * ldg
            sgemm(gemm, AS_IT_IS, TRANSPOSED, queries, keys, D, q_block, ldq, ks, ldk, f32(0), at, keys)
            _probabilities(p, scale, causal, first, lse[head, first : first + queries])
            sgemm(gemm, AS_IT_IS, TRANSPOSED, queries, keys, E, g_block, ldg, vs, ldv, f32(0), d_at, keys)
            sgemm(gemm, TRANSPOSED, AS_IT_IS, keys, E, queries, at, keys, g_block, ldg, f32(1), to_v, ldr)
            _scores_backward(p, dp, scale)
            q_out = to_q + 4 * first * ldo
            sgemm(gemm, AS_IT_IS, AS_IT_IS, queries, D, keys, d_at, keys, ks, ldk, f32(0), q_out, ldo)
            sgemm(gemm, TRANSPOSED, AS_IT_IS, keys, D, queries, d_at, keys, q_block, ldq, f32(1), to_k, ldp)


@njit(**_KERNEL)
def attention_backward(
    pool: int, gemm: int, g: Array, q: Array, k: Array, v: Array, dq: Array, dk: Array, dv: Array, lse: Array,
    causal: bool, scale: float,
) -> None:  # fmt: skip
    """The gradients of q, k and v from that of the result, g (B, H, T, E)."""
    arguments = (gemm, g, q, k, v, dq, dk, dv, lse, causal, f32(scale))
    parallel_for(pool, bind_kernel(_attention_backward, arguments), len(lse), 1, 1)


# ---- optimizers -----------------------------------------------------------------------------


@njit(**_LOOP)
def _adam_step(
    p: Array, g: Array, m: Array, v: Array, sign: float, kept: float, decay: float, beta1: float, rest1: float,
    beta2: float, rest2: float, correction2: float, eps: float, rate: float, start: int, stop: int,
) -> None:  # fmt: skip
    p, g, m, v = p[start:stop], g[start:stop], m[start:stop], v[start:stop]
    for i in range(p.size):
        x = p[i] * f32(kept)
        d = f32(sign) * g[i] + f32(decay) * x
        mean = f32(beta1) * m[i] + f32(rest1) * d
        square = f32(beta2) * v[i] + f32(rest2) * (d * d)
        m[i], v[i] = mean, square
        p[i] = x - f32(rate) * (mean / (np.sqrt(square) / f32(correction2) + f32(eps)))


@njit(**_KERNEL)
def adam_step(
    pool: int, p: Array, g: Array, m: Array, v: Array, sign: float, kept: float, decay: float, beta1: float,
    rest1: float, beta2: float, rest2: float, correction2: float, eps: float, rate: float,
) -> None:  # fmt: skip
    """As elementwise.cu's adam_step, of flat arrays.

    kept: what decoupled decay leaves of p, 1 - lr decay. decay: what is added to the gradient, as a part of p.
    correction2: sqrt(1 - beta2^t). rate: lr / (1 - beta1^t).
    """
    numbers = (sign, kept, decay, beta1, rest1, beta2, rest2, correction2, eps, rate)
    parallel_for(pool, bind_kernel(_adam_step, (p, g, m, v, *numbers)), p.size, _UNIT, 1)
