"""A program of several ops, with the checks of its gradients."""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import ops as op
from ...autograd.checkpointing import checkpoint
from ...autograd.grad_mode import enable_grad, no_grad
from ...autograd.gradients import grad as _grad
from ...autograd.graph import topological_order
from ...func import jvp, vjp
from ...pytree import tree_leaves
from ...tensors.creation import tensor, zeros_like
from ...tensors.tensor import Tensor
from ..gradcheck.checks import check_grad
from ..gradcheck.function import host, numbers
from ..gradcheck.messages import shown
from ..report import GradientError, GradReport
from .ops import BUILT_IN, ProgramOp, built_in_ops

__all__ = ["Program", "Step", "gradients_or_zeros"]


def _places(values: Iterable[int]) -> dict[int, int]:
    return {value: place for place, value in enumerate(values)}


@dataclass(frozen=True)
class Step:
    """One call. Values have numbers: those of the inputs first, then those that steps make."""

    op: ProgramOp
    operands: tuple[int, ...]
    results: tuple[int, ...]

    def __str__(self) -> str:
        call = self.op.source.format(*(f"t{i}" for i in self.operands))
        return call if self.op.in_place else f"{', '.join(f't{i}' for i in self.results)} = {call}"

    def renumbered(self, numbers_of: Mapping[int, int]) -> Step:
        return Step(
            self.op, tuple(numbers_of[i] for i in self.operands), tuple(numbers_of[i] for i in self.results)
        )  # fmt: skip

    def alone(self, values: Mapping[int, Tensor]) -> Program:
        """The program of this step alone, on these values."""
        distinct = list(dict.fromkeys(self.operands))
        arrays = [host(values[i]) for i in distinct]
        step = self.renumbered({**{i: len(arrays) + k for k, i in enumerate(self.results)}, **_places(distinct)})
        if not self.op.in_place:
            return Program(arrays, [step])
        copied = len(arrays)
        copy = Step(built_in_ops()[list(BUILT_IN).index("clone({})")], step.operands[:1], (copied,))
        return Program(arrays, [copy, Step(self.op, (copied, *step.operands[1:]), (copied,))])

    def run(self, values: dict[int, Tensor]) -> None:
        """Do it, on values that have their numbers."""
        found = self.op.f(*(values[i] for i in self.operands))
        if not self.op.in_place:
            values.update(zip(self.results, tree_leaves(found), strict=True))


