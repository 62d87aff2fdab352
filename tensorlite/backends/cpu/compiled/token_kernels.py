"""Compiled kernels for tokens that a transformer reads: R rows of activations, one for each token of each sequence.

They are public in ``tensorlite.compiled``. A call from another compiled function takes a fraction of a microsecond; an
op of Python takes several. Arrays are given by the addresses of their float32 numbers, contiguous, so that one compiled
function serves matrices of all formats and sizes. A matrix is a row of six integers: its format, rows, columns, and the
addresses of its numbers, its scales and its bias. An address of 0 means that there is none.

All kernels take a pool, through which threads share large loops, and none checks its arguments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from .gemm import NO_TRANS, TRANS, gemv, sgemm
from .kernels import gelu_in_place, layer_norm_range, softmax_scores, swiglu_in_place
from .parallel_for import bind_kernel, parallel_for
from .simd import fma_16, load_16, splat_16, store_16, zeros_16
from .support import I64, INNER, LOOP, float32_pointer, keep_alive, njit, to_pointer

__all__ = [
    "BIAS", "COLUMNS", "FORMAT", "FORMATS", "MATRIX_LENGTH", "ROWS", "SCALES", "WEIGHTS", "add_rows", "apply_gelu",
    "apply_relu_squared", "apply_swiglu", "cached_attention", "last_rows", "linear_rows", "norm_rows", "turn_and_cache",
]  # fmt: skip

Array = Any
f32 = np.float32

# The integers of a matrix.
FORMAT, ROWS, COLUMNS, WEIGHTS, SCALES, BIAS = range(6)
MATRIX_LENGTH = 6
FORMATS = {"float32": 0, "q8_0": 1, "q4_0": 2, "q4_1": 3}

# They are called often and are long, so they are not inlined. They compute nothing themselves.
_KERNEL: dict[str, Any] = {**INNER, "forceinline": False}
_MIN_SHARED = 1 << 14  # numbers, from which threads share a loop
_MIN_SHARED_PRODUCT = 1 << 15  # multiplications, from which threads share a product
_MAX_GEMV_ROWS = 16  # rows of x up to which a product of vectors is faster than BLAS, which copies the matrix
_ROWS_AT_ONCE = 16  # of a matrix that meet all rows of x while they are in the cache
_QUERIES = 64  # of a task of attention
_MAX_GEMV_QUERIES = 16  # up to which products of vectors are faster than BLAS

# ---- products -----------------------------------------------------------------------------------


@njit(**LOOP)
def _float32_range(
    gemm: int, w: int, x: int, ldx: int, R: int, N: int, K: int, out: int, start: int, stop: int
) -> None:  # fmt: skip
    if gemm == 0 or R <= _MAX_GEMV_ROWS:
        for first in range(start, stop, _ROWS_AT_ONCE):
            for r in range(R):
                gemv(w, K, K, x + 4 * r * ldx, out + 4 * r * N, first, min(first + _ROWS_AT_ONCE, stop))
    else:
        sgemm(gemm, NO_TRANS, TRANS, R, stop - start, K, x, ldx, w + 4 * start * K, K, f32(0), out + 4 * start, N)


@njit(**LOOP)
def _add_bias_range(bias: int, out: int, N: int, start: int, stop: int) -> None:
    b = carray(float32_pointer(bias), N)
    for r in range(start, stop):
        y = carray(float32_pointer(out + 4 * r * N), N)
        for i in range(N):
            y[i] += b[i]


@intrinsic
def _call_quantized(
    context: Any, function: Any, pool: Any, bits: Any, offset: Any, quants: Any, scales: Any, rows: Any, K: Any, x: Any,
    ldx: Any, T: Any, packed: Any, out: Any, ldo: Any,
) -> Any:  # fmt: skip
    """Call `quantized_kernels.quantized_linear` by its address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function_type = ir.FunctionType(ir.VoidType(), [I64] * 13)
        builder.call(to_pointer(builder, args[0], function_type), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 14), generate


