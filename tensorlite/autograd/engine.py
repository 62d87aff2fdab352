"""The backward pass of reverse-mode automatic differentiation.

An op is a function on raw arrays and one gradient rule for each input. A call on Variables computes the result. If an
input needs gradients, it also records a Node. The node has the rules to run, the saved values that they need, and the
inputs that get their results. The backward pass visits the nodes from the newest to the oldest and pushes gradients
along their edges:

    for node k, newest first:   g[input i] += rule_i(g[k], saved values of k)      (the chain rule, transposed)

Rules use operators and public ops only. On raw arrays they compute. On Variables that are attached to the graph
(``create_graph=True``) they are recorded, which gives gradients of any order.
"""

from __future__ import annotations

import functools
from array import array
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from ..backends.cpu.malloc import keep_freed_memory
from ..backends.registry import BACKENDS, Array, bfloat16_namespace, describe_array
from ..dtypes import accumulate_dtype, cast_array, convert_arrays
from ..errors import DTypeError, GraphError, ShapeError
from . import anomaly_mode, version_counter
from .autocast_mode import casting, without_autocast
from .gradient_observers import gradient_observers, observe
from .graph import (
    Edge,
    Node,
    Output,
    Plan,
    RecomputedValues,
    RestorableValues,
    Value,
    Variable,
    attach,
    new_node,
    topological_order,
    wrap,
)
from .thread_state import threads

__all__ = ["MIN_SHARED", "gradient_logs", "run_backward", "unbroadcast"]

gradient_logs: deque[array[int]] = deque(maxlen=16)
"""The latest passes with ``create_graph``: the first tick of each step, the tick of its node, ...; then a last tick.

They tell which op's rule made a node: the node's tick is in the step of that op.
"""


MIN_SHARED = 1 << 19  # entries of a gradient, from which threads add two faster than one (0.8 of the time on Zen 4)


def unbroadcast(g: Value, shape: tuple[int, ...]) -> Value:
    """Return a gradient summed to the shape that its input had before it was broadcast."""
    return BACKENDS[type(g)].sum_to(g, shape) if type(g) in BACKENDS else g.sum_to_size(shape)


def run_backward(
    seeds: dict[Edge, Value], create_graph: bool, retain: bool, targets: Collection[Edge] | None, logged: bool = True
) -> dict[Edge, Value]:
    """Push gradients back through the graph, and return the gradients of the leaves or of the targets.

    seeds: the gradients of the outputs, by their edges.
    create_graph: whether to record the computation of the gradients.
    retain: whether to keep the saved values. Otherwise the values of a node are freed once it was visited.
    targets: the edges whose gradients are needed, None for all leaves. Nothing else is computed.
    logged: whether a pass with ``create_graph`` has an entry in ``gradient_logs``.
    """
    keep_freed_memory()  # once per process, so that the next step reuses the memory that this pass frees
    oldest = 0
    if targets is not None and all(isinstance(t, Node) for t in targets):
        oldest = min((t.seq for t in targets if isinstance(t, Node)), default=0)  # older nodes cannot lead to a target
    order = topological_order(seeds, oldest)
    needed: set[Edge] | None = None  # the edges that lead to a target
    if targets is not None:
        needed = set(targets)
        for node in reversed(order):
            if not needed.isdisjoint(node.edges):
                needed.add(node)
    grads: dict[Edge, Any] = dict(seeds)
    thread = threads.state
    hook = thread.hooks.backward
    step = _backward_step if hook is None else functools.partial(hook, _backward_step)
    if casting.active:  # rules compute in the dtypes of the saved values, which the op call has converted
        step = functools.partial(without_autocast, step)
    log = array("q") if create_graph and logged else None
    if log is not None:
        gradient_logs.append(log)
        step = _logged(step, log)
    if gradient_observers and targets is None and not create_graph:
        step = observe(step, order, grads)
    anomalies = anomaly_mode.enabled
    previous_mode, thread.records = thread.records, create_graph
    try:
        with np.errstate(all="ignore"):
            for node in order:
                g = grads.pop(node, None)
                if g is None:
                    continue
                if isinstance(g, np.generic):  # NumPy's operators turn 0-d arrays into scalars
                    g = np.asarray(g)
                if type(g) is list:
                    g = fill_missing_with_zeros(node, g)
                elif node.hooks:
                    g = _run_hooks(node.hooks, g)
                if anomalies and node.infinite is not None:
                    anomaly_mode.check_infinities(node, g.array if isinstance(g, Variable) else g)
                if needed is not None:
                    if targets is not None and node in targets:
                        grads[node] = g
                    if needed.isdisjoint(node.edges):
                        continue
                if type(node) is Output:
                    parent = node.edges[0]
                    grads.setdefault(parent, [None] * len(parent.outputs))[node.index] = g  # type: ignore[union-attr]
                    continue
                step(node, g, create_graph, needed, grads)
                if not retain:
                    node.saved = None
            for edge, g in grads.items():
                if isinstance(edge, Variable) and edge.hooks:
                    grads[edge] = _run_hooks(edge.hooks, np.asarray(g) if isinstance(g, np.generic) else g)
    finally:
        thread.records = previous_mode
        if log is not None:
            log.append(version_counter.clock())
    return grads


