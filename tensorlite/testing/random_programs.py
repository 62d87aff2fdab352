"""Random programs: many ops at once, in an order that nobody thought of, that shrink to the one that is wrong.

    from hypothesis import given
    from tensorlite.testing import programs

    @given(programs(ops=[my_op]))
    def test_my_op_among_others(program):
        program.check()

A program is drawn as a list of ops with numbers for their operands, counted back from the newest value and modulo the
values that fit. So whichever step is deleted, what is left is a program again, and shrinking, which deletes all that
can go, ends with the step at fault.
"""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from .. import ops as op
from ..autograd.checkpointing import checkpoint
from ..autograd.grad_mode import enable_grad, no_grad
from ..autograd.gradients import grad as _grad
from ..autograd.graph import walk
from ..errors import GraphError, VersionError
from ..func import jvp, vjp
from ..nn import functional as F
from ..tensors.creation import ones_like, tensor, zeros_like
from ..tensors.tensor import Tensor, clone
from .gradcheck.checks import check_grad
from .gradcheck.function import host, leaves_of, numbers
from .gradcheck.messages import shown
from .report import GradientError, GradReport
from .strategies import ElementsLike, Shape, Signature, Sources, draw_tensor, sources

__all__ = ["Program", "programs"]

_LARGEST = 32.0  # the absolute value of an entry: beyond it differences lose digits
_MOST = 48  # entries of a value
_DIMS = 4


# ---- ops ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Op:
    """A function of Tensors, the shapes it takes, and how a call of it is written: "f({}, dim=0)"."""

    source: str
    f: Callable[..., Any]
    takes: Signature
    in_place: bool = False  # writes into its first operand
    own: bool = False

    @property
    def name(self) -> str:
        """How messages call it: without operands and options, if it is a plain call."""
        head = self.source.partition("(")[0]
        return head if head.isidentifier() else self.source

    def pure(self, *operands: Tensor) -> Any:
        """The same function without the writing: of a copy of its first operand."""
        return self.f(clone(operands[0]), *operands[1:]) if self.in_place else self.f(*operands)

    def fits(self, shapes: Sequence[Shape]) -> bool:
        """Whether these are the shapes of its first operands."""
        sizes: dict[str, int] = {}
        least = dict(self.takes.least)
        batch: Shape = ()
        for number, ((leads, dims), shape) in enumerate(zip(self.takes.inputs, shapes)):
            start = len(shape) - len(dims)
            if start < 0 or (start and not leads):
                return False
            for dim, n in zip(dims, shape[start:]):
                if n != (sizes.setdefault(dim.name, n) if dim.size is None else dim.size) or n < least.get(dim.name, 0):
                    return False
            if leads:
                joined = _broadcast(batch, shape[:start])
                if joined is None or (self.in_place and number and joined != batch):
                    return False
                batch = joined
        return True


@cache
def _broadcast(a: Shape, b: Shape) -> Shape | None:
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        return None


def _elementwise(arity: int) -> str:
    return ",".join(["(...)"] * arity)


def _write_row(x: Tensor, y: Tensor) -> Tensor:
    x[0] = y
    return x


def _scale_column(x: Tensor) -> Tensor:
    x[..., 0] = 0.5 * x[..., 0]
    return x


