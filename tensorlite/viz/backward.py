"""The backward pass of a graph, step by step, on a copy of its nodes.

The engine itself does the pass. Each node of the copy has a plan whose rules note what they return. The rules, the
saved values and the order of the sums are the graph's own, so the gradients are those of ``backward()``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from ..autograd.engine import run_backward
from ..autograd.graph import Edge, Node, Output, Value, Variable, wrap
from ..autograd.op_hooks import OpHooks, set_op_hooks
from ..autograd.random_sources import RandomSources
from ..autograd.retained_grad import RetainHook
from .graph import Arrow, Graph, Vertex

__all__ = ["Contribution", "Step", "Trace", "copy_graph", "trace_backward", "user_functions"]


@dataclass
class Contribution:
    """What one step adds to the gradient of one input.

    arrow: the edge to that input. result: what the rule returned, perhaps with broadcast dimensions.
    summed_dims: those that the engine summed over. total: the result after that sum, in the input's dtype.
    cast: whether the engine converted the dtype. before: the gradient from earlier steps, None if there was none.
    after: the sum of both.
    """

    arrow: Arrow
    result: Value
    summed_dims: list[int]
    total: Value
    cast: bool
    before: Value
    after: Value


@dataclass
class Step:
    """One step of the backward pass: the gradient rules of one node.

    vertex: that of the node. cotangent: the gradient of its result, a list with one for each result of an op that has
    several. seconds: the time of its rules. contributions: what goes to each input. error: why there are none.
    """

    vertex: Vertex
    cotangent: Value
    seconds: float = 0.0
    contributions: list[Contribution] = field(default_factory=list)
    error: Exception | None = None


@dataclass
class Trace:
    """A backward pass.

    steps: in the order of the engine. gradients: those of the leaves, by vertex id.
    incomplete: the ids of vertices whose gradient lacks a part, because a step before them failed.
    hooked: for a vertex id the gradient before its hooks changed it. error: why the pass ended early.
    """

    steps: list[Step] = field(default_factory=list)
    gradients: dict[int, Value] = field(default_factory=dict)
    incomplete: set[int] = field(default_factory=set)
    hooked: dict[int, Value] = field(default_factory=dict)
    error: Exception | None = None


class _Contributions(dict[Any, Any]):
    """A dict that the engine's step adds gradients to, which keeps each one apart in ``parts``."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[tuple[Edge, Value]] = []

    def get(self, key: Any, default: Any = None) -> Any:
        return default

    def __setitem__(self, edge: Any, d: Value) -> None:
        self.parts.append((edge, d))


def copy_graph(graph: Graph, on_hook: Callable[[Vertex, Value], None] | None = None) -> dict[Edge, Edge]:
    """Return a copy of each node of a graph, and with ``on_hook`` of each leaf, by the original. Arrays are shared.

    The hooks are the same, without those that fill ``.grad``. on_hook: called with the vertex and the gradient that
    its hooks get.
    """
    copies: dict[Edge, Edge] = {}
    for vertex in graph.vertices:
        copy: Any
        if vertex.leaf is not None:
            original: Any = vertex.leaf
            if on_hook is None:
                copies[original] = original
                continue
            copy = wrap(vertex.leaf.array)
            copy.tracked = True
        elif vertex.node is not None:
            original = node = vertex.node
            edges = [copies[e] for e in node.edges]
            copy = object.__new__(type(node))
            copy.plan, copy.edges, copy.shapes, copy.saved = node.plan, edges, node.shapes, vertex.saved
            copy.seq, copy.dtypes, copy.outputs, copy.where = node.seq, node.dtypes, node.outputs, node.where
            copy.infinite = node.infinite
            if isinstance(node, Output):
                copy.index = node.index
        else:
            continue
        hooks = [h for h in original.hooks or () if not isinstance(h, RetainHook)]
        if hooks:
            copy.hooks = hooks if on_hook is None else [_noting(on_hook, vertex), *hooks]
        copies[original] = copy
    return copies


def _noting(on_hook: Callable[[Vertex, Value], None], vertex: Vertex) -> Callable[[Any], None]:
    return lambda g: on_hook(vertex, g.array)


