"""Functions of NumPy on arrays that stay where they are, in calls as ``planned_kernels.py`` describes them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from . import kernels
from .compiled_loops import FLOAT32, MIN_COMPILED, MIN_SHARED, loops_for
from .compiled_sums import run_sum, sums_for
from .memory_views import rows_of
from .planned_kernels import Empty, Launch, Planned
from .thread_pool import get_num_threads, run_parallel

__all__ = [
    "empty_like", "plan_add", "plan_choice", "plan_copy", "plan_join", "plan_relu", "plan_rms_norm",
    "plan_rms_norm_backward", "plan_ufunc",
]  # fmt: skip

Array = Any
XP = Any


def empty_like(empty: Empty, array: Array) -> Array | None:
    """Return a new array with the shape, dtype and strides of another one, None if that has gaps."""
    axes = sorted(range(array.ndim), key=lambda d: -array.strides[d])
    out = empty([array.shape[d] for d in axes], array.dtype)
    out = out.transpose(np.argsort(axes)) if axes else out
    return out if out.strides == array.strides and array.size else None


def plan_ufunc(ufunc: Any, empty: Empty, *values: Any) -> Planned:
    """Plan a function of NumPy on arrays and numbers, whose result has dimensions and no bfloat16 numbers."""
    if any(type(v) not in (np.ndarray, float, int) for v in values):
        return None
    found = ufunc(*values)
    if type(found) is not np.ndarray or not found.ndim or found.dtype.kind not in "biuf":
        return None
    out = empty_like(empty, found)
    return None if out is None else ([partial(ufunc, *values, out=out)], out)


def plan_add(empty: Empty, x: Array, y: Array, shared_from: int) -> Planned:
    """Plan the sum of two arrays, which threads share where there are that many entries."""
    if not (type(x) is type(y) is np.ndarray and x.size >= shared_from and x.shape == y.shape) or get_num_threads() < 2:
        return plan_ufunc(np.add, empty, x, y)
    loops = loops_for("elementwise_kernels", x, y)
    if loops is None:
        return plan_ufunc(np.add, empty, x, y)
    out = empty(x.shape, FLOAT32)
    return [_loop(loops.add, x.size, x.reshape(-1), y.reshape(-1), out.reshape(-1))], out


def _loop(kernel: Any, size: int, *args: Any) -> Launch:
    """Return a call of a compiled loop, which threads share as ``run_loop`` says."""
    return partial(run_parallel, kernel, *args) if size >= MIN_SHARED else partial(kernel, 0, *args)


def plan_relu(empty: Empty, x: Array) -> Planned:
    """Plan ``elementwise.clamp`` from 0 upward."""
    if x.size >= MIN_COMPILED and (loops := loops_for("elementwise_kernels", x)):
        out = empty(x.shape, FLOAT32)
        low, high = np.float32(0), np.float32(np.inf)
        return [_loop(loops.clamp, x.size, x.reshape(-1), low, high, out.reshape(-1))], out
    return plan_ufunc(np.maximum, empty, x, 0)


def plan_choice(empty: Empty, condition: Launch, chosen: Array, g: Array) -> Planned:
    """Plan ``elementwise.where(chosen, 0.0, g)``. The call ``condition`` fills ``chosen`` first."""
    if type(g) is not np.ndarray or chosen.shape != g.shape or g.dtype.kind != "f":
        return None
    contiguous = chosen.flags.c_contiguous and g.size >= MIN_COMPILED
    if contiguous and (loops := loops_for("elementwise_kernels", g)):
        out = empty(g.shape, FLOAT32)
        flat = chosen.reshape(-1), False, g.reshape(-1), np.float32(0), out.reshape(-1)
        return [condition, _loop(loops.where_number, g.size, *flat)], out
    condition()
    out = empty_like(empty, np.where(chosen, 0.0, g))
    if out is None:
        return None
    return [condition, partial(np.copyto, out, g), partial(np.copyto, out, 0.0, where=chosen)], out


def plan_copy(empty: Empty, x: Array, shape: Sequence[int]) -> Planned:
    """Plan ``x.reshape(shape)`` where it is a copy."""
    if type(x) is not np.ndarray or not x.size:
        return None
    out = empty(x.size, x.dtype).reshape(shape)
    return [partial(np.copyto, out.reshape(x.shape), x)], out


def plan_join(empty: Empty, arrays: Sequence[Array], axis: int) -> Planned:
    """Plan ``np.concatenate``."""
    found = np.concatenate(arrays, axis=axis)
    out = empty_like(empty, found)
    if out is None or any(a.dtype != found.dtype for a in arrays):
        return None
    stops = np.cumsum([a.shape[axis] for a in arrays])
    lead = (slice(None),) * (axis % found.ndim)
    parts = [out[(*lead, slice(stop - a.shape[axis], stop))] for a, stop in zip(arrays, stops, strict=True)]
    return [partial(np.copyto, part, a) for part, a in zip(parts, arrays, strict=True)], out


# ---- the root mean square of rows -----------------------------------------------------------


def plan_rms_norm(empty: Empty, xp: XP, x: Array, weight: Array | None, eps: float) -> Planned:
    """Plan ``kernels.rms_norm``, which is called itself where squares overflow."""
    if x.dtype != FLOAT32 or not x.size or (weight is not None and weight.dtype != FLOAT32):
        return None
    y, rrms = (empty_like(empty, a) for a in kernels.rms_norm(xp, x, weight, eps))
    sums = sums_for(x)
    squares: Any = None if sums else empty_like(empty, x * x)
    if y is None or rrms is None or (sums is None and squares is None):
        return None
    columns = x.shape[-1]

    def launch() -> None:
        if sums is not None:
            run_sum(sums.row_squares, x.size, rows_of(x), rrms.reshape(-1))
        else:
            np.multiply(x, x, squares)
            np.add.reduce(squares, -1, out=rrms, keepdims=True)
        np.divide(rrms, columns, rrms)
        np.add(rrms, eps, rrms)
        np.sqrt(rrms, rrms)
        np.divide(1.0, rrms, rrms)
        if rrms.min() > 0:
            np.multiply(x, rrms, y)
            if weight is not None:
                np.multiply(y, weight, y)
        else:
            y[...], rrms[...] = kernels.rms_norm(xp, x, weight, eps)

    return [launch], (y, rrms)


def plan_rms_norm_backward(empty: Empty, xp: XP, g: Array, x: Array, weight: Array | None, rrms: Array) -> Planned:
    """Plan ``reference.rms_norm_backward``."""
    if any(a.dtype != FLOAT32 for a in (g, x, rrms)) or weight is None or weight.dtype != FLOAT32 or not x.size:
        return None
    n = empty_like(empty, x * rrms)
    gn, h = (None if n is None else empty_like(empty, g * a) for a in (n, weight))
    if n is None or gn is None or h is None:
        return None
    means, dweight, columns = empty(rrms.shape, FLOAT32), empty(weight.shape, FLOAT32), x.shape[-1]

    def launch() -> None:
        np.multiply(x, rrms, n)
        np.multiply(g, n, gn)
        dweight[...] = xp.sum_to(gn, weight.shape)
        np.multiply(g, weight, h)
        np.multiply(gn, weight, gn)
        np.add.reduce(gn, -1, out=means, keepdims=True)
        np.divide(means, columns, means)
        np.multiply(n, means, n)
        np.subtract(h, n, h)
        np.multiply(h, rrms, h)

    return [launch], (h, dweight)
