"""Compiled kernels for a single row, as of the one token that a model reads to write the next.

Each takes a fraction of a microsecond where a call from Python takes several, so they are for compiled functions to
call, one after the other; ``tensorlite.compiled`` has them for everybody. All arrays are contiguous float32, which
numba holds callers to; shapes that do not fit raise ValueError.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .gemm import rows_times
from .kernels import _LOOP, _gelu, _layer_norm, _softmax_of_scores
from .parallel_for import bind_kernel, parallel_for
from .support import njit

__all__ = ["decode_attention", "gelu", "layer_norm", "linear"]

Array = Any
f32 = np.float32

_KERNEL: dict[str, Any] = {**_LOOP, "cache": True, "no_cpython_wrapper": False}
_SHARED = 1 << 15  # weights from which threads share a product
_KEYS_SHARED = 1 << 16  # numbers in the keys from which they share the heads


@njit("void(i8, f4[::1], f4[:, ::1], optional(f4[::1]), f4[::1])", **_KERNEL)
def linear(pool: int, x: Array, weight: Array, bias: Array | None, y: Array) -> None:
    """``y = weight x + bias``, for x (in,), weight (out, in) and y (out,); bias (out,) or None.

    A large weight is shared over the pool: it is read at the speed of memory.
    """
    rows, k = weight.shape
    if x.size != k or y.size != rows or (bias is not None and bias.size != rows):
        raise ValueError("linear: expected x (in,), weight (out, in), bias (out,) or None, and y (out,)")
    w, a, b = np.int64(weight.ctypes.data), np.int64(x.ctypes.data), np.int64(y.ctypes.data)
    parallel_for(pool if weight.size >= _SHARED else 0, bind_kernel(rows_times, (w, k, k, a, b)), rows, 16, 1)
    if bias is not None:
        for i in range(rows):
            y[i] += bias[i]


@njit("void(f4[::1], f4[::1], optional(f4[::1]), f8, f4[::1])", **_KERNEL)
def layer_norm(x: Array, weight: Array, bias: Array | None, eps: float, y: Array) -> None:
    """``y = (x - mean) / sqrt(variance + eps) weight + bias``, all (n,); bias may be None."""
    n = x.size
    if weight.size != n or y.size != n or (bias is not None and bias.size != n):
        raise ValueError("layer_norm: expected x, weight, bias or None, and y of one length")
    moments = np.empty(2, f32)
    _layer_norm(x.reshape(1, n), weight, y.reshape(1, n), moments[:1], moments[1:], eps, 0, 1)
    if bias is not None:
        for j in range(n):
            y[j] += bias[j]


@njit("void(f4[::1], b1)", **_KERNEL)
def gelu(x: Array, tanh: bool) -> None:
    """``x cdf(x)`` in place of x, (n,); with the tanh approximation or exact."""
    _gelu(x, x, tanh, 0, x.size)


@njit(**_LOOP)
def _decode_attention(
    q: Array, keys: Array, values: Array, length: int, scale: Any, scores: Array, y: Array, start: int, stop: int
) -> None:  # fmt: skip
    D, lse = q.shape[1], np.empty(1, f32)
    for head in range(start, stop):
        p, k, v, out = scores[head, :length], keys[head], values[head], y[head]
        rows_times(np.int64(k.ctypes.data), D, D, np.int64(q[head].ctypes.data), np.int64(p.ctypes.data), 0, length)
        _softmax_of_scores(p.reshape(1, length), scale, False, 0, lse)
        for d in range(D):
            out[d] = f32(0)
        for s in range(length):
            weight, row = p[s], v[s]
            for d in range(D):
                out[d] += weight * row[d]


@njit("void(i8, f4[:, ::1], f4[:, :, ::1], f4[:, :, ::1], i8, f4[:, ::1], f4[:, ::1])", **_KERNEL)
def decode_attention(pool: int, q: Array, keys: Array, values: Array, length: int, scores: Array, y: Array) -> None:
    """``y = softmax(q keys^T / sqrt(D)) values`` of one query and the first ``length`` keys, head by head.

    q, y: (H, D). keys, values: (H, at least length, D). scores: room, of (H, at least length).
    """
    H, D = q.shape
    for x in (keys, values):
        if x.shape[0] != H or x.shape[2] != D or not 1 <= length <= x.shape[1]:
            raise ValueError("decode_attention: expected keys and values (H, at least length, D), as q is (H, D)")
    if y.shape != q.shape or scores.shape[0] != H or scores.shape[1] < length:
        raise ValueError("decode_attention: expected y (H, D) and scores (H, at least length), as q is (H, D)")
    large = H * length * D >= _KEYS_SHARED
    scale = f32(1.0 / np.sqrt(D))
    arguments = (q, keys, values, length, scale, scores, y)
    parallel_for(pool if large else 0, bind_kernel(_decode_attention, arguments), H, 1, 1)
