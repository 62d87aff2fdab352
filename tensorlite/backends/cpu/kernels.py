"""The kernels of ``reference`` that pay for a faster twin on NumPy, under the same names.

What costs time here is memory traffic and temporaries, not arithmetic. Where numba is installed, ``jit`` has loops that
pass over memory once; without it arrays are worked through in blocks that stay in the cache. Large work is spread over
the cores (``threads``). What a twin does not cover it leaves to the reference. Which of these computes depends on
shapes, dtypes and layouts alone, so the same call gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from .. import reference
from .blas import gemm_address, one_blas_thread
from .find_compiled import load_crew
from .thread_pool import get_num_threads, share, spread

__all__ = [
    "adam_step", "attention", "attention_backward", "cross_entropy", "cross_entropy_backward", "embedding_backward",
    "gelu", "gelu_backward", "layer_norm", "layer_norm_backward", "matmul", "softmax", "sum_to",
]  # fmt: skip

Array = Any
XP = Any

_FLOAT32 = np.dtype(np.float32)
_BLOCK = 16_384  # float32 entries: 64 KB, so that a few buffers share the second-level cache
_LARGE = 1 << 11  # entries from which a compiled loop pays, and its compiler may be loaded
_HUGE = 1 << 14  # entries from which a loop takes long enough to be shared among threads


def _blocks(*arrays: Array) -> Iterator[list[Array]]:
    """The flat arrays, a block at a time."""
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, flat[0].size, _BLOCK):
        yield [a[start : start + _BLOCK] for a in flat]


def _is_plain(*arrays: Array | None) -> bool:
    """Whether all that there are are contiguous float32, which is what the fast kernels take."""
    for a in arrays:  # a loop is half the time of all(...), of which a small step has many
        if a is not None and not (a.dtype is _FLOAT32 and a.flags.c_contiguous):
            return False
    return True


@cache
def _loops() -> Any:
    """The compiled kernels, or None where nothing is compiled."""
    if load_crew() is None:
        return None
    from .compiled import kernels as jit

    return jit


def _jit(*arrays: Array | None) -> Any:
    """The compiled kernels if they take these arrays, the first of which is the largest; else None."""
    first = arrays[0]
    return _loops() if first is not None and first.size >= _LARGE and _is_plain(*arrays) else None


def _run(kernel: Any, size: int, *args: Any) -> Any:
    """A compiled kernel, shared among threads if it is for so many entries that this pays."""
    return share(kernel, *args) if size >= _HUGE else kernel(0, *args)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


# ---- products -------------------------------------------------------------------------------

_FLOPS_ALONE = 300_000  # multiplications and additions; below, OpenBLAS uses one thread anyway
_FLOPS_SHARED = 20_000_000  # above, sharing a product saves more than it costs


def matmul(xp: XP, x: Array, y: Array) -> Array:
    """``x @ y``; the rows of a large product of matrices are shared among threads."""
    if x.size * y.size < _FLOPS_ALONE:  # soonest, since such a product takes a microsecond
        return np.matmul(x, y)
    work = x.size * y.shape[1] if x.ndim == 2 == y.ndim else 0
    if work < _FLOPS_ALONE or x.dtype != y.dtype or x.dtype.kind != "f" or x.shape[1] != y.shape[0]:
        return np.matmul(x, y)
    shared = _product(x, y)
    if shared is not None:
        return shared
    with one_blas_thread:
        if work < _FLOPS_SHARED:
            return np.matmul(x, y)
        out = np.empty((x.shape[0], y.shape[1]), x.dtype)
        if x.shape[0] >= y.shape[1]:
            spread(lambda start, stop: _into(out[start:stop], x[start:stop], y), x.shape[0])
        else:
            spread(lambda start, stop: _into(out[:, start:stop], x, y[:, start:stop]), y.shape[1])
        return out


def _product(x: Array, y: Array) -> Array | None:
    """``x @ y`` of two matrices of one floating dtype, shared among all threads; None if that cannot be."""
    if get_num_threads() <= 1 or load_crew() is None or not (x.flags.writeable and y.flags.writeable):
        return None
    function = gemm_address(x.dtype)
    if not function:
        return None
    out = np.empty((x.shape[0], y.shape[1]), x.dtype)
    with one_blas_thread:
        return out if share(load_crew().product, x, y, out, function) else None


def _into(out: Array, x: Array, y: Array) -> None:
    np.matmul(x, y, out=out)


def _sum_rows(rows: Array) -> Array:
    """The sum over rows, which BLAS computes at memory speed."""
    with one_blas_thread:
        return np.ones(len(rows), rows.dtype) @ rows


# ---- sums -----------------------------------------------------------------------------------


def sum_to(xp: XP, x: Array, shape: tuple[int, ...]) -> Array:
    """As the reference; a sum over rows is a product with a vector of ones."""
    lead = x.ndim - len(shape)
    if lead and len(shape) == 1 and x.shape[-1] == shape[0] > 0 and x.dtype.kind == "f" and x.dtype.itemsize >= 4:
        return _sum_rows(x.reshape(-1, shape[0]))
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
        out = matmul(xp, onehot, g)
        if not np.isfinite(out).all():  # 0 times infinity is NaN, in rows that have no part in it
            return reference.embedding_backward(xp, g, flat, rows)
        return out
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    out = np.zeros((rows, width), g.dtype)
    out[ordered[starts]] = np.add.reduceat(g[order], starts, axis=0)
    return out


# ---- softmax and normalisation --------------------------------------------------------------


def softmax(xp: XP, x: Array, axis: int) -> Array:
    """As the reference."""
    jit = _jit(x)
    if jit is None or axis not in (-1, x.ndim - 1):
        return reference.softmax(xp, x, axis)
    rows, y = _rows(x), np.empty_like(x)
    out = _rows(y)
    _run(jit.softmax, x.size, rows, out)
    return y


def layer_norm(xp: XP, x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """As the reference."""
    jit = _jit(x, weight, bias)
    if jit is None:
        return reference.layer_norm(xp, x, weight, bias, eps)
    y = np.empty_like(x)
    mean, rstd = (np.empty((*x.shape[:-1], 1), x.dtype) for _ in range(2))
    rows, out, m, r = _rows(x), _rows(y), mean.reshape(-1), rstd.reshape(-1)
    w = np.ones(x.shape[-1], x.dtype) if weight is None else weight
    _run(jit.layer_norm, x.size, rows, w, out, m, r, eps)
    if bias is not None:
        y += bias
    return y, mean, rstd


def layer_norm_backward(
    xp: XP, g: Array, x: Array, weight: Array | None, mean: Array, rstd: Array
) -> tuple[Array, Array | None, Array]:
    """As the reference."""
    jit = _jit(x, g, weight, mean, rstd)
    if jit is None:
        return reference.layer_norm_backward(xp, g, x, weight, mean, rstd)
    dx, width = np.empty_like(x), x.shape[-1]
    grads, rows, out, m, r = _rows(g), _rows(x), _rows(dx), mean.reshape(-1), rstd.reshape(-1)
    w = np.ones(width, x.dtype) if weight is None else weight
    dweight, dbias = _run(jit.layer_norm_backward, x.size, grads, rows, w, m, r, out)
    return dx, None if weight is None else dweight, dbias


# ---- activations ----------------------------------------------------------------------------

_CDF = tuple(0.5**k * c for k, c in enumerate(reference.ERF_TANH))  # in x = z * sqrt(2)


def _cdf(x: Array, out: Array, s: Array, t: Array) -> None:
    """The normal distribution's cdf of x, into ``out``; s and t are room for intermediate results."""
    np.multiply(x, x, out=s)
    np.multiply(s, _CDF[-1], out=t)
    for k in _CDF[-2:0:-1]:
        t += k
        t *= s
    t += _CDF[0]
    t *= x
    t *= math.sqrt(0.5)
    np.tanh(t, out=out)
    out *= 0.5
    out += 0.5


