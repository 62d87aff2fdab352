"""The graph of a tensor together with the graph of its gradients."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from ..autograd.engine import run_backward
from ..autograd.graph import Edge, Variable, attach, wrap
from ..autograd.random_sources import RandomSources
from ..backends.registry import BACKENDS
from .backward import copy_graph, user_functions
from .graph import Graph, build_graph
from .op_recording import recording

__all__ = ["with_gradients"]


def with_gradients(graph: Graph, root: Variable) -> tuple[Graph, list[Variable], dict[Edge, Edge], recording]:
    """Return the graph of the gradients of a tensor and of the tensor itself, on a copy of its nodes.

    The second result are the roots: the copy of the tensor, and the gradients that depend on something. The third maps
    the nodes and leaves of the copy to the originals. The fourth recorded the gradients.
    """
    copies = copy_graph(graph)
    origin = {copy: original for original, copy in copies.items()}
    edge: Any = copies[root.node or root]
    copy = edge if isinstance(edge, Variable) else attach(root.array, edge)
    seed = wrap(BACKENDS[type(root.array)].ones_like(root.array))
    recorded = recording()
    recorded.start({})
    functions = user_functions(graph)
    try:
        with RandomSources(*functions).replayed() if functions else nullcontext():
            found = run_backward({edge: seed}, True, True, None)
    finally:
        recorded.__exit__()
    gradients = [g for leaf, g in found.items() if isinstance(leaf, Variable) and isinstance(g, Variable) and g.tracked]
    return build_graph([copy, *gradients]), [copy, *gradients], origin, recorded