# Smooth everywhere, and with results about as large as their operands.
_BUILT_IN: dict[str, tuple[Callable[..., Any], str]] = {
    "tanh({})": (op.tanh, "(...)"),
    "sigmoid({})": (op.sigmoid, "(...)"),
    "sin({})": (op.sin, "(...)"),
    "cos({})": (op.cos, "(...)"),
    "erf({})": (op.erf, "(...)"),
    "atan({})": (op.atan, "(...)"),
    "gelu({})": (F.gelu, "(...)"),
    "silu({})": (F.silu, "(...)"),
    "softplus({})": (F.softplus, "(...)"),
    "exp(-square({}))": (lambda x: op.exp(op.neg(op.square(x))), "(...)"),
    "log1p(square({}))": (lambda x: op.log1p(op.square(x)), "(...)"),
    "sqrt(square({}) + 1)": (lambda x: op.sqrt(op.square(x) + 1), "(...)"),
    "0.5 * {}": (lambda x: 0.5 * x, "(...)"),
    "1 - {}": (lambda x: 1 - x, "(...)"),
    "add({}, {})": (op.add, _elementwise(2)),
    "sub({}, {})": (op.sub, _elementwise(2)),
    "mul({}, {})": (op.mul, _elementwise(2)),
    "{} / (square({}) + 1)": (lambda x, y: x / (op.square(y) + 1), _elementwise(2)),
    "logaddexp({}, {})": (op.logaddexp, _elementwise(2)),
    "matmul({}, {})": (op.matmul, "(...,m,k),(...,k,n)"),
    "mv({}, {})": (op.mv, "(m,n),(n)"),
    "dot({}, {})": (op.dot, "(n),(n)"),
    "outer({}, {})": (op.outer, "(m),(n)"),
    "linear({}, {}, {})": (F.linear, "(...,k),(n,k),(n)"),
    "einsum('ij,ij->j', {}, {})": (lambda x, y: op.einsum("ij,ij->j", x, y), "(m,n),(m,n)"),
    "scaled_dot_product_attention({}, {}, {})": (F.scaled_dot_product_attention, "(l,d),(s,d),(s,e)"),
    "softmax({}, dim=-1)": (lambda x: op.softmax(x, dim=-1), "(...,n)"),
    "softmax({}, dim=0)": (lambda x: op.softmax(x, dim=0), "(m,n)"),
    "log_softmax({}, dim=-1)": (lambda x: op.log_softmax(x, dim=-1), "(...,n)"),
    "logsumexp({}, dim=-1)": (lambda x: op.logsumexp(x, dim=-1), "(...,n)"),
    "layer_norm({}, {}, {}, eps=1.0)": (lambda x, w, b: F.layer_norm(x, w.shape, w, b, 1.0), "(...,n),(n),(n)"),
    "rms_norm({}, {}, eps=1.0)": (lambda x, w: F.rms_norm(x, w.shape, w, 1.0), "(...,n),(n)"),
    "mean({})": (op.mean, "(...)"),
    "mean({}, dim=0, keepdim=True)": (lambda x: op.mean(x, dim=0, keepdim=True), "(...,n)"),
    "sum({}, dim=-1)": (lambda x: op.sum(x, dim=-1), "(...,n)"),
    "sum({}, dim=-1, keepdim=True)": (lambda x: op.sum(x, dim=-1, keepdim=True), "(...,n)"),
    "var({}, dim=-1, correction=0)": (lambda x: op.var(x, dim=-1, correction=0), "(...,n)"),
    "cumsum({}, dim=-1)": (lambda x: op.cumsum(x, dim=-1), "(...,n)"),
    "transpose({}, 0, 1)": (lambda x: op.transpose(x, 0, 1), "(...,m,n)"),
    "reshape({}, (-1,))": (lambda x: op.reshape(x, (-1,)), "(...)"),
    "unsqueeze({}, 0)": (lambda x: op.unsqueeze(x, 0), "(...)"),
    "squeeze({})": (op.squeeze, "(...)"),
    "flip({}, -1)": (lambda x: op.flip(x, -1), "(...,n)"),
    "roll({}, 1, 0)": (lambda x: op.roll(x, 1, 0), "(...,n)"),
    "broadcast_tensors({}, {})": (op.broadcast_tensors, _elementwise(2)),
    "cat([{}, {}])": (lambda x, y: op.cat([x, y]), "(m,n),(l,n)"),
    "cat([{}, {}], dim=-1)": (lambda x, y: op.cat([x, y], dim=-1), "(m,n),(m,k)"),
    "stack([{}, {}])": (lambda x, y: op.stack([x, y]), "(n),(n)"),
    "split({}, 1)": (lambda x: op.split(x, 1), "(m>=2,n)"),
    "chunk({}, 2, dim=-1)": (lambda x: op.chunk(x, 2, dim=-1), "(...,n>=2)"),
    "unbind({})": (op.unbind, "(m>=1,n)"),
    "tile({}, (2,))": (lambda x: op.tile(x, (2,)), "(n)"),
    "diagonal({})": (op.diagonal, "(m,n)"),
    "tril({})": (op.tril, "(m,n)"),
    "{}[0]": (lambda x: x[0], "(...,n>=1)"),
    "{}[..., ::2]": (lambda x: x[..., ::2], "(...,n)"),
    "{}[[0, -1, 0]]": (lambda x: x[[0, -1, 0]], "(n>=1)"),
    "{}[:, None, -1]": (lambda x: x[:, None, -1], "(m,n>=1)"),
    "index_select({}, 0, [0, 0])": (lambda x: op.index_select(x, 0, tensor([0, 0])), "(m>=1,n)"),
    "gather({}, 1, [[0], [0]])": (lambda x: op.gather(x, 1, tensor([[0], [0]])), "(m>=2,n>=1)"),
    "embedding([0, 1, 0], {})": (lambda w: F.embedding(tensor([0, 1, 0]), w), "(m>=2,n)"),
    "clone({})": (clone, "(...)"),
}

