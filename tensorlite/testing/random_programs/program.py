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
from ...pytree import tree_leaves, tree_unflatten
from ...tensors.creation import tensor, zeros_like
from ...tensors.tensor import Tensor
from ..gradcheck.checks import check_grad
from ..gradcheck.function import random_eighths, to_numpy
from ..gradcheck.messages import format_array
from ..report import GradientError, GradReport
from .ops import BUILT_IN, ProgramOp, built_in_ops

__all__ = ["Program", "Step", "gradients_or_zeros"]


def _places(values: Iterable[int]) -> dict[int, int]:
    return {value: place for place, value in enumerate(values)}


@dataclass(frozen=True)
class Step:
    """A call of an op. Values are numbered: first the inputs, then the results of the steps."""

    op: ProgramOp
    operands: tuple[int, ...]
    results: tuple[int, ...]

    def __str__(self) -> str:
        call = self.op.source.format(*(f"t{i}" for i in self.operands))
        return call if self.op.in_place else f"{', '.join(f't{i}' for i in self.results)} = {call}"

    def renumbered(self, numbers_of: Mapping[int, int]) -> Step:
        """Return the same step with other numbers for its values."""
        return Step(
            self.op, tuple(numbers_of[i] for i in self.operands), tuple(numbers_of[i] for i in self.results)
        )  # fmt: skip

    def as_program(self, values: Mapping[int, Tensor]) -> Program:
        """Return a program of this step alone, with its operands' values as inputs."""
        distinct = list(dict.fromkeys(self.operands))
        arrays = [to_numpy(values[i]) for i in distinct]
        step = self.renumbered({**{i: len(arrays) + k for k, i in enumerate(self.results)}, **_places(distinct)})
        if not self.op.in_place:
            return Program(arrays, [step])
        copied = len(arrays)
        copy = Step(built_in_ops()[list(BUILT_IN).index("clone({})")], step.operands[:1], (copied,))
        return Program(arrays, [copy, Step(self.op, (copied, *step.operands[1:]), (copied,))])

    def run(self, values: dict[int, Tensor]) -> None:
        """Run the step on ``values`` and add its results."""
        found = self.op.f(*(values[i] for i in self.operands))
        if not self.op.in_place:
            values.update(zip(self.results, tree_leaves(found), strict=True))


