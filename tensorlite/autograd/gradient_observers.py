"""Tell an observer which gradients of leaves are complete while a backward pass still runs.

:class:`tensorlite.distributed.DataParallel` sends them while the pass goes on.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from .graph import Node, Variable

__all__ = ["GradientObserver", "active_observers", "add_observer", "finish", "gradient_observers", "observe"]


class GradientObserver(Protocol):
    """What wants to know the gradients of some leaves. active: whether it does now."""

    active: bool

    @property
    def leaves(self) -> Collection[Any]:
        """Return the leaves."""

    def ready(self, leaf: Any, g: Any) -> None:
        """Get the gradient of a leaf, a raw array that must not be changed. No more is added to it in this pass."""

    def progress(self) -> None:
        """Go on with what was started. It is called after each node of the pass, so it must be quick."""

    def finished(self) -> None:
        """Act after the pass, when ``grad`` of all leaves is set."""


gradient_observers: dict[int, weakref.ref[Any]] = {}
"""The observers of this process that still exist, by their id. A pass asks those with a leaf in its graph."""


def add_observer(observer: GradientObserver) -> None:
    """Ask an observer in each backward pass, as long as something else refers to it."""
    key = id(observer)
    gradient_observers[key] = weakref.ref(observer, lambda reference: gradient_observers.pop(key, None))


def observe(step: Callable[..., None], order: Iterable[Any], grads: dict[Any, Any]) -> Callable[..., None]:
    """Return the step of a backward pass that also tells the observers. order: the nodes in the order of the pass.

    The gradient of a leaf is complete after the last node that uses it. A leaf with hooks is left to ``finished``,
    because its hooks run at the end of the pass.
    """
    active = active_observers()
    owners = {leaf: each for each in active for leaf in each.leaves}
    last: dict[Any, Node] = {}
    for node in order:
        for edge in node.edges:
            if edge in owners:
                last[edge] = node
    if not last:
        return step
    active = [each for each in active if not last.keys().isdisjoint(each.leaves)]
    complete: dict[Node, list[Any]] = {}
    for leaf, node in last.items():
        if not leaf.hooks:
            complete.setdefault(node, []).append(leaf)

    def observed(node: Node, *args: Any) -> None:
        step(node, *args)
        for leaf in complete.get(node, ()):
            if leaf in grads:
                owners[leaf].ready(leaf, grads[leaf])
        for each in active:
            each.progress()

    return observed


def finish(leaves: Collection[Variable]) -> None:
    """Tell the observers of these leaves that the pass is over."""
    for each in active_observers():
        if not each.leaves.isdisjoint(leaves):
            each.finished()


def active_observers() -> list[Any]:
    """Return the observers that want to know gradients now."""
    existing = [reference() for reference in list(gradient_observers.values())]
    return [each for each in existing if each is not None and each.active]