@njit(**_KERNEL)
def linear_rows(
    pool: int, gemm: int, quantized: int, matrix: Array, x: int, ldx: int, R: int, packed: int, out: int
) -> None:  # fmt: skip
    """Write ``x W^T + bias`` into out, (R, N), for x (R, K), whose rows are ldx numbers apart, and a matrix W (N, K).

    gemm: the address of BLAS's sgemm, or 0. quantized: `quantized_linear_pointer()`, or 0 if no matrix is quantized.
    packed: the address of `packed_bytes(K, R)` bytes, for a quantized matrix.
    """
    kind, N, K = matrix[FORMAT], matrix[ROWS], matrix[COLUMNS]
    if kind == 0:
        shared = pool if N * K * R >= _MIN_SHARED_PRODUCT else 0
        arguments = (gemm, matrix[WEIGHTS], x, ldx, R, N, K, out)
        parallel_for(shared, bind_kernel(_float32_range, arguments), N, _ROWS_AT_ONCE, 1)
    else:
        bits, offset = (8, 128) if kind == 1 else (4, 8 if kind == 2 else 0)
        _call_quantized(
            quantized, pool, bits, offset, matrix[WEIGHTS], matrix[SCALES], N, K, x, ldx, R, packed, out, N
        )  # fmt: skip
    if matrix[BIAS]:
        shared = pool if N * R >= _MIN_SHARED else 0
        parallel_for(shared, bind_kernel(_add_bias_range, (matrix[BIAS], out, N)), R, 1, 1)


# ---- norms, sums and activations ----------------------------------------------------------------


@njit(**LOOP)
def _rms_norm(x: Array, weight: Array, eps: float, y: Array) -> None:
    total = f32(0)
    for i in range(x.size):
        total += x[i] * x[i]
    scale = f32(1.0 / np.sqrt(np.float64(total) / x.size + eps))
    for i in range(x.size):
        y[i] = x[i] * scale * weight[i]


@njit(**LOOP)
def _norm_range(
    rms: bool, weight: int, bias: int, eps: float, x: int, out: int, C: int, start: int, stop: int
) -> None:  # fmt: skip
    w, moments = carray(float32_pointer(weight), C), np.empty(2, f32)
    for r in range(start, stop):
        row, y = carray(float32_pointer(x + 4 * r * C), C), carray(float32_pointer(out + 4 * r * C), C)
        if rms:
            _rms_norm(row, w, eps, y)
        else:
            layer_norm_range(row.reshape(1, C), w, y.reshape(1, C), moments[:1], moments[1:], eps, 0, 1)
        if bias:
            b = carray(float32_pointer(bias), C)
            for i in range(C):
                y[i] += b[i]


@njit(**_KERNEL)
def last_rows(x: int, B: int, T: int, C: int, count: int, out: int) -> None:
    """Copy the last `count` of the T rows of each sequence of x, (B T, C), to out, (B count, C)."""
    for b in range(B):
        source = carray(float32_pointer(x + 4 * (b * T + T - count) * C), count * C)
        target = carray(float32_pointer(out + 4 * b * count * C), count * C)
        for i in range(count * C):
            target[i] = source[i]


@njit(**_KERNEL)
def norm_rows(
    pool: int, rms: bool, weight: int, bias: int, eps: float, x: int, R: int, C: int, out: int
) -> None:  # fmt: skip
    """Write the LayerNorm, or the RMSNorm, of each row of x into out, both (R, C)."""
    arguments = (rms, weight, bias, eps, x, out, C)
    parallel_for(pool if R * C >= _MIN_SHARED else 0, bind_kernel(_norm_range, arguments), R, 1, 1)


@njit(**LOOP)
def _add_range(x: int, y: int, start: int, stop: int) -> None:
    a, b = carray(float32_pointer(x + 4 * start), stop - start), carray(float32_pointer(y + 4 * start), stop - start)
    for i in range(stop - start):
        a[i] += b[i]


@njit(**_KERNEL)
def add_rows(pool: int, x: int, y: int, n: int) -> None:
    """Add n numbers y to x."""
    parallel_for(pool if n >= _MIN_SHARED else 0, bind_kernel(_add_range, (x, y)), n, 1024, 1)


@njit(**LOOP)
def _gelu_addresses(x: int, tanh: bool, start: int, stop: int) -> None:
    gelu_in_place(carray(float32_pointer(x + 4 * start), stop - start), tanh)


@njit(**_KERNEL)
def apply_gelu(pool: int, x: int, n: int, tanh: bool) -> None:
    """Replace n numbers by ``x cdf(x)``, exact or with the tanh approximation."""
    parallel_for(pool if n >= _MIN_SHARED else 0, bind_kernel(_gelu_addresses, (x, tanh)), n, 1024, 1)


