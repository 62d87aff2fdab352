"""Compiled kernels for a single row, such as the one token of a decode step.

A call from another compiled function takes a fraction of a microsecond; a call from Python takes several. They are
public in ``tensorlite.compiled``. All arrays must be contiguous float32, else numba raises TypeError. Shapes that do
not fit raise ValueError.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .gemm import gemv
from .kernels import gelu_range, layer_norm_range, softmax_scores
from .parallel_for import bind_kernel, parallel_for
from .support import LOOP, njit

__all__ = ["decode_attention", "gelu", "layer_norm", "linear"]

Array = Any
f32 = np.float32

_ROW_KERNEL: dict[str, Any] = {**LOOP, "cache": True, "no_cpython_wrapper": False}
_MIN_SHARED_WEIGHTS = 1 << 15  # from which threads share a product
_MIN_SHARED_KEYS = 1 << 16  # numbers in the keys from which threads share the heads


@njit("void(i8, f4[::1], f4[:, ::1], optional(f4[::1]), f4[::1])", **_ROW_KERNEL)
def linear(pool: int, x: Array, weight: Array, bias: Array | None, y: Array) -> None:
    """Write ``weight x + bias`` into y, for x (in,), weight (out, in) and y (out,); bias is (out,) or None.

    The threads of the pool share a large weight, so that it is read as fast as memory allows. Raises ValueError for
    shapes that do not fit.
    """
    rows, k = weight.shape
    if x.size != k or y.size != rows or (bias is not None and bias.size != rows):
        raise ValueError("linear: expected x (in,), weight (out, in), bias (out,) or None, and y (out,)")
    w, a, b = np.int64(weight.ctypes.data), np.int64(x.ctypes.data), np.int64(y.ctypes.data)
    parallel_for(pool if weight.size >= _MIN_SHARED_WEIGHTS else 0, bind_kernel(gemv, (w, k, k, a, b)), rows, 16, 1)
    if bias is not None:
        for i in range(rows):
            y[i] += bias[i]


@njit("void(f4[::1], f4[::1], optional(f4[::1]), f8, f4[::1])", **_ROW_KERNEL)
def layer_norm(x: Array, weight: Array, bias: Array | None, eps: float, y: Array) -> None:
    """Write ``(x - mean) / sqrt(variance + eps) weight + bias`` into y, all (n,); bias may be None.

    Raises ValueError for shapes that do not fit.
    """
    n = x.size
    if weight.size != n or y.size != n or (bias is not None and bias.size != n):
        raise ValueError("layer_norm: expected x, weight, bias or None, and y of one length")
    moments = np.empty(2, f32)
    layer_norm_range(x.reshape(1, n), weight, y.reshape(1, n), moments[:1], moments[1:], eps, 0, 1)
    if bias is not None:
        for j in range(n):
            y[j] += bias[j]


@njit("void(f4[::1], b1)", **_ROW_KERNEL)
def gelu(x: Array, tanh: bool) -> None:
    """Replace x, (n,), by ``x cdf(x)``, exact or with the tanh approximation."""
    gelu_range(x, x, tanh, 0, x.size)


@njit(**LOOP)
def decode_attention_range(
    q: Array, keys: Array, values: Array, length: int, scale: Any, scores: Array, y: Array, start: int, stop: int
) -> None:  # fmt: skip
    D, stats = q.shape[1], np.empty(2, f32)
    for head in range(start, stop):
        p, k, v, out = scores[head, :length], keys[head], values[head], y[head]
        gemv(np.int64(k.ctypes.data), D, D, np.int64(q[head].ctypes.data), np.int64(p.ctypes.data), 0, length)
        softmax_scores(p.reshape(1, length), scale, False, 0, stats[:1], stats[1:])
        for d in range(D):
            out[d] = f32(0)
        for s in range(length):
            weight, row = p[s], v[s]
            for d in range(D):
                out[d] += weight * row[d]


@njit("void(i8, f4[:, ::1], f4[:, :, ::1], f4[:, :, ::1], i8, f4[:, ::1], f4[:, ::1])", **_ROW_KERNEL)
def decode_attention(pool: int, q: Array, keys: Array, values: Array, length: int, scores: Array, y: Array) -> None:
    """Write ``softmax(q keys^T / sqrt(D)) values`` of one query and the first ``length`` keys into y, head by head.

    q, y: (H, D). keys, values: (H, at least length, D). scores: workspace, (H, at least length). The threads of the
    pool share the heads if the keys are many. Raises ValueError for shapes that do not fit.
    """
    H, D = q.shape
    for x in (keys, values):
        if x.shape[0] != H or x.shape[2] != D or not 1 <= length <= x.shape[1]:
            raise ValueError("decode_attention: expected keys and values (H, at least length, D), as q is (H, D)")
    if y.shape != q.shape or scores.shape[0] != H or scores.shape[1] < length:
        raise ValueError("decode_attention: expected y (H, D) and scores (H, at least length), as q is (H, D)")
    large = H * length * D >= _MIN_SHARED_KEYS
    scale = f32(1.0 / np.sqrt(D))
    arguments = (q, keys, values, length, scale, scores, y)
    parallel_for(pool if large else 0, bind_kernel(decode_attention_range, arguments), H, 1, 1)
