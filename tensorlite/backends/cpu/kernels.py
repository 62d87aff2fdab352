"""The kernels of ``reference`` that are faster in another form on NumPy arrays, under the same names.

The time goes to memory traffic and temporary arrays, not to arithmetic. With numba, ``compiled/kernels.py`` has loops
that pass over memory once. Without it, arrays are processed in blocks that stay in the cache. Threads share large loops
and products (see ``thread_pool.py``). Cases that a kernel here does not cover go to the reference.

Which code computes depends only on shapes, dtypes and strides, so the same call gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...dtypes import DType, accumulate_dtype, cast_array, convert_arrays
from .. import reference
from . import attention as own_attention
from .blas import gemm_pointer, one_blas_thread
from .broadcasts import multiply_arrays
from .casts import is_bfloat16
from .compiled_loops import load_loops
from .compiled_sums import run_sum, sums_for
from .find_compiled import find_compiled
from .memory_views import memory_offset, rows_of, view_at
from .products import has_bfloat16_products, is_faster, multiply
from .sums import long_matmul
from .thread_pool import are_deterministic_algorithms_enabled, get_num_threads, parallel_for, run_parallel

__all__ = [
    "adam_step", "assign_into", "attention", "attention_backward", "cross_entropy", "cross_entropy_backward",
    "exp_below", "gelu", "gelu_backward", "last_places", "layer_norm", "layer_norm_backward", "linear",
    "linear_backward", "matmul", "rms_norm", "silu", "silu_backward", "softmax", "whole_of", "wide_matmul",
]  # fmt: skip

Array = Any
XP = Any

_FLOAT32 = np.dtype(np.float32)
_BLOCK = 16_384  # float32 entries: 64 KB, so that a few buffers share the second-level cache
_MIN_COMPILED = 1 << 11  # entries, from which a compiled loop is faster; smaller arrays never load the compiler
MIN_SHARED = 1 << 14  # entries, from which a loop takes long enough for threads to share it


def _blocks(*arrays: Array) -> Iterator[list[Array]]:
    """Yield the arrays, flattened, one block at a time."""
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, flat[0].size, _BLOCK):
        yield [a[start : start + _BLOCK] for a in flat]


def _is_contiguous_float32(*arrays: Array | None) -> bool:
    """Return whether every array that is not None is contiguous float32."""
    for a in arrays:  # an explicit loop is twice as fast as all(), and this runs on every op
        # An unpickled array has a dtype object of its own. So has a result of machine code that numba has loaded.
        if a is not None and not ((a.dtype is _FLOAT32 or a.dtype == _FLOAT32) and a.flags.c_contiguous):
            return False
    return True


def _compiled_kernels() -> Any:
    """Return the module of compiled kernels, or None if nothing is compiled."""
    return load_loops("kernels")


def kernels_for(*arrays: Array | None) -> Any:
    """Return the module of compiled kernels if they take these arrays, else None. The first array is the largest."""
    first = arrays[0]
    if first is not None and first.size >= _MIN_COMPILED and _is_contiguous_float32(*arrays):
        return _compiled_kernels()
    return None


def _launch(kernel: Any, size: int, *args: Any) -> Any:
    """Call a compiled kernel; threads share its loop if it has enough entries, ``size``, for that to pay."""
    return run_parallel(kernel, *args) if size >= MIN_SHARED else kernel(0, *args)


# ---- products -------------------------------------------------------------------------------

MIN_FLOPS = 300_000  # multiplications; for fewer, OpenBLAS uses one thread anyway
_MIN_BFLOAT16 = 1 << 12  # the same in bfloat16, where NumPy multiplies number by number
_MIN_OF_STACK = 1 << 19  # the same for each product of a stack in bfloat16, which Python calls one after the other
MIN_FLOPS_PYTHON_THREADS = 20_000_000  # for fewer, sharing costs Python threads more than it saves


def matmul(xp: XP, x: Array, y: Array) -> Array:
    """Return ``x @ y``; threads share the rows or columns of a large product of matrices."""
    dtype, size = x.dtype, x.size * y.size
    if size < MIN_FLOPS:  # checked first, because such a product takes a microsecond
        narrow = dtype.kind == "V" == y.dtype.kind  # the product of bfloat16 matrices, which NumPy gives as float32
        if not narrow or size < _MIN_BFLOAT16:
            return cast_array(np.matmul(x, y), dtype) if narrow else np.matmul(x, y)
    if dtype == y.dtype and accumulate_dtype(dtype) != dtype:
        product = _own_product(x, y, dtype) if x.ndim == 2 == y.ndim else _own_products(x, y, dtype)
        return cast_array(wide_matmul(xp, x, y), dtype) if product is None else product
    if dtype == y.dtype == _FLOAT32 and (product := long_matmul(xp, x, y)) is not None:
        return product
    work = x.size * y.shape[1] if x.ndim == 2 == y.ndim else 0
    if work < MIN_FLOPS or dtype != y.dtype or dtype.kind != "f" or x.shape[1] != y.shape[0]:
        return np.matmul(x, y)
    if x.shape[1] == 1:  # the product of a column and a row, for which BLAS takes ten times as long
        return np.multiply(x, y)
    for method in (_own_product, _shared_matmul):
        if (product := method(x, y)) is not None:
            return product
    with one_blas_thread:
        if work < MIN_FLOPS_PYTHON_THREADS:
            return np.matmul(x, y)
        out = np.empty((x.shape[0], y.shape[1]), dtype)
        if x.shape[0] >= y.shape[1]:
            parallel_for(lambda start, stop: _into(out[start:stop], x[start:stop], y), x.shape[0])
        else:
            parallel_for(lambda start, stop: _into(out[:, start:stop], x, y[:, start:stop]), y.shape[1])
        return out


def wide_matmul(xp: XP, x: Array, y: Array) -> Array:
    """Return ``x @ y``, for float16 and bfloat16 in float32."""
    wide = accumulate_dtype(x.dtype)
    if wide == x.dtype:
        return matmul(xp, x, y)
    product = None
    if x.size * y.size >= _MIN_BFLOAT16:
        product = _own_product(x, y, wide) if x.ndim == 2 == y.ndim else _own_products(x, y, wide)
    return matmul(xp, cast_array(x, wide), cast_array(y, wide)) if product is None else product


def _own_products(x: Array, y: Array, out_dtype: Any) -> Array | None:
    """Return ``x @ y`` of stacks of bfloat16 matrices by our own product, None where NumPy's in float32 is faster."""
    if min(x.ndim, y.ndim) < 2 or not (is_bfloat16(x.dtype) and is_bfloat16(y.dtype) and has_bfloat16_products()):
        return None
    (m, k), n = x.shape[-2:], y.shape[-1]
    if m * k * n < _MIN_OF_STACK or k != y.shape[-2]:
        return None
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = _with_batch(x, batch), _with_batch(y, batch)
    out = np.empty((*batch, m, n), out_dtype)
    for index in np.ndindex(batch):
        out[index] = multiply(x[index], y[index], out_dtype)
    return out


