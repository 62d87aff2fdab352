"""Element-wise comparison, logic and bits. The results are booleans or integers, so these ops have no gradient."""

from __future__ import annotations

from ..autograd.function import op
from ..backends.registry import Array, Namespace
from .arguments import Operand

__all__ = [
    "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "eq",
    "ge", "gt", "isfinite", "isinf", "isnan", "le", "logical_and", "logical_not", "logical_or", "logical_xor", "lt",
    "ne",
]  # fmt: skip


@op()
def eq(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x == y``, element by element."""
    return x == y


@op()
def ne(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x != y``, element by element."""
    return x != y


@op()
def lt(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x < y``, element by element."""
    return x < y


@op()
def le(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x <= y``, element by element."""
    return x <= y


@op()
def gt(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x > y``, element by element."""
    return x > y


@op()
def ge(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x >= y``, element by element."""
    return x >= y


@op()
def logical_and(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Whether both are nonzero."""
    return xp.logical_and(x, y)


@op()
def logical_or(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Whether either is nonzero."""
    return xp.logical_or(x, y)


@op()
def logical_xor(xp: Namespace, x: Operand, y: Operand) -> Array:
    """Whether exactly one is nonzero."""
    return xp.logical_xor(x, y)


@op()
def logical_not(xp: Namespace, x: Array) -> Array:
    """Whether it is zero."""
    return xp.logical_not(x)


@op()
def bitwise_and(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x & y`` of integers or booleans."""
    return x & y


@op()
def bitwise_or(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x | y`` of integers or booleans."""
    return x | y


@op()
def bitwise_xor(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x ^ y`` of integers or booleans."""
    return x ^ y


@op()
def bitwise_not(xp: Namespace, x: Array) -> Array:
    """``~x`` of integers or booleans."""
    return ~x


@op()
def bitwise_left_shift(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x << y`` of integers."""
    return x << y


@op()
def bitwise_right_shift(xp: Namespace, x: Operand, y: Operand) -> Array:
    """``x >> y`` of integers."""
    return x >> y


@op()
def isnan(xp: Namespace, x: Array) -> Array:
    """Whether it is NaN."""
    return xp.isnan(x)


@op()
def isinf(xp: Namespace, x: Array) -> Array:
    """Whether it is an infinity."""
    return xp.isinf(x)


@op()
def isfinite(xp: Namespace, x: Array) -> Array:
    """Whether it is neither NaN nor an infinity."""
    return xp.isfinite(x)
