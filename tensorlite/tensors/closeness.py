"""Compare two tensors up to a tolerance, without an overflow of their difference."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..autograd.function import op
from ..backends.registry import Array, Namespace
from ..dtypes import DType, float32, float64, is_floating, kind_of, promote_types, uint8
from ..scalars import flag_in, number_in
from .convert import to_dtype

__all__ = ["isclose"]


def isclose(x: Any, y: Any, rtol: float, atol: float, equal_nan: bool) -> Any:
    """Return where ``|x - y| <= atol + rtol * |y|``, as :meth:`tensorlite.Tensor.isclose` says.

    Integers are subtracted exactly, float16 in float32, and integers from floats in float64.
    """
    rtol, atol = number_in("isclose", "rtol", rtol), number_in("isclose", "atol", atol)
    equal_nan = flag_in("isclose", "equal_nan", equal_nan)
    if not (rtol >= 0 and atol >= 0):
        raise ValueError(f"isclose: rtol and atol must not be negative, got {rtol} and {atol}")
    x, y = x.detach(), y.detach()
    same = ops.eq(x, y)
    if x.dtype.kind == "b" and y.dtype.kind == "b":
        return same
    dtype = _dtype_of_difference(x.dtype, y.dtype)
    x, y = to_dtype(x, dtype), to_dtype(y, dtype)
    apart = ops.abs(ops.sub(x, y)) if kind_of(dtype) in "fc" else _distance(x, y)
    size = ops.abs(y) if kind_of(dtype) in "fc" else ops.abs(to_dtype(y, float64))  # |-128| does not fit into int8
    near = ops.logical_and(ops.le(apart, ops.add(ops.mul(size, float(rtol)), float(atol))), ops.isfinite(y))
    if equal_nan:
        near = ops.logical_or(near, ops.logical_and(ops.isnan(x), ops.isnan(y)))
    return ops.logical_or(same, near)


def _dtype_of_difference(a: DType, b: DType) -> DType:
    """Return the dtype in which numbers of two dtypes are compared."""
    a, b = (uint8 if d.kind == "b" else d for d in (a, b))
    wide = promote_types(a, b)
    if is_floating(wide) and wide != float64:
        return float32 if a.kind == b.kind else float64
    return wide


@op()
def _distance(xp: Namespace, x: Array, y: Array) -> Array:
    """Return ``|x - y|`` of integers of one dtype, as float64. The difference wraps, and as unsigned it is right."""
    difference = xp.maximum(x, y) - xp.minimum(x, y)
    return difference.view(np.dtype(f"u{x.dtype.itemsize}")).astype(float64)