def _own_product(x: Array, y: Array, out_dtype: Any = _FLOAT32, bias: Array | None = None) -> Array | None:
    """Return ``x @ y + bias`` of matrices by our own product, None where BLAS is faster or there is none of our own."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[0]:
        return None
    dtype = x.dtype
    if dtype == _FLOAT32:
        return multiply(x, y, out_dtype, bias) if y.dtype == _FLOAT32 and is_faster(x, y) else None
    return multiply(x, y, out_dtype, bias) if is_bfloat16(dtype) and is_bfloat16(y.dtype) else None


def shared_gemm(x: Array, y: Array) -> int:
    """Return the address of BLAS's product if threads share ``x @ y`` in compiled code, else 0."""
    alone = get_num_threads() <= 1 and not are_deterministic_algorithms_enabled()
    if alone or find_compiled() is None or not (x.flags.writeable and y.flags.writeable):
        return 0
    return gemm_pointer(x.dtype)


def _shared_matmul(x: Array, y: Array) -> Array | None:
    """Return ``x @ y`` of two matrices of one floating dtype, shared in compiled code; None if it cannot be."""
    function = shared_gemm(x, y)
    if not function:
        return None
    out = np.empty((x.shape[0], y.shape[1]), x.dtype)
    with one_blas_thread:
        return out if run_parallel(find_compiled().matmul, x, y, out, function) else None


def _into(out: Array, x: Array, y: Array) -> None:
    np.matmul(x, y, out=out)


# ---- affine maps ----------------------------------------------------------------------------


