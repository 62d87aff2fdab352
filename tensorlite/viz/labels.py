"""What a program calls the vertices of a graph, and what recordings know of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..autograd.graph import Edge, Variable
from ..backends.registry import BACKENDS, Array
from .graph import Graph, Vertex
from .names import find_names
from .op_recording import Record, recording

__all__ = ["Labels"]


class Labels:
    """The names, modules, times, lines and recorded values of the vertices of a graph.

    graph: the graph. root: the tensor that is explored. origin: for nodes that are copies the originals.
    model, variables: those that give names; see :func:`find_names`.
    recordings: what recorded the ops; the first one that knows an op counts.
    """

    def __init__(
        self,
        graph: Graph,
        root: Variable,
        *,
        origin: Mapping[Edge, Edge],
        model: Any = None,
        variables: Mapping[str, Any] | None = None,
        recordings: Sequence[recording] = (),
    ) -> None:
        self._origin, self._recordings = origin, recordings
        nodes = [v.node for v in graph.ops if v.node is not None and v.order == 1]
        first = recordings[0] if recordings else None
        self._names = find_names(nodes, model=model, variables=variables, recording=first)
        self.title = self._names.name(root.node or root) or _op_title(root)
        self.modules = self._names.modules
        self.notes = [note for r in recordings for note in r.notes]

    def name(self, vertex: Vertex) -> str:
        """Return the name of the variable or parameter, or an empty string."""
        place = vertex.node or vertex.leaf
        if place is None:
            return self._names.array_name(vertex.array)
        return self._names.name(self._origin.get(place, place))

    def module(self, vertex: Vertex) -> int | None:
        """Return the id of the module that called the op or that holds the parameter.

        An op that computes a gradient belongs where the op with that gradient rule does.
        """
        while vertex.of is not None:
            vertex = vertex.of
        place = vertex.node or vertex.leaf
        return None if place is None else self._names.module(place)

    def record(self, vertex: Vertex) -> Record | None:
        """Return the record of the call of an op, None if it was not recorded."""
        if vertex.node is None:
            return None
        return next((found for r in self._recordings if (found := r.of(vertex.node)) is not None), None)

    def value(self, vertex: Vertex) -> Array | None:
        """Return the value of a vertex at the time of the call, if it was recorded."""
        if vertex.node is None or vertex.node.outputs:
            return None
        found = next((found for r in self._recordings if (found := r.value(vertex.node)) is not None), None)
        return found if found is None or type(found) in BACKENDS else np.asarray(found)

    def line(self, vertex: Vertex) -> str | None:
        """Return the line of the program that called the op."""
        record = self.record(vertex)
        if record is not None and record.line is not None:
            return record.line
        return vertex.node.where if vertex.node is not None else None

    def seconds(self, vertex: Vertex) -> float | None:
        """Return the time of the op's call, in seconds."""
        record = self.record(vertex)
        return None if record is None or vertex.kind == "output" else record.seconds


def _op_title(root: Variable) -> str:
    return "a leaf" if root.node is None else f"the result of {root.node.name}"
