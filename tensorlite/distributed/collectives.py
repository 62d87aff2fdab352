"""The collectives as differentiable ops.

The value of a group is that of all ranks together: the loss of a step is the sum of the losses of the ranks. So the
gradient of what a rank sends is the sum over the ranks of the gradients of what they got.
"""

from __future__ import annotations

from typing import Any

from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import Array, Namespace
from ..ops.elementwise import convert, where
from .array_group import ArrayGroup

__all__ = ["all_gather", "all_reduce", "broadcast", "reduce_scatter"]


def _all_reduce_gradient(g: Any, x: Any, out: Any, group: ArrayGroup, operation: str) -> Value:
    """Return the gradient for a rank's array: of a maximum, an equal share for each rank that has it, or has NaN."""
    if operation in ("sum", "mean"):
        return all_reduce(g, group, operation)
    hit = (x == out) | (x != x)
    ties = all_reduce(convert(hit, g.dtype, None), group, "sum")
    return where(hit, all_reduce(g, group, "sum") / ties, 0.0)


@op(_all_reduce_gradient, bfloat16=True)
def all_reduce(xp: Namespace, x: Array, group: ArrayGroup, operation: str) -> Array:
    """Return the reduction of the arrays of all ranks."""
    return group.run_all_reduce(x, operation)


@op(lambda g, group, operation: _scaled(all_gather(g, group), group, operation), bfloat16=True)
def reduce_scatter(xp: Namespace, x: Array, group: ArrayGroup, operation: str) -> Array:
    """Return this rank's row of the reduction of the arrays (size, ...) of all ranks."""
    return group.run_reduce_scatter(x, operation)


def _scaled(g: Any, group: ArrayGroup, operation: str) -> Value:
    """Return the gradient of a sum as that of the reduction."""
    result: Value = g / group.size if operation == "mean" else g
    return result


@op(lambda g, group: reduce_scatter(g, group, "sum"), bfloat16=True)
def all_gather(xp: Namespace, x: Array, group: ArrayGroup) -> Array:
    """Return the arrays of all ranks, (size, ...)."""
    return group.run_all_gather(x)


def _broadcast_gradient(g: Any, group: ArrayGroup, src: int) -> Value:
    """Return the sum of the gradients of all ranks on the rank ``src``, and zeros on the others."""
    total: Value = all_reduce(g, group, "sum")
    return total if group.rank == src else total * 0


@op(_broadcast_gradient, bfloat16=True)
def broadcast(xp: Namespace, x: Array, group: ArrayGroup, src: int) -> Array:
    """Return the array of the rank ``src``."""
    return group.run_broadcast(x, src)