def _logged(step: Callable[..., None], log: array[int]) -> Callable[..., None]:
    """Return a step that writes its first tick and the tick of its node into a log."""
    tick = version_counter.clock

    def logged(node: Node, g: Value, create_graph: bool, needed: set[Edge] | None, grads: dict[Edge, Any]) -> None:
        log.append(tick())
        log.append(node.seq)
        step(node, g, create_graph, needed, grads)

    return logged


def _backward_step(node: Node, g: Value, create_graph: bool, needed: set[Edge] | None, grads: dict[Edge, Any]) -> None:
    """Run the gradient rules of a node, and add the results to the gradients of its inputs."""
    plan, edges, shapes, dtypes = node.plan, node.edges, node.shapes, node.dtypes
    saved = node.saved
    if type(saved) is not tuple:
        saved = _saved_values(node)
    if version_counter.last_change > node.seq:
        version_counter.check_saved(plan.op_name, node.seq, plan.saved_names, saved)
    values: Sequence[Any] = attach_saved_values(node, saved) if create_graph else saved
    narrow_xp = None
    if plan.find_narrow is not None and dtypes is not None:
        if plan.built_in and not create_graph:
            arguments = values  # of the rules, or of the backward function in its order
            if plan.backward is not None:
                arguments = [values[j] for j in plan.backward_places if j is not None]
            narrow_xp = bfloat16_namespace(plan.op_name, [g, *arguments])
        if narrow_xp is None:
            values, g = widen_values(plan, values, g)
    gradients: list[Value]
    if plan.backward is None:
        gradients = []
        for k, (rule, places) in enumerate(plan.rules):
            if needed is not None and edges[k] not in needed:
                gradients.append(None)
            elif len(places) == 1:  # most rules, and a list would cost as much as some of them
                j = places[0]
                value = values[j] if j >= 0 else shapes[k] if j == -1 else dtypes and dtypes[k]
                gradients.append(rule(g, value))  # type: ignore[call-arg]  # has one
            else:
                gradients.append(
                    rule(g, *[values[j] if j >= 0 else shapes[k] if j == -1 else dtypes and dtypes[k] for j in places])
                )
    elif create_graph:
        gradients = _through_composite(node, values, g)
    else:
        needs = plan.needs
        if needed is not None:
            needs = tuple(i for i, e in zip(needs, edges, strict=True) if e in needed)
        xp = BACKENDS[type(g)] if narrow_xp is None else narrow_xp
        given = [needs if j is None else values[j] for j in plan.backward_places]
        if plan.takes_given_dtypes:
            given.append(None if dtypes is None else dict(zip(plan.needs, dtypes, strict=True)))
        every = plan.backward(xp, g, *given)
        if not isinstance(every, tuple) or len(every) <= plan.needs[-1]:
            raise TypeError(
                f"{plan.op_name}: its backward function must return a tuple, a gradient for each leading argument, "
                f"got {f'{len(every)} of them' if isinstance(every, tuple) else type(every).__name__}"
            )
        gradients = [every[i] for i in plan.needs]
    check = anomaly_mode.enabled
    for k, d in enumerate(gradients):  # indices, because zip with strict=True would cost as much as a small rule
        edge, shape = edges[k], shapes[k]
        if d is None:
            if plan.backward is None and (needed is None or edge in needed):
                raise TypeError(
                    f"{plan.op_name}: the gradient rule of argument {plan.input_names[k]!r} returned None. If the "
                    f"argument has no gradient, write None instead of the rule."
                )
            continue
        if getattr(d, "shape", None) != shape:
            d = sum_to_input_shape(plan, k, d, shape)
        if dtypes is not None and d.dtype != dtypes[k]:
            d = cast_to_input_dtype(plan, k, d, dtypes[k])
        if check:
            inputs = [v.array if isinstance(v, Variable) else v for v in (*saved, g)]
            result = d.array if isinstance(d, Variable) else d
            result = np.asarray(result) if isinstance(result, np.generic) else result
            anomaly_mode.check_backward(plan.op_name, node.where, inputs, result, plan.input_names[k])
        before = grads.get(edge)
        if before is not None:
            # Threads share the sum of two large gradients.
            d = before + d if create_graph or d.size < MIN_SHARED else BACKENDS[type(d)].add_arrays(before, d)
        grads[edge] = d


