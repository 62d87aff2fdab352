"""Comparison, logic and bits, element by element. The results are booleans or integers, without a gradient."""

from __future__ import annotations

from ..autograd.function import op
from ..backends.registry import Array, Namespace
from ..dtypes import result_type
from ..errors import DTypeError
from .arguments import Operand

__all__ = [
    "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "eq",
    "ge", "gt", "isfinite", "isinf", "isnan", "le", "logical_and", "logical_not", "logical_or", "logical_xor", "lt",
    "ne",
]  # fmt: skip


@op(dtypes="compare")
def eq(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input == other``, as booleans."""
    return x == y


@op(dtypes="compare")
def ne(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input != other``, as booleans."""
    return x != y


@op(dtypes="compare")
def lt(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input < other``, as booleans."""
    return x < y


@op(dtypes="compare")
def le(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input <= other``, as booleans."""
    return x <= y


@op(dtypes="compare")
def gt(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input > other``, as booleans."""
    return x > y


@op(dtypes="compare")
def ge(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input >= other``, as booleans."""
    return x >= y


@op()
def logical_and(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return where both entries are nonzero, as booleans."""
    return xp.logical_and(x, y)


@op()
def logical_or(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return where at least one entry is nonzero, as booleans."""
    return xp.logical_or(x, y)


@op()
def logical_xor(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return where exactly one entry is nonzero, as booleans."""
    return xp.logical_xor(x, y)


@op()
def logical_not(xp: Namespace, x: Array) -> Array:
    """Return where the entry is zero, as booleans."""
    return xp.logical_not(x)


@op(dtypes="bits")
def bitwise_and(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input & other`` of integers or booleans. Raises DTypeError for floating point numbers."""
    return x & y


@op(dtypes="bits")
def bitwise_or(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input | other`` of integers or booleans. Raises DTypeError for floating point numbers."""
    return x | y


@op(dtypes="bits")
def bitwise_xor(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input ^ other`` of integers or booleans. Raises DTypeError for floating point numbers."""
    return x ^ y


@op()
def bitwise_not(xp: Namespace, x: Array) -> Array:
    """Return ``~input`` of integers or booleans. Raises DTypeError for floating point numbers."""
    return ~x


def _check_shift(x: Operand, y: Operand) -> None:
    """Raise DTypeError if both arguments are booleans, which have no bits to move."""
    if result_type(x, y).kind == "b":
        raise DTypeError("expected integers to shift, got booleans. Convert with .int().")


@op(dtypes="bits")
def bitwise_left_shift(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input << other`` of integers. Raises DTypeError for floating point numbers."""
    _check_shift(x, y)
    return x << y


@op(dtypes="bits")
def bitwise_right_shift(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Return ``input >> other`` of integers. Raises DTypeError for floating point numbers."""
    _check_shift(x, y)
    return x >> y


@op()
def isnan(xp: Namespace, x: Array) -> Array:
    """Return where the entry is NaN, as booleans."""
    return xp.isnan(x)


@op()
def isinf(xp: Namespace, x: Array) -> Array:
    """Return where the entry is infinite, as booleans."""
    return xp.isinf(x)


@op()
def isfinite(xp: Namespace, x: Array) -> Array:
    """Return where the entry is neither NaN nor infinite, as booleans."""
    return xp.isfinite(x)
