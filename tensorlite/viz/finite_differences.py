"""Compare the gradient rules of a graph with finite differences, edge by edge.

Both are computed in float64, for the arguments and the cotangent of the graph. The differences and the verdict are
those of :mod:`tensorlite.testing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..autograd.grad_mode import enable_grad
from ..autograd.gradients import grad
from ..autograd.graph import Variable
from ..autograd.op_hooks import OpHooks, set_op_hooks
from ..autograd.random_sources import RandomSources
from ..backends.registry import BACKENDS
from ..dtypes import float64, is_floating
from ..pytree import tree_map
from ..tensors.tensor import Tensor
from ..testing.gradcheck.compare import Comparison, Problem
from .backward import Step
from .forward import Known, op_arguments
from .graph import Arrow, Graph
from .values import to_numpy

__all__ = ["MAX_ENTRIES", "EdgeCheck", "check_step"]

MAX_ENTRIES = 64
"""Inputs with more entries than this are checked at ``SAMPLE`` of them, and along one random direction."""
SAMPLE = 16
SYMMETRIC = ("cholesky", "eigh")
"""Ops that read one triangle of a symmetric matrix: their derivatives are those along symmetric changes."""
_RTOL = 1e-6
_EPS = float(np.finfo(np.float64).eps)


@dataclass
class EdgeCheck:
    """The check of the derivative along one edge.

    analytic, numeric: the derivatives, in the shape of the input, or 1-D for ``entries``, the indices of a sample.
    ok: whether they agree, None if nothing is known. error: the largest relative difference.
    kinks: entries with two one-sided derivatives: ``index``, ``low``, ``high``. why_not: why there is no check.
    """

    arrow: Arrow
    analytic: np.ndarray | None = None
    numeric: np.ndarray | None = None
    entries: list[list[int]] | None = None
    ok: bool | None = None
    error: float | None = None
    kinks: list[dict[str, Any]] = field(default_factory=list)
    why_not: str | None = None


def check_step(graph: Graph, known: Known, step: Step) -> list[EdgeCheck]:
    """Return a check for each edge of a step of a backward pass. The edge from an op to one of its results has none."""
    if step.vertex.kind != "op" or step.error is not None:
        return []
    before = set_op_hooks(OpHooks())
    try:
        return [_check(graph, known, step, c.arrow) for c in step.contributions]
    finally:
        set_op_hooks(before)


def _check(graph: Graph, known: Known, step: Step, arrow: Arrow) -> EdgeCheck:
    arguments = op_arguments(graph, step.vertex, known, assume=True)
    if isinstance(arguments, str):
        return EdgeCheck(arrow, why_not=arguments)
    node = step.vertex.node
    assert node is not None
    try:
        if node.plan.built_in:
            return _compared(step, arrow, arguments)
        sources = RandomSources(node.plan.op.forward, arguments)
        with sources.replayed():
            found = _compared(step, arrow, arguments)
            if sources.drew_numbers():
                return EdgeCheck(arrow, why_not="The op draws random numbers, so it is not called again.")
            return found
    except Exception as error:  # the op, its rule or LAPACK may refuse the float64 arguments with any error
        return EdgeCheck(arrow, why_not=f"The op cannot be called again in float64: {type(error).__name__}: {error}")


def _in_float64(x: Any) -> Any:
    """Return a Tensor of floating point numbers in float64, and float64 for such a dtype; anything else unchanged."""
    if isinstance(x, np.dtype) and is_floating(x):
        return float64
    if isinstance(x, Variable) and is_floating(x.array.dtype):
        return x.detach().to(dtype=float64)  # type: ignore[attr-defined]
    return x


def _compared(step: Step, arrow: Arrow, arguments: list[Any]) -> EdgeCheck:
    node = step.vertex.node
    assert node is not None
    assert arrow.place is not None
    position = node.plan.needs[arrow.place]
    arguments = [tree_map(_in_float64, a) for a in arguments]
    if not isinstance(arguments[position], Tensor) or not is_floating(arguments[position].array.dtype):
        return EdgeCheck(arrow, why_not="The argument has no real numbers to move.")
    given = step.cotangent if isinstance(step.cotangent, list) else [step.cotangent]
    cotangents = [_cotangent(g) for g in given]
    device = arguments[position].device
    xp = BACKENDS[type(arguments[position].array)]

    def outputs(x: Tensor) -> list[Tensor]:
        if node.name in SYMMETRIC:
            x = (x + x.mT) / 2
        called = [*arguments[:position], x, *arguments[position + 1 :]]
        found = node.plan.op.function(*called)
        return list(found) if isinstance(found, tuple) else [found]

    def tensor_of(a: np.ndarray) -> Tensor:
        x: Tensor = arguments[position].detach()
        x.array = np.asarray(a) if isinstance(x.array, np.ndarray) else xp.from_numpy(np.array(a), device.index)
        return x

    def values(arrays: list[np.ndarray]) -> list[np.ndarray]:
        return [to_numpy(y.array).astype(np.float64) for y in outputs(tensor_of(arrays[0]))]

    def gradient(arrays: list[np.ndarray]) -> list[np.ndarray]:
        x = tensor_of(arrays[0]).requires_grad_()
        with enable_grad():
            ys = [(y, c) for y, c in zip(outputs(x), cotangents, strict=True) if y.requires_grad]
            [g] = grad([y for y, _ in ys], [x], [tensor_of(c) for _, c in ys])
        return [to_numpy(g.array)]

    at = [np.array(to_numpy(arguments[position].array), order="C")]
    results = outputs(tensor_of(at[0]))
    if [tuple(y.array.shape) for y in results] != [tuple(c.shape) for c in cotangents]:
        return EdgeCheck(arrow, why_not="An argument of the op is not known, because no gradient rule needs it.")
    if any(y.array.dtype != np.float64 and is_floating(y.array.dtype) for y in results):
        return EdgeCheck(arrow, why_not="The op gives fewer digits than float64 has, so differences show nothing.")
    analytic = gradient(at)
    problem = Problem(values, at, cotangents, analytic, gradient, _RTOL, True, False, np.random.default_rng(0))
    return _verdict(arrow, problem)


def _cotangent(g: Any) -> np.ndarray:
    array = to_numpy(g)
    return np.array(array, np.float64 if array.dtype.kind != "c" else array.dtype, order="C")


def _verdict(arrow: Arrow, problem: Problem) -> EdgeCheck:
    """Return the check of an edge: its entries, or some of them and a direction."""
    [at] = problem.at
    every = list(np.ndindex(at.shape)) if at.size <= MAX_ENTRIES else None
    chosen = problem.rng.choice(at.size, SAMPLE, replace=False) if every is None else np.arange(at.size)
    indices = [tuple(int(i) for i in np.unravel_index(k, at.shape)) for k in sorted(chosen.tolist())]
    derivatives = [problem.entry(0, index) for index in indices]
    sizes = [e.terms for e in derivatives if np.isfinite(e.terms)]
    atol = 64 * _EPS * max([0.0, *sizes])
    found = Comparison()
    for e in derivatives:
        problem.classify(e, atol, found)
    if every is None:
        e = problem.along_direction([problem.scaled_direction(at, 1)])
        problem.classify(e, 64 * _EPS * max(e.terms, e.analytic_terms), found)
    wrong = found.wrong
    relative = [e.relative for e in (*found.right, *wrong) if np.isfinite(e.relative)]
    known = bool(found.right or wrong or found.kinks) or not derivatives
    shape = at.shape if every is not None else (len(indices),)
    return EdgeCheck(
        arrow,
        np.array([e.analytic for e in derivatives]).reshape(shape),
        np.array([e.numeric for e in derivatives]).reshape(shape),
        None if every is not None else [list(index) for index in indices],
        not wrong if known else None,
        max(relative, default=0.0) if not wrong or relative else None,
        [{"index": list(e.position[1]), "low": e.low, "high": e.high} for e in derivatives if e.on_kink and e.position],
        None if known else "The differences are too uncertain here: the op jumps, or its numbers are not finite.",
    )
