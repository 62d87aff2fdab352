"""Checks of gradients against numerical derivatives of all orders up to the third.

``check_grad`` checks a vector-Jacobian product. A random cotangent c makes one number of the results, <c, f(x)>, and
backward computes its gradient J(x)^T c. A cotangent of ones would hide mistakes: it makes the gradient of softmax zero.
The numerical side differentiates each entry of f along each entry of x (see ``numerical``). So it knows the size and
the error of each term of an entry of the gradient, and compares to that precision.

At second order the gradient itself is the function that is checked: (x, c) -> J(x)^T c. At third order it is the second
derivative.

Each derivative is right, wrong or inconclusive. It is inconclusive if its numerical value is not known well enough.
A result of infinity or NaN has no derivative. Its cotangent is 0, so that those of the other results are compared.
Such derivatives are counted and reported. If there are no others, the check fails.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from ...autograd.grad_mode import enable_grad
from ...autograd.graph import Node, topological_order
from ...func import jvp
from ...pytree import tree_leaves, tree_map
from ...tensors.tensor import Tensor
from ..report import GradientError, GradReport
from .compare import MAX_RELATIVE_ERROR, Comparison, Problem, finite_part
from .function import FunctionUnderTest, random_eighths, to_numpy
from .invariants import checked_gradients, checked_values, number_labels
from .messages import failure_message, format_array
from .replay import run_with_replay

__all__ = ["check_adjoint", "check_grad"]

Arrays = list[np.ndarray]
Kinks = Literal["auto", "strict", "skip"]
Method = Literal["auto", "differences"]

_MANY = 64  # up to this number of entries the first order is checked at other points, too

# Built-in ops without kinks. If f has at most one other op, check_grad compares derivatives at kinks, too.
_SMOOTH = frozenset(
    """add sub mul div neg exp expm1 log log1p tanh sigmoid sin cos erf square sum mean sum_to_size matmul mm bmm outer
    dot einsum linear reshape view permute transpose movedim broadcast_to expand unsqueeze squeeze cat stack split
    getitem narrow convert softmax log_softmax logsumexp layer_norm_rows rms_norm_rows gelu silu embedding flip roll
    cumsum diagonal attention index_select gather slice chunk unbind flatten repeat tile softplus""".split()
)


def check_grad(
    f: Callable[..., Any],
    *args: Any,
    order: int = 2,
    wrt: Any = None,
    method: Method = "auto",
    rtol: float = 1e-8,
    kinks: Kinks = "auto",
    seed: int = 0,
    name: str | None = None,
    max_elements: int = 64,
    allow_inconclusive: bool = False,
    **kwargs: Any,
) -> GradReport:
    """Check the gradients of ``f(*args, **kwargs)`` with respect to its floating point arguments, in float64.

        check_grad(tl.softmax, np.array([[1.0, 2.0, 4.0]]), dim=1)

    f takes Tensors and returns a Tensor, or tuples, lists and dicts of Tensors. Floating point arguments, Tensors or
    NumPy arrays, are converted to float64 and differentiated. All other arguments are passed on; integer arrays become
    Tensors. At first order it also checks that

    - the forward and backward pass change neither the arguments nor the cotangent;
    - each gradient has the shape of its argument, shares no memory, and does not change when another is computed;
    - the same call gives the same bits;
    - the gradient is linear in the cotangent and does not depend on the cotangent's memory layout.

    Results of infinity or NaN have no derivatives. They get the cotangent 0, and the others are checked.

    order: 1, 2 or 3: up to which order to check derivatives. Second ones are those of the gradient, by the arguments
        and by the cotangent; third ones those of the second ones.
    wrt: which gradients to check: positions of floating point arguments, or leaf Tensors of float64 that f reads
        (``list(model.parameters())``). None: all floating point arguments.
    method: "auto" uses the complex step where it agrees with differences; "differences" never does.
    rtol: the tolerance, relative to the sum of the absolute values of the terms of a gradient entry.
    kinks: "strict": a gradient at a kink must lie between the one-sided derivatives. "skip": derivatives at a kink are
        counted, not compared. "auto": strict if the graph of f has at most one op that may have kinks. Where several
        meet, as in relu(x) - relu(-x) at 0, correct rules give a gradient outside of that range.
    seed: the seed of cotangents and directions.
    max_elements: up to this number of entries all are checked. Beyond it a random choice is checked one by one, and
        all of them along random directions.
    allow_inconclusive: return a report even if all derivatives were inconclusive.

    Returns a GradReport. Raises GradientError if a check fails; its message has the numbers, the arguments and the call
    that reproduces the failure. Raises TypeError if f has nothing to differentiate or does not return Tensors.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"check_grad: order must be 1, 2 or 3, got {order!r}")
    if kinks not in ("auto", "strict", "skip"):
        raise ValueError(f"check_grad: kinks must be 'auto', 'strict' or 'skip', got {kinks!r}")
    if method not in ("auto", "differences"):
        raise ValueError(f"check_grad: method must be 'auto' or 'differences', got {method!r}")
    function = FunctionUnderTest("check_grad", f, args, kwargs, wrt, name)
    options = {
        "seed": seed, "order": order, "wrt": wrt, "method": method, "rtol": rtol, "kinks": kinks,
        "max_elements": max_elements,
    }  # fmt: skip

    def run() -> GradReport:
        return _check_orders(function, order, method, rtol, kinks, seed, max_elements, allow_inconclusive)

    return run_with_replay(run, "check_grad", function, options, _DEFAULTS)


