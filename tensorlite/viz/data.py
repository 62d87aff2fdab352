"""The data of the explorer: what :mod:`tensorlite.viz` describes, as lists and dicts that JSON can hold."""

from __future__ import annotations

from typing import Any

from ..autograd.graph import Output
from ..autograd.version_counter import base_array
from ..backends.registry import BACKENDS
from ..nn.parameter import Parameter
from .backward import Contribution, Step, Trace
from .forward import Known
from .graph import Graph, Vertex
from .sources import rule_source
from .values import ValueTable, device_name

__all__ = ["DataWriter", "freed_values"]

VERSION = 1


class DataWriter:
    """Writes a graph, its values and its backward pass as the explorer's data."""

    def __init__(self, graph: Graph, known: Known, trace: Trace) -> None:
        self.graph, self.known, self.trace = graph, known, trace
        self.values = ValueTable()
        self.sources: list[dict[str, Any]] = []
        self._source_at: dict[Any, int] = {}
        self._seen_uses: dict[int, int] = {}
        self._uses: dict[int, int] = {}
        for arrow in graph.arrows:
            if arrow.place is not None:
                self._uses[arrow.source.id] = self._uses.get(arrow.source.id, 0) + 1
        self.freed = freed_values(graph, trace.steps)
        self.notes = list(graph.notes)

    def data(self, title: str) -> dict[str, Any]:
        """Return the data."""
        nodes = [self.vertex(v) for v in self.graph.vertices]
        return {
            "version": VERSION,
            "title": title,
            "notes": self.notes,
            "modules": [],
            "nodes": nodes,
            "edges": [
                {"id": a.id, "from": a.source.id, "to": a.target.id, "argument": a.argument, "position": a.position}
                for a in self.graph.arrows
            ],
            "forward": [v.id for v in self.graph.vertices],
            "backward": [self.step(s) for s in self.trace.steps],
            "gradients": [{"node": k, "value": self.values.add(g)} for k, g in self.trace.gradients.items()],
            "checks": [],
            "sources": self.sources,
            "values": self.values.entries,
        }

    def vertex(self, v: Vertex) -> dict[str, Any]:
        """Return the entry of a vertex."""
        array = self.known.arrays.get(v.id)
        if array is not None:
            v.shape, v.dtype = tuple(array.shape), array.dtype
        size = 1
        for n in v.shape or ():
            size *= n
        kind = "parameter" if isinstance(v.leaf, Parameter) else v.kind
        return {
            "id": v.id, "kind": kind, "op": v.name, "name": "", "module": None,
            "shape": None if v.shape is None else list(v.shape), "dtype": None if v.dtype is None else str(v.dtype),
            "device": None if array is None else device_name(array),
            "bytes": None if v.shape is None or v.dtype is None else size * v.dtype.itemsize,
            "seconds": None, "line": None if v.node is None else v.node.where,
            "value": self.values.add(array), "why_no_value": self.known.why_not.get(v.id),
            "root": v in self.graph.roots, "order": 1, "of": None, "doc": _doc(v), "saved": self.saved(v),
        }  # fmt: skip

    def saved(self, v: Vertex) -> list[dict[str, Any]]:
        """Return the entries of the values that an op has saved."""
        node = v.node
        if node is None or isinstance(node, Output) or not v.saved:
            return []
        entries = []
        constants = {a.argument: a.source.id for a in self.graph.arrows_to[v.id] if a.place is None}
        for name, value, k in zip(node.plan.saved_names, v.saved, node.plan.saved_edges, strict=True):
            place = self.values.add(value)
            edge = None if k is None else node if k < 0 else node.edges[k]
            entries.append({
                "name": name, "value": place, "text": None if place is not None else repr(value)[:80],
                "bytes": 0 if place is None else value.nbytes,
                "node": constants.get(name) if edge is None else self.graph.vertex_of[edge].id,
            })  # fmt: skip
        return entries

    def step(self, step: Step) -> dict[str, Any]:
        """Return the entry of a step of the backward pass."""
        freed = self.freed.get(step.vertex.id, [])
        several = isinstance(step.cotangent, list)
        cotangents = [self.values.add(g) for g in (step.cotangent if several else [step.cotangent])]
        return {
            "node": step.vertex.id, "cotangent": cotangents[0], "cotangents": cotangents if several else None,
            "seconds": step.seconds, "freed": [name for name, _ in freed], "freed_bytes": sum(b for _, b in freed),
            "error": None if step.error is None else str(step.error),
            "inputs": [self.contribution(c) for c in step.contributions],
        }  # fmt: skip

    def contribution(self, c: Contribution) -> dict[str, Any]:
        """Return the entry of what one step adds to one gradient."""
        source = c.arrow.source.id
        use = self._seen_uses[source] = self._seen_uses.get(source, 0) + 1
        return {
            "edge": c.arrow.id, "source": self.source(c), "result": self.values.add(c.result),
            "summed_dims": c.summed_dims, "sum": self.values.add(c.total) if c.summed_dims else None,
            "cast": str(c.total.dtype) if c.cast else None, "before": self.values.add(c.before),
            "after": self.values.add(c.after), "use": use, "uses": self._uses[source],
        }  # fmt: skip

    def source(self, c: Contribution) -> int:
        """Return the place of the source of the rule that a contribution comes from."""
        node = c.arrow.target.node
        assert node is not None
        assert c.arrow.place is not None
        key = id(node.plan), c.arrow.place
        if key not in self._source_at:
            found = rule_source(node.plan, c.arrow.place)
            if found not in self.sources:
                self.sources.append(found)
            self._source_at[key] = self.sources.index(found)
        return self._source_at[key]


def _doc(v: Vertex) -> str:
    if v.node is None or v.node.plan.op is None:
        return ""
    return (v.node.plan.op.forward.__doc__ or "").strip().partition("\n")[0]


def freed_values(graph: Graph, steps: list[Step]) -> dict[int, list[tuple[str, int]]]:
    """Return the names and bytes of the saved values that each step frees, by vertex id.

    Memory that several values share is freed once, by the last step that holds it. Memory of a leaf or of a root is
    not freed.
    """
    held = {id(base_array(v.leaf.array)) for v in graph.leaves if v.leaf is not None}
    last: dict[int, int] = {}
    for step in steps:
        for value in step.vertex.saved or ():
            if type(value) in BACKENDS:
                last[id(base_array(value))] = step.vertex.id
    freed: dict[int, list[tuple[str, int]]] = {}
    for step in steps:
        node = step.vertex.node
        assert node is not None
        seen: set[int] = set()
        for name, value in zip(node.plan.saved_names, step.vertex.saved or (), strict=False):
            if type(value) in BACKENDS:
                memory = base_array(value)
                if id(memory) not in held | seen and last[id(memory)] == step.vertex.id:
                    seen.add(id(memory))
                    freed.setdefault(step.vertex.id, []).append((name, int(memory.nbytes)))
    return freed