def linear(xp: XP, x: Array, weight: Array, bias: Array | None) -> Array:
    """Compute the same as the reference, in float32 for float16 and bfloat16."""
    narrow = x.dtype
    large = x.size * weight.size >= (MIN_FLOPS if narrow.kind != "V" else _MIN_BFLOAT16)
    y = _own_product(rows_of(x), weight.T, narrow, bias) if large and weight.dtype == narrow else None
    if y is not None:
        return y.reshape(*x.shape[:-1], weight.shape[0])
    wide = accumulate_dtype(narrow)
    if wide == narrow:
        return reference.linear(xp, x, weight, bias)
    return cast_array(reference.linear(xp, *convert_arrays([x, weight, bias], narrow, wide)), narrow)


def linear_backward(
    xp: XP, g: Array, x: Array, weight: Array, needs: tuple[int, ...], given_dtypes: Mapping[int, DType] | None = None
) -> tuple[Array | None, ...]:
    """Compute the same as the reference, in float32 for float16 and bfloat16."""
    narrow = x.dtype
    wide = accumulate_dtype(narrow)
    if wide == narrow or (is_bfloat16(narrow) and has_bfloat16_products()):
        return reference.linear_backward(xp, g, x, weight, needs, given_dtypes)
    g, x, weight = convert_arrays([g, x, weight], narrow, wide)
    gradients = reference.linear_backward(xp, g, x, weight, needs)
    kept = [given_dtypes is not None and given_dtypes.get(i) == wide for i in range(3)]
    return tuple(
        d if d is None or keep else cast_array(d, narrow) for d, keep in zip(gradients, kept, strict=True)
    )  # fmt: skip


# ---- assignment -----------------------------------------------------------------------------


def last_places(xp: XP, keys: Array, count: int) -> Array:
    """Compute the same as the reference: NumPy assigns to a contiguous vector of indices from first to last."""
    places, last = np.arange(keys.size), np.empty(count, np.int64)
    last[keys] = places
    return last[keys]


def assign_into(xp: XP, out: Array, index: tuple[Any, ...], source: Array) -> Array:
    """Compute the same as the reference.

    NumPy assigns in the order of memory, of the index arrays and of the source. So these must be contiguous.
    """
    for item in (*index, source):
        if type(item) is np.ndarray and not item.flags.c_contiguous:
            index = tuple(np.ascontiguousarray(i) if isinstance(i, np.ndarray) else i for i in index)
            source = np.ascontiguousarray(source)
            break
    out[index] = source
    return out


# ---- softmax and normalisation --------------------------------------------------------------


def softmax(xp: XP, x: Array, axis: int) -> Array:
    """Compute the same as the reference."""
    kernels = kernels_for(x)
    if kernels is None or axis not in (-1, x.ndim - 1):
        return reference.softmax(xp, x, axis)
    rows, y = rows_of(x), np.empty_like(x)
    out = rows_of(y)
    _launch(kernels.softmax, x.size, rows, out)
    return y


def exp_below(xp: XP, x: Array, top: Array) -> Array:
    """Compute the same as the reference, without its two further passes if every maximum is finite."""
    return np.exp(x - top) if np.isfinite(top).all() else reference.exp_below(xp, x, top)