_DEFAULTS = {"wrt": None} | {
    key: parameter.default for key, parameter in inspect.signature(check_grad).parameters.items()
}  # fmt: skip


@dataclass
class _First:
    """The outcome of the check of first order. arrays: what a report prints. labels: the names of the cotangents."""

    problem: Problem
    report: GradReport
    arrays: list[tuple[str, np.ndarray]]
    labels: list[str]


def _check_orders(
    function: FunctionUnderTest, order: int, method: Method, rtol: float, kinks: Kinks, seed: int, max_elements: int,
    allow_inconclusive: bool,
) -> GradReport:  # fmt: skip
    first = _check_first_order(function, method, rtol, kinks, seed, max_elements)
    report = first.report
    if order > 1:
        try:
            report = _check_higher_orders(function, order, first, max_elements)
        except GradientError as error:
            _blame_first_order(function, rtol, kinks, seed)
            raise error from None
    if not report.checked and report.inconclusive and not allow_inconclusive:
        values = "; ".join(f"{y.dtype} {format_array(y)}" for y in function.values(first.problem.at))[:300]
        raise GradientError(
            f"{function.name}: nothing could be checked, because all {report.inconclusive} derivatives are "
            f"inconclusive. The function jumps, overflows or is too noisy here. Its results are {values}. Choose other "
            f"arguments, or pass allow_inconclusive=True",
            report,
        )
    return report


def _check_first_order(
    function: FunctionUnderTest, method: Method, rtol: float, kinks: Kinks, seed: int, max_elements: int
) -> _First:
    rng = np.random.default_rng(seed)
    at = [np.array(to_numpy(leaf), order="C") for leaf in function.leaves]
    values = checked_values(function)
    cotangents = [random_eighths(rng, y.shape) for y in values]
    strict = kinks == "strict" or (kinks == "auto" and _count_possible_kinks(function) <= 1)
    first = checked_gradients(function, at, cotangents)
    if not all(np.isfinite(y).all() for y in values):
        cotangents = finite_part(cotangents, values)
        first = function.vjp(at, cotangents)
    problem = Problem(
        function.values, at, cotangents, first, lambda xs: function.vjp(xs, cotangents),
        rtol, strict, method == "auto", rng,
    )  # fmt: skip
    problem.overflows = not all(np.isfinite(g).all() for g in first) and function.overflows_at(at)
    labels = number_labels("cotangent", cotangents)
    arrays = [*zip(function.labels, map(to_numpy, function.leaves)), *zip(labels, cotangents)]
    report = _compare(function, problem, "the gradient", function.labels, arrays, max_elements)
    return _First(problem, report, arrays, labels)


