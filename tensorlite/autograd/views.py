"""Views: regenerate a tensor that shows the memory of another one, after that was changed in place.

A view op (``reshape``, ``transpose``, indexing with slices, ...) returns a tensor on its input's memory. Each view
remembers its base and the view ops between the two. A change in place of a view is recorded as a change of the base.
Every other view of that base is regenerated when it is next used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from ..backends.registry import Array
from ..errors import VersionError
from .retained_grad import set_node
from .version_counter import base_array, inplace_in_graph

__all__ = [
    "COPIED", "ViewInfo", "ViewSteps", "current_view_info", "owns_memory", "record_view", "regenerate_view",
    "regenerate_views", "replay_view",
]  # fmt: skip

ViewSteps: TypeAlias = tuple[Any, Callable[..., Any], tuple[Any, ...]] | None
"""The view ops from a base to a view, as a linked list: ``(earlier steps, last view op, its other arguments)``."""


ViewInfo: TypeAlias = tuple[Any, ViewSteps]
"""``(base, steps)``: the Variable whose memory a view shows, and the view ops that lead from it to the view.

It is a plain tuple, because every call of a view op makes one, and a class would cost 3% of the call.
"""

COPIED: ViewInfo = (None, None)
"""The view info of a view op's result that shares no memory with the op's input."""


def record_view(x: Any, view: Callable[..., Any], arguments: tuple[Any, ...], out: Array) -> ViewInfo:
    """Return the view info of ``view(x, *arguments)``. out: the raw array of that view."""
    array, memory = x.array, out.base
    if memory is None or (memory is not array and memory is not array.base):
        if out is not array and base_array(out) is not base_array(array):
            return COPIED
    base, steps = x.view_info or COPIED
    return (x if base is None else base), (steps, view, arguments)


def current_view_info(x: Any) -> ViewInfo:
    """Return the base of x and the steps to x. A tensor that is not a view, or no longer one, is its own base."""
    base, steps = x.view_info or COPIED
    if base is None or base_array(base.array) is not base_array(x.array):
        return x, None
    return base, steps


def owns_memory(x: Any) -> bool:
    """Return whether x holds memory that no earlier tensor shows."""
    return x.array is base_array(x.array) or x.view_info is COPIED


def replay_view(steps: ViewSteps, value: Any) -> Any:
    """Apply the view ops of a ``ViewInfo.steps`` to a Variable or to a raw array."""
    path = []
    while steps is not None:
        steps, view, arguments = steps
        path.append((view, arguments))
    for view, arguments in reversed(path):
        value = view(value, *arguments)
    return value


def regenerate_view(x: Any) -> bool:
    """Regenerate the view x if its base was changed in place in the graph since. Return whether it was regenerated."""
    base, steps = x.view_info or COPIED
    if base is None or base.node is None:
        return False
    memory = base_array(x.array)
    if base_array(base.array) is not memory or inplace_in_graph.get(id(memory), 0) > base.node.seq:
        return False
    again = replay_view(steps, base)
    if again.node is None:  # nothing is recorded now
        return False
    set_node(x, again.node)
    return True


def regenerate_views(op: str, values: Iterable[Any]) -> None:
    """Regenerate each view among the values whose base was changed in place in the graph.

    Raises VersionError, with the op's name, if a view cannot be regenerated.
    """
    for x in values:
        node = getattr(x, "node", None)
        if node is None or inplace_in_graph.get(id(base_array(x.array)), 0) <= node.seq:
            continue
        if not regenerate_view(x):
            raise VersionError(
                f"{op}: a view of shape {tuple(x.array.shape)} was taken before its base was changed in place, so its "
                f"gradient would be wrong. Take the view again after the change, or clone() it before the change."
            )
