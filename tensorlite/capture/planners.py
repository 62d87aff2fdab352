"""Which ops and gradient rules of a captured step have results that stay where they are.

VIEWS has the functions whose results show their arguments' memory: a plan calls them once. PLANNERS has a planner for
each function that the kernels of ``backends/cpu/planned_kernels.py`` compute. All others are called in each replay.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import add
from typing import Any

import numpy as np

from ..autograd.engine import sum_to_input_shape
from ..backends.cpu import planned_kernels as planned
from ..backends.cpu import planned_numpy
from ..backends.cpu.planned_kernels import Empty, Planned
from ..backends.registry import BACKENDS
from ..ops import elementwise, index, nn, reduce, shape
from ..ops.arguments import outlier

__all__ = ["PLANNERS", "VIEWS", "add_large", "as_tuple"]

Planner = Callable[..., Planned]
"""A function of ``empty`` and of the arguments of a call, which returns its results and the calls that fill them."""


def as_tuple(*values: Any) -> tuple[Any, ...]:
    """Return the gradients of an op with several results as one value."""
    return values


def add_large(x: Any, y: Any) -> Any:
    """Return the sum of two large gradients, which threads share, as in the engine."""
    return BACKENDS[np.ndarray].add_arrays(x, y)


def _forward(function: Any) -> Any:
    return function.op.forward


_VIEW_OPS = shape.VIEW_OPS
_SPLIT, _CAT = shape.SPLIT_AND_CAT

VIEWS: frozenset[Any] = frozenset(
    [as_tuple, *map(_forward, (*_VIEW_OPS, index.slice_)), *(r for o in (*_VIEW_OPS, reduce.sum) for r in o.op.rules),
     _CAT.op.rules[2]]
)  # fmt: skip
"""Functions that return views of their arguments, or else copies, by shapes and strides alone."""


# ---- ops ------------------------------------------------------------------------------------


def _add(empty: Empty, xp: Any, x: Any, y: Any, alpha: Any) -> Planned:
    if alpha != 1 or alpha is True:
        return None
    return planned_numpy.plan_add(empty, x, y, elementwise.MIN_SHARED_SUM)


def _ufunc(ufunc: Any) -> Planner:
    """Return the planner of an op that is a function of NumPy."""
    return lambda empty, xp, *values: planned_numpy.plan_ufunc(ufunc, empty, *values)


def _relu_gradient(empty: Empty, g: Any, out: Any) -> Planned:
    if type(out) is not np.ndarray or out.dtype.kind != "f" or not out.flags.c_contiguous:
        return None
    chosen = empty(out.shape, np.bool_)
    return planned_numpy.plan_choice(empty, partial(np.less_equal, out, 0, chosen), chosen, g)


def _split_gradient(empty: Empty, g: Any, dim: int) -> Planned:
    whole = BACKENDS[np.ndarray].whole_of(g, dim)
    return planned_numpy.plan_join(empty, g, dim) if whole is None else ([], whole)


def _embedding(empty: Empty, xp: Any, weight: Any, ids: Any, padding_idx: Any) -> Planned:
    """Take rows without a check of each id, after a check of all."""
    if weight.ndim != 2 or padding_idx is not None or not weight.flags.c_contiguous or ids.dtype != np.int64:
        return None
    out = empty((*ids.shape, weight.shape[1]), weight.dtype)

    def launch() -> None:
        if outlier(ids, len(weight)):
            _forward(nn.embedding)(xp, weight, ids)  # raises the error
        weight.take(ids, 0, out, "clip")

    return [launch], out


def _embedding_gradient(empty: Empty, g: Any, ids: Any, in_shape: Any, padding_idx: Any) -> Planned:
    if padding_idx is not None:
        return None
    return planned.plan_embedding_backward(empty, BACKENDS[np.ndarray], g, ids, in_shape[0])


def _cross_entropy(
    empty: Empty, xp: Any, logits: Any, target: Any, ignore_index: int, smoothing: float, reduction: str
) -> Planned:
    planned_rows = planned.plan_cross_entropy(empty, xp, logits, target, ignore_index, smoothing)
    if planned_rows is None or reduction == "none":
        return planned_rows if planned_rows is None else (planned_rows[0], (*planned_rows[1], None))
    calls, (losses, top, total) = planned_rows
    loss, count = empty((), losses.dtype), empty((), losses.dtype) if reduction == "mean" else None

    def reduce_losses() -> None:
        loss[...] = xp.sum_over(losses, (0,))
        if count is not None:
            count[...] = xp.count_nonzero(target != ignore_index)
            loss[...] = loss / count

    return [*calls, reduce_losses], (loss, top, total, count)


def _slice_gradient(empty: Empty, g: Any, which: Any, in_shape: Any) -> Planned:
    """Write g into zeros, or copy it where the slice is the whole."""
    if type(g) is not np.ndarray:
        return None
    out = empty(tuple(in_shape), g.dtype)
    part = out[which]
    if type(part) is not np.ndarray:  # an entry
        return None
    fill = [] if part.size == out.size else [partial(out.fill, 0)]
    return [*fill, partial(np.copyto, part, g)], out


def _sum_to_shape(empty: Empty, d: Any, wanted: tuple[int, ...]) -> Planned:
    """Sum over the first axis, if that is all."""
    kept = d.shape[1:]
    if wanted not in (kept, (1, *kept)) or d.dtype != np.float32 or not d.flags.c_contiguous:
        return None
    rows, out = d.reshape(len(d), -1), empty(wanted, d.dtype)
    return [partial(np.add.reduce, rows, 0, None, out.reshape(-1))], out


def _first(plan: Planned) -> Planned:
    """Return a plan whose result is a tuple of one."""
    return None if plan is None else (plan[0], (plan[1],))


def _with_none(plan: Planned) -> Planned:
    """Return a plan whose second result is None."""
    return None if plan is None else (plan[0], (plan[1], None))


_MULTIPLY: Planner = partial(planned_numpy.plan_ufunc, np.multiply)

PLANNERS: dict[Any, Planner] = {
    add: partial(planned_numpy.plan_ufunc, np.add),
    add_large: lambda empty, x, y: planned_numpy.plan_add(empty, x, y, 0),
    sum_to_input_shape: _sum_to_shape,
    _forward(elementwise.add): _add,
    _forward(elementwise.mul): _ufunc(np.multiply),
    elementwise.mul.op.rules[0]: _MULTIPLY,
    elementwise.mul.op.rules[1]: _MULTIPLY,
    _forward(elementwise.neg): _ufunc(np.negative),
    elementwise.neg.op.rules[0]: partial(planned_numpy.plan_ufunc, np.negative),
    _forward(nn.apply_dropout_mask): _ufunc(np.multiply),
    nn.apply_dropout_mask.op.rules[0]: _MULTIPLY,
    _forward(nn.relu): lambda empty, xp, x: planned_numpy.plan_relu(empty, x),
    nn.relu.op.rules[0]: _relu_gradient,
    _forward(nn.rms_norm_rows): planned_numpy.plan_rms_norm,
    nn.rms_norm_rows.op.backward: planned_numpy.plan_rms_norm_backward,
    _forward(shape.reshape): lambda empty, xp, *args: planned_numpy.plan_copy(empty, *args),
    shape.reshape.op.rules[0]: planned_numpy.plan_copy,
    shape.view.op.rules[0]: planned_numpy.plan_copy,
    _forward(_CAT): lambda empty, xp, dim, ends, *arrays: planned_numpy.plan_join(empty, arrays, dim),
    _SPLIT.op.rules[0]: _split_gradient,
    _forward(nn.linear): lambda empty, xp, *args: planned.plan_linear(empty, *args),
    nn.linear.op.backward: lambda empty, xp, *args: planned.plan_linear_backward(empty, *args[:-1]),
    _forward(nn.gelu): lambda empty, xp, x, form: planned.plan_elementwise("gelu", empty, [x], form == "tanh"),
    nn.gelu.op.backward: lambda empty, xp, g, x, form: _first(
        planned.plan_elementwise("gelu_backward", empty, [g, x], form == "tanh")
    ),
    _forward(nn.silu): lambda empty, xp, x: planned.plan_elementwise("silu", empty, [x]),
    nn.silu.op.backward: lambda empty, xp, *args: _first(planned.plan_elementwise("silu_backward", empty, args)),
    _forward(nn.layer_norm_rows): planned.plan_layer_norm,
    nn.layer_norm_rows.op.backward: planned.plan_layer_norm_backward,
    _forward(nn.embedding): _embedding,
    nn.embedding.op.rules[0]: _embedding_gradient,
    index.slice_.op.rules[0]: _slice_gradient,
    _forward(nn.cross_entropy_rows): _cross_entropy,
    nn.cross_entropy_rows.op.backward: lambda empty, xp, *args: _with_none(
        planned.plan_cross_entropy_backward(empty, xp, *args)
    ),
    _forward(nn.attention): lambda empty, xp, *args: planned.plan_attention(empty, *args),
    nn.attention.op.backward: lambda empty, xp, *args: planned.plan_attention_backward(empty, *args),
}
"""The planners, by the functions that they stand for."""