def _check_higher_orders(function: FunctionUnderTest, order: int, first: _First, max_elements: int) -> GradReport:
    """Return the report of all orders up to ``order``."""
    start, report, arrays = first.problem, first.report, list(first.arrays)
    at, cotangents = start.at, start.cotangents
    inputs, size = at, start.size()
    gradient_labels, labels = function.labels, [*function.labels, *first.labels]
    directions: list[Arrays] = []
    newest_gradients = start.analytic
    for number in range(2, order + 1):
        newest = finite_part([random_eighths(start.rng, a.shape) for a in inputs], newest_gradients)
        orders = function.nested_gradients(at, cotangents, [*directions, newest])
        if number == 2 and not start.is_extreme():
            _check_create_graph(function, start.analytic, orders[0], at, cotangents, arrays)
        inputs = [*at, *cotangents]
        size *= max([0.0, *(float(abs(d).max(initial=0.0)) for d in newest)])
        problem = _higher_problem(function, start, directions, newest, orders[-1], size)
        problem.overflows = start.overflows or (
            not all(np.isfinite(g).all() for g in orders[-1]) and function.overflows_at(at)
        )
        arrays += zip(number_labels("direction" if number == 2 else "second direction", newest), newest)
        use_directions = start.strict and not report.kinks and not _has_nonfinite_derivative(problem)
        limit = min(max_elements, 12) if use_directions else max_elements

        def alone(k: int, before: Sequence[Arrays] = tuple(directions), newest: Arrays = newest) -> Problem:
            ds = [d if i == k else 0 * d for i, d in enumerate(newest)]
            found = function.nested_gradients(at, cotangents, [*before, ds])
            return _higher_problem(function, start, before, ds, found[-1], 0.0)

        report += _compare(
            function, problem, f"the {_ORDINALS[number]} derivative", labels, arrays, limit, number,
            (gradient_labels, alone),
        )  # fmt: skip
        directions.append(newest)
        newest_gradients = orders[-1]
        gradient_labels = labels
    return report


def _higher_problem(
    function: FunctionUnderTest, first: Problem, directions: Sequence[Arrays], newest: Arrays, analytic: Arrays,
    size: float,
) -> Problem:  # fmt: skip
    """Return the problem of the gradient of <newest, F>, where F is the gradient that has ``directions``."""
    split = len(first.at)

    def gradient(xs: Arrays) -> Arrays:
        if not directions:
            return function.vjp(xs[:split], xs[split:])
        return function.nested_gradients(xs[:split], xs[split:], directions)[-1]

    def next_gradient(xs: Arrays) -> Arrays:
        return function.nested_gradients(xs[:split], xs[split:], [*directions, newest])[-1]

    return Problem(
        gradient, [*first.at, *first.cotangents], newest, analytic, next_gradient, first.rtol, first.strict, False,
        first.rng, size, broken=first.broken,
    )  # fmt: skip


_ORDINALS = {2: "second", 3: "third"}
# The moves to points near by: x -> factor * x + shift, where the shift is multiplied by 1, -1 or 2.
_MOVES = ((1.0, 0.125), (1.0, 1.0), (1.25, 0.0), (-0.5, 0.5))