class Program:
    """A function that calls one op after the other, as :func:`programs` draws it.

    ``program(*tensors)`` returns the values that no later step reads. ``program.inputs`` are arrays to call it with.
    ``repr(program)`` is its source.
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
        """Return the values that no later step reads."""
        values = self._run(tensors)
        return tuple(values[i] for i in self._results)

    def _run(self, tensors: Iterable[Tensor]) -> dict[int, Tensor]:
        values = dict(enumerate(tensors))
        for step in self._steps:
            step.run(values)
        return values

    @property
    def source(self) -> str:
        """Return the program as the source of a Python function with one line for each step."""
        parameters = ", ".join(f"t{i}" for i in range(len(self.inputs)))
        lines = [f"def program({parameters}):", *(f"    {step}" for step in self._steps)]
        return "\n".join([*lines, f"    return {', '.join(f't{i}' for i in self._results)},"])

    @property
    def ops(self) -> list[str]:
        """Return the name of each step's op."""
        return [step.op.name for step in self._steps]

    def __repr__(self) -> str:
        given = "\n".join(f"# t{i}: {format_array(a)}" for i, a in enumerate(self.inputs))
        return f"{self.source}\n{given}"

    def check(self, order: int = 2, rtol: float = 1e-8, seed: int = 0) -> GradReport:
        """Check the gradients of the program at its inputs, and that all methods of computing them agree.

        - ``check_grad`` compares with numerical derivatives, at first and second order.
        - ``func.vjp`` and ``func.jvp`` of each step alone, chained by hand, give the gradients of the program.
        - ``backward()`` twice over one graph gives twice the gradient.
        - ``checkpoint`` of some of the steps gives the same gradients, also with ``create_graph``.
        - ``func.vjp`` and ``func.jvp`` of the whole program agree: <c, J v> = <J^T c, v>.
        - All memory of the graph is freed without the garbage collector.

        order, rtol: as in ``check_grad``. seed: the seed of cotangents, directions and the steps to checkpoint.
        Returns the report of ``check_grad``. Raises GradientError with the source of the program. It names the op that
        fails alone at its values, if there is one. Other errors of ops get the source as a note. A program without
        steps passes.
        """
        if not self._steps:
            return GradReport()
        try:
            return self._run_checks(order, rtol, seed)
        except GradientError as error:
            failure = error
        except Exception as error:
            error.add_note(f"in the program\n{self!r}")
            raise
        lines = [self._describe_fault(order, rtol, seed), "program", *_indented(repr(self)), "", str(failure)]
        # This error is raised outside of the except block. hypothesis takes errors with other contexts for other bugs,
        # and would not shrink a program that fails in one check to one that fails in another.
        raise GradientError("\n".join(lines), failure.report)

    # ---- the checks

    def _run_checks(self, order: int, rtol: float, seed: int) -> GradReport:
        rng = np.random.default_rng(seed)
        with enable_grad():
            xs = self._leaves()
            ys = self(*xs)
            cotangents = [tensor(random_eighths(rng, y.shape)) for y in ys]
            tangents = [tensor(random_eighths(rng, x.shape)) for x in xs]
            first = gradients_or_zeros(ys, xs, cotangents)
            self._check_repeated(xs, ys, cotangents, first)
            self._check_one_by_one(cotangents, tangents, first)
            self._check_checkpoint(cotangents, tangents, rng)
            del xs, ys, first
            self._check_memory(cotangents)
        # check_grad uses directions that move every entry. Where one of them is wrong, it looks at single entries.
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
            _require_equal(what, sums, f"{times} times autograd.grad", [times * g for g in first])

    def _check_one_by_one(self, cotangents: list[Tensor], tangents: list[Tensor], first: list[Tensor]) -> None:
        """Chain the products of each op alone on detached values: forwards for jvp, then backwards for vjp."""
        inputs = [tensor(a) for a in self.inputs]
        values, along = dict(enumerate(inputs)), dict(enumerate(tangents))
        given: list[tuple[Tensor, ...]] = []
        for step in self._steps:
            operands = tuple(values[i] for i in step.operands)
            given.append(operands)
            found, moved = jvp(step.op.without_mutation, operands, [along[i] for i in step.operands])
            values.update(zip(step.results, tree_leaves(found)))
            along.update(zip(step.results, tree_leaves(moved)))
        back: dict[int, Tensor] = dict(zip(self._results, cotangents))
        for step, operands in zip(reversed(self._steps), reversed(given)):
            found, pull = vjp(step.op.without_mutation, *operands)
            weights = [back.pop(i, None) for i in step.results]
            filled = [zeros_like(y) if w is None else w for w, y in zip(weights, tree_leaves(found))]
            for i, g in zip(step.operands, pull(tree_unflatten(filled, found))):
                back[i] = back[i] + g if i in back else g
        chained = [back.get(i, zeros_like(x)) for i, x in enumerate(inputs)]
        _require_equal("autograd.grad", first, "func.vjp of one op after the other", chained)
        _, pull = vjp(self, *inputs)
        _require_equal("func.vjp", pull(cotangents), "autograd.grad", first)
        _, total = jvp(self, inputs, tangents)
        _require_equal("func.jvp", total, "func.jvp of one op after the other", [along[i] for i in self._results])
        sides = [sum(float(op.sum(a * b)) for a, b in zip(*pair)) for pair in ((total, cotangents), (tangents, first))]
        terms = sum(float(op.sum(op.abs(a * b))) for a, b in (*zip(total, cotangents), *zip(tangents, first)))
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
        _require_equal(f"the gradient with a checkpoint of {lines}", kept[:count], "without it", plain[:count])
        _require_equal(f"the second derivative with a checkpoint of {lines}", kept[count:], "without it", plain[count:])

    def _ranges(self) -> list[tuple[int, int]]:
        """Return the ranges of steps that may be checkpointed: no step from there on changes their inputs in place."""
        count = len(self._steps)
        good = []
        for start in range(count):
            before = {*range(len(self.inputs)), *(i for step in self._steps[:start] for i in step.results)}
            if not any(step.op.in_place and step.operands[0] in before for step in self._steps[start:]):
                good += [(start, stop) for stop in range(start + 1, count + 1)]
        return good

    def _with_checkpoint(self, xs: list[Tensor], start: int, stop: int) -> list[Tensor]:
        """Return the results, with the steps from start to stop in one checkpoint."""
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
            given = {id(c) for c in cotangents}  # a gradient may be the cotangent itself
            alive += [(weakref.ref(g), f"the gradient of t{i}") for i, g in enumerate(first) if id(g) not in given]
            second = gradients_or_zeros(first, xs, [zeros_like(x) for x in xs])
            del xs, values, ys, nodes, first, second
            held = [what for ref, what in alive if ref() is not None]
        finally:
            if was_enabled:
                gc.enable()
        if held:
            raise GradientError(
                f"memory is not freed when the results are deleted. Still in use: {', '.join(held[:4])}"
                f"{', ...' * (len(held) > 4)}. Look for a reference that an op keeps, or for a reference cycle"
            )

    # ---- the op that is wrong

    def _describe_fault(self, order: int, rtol: float, seed: int) -> str:
        """Return a line that names the first op that fails alone at its values, if there is one."""
        if len(self._steps) == 1:
            return f"{self._steps[0].op.name} fails: {self._steps[0]}"
        with no_grad():
            values = {i: tensor(a) for i, a in enumerate(self.inputs)}
            for step in self._steps:
                alone = step.as_program(values)
                try:
                    with enable_grad():
                        alone._run_checks(order, rtol, seed)
                except Exception:
                    return f"{step.op.name} also fails alone, at its values in the program: {step}"
                found = step.op.without_mutation(*(values[i] for i in step.operands))
                values.update(zip(step.results, tree_leaves(found)))
        return "each op alone passes at its values in the program, but together they fail"


def gradients_or_zeros(
    ys: Sequence[Tensor], xs: Sequence[Tensor], cotangents: Sequence[Tensor], create_graph: bool = False
) -> list[Tensor]:  # fmt: skip
    """Return the gradients of <cotangents, ys>, with zeros for None. The graph is kept."""
    pairs = [(y, c) for y, c in zip(ys, cotangents, strict=True) if y.requires_grad]
    if not pairs:
        return [zeros_like(x) for x in xs]
    found = _grad([y for y, _ in pairs], xs, [c for _, c in pairs], True, create_graph, allow_unused=True)
    return [zeros_like(x) if g is None else g for g, x in zip(found, xs)]


def _require_equal(what: str, found: Sequence[Tensor], other: str, expected: Sequence[Tensor]) -> None:
    """Raise GradientError if two results differ by more than the order of summation explains."""
    scale = max((float(abs(to_numpy(b)).max(initial=0.0)) for b in expected), default=0.0)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if a.shape != b.shape or not np.allclose(to_numpy(a), to_numpy(b), rtol=1e-9, atol=1e-12 + 1e-10 * scale):
            raise GradientError(
                f"{what} and {other} differ in number {i}\n    {format_array(to_numpy(a))}\n"
                f"    {format_array(to_numpy(b))}"
            )


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]
