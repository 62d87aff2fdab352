"""The kernels of ``reference`` that pay for a faster twin on NumPy, under the same names.

What costs time here is memory traffic and temporaries, not arithmetic: so arrays are worked through in blocks that
stay in the cache, into buffers that are used again. What a twin does not cover it leaves to the reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import reference

__all__ = ["adam_step", "embedding_backward", "gelu", "gelu_backward", "sum_to"]

Array = Any
XP = Any

_BLOCK = 16_384  # float32 entries: 64 KB, so that a few buffers share the second-level cache


def _blocks(*arrays: Array) -> Iterator[list[Array]]:
    """The flat arrays, a block at a time."""
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, flat[0].size, _BLOCK):
        yield [a[start : start + _BLOCK] for a in flat]


def _is_plain(*arrays: Array) -> bool:
    """Whether all are contiguous float32, which is what the blocked kernels take."""
    return all(a.dtype == np.float32 and a.flags.c_contiguous for a in arrays)


# ---- sums -----------------------------------------------------------------------------------


def sum_to(xp: XP, x: Array, shape: tuple[int, ...]) -> Array:
    """As the reference; a sum over rows is a product with a vector of ones, which BLAS does at memory speed."""
    lead = x.ndim - len(shape)
    if lead and len(shape) == 1 and x.shape[-1] == shape[0] > 0 and x.dtype.kind == "f" and x.dtype.itemsize >= 4:
        rows = x.reshape(-1, shape[0])
        return np.ones(len(rows), x.dtype) @ rows
    return reference.sum_to(xp, x, shape)


def embedding_backward(xp: XP, g: Array, ids: Array, rows: int) -> Array:
    """As the reference. Few rows: a product with the one-hot matrix. Many: sort by row, then sum each row's run."""
    width = g.shape[-1]
    flat, g = ids.reshape(-1), g.reshape(ids.size, width)
    if not flat.size or g.dtype.itemsize < 4:
        return reference.embedding_backward(xp, g, flat, rows)
    if rows <= 256:
        onehot = np.zeros((rows, flat.size), g.dtype)
        onehot[flat, np.arange(flat.size)] = 1
        return onehot @ g
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    out = np.zeros((rows, width), g.dtype)
    out[ordered[starts]] = np.add.reduceat(g[order], starts, axis=0)
    return out


# ---- activations ----------------------------------------------------------------------------

# erf(z) = tanh(z * p(z^2)) to 6e-8: a weighted minimax fit of atanh(erf(z)) / z on 0 < z < 4.2, lowest power first.
_ERF_TANH = (
    1.128379705,
    0.1027654814,
    -1.843836656e-4,
    -6.257195994e-4,
    8.971259577e-5,
    -5.985692019e-6,
    1.589602992e-7,
)
_CDF = tuple(0.5**k * c for k, c in enumerate(_ERF_TANH))  # the same in x = z * sqrt(2)


def gelu(xp: XP, x: Array, tanh: bool) -> tuple[Array, Array]:
    """As the reference, in blocks; the exact form to float32's precision, by a tanh of a polynomial in place of erf."""
    if tanh or not _is_plain(x):
        return reference.gelu(xp, x, tanh)
    out, cdf = np.empty_like(x), np.empty_like(x)
    q, p = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for a, y, c in _blocks(x, out, cdf):
        s, t = q[: a.size], p[: a.size]
        np.multiply(a, a, out=s)
        np.multiply(s, _CDF[-1], out=t)
        for k in _CDF[-2:0:-1]:
            t += k
            t *= s
        t += _CDF[0]
        t *= a
        t *= math.sqrt(0.5)
        np.tanh(t, out=c)
        c *= 0.5
        c += 0.5
        np.multiply(a, c, out=y)
    return out, cdf


def gelu_backward(xp: XP, g: Array, x: Array, kept: Array, tanh: bool) -> Array:
    """As the reference, in blocks."""
    if tanh or not _is_plain(g, x, kept):
        return reference.gelu_backward(xp, g, x, kept, tanh)
    dx = np.empty_like(x)
    for d, a, c, o in _blocks(g, x, kept, dx):
        np.multiply(a, a, out=o)
        o *= -0.5
        np.exp(o, out=o)
        o *= 1.0 / math.sqrt(2.0 * math.pi)
        o *= a
        o += c
        o *= d
    return dx


# ---- optimizers -----------------------------------------------------------------------------


def adam_step(
    xp: XP, p: Array, g: Array, m: Array, v: Array, t: int, lr: float, beta1: float, beta2: float, eps: float,
    decay: float, decoupled: bool, maximize: bool,
) -> None:  # fmt: skip
    """As the reference, a block at a time: each parameter passes through the cache once."""
    step = reference.adam_step
    if p.size <= _BLOCK or not all(a.flags.c_contiguous for a in (p, g, m, v)):
        step(xp, p, g, m, v, t, lr, beta1, beta2, eps, decay, decoupled, maximize)
        return
    for bp, bg, bm, bv in _blocks(p, g, m, v):
        step(xp, bp, bg, bm, bv, t, lr, beta1, beta2, eps, decay, decoupled, maximize)
