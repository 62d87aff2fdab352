"""The kernels on arrays that stay where they are: all checks are done once, and each call writes to the same memory.

A planner gets the arrays of a kernel and returns its results with the calls that fill them, of which each reads what
the arrays hold at that time. It returns None where the kernel takes another way than the ones below: then the kernel
itself has to be called. The calls are those of the kernel, so the bits are the same. ``capture/planners.py`` says
which op has which planner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from ..reference import adam_coefficients
from . import array_lists, kernels
from .attention import prepare_attention
from .blas import gemm_pointer, one_blas_thread
from .compiled_loops import load_loops
from .compiled_sums import MIN_SHARED as MIN_SHARED_SUM
from .compiled_sums import sums_for
from .find_compiled import find_compiled
from .memory_views import rows_of
from .products import is_faster, prepare_product
from .sums import is_long_product
from .thread_pool import run_parallel

__all__ = [
    "Empty", "Launch", "Planned", "plan_adam", "plan_attention", "plan_attention_backward", "plan_cross_entropy",
    "plan_cross_entropy_backward", "plan_elementwise", "plan_embedding_backward", "plan_layer_norm",
    "plan_layer_norm_backward", "plan_linear", "plan_linear_backward", "plan_scale", "plan_sum_of_rows",
    "plan_sum_squares",
]  # fmt: skip

Array = Any
XP = Any
Launch: TypeAlias = Callable[[], Any]
Empty: TypeAlias = Callable[..., Array]
"""A function like ``np.empty``, whose arrays stay where they are."""
Planned: TypeAlias = "tuple[list[Launch], Any] | None"
"""The calls, in order, and what the kernel returns."""

_FLOAT32 = np.dtype(np.float32)


def _prepare(kernel: Any, size: int, *args: Any, shared_from: int = kernels.MIN_SHARED) -> Launch:
    """Return a compiled kernel with its arguments; threads share its loop if it has enough entries, ``size``."""
    return partial(run_parallel, kernel, *args) if size >= shared_from else partial(kernel, 0, *args)


def _copy_all(targets: Sequence[Array | None], sources: Sequence[Array | None]) -> None:
    for target, source in zip(targets, sources, strict=True):
        if target is not None:
            target[...] = source


# ---- products -------------------------------------------------------------------------------


def _product(x: Array, y: Array, out: Array, bias: Array | None = None) -> Launch | None:
    """Return the call that writes ``x @ y + bias`` of float32 matrices into ``out``, as ``kernels.matmul`` does."""
    if is_long_product(x, y) or not x.size or not y.size:
        return None
    if x.size * y.size < kernels.MIN_FLOPS:
        return None if bias is not None else partial(np.matmul, x, y, out)
    if is_faster(x, y):
        return prepare_product(x, y, out, bias)
    work = x.size * y.shape[1]
    if work < kernels.MIN_FLOPS:
        return partial(np.matmul, x, y, out)
    if gemm := kernels.shared_gemm(x, y):
        return _on_one_blas_thread(partial(run_parallel, find_compiled().matmul, x, y, out, gemm))
    if work < kernels.MIN_FLOPS_PYTHON_THREADS:
        return _on_one_blas_thread(partial(np.matmul, x, y, out))
    return None


def _on_one_blas_thread(call: Launch) -> Launch:
    def launch() -> None:
        with one_blas_thread:
            call()

    return launch


def _are_float32(*arrays: Array | None) -> bool:
    return all(a is None or a.dtype == _FLOAT32 for a in arrays)


def plan_linear(empty: Empty, x: Array, weight: Array, bias: Array | None) -> Planned:
    """Plan ``kernels.linear``."""
    if not _are_float32(x, weight, bias) or not x.flags.c_contiguous:
        return None
    out = empty((*x.shape[:-1], weight.shape[0]), _FLOAT32)
    rows, result = rows_of(x), rows_of(out)
    own = x.size * weight.size >= kernels.MIN_FLOPS and is_faster(rows, weight.T)
    call = _product(rows, weight.T, result, bias if own else None)
    if call is None:
        return None
    return [call] if own or bias is None else [call, partial(np.add, result, bias, result)], out


def plan_linear_backward(empty: Empty, g: Array, x: Array, weight: Array, needs: tuple[int, ...]) -> Planned:
    """Plan ``kernels.linear_backward``."""
    if not _are_float32(g, x, weight) or not (g.flags.c_contiguous and x.flags.c_contiguous):
        return None
    rows, inputs = rows_of(g), rows_of(x)
    calls: list[Launch | None] = []
    dx = dweight = dbias = None
    if 0 in needs:
        dx = empty(x.shape, _FLOAT32)
        calls.append(_product(rows, weight, rows_of(dx)))
    if 1 in needs:
        dweight = empty(weight.shape, _FLOAT32)
        calls.append(_product(rows.T, inputs, dweight))
    if 2 in needs:
        planned = plan_sum_of_rows(empty, rows)
        calls += [None] if planned is None else planned[0]
        dbias = None if planned is None else planned[1]
    found = [call for call in calls if call is not None]
    return (found, (dx, dweight, dbias)) if len(found) == len(calls) else None


def plan_sum_of_rows(empty: Empty, x: Array) -> Planned:
    """Plan the sum of the rows of a contiguous float32 matrix by the compiled loop."""
    compiled = sums_for(x)
    if compiled is None or x.ndim != 2 or len(x) < 16 or x.size <= 1024:
        return None
    out = empty((x.shape[1],), _FLOAT32)
    return [_prepare(compiled.sum_rows, x.size // 32, x.reshape(-1), out, shared_from=MIN_SHARED_SUM)], out


# ---- elementwise ----------------------------------------------------------------------------


def plan_elementwise(name: str, empty: Empty, arrays: Sequence[Array], *options: Any) -> Planned:
    """Plan a compiled loop of ``compiled/kernels.py`` over contiguous float32 arrays of one shape."""
    compiled = kernels.kernels_for(*arrays)
    if compiled is None:
        return None
    out = empty(arrays[0].shape, _FLOAT32)
    flat = [a.reshape(-1) for a in (*arrays, out)]
    return [_prepare(getattr(compiled, name), out.size, *flat, *options)], out


# ---- normalisation --------------------------------------------------------------------------


def plan_layer_norm(
    empty: Empty, xp: XP, x: Array, weight: Array | None, bias: Array | None, eps: float
) -> Planned:  # fmt: skip
    """Plan ``kernels.layer_norm``, which is called itself where a row needs care."""
    compiled = kernels.kernels_for(x, weight, bias)
    if compiled is None:
        return None
    y, mean, rstd = empty(x.shape, _FLOAT32), *(empty((*x.shape[:-1], 1), _FLOAT32) for _ in range(2))
    means, deviations = mean.reshape(-1), rstd.reshape(-1)
    w = np.ones(x.shape[-1], _FLOAT32) if weight is None else weight
    b = np.zeros(x.shape[-1], _FLOAT32) if bias is None else bias
    compute = _prepare(compiled.layer_norm, x.size, rows_of(x), w, b, rows_of(y), means, deviations, eps)
    are_near = partial(compiled.rows_are_near, means, deviations, kernels.FAR)

    def launch() -> None:
        compute()
        if not are_near():
            _copy_all((y, mean, rstd), kernels.layer_norm(xp, x, weight, bias, eps))

    return [launch], (y, mean, rstd)


def plan_layer_norm_backward(
    empty: Empty, xp: XP, g: Array, x: Array, weight: Array | None, mean: Array, rstd: Array
) -> Planned:
    """Plan ``kernels.layer_norm_backward``, which is called itself where a row needs care."""
    compiled = kernels.kernels_for(x, g, weight, mean, rstd)
    if compiled is None:
        return None
    dx, dbias = empty(x.shape, _FLOAT32), empty((x.shape[-1],), _FLOAT32)
    dweight = None if weight is None else empty((x.shape[-1],), _FLOAT32)
    means, deviations = mean.reshape(-1), rstd.reshape(-1)
    w = np.ones(x.shape[-1], _FLOAT32) if weight is None else weight
    compute = _prepare(
        compiled.layer_norm_backward, x.size, rows_of(g), rows_of(x), w, means, deviations, rows_of(dx)
    )  # fmt: skip
    are_near = partial(compiled.rows_are_near, means, deviations, kernels.FAR)

    def launch() -> None:
        if are_near():
            _copy_all((dweight, dbias), compute())
        else:
            _copy_all((dx, dweight, dbias), kernels.layer_norm_backward(xp, g, x, weight, mean, rstd))

    return [launch], (dx, dweight, dbias)


# ---- losses ---------------------------------------------------------------------------------


def plan_cross_entropy(
    empty: Empty, xp: XP, logits: Array, target: Array, ignore_index: int, smoothing: float
) -> Planned:
    """Plan ``kernels.cross_entropy``, which is called itself where a target is out of range."""
    compiled = kernels.kernels_for(logits)
    if compiled is None or target.dtype != np.int64 or not target.flags.c_contiguous:
        return None
    loss, top, total = empty((len(logits),), _FLOAT32), *(empty((len(logits), 1), _FLOAT32) for _ in range(2))
    compute = _prepare(
        compiled.cross_entropy, logits.size, logits, target, loss, top.reshape(-1), total.reshape(-1), ignore_index,
        smoothing,
    )  # fmt: skip

    def launch() -> None:
        if not compute():
            _copy_all((loss, top, total), kernels.cross_entropy(xp, logits, target, ignore_index, smoothing))

    return [launch], (loss, top, total)


def plan_cross_entropy_backward(
    empty: Empty, xp: XP, g: Array, logits: Array, target: Array, top: Array, total: Array, count: Array | None,
    ignore_index: int, smoothing: float,
) -> Planned:  # fmt: skip
    """Plan ``kernels.cross_entropy_backward``, which is called itself where a target is out of range.

    g: the gradient of each loss, or 0-d that of their sum, or of their mean over ``count`` targets.
    """
    compiled = kernels.kernels_for(logits, top, total)
    if compiled is None or target.dtype != np.int64 or not target.flags.c_contiguous or g.dtype != _FLOAT32:
        return None
    dx, grads = empty(logits.shape, _FLOAT32), empty(target.shape, _FLOAT32)
    arrays = (grads, logits, target, top.reshape(-1), total.reshape(-1), dx)
    compute = _prepare(compiled.cross_entropy_backward, logits.size, *arrays, ignore_index, smoothing)
    options = (ignore_index, smoothing)

    def launch() -> None:
        grads[...] = g if g.ndim or count is None else g / count
        if not compute():
            dx[...] = kernels.cross_entropy_backward(xp, grads, logits, target, top, total, *options)

    return [launch], dx


def plan_embedding_backward(empty: Empty, xp: XP, g: Array, ids: Array, rows: int) -> Planned:
    """Plan ``sums.embedding_backward``, which is called itself where an id is out of range."""
    compiled, width = sums_for(g), g.shape[-1]
    if compiled is None or ids.dtype != np.int64:
        return None
    out = empty((rows, width), _FLOAT32)
    flat = ids.reshape(-1) if ids.flags.c_contiguous else empty(ids.size, np.int64)
    target, bits = flat.reshape(ids.shape), flat.view(np.uint64)
    compute = _prepare(
        compiled.embedding_backward, 4 * g.size, g.reshape(-1, width), flat, 0, out, shared_from=MIN_SHARED_SUM
    )  # fmt: skip

    def launch() -> None:
        if not ids.flags.c_contiguous:
            target[...] = ids
        if bits.max() < rows:  # also no negative one, which is a large number without a sign
            out.fill(0)
            compute()
        else:
            out[...] = xp.embedding_backward(g, ids, rows)

    return [launch], out


# ---- attention ------------------------------------------------------------------------------


def _prepare_attention(
    name: str, arrays: Sequence[Array], top: Array, total: Array, causal: bool, scale: float
) -> Launch | None:
    """Return the call of a kernel of attention, None where it would copy an array first."""
    whole = [kernels.as_heads(x) for x in arrays]
    if not all(map(np.may_share_memory, whole, arrays)):
        return None
    q, k, v = whole[:3] if name == "attend" else whole[1:4]
    if kernels.is_own_attention(q, k, v):
        return prepare_attention(name, whole, top, total, causal, scale)
    kernel = getattr(load_loops("kernels"), "attention" if name == "attend" else "attention_backward")
    call = _prepare(kernel, arrays[0].size, gemm_pointer(_FLOAT32), *whole, top, total, causal, scale)
    return _on_one_blas_thread(call)


def plan_attention(
    empty: Empty, q: Array, k: Array, v: Array, mask: Array | None, dropout_mask: Array | None, causal: bool,
    scale: float,
) -> Planned:  # fmt: skip
    """Plan ``kernels.attention``."""
    if not _are_float32(q, k, v) or not kernels.is_compiled_attention(q, k, v, mask, dropout_mask):
        return None
    k, v = kernels.like_batch(k, q), kernels.like_batch(v, q)
    out = kernels.empty_heads(q, v.shape[-1], empty)
    top, total = (empty((math.prod(q.shape[:-2]), q.shape[-2]), _FLOAT32) for _ in range(2))
    call = _prepare_attention("attend", (q, k, v, out), top, total, causal, scale)
    sums = top.reshape(*q.shape[:-1], 1), total.reshape(*q.shape[:-1], 1)
    return None if call is None else ([call], (out, *sums))


def plan_attention_backward(
    empty: Empty, g: Array, q: Array, k: Array, v: Array, mask: Array | None, dropout_mask: Array | None, top: Array,
    total: Array, causal: bool, scale: float,
) -> Planned:  # fmt: skip
    """Plan ``kernels.attention_backward``."""
    if not _are_float32(g, q, k, v) or not kernels.is_compiled_attention(q, k, v, mask, dropout_mask):
        return None
    k, v = kernels.like_batch(k, q), kernels.like_batch(v, q)
    gradients = kernels.empty_gradients(q, k, v, empty)
    if not top.flags.c_contiguous or not total.flags.c_contiguous:
        return None
    tops, totals = (x.reshape(-1, q.shape[-2]) for x in (top, total))
    call = _prepare_attention("attend_backward", (g, q, k, v, *gradients), tops, totals, causal, scale)
    return None if call is None else ([call], (*gradients, None))


# ---- lists of arrays ------------------------------------------------------------------------


def plan_sum_squares(arrays: Sequence[Array]) -> Launch | None:
    """Plan ``array_lists.sum_squares_of_all``; the call returns what that returns."""
    found = array_lists.prepare("sum_squares", arrays)
    return None if found is None else lambda: np.array(found(), _FLOAT32)


def plan_scale(arrays: Sequence[Array]) -> Callable[[Array], None] | None:
    """Plan ``array_lists.scale_all_step``; the call gets the factor."""
    found = array_lists.prepare("scale", arrays)
    return None if found is None else lambda factor: found(float(factor))


def plan_adam(p: Sequence[Array], g: Sequence[Array], m: Sequence[Array], v: Sequence[Array]) -> Any:
    """Plan ``array_lists.adam_all_step``; the call gets the numbers after the arrays."""
    found = array_lists.prepare("adam_steps", p, g, m, v)
    return None if found is None else lambda *numbers: found(*adam_coefficients(*numbers))