@njit(**LOOP)
def _relu_squared_range(x: int, start: int, stop: int) -> None:
    values = carray(float32_pointer(x + 4 * start), stop - start)
    for i in range(values.size):
        positive = max(values[i], f32(0))
        values[i] = positive * positive


@njit(**_KERNEL)
def apply_relu_squared(pool: int, x: int, n: int) -> None:
    """Replace n numbers by ``max(x, 0)^2``."""
    parallel_for(pool if n >= _MIN_SHARED else 0, bind_kernel(_relu_squared_range, (x,)), n, 1024, 1)


@njit(**LOOP)
def _swiglu_range(x: int, I: int, start: int, stop: int) -> None:
    for r in range(start, stop):
        gate = carray(float32_pointer(x + 8 * r * I), I)
        value = carray(float32_pointer(x + 8 * r * I + 4 * I), I)
        swiglu_in_place(gate, value)


@njit(**_KERNEL)
def apply_swiglu(pool: int, x: int, R: int, I: int) -> None:
    """Replace the gates, the first I numbers of each row of x, (R, 2I), by ``silu(gate) value``."""
    parallel_for(pool if R * I >= _MIN_SHARED else 0, bind_kernel(_swiglu_range, (x, I)), R, 1, 1)


# ---- attention ----------------------------------------------------------------------------------
#
# A row of `heads` has H queries, K keys and K values, each D numbers. Row r is token r % T of sequence r // T. The
# cache has keys and values (B, K, places, D); the new tokens are at the places from `length`, and in sequence b the
# places before padding[b] hold nothing.


@njit(**LOOP)
def _turn(x: Array, cosines: Array, sines: Array) -> None:
    """Turn the pairs (i, i + D/2) of a head by the angles of its position."""
    half = x.size // 2
    for i in range(half):
        a, b = x[i], x[i + half]
        x[i] = a * cosines[i] - b * sines[i]
        x[i + half] = b * cosines[i + half] + a * sines[i + half]


@njit(**LOOP)
def _turn_and_cache_range(
    heads: int, H: int, K: int, D: int, cosines: int, sines: int, q_norm: int, k_norm: int, eps: float, keys: int,
    values: int, places: int, length: int, T: int, padding: Array, start: int, stop: int,
) -> None:  # fmt: skip
    width = (H + 2 * K) * D
    for r in range(start, stop):
        b, place = r // T, length + r % T
        position = max(place - padding[b], 0)
        row = heads + 4 * r * width
        for h in range(H + K):
            x = carray(float32_pointer(row + 4 * h * D), D)
            if q_norm:
                _rms_norm(x, carray(float32_pointer(q_norm if h < H else k_norm), D), eps, x)
            if cosines:
                at = 4 * position * D
                _turn(x, carray(float32_pointer(cosines + at), D), carray(float32_pointer(sines + at), D))
            if h >= H:
                to = 4 * ((b * K + h - H) * places + place) * D
                key, value = carray(float32_pointer(keys + to), D), carray(float32_pointer(values + to), D)
                v = carray(float32_pointer(row + 4 * (h + K) * D), D)
                for d in range(D):
                    key[d], value[d] = x[d], v[d]


@njit(**_KERNEL)
def turn_and_cache(
    pool: int, heads: int, R: int, H: int, K: int, D: int, cosines: int, sines: int, q_norm: int, k_norm: int,
    eps: float, keys: int, values: int, places: int, length: int, T: int, padding: Array,
) -> None:  # fmt: skip
    """Norm and turn queries and keys of heads, (R, (H + 2K) D), in place, and append keys and values to the cache.

    cosines, sines: (positions, D), or 0 without rotary positions. q_norm, k_norm: weights (D,) of RMSNorms, or 0.
    """
    arguments = (
        heads, H, K, D, cosines, sines, q_norm, k_norm, eps, keys, values, places, length, T, padding,
    )  # fmt: skip
    shared = pool if R * (H + 2 * K) * D >= _MIN_SHARED else 0
    parallel_for(shared, bind_kernel(_turn_and_cache_range, arguments), R, 1, 1)