def _blame_first_order(function: FunctionUnderTest, rtol: float, kinks: Kinks, seed: int) -> None:
    """Raise GradientError if the gradient is wrong at a point near by.

    A wrong gradient may be right at the point that was checked: 3x instead of 2x is right at 0, but has the derivative
    3. Then the rule of the first order has to be mended.
    """
    rng = np.random.default_rng(seed)
    at = [np.array(to_numpy(leaf), order="C") for leaf in function.leaves]
    if sum(a.size for a in at) > _MANY:
        return
    for factor, shift in _MOVES:
        point = [np.where(np.isfinite(a), factor * a + shift * rng.choice([-1.0, 1.0, 2.0], a.shape), a) for a in at]
        options = {"seed": seed, "order": 1, "rtol": rtol, "kinks": kinks}
        try:
            with function.moved_to(point) as near:
                run = partial(_check_first_order, near, "auto", rtol, kinks, seed, _MANY)
                run_with_replay(run, "check_grad", near, options, _DEFAULTS)
        except GradientError as error:
            if error.order == 1:
                raise
        except Exception:  # f may be undefined there
            continue


def _has_nonfinite_derivative(problem: Problem) -> bool:
    """Return whether some derivative is not finite, so that no direction through it can be compared."""
    return problem.broken or not all(np.isfinite(a).all() for a in problem.analytic)


def _count_possible_kinks(function: FunctionUnderTest) -> int:
    """Return the number of ops in the graph of f that are not known to be smooth."""
    with enable_grad():
        nodes = topological_order([y.node for y in function.outputs() if isinstance(y.node, Node)])
    shared = {id(node.plan): node for node in nodes if not (node.plan.built_in and node.name in _SMOOTH)}
    return max(len(shared), sum(type(n) is Node for n in nodes if not (n.plan.built_in and n.name in _SMOOTH)))


def _check_create_graph(
    function: FunctionUnderTest, first: Arrays, with_graph: Arrays, at: Arrays, cotangents: Arrays,
    arrays: list[tuple[str, np.ndarray]],
) -> None:  # fmt: skip
    """Raise GradientError if the gradient under ``create_graph=True`` differs from the one without."""
    wrong = function.first_difference(with_graph, first, at, cotangents)
    if wrong is None:
        return
    inputs = "\n".join(f"    {name}  {format_array(x)}" for name, x in arrays)
    raise GradientError(
        f"{function.name}: the gradient of {function.labels[wrong]} differs under create_graph=True\n"
        f"    without  {format_array(first[wrong])}\n    with     {format_array(with_graph[wrong])}\n"
        f"arguments\n{inputs}"
    )


def _compare(
    function: FunctionUnderTest, problem: Problem, what: str, labels: list[str], arrays: list[tuple[str, np.ndarray]],
    max_elements: int, order: int = 1, gradients: tuple[list[str], Callable[[int], Problem]] | None = None,
) -> GradReport:  # fmt: skip
    """Return the report of a comparison. Raise GradientError if some derivatives are wrong.

    gradients: for an ``order`` above 1 the names of the gradients that are differentiated, and a function that returns
        the problem of one of them alone.
    """
    found = problem.compare(max_elements)
    report = found.report()
    if found.wrong:
        blamed = None
        if gradients and len(gradients[0]) > 1:
            blamed = _wrong_gradient(found, *gradients)
        raise GradientError(failure_message(function, what, found, labels, arrays, blamed), report, order)
    return report


def _wrong_gradient(found: Comparison, labels: list[str], alone: Callable[[int], Problem]) -> str | None:
    """Return the name of the gradient whose derivative is wrong, or None if it is not one alone."""
    wrong = []
    for k, label in enumerate(labels):
        problem, again = alone(k), Comparison()
        for e in found.wrong[:2]:
            problem.classify(problem.same_derivative(e), 0.0, again)
        if again.wrong:
            wrong.append(label)
    return wrong[0] if len(wrong) == 1 else None


