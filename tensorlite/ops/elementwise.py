"""Ops that work element by element: arithmetic, exponentials, trigonometry, rounding, choice.

The shapes of several arguments broadcast. Different dtypes are promoted as in PyTorch; a Python number does not change
the dtype of a tensor, unless it is of a higher kind (a float for integers). Exponentials, roots and trigonometric
functions of integers have the default float dtype.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import Array, Namespace
from ..dtypes import DType, cast_array, float32, result_type
from ..errors import DTypeError
from ..scalars import int_in, number_in
from .arguments import Operand

__all__ = [
    "abs", "absolute", "acos", "add", "arccos", "arcsin", "arctan", "asin", "atan", "atan2", "ceil", "clamp", "clip",
    "clone", "cos", "cosh", "div", "divide", "erf", "exp", "expm1", "floor", "floor_divide", "fmod", "lerp", "log",
    "log10", "log1p", "log2", "logaddexp", "maximum", "minimum", "mul", "multiply", "neg", "negative", "pow",
    "reciprocal", "remainder", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "square", "sub",
    "subtract", "tan", "tanh", "true_divide", "trunc",
]  # fmt: skip

# ---- arithmetic -----------------------------------------------------------------------------


MIN_SHARED_SUM = 3 << 15  # entries, from which threads share a sum: two take 0.83 of the time of one there (Zen 4)


def _factor(alpha: Any) -> float:
    """Return the factor of the second argument as Python's number, which never upcasts a tensor."""
    return number_in("", "alpha", alpha)


@op(lambda g: g, lambda g, alpha: g if alpha == 1 else g * _factor(alpha), dtypes="promote")
def add(xp: Namespace, x: Operand, y: Operand, alpha: float = 1) -> Array:
    """Return ``input + alpha * other``."""
    if alpha != 1 or alpha is True:
        return xp.add_scaled(x, y, _factor(alpha))
    return x + y if type(x) is not type(y) or x.size < MIN_SHARED_SUM else xp.add_arrays(x, y)


@op(lambda g: g, lambda g, alpha: -g if alpha == 1 else g * -_factor(alpha), dtypes="promote")
def sub(xp: Namespace, x: Operand, y: Operand, alpha: float = 1) -> Array:
    """Return ``input - alpha * other``."""
    if alpha == 1 and alpha is not True:
        return x - y
    factor = _factor(alpha)  # an unsigned integer has no negative factor
    return xp.add_scaled(x, y, -factor) if hasattr(x, "dtype") and x.dtype == float32 else x - factor * y


