"""Running products, running sums of exponentials, and the linear recurrence that is their gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import BACKENDS, Array, Namespace, describe_array
from ..dtypes import is_floating, kind_of
from ..errors import DTypeError
from .arguments import array_of, dim_in, numpy_names, shape_of
from .elementwise import clone, log
from .half_precision import rounds_once
from .shape import cat, flip, narrow

__all__ = ["cumprod", "logcumsumexp"]


def _steps(n: int) -> list[int]:
    """Return 1, 2, 4, ... below n: after these steps each entry has met all entries before it.

    Source: Hillis and Steele, "Data parallel algorithms", 1986.
    """
    return [2**k for k in range(max(n - 1, 0).bit_length())]


def _part(x: Array, dim: int, first: int | None, last: int | None) -> tuple[slice, ...]:
    return (*(slice(None),) * dim, slice(first, last))


def _before(y: Value, dim: int, first: float) -> Value:
    """Return y shifted by one along a dimension, so that entry i holds that of i - 1, and entry 0 holds ``first``."""
    array, n = array_of(y), y.shape[dim]
    start = array[_part(array, dim, 0, 1)]
    return cat([BACKENDS[type(array)].full_like(start, first), narrow(y, dim, 0, n - 1)], dim) if n else y


def _after(y: Value, dim: int) -> Value:
    """Return y shifted by one along a dimension, so that entry i holds that of i + 1, and the last one holds 0."""
    return flip(_before(flip(y, dim), dim, 0.0), dim)


def _backwards(a: Value, b: Value, dim: int) -> Value:
    """Return y with ``y[i] = a[i + 1] * y[i + 1] + b[i]``, from the last entry to the first."""
    return flip(recurrence_(flip(_after(a, dim), dim), flip(b, dim), dim), dim)


@op(
    lambda g, a, out, dim: _backwards(a, g, dim) * _before(out, dim, 0.0),
    lambda g, a, dim: _backwards(a, g, dim),
)
def recurrence_(xp: Namespace, a: Array, b: Array, dim: int) -> Array:
    """Return y with ``y[i] = a[i] * y[i - 1] + b[i]`` along a dimension, in ``log2(n)`` steps on whole arrays.

    Its gradients are recurrences in the other direction.
    """
    return xp.recurrence(a, b, dim)


def _cumprod_gradient(g: Value, x: Value, in_shape: Sequence[int], dim: int) -> Value:
    """Return ``(x[0] ... x[i-1]) * s[i]`` with ``s[i] = g[i] + x[i+1] s[i+1]``, which divides by no factor.

    The products are computed again, because those of float16 were rounded and may be infinite.
    """
    if not in_shape:
        return g
    d = dim % len(in_shape)
    return _before(cumprod(x, d), d, 1.0) * _backwards(x, g, d)


@op(_cumprod_gradient, widen=True)
def _cumprod(xp: Namespace, x: Array, dim: int) -> Array:
    return xp.running_product(x, dim_in("", dim, x.ndim)) if x.ndim else x.copy()


@op(
    backward=lambda xp, g, x, dim: (xp.running_product_backward(g, x, dim % x.ndim) if x.ndim else g,),
    composite=_cumprod, accepts_dtype=True, widen=True,
)  # fmt: skip
def cumprod(xp: Namespace, x: Array, dim: int) -> Array:
    """Return the running product along a dimension: ``out[i] = x[0] * ... * x[i]``. That of integers is an int64.

    dtype: convert the input first. Its gradient is also correct where some factors are 0.
    """
    d = dim_in("", dim, x.ndim)
    x = x if kind_of(x.dtype) in "fc" else x.astype(xp.int64)
    return xp.running_product(x, d) if x.ndim else x.copy()


# ---- sums of exponentials -------------------------------------------------------------------


@op()
def _running_maximum(xp: Namespace, x: Array, dim: int) -> Array:
    """Return the largest of ``x[0], ..., x[i]`` along a dimension."""
    out = x.copy()
    for step in _steps(x.shape[dim]):
        tail, head = _part(out, dim, step, None), _part(out, dim, None, -step)
        out[tail] = xp.maximum(out[tail], out[head])
    return out


@op(lambda g, out: g * out, None)
def _exp_below(xp: Namespace, x: Array, top: Array) -> Array:
    """Return ``exp(x - top)``, and 1 where both are the same infinity. No gradient flows to ``top``."""
    return xp.exp_below(x, top)


@numpy_names
@rounds_once
def logcumsumexp(input: Value, dim: int) -> Value:
    """Return ``log(exp(x[0]) + ... + exp(x[i]))`` along a dimension, computed without overflow.

    With m, the largest entry so far, and ``s[i] = exp(m[i-1] - m[i]) s[i-1] + exp(x[i] - m[i])``, it is ``m + log(s)``.
    The gradient uses s alone, so a large m does not change it. Raises DTypeError for integers.
    """
    shape = shape_of("logcumsumexp", input)
    d = dim_in("logcumsumexp", dim, len(shape))
    if not is_floating(input.dtype):
        raise DTypeError(
            f"logcumsumexp({describe_array(array_of(input))}): expected floating point numbers. Convert with .float()."
        )
    if not shape:
        return clone(input)
    top = _running_maximum(input, d)
    return top + log(recurrence_(_exp_below(_before(top, d, -math.inf), top), _exp_below(input, top), d))