def widen_values(plan: Plan, values: Sequence[Any], g: Value) -> tuple[Sequence[Any], Value]:
    """Return the saved values and the gradient of a result in float32 where they are float16 or bfloat16."""
    narrow = None if plan.find_narrow is None else plan.find_narrow([g])
    if narrow is None:
        return values, g
    wide = accumulate_dtype(narrow)
    *values, g = convert_arrays([*values, g], narrow, wide)
    return values, g


def _saved_values(node: Node) -> tuple[Any, ...]:
    """Return the saved values of a node, computed again if necessary. Raises GraphError if they were freed."""
    saved = node.saved  # read once, because another thread may fill or free them
    while isinstance(saved, RecomputedValues):  # a checkpoint inside another needs two rounds
        saved.fill()
        saved = node.saved
    if isinstance(saved, RestorableValues):
        return saved.restore()
    if saved is None:
        raise GraphError(
            f"{node.name}: expected a graph with its saved values, got one that a backward pass has freed. Pass "
            f"retain_graph=True to that pass."
        )
    return saved


def sum_to_input_shape(plan: Plan, k: int, d: Value, shape: tuple[int, ...]) -> Value:
    """Return a gradient summed to its input's shape. Raises TypeError or ShapeError, which name the rule."""
    if not hasattr(d, "shape"):
        raise TypeError(
            f"{plan.op_name}: the gradient rule of argument {plan.input_names[k]!r} must return an array, "
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
    """Return a gradient in the dtype that its input had before the op converted it. Raises DTypeError."""
    # Rules that were not written for bfloat16, whose kind is "V", got float32.
    if not plan.casts_gradients and (dtype.kind != "V" or plan.find_narrow is None):
        raise DTypeError(
            f"{plan.op_name}: the gradient rule of argument {plan.input_names[k]!r} gave {d.dtype}, the argument is "
            f"{dtype}. Convert the gradient to that."
        )
    return d.to(dtype) if isinstance(d, Variable) else cast_array(d, dtype)  # type: ignore[attr-defined]


def fill_missing_with_zeros(node: Node, gradients: list[Value]) -> tuple[Value, ...]:
    """Return the gradients of all results of a node, zeros for results that no op used."""
    known = next(g for g in gradients if g is not None)
    xp = BACKENDS[type(known.array if isinstance(known, Variable) else known)]
    return tuple(
        xp.zeros(shape, dtype) if g is None else g for g, (shape, dtype) in zip(gradients, node.outputs, strict=True)
    )


def _run_hooks(hooks: list[Callable[[Any], Any]], g: Value) -> Value:
    """Call each hook on the gradient, in order. A result that is not None replaces the gradient.

    Hooks get copies of a raw gradient, because a hook may keep its argument or its result and the engine adds in place.
    """
    recorded = isinstance(g, Variable)
    for hook in list(hooks):
        given = g if recorded else wrap(g.copy())
        changed = hook(given)
        if changed is not None:
            got = describe_array(changed.array) if isinstance(changed, Variable) else type(changed).__name__
            expected = describe_array(given.array)
            if got != expected:
                error = DTypeError if getattr(changed, "shape", None) == given.array.shape else ShapeError
                raise error(f"hook: a gradient hook must return None or a Tensor {expected}, got {got}")
        result = given if changed is None else changed
        g = result if recorded else result.array.copy()
    return g


def attach_saved_values(node: Node, saved: Sequence[Any]) -> list[Any]:
    """Return the saved values as Variables at their places in the graph, so that ops on them are recorded."""
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
            else:  # The op converted the value, or the leaf has a new array: attach the old one there.
                values.append(attach(value, _alias_of(edge, value, node.dtypes[k] if node.dtypes else None)))
    return values


def _alias_of(edge: Edge, value: Array, dtype: Any = None) -> Node:
    """Return a new node that passes its gradient on to ``edge``, converted to ``dtype`` if that is given."""
    node = new_node(_ALIAS, [edge], [value.shape], ())
    if dtype is not None:
        node.dtypes = [dtype]
    return node


def _through_composite(node: Node, values: Sequence[Any], g: Value) -> list[Value]:
    """Return the gradients of a fused op as Variables: run its composite on the saved inputs and differentiate that."""
    plan = node.plan
    args = [values[j] for j in plan.composite_places]
    leaves = []
    for i in plan.needs:
        leaf = args[i]
        args[i] = attach(leaf.array, _alias_of(leaf.node or leaf, leaf.array))
        leaves.append(args[i].node)
    assert plan.composite is not None
    out = plan.composite(*args)
    grads = run_backward({out.node: g}, True, True, leaves, logged=False)  # it is a part of this step
    return [grads.get(leaf) for leaf in leaves]


_ALIAS = Plan("alias", (0,), ["x"], rules=[(lambda g: g, [])], is_view=True)
