"""Ops that work element by element, with broadcasting: arithmetic, exponentials, trigonometry, comparison, choice."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import Array, Namespace
from ..dtypes import DType, result_type
from ..errors import DTypeError
from .arguments import Operand

__all__ = [
    "abs", "absolute", "acos", "add", "arccos", "arcsin", "arctan", "asin", "atan", "atan2", "ceil", "clamp", "clip",
    "clone", "cos", "cosh", "div", "divide", "erf", "exp", "expm1", "floor", "floor_divide", "fmod", "log", "log10",
    "log1p", "log2", "logaddexp", "maximum", "minimum", "mul", "multiply", "neg", "negative", "pow", "reciprocal",
    "remainder", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "square", "sub", "subtract", "tan", "tanh",
    "true_divide", "trunc",
]  # fmt: skip

# ---- arithmetic -----------------------------------------------------------------------------


@op(lambda g: g, lambda g, alpha: g if alpha == 1 else g * alpha, dtypes="promote")
def add(xp: Namespace, x: Operand, y: Operand, alpha: float = 1) -> Array:
    """``x + alpha * y``, with broadcasting."""
    return x + y if alpha == 1 else x + alpha * y


@op(lambda g: g, lambda g, alpha: -g if alpha == 1 else g * -alpha, dtypes="promote")
def sub(xp: Namespace, x: Operand, y: Operand, alpha: float = 1) -> Array:
    """``x - alpha * y``, with broadcasting."""
    return x - y if alpha == 1 else x - alpha * y


@op(lambda g, y: g * y, lambda g, x: g * x, dtypes="promote")
def mul(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x * y``, with broadcasting."""
    return x * y