def gelu(xp: XP, x: Array, tanh: bool) -> Array:
    """As the reference; the exact form to float32's precision, by a tanh of a polynomial in place of erf."""
    y = np.empty_like(x)
    if jit := _jit(x):
        _run(jit.gelu, x.size, x.reshape(-1), y.reshape(-1), tanh)
        return y
    if tanh or not _is_plain(x):
        return reference.gelu(xp, x, tanh)
    q, p = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for a, b in _blocks(x, y):
        _cdf(a, b, q[: a.size], p[: a.size])
        b *= a
    return y


def gelu_backward(xp: XP, g: Array, x: Array, tanh: bool) -> Array:
    """As the reference."""
    dx = np.empty_like(x)
    if jit := _jit(x, g):
        _run(jit.gelu_backward, x.size, g.reshape(-1), x.reshape(-1), dx.reshape(-1), tanh)
        return dx
    if tanh or not _is_plain(g, x):
        return reference.gelu_backward(xp, g, x, tanh)
    room = np.empty((3, _BLOCK), np.float32)
    for d, a, o in _blocks(g, x, dx):
        c, s, t = room[:, : a.size]
        _cdf(a, c, s, t)
        np.multiply(a, a, out=o)
        o *= -0.5
        np.exp(o, out=o)
        o *= 1.0 / math.sqrt(2.0 * math.pi)
        o *= a
        o += c
        o *= d
    return dx


