"""Views: which base a tensor shows, and how to take it again after a change in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backends.registry import Array
from ..errors import VersionError
from . import version_counter
from .graph import Variable

__all__ = ["along", "check_inputs", "origin_of", "taken_again"]


def origin_of(x: Variable, view: Callable[..., Any], arguments: tuple[Any, ...], out: Array) -> Any:
    """Where the result of a view op comes from; from nowhere if it had to be copied."""
    data, shown = x.array, out.base
    if shown is None or (shown is not data and shown is not data.base):
        if out is not data and version_counter.owner(out) is not version_counter.owner(data):
            return None, None
    base, steps = x.origin or (x, None)
    return (x if base is None else base), (steps, view, arguments)


def along(steps: Any, value: Any) -> Any:
    """What the view ops of an ``origin`` make of a value."""
    path = []
    while steps is not None:
        steps, view, arguments = steps
        path.append((view, arguments))
    for view, arguments in reversed(path):
        value = view(value, *arguments)
    return value


def taken_again(v: Any) -> bool:
    """Whether a view could be taken again from its base, which was changed in place under the graph since."""
    base, steps = v.origin or (None, None)
    if base is None or base.node is None:
        return False
    buffer = version_counter.owner(v.array)
    if version_counter.owner(base.array) is not buffer or version_counter.rebased.get(id(buffer), 0) > base.node.seq:
        return False
    again = along(steps, base)
    if again.node is None:  # nothing is recorded now
        return False
    v.node, v.tracked = again.node, True
    return True


def check_inputs(op: str, variables: Any) -> None:
    """Take views again whose base was changed in place under the graph. Raise VersionError if one cannot be."""
    for v in variables:
        node = getattr(v, "node", None)
        if node is None or version_counter.rebased.get(id(version_counter.owner(v.array)), 0) <= node.seq:
            continue
        if not taken_again(v):
            raise VersionError(
                f"{op}: a view of shape {tuple(v.array.shape)} was taken before the tensor it belongs to was changed "
                f"in place, so its gradient would be wrong. Take the view again after the change, or clone() it before"
            )