def trace_backward(
    graph: Graph, seeds: dict[Vertex, Value], on_step: Callable[[Step], None] | None = None
) -> Trace:  # fmt: skip
    """Return the backward pass of a graph. Nothing that the graph holds changes, and no ``.grad``.

    seeds: the gradients of the roots, as raw arrays.
    on_step: called with each step. The steps of the result then have no gradients, so that their memory is free.
    """
    trace = Trace()
    finish = (lambda step: None) if on_step is None else _finishing(on_step)
    copies = copy_graph(graph, lambda vertex, g: trace.hooked.__setitem__(vertex.id, g))
    vertex_of = {copies[original]: vertex for original, vertex in graph.vertex_of.items()}

    reached = {v.id for v in seeds}

    def fail(vertex: Vertex) -> None:
        trace.incomplete.update(a.source.id for a in graph.arrows_to[vertex.id] if a.place is not None)

    def visit(run: Callable[..., Any], node: Node, g: Value, create_graph: bool, needed: Any, grads: Any) -> None:
        vertex = vertex_of[node]
        outputs = graph.outputs_of.get(vertex.id, [])
        if vertex.id in trace.incomplete or any(v.id in trace.incomplete for v in outputs):
            trace.incomplete.add(vertex.id)
            fail(vertex)
            return
        for output in outputs:
            if isinstance(output.node, Output) and output.id in reached:
                trace.steps.append(_step_of_output(graph, output, g[output.node.index]))
                finish(trace.steps[-1])
        step = Step(vertex, list(g) if isinstance(g, tuple) else g)
        trace.steps.append(step)
        results: list[Value] = []
        parts = _Contributions()
        plan, node.plan = node.plan, _recording_plan(node, results)
        began = time.perf_counter()
        try:
            run(node, g, create_graph, needed, parts)
        except Exception as error:
            step.error = error
            fail(vertex)
            finish(step)
            return
        finally:
            step.seconds = time.perf_counter() - began
            node.plan = plan
        reached.update(vertex_of[edge].id for edge, _ in parts.parts)
        arrows = {a.place: a for a in graph.arrows_to[vertex.id] if a.place is not None}
        places = [k for k, d in enumerate(results) if d is not None]
        for k, (edge, d) in zip(places, parts.parts, strict=True):
            result = results[k]
            before = grads.get(edge)
            after = grads[edge] = d if before is None else before + d
            summed = _summed_dims(tuple(result.shape), tuple(node.shapes[k]))
            cast = result.dtype != d.dtype
            step.contributions.append(Contribution(arrows[k], result, summed, d, cast, before, after))
        finish(step)

    hooks = set_op_hooks(OpHooks(None, visit))
    functions = user_functions(graph)
    sources = RandomSources(*functions) if functions else None
    try:
        with nullcontext() if sources is None else sources.replayed():
            found = run_backward({copies[_original(v)]: g for v, g in seeds.items()}, False, True, None)
    except Exception as error:  # a hook of the user may raise any error
        trace.error = error
        return trace
    finally:
        set_op_hooks(hooks)
    for edge, g in found.items():
        vertex = vertex_of[edge]
        if isinstance(edge, Variable) and vertex.id not in trace.incomplete:
            trace.gradients[vertex.id] = g
    return trace


def _finishing(on_step: Callable[[Step], None]) -> Callable[[Step], None]:
    """Return a function that passes a step on, and then drops its gradients."""

    def finish(step: Step) -> None:
        on_step(step)
        step.cotangent, step.contributions = None, []

    return finish


def _step_of_output(graph: Graph, vertex: Vertex, g: Value) -> Step:
    """Return the step of one result of an op that has several: its gradient goes to the op as it is."""
    [arrow] = graph.arrows_to[vertex.id]
    return Step(vertex, g, contributions=[Contribution(arrow, g, [], g, False, None, g)])


def user_functions(graph: Graph) -> list[Callable[..., Any]]:
    """Return the gradient rules and hooks of users, which may draw random numbers."""
    found: list[Callable[..., Any]] = []
    for vertex in graph.ops:
        assert vertex.node is not None
        op = vertex.node.plan.op
        if op is not None and not op.built_in:
            found += [f for f in (*op.rules, op.backward, op.composite) if f is not None]
    for place in graph.vertex_of:
        found += [h for h in place.hooks or () if not isinstance(h, RetainHook)]
    return found


def _original(vertex: Vertex) -> Edge:
    found = vertex.node if vertex.node is not None else vertex.leaf
    assert found is not None
    return found


def _recording_plan(node: Node, results: list[Value]) -> Any:
    """Return the plan of a node with rules that add what they return to ``results``."""
    plan = node.plan

    def recording(rule: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(g: Value, *values: Any) -> Any:
            d = rule(g, *values)
            results.append(d)
            return d

        return recorded

    def backward(xp: Any, g: Value, *values: Any) -> Any:
        assert plan.backward is not None
        every = plan.backward(xp, g, *values)
        if isinstance(every, tuple) and len(every) > plan.needs[-1]:
            results.extend(every[i] for i in plan.needs)
        return every

    return dataclasses.replace(
        plan,
        rules=[(recording(rule), places) for rule, places in plan.rules],
        backward=None if plan.backward is None else backward,
    )


def _summed_dims(given: tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
    """Return the dimensions of ``given`` that are summed to get ``shape``."""
    lead = len(given) - len(shape)
    return [k for k, n in enumerate(given) if k < lead or (shape[k - lead] == 1 and n != 1)]
