"""Reverse-mode automatic differentiation.

An op is a function on raw arrays and one gradient rule per input. Calling it on Variables computes the result and, if
an input needs gradients, records a Node: which rules to run, on which saved values, and where their results go. The
backward sweep visits the nodes from the newest to the oldest and pushes gradients along their edges:

    for node k, newest first:   g[input i] += rule_i(g[k], saved values of k)      (the chain rule, transposed)

Rules are written in operators and public ops only. Fed with raw arrays they compute; fed with Variables that are
attached to the graph (``create_graph=True``) they record themselves, and so gradients of any order follow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from ..backends.cpu.malloc import keep_freed_memory
from ..backends.registry import BACKENDS, Array, describe_array
from ..errors import DTypeError, GraphError, ShapeError
from . import anomaly_mode, version_counter
from .grad_mode import grad_mode
from .graph import Edge, Node, Output, Plan, RecomputedValues, Value, Variable, attach, topological_order, wrap
from .op_hooks import op_runner

__all__ = ["run_backward", "unbroadcast"]


def unbroadcast(g: Value, shape: tuple[int, ...]) -> Value:
    """Sum a gradient down to the shape that its input had before it was broadcast."""
    return BACKENDS[type(g)].sum_to(g, shape) if type(g) in BACKENDS else g.sum_to_size(shape)


def run_backward(
    seeds: dict[Edge, Value], create_graph: bool, retain: bool, targets: Collection[Edge] | None
) -> dict[Edge, Value]:
    """Push the seeds back through the graph and return the gradients of the leaves, or of the targets if given.

    Nothing is computed that does not lead to a target. Saved values go back to the allocator as the sweep passes
    them, unless ``retain``.
    """
    keep_freed_memory()  # once per process, so that the next step reuses the memory that this pass frees
    oldest = 0
    if targets is not None and all(isinstance(t, Node) for t in targets):
        oldest = min((t.seq for t in targets if isinstance(t, Node)), default=0)  # nothing older leads to a target
    order = topological_order(seeds, oldest)
    wanted: set[Edge] | None = None
    if targets is not None:
        wanted = set(targets)
        for node in reversed(order):
            if not wanted.isdisjoint(node.edges):
                wanted.add(node)
    found: dict[Edge, Any] = dict(seeds)
    watcher = op_runner.hooks.backward
    back = _backward_step if watcher is None else functools.partial(watcher, _backward_step)
    old, grad_mode.enabled = grad_mode.enabled, create_graph
    try:
        with np.errstate(all="ignore"):
            for node in order:
                g = found.pop(node, None)
                if g is None:
                    continue
                if isinstance(g, np.generic):  # NumPy's operators make scalars of 0-d arrays
                    g = np.asarray(g)
                if type(g) is list:
                    g = fill_missing_with_zeros(node, g)
                elif node.hooks:
                    g = _run_hooks(node.hooks, g)
                if wanted is not None:
                    if targets is not None and node in targets:
                        found[node] = g
                    if wanted.isdisjoint(node.edges):
                        continue
                if type(node) is Output:
                    parent = node.edges[0]
                    found.setdefault(parent, [None] * len(parent.outputs))[node.index] = g  # type: ignore[union-attr]
                    continue
                back(node, g, create_graph, wanted, found)
                if not retain:
                    node.saved = None
            for edge, g in found.items():
                if isinstance(edge, Variable) and edge.hooks:
                    found[edge] = _run_hooks(edge.hooks, np.asarray(g) if isinstance(g, np.generic) else g)
    finally:
        grad_mode.enabled = old
    return found


def _backward_step(node: Node, g: Value, create_graph: bool, wanted: set[Edge] | None, found: dict[Edge, Any]) -> None:
    """One step of the sweep: run a node's rules, and add what they give to the gradients found so far."""
    plan = node.plan
    while isinstance(node.saved, RecomputedValues):  # a checkpoint inside another takes two steps
        node.saved.fill()
    saved = node.saved
    if saved is None:
        raise GraphError(
            f"{plan.op_name}: backward through a graph whose saved values have been freed. Pass retain_graph=True to "
            f"the first backward to go through it again"
        )
    if version_counter.last_change > node.seq:
        version_counter.check_saved(plan.op_name, node.seq, plan.saved_names, saved)
    values = attach_saved_values(node, saved) if create_graph else saved
    if plan.backward is None:
        gradients: Sequence[Value] = [
            rule(g, *[shape if j < 0 else values[j] for j in places])
            if wanted is None or edge in wanted else None
            for (rule, places), shape, edge in zip(plan.rules, node.shapes, node.edges, strict=True)
        ]  # fmt: skip
    elif create_graph:
        gradients = _through_composite(node, values, g)
    else:
        needs = tuple(i for i, e in zip(plan.needs, node.edges, strict=True) if wanted is None or e in wanted)
        every = plan.backward(BACKENDS[type(g)], g, *[needs if j is None else values[j] for j in plan.backward_places])
        if not isinstance(every, tuple) or len(every) <= plan.needs[-1]:
            raise TypeError(
                f"{plan.op_name}: its backward function must return a tuple, a gradient for each leading argument, "
                f"got {f'{len(every)} of them' if isinstance(every, tuple) else type(every).__name__}"
            )
        gradients = [every[i] for i in plan.needs]
    for k, (edge, d, shape) in enumerate(zip(node.edges, gradients, node.shapes, strict=True)):
        if d is None:
            if plan.backward is None and (wanted is None or edge in wanted):
                raise TypeError(
                    f"{plan.op_name}: the gradient rule of argument {plan.input_names[k]!r} returned None; where there "
                    f"is no gradient, write None in place of the rule"
                )
            continue
        if getattr(d, "shape", None) != shape:
            d = sum_to_input_shape(plan, k, d, shape)
        if node.dtypes is not None and d.dtype != node.dtypes[k]:
            d = cast_to_input_dtype(plan, k, d, node.dtypes[k])
        if anomaly_mode.enabled:
            raw = [v.array if isinstance(v, Variable) else v for v in (*saved, g)]
            made = d.array if isinstance(d, Variable) else d
            made = np.asarray(made) if isinstance(made, np.generic) else made
            anomaly_mode.check_backward(plan.op_name, node.where, raw, made, plan.input_names[k])
        before = found.get(edge)
        found[edge] = d if before is None else before + d