@op(lambda g, y: g / y, lambda g, x, y: -g * (x / y) / y, dtypes="float")
def true_divide(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x / y``, with broadcasting; of integers, a float."""
    return x / y


def _check_divisor(name: str, x: Array, y: Array) -> None:
    """Raise RuntimeError for integers divided by 0, which NumPy calls 0; a device would have to be waited for."""
    if isinstance(y, (int, np.ndarray)) and result_type(x, y).kind in "iu" and not np.all(y):
        raise RuntimeError(f"{name}: division of integers by 0; convert with .float() for an infinity")


def div(input: Operand, other: Operand, *, rounding_mode: Literal["floor", "trunc"] | None = None) -> Value:
    """``input / other``, with broadcasting; of integers, a float.

    ``rounding_mode`` "floor" or "trunc" rounds the quotient and keeps integers integers; its gradient is zero.
    """
    if rounding_mode is None:
        return true_divide(input, other)
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode == "trunc":
        return _truncated_divide(input, other)
    raise ValueError(f"div: rounding_mode must be None, 'floor' or 'trunc', got {rounding_mode!r}")


@op(lambda g: _zero(g), lambda g: _zero(g), dtypes="promote")
def _truncated_divide(xp: Namespace, x: Operand, y: Operand) -> Array:
    _check_divisor("div", x, y)
    quotient = xp.trunc(x / y)
    return quotient.astype(xp.result_type(x, y), copy=False)


@op(lambda g: _zero(g), lambda g: _zero(g), dtypes="promote")
def floor_divide(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``floor(x / y)``. Its gradient is zero. Raises RuntimeError for integers divided by 0, if they are on the CPU."""
    _check_divisor("floor_divide", x, y)
    return x // y


@op(lambda g: g, lambda g, x, y: -g * floor(x / y), dtypes="promote")
def remainder(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x - y * floor(x / y)``: the remainder with the sign of the divisor, as Python's ``%``.

    Raises RuntimeError for integers divided by 0, if they are on the CPU.
    """
    _check_divisor("remainder", x, y)
    return x % y


@op(lambda g: g, lambda g, x, y: -g * trunc(x / y), dtypes="promote")
def fmod(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x - y * trunc(x / y)``: the remainder with the sign of the dividend, as C's ``fmod``.

    Raises RuntimeError for integers divided by 0, if they are on the CPU.
    """
    _check_divisor("fmod", x, y)
    return xp.fmod(x, y)


def _power_base(g: Value, x: Value, exponent: Value) -> Value:
    if isinstance(exponent, (int, float)):
        return _zero(g) if exponent == 0 else g * (exponent * pow(x, exponent - 1))
    return where((x == 0) & (exponent == 0), 0.0, g * exponent * pow(x, exponent - 1))


def _power_exponent(g: Value, x: Value, exponent: Value, out: Value) -> Value:
    if isinstance(x, (int, float)):
        log_x: Value = math.log(x) if x > 0 else -math.inf if x == 0 else math.nan
        flat = exponent >= 0 if x == 0 else None
    else:
        log_x, flat = log(x), (x == 0) & (exponent >= 0)
    return g * (out * log_x) if flat is None else g * where(flat, 0.0, out * log_x)  # not 0 * -inf


@op(_power_base, _power_exponent, dtypes="promote")
def pow(xp: Namespace, x: Operand, exponent: Operand) -> Array:
    """``x ** exponent``, with broadcasting. At exponent 0 the gradient for x is 0; at ``x == 0`` and an exponent that
    is not negative, the one for the exponent is."""
    if type(exponent) in (int, float) and exponent == 3:
        return x * x * x  # NumPy's power takes 300 times as long
    if getattr(x, "dtype", None) is not None and x.dtype.kind in "iu" and type(exponent) is int and exponent < 0:
        raise ValueError("integers to negative integer powers are not integers; convert with .float()")
    return x**exponent


@op(lambda g: -g)
def neg(xp: Namespace, x: Array) -> Array:
    """``-x``."""
    return -x


@op(lambda g, out: -g * out * out, dtypes="float")
def reciprocal(xp: Namespace, x: Array) -> Array:
    """``1 / x``."""
    return 1.0 / x


@op(lambda g, x: g * (2.0 * x))
def square(xp: Namespace, x: Array) -> Array:
    """``x * x``."""
    return x * x


@op(lambda g, x: g * sign(x))
def abs(xp: Namespace, x: Array) -> Array:
    """``|x|``. At 0 the gradient is 0."""
    return xp.abs(x)


# ---- exponentials and roots -----------------------------------------------------------------


@op(lambda g, out: g * out, dtypes="float")
def exp(xp: Namespace, x: Array) -> Array:
    """``e ** x``."""
    return xp.exp(x)


@op(lambda g, out: g * (out + 1.0), dtypes="float")
def expm1(xp: Namespace, x: Array) -> Array:
    """``e ** x - 1``, accurate near 0."""
    return xp.expm1(x)


@op(lambda g, x: g / x, dtypes="float")
def log(xp: Namespace, x: Array) -> Array:
    """The natural logarithm: -inf at 0, NaN below."""
    return xp.log(x)


@op(lambda g, x: g / (x + 1.0), dtypes="float")
def log1p(xp: Namespace, x: Array) -> Array:
    """``log(1 + x)``, accurate near 0."""
    return xp.log1p(x)


@op(lambda g, x: g / (x * math.log(2)), dtypes="float")
def log2(xp: Namespace, x: Array) -> Array:
    """The logarithm to base 2."""
    return xp.log2(x)


@op(lambda g, x: g / (x * math.log(10)), dtypes="float")
def log10(xp: Namespace, x: Array) -> Array:
    """The logarithm to base 10."""
    return xp.log10(x)


@op(
    lambda g, x, y, out: g * _share(x, y, out),
    lambda g, x, y, out: g * _share(y, x, out),
    dtypes="float",
)
def logaddexp(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``log(exp(x) + exp(y))`` without overflow."""
    return xp.logaddexp(x, y)


def _share(x: Value, y: Value, out: Value) -> Value:
    """``exp(x - out)``; both are infinite where x and y are the same infinity, and share."""
    return where((x == y) & (out == x), 0.5, exp(x - out))


@op(lambda g, out: g / (2.0 * out), dtypes="float")
def sqrt(xp: Namespace, x: Array) -> Array:
    """The square root. At 0 the gradient is infinite."""
    return xp.sqrt(x)


@op(lambda g, out: -0.5 * g * (out * out * out), dtypes="float")
def rsqrt(xp: Namespace, x: Array) -> Array:
    """``1 / sqrt(x)``."""
    return 1.0 / xp.sqrt(x)


@op(lambda g, out: g * (1.0 - out * out), dtypes="float")
def tanh(xp: Namespace, x: Array) -> Array:
    """The hyperbolic tangent."""
    return xp.tanh(x)


@op(lambda g, out: g * (out * (1.0 - out)), dtypes="float")
def sigmoid(xp: Namespace, x: Array) -> Array:
    """``1 / (1 + exp(-x))``."""
    return 1.0 / (1.0 + xp.exp(-x))


@op(lambda g, x: g * (2.0 / math.sqrt(math.pi) * exp(-x * x)), dtypes="float")
def erf(xp: Namespace, x: Array) -> Array:
    """The error function, ``2 / sqrt(pi)`` times the integral of ``exp(-t**2)`` from 0 to x."""
    return xp.erf(x)


# ---- trigonometry ---------------------------------------------------------------------------


@op(lambda g, x: g * cos(x), dtypes="float")
def sin(xp: Namespace, x: Array) -> Array:
    """The sine of x in radians."""
    return xp.sin(x)


@op(lambda g, x: -g * sin(x), dtypes="float")
def cos(xp: Namespace, x: Array) -> Array:
    """The cosine of x in radians."""
    return xp.cos(x)


@op(lambda g, out: g * (1.0 + out * out), dtypes="float")
def tan(xp: Namespace, x: Array) -> Array:
    """The tangent of x in radians."""
    return xp.tan(x)


@op(lambda g, x: g * rsqrt(1.0 - x * x), dtypes="float")
def asin(xp: Namespace, x: Array) -> Array:
    """The inverse sine, in radians."""
    return xp.arcsin(x)


@op(lambda g, x: -g * rsqrt(1.0 - x * x), dtypes="float")
def acos(xp: Namespace, x: Array) -> Array:
    """The inverse cosine, in radians."""
    return xp.arccos(x)


@op(lambda g, x: g / (1.0 + x * x), dtypes="float")
def atan(xp: Namespace, x: Array) -> Array:
    """The inverse tangent, in radians."""
    return xp.arctan(x)


@op(lambda g, x: g * cosh(x), dtypes="float")
def sinh(xp: Namespace, x: Array) -> Array:
    """The hyperbolic sine."""
    return xp.sinh(x)


@op(lambda g, x: g * sinh(x), dtypes="float")
def cosh(xp: Namespace, x: Array) -> Array:
    """The hyperbolic cosine."""
    return xp.cosh(x)


def _over_radius(g: Value, side: Value, x: Value, y: Value) -> Value:
    """``g * side / (x**2 + y**2)``, and 0 at the origin."""
    radius = x * x + y * y
    return where(radius == 0, 0.0, g * side / where(radius == 0, 1.0, radius))


@op(lambda g, y, x: _over_radius(g, x, x, y), lambda g, y, x: _over_radius(-g, y, x, y), dtypes="float")
def atan2(xp: Namespace, y: Operand, x: Operand) -> Array:
    """The angle of the point ``(x, y)``, in radians from -pi to pi. At the origin the gradient is 0."""
    return xp.arctan2(y, x)


# ---- rounding: piecewise constant, so the gradient is zero ----------------------------------


@op(lambda g: _zero(g))
def _zero(xp: Namespace, g: Array) -> Array:
    """Zeros, whatever g is: 0 * g would be NaN where g is not finite."""
    return xp.zeros_like(g)


@op(lambda g: _zero(g))
def sign(xp: Namespace, x: Array) -> Array:
    """-1, 0 or 1, and 0 for NaN. Its gradient is zero."""
    if x.dtype.kind == "b":
        return x.copy()
    out = xp.sign(x)
    return xp.where(x == x, out, xp.zeros_like(out)) if x.dtype.kind == "f" else out


@op(lambda g: _zero(g))
def floor(xp: Namespace, x: Array) -> Array:
    """The largest integer not above x, in x's dtype. Its gradient is zero."""
    return xp.floor(x)


@op(lambda g: _zero(g))
def ceil(xp: Namespace, x: Array) -> Array:
    """The smallest integer not below x, in x's dtype. Its gradient is zero."""
    return xp.ceil(x)


@op(lambda g: _zero(g))
def round(xp: Namespace, x: Array, decimals: int = 0) -> Array:
    """x rounded to so many decimals, halves to even. Its gradient is zero."""
    return xp.round(x, decimals)


@op(lambda g: _zero(g))
def trunc(xp: Namespace, x: Array) -> Array:
    """x rounded towards zero. Its gradient is zero."""
    return xp.trunc(x)


# ---- selection ------------------------------------------------------------------------------


def _larger(g: Value, x: Value, y: Value) -> Value:
    return where(x < y, 0.0, where(x == y, 0.5 * g, g))


@op(lambda g, x, y: _larger(g, x, y), lambda g, x, y: _larger(g, y, x), dtypes="promote")
def maximum(xp: Namespace, x: Operand, y: Operand) -> Array:
    """The larger of x and y; NaN if either is. Where they are equal, each gets half the gradient."""
    return xp.maximum(x, y)


@op(lambda g, x, y: _larger(g, y, x), lambda g, x, y: _larger(g, x, y), dtypes="promote")
def minimum(xp: Namespace, x: Operand, y: Operand) -> Array:
    """The smaller of x and y; NaN if either is. Where they are equal, each gets half the gradient."""
    return xp.minimum(x, y)


def _inside(g: Value, x: Value, min: Value, max: Value) -> Value:
    if min is not None:
        g = where(x >= min, g, 0.0)
    return g if max is None else where(x <= max, g, 0.0)


def _below(g: Value, x: Value, min: Value, max: Value) -> Value:
    g = where(x < min, g, 0.0)
    return g if max is None else where(min < max, g, 0.0)  # where they cross, max wins


def _above(g: Value, x: Value, min: Value, max: Value) -> Value:
    return where(x > max, g, 0.0) if min is None else where((x > max) | (min > max), g, 0.0)


@op(_inside, _below, _above, dtypes="promote")
def clamp(xp: Namespace, x: Array, min: Operand | None = None, max: Operand | None = None) -> Array:
    """``minimum(maximum(x, min), max)``. The gradient passes where x is inside or on a bound."""
    if min is None and max is None:
        raise ValueError("at least one of min and max must not be None")
    if min is not None:
        x = xp.maximum(x, min)
    return x if max is None else xp.minimum(x, max)


@op(None, lambda g, condition: where(condition, g, 0.0), lambda g, condition: where(condition, 0.0, g), dtypes="choose")
def where(xp: Namespace, condition: Array, x: Operand, y: Operand) -> Array:
    """x where ``condition``, of booleans, is true, else y, with broadcasting."""
    if not isinstance(condition, bool) and condition.dtype.kind != "b":
        raise DTypeError(f"the condition must be of booleans, got {condition.dtype}; convert it with .bool()")
    if x is None or y is None:
        raise TypeError("expected Tensors or numbers to choose from, got None")
    if not hasattr(x, "dtype") and not hasattr(y, "dtype"):
        x = xp.asarray(x, result_type(x, y))  # NumPy would make Python's floats float64
    return xp.where(xp.asarray(condition) if isinstance(condition, bool) else condition, x, y)


# ---- copies and conversion ------------------------------------------------------------------


@op(lambda g: g)
def clone(xp: Namespace, x: Array) -> Array:
    """Return a copy of x. Gradients flow through it."""
    return x.copy()


@op(lambda g, in_dtype: convert(g, in_dtype, g.dtype))
def convert(xp: Namespace, x: Array, dtype: DType, in_dtype: DType | None) -> Array:
    """x in another floating point dtype; ``in_dtype`` is the one it has."""
    return x.astype(dtype)


@op()
def convert_to_discrete(xp: Namespace, x: Array, dtype: DType) -> Array:
    """x as integers or booleans, through which no gradient flows."""
    return x.astype(dtype)


# ---- PyTorch's other names for the same ops -------------------------------------------------

absolute, arccos, arcsin, arctan, clip = abs, acos, asin, atan, clamp
divide, multiply, negative, subtract = div, mul, neg, sub
