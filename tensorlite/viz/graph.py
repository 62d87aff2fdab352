"""The graph of a tensor as a list of vertices: ops, leaves and saved constants, oldest first."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..autograd.engine import gradient_logs
from ..autograd.graph import Edge, Node, Output, RecomputedValues, RestorableValues, Variable, topological_order
from ..backends.registry import BACKENDS, Array

__all__ = ["Arrow", "Graph", "Vertex", "build_graph", "saved_values"]


@dataclass(eq=False)
class Vertex:
    """One box of the picture.

    id: its place in ``Graph.vertices``. kind: ``"op"``, ``"output"`` (one result of an op that has several),
    ``"leaf"`` or ``"constant"`` (an array that an op has saved).
    node: the node of an op or an output. leaf: the Variable of a leaf. array: the array of a constant.
    shape, dtype: those of the result; None where they are not known.
    saved: the values that an op has saved, None if a backward pass has freed them. no_saved: why they are not known.
    recomputed: whether they were computed again, because the op is in a checkpoint.
    order: 1, or 2 for an op that computes a gradient, and so on. of: the vertex whose gradient rule called the op.
    """

    id: int
    kind: str
    node: Node | None = None
    leaf: Variable | None = None
    array: Array | None = None
    shape: tuple[int, ...] | None = None
    dtype: Any = None
    saved: tuple[Any, ...] | None = None
    no_saved: str | None = None
    recomputed: bool = False
    order: int = 1
    of: Vertex | None = None

    @property
    def name(self) -> str:
        """Return the name of the op, or an empty string."""
        if self.node is None:
            return ""
        return f"{self.node.name}[{self.node.index}]" if isinstance(self.node, Output) else self.node.name


@dataclass(eq=False)
class Arrow:
    """An edge of the picture, from the vertex of an input to the vertex of the op that uses it.

    argument: the name of the op's argument. position: its place among the op's arguments.
    place: its place among the edges of the node, None for a constant.
    """

    id: int
    source: Vertex
    target: Vertex
    argument: str
    position: int
    place: int | None


@dataclass(eq=False)
class Graph:
    """The vertices and edges that lead to the roots.

    vertices: oldest first, so that every edge leads from an earlier to a later one. roots: the vertices of the tensors.
    vertex_of: the vertex of each node and leaf. arrows_to: the edges to each vertex, by its id, by position.
    outputs_of: the vertices of the results of an op that has several, by the id of its vertex.
    """

    vertices: list[Vertex] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    roots: list[Vertex] = field(default_factory=list)
    vertex_of: dict[Edge, Vertex] = field(default_factory=dict)
    arrows_to: dict[int, list[Arrow]] = field(default_factory=dict)
    outputs_of: dict[int, list[Vertex]] = field(default_factory=dict)

    @property
    def ops(self) -> list[Vertex]:
        """Return the vertices of ops and of their outputs, oldest first."""
        return [v for v in self.vertices if v.node is not None]

    @property
    def size(self) -> int:
        """Return the mean of the numbers of vertices and of edges: a page's size depends on both."""
        return (len(self.vertices) + len(self.arrows)) // 2

    @property
    def leaves(self) -> list[Vertex]:
        """Return the vertices of leaves."""
        return [v for v in self.vertices if v.leaf is not None]


def saved_values(node: Node) -> tuple[Any, ...] | None:
    """Return the saved values of a node, None if a backward pass has freed them.

    Values of a checkpointed region are computed again; the region's nodes hold its placeholder afterwards, as before.
    """
    held: dict[Node, Any] = {}
    saved = node.saved
    try:
        while isinstance(saved, RecomputedValues):
            held |= {n: n.saved for n in getattr(saved, "nodes", [node]) if n not in held}
            saved.fill()
            saved = node.saved
        return saved.restore() if isinstance(saved, RestorableValues) else saved
    finally:
        for n, placeholder in held.items():
            n.saved = placeholder


FREED = "A backward pass has freed the saved values of this op."


def build_graph(roots: Sequence[Variable]) -> Graph:
    """Return the graph of some tensors."""
    graph = Graph()
    constants: dict[int, Vertex] = {}
    edges = [x.node or x for x in roots]
    for edge in edges:
        if isinstance(edge, Variable):
            _leaf_vertex(graph, edge)
    for node in reversed(topological_order(edges)):
        for edge in node.edges:
            if isinstance(edge, Variable):
                _leaf_vertex(graph, edge)
        values: tuple[Any, ...] | None = None
        why: str | None = None
        if isinstance(node, Output):
            values = ()
        else:
            try:
                values = saved_values(node)
            except Exception as error:  # the function of a checkpoint may raise any error
                why = f"The values of its checkpoint cannot be computed again: {error}"
        if values is None:
            why = why or FREED
        _add_constants(graph, node, values, constants)
        kind = "output" if isinstance(node, Output) else "op"
        again = isinstance(node.saved, RecomputedValues)
        vertex = Vertex(len(graph.vertices), kind, node=node, saved=values, no_saved=why, recomputed=again)
        graph.vertex_of[node] = _add(graph, vertex)
        _add_arrows(graph, vertex, constants)
        if isinstance(node, Output):
            graph.outputs_of.setdefault(graph.vertex_of[node.edges[0]].id, []).append(vertex)
    _note_shapes(graph)
    _find_orders(graph)
    for x, edge in zip(roots, edges, strict=True):
        vertex = graph.vertex_of[edge]
        vertex.shape, vertex.dtype = tuple(x.array.shape), x.array.dtype
        if vertex not in graph.roots:
            graph.roots.append(vertex)
    return graph