def sum_to_input_shape(plan: Plan, k: int, d: Value, shape: tuple[int, ...]) -> Value:
    """Sum a gradient down to its input's shape; an error that names the rule if it cannot be."""
    if not hasattr(d, "shape"):
        raise TypeError(
            f"{plan.op_name}: the gradient rule of argument {plan.input_names[k]!r} must give an array, "
            f"got {type(d).__name__}"
        )
    lead = len(d.shape) - len(shape)
    if lead < 0 or any(n not in (1, m) for n, m in zip(shape, d.shape[lead:], strict=True)):
        raise ShapeError(
            f"{plan.op_name}: the gradient rule of argument {plan.input_names[k]!r} gave shape {tuple(d.shape)}, "
            f"which does not fit the argument's shape {shape}"
        )
    return unbroadcast(d, shape)


def cast_to_input_dtype(plan: Plan, k: int, d: Value, dtype: Any) -> Value:
    """A gradient in the dtype that the input had before the op converted it."""
    if not plan.casts_gradients:
        raise DTypeError(
            f"{plan.op_name}: the gradient rule of argument {plan.input_names[k]!r} gave {d.dtype}, the argument is "
            f"{dtype}; convert the gradient to that"
        )
    return d.to(dtype) if isinstance(d, Variable) else d.astype(dtype)  # type: ignore[attr-defined]


def fill_missing_with_zeros(node: Node, gradients: list[Value]) -> tuple[Value, ...]:
    """The gradients of all results of a node: zeros for those that nobody used."""
    known = next(g for g in gradients if g is not None)
    xp = BACKENDS[type(known.array if isinstance(known, Variable) else known)]
    return tuple(
        xp.zeros(shape, dtype) if g is None else g for g, (shape, dtype) in zip(gradients, node.outputs, strict=True)
    )


def _run_hooks(hooks: list[Callable[[Any], Any]], g: Value) -> Value:
    """Show a gradient to each hook in turn, and take what it gives back instead, if anything."""
    for hook in list(hooks):
        shown = g if isinstance(g, Variable) else wrap(g)
        changed = hook(shown)
        if changed is not None:
            got = describe_array(changed.array) if isinstance(changed, Variable) else type(changed).__name__
            if got != describe_array(shown.array):
                error = DTypeError if getattr(changed, "shape", None) == shown.array.shape else ShapeError
                expected = describe_array(shown.array)
                raise error(f"hook: a gradient hook must return None or a Tensor {expected}, got {got}")
            g = changed if isinstance(g, Variable) else changed.array
    return g


def attach_saved_values(node: Node, saved: list[Any]) -> list[Any]:
    """The saved values as Variables at their places in the graph, so that what is computed from them is recorded."""
    values: list[Any] = []
    for value, k in zip(saved, node.plan.saved_edges, strict=True):
        if k is None or type(value) not in BACKENDS:
            values.append(value)
        elif k < 0:
            values.append(attach(value, node))
        else:
            edge = node.edges[k]
            if isinstance(edge, Variable) and edge.array is value:
                values.append(edge)
            elif isinstance(edge, Node) and node.dtypes is None:
                values.append(attach(value, edge))
            else:  # converted, or the leaf has got other data since: the same place, but not the same array
                values.append(attach(value, _alias_of(edge, value, node.dtypes[k] if node.dtypes else None)))
    return values


def _alias_of(edge: Edge, value: Array, dtype: Any = None) -> Node:
    node = Node(_ALIAS, [edge], [value.shape], [])
    if dtype is not None:
        node.dtypes = [dtype]
    return node


def _through_composite(node: Node, values: list[Any], g: Value) -> list[Value]:
    """The gradients of a fused op as Variables: compute its composite again, and differentiate that."""
    plan = node.plan
    args = [values[j] for j in plan.composite_places]
    leaves = []
    for i in plan.needs:
        leaf = args[i]
        args[i] = attach(leaf.array, _alias_of(leaf.node or leaf, leaf.array))
        leaves.append(args[i].node)
    assert plan.composite is not None
    out = plan.composite(*args)
    found = run_backward({out.node: g}, True, True, leaves)
    return [found.get(leaf) for leaf in leaves]


_ALIAS = Plan("alias", (0,), ["x"], rules=[(lambda g: g, [])], is_view=True)
