"""The data of the explorer: what :mod:`tensorlite.viz` describes, as lists and dicts that JSON can hold."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

from ..autograd.graph import Output
from ..autograd.version_counter import base_array
from ..backends.registry import BACKENDS
from ..nn.parameter import Parameter
from .backward import Contribution, Step, Trace
from .called_functions import called_functions
from .finite_differences import EdgeCheck
from .formulas import formula_of
from .forward import FROM_SHAPE, Known
from .graph import Graph, Vertex
from .labels import Labels
from .memory import freed_values
from .sources import rule_function, source_of
from .values import ValueTable, device_name

__all__ = ["DataWriter", "shortened"]

VERSION = 1


class DataWriter:
    """Writes a graph, its values and its backward pass as the explorer's data."""

    def __init__(self, graph: Graph, known: Known, labels: Labels) -> None:
        self.graph, self.known, self.labels = graph, known, labels
        self.values = ValueTable(*_limits(graph))
        self.steps: list[dict[str, Any]] = []
        self.sources: list[dict[str, Any]] = []
        self.cotangents: dict[int, Any] = {}
        self._source_at: dict[Any, int] = {}
        self._seen_uses: dict[int, int] = {}
        self._memories: dict[int, int] = {}
        self._uses: dict[int, int] = {}
        for arrow in graph.arrows:
            if arrow.place is not None:
                self._uses[arrow.source.id] = self._uses.get(arrow.source.id, 0) + 1

    def data(self, trace: Trace, held: set[int], checks: list[EdgeCheck], notes: list[str]) -> dict[str, Any]:
        """Return the data, after ``add_step`` was called with the steps of the backward pass.

        held: the ids of arrays that are not freed; see :func:`held_elsewhere`. notes: sentences for the user.
        """
        freed = freed_values(self.graph, trace.steps, held)
        for step in self.steps:
            values = freed.get(step["node"], [])
            step |= {"freed": [name for name, _ in values], "freed_bytes": sum(n for _, n in values)}
        return {
            "version": VERSION,
            "title": self.labels.title,
            "notes": [*notes, *self.labels.notes],
            "modules": self.labels.modules,
            "nodes": [self.vertex(v, trace.hooked.get(v.id)) for v in self.graph.vertices],
            "edges": [
                {"id": a.id, "from": a.source.id, "to": a.target.id, "argument": a.argument, "position": a.position}
                for a in self.graph.arrows
            ],
            "forward": [v.id for v in self.graph.vertices],
            "backward": self.steps,
            "gradients": [{"node": k, "value": self.values.add(g)} for k, g in trace.gradients.items()],
            "checks": [self.check(c) for c in checks],
            "sources": self.sources,
            "values": self.values.entries,
        }

    def vertex(self, v: Vertex, before_hooks: Any = None) -> dict[str, Any]:
        """Return the entry of a vertex. before_hooks: the gradient that its hooks got."""
        array = self.known.arrays.get(v.id)
        seen = self.cotangents.get(v.id) if array is None else array
        if seen is not None:
            v.shape, v.dtype = tuple(seen.shape), seen.dtype
        kind = "parameter" if isinstance(v.leaf, Parameter) else v.kind
        return {
            "id": v.id, "kind": kind, "op": v.name, "name": self.labels.name(v), "module": self.labels.module(v),
            "shape": None if v.shape is None else list(v.shape), "dtype": None if v.dtype is None else str(v.dtype),
            "device": None if seen is None else device_name(seen),
            "bytes": None if v.shape is None or v.dtype is None else math.prod(v.shape) * v.dtype.itemsize,
            "seconds": self.labels.seconds(v), "line": self.labels.line(v),
            "value": self.values.add(array), "why_no_value": self.known.why_not.get(v.id),
            "root": v in self.graph.roots, "order": v.order, "of": None if v.of is None else v.of.id,
            "before_hooks": self.values.add(before_hooks), "doc": _doc(v), "saved": self.saved(v),
            "not_kept": self.not_kept(v),
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
                "bytes": 0 if place is None else value.nbytes, "memory": self.memory(value),
                "node": constants.get(name) if edge is None else self.graph.vertex_of[edge].id,
            })  # fmt: skip
        return entries

    def not_kept(self, v: Vertex) -> list[dict[str, Any]]:
        """Return the entries of the arguments of an op that no rule needs, so that the graph does not hold them."""
        plan = None if v.node is None else v.node.plan
        if plan is None or plan.op is None or isinstance(v.node, Output) or v.no_saved:
            return []
        op, record = plan.op, self.labels.record(v)
        entries: list[dict[str, Any]] = []
        for p, name in enumerate(op.names):
            has_default = p < len(op.defaults) and op.defaults[p] is not inspect.Parameter.empty
            if p in plan.needs or name in plan.saved_names or name in FROM_SHAPE or p in op.flags or has_default:
                continue
            shape = value = None
            if record is not None and p < len(record.shapes):
                shape, value = record.shapes[p], record.arguments[p]
            place = self.values.add(value) if shape is not None else None
            text = None if shape is not None or value is None else repr(value)[:80]
            size = None if shape is None else list(shape)
            entries.append({"name": name, "shape": size, "value": place, "text": text})
        return entries

    def memory(self, value: Any) -> int | None:
        """Return a number for the array that owns the memory of a saved array, None for other values."""
        if type(value) not in BACKENDS:
            return None
        return self._memories.setdefault(id(base_array(value)), len(self._memories))

    def add_step(self, step: Step) -> None:
        """Add a step of the backward pass. It tells the dtype of a result that is not known."""
        if not isinstance(step.cotangent, list):
            self.cotangents[step.vertex.id] = step.cotangent
        several = isinstance(step.cotangent, list)
        cotangents = [self.values.add(g) for g in (step.cotangent if several else [step.cotangent])]
        self.steps.append({
            "node": step.vertex.id, "cotangent": cotangents[0], "cotangents": cotangents if several else None,
            "seconds": step.seconds, "freed": [], "freed_bytes": 0,
            "error": None if step.error is None else str(step.error),
            "inputs": [self.contribution(c) | {"formula": formula_at(step, c)} for c in step.contributions],
        })  # fmt: skip

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
            rule, argument = rule_function(node.plan, c.arrow.place)
            found = {**source_of(rule), "for": argument, "calls": called_functions(rule)}
            if found not in self.sources:
                self.sources.append(found)
            self._source_at[key] = self.sources.index(found)
        return self._source_at[key]

    def check(self, c: EdgeCheck) -> dict[str, Any]:
        """Return the entry of the check of an edge."""
        return {
            "edge": c.arrow.id, "analytic": self.values.add(c.analytic), "numeric": self.values.add(c.numeric),
            "entries": c.entries, "ok": c.ok, "error": c.error, "kinks": c.kinks, "why_not": c.why_not,
        }  # fmt: skip