def _add(graph: Graph, vertex: Vertex) -> Vertex:
    graph.vertices.append(vertex)
    return vertex


def _leaf_vertex(graph: Graph, leaf: Variable) -> None:
    """Add the vertex of a leaf, unless the graph has it."""
    if leaf not in graph.vertex_of:
        shape, dtype = tuple(leaf.array.shape), leaf.array.dtype
        graph.vertex_of[leaf] = _add(graph, Vertex(len(graph.vertices), "leaf", leaf=leaf, shape=shape, dtype=dtype))


def _constant_arguments(node: Node, values: tuple[Any, ...] | None) -> Iterable[tuple[int, str, Array]]:
    """Return position, name and value of the arguments that the node has saved as arrays without a gradient."""
    plan = node.plan
    if not values or plan.op is None:
        return
    results = ("out", *plan.op.aux)
    for position, name, place, value in zip(
        plan.saved_positions, plan.saved_names, plan.saved_edges, values, strict=True
    ):
        if place is None and name not in results and type(value) in BACKENDS:
            yield position, name, value


def _add_constants(graph: Graph, node: Node, values: tuple[Any, ...] | None, constants: dict[int, Vertex]) -> None:
    for _, _, value in _constant_arguments(node, values):
        if id(value) not in constants:
            vertex = Vertex(len(graph.vertices), "constant", array=value, shape=tuple(value.shape), dtype=value.dtype)
            constants[id(value)] = _add(graph, vertex)


def _add_arrows(graph: Graph, vertex: Vertex, constants: dict[int, Vertex]) -> None:
    """Add the edges that lead to the vertex of a node, by position."""
    node = vertex.node
    assert node is not None
    plan = node.plan
    found: list[tuple[int, str, Vertex, int | None]]
    if isinstance(node, Output):
        found = [(node.index, f"output {node.index}", graph.vertex_of[node.edges[0]], 0)]
    else:
        found = [
            (position, name, graph.vertex_of[edge], k)
            for k, (position, name, edge) in enumerate(zip(plan.needs, plan.input_names, node.edges, strict=True))
        ]
        found += [(p, name, constants[id(a)], None) for p, name, a in _constant_arguments(node, vertex.saved)]
    arrows = graph.arrows_to[vertex.id] = []
    for position, name, source, place in sorted(found, key=lambda entry: entry[0]):
        arrow = Arrow(len(graph.arrows), source, vertex, name, position, place)
        graph.arrows.append(arrow)
        arrows.append(arrow)


def _note_shapes(graph: Graph) -> None:
    """Give each vertex of an op the shape and dtype of its result, as far as its uses tell them."""
    for vertex in graph.ops:
        node = vertex.node
        assert node is not None
        if isinstance(node, Output):
            parent = node.edges[0]
            assert isinstance(parent, Node)
            vertex.shape, vertex.dtype = parent.outputs[node.index]
            continue
        for k, edge in enumerate(node.edges):
            source = graph.vertex_of[edge]
            if source.kind == "op":
                source.shape = tuple(node.shapes[k])
                source.dtype = node.dtypes[k] if node.dtypes is not None else source.dtype
        if node.outputs:
            vertex.shape, vertex.dtype = node.outputs[0]
        elif vertex.saved and -1 in node.plan.saved_edges:
            out = vertex.saved[node.plan.saved_edges.index(-1)]
            vertex.shape, vertex.dtype = tuple(out.shape), out.dtype


def _find_orders(graph: Graph) -> None:
    """Find the op whose gradient rule called each op, by the logs of the engine.

    An op of a pass that visited ops of order n has order n + 1, also if those are not in the graph.
    """
    logs = sorted((log[0], list(log)) for log in list(gradient_logs) if log)
    starts = [start for start, _ in logs]
    steps = [log[: len(log) // 2 * 2 : 2] for _, log in logs]
    orders: list[int] = []

    def place(tick: int) -> int | None:
        """Return the place of the pass that made the node of this tick, None for a forward pass."""
        k = bisect_right(starts, tick) - 1
        return k if k >= 0 and (len(logs[k][1]) % 2 == 0 or tick <= logs[k][1][-1]) else None

    for _, log in logs:
        visited = {place(tick) for tick in log[1::2]}
        orders.append(1 + max((1 if k is None or k >= len(orders) else orders[k] for k in visited), default=1))
    vertex_at = {v.node.seq: v for v in graph.ops if v.node is not None}
    for tick, vertex in vertex_at.items():
        k = place(tick)
        if k is not None:
            step = bisect_right(steps[k], tick) - 1
            vertex.order, vertex.of = orders[k], vertex_at.get(logs[k][1][2 * step + 1])