# ---- losses ---------------------------------------------------------------------------------


def _are_classes(target: Array, n: int, ignore_index: int) -> bool:
    """Whether a loop may use them as indices: it checks nothing."""
    if target.dtype != np.int64 or not target.flags.c_contiguous:
        return False
    return bool(((target == ignore_index) | ((target >= -n) & (target < n))).all())


def cross_entropy(xp: XP, logits: Array, target: Array, ignore_index: int, smoothing: float) -> tuple[Array, Array]:
    """As the reference."""
    jit = _jit(logits) if _are_classes(target, logits.shape[-1], ignore_index) else None
    if jit is None:
        return reference.cross_entropy(xp, logits, target, ignore_index, smoothing)
    loss, lse = np.empty(len(logits), logits.dtype), np.empty((len(logits), 1), logits.dtype)
    _run(jit.cross_entropy, logits.size, logits, target, loss, lse.reshape(-1), ignore_index, smoothing)
    return loss, lse


def cross_entropy_backward(
    xp: XP, g: Array, logits: Array, target: Array, lse: Array, ignore_index: int, smoothing: float
) -> Array:
    """As the reference."""
    jit = _jit(logits, lse) if _are_classes(target, logits.shape[-1], ignore_index) else None
    if jit is None:
        return reference.cross_entropy_backward(xp, g, logits, target, lse, ignore_index, smoothing)
    dx, flat, grads = np.empty_like(logits), lse.reshape(-1), np.ascontiguousarray(g, np.float32)
    _run(jit.cross_entropy_backward, logits.size, grads, logits, target, flat, dx, ignore_index, smoothing)
    return dx


# ---- attention ------------------------------------------------------------------------------


def _is_attention(q: Array, k: Array, v: Array, mask: Array | None, keep: Array | None) -> bool:
    """Whether the blocked kernels cover it: stacks of one shape, without mask and dropout, and a BLAS they can call."""
    return (
        mask is None and keep is None and q.ndim >= 3 and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
        and q.dtype == k.dtype == v.dtype == np.float32 and min(q.size, k.size, v.size) >= _LARGE
        and _loops() is not None and gemm_address(_FLOAT32) != 0
    )  # fmt: skip


