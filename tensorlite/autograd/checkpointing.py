"""Activation checkpointing: trade the memory of saved values for computing them again in the backward pass.

Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any, ParamSpec, TypeVar

from .. import random
from ..errors import GraphError
from ..pytree import tree_leaves
from .grad_mode import enable_grad, is_grad_enabled
from .graph import Node, Output, RecomputedValues, Variable, topological_order
from .version_counter import changed_between, check_saved, clock

__all__ = ["checkpoint"]

P = ParamSpec("P")
R = TypeVar("R")


class CheckpointedRegion(RecomputedValues):
    """The nodes that one call of f recorded, whose saved values come back when the first of them is needed."""

    def __init__(
        self, f: Callable[..., Any], args: Any, kwargs: Any, state: Any, start: int, nodes: list[Node]
    ) -> None:
        self.f, self.args, self.kwargs, self.state, self.start, self.nodes = f, args, kwargs, state, start, nodes

    def fill(self) -> None:
        given = [t.array for t in _tensors([*self.args, self.kwargs])]
        check_saved("checkpoint", self.start, [f"args[{k}]" for k in range(len(given))], given)
        now, start = random.get_rng_state(), clock()
        random.set_rng_state(self.state)  # dropout drops the same entries again
        try:
            with enable_grad():
                again = _recorded(self.f(*self.args, **self.kwargs), start)
        finally:
            random.set_rng_state(now)
        now_did, first_did = ([f"{n.name} of {n.shapes}" for n in nodes] for nodes in (again, self.nodes))
        if now_did != first_did:
            a, b = next(ab for ab in zip_longest(now_did[::-1], first_did[::-1], fillvalue="nothing") if ab[0] != ab[1])
            raise GraphError(
                f"checkpoint: {_name(self.f)} did other ops, or on other shapes, when it was run again: {a} instead of "
                f"{b}; it must depend on arguments and parameters alone"
            )
        first = dict(zip(again, self.nodes, strict=True))
        for inner in {n.saved for n in again if isinstance(n.saved, CheckpointedRegion)}:
            inner.nodes = [first.get(n, n) for n in inner.nodes]  # of a checkpoint in f: it will fill our nodes
        for node, twin in zip(self.nodes, again, strict=True):
            if node.saved is self:
                # What f itself has changed in place carries ticks of this second run, later than the node's own: a
                # copy carries none. What was changed after its node had saved it stays, and is found to be stale.
                node.saved = [v.copy() if changed_between(v, start, twin.seq) else v for v in twin.saved] if (
                    isinstance(twin.saved, list)
                ) else twin.saved  # fmt: skip


def _name(f: Callable[..., Any]) -> str:
    return getattr(f, "__name__", type(f).__name__)


def _tensors(tree: Any) -> list[Variable]:
    """Return the Variables among the leaves of a tree."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Variable)]


def _recorded(result: Any, start: int) -> list[Node]:
    """The nodes since tick ``start`` that lead to the result, newest first."""
    roots = [t.node for t in _tensors(result) if t.node is not None and t.node.seq >= start]
    return [n for n in topological_order(roots, start) if type(n) is not Output]


def checkpoint(f: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """``f(*args, **kwargs)``, keeping nothing of what its ops save: the backward pass runs f again to have it back.

    f returns a Tensor, or a (nested) tuple, list or dict of Tensors. It must do the same when it is run again; random
    numbers are replayed, and parameters that it uses get their gradients. Works under ``create_graph`` as well.
    Raises TypeError if f returns no Tensor; in the backward pass GraphError if the second run did other ops, and
    VersionError if an argument has changed.
    """
    if not callable(f):
        raise TypeError(f"checkpoint: expected a function, got {type(f).__name__}")
    if not is_grad_enabled():
        return f(*args, **kwargs)
    state, start = random.get_rng_state(), clock()
    result = f(*args, **kwargs)
    if not _tensors(result):
        raise TypeError(
            f"checkpoint: {_name(f)} must return a Tensor, or a tuple, list or dict of Tensors, got "
            f"{type(result).__name__}"
        )
    nodes = _recorded(result, start)
    region = CheckpointedRegion(f, args, kwargs, state, start, nodes)
    for node in nodes:
        if node.saved:
            node.saved = region
    return result
