"""Gradients of tensors that are not leaves, which ``retain_grad()`` asks for."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from .shared_state import shared_state

__all__ = ["RetainHook", "set_node"]


class RetainHook:
    """The hook that fills the ``grad`` of a tensor, as the last hook of its node.

    x: the tensor, which the hook does not keep alive. accumulate: a function that adds a gradient to ``x.grad``.
    """

    def __init__(self, x: Any, accumulate: Callable[[Any, Any], None]) -> None:
        self.tensor, self.accumulate = weakref.ref(x), accumulate

    def __call__(self, g: Any) -> None:
        x = self.tensor()
        if x is not None:
            self.accumulate(x, g if g.tracked else g.array.copy())


def set_node(x: Any, node: Any) -> None:
    """Give x a new place in the graph, after a change in place. Its retain hook, if it has one, goes with it.

    Other hooks stay with the node of the old value, as in PyTorch.
    """
    hook = x.retain_hook
    if hook is None:
        x.node, x.tracked = node, True
        return
    with shared_state:
        if x.node is not None and hook in (x.node.hooks or ()):
            x.node.hooks.remove(hook)
        node.hooks = [*(node.hooks or ()), hook]
        x.node, x.tracked = node, True