@njit(**LOOP)
def _weighted_sum(weights: Array, v: int, D: int, out: int) -> None:
    """Write ``sum_s weights[s] v[s]``, (D,), to an address, for rows v of D numbers."""
    d = 0
    while d + 64 <= D:
        # Four sums at a time, because each addition waits for the one before.
        a, b, c, e = zeros_16(), zeros_16(), zeros_16(), zeros_16()
        for s in range(weights.size):
            weight, at = splat_16(weights[s]), v + 4 * (s * D + d)
            a, b = fma_16(weight, load_16(at), a), fma_16(weight, load_16(at + 64), b)
            c, e = fma_16(weight, load_16(at + 128), c), fma_16(weight, load_16(at + 192), e)
        to = out + 4 * d
        store_16(to, a), store_16(to + 64, b), store_16(to + 128, c), store_16(to + 192, e)
        d += 64
    while d + 16 <= D:
        a = zeros_16()
        for s in range(weights.size):
            a = fma_16(splat_16(weights[s]), load_16(v + 4 * (s * D + d)), a)
        store_16(out + 4 * d, a)
        d += 16
    y = carray(float32_pointer(out), D)
    while d < D:
        total = f32(0)
        for s in range(weights.size):
            total += weights[s] * carray(float32_pointer(v + 4 * (s * D + d)), 1)[0]
        y[d] = total
        d += 1


@njit(**LOOP)
def _attention_range(
    gemm: int, heads: int, H: int, K: int, D: int, keys: int, values: int, places: int, length: int, T: int,
    window: int, padding: Array, out: int, start: int, stop: int,
) -> None:  # fmt: skip
    width, tiles, scale = (H + 2 * K) * D, -(-T // _QUERIES), f32(1.0 / np.sqrt(D))
    scores = np.empty(min(T, _QUERIES) * (length + T), f32)
    stats = np.empty(2, f32)
    for task in range(start, stop):
        # The last queries see the most keys, so their tasks come first.
        tile, head = tiles - 1 - task // (len(padding) * H), task % (len(padding) * H)
        b, h = head // H, head % H
        first, n = tile * _QUERIES, min(_QUERIES, T - tile * _QUERIES)
        last = length + first + n  # the place after the last key that the tile sees
        low = padding[b]
        if window:
            low = max(low, length + first - window + 1)
        count = last - low
        q = heads + 4 * ((b * T + first) * width + h * D)
        at = 4 * ((b * K + h * K // H) * places + low) * D
        k, v, to = keys + at, values + at, out + 4 * ((b * T + first) * H + h) * D
        if count <= 0:  # All queries are tokens of the padding.
            for i in range(n):
                carray(float32_pointer(to + 4 * i * H * D), D)[:] = f32(0)
            continue
        p = np.int64(scores.ctypes.data)
        few = gemm == 0 or n <= _MAX_GEMV_QUERIES
        if not few:
            sgemm(gemm, NO_TRANS, TRANS, n, count, D, q, width, k, D, f32(0), p, count)
        else:
            for i in range(n):
                gemv(k, D, D, q + 4 * i * width, p + 4 * i * count, 0, count)
        for i in range(n):
            row = scores[i * count : (i + 1) * count]
            end = count - n + i + 1  # of the keys that query i sees
            begin = max(0, end - window) if window else 0
            if begin >= end:  # a token of the padding
                row[:] = f32(0)
                continue
            softmax_scores(row[begin:end].reshape(1, end - begin), scale, False, 0, stats[:1], stats[1:])
            row[:begin] = f32(0)
            row[end:] = f32(0)
        if not few:
            sgemm(gemm, NO_TRANS, NO_TRANS, n, D, count, p, count, v, D, f32(0), to, H * D)
        else:
            for i in range(n):
                # Only the keys that the query sees, so that its bits are those of a query that is alone.
                end = max(0, count - n + i + 1)
                begin = max(0, end - window) if window else 0
                _weighted_sum(scores[i * count + begin : i * count + end], v + 4 * begin * D, D, to + 4 * i * H * D)
    keep_alive(scores)


@njit(**_KERNEL)
def cached_attention(
    pool: int, gemm: int, heads: int, R: int, H: int, K: int, D: int, keys: int, values: int, places: int, length: int,
    T: int, window: int, padding: Array, out: int,
) -> None:  # fmt: skip
    """Write ``softmax(q keys^T / sqrt(D)) values`` of each query into out, (R, H D). H / K queries share a key.

    A query sees the keys up to its own place, with a window only that many, and none in the padding.
    """
    arguments = (gemm, heads, H, K, D, keys, values, places, length, T, window, padding, out)
    large = R * H * D * (length + T) >= _MIN_SHARED_PRODUCT
    tasks = -(-T // _QUERIES) * len(padding) * H
    parallel_for(pool if large else 0, bind_kernel(_attention_range, arguments), tasks, 1, 1 if T == 1 else 4)