def _side_by_side(x: Array, width: int) -> Array:
    """A new array of x's shape but for the width, in which heads lie side by side in memory, as a model wants them."""
    if x.ndim != 4:
        return np.empty((*x.shape[:-1], width), x.dtype)
    return np.empty((x.shape[0], x.shape[2], x.shape[1], width), x.dtype).swapaxes(1, 2)


def _heads(x: Array) -> Array:
    """As (B, H, rows, columns), with rows that BLAS can read."""
    x = x if x.ndim == 4 else x.reshape(-1, *x.shape[-3:])
    size, row = x.itemsize, x.strides[2]
    return x if x.strides[3] == size and row % size == 0 and row >= size * x.shape[3] else x.copy()


def _run_on_heads(kernel: Any, arrays: tuple[Array, ...], lse: Array, causal: bool, scale: float) -> None:
    """Run a kernel on what was given and what it shall fill, and the logsumexp (B H, T)."""
    with one_blas_thread:
        _run(kernel, arrays[0].size, gemm_address(_FLOAT32), *map(_heads, arrays), lse, causal, scale)


def attention(
    xp: XP, q: Array, k: Array, v: Array, mask: Array | None, keep: Array | None, causal: bool, scale: float
) -> tuple[Array, Array]:
    """As the reference, a block of queries at a time, so that the scores are never all in memory."""
    if not _is_attention(q, k, v, mask, keep):
        return reference.attention(xp, q, k, v, mask, keep, causal, scale)
    out = _side_by_side(q, v.shape[-1])
    lse = np.empty((*q.shape[:-1], 1), q.dtype)
    _run_on_heads(_loops().attention, (q, k, v, out), lse.reshape(-1, q.shape[-2]), causal, scale)
    return out, lse


def attention_backward(
    xp: XP, g: Array, q: Array, k: Array, v: Array, mask: Array | None, keep: Array | None, lse: Array, causal: bool,
    scale: float,
) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
    """As the reference, a block of queries at a time."""
    if not _is_attention(q, k, v, mask, keep):
        return reference.attention_backward(xp, g, q, k, v, mask, keep, lse, causal, scale)
    dq, dk, dv = (_side_by_side(x, x.shape[-1]) for x in (q, k, v))
    known = np.ascontiguousarray(lse).reshape(-1, q.shape[-2])
    _run_on_heads(_loops().attention_backward, (g, q, k, v, dq, dk, dv), known, causal, scale)
    return dq, dk, dv, None


# ---- optimizers -----------------------------------------------------------------------------


def adam_step(
    xp: XP, p: Array, g: Array, m: Array, v: Array, t: int, lr: float, beta1: float, beta2: float, eps: float,
    decay: float, decoupled: bool, maximize: bool,
) -> None:  # fmt: skip
    """As the reference, in one pass over memory."""
    if p.size >= 1 << 5 and _is_plain(p, g, m, v) and (jit := _loops()):
        numbers = (
            -1.0 if maximize else 1.0, 1.0 - lr * decay if decoupled else 1.0, 0.0 if decoupled else decay, beta1,
            1.0 - beta1, beta2, 1.0 - beta2, math.sqrt(1.0 - beta2**t), eps, lr / (1.0 - beta1**t),
        )  # fmt: skip
        floats = [float(number) for number in numbers]
        # What it reads was last with the caller, so it has to be larger to pay.
        _run(jit.adam_step, p.size // 16, p.reshape(-1), g.reshape(-1), m.reshape(-1), v.reshape(-1), *floats)
        return
    step = reference.adam_step
    if p.size <= _BLOCK or not all(a.flags.c_contiguous for a in (p, g, m, v)):
        step(xp, p, g, m, v, t, lr, beta1, beta2, eps, decay, decoupled, maximize)
        return
    for bp, bg, bm, bv in _blocks(p, g, m, v):
        step(xp, bp, bg, bm, bv, t, lr, beta1, beta2, eps, decay, decoupled, maximize)
