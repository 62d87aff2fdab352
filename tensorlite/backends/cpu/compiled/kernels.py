"""The kernels of ``reference`` as loops over float32, which numba compiles to machine code.

A loop makes one pass over memory where NumPy makes one for each operation, so these kernels are 3 to 10 times as fast.
numba is an extra (``pip install 'tensorlite[fast]'``); without it, ``cpu/kernels.py`` computes with NumPy alone. This
module is imported when a kernel is first called on a large array. The first call of each kernel compiles it, which
takes a fraction of a second. The machine code is cached in ``__pycache__``, or in the user's cache folder.

All arrays are contiguous float32; those of attention may have any strides except the last. The first argument of a
kernel is the address of a thread pool, or 0 for one thread (see ``parallel_for.py``). The function of the same name
with the suffix ``_range`` is its loop: it processes entries, rows or heads ``start`` to ``stop``, on any thread. No
loop holds the interpreter's lock.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import carray

from ...reference import ERF_TANH, GELU_FAR, SILU_FAR
from .extremes import row_max
from .gemm import NO_TRANS, TRANS, sgemm
from .parallel_for import bind_kernel, parallel_for, split_range
from .scalar_functions import exp as _exp
from .scalar_functions import log as _log
from .support import ENTRY, INLINE, LOOP, float32_pointer, keep_alive, njit

__all__ = [
    "adam_step", "attention", "attention_backward", "cross_entropy", "cross_entropy_backward", "gelu", "gelu_backward",
    "layer_norm", "layer_norm_backward", "rows_are_near", "silu", "silu_backward", "softmax",
]  # fmt: skip

Array = Any
f32 = np.float32

# Without fused multiply-add, because a kernel subtracts a product from the same product, and both must round equally.
_NO_FMA: dict[str, Any] = {**LOOP, "fastmath": {"reassoc", "arcp", "nsz"}}
_INLINE: dict[str, Any] = {**INLINE, "fastmath": {"contract"}}

# ---- functions of one number ----------------------------------------------------------------


# The normal distribution's cdf(x) = sigmoid(2 x p(x^2)): see reference.ERF_TANH. Lowest power first.
_CDF = [math.sqrt(2.0) * 0.5**k * c for k, c in enumerate(ERF_TANH)]
_C0, _C1, _C2, _C3, _C4, _C5, _C6 = map(f32, _CDF)
_T0, _T1 = f32(2.0 * math.sqrt(2.0 / math.pi)), f32(2.0 * math.sqrt(2.0 / math.pi) * 0.044715)
_DENSITY = f32(1.0 / math.sqrt(2.0 * math.pi))
_FAR, _SILU_FAR = f32(-GELU_FAR), f32(SILU_FAR)
_MAX_SQUARE = f32(40.0)  # the square of the largest x of the polynomial's fit; beyond it the cdf is 0 or 1


@njit(**_INLINE)
def _cdf(x: Any, tanh: bool) -> Any:
    """Return the factor by which GELU multiplies x."""
    s = x * x
    if tanh:
        return f32(1) / (f32(1) + _exp(-x * (_T0 + _T1 * s)))
    s = min(s, _MAX_SQUARE)
    z = ((((((_C6 * s + _C5) * s + _C4) * s + _C3) * s + _C2) * s + _C1) * s + _C0) * x
    return f32(1) / (f32(1) + _exp(-z))


# ---- activations ----------------------------------------------------------------------------

_GRAIN_SIZE = 1024  # entries, 4 KB

# Loops slice their arrays first, because LLVM does not vectorise a loop from ``start``, which could be negative and
# count from the end.


@njit(**LOOP)
def gelu_range(x: Array, y: Array, tanh: bool, start: int, stop: int) -> None:
    x, y = x[start:stop], y[start:stop]
    if tanh:
        for i in range(x.size):
            y[i] = max(x[i], _FAR) * _cdf(x[i], True)
    else:
        for i in range(x.size):
            y[i] = max(x[i], _FAR) * _cdf(x[i], False)


@njit(**ENTRY)
def gelu(pool: int, x: Array, y: Array, tanh: bool) -> None:
    """Write ``x cdf(x)`` of a flat array into y."""
    parallel_for(pool, bind_kernel(gelu_range, (x, y, tanh)), x.size, _GRAIN_SIZE, 1)


@njit(**LOOP)
def gelu_backward_range(g: Array, x: Array, dx: Array, tanh: bool, start: int, stop: int) -> None:
    g, x, dx = g[start:stop], x[start:stop], dx[start:stop]
    if tanh:
        for i in range(x.size):
            a = min(max(x[i], _FAR), -_FAR)  # beyond that the slope overflows, and the cdf is 0 or 1
            c = _cdf(a, True)
            dx[i] = g[i] * (c + a * c * (f32(1) - c) * (_T0 + f32(3) * _T1 * a * a))
    else:
        for i in range(x.size):
            a = min(max(x[i], _FAR), -_FAR)
            dx[i] = g[i] * (_cdf(a, False) + a * _DENSITY * _exp(f32(-0.5) * a * a))


@njit(**ENTRY)
def gelu_backward(pool: int, g: Array, x: Array, dx: Array, tanh: bool) -> None:
    """Write ``g (cdf + x pdf)`` of flat arrays into dx; in the tanh form, pdf is ``2 cdf (1 - cdf) slope``."""
    parallel_for(pool, bind_kernel(gelu_backward_range, (g, x, dx, tanh)), x.size, _GRAIN_SIZE, 1)


@njit(**LOOP)
def silu_range(x: Array, y: Array, start: int, stop: int) -> None:
    x, y = x[start:stop], y[start:stop]
    for i in range(x.size):
        y[i] = max(x[i], -_SILU_FAR) / (f32(1) + _exp(-x[i]))


@njit(**ENTRY)
def silu(pool: int, x: Array, y: Array) -> None:
    """Write ``x sigmoid(x)`` of a flat array into y."""
    parallel_for(pool, bind_kernel(silu_range, (x, y)), x.size, _GRAIN_SIZE, 1)


# In place, because a loop over two arrays that are the same one is not vectorised.


@njit(**LOOP)
def gelu_in_place(x: Array, tanh: bool) -> None:
    """Replace a flat array by ``x cdf(x)``."""
    if tanh:
        for i in range(x.size):
            x[i] = max(x[i], _FAR) * _cdf(x[i], True)
    else:
        for i in range(x.size):
            x[i] = max(x[i], _FAR) * _cdf(x[i], False)


@njit(**LOOP)
def swiglu_in_place(gate: Array, value: Array) -> None:
    """Replace a flat array of gates by ``silu(gate) value``."""
    for i in range(gate.size):
        gate[i] = max(gate[i], -_SILU_FAR) / (f32(1) + _exp(-gate[i])) * value[i]


@njit(**LOOP)
def silu_backward_range(g: Array, x: Array, y: Array, dx: Array, start: int, stop: int) -> None:
    g, x, y, dx = g[start:stop], x[start:stop], y[start:stop], dx[start:stop]
    for i in range(x.size):
        s = f32(1) / (f32(1) + _exp(-x[i]))
        dx[i] = g[i] * (s + min(y[i], _SILU_FAR) * (f32(1) - s))


@njit(**ENTRY)
def silu_backward(pool: int, g: Array, x: Array, y: Array, dx: Array) -> None:
    """Write ``g (s + y (1 - s))`` of flat arrays into dx, with s the sigmoid of x, and y the result of :func:`silu`."""
    parallel_for(pool, bind_kernel(silu_backward_range, (g, x, y, dx)), x.size, _GRAIN_SIZE, 1)


# ---- rows -----------------------------------------------------------------------------------

_RUN = 4096  # entries that are added up in float32; the sums of such runs are added in float64
_RUN_ROWS = 128  # rows, likewise: each of their entries is added to another sum, so none is shared by vector lanes


@njit(**_INLINE)
def _exp_into(x: Array, y: Array, top: Any) -> Any:
    """Write ``exp(x - top)`` into y; return the sum."""
    total = f32(0)
    for j in range(x.size):
        e = _exp(x[j] - top)
        y[j] = e
        total += e
    return total


@njit(**_INLINE)
def _exp_sum(x: Array, top: Any) -> Any:
    """Return the sum of ``exp(x - top)``."""
    total = f32(0)
    for j in range(x.size):
        total += _exp(x[j] - top)
    return total


@njit(**_INLINE)
def _sum_less(x: Array, top: Any) -> Any:
    """Return the sum of ``x - top``."""
    total = f32(0)
    for j in range(x.size):
        total += x[j] - top
    return total


@njit(**_INLINE)
def _sum_squares(x: Array, mean: Any) -> Any:
    """Return the sum of ``(x - mean)^2``."""
    total = f32(0)
    for j in range(x.size):
        d = x[j] - mean
        total += d * d
    return total


@njit(**LOOP)
def softmax_range(x: Array, y: Array, start: int, stop: int) -> None:
    n = x.shape[1]
    for i in range(start, stop):
        top = row_max(x[i])
        total = 0.0
        if n <= _RUN:
            total += _exp_into(x[i], y[i], top)
        else:
            for first in range(0, n, _RUN):
                total += _exp_into(x[i, first : first + _RUN], y[i, first : first + _RUN], top)
        for j in range(n):
            y[i, j] /= f32(total)


@njit(**ENTRY)
def softmax(pool: int, x: Array, y: Array) -> None:
    """Write rows ``exp(x - max) / sum`` into y."""
    parallel_for(pool, bind_kernel(softmax_range, (x, y)), len(x), 1, 1)


@njit(**LOOP)
def _long_row_moments(x: Array) -> Any:
    """Return the mean of a row of more than ``_RUN`` entries, and its sum of ``(x - mean)^2``."""
    total = 0.0
    for first in range(0, x.size, _RUN):
        total += _sum_less(x[first : first + _RUN], f32(0))
    mean, total = f32(total / x.size), 0.0
    for first in range(0, x.size, _RUN):
        total += _sum_squares(x[first : first + _RUN], mean)
    return mean, f32(total)


@njit(**LOOP)
def layer_norm_range(
    x: Array, weight: Array, y: Array, mean: Array, rstd: Array, eps: float, start: int, stop: int
) -> None:  # fmt: skip
    n = x.shape[1]
    for i in range(start, stop):
        if n <= _RUN:
            m = _sum_less(x[i], f32(0)) / f32(n)
            total = _sum_squares(x[i], m)
        else:
            m, total = _long_row_moments(x[i])
        r = f32(1.0 / np.sqrt(np.float64(total) / n + eps))  # float32's fast root of infinity is NaN
        mean[i], rstd[i] = m, r
        for j in range(n):
            y[i, j] = (x[i, j] - m) * r * weight[j]


@njit(**LOOP)
def layer_norm_bias_range(
    x: Array, weight: Array, bias: Array, y: Array, mean: Array, rstd: Array, eps: float, start: int, stop: int
) -> None:  # fmt: skip
    for i in range(start, stop):
        layer_norm_range(x, weight, y, mean, rstd, eps, i, i + 1)
        for j in range(bias.size):  # while the row is in the cache
            y[i, j] += bias[j]


@njit(**ENTRY)
def layer_norm(
    pool: int, x: Array, weight: Array, bias: Array, y: Array, mean: Array, rstd: Array, eps: float
) -> None:  # fmt: skip
    """Write rows ``(x - mean) rstd weight + bias`` into y."""
    parallel_for(pool, bind_kernel(layer_norm_bias_range, (x, weight, bias, y, mean, rstd, eps)), len(x), 1, 1)


@njit(**ENTRY)
def rows_are_near(mean: Array, rstd: Array, far: float) -> bool:
    """Return whether each row has an inverse deviation above 0, and a mean of fewer than ``far`` deviations."""
    near = True
    for i in range(mean.size):
        near &= rstd[i] > 0 and abs(mean[i] * rstd[i]) < f32(far)  # False for NaN
    return near


@njit(**LOOP)
def layer_norm_backward_range(
    g: Array, x: Array, weight: Array, mean: Array, rstd: Array, dx: Array, sums: Array, length: int,
    start: int, stop: int,
) -> None:  # fmt: skip
    n = x.shape[1]
    # Each chunk has arrays of its own, because two threads that write to one cache line slow each other down.
    dweight, dbias = np.zeros(n, f32), np.zeros(n, f32)
    wide = np.zeros((2, n if stop - start > _RUN_ROWS else 0))
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
        if (i - start) % _RUN_ROWS == _RUN_ROWS - 1 and wide.size:
            for j in range(n):
                wide[0, j] += dweight[j]
                wide[1, j] += dbias[j]
                dweight[j], dbias[j] = f32(0), f32(0)
    for j in range(n):
        if wide.size:
            dweight[j], dbias[j] = f32(wide[0, j] + dweight[j]), f32(wide[1, j] + dbias[j])
        sums[start // length, 0, j], sums[start // length, 1, j] = dweight[j], dbias[j]


@njit(**ENTRY)
def layer_norm_backward(
    pool: int, g: Array, x: Array, weight: Array, mean: Array, rstd: Array, dx: Array
) -> Array:  # fmt: skip
    """Write rows of dx; return the gradients of weight and bias, (2, width), summed in the order of the chunks."""
    chunks, length = split_range(pool, len(x), 1, 1)
    sums = np.empty((max(1, chunks), 2, x.shape[1]), f32)
    arguments = (g, x, weight, mean, rstd, dx, sums, length)
    parallel_for(pool, bind_kernel(layer_norm_backward_range, arguments), len(x), 1, 1)
    for chunk in range(1, chunks):
        for j in range(x.shape[1]):
            sums[0, 0, j] += sums[chunk, 0, j]
            sums[0, 1, j] += sums[chunk, 1, j]
    return sums[0]


# ---- losses ---------------------------------------------------------------------------------


@njit(**LOOP)
def cross_entropy_range(
    x: Array, target: Array, loss: Array, tops: Array, totals: Array, wrong: Array, ignore_index: int, smoothing: float,
    start: int, stop: int,
) -> None:  # fmt: skip
    n = x.shape[1]
    x, target = x[start:stop], target[start:stop]
    loss, tops, totals = loss[start:stop], tops[start:stop], totals[start:stop]
    # In several loops, because long ones leave the processor fewer rows to work on at the same time.
    for i in range(len(x)):
        top, total = row_max(x[i]), 0.0
        for first in range(0, n, _RUN):
            total += _exp_sum(x[i, first : first + _RUN], top)
        tops[i], totals[i] = top, total
    for i in range(len(x)):
        is_class = 0 <= target[i] < n
        wrong[0] |= not is_class and target[i] != ignore_index
        loss[i] = f32(1 - smoothing) * (x[i, target[i]] - tops[i]) if is_class else f32(0)
    if smoothing != 0:
        for i in range(len(x)):
            values = 0.0
            for first in range(0, n, _RUN):
                values += _sum_less(x[i, first : first + _RUN], tops[i])
            loss[i] += f32(smoothing) * f32(values / n)
    for i in range(loss.size):
        loss[i] = _log(totals[i]) - loss[i] if target[i] != ignore_index else f32(0)


@njit(**ENTRY)
def cross_entropy(
    pool: int, x: Array, target: Array, loss: Array, tops: Array, totals: Array, ignore_index: int, smoothing: float
) -> bool:  # fmt: skip
    """Write the losses of rows of logits, the rows' maxima, and their sums of ``exp(x - max)``.

    Returns whether all targets are classes or ignored.
    """
    wrong = np.zeros(1, np.int64)
    arguments = (x, target, loss, tops, totals, wrong, ignore_index, smoothing)
    parallel_for(pool, bind_kernel(cross_entropy_range, arguments), len(x), 1, 1)
    return wrong[0] == 0


@njit(**LOOP)
def cross_entropy_backward_range(
    g: Array, x: Array, target: Array, tops: Array, totals: Array, dx: Array, wrong: Array, ignore_index: int,
    smoothing: float, start: int, stop: int,
) -> None:  # fmt: skip
    n = x.shape[1]
    for i in range(start, stop):
        if target[i] == ignore_index or not 0 <= target[i] < n:
            wrong[0] |= target[i] != ignore_index
            dx[i, :] = f32(0)
            continue
        top, part, mean = tops[i], f32(1) / totals[i], f32(smoothing / n)
        for j in range(n):
            dx[i, j] = g[i] * (_exp(x[i, j] - top) * part - mean)
        dx[i, target[i]] -= g[i] * f32(1 - smoothing)


@njit(**ENTRY)
def cross_entropy_backward(
    pool: int, g: Array, x: Array, target: Array, tops: Array, totals: Array, dx: Array, ignore_index: int,
    smoothing: float,
) -> bool:  # fmt: skip
    """Write rows ``g (softmax - (1 - smoothing) onehot - smoothing / n)``, 0 where the target is ignored.

    Returns whether all targets are classes or ignored.
    """
    wrong = np.zeros(1, np.int64)
    arguments = (g, x, target, tops, totals, dx, wrong, ignore_index, smoothing)
    parallel_for(pool, bind_kernel(cross_entropy_backward_range, arguments), len(x), 1, 1)
    return wrong[0] == 0


# ---- attention ------------------------------------------------------------------------------
#
# q (B, H, T, D), k (B, H, S, D), v (B, H, S, E), each with a contiguous last dimension. Queries are processed in
# blocks, so that the scores stay in the cache. Keys that a causal mask hides from a whole block are not computed.
# The backward pass recomputes the scores. Source: Dao et al., "FlashAttention", 2022.

_BLOCK_QUERIES = 64


@njit(**_INLINE)
def _exp_row(row: Array, scale: Any, last: int, top: Any) -> Any:
    """Replace a row by ``exp(scale row - top)``, 0 after entry ``last``; return the sum."""
    total = f32(0)
    for j in range(row.size):  # a whole row is faster than a part of odd length
        e = _exp(scale * row[j] - top)
        e = e if j <= last else f32(0)
        row[j] = e
        total += e
    return total


@njit(**_NO_FMA)
def softmax_scores(scores: Array, scale: Any, causal: bool, first: int, tops: Array, totals: Array) -> None:
    """Replace scores by ``softmax(scale scores)``; write the rows' maxima, and their sums of ``exp(s - max)``.

    Row t is query ``first + t``, which sees keys 0 to ``first + t`` if causal.
    """
    queries, keys = scores.shape
    for t in range(queries):
        row, last = scores[t], first + t if causal else keys
        top = f32(-np.inf)
        for j in range(keys):
            top = max(top, scale * row[j] if j <= last else f32(-np.inf))
        total = _exp_row(row, scale, last, top)
        tops[t], totals[t] = top, total
        part = f32(1) / total
        for j in range(keys):
            row[j] *= part


@njit(**_NO_FMA)
def _recompute_softmax(scores: Array, scale: Any, causal: bool, first: int, tops: Array, totals: Array) -> None:
    """Replace scores by the same softmax as :func:`softmax_scores`, given the maxima and sums of its rows."""
    queries, keys = scores.shape
    for t in range(queries):
        row, top, part, last = scores[t], tops[t], f32(1) / totals[t], first + t if causal else keys
        for j in range(keys):
            e = _exp(scale * row[j] - top) * part
            row[j] = e if j <= last else f32(0)


@njit(**LOOP)
def _scores_backward(p: Array, dp: Array, scale: Any) -> None:
    """Replace dp by ``scale p (dp - sum_j p_j dp_j)``."""
    queries, keys = p.shape
    for t in range(queries):
        total = f32(0)
        for j in range(keys):
            total += p[t, j] * dp[t, j]
        for j in range(keys):
            dp[t, j] = scale * p[t, j] * (dp[t, j] - total)


@njit(**_INLINE)
def _head_matrix(x: Array, head: int) -> tuple[int, int]:
    """Return the address of a head's matrix, and the number of entries from one row to the next."""
    heads = x.shape[1]
    return (
        np.int64(x.ctypes.data) + (head // heads) * x.strides[0] + (head % heads) * x.strides[1],
        x.strides[2] // 4,
    )


@njit(**LOOP)
def attention_range(
    gemm: int, q: Array, k: Array, v: Array, out: Array, tops: Array, totals: Array, causal: bool, scale: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    T, S, D, E = q.shape[2], k.shape[2], q.shape[3], v.shape[3]
    workspace = np.empty(min(_BLOCK_QUERIES, T) * S, f32)
    for head in range(start, stop):
        (qs, ldq), (ks, ldk) = _head_matrix(q, head), _head_matrix(k, head)
        (vs, ldv), (to, ldo) = _head_matrix(v, head), _head_matrix(out, head)
        for first in range(0, T, _BLOCK_QUERIES):
            queries = min(_BLOCK_QUERIES, T - first)
            keys = min(first + queries, S) if causal else S
            p = workspace[: queries * keys].reshape(queries, keys)
            at = np.int64(p.ctypes.data)
            sgemm(gemm, NO_TRANS, TRANS, queries, keys, D, qs + 4 * first * ldq, ldq, ks, ldk, f32(0), at, keys)
            rows = slice(first, first + queries)
            softmax_scores(p, scale, causal, first, tops[head, rows], totals[head, rows])
            sgemm(gemm, NO_TRANS, NO_TRANS, queries, E, keys, at, keys, vs, ldv, f32(0), to + 4 * first * ldo, ldo)
    keep_alive(workspace)


@njit(**ENTRY)
def attention(
    pool: int, gemm: int, q: Array, k: Array, v: Array, out: Array, tops: Array, totals: Array, causal: bool,
    scale: float,
) -> None:  # fmt: skip
    """Write ``softmax(scale q k^T) v`` into out, (B, H, T, E).

    gemm: the address of BLAS's sgemm. tops, totals: for the maxima of the scores' rows and their sums of
    ``exp(s - max)``, (B H, T).
    """
    arguments = (gemm, q, k, v, out, tops, totals, causal, f32(scale))
    parallel_for(pool, bind_kernel(attention_range, arguments), len(tops), 1, 1)


@njit(**LOOP)
def attention_backward_range(
    gemm: int, g: Array, q: Array, k: Array, v: Array, dq: Array, dk: Array, dv: Array, tops: Array, totals: Array,
    causal: bool, scale: Any, start: int, stop: int,
) -> None:  # fmt: skip
    T, S, D, E = q.shape[2], k.shape[2], q.shape[3], v.shape[3]
    workspace, scratch = np.empty(min(_BLOCK_QUERIES, T) * S, f32), np.empty(min(_BLOCK_QUERIES, T) * S, f32)
    for head in range(start, stop):
        (gs, ldg), (qs, ldq), (ks, ldk) = _head_matrix(g, head), _head_matrix(q, head), _head_matrix(k, head)
        (vs, ldv), (to_q, ldo) = _head_matrix(v, head), _head_matrix(dq, head)
        (to_k, ldp), (to_v, ldr) = _head_matrix(dk, head), _head_matrix(dv, head)
        for s in range(S):
            carray(float32_pointer(to_k + 4 * s * ldp), D)[:] = f32(0)
            carray(float32_pointer(to_v + 4 * s * ldr), E)[:] = f32(0)
        for first in range(0, T, _BLOCK_QUERIES):
            queries = min(_BLOCK_QUERIES, T - first)
            keys = min(first + queries, S) if causal else S
            p, dp = workspace[: queries * keys].reshape(queries, keys), scratch[: queries * keys].reshape(queries, keys)
            at, d_at = np.int64(p.ctypes.data), np.int64(dp.ctypes.data)
            q_block, g_block = qs + 4 * first * ldq, gs + 4 * first * ldg
            sgemm(gemm, NO_TRANS, TRANS, queries, keys, D, q_block, ldq, ks, ldk, f32(0), at, keys)
            rows = slice(first, first + queries)
            _recompute_softmax(p, scale, causal, first, tops[head, rows], totals[head, rows])
            sgemm(gemm, NO_TRANS, TRANS, queries, keys, E, g_block, ldg, vs, ldv, f32(0), d_at, keys)
            sgemm(gemm, TRANS, NO_TRANS, keys, E, queries, at, keys, g_block, ldg, f32(1), to_v, ldr)
            _scores_backward(p, dp, scale)
            q_out = to_q + 4 * first * ldo
            sgemm(gemm, NO_TRANS, NO_TRANS, queries, D, keys, d_at, keys, ks, ldk, f32(0), q_out, ldo)
            sgemm(gemm, TRANS, NO_TRANS, keys, D, queries, d_at, keys, q_block, ldq, f32(1), to_k, ldp)
    keep_alive(workspace)
    keep_alive(scratch)


@njit(**ENTRY)
def attention_backward(
    pool: int, gemm: int, g: Array, q: Array, k: Array, v: Array, dq: Array, dk: Array, dv: Array, tops: Array,
    totals: Array, causal: bool, scale: float,
) -> None:  # fmt: skip
    """Write the gradients of q, k and v into dq, dk and dv, given that of the result, g (B, H, T, E)."""
    arguments = (gemm, g, q, k, v, dq, dk, dv, tops, totals, causal, f32(scale))
    parallel_for(pool, bind_kernel(attention_backward_range, arguments), len(tops), 1, 1)


# ---- optimizers -----------------------------------------------------------------------------


@njit(**LOOP)
def adam_step_range(
    p: Array, g: Array, m: Array, v: Array, sign: float, decay_factor: float, decay: float, beta1: float,
    one_minus_beta1: float, beta2: float, one_minus_beta2: float, correction2: float, eps: float, rate: float,
    start: int, stop: int,
) -> None:  # fmt: skip
    p, g, m, v = p[start:stop], g[start:stop], m[start:stop], v[start:stop]
    for i in range(p.size):
        x = p[i] * f32(decay_factor)
        d = f32(sign) * g[i] + f32(decay) * x
        mean = f32(beta1) * m[i] + f32(one_minus_beta1) * d
        square = f32(beta2) * v[i] + f32(one_minus_beta2) * (d * d)
        m[i], v[i] = mean, square
        p[i] = x - f32(rate) * (mean / (np.sqrt(square) / f32(correction2) + f32(eps)))


@njit(**ENTRY)
def adam_step(
    pool: int, p: Array, g: Array, m: Array, v: Array, sign: float, decay_factor: float, decay: float, beta1: float,
    one_minus_beta1: float, beta2: float, one_minus_beta2: float, correction2: float, eps: float, rate: float,
) -> None:  # fmt: skip
    """Make one step of Adam on flat arrays; the coefficients are those of :func:`reference.adam_coefficients`."""
    numbers = (sign, decay_factor, decay, beta1, one_minus_beta1, beta2, one_minus_beta2, correction2, eps, rate)
    parallel_for(pool, bind_kernel(adam_step_range, (p, g, m, v, *numbers)), p.size, _GRAIN_SIZE, 1)
