"""Checks of gradients: analytic derivatives against numerical ones, at first and second order.

What is checked is a vector-Jacobian product. A random cotangent c makes one number of the results, <c, f(x)>, whose
gradient J(x)^T c is what backward computes; a cotangent of ones would hide, for one, every mistake in softmax. The
numerical side differentiates each entry of f along each entry of x (see ``numerical``), so it knows for every entry of
the gradient how large the terms of its sum are and how well they are known, and compares to that precision.

At second order the same is done with the gradient itself as the function: (x, c) -> J(x)^T c.

Every derivative gets one of three verdicts. Right or wrong, where the numerical one is known well enough to say so;
else inconclusive, which is counted and reported, and an error if nothing else was found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ...autograd.grad_mode import enable_grad
from ...autograd.graph import Node, topological_order
from ...func import jvp
from ...pytree import tree_leaves, tree_map
from ...tensors.tensor import Tensor
from ..report import GradientError, GradReport
from .compare import TRUSTED, Problem
from .function import Subject, host, numbers
from .invariants import checked_gradients, numbered, repeatable_values
from .messages import message, repeatable, replay, shown

__all__ = ["check_adjoint", "check_grad"]

Arrays = list[np.ndarray]
Kinks = Literal["auto", "strict", "skip"]
Method = Literal["auto", "differences"]

# Built-in ops without kinks: beside them, one other op may still be judged at its kinks (see check_grad).
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
    """Check the gradients of ``f(*args, **kwargs)`` with respect to its floating-point arguments, in float64.

        check_grad(tl.softmax, np.array([[1.0, 2.0, 4.0]]), dim=1)

    f takes Tensors and returns a Tensor, or tuples, lists and dicts of them. Arguments that are Tensors or NumPy arrays
    of a floating dtype are converted to float64 and differentiated; all other arguments are passed on (integer arrays
    as Tensors). Besides the numbers it checks, at first order: that neither arguments nor the cotangent are changed,
    that gradients have the shape of their arguments, share no memory with anything and stay what they are when the next
    one is computed, that the same call gives the same bits, and that the cotangent's memory layout does not matter.

    order: 1, or 2 for second derivatives as well: of the gradient by the arguments and by the cotangent.
    wrt: which gradients: numbers of floating-point arguments, or leaf Tensors that f reads, in float64
        (``list(model.parameters())``). None: all floating-point arguments.
    method: "auto" takes the complex step where it agrees with differences; "differences" never does.
    rtol: how far a gradient may be off, as a part of the sum of the absolute values of its terms.
    kinks: "strict": at a kink the gradient must lie between the one-sided derivatives. "skip": derivatives at a kink
        are counted and left out. "auto": strict if the graph of f has at most one op that may have kinks: where several
        meet, as in relu(x) - relu(-x) at 0, right rules make a gradient outside of that range.
    seed: of cotangents and directions. max_elements: of more entries than this, a random choice is checked one by one,
        and all of them along random directions.
    allow_inconclusive: return a report even if nothing could be checked.

    Raises GradientError, whose message has the numbers, the arguments and the call that repeats the check. Raises
    TypeError if f has nothing to differentiate or returns no Tensors.
    """
    if order not in (1, 2):
        raise ValueError(f"check_grad: order must be 1 or 2, got {order!r}")
    if kinks not in ("auto", "strict", "skip"):
        raise ValueError(f"check_grad: kinks must be 'auto', 'strict' or 'skip', got {kinks!r}")
    if method not in ("auto", "differences"):
        raise ValueError(f"check_grad: method must be 'auto' or 'differences', got {method!r}")
    subject = Subject("check_grad", f, args, kwargs, wrt, name)
    options: dict[str, Any] = {"seed": seed}
    if order != 2:
        options["order"] = order
    if kinks != "auto":
        options["kinks"] = kinks
    with repeatable(replay("check_grad", subject, **options)):
        return _checked(subject, order, method, rtol, kinks, seed, max_elements, allow_inconclusive)


def _checked(
    subject: Subject, order: int, method: Method, rtol: float, kinks: Kinks, seed: int, max_elements: int,
    allow_inconclusive: bool,
) -> GradReport:  # fmt: skip
    rng = np.random.default_rng(seed)
    at = [np.array(host(leaf), order="C") for leaf in subject.leaves]
    cotangents = [numbers(rng, y.shape) for y in repeatable_values(subject)]
    strict = kinks == "strict" or (kinks == "auto" and _may_kink(subject) <= 1)

    first = checked_gradients(subject, at, cotangents)
    problem = Problem(
        subject.values, at, cotangents, first, lambda xs: subject.vjp(xs, cotangents),
        rtol, strict, method == "auto", rng,
    )  # fmt: skip
    arrays = list(zip(subject.labels, map(host, subject.leaves)))
    arrays += zip(numbered("cotangent", cotangents), cotangents)
    report = _verdict(subject, problem, "the gradient", subject.labels, arrays, max_elements)
    if order == 2:
        directions = [numbers(rng, a.shape) for a in at]
        with_graph, second = subject.vjp_of_vjp(at, cotangents, directions)
        _same_with_graph(subject, first, with_graph, at, cotangents, arrays)
        split = len(at)
        problem = Problem(
            lambda xs: subject.vjp(xs[:split], xs[split:]),
            at + cotangents, directions, second,
            lambda xs: subject.vjp_of_vjp(xs[:split], xs[split:], directions)[1],
            rtol, strict, False, rng, problem.size() * max(float(abs(d).max(initial=0.0)) for d in directions),
        )  # fmt: skip
        labels = [*subject.labels, *numbered("cotangent", cotangents)]
        arrays += zip(numbered("direction", directions), directions)
        limit = max_elements if report.kinks or not strict or _on_kinks(problem) else min(max_elements, 12)
        report += _verdict(subject, problem, "the second derivative", labels, arrays, limit)
    if not report.checked and report.inconclusive and not allow_inconclusive:
        raise GradientError(
            f"{subject.name}: nothing could be checked, all {report.inconclusive} derivatives are inconclusive: the "
            f"function jumps, overflows or is too noisy here (its results: "
            f"{'; '.join(f'{y.dtype} {shown(y)}' for y in subject.values(at))[:300]}). Choose other arguments, or pass "
            f"allow_inconclusive=True",
            report,
        )
    return report


def _on_kinks(problem: Problem) -> bool:
    """Whether directions would be wasted: some derivative is not finite."""
    return problem.broken or not all(np.isfinite(a).all() for a in problem.analytic)


def _may_kink(subject: Subject) -> int:
    """How many ops in the graph of f are not known to be smooth."""
    with enable_grad():
        nodes = topological_order([y.node for y in subject.outputs() if isinstance(y.node, Node)])
    shared = {id(node.plan): node for node in nodes if not (node.plan.built_in and node.name in _SMOOTH)}
    return max(len(shared), sum(type(n) is Node for n in nodes if not (n.plan.built_in and n.name in _SMOOTH)))


def _same_with_graph(
    subject: Subject, first: Arrays, with_graph: Arrays, at: Arrays, cotangents: Arrays,
    arrays: list[tuple[str, np.ndarray]],
) -> None:  # fmt: skip
    wrong = subject.agree(with_graph, first, at, cotangents)
    if wrong is None:
        return
    inputs = "\n".join(f"    {name}  {shown(x)}" for name, x in arrays)
    raise GradientError(
        f"{subject.name}: the gradient of {subject.labels[wrong]} is another one under create_graph=True\n"
        f"    without  {shown(first[wrong])}\n    with     {shown(with_graph[wrong])}\nwith\n{inputs}"
    )


def _verdict(
    subject: Subject, problem: Problem, what: str, labels: list[str], arrays: list[tuple[str, np.ndarray]],
    max_elements: int,
) -> GradReport:  # fmt: skip
    found = problem.compare(max_elements)
    report = found.report()
    if found.wrong:
        raise GradientError(message(subject, what, found, labels, arrays), report)
    return report


def check_adjoint(
    f: Callable[..., Any],
    *args: Any,
    wrt: Any = None,
    seed: int = 0,
    rtol: float = 1e-7,
    name: str | None = None,
    **kwargs: Any,
) -> float:
    """The dot-product test of a whole function at once: <c, J v> = <J^T c, v> for a random c and a random v.

    J^T c comes from backward; J v twice, from values of f alone (complex step where it holds, else differences) and
    from ``tl.func.jvp``. It costs a few evaluations whatever the size of f, so it suits a whole model, with ``wrt`` its
    parameters, in float64; one wrong entry among very many may hide in it. Arguments are as in check_grad.

    rtol: how far the sides may be apart, as a part of the sum of the absolute values of the terms of <J^T c, v>.
    Returns how far they are. Raises GradientError if that is more than rtol, or if f is too rough along v to say.
    """
    subject = Subject("check_adjoint", f, args, kwargs, wrt, name)
    rng = np.random.default_rng(seed)
    at = [np.array(host(leaf), order="C") for leaf in subject.leaves]
    cotangents = [numbers(rng, y.shape) for y in repeatable_values(subject)]
    gradients = subject.vjp(at, cotangents)
    problem = Problem(
        subject.values, at, cotangents, gradients, lambda xs: gradients, rtol, True, True, rng
    )  # fmt: skip
    v = [problem.spread(a, 1) for a in at]
    e = problem.direction(v)
    if not (math.isfinite(e.numeric) and 4 * e.error <= max(rtol, TRUSTED) * e.terms + 1e-12) or e.on_kink:
        raise GradientError(
            f"{subject.name}: the derivative along a random direction is inconclusive, {e.numeric:.6g} give or take "
            f"{e.error:.1g}: the function has a kink, jumps or overflows here. Choose other arguments or another seed"
        )
    terms = max(e.terms, e.claimed)
    sides = [("values of f", e.numeric, 4 * e.error)]
    if wrt is None:
        sides.append(("tl.func.jvp", _by_jvp(subject, v, cotangents), 0.0))
    worst = 0.0
    for source, right, doubt in sides:
        apart = abs(right - e.analytic) / (terms or 1.0)
        if not apart <= rtol + doubt / (terms or 1.0):
            raise GradientError(
                f"{subject.name}: <c, J v> and <J^T c, v> differ\n    <c, J v>    {right:.12g}, from {source}\n"
                f"    <J^T c, v>  {e.analytic:.12g}, from backward\n    apart by {apart:.3g} of {terms:.3g}, the sum "
                f"of the absolute values of its terms\nof {', '.join(subject.labels)} with seed={seed}. "
                f"check_grad names the entry"
            )
        worst = max(worst, apart)
    return worst


def _by_jvp(subject: Subject, v: Arrays, cotangents: Arrays) -> float:
    """<c, J v> by the library's own Jacobian-vector product."""
    places = {id(leaf): k for k, leaf in enumerate(subject.leaves)}

    def g(*xs: Tensor) -> Any:
        swap = lambda x: xs[places[id(x)]] if id(x) in places else x
        result = subject.f(*tree_map(swap, subject.args), **tree_map(swap, subject.kwargs))
        return tuple(y for y in tree_leaves(result) if np.dtype(y.dtype).kind == "f")

    primals = tuple(leaf.detach() for leaf in subject.leaves)
    _, tangents = jvp(g, primals, tuple(subject.on_device(d) for d in v))
    return float(sum(np.vdot(host(t), c) for t, c in zip(tangents, cotangents)))