def check_adjoint(
    f: Callable[..., Any],
    *args: Any,
    wrt: Any = None,
    seed: int = 0,
    rtol: float = 1e-7,
    name: str | None = None,
    **kwargs: Any,
) -> float:
    """Check a whole function at once by the dot-product test: <c, J v> = <J^T c, v> for a random c and a random v.

    J^T c comes from backward. J v is computed twice: from values of f (by the complex step where it holds, else by
    differences) and by ``tl.func.jvp``. The test costs a few evaluations whatever the size of f. So it suits a whole
    model in float64, with ``wrt`` its parameters. It may miss one wrong entry among very many.

    The arguments are those of ``check_grad``. rtol: the tolerance, relative to the sum of the absolute values of the
    terms of <J^T c, v>.
    Returns the largest relative difference. Raises GradientError if it is above rtol, or if f is too rough along v.
    Reference: Claerbout, Earth Soundings Analysis, 1992.
    """
    function = FunctionUnderTest("check_adjoint", f, args, kwargs, wrt, name)
    rng = np.random.default_rng(seed)
    at = [np.array(to_numpy(leaf), order="C") for leaf in function.leaves]
    values = checked_values(function)
    cotangents = finite_part([random_eighths(rng, y.shape) for y in values], values)
    gradients = function.vjp(at, cotangents)
    problem = Problem(
        function.values, at, cotangents, gradients, lambda xs: gradients, rtol, True, True, rng
    )  # fmt: skip
    problem.overflows = not all(np.isfinite(g).all() for g in gradients) and function.overflows_at(at)
    v = problem.direction(1)
    e = problem.along_direction(v)
    largest_error = max(rtol, MAX_RELATIVE_ERROR) * e.terms + 1e-12 + problem.least_error()
    is_known = math.isfinite(e.numeric) and 4 * e.error <= largest_error
    shows_nothing = problem.shows_nothing(e) or (problem.overflows and not e.terms)
    if not is_known or e.on_kink or shows_nothing:
        raise GradientError(
            f"{function.name}: the derivative along a random direction is inconclusive: {e.numeric:.6g} with an error "
            f"of {e.error:.1g}. The function has a kink, jumps or overflows here. Choose other arguments or a new seed"
        )
    terms = max(e.terms, e.analytic_terms)
    sides = [("values of f", e.numeric, 4 * e.error)]
    if wrt is None:
        by_jvp = _derivative_by_jvp(function, v, cotangents)
        if math.isfinite(by_jvp) or not (problem.broken or problem.overflows):
            sides.append(("tl.func.jvp", by_jvp, 0.0))
    worst = 0.0
    for source, right, error_sum in sides:
        apart = abs(right - e.analytic) / (terms or 1.0)
        if not apart <= rtol + error_sum / (terms or 1.0):
            raise GradientError(
                f"{function.name}: <c, J v> and <J^T c, v> differ\n    <c, J v>    {right:.12g}, from {source}\n"
                f"    <J^T c, v>  {e.analytic:.12g}, from backward\n    difference  {apart:.3g}, relative to "
                f"{terms:.3g}, the sum of the absolute values of its terms\narguments\n"
                f"    {', '.join(function.labels)} with seed={seed}. Find the wrong entry with check_grad"
            )
        worst = max(worst, apart)
    return worst


def _derivative_by_jvp(function: FunctionUnderTest, v: Arrays, cotangents: Arrays) -> float:
    """Return <c, J v> by the library's own Jacobian-vector product."""
    positions = {id(leaf): k for k, leaf in enumerate(function.leaves)}

    def g(*xs: Tensor) -> Any:
        swap = lambda x: xs[positions[id(x)]] if id(x) in positions else x
        result = function.f(*tree_map(swap, function.args), **tree_map(swap, function.kwargs))
        return tuple(y for y in tree_leaves(result) if np.dtype(y.dtype).kind == "f")

    primals = tuple(leaf.detach() for leaf in function.leaves)
    _, tangents = jvp(g, primals, tuple(function.to_device(d) for d in v))
    # Tangents of results that are not finite may be NaN. Their cotangents are 0.
    return float(sum(np.vdot(to_numpy(t)[c != 0], c[c != 0]) for t, c in zip(tangents, cotangents)))