def layer_norm(xp: XP, x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """Compute the same as the reference, and again with scaled rows if squares overflow.

    Rows whose mean is large next to their deviations are computed again without that offset.
    """
    y, mean, rstd = _layer_norm(xp, x, weight, bias, eps)
    if not x.size or _are_near(x, mean, rstd):
        return y, mean, rstd
    if rstd.min() > 0:
        offset = _offsets(x, mean, rstd)
        if offset is None:
            return y, mean, rstd
        y, mean, rstd = _layer_norm(xp, x - offset, weight, bias, eps)
        return y, mean + offset, rstd
    top = _overflowed(x, rstd)
    least = np.finfo(x.dtype).tiny  # so that equal entries give 0
    y, mean, rstd = reference.layer_norm(xp, x / top, weight, bias, np.maximum(eps / top / top, least))
    return y, mean * top, rstd / top


FAR = 256.0  # deviations; the rounding of a float32 mean that is so far from 0 moves results by 1e-5


def _are_near(x: Array, mean: Array, rstd: Array) -> bool:
    """Return whether it is known, from one compiled loop, that no row needs the care that follows."""
    kernels = kernels_for(x, mean, rstd)
    return kernels is not None and kernels.rows_are_near(mean.reshape(-1), rstd.reshape(-1), FAR)


def _offsets(x: Array, mean: Array, rstd: Array) -> Array | None:
    """Return the first entry of each row whose mean is that far from 0, and else 0; None if there is no such row.

    The differences of such a row from its first entry are exact. float16 is too narrow for the distance; ops compute it
    in float32.
    """
    if x.dtype == np.float16:
        return None
    distance = mean.reshape(-1) * rstd.reshape(-1)
    if distance @ distance < FAR * FAR:
        return None
    far = np.abs(distance).reshape(mean.shape) >= FAR
    return np.where(far, x[..., :1], np.zeros_like(mean)) if far.any() else None


def _overflowed(x: Array, rstd: Array) -> Array:
    """Return the largest size in each row whose squares overflow, and else 1. Its inverse deviation is 0 or NaN."""
    top = np.abs(x).max(axis=-1, keepdims=True)
    return np.where((rstd > 0) | ~np.isfinite(top), np.ones_like(top), top)


def _layer_norm(
    xp: XP, x: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:  # fmt: skip
    kernels = kernels_for(x, weight, bias)
    if kernels is None:
        return reference.layer_norm(xp, x, weight, bias, eps)
    y = np.empty_like(x)
    mean, rstd = (np.empty((*x.shape[:-1], 1), x.dtype) for _ in range(2))
    rows, out, m, r = rows_of(x), rows_of(y), mean.reshape(-1), rstd.reshape(-1)
    w = np.ones(x.shape[-1], x.dtype) if weight is None else weight
    b = np.zeros(x.shape[-1], x.dtype) if bias is None else bias
    _launch(kernels.layer_norm, x.size, rows, w, b, out, m, r, eps)
    return y, mean, rstd


def layer_norm_backward(
    xp: XP, g: Array, x: Array, weight: Array | None, mean: Array, rstd: Array
) -> tuple[Array, Array | None, Array]:
    """Compute the same as the reference."""
    offset = _offsets(x, mean, rstd) if x.size and not _are_near(x, mean, rstd) else None
    if offset is not None:
        x = x - offset
        mean = np.where(offset == 0, mean, x.mean(axis=-1, keepdims=True))
    kernels = kernels_for(x, g, weight, mean, rstd)
    if kernels is None:
        return reference.layer_norm_backward(xp, g, x, weight, mean, rstd)
    dx, width = np.empty_like(x), x.shape[-1]
    grads, rows, out, m, r = rows_of(g), rows_of(x), rows_of(dx), mean.reshape(-1), rstd.reshape(-1)
    w = np.ones(width, x.dtype) if weight is None else weight
    dweight, dbias = _launch(kernels.layer_norm_backward, x.size, grads, rows, w, m, r, out)
    return dx, None if weight is None else dweight, dbias


def rms_norm(xp: XP, x: Array, weight: Array | None, eps: float) -> tuple[Array, Array]:
    """Compute the same as the reference, and again with scaled rows if squares overflow."""
    y, rrms = _rms_norm(xp, x, weight, eps)
    if not x.size or rrms.min() > 0:
        return y, rrms
    top = _overflowed(x, rrms)
    y, rrms = reference.rms_norm(xp, x / top, weight, eps / top / top)
    return y, rrms / top


def _rms_norm(xp: XP, x: Array, weight: Array | None, eps: float) -> tuple[Array, Array]:
    sums = sums_for(x)
    if sums is None:
        return reference.rms_norm(xp, x, weight, eps)
    rows = rows_of(x)
    squares = np.empty((*x.shape[:-1], 1), _FLOAT32)
    run_sum(sums.row_squares, x.size, rows, squares.reshape(-1))
    rrms = 1.0 / np.sqrt(squares / x.shape[-1] + eps)
    y = multiply_arrays(xp, x, rrms)
    return (y if weight is None else multiply_arrays(xp, y, weight)), rrms


# ---- activations ----------------------------------------------------------------------------

_CDF = tuple(0.5**k * c for k, c in enumerate(reference.ERF_TANH))  # in x = z * sqrt(2)


def _cdf(x: Array, out: Array, s: Array, t: Array) -> None:
    """Write the normal distribution's cdf of x into ``out``; s and t are workspace."""
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
    """Compute the same as the reference; the exact form uses tanh of a polynomial for erf, to float32's precision."""
    y = np.empty_like(x)
    if kernels := kernels_for(x):
        _launch(kernels.gelu, x.size, x.reshape(-1), y.reshape(-1), tanh)
        return y
    if tanh or not _is_contiguous_float32(x):
        return reference.gelu(xp, x, tanh)
    q, p = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for a, b in _blocks(x, y):
        _cdf(a, b, q[: a.size], p[: a.size])
        b *= np.maximum(a, -reference.GELU_FAR, out=q[: a.size])
    return y


def gelu_backward(xp: XP, g: Array, x: Array, tanh: bool) -> Array:
    """Compute the same as the reference."""
    dx = np.empty_like(x)
    if kernels := kernels_for(x, g):
        _launch(kernels.gelu_backward, x.size, g.reshape(-1), x.reshape(-1), dx.reshape(-1), tanh)
        return dx
    if tanh or not _is_contiguous_float32(g, x):
        return reference.gelu_backward(xp, g, x, tanh)
    workspace = np.empty((3, _BLOCK), np.float32)
    for d, a, o in _blocks(g, x, dx):
        c, s, t = workspace[:, : a.size]
        _cdf(a, c, s, t)
        np.multiply(a, a, out=o)
        o *= -0.5
        np.exp(o, out=o)
        o *= 1.0 / math.sqrt(2.0 * math.pi)
        o *= np.clip(a, -reference.GELU_FAR, reference.GELU_FAR, out=s)
        o += c
        o *= d
    return dx


def silu(xp: XP, x: Array) -> Array:
    """Compute the same as the reference."""
    kernels = kernels_for(x)
    if kernels is None:
        return reference.silu(xp, x)
    y = np.empty_like(x)
    _launch(kernels.silu, x.size, x.reshape(-1), y.reshape(-1))
    return y


def silu_backward(xp: XP, g: Array, x: Array, y: Array) -> Array:
    """Compute the same as the reference."""
    kernels = kernels_for(x, g, y)
    if kernels is None:
        return reference.silu_backward(xp, g, x, y)
    dx = np.empty_like(x)
    _launch(kernels.silu_backward, x.size, g.reshape(-1), x.reshape(-1), y.reshape(-1), dx.reshape(-1))
    return dx


# ---- losses ---------------------------------------------------------------------------------


def cross_entropy(
    xp: XP, logits: Array, target: Array, ignore_index: int, smoothing: float
) -> tuple[Array, Array, Array]:
    """Compute the same as the reference."""
    kernels = kernels_for(logits)
    if kernels is None or target.dtype != np.int64 or not target.flags.c_contiguous:
        return reference.cross_entropy(xp, logits, target, ignore_index, smoothing)
    loss, top, total = (np.empty(len(logits), logits.dtype) for _ in range(3))
    rows = (logits, target, loss, top, total)
    if not _launch(kernels.cross_entropy, logits.size, *rows, ignore_index, smoothing):
        return reference.cross_entropy(xp, logits, target, ignore_index, smoothing)
    return loss, top.reshape(-1, 1), total.reshape(-1, 1)


def cross_entropy_backward(
    xp: XP, g: Array, logits: Array, target: Array, top: Array, total: Array, ignore_index: int, smoothing: float
) -> Array:
    """Compute the same as the reference."""
    kernels = kernels_for(logits, top, total)
    if kernels is None or target.dtype != np.int64 or not target.flags.c_contiguous:
        return reference.cross_entropy_backward(xp, g, logits, target, top, total, ignore_index, smoothing)
    dx, grads = np.empty_like(logits), np.ascontiguousarray(g, np.float32)
    rows = (grads, logits, target, top.reshape(-1), total.reshape(-1), dx)
    if not _launch(kernels.cross_entropy_backward, logits.size, *rows, ignore_index, smoothing):
        return reference.cross_entropy_backward(xp, g, logits, target, top, total, ignore_index, smoothing)
    return dx


# ---- attention ------------------------------------------------------------------------------


# From how many queries, and multiplications of a head's scores, our own products pay. With fewer queries, packing the
# keys takes longer than it saves.
_MIN_OWN_QUERIES, _MIN_OWN_QUERIES_BFLOAT16, _MIN_OWN_SCORES = 16, 8, 1 << 13


def is_compiled_attention(q: Array, k: Array, v: Array, mask: Array | None, dropout_mask: Array | None) -> bool:
    """Return whether a compiled kernel covers it: q has the whole batch, no mask, no dropout, and products to call."""
    return (
        mask is None and dropout_mask is None and q.ndim >= 3 and _broadcasts(k, q) and _broadcasts(v, q)
        and min(q.size, k.size, v.size) >= _MIN_COMPILED and _compiled_kernels() is not None
        and (is_own_attention(q, k, v) or (q.dtype == k.dtype == v.dtype == _FLOAT32 and gemm_pointer(_FLOAT32) != 0))
    )  # fmt: skip


def is_own_attention(q: Array, k: Array, v: Array) -> bool:
    """Return whether our own products compute it, and in less time than BLAS. It depends on shapes and dtypes alone."""
    rows, width = q.shape[-2:]
    if q.dtype == _FLOAT32:
        pays = rows >= _MIN_OWN_QUERIES and rows * k.shape[-2] * width >= _MIN_OWN_SCORES
    else:
        pays = rows >= _MIN_OWN_QUERIES_BFLOAT16
    return pays and own_attention.takes(q, k, v)


def covers_bfloat16_attention(
    q: Array, k: Array, v: Array, mask: Array | None, dropout_mask: Array | None
) -> bool:  # fmt: skip
    """Return whether :func:`attention` takes these arrays as they are, because they are all bfloat16."""
    return is_bfloat16(q.dtype) and is_compiled_attention(q, k, v, mask, dropout_mask)


def _broadcasts(x: Array, q: Array) -> bool:
    """Return whether the batch of x broadcasts to that of q, as the keys of grouped queries do."""
    batch, own = q.shape[:-2], x.shape[:-2]
    return own == batch or (len(own) == len(batch) and all(n in (1, m) for n, m in zip(own, batch)))


def like_batch(x: Array, q: Array) -> Array:
    """Return x with the batch of q. Where x has one matrix for several of q, they share its memory."""
    return _with_batch(x, q.shape[:-2])


def _with_batch(x: Array, batch: tuple[int, ...]) -> Array:
    """Return x with these leading dimensions. Where it has one matrix for several of them, they share its memory."""
    if x.shape[:-2] == batch:
        return x
    shape = (*batch, *x.shape[-2:])
    # numba would compile a kernel again for the result of broadcast_to, which cannot be written.
    return np.lib.stride_tricks.as_strided(x, shape, np.broadcast_to(x, shape).strides)


def empty_heads(x: Array, width: int, empty: Callable[..., Array] = np.empty) -> Array:
    """Return a new array of x's shape with another width, in which heads are adjacent in memory.

    A model then joins the heads of (B, H, T, width) without a copy.
    """
    if x.ndim != 4:
        return empty((*x.shape[:-1], width), x.dtype)
    return empty((x.shape[0], x.shape[2], x.shape[1], width), x.dtype).swapaxes(1, 2)


def empty_gradients(
    q: Array, k: Array, v: Array, empty: Callable[..., Array] = np.empty
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return new arrays for the gradients. If q, k and v are parts of one array, so are the gradients."""
    apart = q.base is None or q.base is not k.base or q.base is not v.base
    if apart or q.ndim != 4 or not q.shape == k.shape == v.shape:
        dq, dk, dv = (empty_heads(x, x.shape[-1], empty) for x in (q, k, v))
        return dq, dk, dv
    batch, heads, length, width = q.shape
    whole = empty((batch, length, 3 * heads, width), q.dtype).swapaxes(1, 2)
    return whole[:, :heads], whole[:, heads : 2 * heads], whole[:, 2 * heads :]


def whole_of(xp: XP, parts: Sequence[Array], axis: int) -> Array | None:
    """Compute the same as the reference, if the parts lie next to each other in a contiguous array."""
    first = parts[0]
    owner, shape, strides = first.base, list(first.shape), first.strides
    if type(owner) is not np.ndarray or not owner.flags.c_contiguous:
        return None
    start = memory_offset(first, owner)
    for part in parts[1:]:
        if part.base is not owner or part.strides != strides or part.dtype != first.dtype:
            return None
        if memory_offset(part, owner) != start + shape[axis] * strides[axis]:
            return None
        shape[axis] += part.shape[axis]
    return view_at(owner, start, shape, first.dtype, strides)


def as_heads(x: Array) -> Array:
    """Return the array as (B, H, rows, columns), copied if BLAS cannot read its rows."""
    x = x if x.ndim == 4 else x.reshape(-1, *x.shape[-3:])
    size, row = x.itemsize, x.strides[2]
    return x if x.strides[3] == size and row % size == 0 and row >= size * x.shape[3] else x.copy()


def _run_on_heads(
    kernel: Any, arrays: tuple[Array, ...], top: Array, total: Array, causal: bool, scale: float
) -> None:  # fmt: skip
    """Call a kernel with its inputs and outputs, and the maxima and sums of the rows of scores, (B H, T)."""
    with one_blas_thread:
        _launch(kernel, arrays[0].size, gemm_pointer(_FLOAT32), *map(as_heads, arrays), top, total, causal, scale)


def attention(
    xp: XP, q: Array, k: Array, v: Array, mask: Array | None, dropout_mask: Array | None, causal: bool, scale: float
) -> tuple[Array, Array, Array]:
    """Compute the same as the reference, one block of queries at a time, so that not all scores are in memory."""
    if not is_compiled_attention(q, k, v, mask, dropout_mask):
        return reference.attention(xp, q, k, v, mask, dropout_mask, causal, scale)
    k, v = like_batch(k, q), like_batch(v, q)
    out = empty_heads(q, v.shape[-1])
    top, total = (np.empty((math.prod(q.shape[:-2]), q.shape[-2]), _FLOAT32) for _ in range(2))
    if is_own_attention(q, k, v):
        own_attention.attend([*map(as_heads, (q, k, v, out))], top, total, causal, scale)
    else:
        _run_on_heads(_compiled_kernels().attention, (q, k, v, out), top, total, causal, scale)
    return out, top.reshape(*q.shape[:-1], 1), total.reshape(*q.shape[:-1], 1)


def attention_backward(
    xp: XP, g: Array, q: Array, k: Array, v: Array, mask: Array | None, dropout_mask: Array | None, top: Array,
    total: Array, causal: bool, scale: float,
) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
    """Compute the same as the reference, one block of queries at a time."""
    if not is_compiled_attention(q, k, v, mask, dropout_mask):
        return reference.attention_backward(xp, g, q, k, v, mask, dropout_mask, top, total, causal, scale)
    k, v = like_batch(k, q), like_batch(v, q)
    dq, dk, dv = empty_gradients(q, k, v)
    tops, totals = (np.ascontiguousarray(x).reshape(-1, q.shape[-2]) for x in (top, total))
    arrays = (g, q, k, v, dq, dk, dv)
    if is_own_attention(q, k, v):
        own_attention.attend_backward([*map(as_heads, arrays)], tops, totals, causal, scale)
    else:
        _run_on_heads(_compiled_kernels().attention_backward, arrays, tops, totals, causal, scale)
    return dq, dk, dv, None


# ---- optimizers -----------------------------------------------------------------------------


def adam_step(
    xp: XP, p: Array, g: Array, m: Array, v: Array, t: int, lr: float, beta1: float, beta2: float, eps: float,
    decay: float, decoupled: bool, maximize: bool,
) -> None:  # fmt: skip
    """Compute the same as the reference, in one pass over memory."""
    whole = p.size >= 1 << 5 and p.flags.writeable and _is_contiguous_float32(p, g, m, v)
    if whole and (kernels := _compiled_kernels()):
        coefficients = reference.adam_coefficients(t, lr, beta1, beta2, eps, decay, decoupled, maximize)
        # The caller's core has just computed the gradient, so sharing pays only for larger arrays.
        flat = (p.reshape(-1), g.reshape(-1), m.reshape(-1), v.reshape(-1))
        _launch(kernels.adam_step, p.size // 16, *flat, *coefficients)
        return
    step = reference.adam_step
    if p.size <= _BLOCK or not all(a.flags.c_contiguous for a in (p, g, m, v)):
        step(xp, p, g, m, v, t, lr, beta1, beta2, eps, decay, decoupled, maximize)
        return
    for bp, bg, bm, bv in _blocks(p, g, m, v):
        step(xp, bp, bg, bm, bv, t, lr, beta1, beta2, eps, decay, decoupled, maximize)
