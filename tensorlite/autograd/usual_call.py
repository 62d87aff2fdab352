"""The usual call of an op in fewer steps: one or two Tensors of float32 or float64 on the CPU, given by position.

:mod:`.function` has the call of an op for all arguments. Half of its time for small arrays is in questions whose answer
is nearly always the same: is there a keyword, another dtype, a number too many, a mode such as ``autocast``? Here a few
comparisons answer them at once. Where one fails, or the op raises an error, the general call does all from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backends.registry import BACKENDS
from ..dtypes import float32, float64
from . import anomaly_mode, version_counter
from .autocast_mode import casting
from .graph import Node, Plan, Variable
from .op_definition import Op
from .thread_state import threads
from .views import record_view

__all__ = ["with_usual_call"]

_ABSENT: Any = object()

Keep = Callable[[Any, Any, Any], tuple[Any, ...]]
"""A function of both arguments and of the result, which returns those that a node saves."""

_KEEP: dict[tuple[str, ...], Keep] = {
    (): lambda x, y, out: (),
    ("x",): lambda x, y, out: (x,),
    ("y",): lambda x, y, out: (y,),
    ("out",): lambda x, y, out: (out,),
    ("x", "y"): lambda x, y, out: (x, y),
    ("x", "out"): lambda x, y, out: (x, out),
    ("y", "out"): lambda x, y, out: (y, out),
    ("x", "y", "out"): lambda x, y, out: (x, y, out),
}


def _keep(positions: Sequence[int], defaults: Sequence[Any]) -> Keep:
    """Return the function that returns the saved values. positions: theirs, among the arguments and the result."""
    arity = len(defaults)
    names = {0: "x", arity: "out"} if arity == 1 else {0: "x", 1: "y", arity: "out"}
    if all(p in names for p in positions):
        return _KEEP[tuple(names[p] for p in positions)]
    if not any(p in names for p in positions):
        constants = tuple(defaults[p] for p in positions)
        return lambda x, y, out: constants
    rest = defaults[2:]

    def keep(x: Any, y: Any, out: Any) -> tuple[Any, ...]:
        values = (x, y, *rest, out)
        return tuple([values[p] for p in positions])

    return keep


def _given(x: Any, y: Any) -> tuple[Any, ...]:
    """Return the arguments that a caller gave."""
    return (x, y) if y is not _ABSENT else (x,) if x is not _ABSENT else ()


def with_usual_call(op: Op, general: Callable[..., Any]) -> Callable[..., Any]:
    """Return the public function of an op of the library with one result, which does what ``general`` does.

    general: a function of the tuple of all arguments and the dict of keywords.
    """
    forward, xp, new, clock = op.forward, BACKENDS[np.ndarray], object.__new__, version_counter.clock
    ndarray, inplace_in_graph = np.ndarray, version_counter.inplace_in_graph
    view, differentiable = op.view, bool(op.rules or op.backward)
    takes_two, second = len(op.names) > 1, (*op.defaults, None)[1]
    takes_one = second is not op.signature.empty
    constants: set[Any] = set() if 1 in op.flags else {int, float, type(None)}  # flags are checked in the general call
    if len(op.rules) < 2:
        constants.add(tuple)
    plans: list[tuple[Plan, Keep] | None] = [None, None, None]  # for calls that differentiate x, y or both

    def plan_of(case: int) -> tuple[Plan, Keep]:
        needs = ((0,), (1,), (0, 1))[case]
        plan = op.plans.get(needs)
        if plan is None:
            plan = op.plans[needs] = op.plan(needs, op.argument_names(len(op.names)))
        found = plans[case] = plan, _keep(plan.saved_positions, op.defaults)
        return found

    def call(x: Any = _ABSENT, y: Any = _ABSENT, /, *rest: Any, **kwargs: Any) -> Any:
        if rest:
            return general((x, y) + rest, kwargs)  # noqa: RUF005  # faster
        if kwargs or casting.active or anomaly_mode.enabled or inplace_in_graph:
            return general(_given(x, y), kwargs)
        thread = threads.state
        usual = thread.run is thread.run_without_hooks
        # a and b are the raw values of x and y; edge and other are where their gradients go, None without gradients.
        dtype: Any = None
        edge: Any = None
        other: Any = None
        if isinstance(x, Variable):
            a = x.array
            dtype = a.dtype
            if dtype is not float32 and dtype is not float64:
                return general(_given(x, y), kwargs)
            usual = usual and type(a) is ndarray
            edge = x.node
            if edge is None and x.tracked:
                edge = x
        else:
            a = x
            usual = usual and (type(x) is float or type(x) is int) and isinstance(y, Variable)
        if y is _ABSENT:
            b = second
            usual = usual and takes_one
        elif isinstance(y, Variable):
            b = y.array
            if dtype is None:
                dtype = b.dtype
                usual = usual and (dtype is float32 or dtype is float64)
            usual = usual and takes_two and b.dtype is dtype and type(b) is ndarray
            other = y.node
            if other is None and y.tracked:
                other = y
        else:
            b = y
            usual = usual and takes_two and type(y) in constants
        if usual:
            try:
                out = thread.run(forward, xp, a, b) if takes_two else thread.run(forward, xp, a)
            except Exception:
                usual = False
        if not usual:
            return general(_given(x, y), kwargs)
        if type(out) is not ndarray:
            out = op.result_array(xp, out)
        result = new(Variable.tensor_type)
        result.array = out
        if not thread.records:
            return result
        if view and isinstance(x, Variable):
            result.view_info = record_view(x, op.replay or call, () if y is _ABSENT else (y,), out)
        if not differentiable or (edge is None and other is None):
            return result
        if other is None:
            case, edges, shapes = 0, [edge], [a.shape]
        elif edge is None:
            case, edges, shapes = 1, [other], [b.shape]
        else:
            case, edges, shapes = 2, [edge, other], [a.shape, b.shape]
        plan, keep = plans[case] or plan_of(case)
        node = new(Node)
        node.plan, node.edges, node.shapes, node.saved = plan, edges, shapes, keep(a, b, out)
        node.seq = clock()
        result.node, result.tracked = node, True
        return result

    return call