def formula_at(step: Step, c: Contribution) -> str | None:
    """Return what a step sends to one input as one line of code, None where there is none."""
    node, g = step.vertex.node, step.cotangent
    if node is None or c.arrow.place is None or not hasattr(g, "shape"):
        return None
    return formula_of(node, step.vertex.saved, c.arrow.place, g.shape)


def _doc(v: Vertex) -> str:
    """Return the first line of the op's docstring, with the names of the arguments that its rules use."""
    if v.node is None or v.node.plan.op is None:
        return ""
    op = v.node.plan.op
    text = (op.forward.__doc__ or "").strip().partition("\n")[0]
    for name, own in zip(("input", "other"), op.names, strict=False):
        if name not in op.names and own in ("x", "y"):
            text = re.sub(rf"(``[^`]*)\b{name}\b(?=[^`]*``)", rf"\1{own}", text)
    return text


_LIMITS = ((200, 32, 64), (800, 16, 64), (2_000, 8, 16), (math.inf, 6, 8))
"""For graphs up to a size: the largest number of rows and of columns of a heat map, and of entries as numbers."""


def _limits(graph: Graph) -> tuple[int, int]:
    """Return how much of a value is shown, so that the file of many nodes stays small."""
    return next((cells, numbers) for limit, cells, numbers in _LIMITS if graph.size <= limit)


def shortened(graph: Graph) -> str | None:
    """Return a sentence that says how little of each value is shown, None for a small graph."""
    cells, numbers = _limits(graph)
    if numbers == _LIMITS[0][2]:
        return None
    return (
        f"The graph has {len(graph.vertices):,} nodes. So that the file stays small, a value of more than {numbers} "
        f"entries is a heat map of at most {cells} rows and columns."
    )