# What writes into its first operand. What it writes over belongs to nobody else, and no gradient needs it.
_IN_PLACE: dict[str, tuple[Callable[..., Any], str]] = {
    "{}.add_({})": (lambda x, y: x.add_(y), _elementwise(2)),
    "{}.mul_({})": (lambda x, y: x.mul_(y), _elementwise(2)),
    "{}.tanh_()": (lambda x: x.tanh_(), "(...)"),
    "{}.sin_()": (lambda x: x.sin_(), "(...)"),
    "{}[0] = {}": (_write_row, "(m>=1,n),(n)"),
    "scale_column({})": (_scale_column, "(...,n>=1)"),
}


@cache
def _built_in_ops() -> tuple[_Op, ...]:
    made = [_Op(source, f, Signature.parse(takes)) for source, (f, takes) in _BUILT_IN.items()]
    return (*made, *(_Op(source, f, Signature.parse(takes), in_place=True) for source, (f, takes) in _IN_PLACE.items()))


def _own_ops(given: Any) -> list[_Op]:
    if given is None:
        return []
    if callable(given):
        raise TypeError("programs: ops must be a list of functions or a dict of them, got one function; write [f]")
    if isinstance(given, Mapping):
        return [_own_op(str(name), value) for name, value in given.items()]
    return [_own_op(getattr(f, "__name__", type(f).__name__), f) for f in given]


def _own_op(name: str, given: Any) -> _Op:
    f, takes = given if isinstance(given, tuple) else (given, None)
    if not callable(f):
        raise TypeError(f"programs: op {name!r} must be a function, got {type(f).__name__}")
    signature = Signature.parse(takes) if isinstance(takes, str) else None
    arity = len(signature.inputs) if signature else _arity(name, f) if takes is None else takes
    if type(arity) is not int or arity < 1:
        raise ValueError(f"programs: op {name!r} needs the number of its operands, 1 or more, got {arity!r}")
    if "{" in name:
        if name.count("{}") != arity or name.count("{") != arity:
            raise ValueError(f"programs: {name!r} must have one {{}} for each of {arity} operands")
    else:
        name = f"{name}({', '.join(['{}'] * arity)})"
    return _Op(name, f, signature or Signature.parse(_elementwise(arity)), own=True)


