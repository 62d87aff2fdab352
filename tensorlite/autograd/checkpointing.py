"""Activation checkpointing: compute saved values again in the backward pass instead of keeping them.

Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import zip_longest
from typing import Any, ParamSpec, TypeVar

from ..errors import GraphError
from ..pytree import tree_leaves
from .autocast_mode import keep_autocast
from .fingerprint import fingerprint, is_same
from .grad_mode import enable_grad, is_grad_enabled
from .graph import Node, Output, RecomputedValues, Variable, topological_order
from .random_sources import RandomSources
from .version_counter import changed_between, check_saved, clock

__all__ = ["checkpoint"]

P = ParamSpec("P")
R = TypeVar("R")


class CheckpointedRegion(RecomputedValues):
    """The nodes that one call of f recorded, without their saved values.

    f, args, kwargs: the call. sources: the random generators before it. start: the tick before it. in_autocast: what
        calls a function in the autocast mode of the call.
    nodes: the nodes that it recorded, newest first. results: the fingerprints of its results.
    """

    def __init__(
        self, f: Callable[..., Any], args: Any, kwargs: Any, sources: RandomSources, start: int, nodes: list[Node],
        results: list[Any],
    ) -> None:  # fmt: skip
        self.f, self.args, self.kwargs, self.sources = f, args, kwargs, sources
        self.start, self.nodes, self.results = start, nodes, results
        self.in_autocast = keep_autocast()
        self.filling = threading.RLock()  # because two threads may go back through one graph

    def fill(self) -> None:
        """Call f again, and move the values that its ops save to the nodes of the first call.

        Raises VersionError if an argument was changed in place since, GraphError if f did other ops or gave another
        result.
        """
        with self.filling:
            if any(node.saved is self for node in self.nodes):
                self.call_again()

    def call_again(self) -> None:
        """Do the work of :meth:`fill`."""
        given = [t.array for t in _tensors([*self.args, self.kwargs])]
        check_saved("checkpoint", self.start, [f"args[{k}]" for k in range(len(given))], given)
        start = clock()
        with self.sources.replayed(), enable_grad():  # so that dropout drops the same entries
            result = self.in_autocast(lambda: self.f(*self.args, **self.kwargs))
        twins = _recorded(result, start)
        first_ops, second_ops = ([f"{n.name} of {n.shapes}" for n in nodes] for nodes in (self.nodes, twins))
        if first_ops != second_ops:
            pairs = zip_longest(second_ops[::-1], first_ops[::-1], fillvalue="nothing")
            got, expected = next((a, b) for a, b in pairs if a != b)
            raise GraphError(
                f"checkpoint: expected the second call of {_name(self.f)} to do {expected}, got {got}. Make it depend "
                f"on its arguments and on parameters alone."
            )
        if not all(map(is_same, self.results, map(fingerprint, _arrays(result)))):
            raise GraphError(
                f"checkpoint: the second call of {_name(self.f)} gave another result than the first, so its gradient "
                f"would be wrong. It depends on something that changed in between: a value that it closes over, or "
                f"random numbers that are not replayed. Pass generators as arguments, give each thread its own, or "
                f"draw before the checkpoint."
            )
        node_of = dict(zip(twins, self.nodes, strict=True))
        for inner in {n.saved for n in twins if isinstance(n.saved, CheckpointedRegion)}:
            inner.nodes = [node_of.get(n, n) for n in inner.nodes]  # so that a checkpoint inside f fills these nodes
        for node, twin in zip(self.nodes, twins, strict=True):
            if node.saved is self:
                # Values that f itself changed in place before saving them have ticks of this second call, which are
                # later than the node's own. A copy has no ticks. Values changed later stay, and are found to be stale.
                node.saved = tuple(v.copy() if changed_between(v, start, twin.seq) else v for v in twin.saved) if (
                    isinstance(twin.saved, tuple)
                ) else twin.saved  # fmt: skip


def _name(f: Callable[..., Any]) -> str:
    """Return the name of a function, or of the class of another callable."""
    return getattr(f, "__name__", type(f).__name__)


def _tensors(tree: Any) -> list[Variable]:
    """Return the Variables among the leaves of a tree."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Variable)]


def _arrays(tree: Any) -> list[Any]:
    """Return the raw arrays of the Variables in a tree that are not empty."""
    return [t.array for t in _tensors(tree) if t.array.size]


def _recorded(result: Any, start: int) -> list[Node]:
    """Return the nodes made since tick ``start`` that lead to the result, newest first."""
    roots = [t.node for t in _tensors(result) if t.node is not None and t.node.seq >= start]
    return [n for n in topological_order(roots, start) if type(n) is not Output]


def checkpoint(f: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return ``f(*args, **kwargs)`` without keeping the values that its ops save (activation checkpointing).

    The backward pass calls f again to compute the saved values. This trades time for memory. It saves no file; for
    that see :func:`tensorlite.save`.

    f: a function that returns a Tensor, or a nested tuple, list or dict of Tensors. It must do the same ops when it is
        called again. Parameters that f uses get their gradients, also with ``create_graph``.

    Random numbers are replayed. That holds for the default generator, for NumPy's and Python's global ones, and for
    every generator of these libraries that f reaches through its arguments, its closure, global names or attributes.

    Raises TypeError if f returns no Tensor. In the backward pass, raises GraphError if the second call did other ops
    or gave another result, and VersionError if an argument was changed in place.
    """
    if not callable(f):
        raise TypeError(f"checkpoint: expected a function, got {type(f).__name__}. To save tensors, use tl.save().")
    if not is_grad_enabled():
        return f(*args, **kwargs)
    sources, start = RandomSources(f, args, kwargs), clock()
    result = f(*args, **kwargs)
    sources.drop_unused()
    if not _tensors(result):
        raise TypeError(
            f"checkpoint: {_name(f)} must return a Tensor, or a tuple, list or dict of Tensors, got "
            f"{type(result).__name__}"
        )
    nodes = _recorded(result, start)
    region = CheckpointedRegion(f, args, kwargs, sources, start, nodes, [fingerprint(a) for a in _arrays(result)])
    for node in nodes:
        if node.saved:
            node.saved = region
    return result
