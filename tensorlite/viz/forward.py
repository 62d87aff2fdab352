"""The result of each op of a graph, as far as it is known without a second forward pass.

A result is known if a tensor or an op still holds it. Otherwise the op computes it again, if all its inputs are known.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..autograd.grad_mode import no_grad
from ..autograd.graph import Node, Output, Variable, wrap
from ..autograd.op_hooks import OpHooks, set_op_hooks
from ..autograd.random_sources import RandomSources
from ..autograd.version_counter import changed_since
from ..backends.registry import BACKENDS, Array
from .graph import FREED, Graph, Vertex
from .view_changes import changed_base

__all__ = ["FROM_SHAPE", "Known", "known_results", "op_arguments"]


class Known:
    """The values of the vertices.

    arrays: the raw arrays, by vertex id. recorded: the ids of those that are copies from the forward pass.
    why_not: for every other vertex a sentence with the reason.
    changed: the number of leaves that were changed in place after an op has used them.
    """

    def __init__(self) -> None:
        self.arrays: dict[int, Array] = {}
        self.why_not: dict[int, str] = {}
        self.recorded: set[int] = set()
        self.changed = 0


def known_results(graph: Graph, roots: list[Variable], recorded: dict[int, Array] | None = None) -> Known:
    """Return the values of the vertices of a graph.

    roots: the tensors of the graph's roots. recorded: values that are known otherwise, by vertex id.
    """
    known = Known()
    known.arrays |= recorded or {}
    known.recorded |= set(known.arrays)
    for x in roots:
        vertex = graph.vertex_of[x.node or x]
        if x.node is not None and not changed_since(x.array, x.node.seq):
            known.arrays.setdefault(vertex.id, x.array)
    _take_saved(graph, known)
    users = [(a.source.leaf, a.target.node) for a in graph.arrows if a.source.leaf is not None]
    known.changed = len({id(x) for x, n in users if x is not None and n is not None and changed_since(x.array, n.seq)})
    before = set_op_hooks(OpHooks())
    try:
        with no_grad():
            for vertex in graph.vertices:
                if vertex.id not in known.arrays:
                    _find(graph, vertex, known)
    finally:
        set_op_hooks(before)
    return known


def _take_saved(graph: Graph, known: Known) -> None:
    """Take the results that an op or one of its consumers has saved."""
    for vertex in graph.ops:
        node = vertex.node
        assert node is not None
        for value, k in zip(vertex.saved or (), node.plan.saved_edges if vertex.saved else (), strict=True):
            if k is None or type(value) not in BACKENDS or changed_since(value, node.seq):
                continue
            edge = node if k < 0 else node.edges[k]
            converted = k >= 0 and node.dtypes is not None and node.dtypes[k] != value.dtype
            if isinstance(edge, Node) and not converted:
                known.arrays.setdefault(graph.vertex_of[edge].id, value)


def _find(graph: Graph, vertex: Vertex, known: Known) -> None:
    """Find the value of a vertex, or the reason why it is not known."""
    if vertex.leaf is not None:
        known.arrays[vertex.id] = vertex.leaf.array
    elif vertex.array is not None:
        known.arrays[vertex.id] = vertex.array
    elif isinstance(vertex.node, Output):
        known.why_not[vertex.id] = known.why_not.get(graph.vertex_of[vertex.node.edges[0]].id, "No op has saved it.")
    elif vertex.node is not None:
        found = _computed_again(graph, vertex, known)
        if isinstance(found, str):
            known.why_not[vertex.id] = found
        elif vertex.node.outputs:
            known.why_not[vertex.id] = "The op has several results, which follow it."
            for output in graph.vertices[vertex.id + 1 :]:
                if isinstance(output.node, Output) and output.node.edges[0] is vertex.node:
                    known.arrays.setdefault(output.id, found[output.node.index].array)
        else:
            known.arrays[vertex.id] = found.array


def _split_sizes(vertex: Vertex, given: dict[str, Any]) -> Any:
    """Return the sizes of the parts that an op cuts its input into, or of the one part."""
    assert vertex.node is not None
    if not vertex.node.outputs:
        return vertex.shape
    return [shape[given.get("dim", 0)] for shape, _ in vertex.node.outputs]


FROM_SHAPE: dict[str, Callable[[Vertex, dict[str, Any]], Any]] = {
    "shape": lambda vertex, given: vertex.shape,
    "keepdim": lambda vertex, given: vertex.node is not None and len(vertex.shape or ()) == len(vertex.node.shapes[0]),
    "sizes": _split_sizes,
    "dtype": lambda vertex, given: vertex.dtype,
}
"""The arguments that only decide the shape or dtype of the result: what they were, from what is known."""


def op_arguments(graph: Graph, vertex: Vertex, known: Known, assume: bool = False) -> list[Any] | str:
    """Return the arguments of the op call that made a vertex, arrays as Tensors; or the reason why one is unknown.

    assume: whether to give an argument that no rule names its default, or zeros. The derivatives are the same.
    """
    node = vertex.node
    assert node is not None
    plan = node.plan
    if plan.op is None:
        return "The engine made this node, which passes a gradient on to the place of a saved value."
    given: dict[int, Any] = {}
    for position, name, edge in zip(plan.needs, plan.input_names, node.edges, strict=True):
        source = graph.vertex_of[edge]
        if source.id not in known.arrays:
            return f"Its argument {name} is not known."
        if source.id not in known.recorded and changed_since(known.arrays[source.id], node.seq):
            return f"Its argument {name} was changed in place since."
        given[position] = wrap(known.arrays[source.id])
    for position, name, value in zip(plan.saved_positions, plan.saved_names, vertex.saved or (), strict=False):
        if name not in ("out", *plan.op.aux) and position not in given:
            if changed_since(value, node.seq):
                return f"Its argument {name} was changed in place since."
            given[position] = wrap(value) if type(value) in BACKENDS else value
    count = 1 + max(given) if plan.op.variadic else len(plan.op.names)
    names = plan.op.argument_names(count)
    for p in range(count):
        if p not in given and vertex.saved is not None and plan.built_in and vertex.shape is not None:
            by_name = {names[q]: value for q, value in given.items()}
            if names[p] in FROM_SHAPE:
                given[p] = FROM_SHAPE[names[p]](vertex, by_name)
            elif assume:
                given[p] = _assumed(vertex, p, known, given)
    missing = [p for p in range(count) if p not in given]
    if missing:
        return FREED if vertex.saved is None else f"No op has saved it, nor its argument {names[missing[0]]}."
    return [given[p] for p in range(count)]


def _assumed(vertex: Vertex, p: int, known: Known, given: dict[int, Any]) -> Any:
    """Return a value for an argument that no gradient rule names: its default, False for a flag, or zeros."""
    assert vertex.node is not None
    plan = vertex.node.plan
    default = plan.op.defaults[p] if p < len(plan.op.defaults) else inspect.Parameter.empty
    if default is not inspect.Parameter.empty:
        return default
    if p in plan.op.flags:
        return False
    like = given[plan.needs[0]].array
    shape = () if plan.op.names[p : p + 1] == ["value"] else vertex.shape  # a value broadcasts to its index
    return wrap(BACKENDS[type(like)].zeros(shape, like.dtype))


def _computed_again(graph: Graph, vertex: Vertex, known: Known) -> Any:
    """Return the result of the op, computed again, or the reason why that is not possible."""
    node = vertex.node
    assert node is not None
    if node.plan.op is None and node.dtypes is None:
        source = graph.vertex_of[node.edges[0]]
        if source.id in known.arrays:
            return wrap(known.arrays[source.id])
    arguments = op_arguments(graph, vertex, known)
    if isinstance(arguments, str):
        return arguments
    sources = None if node.plan.built_in else RandomSources(node.plan.op.forward, arguments)
    try:
        if node.plan.op_name == "with_view" and node.plan.built_in:
            base, part, steps = arguments
            found = wrap(changed_base(base.array, part.array, steps))
        elif sources is None:
            found = node.plan.op.function(*arguments)
        else:
            with sources.replayed():
                found = node.plan.op.function(*arguments)
                if sources.drew_numbers():
                    return "The op draws random numbers, so it is not computed again."
    except Exception as error:
        return f"No op has saved it, and the op cannot be called again: {type(error).__name__}: {error}"
    results = found if isinstance(found, tuple) else (found,)
    shapes: list[tuple[int, ...] | None] = [shape for shape, _ in node.outputs] or [vertex.shape]
    for result, shape in zip(results, shapes, strict=False):
        if not isinstance(result, Variable) or (shape is not None and tuple(result.array.shape) != tuple(shape)):
            return "No op has saved it."
    return found