def _arity(name: str, f: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    count = sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    if not count:
        raise ValueError(
            f"programs: cannot tell how many tensors {name} takes; write ops={{{name!r}: (f, 2)}}, or its shapes in "
            f"place of the number: '(m,n),(n)'"
        )
    return count


def _places(values: Iterable[int]) -> dict[int, int]:
    return {value: place for place, value in enumerate(values)}


# ---- programs -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """One call. Values have numbers: those of the inputs first, then those that steps make."""

    op: _Op
    operands: tuple[int, ...]
    results: tuple[int, ...]

    def __str__(self) -> str:
        call = self.op.source.format(*(f"t{i}" for i in self.operands))
        return call if self.op.in_place else f"{', '.join(f't{i}' for i in self.results)} = {call}"

    def renumbered(self, numbers_of: Mapping[int, int]) -> _Step:
        return _Step(
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
        copy = _Step(_built_in_ops()[list(_BUILT_IN).index("clone({})")], step.operands[:1], (copied,))
        return Program(arrays, [copy, _Step(self.op, (copied, *step.operands[1:]), (copied,))])

    def run(self, values: dict[int, Tensor]) -> None:
        """Do it, on values that have their numbers."""
        found = self.op.f(*(values[i] for i in self.operands))
        if not self.op.in_place:
            values.update(zip(self.results, leaves_of(found), strict=True))


class Program:
    """A function that calls one op after the other. :func:`programs` draws them.

    ``program(*tensors)`` is the tuple of those of its values that no later step reads; ``program.inputs`` are arrays to
    call it with. ``repr(program)`` is its source.
    """

    def __init__(self, inputs: Sequence[np.ndarray], steps: Sequence[_Step]) -> None:
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
            first = _gradients(ys, xs, cotangents)
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
            values.update(zip(step.results, leaves_of(found)))
            along.update(zip(step.results, leaves_of(moved)))
        back: dict[int, Tensor] = dict(zip(self._results, cotangents))
        for step, operands in zip(reversed(self._steps), reversed(given)):
            found, pull = vjp(step.op.pure, *operands)
            weights = [back.pop(i, None) for i in step.results]
            filled = [zeros_like(y) if w is None else w for w, y in zip(weights, leaves_of(found))]
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
            first = _gradients(self._with_checkpoint(xs, *part), xs, cotangents, create_graph=True)
            found.append([*first, *_gradients(first, xs, tangents)])
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
            nodes = walk([y.node for y in ys if y.node is not None])
            alive: list[tuple[weakref.ref[Any], str]] = []
            alive += [(weakref.ref(node), f"the graph's node of {node.name}") for node in nodes]
            alive += [(weakref.ref(t), f"t{i}") for i, t in values.items() if i >= len(xs)]
            first = _gradients(ys, xs, cotangents, create_graph=True)
            given = {id(c) for c in cotangents}  # a gradient may be the very cotangent
            alive += [(weakref.ref(g), f"the gradient of t{i}") for i, g in enumerate(first) if id(g) not in given]
            second = _gradients(first, xs, [zeros_like(x) for x in xs])
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
                values.update(zip(step.results, leaves_of(step.op.pure(*(values[i] for i in step.operands)))))
        return "each op alone is right at the values that it got, but together they are not"


def _gradients(
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


# ---- drawing --------------------------------------------------------------------------------


@dataclass
class _Use:
    """How often an op was tried, and did come into a program; why it did not the last time."""

    tried: int = 0
    used: int = 0
    why: str = ""


def programs(
    ops: Any = None,
    max_ops: int = 6,
    inputs: str | Sequence[Shape] = "(m>=1,n>=1),(n),(m,1),()",
    elements: ElementsLike | Sequence[ElementsLike] = "moderate",
    built_in: bool = True,
) -> SearchStrategy[Program]:
    """Programs of up to max_ops calls of ops, each on inputs and on what calls before it made.

        @given(programs(ops={"norm": (my_norm, "(...,n),(n)"), "my_op({}, {}, alpha=2)": (my_op_with_alpha, 2)}))
        def test_my_ops_among_others(program):
            program.check()

    ops: functions of Tensors that return a Tensor of a floating dtype, or a tuple or list of them. A list of functions,
        whose parameters without defaults are operands, of any shapes that broadcast together; or a dict from names to
        functions, or to pairs of a function and the number of its operands or their shapes, as :func:`matching` writes
        them. A name with ``{}`` in it is how a call is written. They make half of the steps.
    inputs: the shapes of inputs, as :func:`matching` writes them, or a list of shapes. Those that are not used are left
        out of the program.
    elements: a kind that :func:`elements` knows, a strategy, or a list of these with one for each input.
    built_in: whether to use the library's own ops too: smooth ones, with views, indexing, results in several parts and
        changes in place among them.

    A step is left out if no values fit it, or if its results have entries that are not finite or beyond 32 in absolute
    value, or too many of them. Programs shrink to few steps on small inputs. An op that raises an error fails the test.

    Raises TypeError or ValueError for arguments that are not as above, and ValueError when it turns out that an op can
    never be used.
    """
    own = _own_ops(ops)
    all_built_in = list(_built_in_ops()) if built_in else []
    if not own and not all_built_in:
        raise ValueError("programs: built_in=False leaves no ops; give some")
    if type(max_ops) is not int or max_ops < 1:
        raise ValueError(f"programs: max_ops must be an int of 1 or more, got {max_ops!r}")
    if not isinstance(inputs, str):
        inputs = ",".join(f"({','.join(map(str, shape))})" for shape in inputs)
    signature = Signature.parse(inputs)
    share = max(1, len(all_built_in) // max(1, len(own)))
    table = st.sampled_from([*own * share, *all_built_in])
    width = max(len(o.takes.inputs) for o in (*own, *all_built_in))
    raw = st.lists(st.tuples(table, st.binary(min_size=width, max_size=width)), min_size=1, max_size=max_ops)
    kinds = sources("programs", signature, elements)
    return _programs(_Recipe(signature, kinds, raw, {o.source: _Use() for o in own}))


class _Recipe:
    """What programs are drawn from. No dataclass: hypothesis would show its fields, pages of ops, not its repr."""

    def __init__(
        self, signature: Signature, kinds: Sources, steps: SearchStrategy[list[tuple[_Op, bytes]]],
        uses: dict[str, _Use],
    ) -> None:  # fmt: skip
        self.signature, self.kinds, self.steps, self.uses = signature, kinds, steps, uses

    def __repr__(self) -> str:
        return f"inputs={self.signature.text!r}, ops={[*self.uses]}"


@st.composite
def _programs(draw: DrawFn, recipe: _Recipe) -> Program:
    wanted = draw(recipe.steps)
    shapes, _ = recipe.signature.draw(draw)
    builder = _Builder([host(draw_tensor(draw, shape, *kind, False)) for shape, kind in zip(shapes, recipe.kinds)])
    for o, choices in wanted:
        why = builder.add(o, choices)
        if o.own:
            use = recipe.uses[o.source]
            use.tried, use.used, use.why = use.tried + 1, use.used + (why is None), why or use.why
            if use.tried >= 200 and not use.used:
                raise ValueError(
                    f"programs: {o.name} was tried {use.tried} times and could not be used once: {use.why}. Say which "
                    f"shapes it takes, or choose other inputs and elements"
                )
    return Program(builder.inputs, builder.steps)


@dataclass
class _Builder:
    """Makes steps of ops and bytes, and computes their values to see that they fit."""

    inputs: list[np.ndarray]
    steps: list[_Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = {i: tensor(a) for i, a in enumerate(self.inputs)}

    def add(self, o: _Op, choices: bytes) -> str | None:
        """Take the step if it fits; else say why not."""
        operands: list[int] = []
        shapes: list[Shape] = []
        for choice in choices[: len(o.takes.inputs)]:
            change = o.in_place and not operands
            fitting = [i for i, v in reversed(self.values.items()) if o.fits([*shapes, v.shape])]
            if change:
                fitting = [i for i in fitting if self._may_change(i)]
            if not fitting:
                return f"no value has a shape that fits {o.takes.text!r}"
            operands.append(fitting[choice % len(fitting)])
            shapes.append(self.values[operands[-1]].shape)
        try:
            with no_grad(), np.errstate(all="ignore"):
                found = leaves_of(o.pure(*(self.values[i] for i in operands)))
        except Exception as error:
            call = o.source.format(*(f"t{i}" for i in operands))
            lines = [*(f"t{i}: {shown(a)}" for i, a in enumerate(self.inputs)), *map(str, self.steps), call]
            error.add_note("in the program\n" + "\n".join(f"    {line}" for line in lines))
            raise
        for y in found:
            if not isinstance(y, Tensor) or not y.is_floating_point():
                what = y.dtype if isinstance(y, Tensor) else type(y).__name__
                raise TypeError(f"programs: {o.name} must return Tensors of a floating dtype, got {what}")
            if y.ndim > _DIMS or y.numel() > _MOST or len(found) > _DIMS:
                return f"its results are too large: {len(found)} of shape {y.shape}"
            if not bool((abs(host(y)) <= _LARGEST).all()):
                return f"its results are not finite, or beyond {_LARGEST:g}: {shown(host(y))}"
        fresh = len(self.values)
        results = (operands[0],) if o.in_place else tuple(range(fresh, fresh + len(found)))
        step = _Step(o, tuple(operands), results)
        if o.in_place and not self._sound(step):
            return "a gradient needs what it would write over"
        self.steps.append(step)
        self.values.update(zip(results, found))
        return None

    def _may_change(self, i: int) -> bool:
        """Whether no other value would change too."""
        mine = self.values[i].array
        return i >= len(self.inputs) and not any(
            np.may_share_memory(mine, v.array) for k, v in self.values.items() if k != i
        )

    def _sound(self, step: _Step) -> bool:
        """Whether the library lets gradients of both orders through this change. It may refuse, but not be wrong."""
        program = Program(self.inputs, [*self.steps, step])
        try:
            with enable_grad():
                xs = program._leaves()
                ys = program(*xs)
                first = _gradients(ys, xs, [ones_like(y) for y in ys], create_graph=True)
                _gradients(first, xs, [ones_like(x) for x in xs])
        except (VersionError, GraphError):
            return False
        return True