@op(lambda g, y: g * y, lambda g, x: g * x, dtypes="scale", widen="numbers")
def mul(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input * other``."""
    return x * y if type(x) is not type(y) or x.size < MIN_SHARED_SUM else xp.multiply_arrays(x, y)


@op(lambda g, y: g / y, lambda g, x, y: -g * (x / y) / y, dtypes="float_scale", widen="numbers")
def true_divide(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input / other``. The quotient of integers has the default float dtype."""
    return x / y


def _kind(x: Operand, y: Operand) -> str:
    """Return the kind of dtype of an arithmetic result: ``"f"``, ``"i"``, ... Raises DTypeError for booleans."""
    kind: str = (x if hasattr(x, "dtype") else y).dtype.kind
    kind = kind if kind == "f" else result_type(x, y).kind
    if kind == "b":
        raise DTypeError("expected numbers, got booleans. Convert with .int().")
    return kind


@op(
    lambda g, weight: g * (1.0 - weight),
    lambda g, weight: g * weight,
    lambda g, input, end: g * (end - input),
    dtypes="floating", widen=True,
)  # fmt: skip
def lerp(xp: Namespace, input: Array, end: Array, weight: Operand) -> Array:
    """Return ``input + weight * (end - input)``, which is ``end`` itself for a weight of 1.

    weight: a number or a Tensor. The arguments broadcast. Raises DTypeError for integers and for different dtypes.
    """
    return xp.lerp(input, end, weight)


def _check_divisor(name: str, x: Operand, y: Operand) -> str:
    """Return the kind of dtype of a quotient in whole numbers: ``"i"`` or ``"u"`` for integers, ``"f"`` for floats.

    Raises DTypeError for booleans, and RuntimeError for integer division by zero. The latter is found on the CPU only:
    on a GPU the check would force a sync.
    """
    kind = _kind(x, y)
    if kind in "iu" and isinstance(y, (int, np.ndarray)) and not np.all(y):
        raise RuntimeError(f"{name}: division of integers by 0. Convert with .float() to get an infinity.")
    return kind


def div(input: Operand, other: Operand, *, rounding_mode: Literal["floor", "trunc"] | None = None) -> Value:
    """Return ``input / other``. The quotient of integers has the default float dtype.

    rounding_mode: "floor" or "trunc" rounds the quotient and keeps the integer dtype of integers. The gradient is then
        zero, and integer division by zero on the CPU raises RuntimeError.

    Raises ValueError for another rounding mode.
    """
    if rounding_mode is None:
        return true_divide(input, other)
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode == "trunc":
        return _div(input, other)
    raise ValueError(f"div: rounding_mode must be None, 'floor' or 'trunc', got {rounding_mode!r}")


@op(lambda g: _zero(g), lambda g: _zero(g), dtypes="scale", widen="numbers")
def _div(xp: Namespace, x: Operand, y: Operand) -> Array:
    if _check_divisor("div", x, y) not in "iu":
        return xp.trunc(x / y)
    quotient = x // y  # exact, unlike x / y of large integers, but rounded down
    return quotient + ((quotient < 0) & (quotient * y != x))


@op(lambda g: _zero(g), lambda g: _zero(g), dtypes="scale", widen="numbers")
def floor_divide(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``floor(input / other)``, in the promoted dtype. Its gradient is zero.

    Raises RuntimeError for integer division by zero on the CPU.
    """
    _check_divisor("floor_divide", x, y)
    return xp.floor_divide(x, y)


@op()
def _wraps(xp: Namespace, x: Operand, y: Operand, out: Array) -> Array:
    """Return the integer n in ``out = x - n * y``, also where ``x / y`` was rounded to an integer, or out to y."""
    return xp.where(out == y, -1.0, xp.round((x - xp.where(out == out, out, 0.0)) / y))


@op(lambda g: g, lambda g, x, y, out: g * -_wraps(x, y, out), dtypes="round", widen="backward")
def remainder(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input - other * floor(input / other)``. It has the sign of the divisor, as Python's ``%``.

    Raises RuntimeError for integer division by zero on the CPU.
    """
    _check_divisor("remainder", x, y)
    return xp.remainder(x, y)


@op(lambda g: g, lambda g, x, y, out: g * -_wraps(x, y, out), dtypes="round", widen="backward")
def fmod(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input - other * trunc(input / other)``. It has the sign of the dividend, as C's ``fmod``.

    Raises RuntimeError for integer division by zero on the CPU.
    """
    _check_divisor("fmod", x, y)
    return xp.fmod(x, y)


def _polynomial(k: int, order: int) -> list[float]:
    """Return the coefficients, lowest first, of the derivative of ``y (y - 1) ... (y - k + 1)`` of this order."""
    coefficients = [1.0]
    for root in range(k):
        shifted, scaled = [0.0, *coefficients], [*(root * c for c in coefficients), 0.0]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    for _ in range(order):
        coefficients = [n * c for n, c in enumerate(coefficients)][1:]
    return coefficients


@op(
    lambda g, x, y, k, m: g * _power_derivative(x, y, k + 1, m),
    lambda g, x, y, k, m: g * _power_derivative(x, y, k, m + 1),
    dtypes="promote", widen=True,
)  # fmt: skip
def _power_derivative(xp: Namespace, x: Operand, y: Operand, k: int, m: int) -> Array:
    """Return the derivative of ``x ** y``, k times by x and m times by y.

    It is ``x**(y - k)`` times the sum over i from 0 to m of ``binomial(m, i) p_i(y) log(x)**(m - i)``, where ``p_i`` is
    the i-th derivative of ``y (y - 1) ... (y - k + 1)``. An infinity times an exact 0 counts as 0: the limit. So does
    the derivative of ``0 ** y`` by y, which is 0 or 1.
    """
    power = x ** (y - k)
    logarithm: Any = xp.log(xp.where((x == 0) & (y >= k), 1.0, x)) if m else None
    total: Any = 0.0
    for i in range(min(k, m) + 1):
        term: Any = 0.0
        for c in reversed(_polynomial(k, i)):
            term = c if isinstance(term, float) and term == 0 else term * y + c
        if i == 0:  # a product is 0 at its roots, which a sum of rounded terms may miss
            term = math.prod((y - n for n in range(1, k)), start=y) if k else 1.0
        if i < m:
            weighted = term * (math.comb(m, i) * logarithm ** (m - i))
            term = weighted if isinstance(term, float) else xp.where(term == 0, 0.0, weighted)
        total = total + term
    flat = (total == 0) | ((power == 0) & ((x >= 0) | (y == math.inf) | (y == -math.inf)))
    return xp.where(flat, 0.0, power * total)


def _power_base(g: Value, x: Value, exponent: Value) -> Value:
    if isinstance(exponent, (int, float)) and math.isfinite(exponent):
        return _zero(g) if exponent == 0 else g * (exponent * pow(x, exponent - 1))
    return g * _power_derivative(x, exponent, 1, 0)


def _power_exponent(g: Value, x: Value, exponent: Value, out: Value) -> Value:
    if not isinstance(x, (int, float)):
        return g * _power_derivative(x, exponent, 0, 1)
    if 0 < x < math.inf or not x >= 0:
        return g * (out * (math.log(x) if x > 0 else math.nan))
    flat = exponent >= 0 if x == 0 else exponent < 0
    return g * (out * where(flat, _zero(out), -math.inf if x == 0 else math.inf))


@op(_power_base, _power_exponent, dtypes="promote", widen=True)
def pow(xp: Namespace, x: Operand, exponent: Operand) -> Array:
    """Return ``input ** exponent``.

    The gradient of the input is 0 where the exponent is 0. The gradient of the exponent is 0 where the input is 0 and
    the exponent is not negative, and NaN where the input is negative.

    Raises ValueError for integers to a negative integer power.
    """
    if type(exponent) in (int, float) and exponent == 3:
        return x * x * x  # because NumPy's power takes 300 times as long
    if _kind(x, exponent) in "iu" and type(exponent) is int and exponent < 0:
        raise ValueError("integers to negative integer powers are not integers. Convert with .float().")
    return x**exponent


@op(lambda g: -g)
def neg(xp: Namespace, x: Array) -> Array:
    """Return ``-input``."""
    return -x


@op(lambda g, out: -g * out * out, dtypes="float", widen="backward")
def reciprocal(xp: Namespace, x: Array) -> Array:
    """Return ``1 / input``."""
    return 1.0 / x


@op(lambda g, x: g * (2.0 * x), widen="backward")
def square(xp: Namespace, x: Array) -> Array:
    """Return ``input * input``."""
    return x * x if x.dtype.kind != "b" else x.astype(xp.int64)


@op(lambda g, x: g * sign(x))
def abs(xp: Namespace, x: Array) -> Array:
    """Return ``|input|``. At 0 the gradient is 0."""
    return xp.abs(x)


# ---- exponentials and roots -----------------------------------------------------------------


@op(lambda g, out: g * out, dtypes="float", widen="backward")
def exp(xp: Namespace, x: Array) -> Array:
    """Return ``e ** input``."""
    return xp.exp(x)


@op(lambda g, out: g * (out + 1.0), dtypes="float", widen="backward")
def expm1(xp: Namespace, x: Array) -> Array:
    """Return ``e ** input - 1``, accurate near 0."""
    return xp.expm1(x)


@op(lambda g, x: g / x, dtypes="float", widen="backward")
def log(xp: Namespace, x: Array) -> Array:
    """Return the natural logarithm: -inf at 0, NaN for negative numbers."""
    return xp.log(x)


@op(lambda g, x: g / (x + 1.0), dtypes="float", widen="backward")
def log1p(xp: Namespace, x: Array) -> Array:
    """Return ``log(1 + input)``, accurate near 0."""
    return xp.log1p(x)


@op(lambda g, x: g / (x * math.log(2)), dtypes="float", widen="backward")
def log2(xp: Namespace, x: Array) -> Array:
    """Return the logarithm to base 2."""
    return xp.log2(x)


@op(lambda g, x: g / (x * math.log(10)), dtypes="float", widen="backward")
def log10(xp: Namespace, x: Array) -> Array:
    """Return the logarithm to base 10."""
    return xp.log10(x)


@op(lambda g, x, y: g * _share(x, y), lambda g, x, y: g * _share(y, x), dtypes="float", widen="backward")
def logaddexp(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``log(exp(input) + exp(other))`` without overflow."""
    return xp.logaddexp(x, y)


@op(lambda g, x, y, out: g * (out * _share(y, x)), lambda g, x, y, out: -g * (out * _share(y, x)))
def _share(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``1 / (1 + exp(y - x))``, the share of x in the gradient: 0.5 where x and y are the same infinity.

    ``exp(x - logaddexp(x, y))`` would be 1 for large equal numbers, whose rounding loses log 2.
    """
    return xp.where(x == y, 0.5, 1.0 / (1.0 + xp.exp(y - x)))


@op(lambda g, out: g / (2.0 * out), dtypes="float", widen="backward")
def sqrt(xp: Namespace, x: Array) -> Array:
    """Return the square root: NaN for negative numbers. At 0 the gradient is infinite."""
    return xp.sqrt(x)


@op(lambda g, out: -0.5 * g * (out * out * out), dtypes="float", widen=True)
def rsqrt(xp: Namespace, x: Array) -> Array:
    """Return ``1 / sqrt(input)``."""
    return 1.0 / xp.sqrt(x)


@op(lambda g, out: g * (1.0 - out * out), dtypes="float", widen="backward")
def tanh(xp: Namespace, x: Array) -> Array:
    """Return the hyperbolic tangent."""
    return xp.tanh(x)


@op(lambda g, y: _sigmoid_slope(g, y), lambda g, x, y: g * x * (1.0 - 2.0 * y), widen=True)
def _sigmoid_slope(xp: Namespace, x: Array, y: Array) -> Array:
    """Return ``x y (1 - y)``: the gradient of :func:`sigmoid` for its result y and the gradient x of that."""
    return xp.sigmoid_slope(x, y)


@op(lambda g, out: _sigmoid_slope(g, out), dtypes="float", widen=True)
def sigmoid(xp: Namespace, x: Array) -> Array:
    """Return ``1 / (1 + exp(-input))``."""
    return xp.sigmoid(x)


@op(lambda g, x, out: g * (-2.0 * where(out == 0, 0.0, x) * out))
def _bell(xp: Namespace, x: Array) -> Array:
    """Return ``exp(-x**2)``, whose derivatives are 0 at infinity."""
    return xp.exp(-x * x)


@op(lambda g, x: g * (2.0 / math.sqrt(math.pi) * _bell(x)), dtypes="float", widen=True)
def erf(xp: Namespace, x: Array) -> Array:
    """Return the error function: ``2 / sqrt(pi)`` times the integral of ``exp(-t**2)`` from 0 to the input."""
    return xp.erf(x)


# ---- trigonometry ---------------------------------------------------------------------------


@op(lambda g, x: g * cos(x), dtypes="float", widen="backward")
def sin(xp: Namespace, x: Array) -> Array:
    """Return the sine of an angle in radians."""
    return xp.sin(x)


@op(lambda g, x: -g * sin(x), dtypes="float", widen="backward")
def cos(xp: Namespace, x: Array) -> Array:
    """Return the cosine of an angle in radians."""
    return xp.cos(x)


@op(lambda g, out: g * (1.0 + out * out), dtypes="float", widen="backward")
def tan(xp: Namespace, x: Array) -> Array:
    """Return the tangent of an angle in radians."""
    return xp.tan(x)


@op(lambda g, x: g * rsqrt(1.0 - x * x), dtypes="float", widen="backward")
def asin(xp: Namespace, x: Array) -> Array:
    """Return the inverse sine in radians, from -pi/2 to pi/2. NaN outside of [-1, 1]."""
    return xp.arcsin(x)


@op(lambda g, x: -g * rsqrt(1.0 - x * x), dtypes="float", widen="backward")
def acos(xp: Namespace, x: Array) -> Array:
    """Return the inverse cosine in radians, from 0 to pi. NaN outside of [-1, 1]."""
    return xp.arccos(x)


@op(lambda g, x, out: g * (-2.0 * where(out == 0, 0.0, x) * out * out))
def _atan_slope(xp: Namespace, x: Array) -> Array:
    """Return ``1 / (1 + x**2)``, whose derivatives are 0 at infinity."""
    return 1.0 / (1.0 + x * x)


@op(lambda g, x: g * _atan_slope(x), dtypes="float", widen="backward")
def atan(xp: Namespace, x: Array) -> Array:
    """Return the inverse tangent in radians, from -pi/2 to pi/2."""
    return xp.arctan(x)


@op(lambda g, x: g * cosh(x), dtypes="float", widen="backward")
def sinh(xp: Namespace, x: Array) -> Array:
    """Return the hyperbolic sine."""
    return xp.sinh(x)


@op(lambda g, x: g * sinh(x), dtypes="float", widen="backward")
def cosh(xp: Namespace, x: Array) -> Array:
    """Return the hyperbolic cosine."""
    return xp.cosh(x)


@op(
    lambda g, x, y, out: g * (square(_over_square(y, x)) - out * out),
    lambda g, x, y, out: g * (-2.0 * out * _over_square(y, x)),
)
def _over_square(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``x / (x**2 + y**2)``, without overflow; 0 at the origin and at infinity."""
    radius = xp.hypot(x, y)
    return xp.where((radius == 0) | ((radius == math.inf) & (x == x) & (y == y)), 0.0, x / radius / radius)


@op(
    lambda g, y, x: g * _over_square(x, y), lambda g, y, x: -g * _over_square(y, x), dtypes="float", widen="backward"
)
def atan2(xp: Namespace, y: Operand, x: Operand) -> Array:
    """Return the angle of the point (other, input) in radians, from -pi to pi.

    At the origin and at infinity the gradient is 0.

    ``input`` is the vertical coordinate of the point, ``other`` the horizontal one.
    """
    return xp.arctan2(y, x)


# ---- rounding, with zero gradients ----------------------------------------------------------


@op(lambda g: _zero(g))
def _zero(xp: Namespace, g: Array) -> Array:
    """Return zeros of g's shape and dtype. ``0 * g`` would be NaN where g is not finite."""
    return xp.zeros_like(g)


@op(lambda g: _zero(g))
def sign(xp: Namespace, x: Array) -> Array:
    """Return -1, 0 or 1, and 0 for NaN. Its gradient is zero."""
    if x.dtype.kind == "b":
        return x.copy()
    return xp.sign_of(x)


@op(lambda g: _zero(g))
def floor(xp: Namespace, x: Array) -> Array:
    """Return the largest integer that is not above the input, in the input's dtype. Its gradient is zero."""
    return xp.floor(x)


@op(lambda g: _zero(g))
def ceil(xp: Namespace, x: Array) -> Array:
    """Return the smallest integer that is not below the input, in the input's dtype. Its gradient is zero."""
    return xp.ceil(x)


@op(lambda g: _zero(g))
def round(xp: Namespace, x: Array, decimals: int = 0) -> Array:
    """Round to ``decimals`` decimals, halves to even. Its gradient is zero."""
    places = int_in("", "decimals", decimals)
    return xp.round(x, places) if x.dtype.kind != "b" else x.copy()


@op(lambda g: _zero(g))
def trunc(xp: Namespace, x: Array) -> Array:
    """Round towards zero. Its gradient is zero."""
    return xp.trunc(x)


# ---- selection ------------------------------------------------------------------------------


def _larger(g: Value, x: Value, y: Value) -> Value:
    return where(x < y, 0.0, where(x == y, 0.5 * g, g))


@op(lambda g, x, y: _larger(g, x, y), lambda g, x, y: _larger(g, y, x), dtypes="promote")
def maximum(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return the larger of both entries; NaN if one of them is. Equal entries each get half of the gradient."""
    return xp.maximum(x, y)


@op(lambda g, x, y: _larger(g, y, x), lambda g, x, y: _larger(g, x, y), dtypes="promote")
def minimum(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return the smaller of both entries; NaN if one of them is. Equal entries each get half of the gradient."""
    return xp.minimum(x, y)


def _inside(g: Value, x: Value, min: Value, max: Value) -> Value:
    if min is not None:
        g = where(x >= min, g, 0.0)
    return g if max is None else where(x <= max, g, 0.0)


def _below(g: Value, x: Value, min: Value, max: Value) -> Value:
    g = where(x < min, g, 0.0)
    return g if max is None else where(min < max, g, 0.0)  # where min > max, the result is max


def _above(g: Value, x: Value, min: Value, max: Value) -> Value:
    return where(x > max, g, 0.0) if min is None else where((x > max) | (min > max), g, 0.0)


@op(_inside, _below, _above, dtypes="promote")
def clamp(xp: Namespace, x: Array, min: Operand | None = None, max: Operand | None = None) -> Array:
    """Return ``minimum(maximum(input, min), max)``. Where ``min > max`` the result is ``max``.

    The gradient passes to the input where it is between the bounds or equal to one, elsewhere to the bound.
    Raises ValueError if both bounds are None.
    """
    if min is None and max is None:
        raise ValueError("at least one of min and max must not be None")
    return xp.clamp(x, min, max)


@op(None, lambda g, condition: where(condition, g, 0.0), lambda g, condition: where(condition, 0.0, g), dtypes="choose")
def where(xp: Namespace, condition: Array, x: Operand, y: Operand) -> Array:
    """Return x where the boolean condition is true, otherwise y.

    Raises DTypeError for another condition, TypeError if x or y is None.
    """
    if not isinstance(condition, bool) and condition.dtype.kind != "b":
        raise DTypeError(f"the condition must be of booleans, got {condition.dtype}. Convert it with .bool().")
    if x is None or y is None:
        raise TypeError("expected Tensors or numbers to choose from, got None")
    if not hasattr(x, "dtype") and not hasattr(y, "dtype"):
        x = xp.asarray(x, result_type(x, y))  # because NumPy would make float64 of Python's floats
    return xp.where(xp.asarray(condition) if isinstance(condition, bool) else condition, x, y)


# ---- copies and conversion ------------------------------------------------------------------


@op(lambda g: g, bfloat16=True)
def clone(xp: Namespace, x: Array) -> Array:
    """Return a copy. Gradients flow through it."""
    return x.copy()


@op(lambda g, in_dtype: convert(g, in_dtype, g.dtype), bfloat16=True)
def convert(xp: Namespace, x: Array, dtype: DType, in_dtype: DType | None) -> Array:
    """Return x in the floating point dtype ``dtype``. ``in_dtype`` is the dtype of x."""
    return cast_array(x, dtype)


@op(bfloat16=True)
def convert_to_discrete(xp: Namespace, x: Array, dtype: DType) -> Array:
    """Return x as integers or booleans. No gradient flows through it."""
    return cast_array(x, dtype)


# ---- PyTorch's other names for the same ops -------------------------------------------------

absolute, arccos, arcsin, arctan, clip = abs, acos, asin, atan, clamp
divide, multiply, negative, subtract = div, mul, neg, sub