class Program:
    """A function that calls one op after the other. :func:`programs` draws them.

    ``program(*tensors)`` is the tuple of those of its values that no later step reads; ``program.inputs`` are arrays to
    call it with. ``repr(program)`` is its source.
    """

    def __init__(self, inputs: Sequence[np.ndarray], steps: Sequence[Step]) -> None:
        read = {i for step in steps for i in step.operands}
        kept = [i for i in range(len(inputs)) if i in read or not steps]
        made = sorted({i for step in steps for i in step.results if i >= len(inputs)})
        places = _places([*kept, *made])
        self.inputs = [inputs[i] for i in kept]
        self._steps = [step.renumbered(places) for step in steps]
        fresh: dict[int, None] = {} if steps else dict.fromkeys(range(len(inputs)))
        for step in self._steps:
            for i in step.operands:
                fresh.pop(i, None)
            fresh.update(dict.fromkeys(step.results))
        self._results = list(fresh)
        self.__name__ = "program"
        self.__signature__ = inspect.Signature(
            [inspect.Parameter(f"t{i}", inspect.Parameter.POSITIONAL_ONLY) for i in range(len(self.inputs))]
        )

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The values that no later step reads."""
        values = self._run(tensors)
        return tuple(values[i] for i in self._results)

    def _run(self, tensors: Iterable[Tensor]) -> dict[int, Tensor]:
        values = dict(enumerate(tensors))
        for step in self._steps:
            step.run(values)
        return values

    @property
    def source(self) -> str:
        """The program as a Python function, one line a step."""
        parameters = ", ".join(f"t{i}" for i in range(len(self.inputs)))
        lines = [f"def program({parameters}):", *(f"    {step}" for step in self._steps)]
        return "\n".join([*lines, f"    return {', '.join(f't{i}' for i in self._results)},"])

    @property
    def ops(self) -> list[str]:
        """The name of each step's op."""
        return [step.op.name for step in self._steps]

    def __repr__(self) -> str:
        given = "\n".join(f"# t{i}: {shown(a)}" for i, a in enumerate(self.inputs))
        return f"{self.source}\n{given}"

    def check(self, order: int = 2, rtol: float = 1e-8, seed: int = 0) -> GradReport:
        """Check the gradients of the program at its inputs, and that all ways to compute them agree.

        - ``check_grad``: against numerical derivatives, at first and second order.
        - One step at a time: each op's own ``func.vjp`` and ``func.jvp``, chained by hand, give the program's.
        - ``backward()`` twice over one graph gives twice the gradient.
        - ``checkpoint`` of some of the steps gives the same gradients, with ``create_graph`` as well.
        - ``func.vjp`` and ``func.jvp`` of the whole agree: <c, J v> = <J^T c, v>.
        - What the graph held goes back without help from the garbage collector.

        order, rtol: as in ``check_grad``. seed: of cotangents, directions, and of which steps are checkpointed.
        Returns what ``check_grad`` found. Raises GradientError with the source and, if one of the ops fails alone at
        the values it got, with its name. Other errors of ops get the source as a note. A program without steps passes.
        """
        if not self._steps:
            return GradReport()
        try:
            return self._checked(order, rtol, seed)
        except GradientError as error:
            told = [self._fault(order, rtol, seed), "program", *_indented(repr(self)), "", str(error)]
            raise GradientError("\n".join(told), error.report) from None
        except Exception as error:
            error.add_note(f"in the program\n{self!r}")
            raise

    # ---- the checks

    def _checked(self, order: int, rtol: float, seed: int) -> GradReport:
        rng = np.random.default_rng(seed)
        with enable_grad():
            xs = self._leaves()
            ys = self(*xs)
            cotangents = [tensor(numbers(rng, y.shape)) for y in ys]
            tangents = [tensor(numbers(rng, x.shape)) for x in xs]
            first = gradients_or_zeros(ys, xs, cotangents)
            self._check_repeated(xs, ys, cotangents, first)
            self._check_one_by_one(cotangents, tangents, first)
            self._check_checkpoint(cotangents, tangents, rng)
            del xs, ys, first
            self._check_memory(cotangents)
        # Directions that move every entry; where one of them shows a mistake, check_grad looks at single entries.
        return check_grad(
            self, *self.inputs, order=order, rtol=rtol, seed=seed, max_elements=3, allow_inconclusive=True
        )  # fmt: skip

    def _leaves(self) -> list[Tensor]:
        return [tensor(a, requires_grad=True) for a in self.inputs]

    def _check_repeated(
        self, xs: list[Tensor], ys: Sequence[Tensor], cotangents: list[Tensor], first: list[Tensor]
    ) -> None:  # fmt: skip
        loss = op.sum(op.stack([op.sum(y * c) for y, c in zip(ys, cotangents)]))
        if not loss.requires_grad:
            return
        for times, what in [(1, "backward()"), (2, "the sum of two backward() over one graph")]:
            loss.backward(retain_graph=True)
            sums = [zeros_like(x) if x.grad is None else x.grad for x in xs]
            _agree(what, sums, f"{times} times autograd.grad", [times * g for g in first])

    def _check_one_by_one(self, cotangents: list[Tensor], tangents: list[Tensor], first: list[Tensor]) -> None:
        """Chain the products of each op alone, on detached values: forwards for jvp, then backwards for vjp."""
        inputs = [tensor(a) for a in self.inputs]
        values, along = dict(enumerate(inputs)), dict(enumerate(tangents))
        given: list[tuple[Tensor, ...]] = []
        for step in self._steps:
            operands = tuple(values[i] for i in step.operands)
            given.append(operands)
            found, moved = jvp(step.op.pure, operands, [along[i] for i in step.operands])
            values.update(zip(step.results, tree_leaves(found)))
            along.update(zip(step.results, tree_leaves(moved)))
        back: dict[int, Tensor] = dict(zip(self._results, cotangents))
        for step, operands in zip(reversed(self._steps), reversed(given)):
            found, pull = vjp(step.op.pure, *operands)
            weights = [back.pop(i, None) for i in step.results]
            filled = [zeros_like(y) if w is None else w for w, y in zip(weights, tree_leaves(found))]
            for i, g in zip(step.operands, pull(filled)):
                back[i] = back[i] + g if i in back else g
        chained = [back.get(i, zeros_like(x)) for i, x in enumerate(inputs)]
        _agree("autograd.grad", first, "func.vjp of one op after the other", chained)
        _, pull = vjp(self, *inputs)
        _agree("func.vjp", pull(cotangents), "autograd.grad", first)
        _, whole = jvp(self, inputs, tangents)
        _agree("func.jvp", whole, "func.jvp of one op after the other", [along[i] for i in self._results])
        sides = [sum(float(op.sum(a * b)) for a, b in zip(*pair)) for pair in ((whole, cotangents), (tangents, first))]
        terms = sum(float(op.sum(op.abs(a * b))) for a, b in (*zip(whole, cotangents), *zip(tangents, first)))
        if not abs(sides[0] - sides[1]) <= 1e-11 * terms:
            raise GradientError(f"<c, J v> is {sides[0]:.12g} by func.jvp, and <J^T c, v> {sides[1]:.12g} by backward")

    def _check_checkpoint(
        self, cotangents: list[Tensor], tangents: list[Tensor], rng: np.random.Generator
    ) -> None:  # fmt: skip
        ranges = self._ranges()
        start, stop = ranges[rng.integers(len(ranges))] if ranges else (0, 0)
        found = []
        for part in [(start, start), (start, stop)]:
            xs = self._leaves()
            first = gradients_or_zeros(self._with_checkpoint(xs, *part), xs, cotangents, create_graph=True)
            found.append([*first, *gradients_or_zeros(first, xs, tangents)])
        count = len(self.inputs)
        lines = "; ".join(map(str, self._steps[start:stop]))
        plain, kept = found
        _agree(f"the gradient with a checkpoint of {lines}", kept[:count], "without it", plain[:count])
        _agree(f"the second derivative with a checkpoint of {lines}", kept[count:], "without it", plain[count:])

    def _ranges(self) -> list[tuple[int, int]]:
        """Where a checkpoint may begin and end: what goes into it is not to be changed in place, in it or later."""
        count = len(self._steps)
        good = []
        for start in range(count):
            before = {*range(len(self.inputs)), *(i for step in self._steps[:start] for i in step.results)}
            if not any(step.op.in_place and step.operands[0] in before for step in self._steps[start:]):
                good += [(start, stop) for stop in range(start + 1, count + 1)]
        return good

    def _with_checkpoint(self, xs: list[Tensor], start: int, stop: int) -> list[Tensor]:
        """The results, with these steps under one checkpoint."""
        values = dict(enumerate(xs))
        for step in self._steps[:start]:
            step.run(values)
        if start < stop:
            inside = self._steps[start:stop]
            entering = sorted({i for step in inside for i in step.operands} & values.keys())
            made = sorted({i for step in inside for i in step.results})

            def region(*given: Tensor) -> list[Tensor]:
                inner = dict(zip(entering, given))
                for step in inside:
                    step.run(inner)
                return [inner[i] for i in made]

            values.update(zip(made, checkpoint(region, *(values[i] for i in entering))))
        for step in self._steps[stop:]:
            step.run(values)
        return [values[i] for i in self._results]

    def _check_memory(self, cotangents: list[Tensor]) -> None:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            xs = self._leaves()
            values = self._run(xs)
            ys = [values[i] for i in self._results]
            nodes = topological_order([y.node for y in ys if y.node is not None])
            alive: list[tuple[weakref.ref[Any], str]] = []
            alive += [(weakref.ref(node), f"the graph's node of {node.name}") for node in nodes]
            alive += [(weakref.ref(t), f"t{i}") for i, t in values.items() if i >= len(xs)]
            first = gradients_or_zeros(ys, xs, cotangents, create_graph=True)
            given = {id(c) for c in cotangents}  # a gradient may be the very cotangent
            alive += [(weakref.ref(g), f"the gradient of t{i}") for i, g in enumerate(first) if id(g) not in given]
            second = gradients_or_zeros(first, xs, [zeros_like(x) for x in xs])
            del xs, values, ys, nodes, first, second
            held = [what for ref, what in alive if ref() is not None]
        finally:
            if was_enabled:
                gc.enable()
        if held:
            raise GradientError(
                f"memory does not go back when the results are gone: something still holds {', '.join(held[:4])}"
                f"{', ...' * (len(held) > 4)}, or a circle of references does"
            )

    # ---- whose fault it is

    def _fault(self, order: int, rtol: float, seed: int) -> str:
        """A line that names the first op that fails alone, at the values it got."""
        if len(self._steps) == 1:
            return f"{self._steps[0].op.name} fails: {self._steps[0]}"
        with no_grad():
            values = {i: tensor(a) for i, a in enumerate(self.inputs)}
            for step in self._steps:
                alone = step.alone(values)
                try:
                    with enable_grad():
                        alone._checked(order, rtol, seed)
                except Exception:
                    return f"{step.op.name} fails alone too, at the values that it got: {step}"
                values.update(zip(step.results, tree_leaves(step.op.pure(*(values[i] for i in step.operands)))))
        return "each op alone is right at the values that it got, but together they are not"


def gradients_or_zeros(
    ys: Sequence[Tensor], xs: Sequence[Tensor], cotangents: Sequence[Tensor], create_graph: bool = False
) -> list[Tensor]:  # fmt: skip
    """The gradients of <cotangents, ys>, zeros where there are none. The graph stays."""
    pairs = [(y, c) for y, c in zip(ys, cotangents, strict=True) if y.requires_grad]
    if not pairs:
        return [zeros_like(x) for x in xs]
    found = _grad([y for y, _ in pairs], xs, [c for _, c in pairs], True, create_graph, allow_unused=True)
    return [zeros_like(x) if g is None else g for g, x in zip(found, xs)]


def _agree(what: str, found: Sequence[Tensor], other: str, expected: Sequence[Tensor]) -> None:
    """Raise GradientError if two ways to the same numbers give more than another order of sums would explain."""
    scale = max((float(abs(host(b)).max(initial=0.0)) for b in expected), default=0.0)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if a.shape != b.shape or not np.allclose(host(a), host(b), rtol=1e-9, atol=1e-12 + 1e-10 * scale):
            raise GradientError(
                f"{what} and {other} differ in number {i}\n    {shown(host(a))}\n    {shown(host(b))}"
            )


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]
