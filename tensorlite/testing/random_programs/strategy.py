"""The hypothesis strategy that draws programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from ...autograd.grad_mode import enable_grad, no_grad
from ...errors import GraphError, VersionError
from ...pytree import tree_leaves
from ...tensors.creation import ones_like, tensor
from ...tensors.tensor import Tensor
from ..gradcheck.function import to_numpy
from ..gradcheck.messages import format_array
from ..strategies.arguments import Shape
from ..strategies.drawn_tensors import Sources, draw_tensor, sources
from ..strategies.entries import ElementsLike
from ..strategies.signatures import Signature
from .ops import ProgramOp, built_in_ops, user_ops
from .program import Program, Step, gradients_or_zeros

__all__ = ["programs"]

_MAX_VALUE = 32.0  # the largest absolute value of an entry, because differences lose digits beyond it
_MAX_ENTRIES = 48  # the largest number of entries of a value
_MAX_DIMS = 4


@dataclass
class _Usage:
    """A count of how often an op was tried and used, with the reason why it was not used the last time."""

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
    """Draw programs of up to max_ops calls of ops, each on inputs and on results of earlier calls.

        @given(programs(ops={"norm": (my_norm, "(...,n),(n)"), "my_op({}, {}, alpha=2)": (my_op_with_alpha, 2)}))
        def test_my_ops_among_others(program):
            program.check()

    ops: functions of Tensors that return a Tensor of a floating dtype, or a tuple or list of such Tensors. They make
        half of the steps. In a list of functions, the parameters without defaults are operands. Their shapes broadcast
        together. In a dict from names to functions, a function may be a pair with the number of its operands, or with
        their shapes, as :func:`matching` writes them. A name with ``{}`` in it is the text of a call.
    inputs: the shapes of the inputs, as :func:`matching` writes them, or a list of shapes. A program omits the inputs
        that it does not use.
    elements: a kind that :func:`elements` knows, a strategy, or a list of these with one for each input.
    built_in: whether to use ops of the library, too. They are smooth; views, indexing, ops with several results and
        in-place ops are among them.

    A step is omitted if no values fit it, or if its results are too large: not finite, above 32 in absolute value, or
    with too many entries. Programs shrink to few steps on small inputs. An op that raises an error fails the test.

    Raises TypeError or ValueError for invalid arguments, and ValueError if an op can never be used.
    """
    own = user_ops(ops)
    all_built_in = list(built_in_ops()) if built_in else []
    if not own and not all_built_in:
        raise ValueError("programs: built_in=False leaves no ops. Pass ops")
    if type(max_ops) is not int or max_ops < 1:
        raise ValueError(f"programs: expected max_ops to be an int of 1 or more, got {max_ops!r}")
    if not isinstance(inputs, str):
        inputs = ",".join(f"({','.join(map(str, shape))})" for shape in inputs)
    signature = Signature.parse(inputs)
    share = max(1, len(all_built_in) // max(1, len(own)))
    table = st.sampled_from([*own * share, *all_built_in])
    width = max(len(o.signature.inputs) for o in (*own, *all_built_in))
    raw = st.lists(st.tuples(table, st.binary(min_size=width, max_size=width)), min_size=1, max_size=max_ops)
    kinds = sources("programs", signature, elements)
    return _programs(_Ingredients(signature, kinds, raw, {o.source: _Usage() for o in own}))


class _Ingredients:
    """The parts that programs are drawn from.

    It is not a dataclass, because hypothesis would print its fields, which are pages of ops, and not its repr.
    """

    def __init__(
        self, signature: Signature, kinds: Sources, steps: SearchStrategy[list[tuple[ProgramOp, bytes]]],
        uses: dict[str, _Usage],
    ) -> None:  # fmt: skip
        self.signature, self.kinds, self.steps, self.uses = signature, kinds, steps, uses

    def __repr__(self) -> str:
        return f"inputs={self.signature.text!r}, ops={[*self.uses]}"


@st.composite
def _programs(draw: DrawFn, recipe: _Ingredients) -> Program:
    wanted = draw(recipe.steps)
    shapes, _ = recipe.signature.draw(draw)
    builder = _Builder([to_numpy(draw_tensor(draw, shape, *kind, False)) for shape, kind in zip(shapes, recipe.kinds)])
    for o, choices in wanted:
        why = builder.add(o, choices)
        if o.from_user:
            use = recipe.uses[o.source]
            use.tried, use.used, use.why = use.tried + 1, use.used + (why is None), why or use.why
            if use.tried >= 200 and not use.used:
                raise ValueError(
                    f"programs: {o.name} was tried {use.tried} times and could never be used: {use.why}. Pass the "
                    f"shapes that it takes, or choose other inputs and elements"
                )
    return Program(builder.inputs, builder.steps)


@dataclass
class _Builder:
    """A builder that makes steps of ops and bytes, and computes their values to check that they fit."""

    inputs: list[np.ndarray]
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = {i: tensor(a) for i, a in enumerate(self.inputs)}

    def add(self, o: ProgramOp, choices: bytes) -> str | None:
        """Add the step and return None if it fits. Return the reason if it does not."""
        operands: list[int] = []
        shapes: list[Shape] = []
        for choice in choices[: len(o.signature.inputs)]:
            change = o.in_place and not operands
            fitting = [i for i, v in reversed(self.values.items()) if o.fits([*shapes, v.shape])]
            if change:
                fitting = [i for i in fitting if self._can_be_overwritten(i)]
            if not fitting:
                return f"no value has a shape that fits {o.signature.text!r}"
            operands.append(fitting[choice % len(fitting)])
            shapes.append(self.values[operands[-1]].shape)
        try:
            with no_grad(), np.errstate(all="ignore"):
                found = tree_leaves(o.without_mutation(*(self.values[i] for i in operands)))
        except Exception as error:
            call = o.source.format(*(f"t{i}" for i in operands))
            lines = [*(f"t{i}: {format_array(a)}" for i, a in enumerate(self.inputs)), *map(str, self.steps), call]
            error.add_note("in the program\n" + "\n".join(f"    {line}" for line in lines))
            raise
        for y in found:
            if not isinstance(y, Tensor) or not y.is_floating_point():
                what = y.dtype if isinstance(y, Tensor) else type(y).__name__
                raise TypeError(f"programs: expected {o.name} to return Tensors of a floating dtype, got {what}")
            if y.ndim > _MAX_DIMS or y.numel() > _MAX_ENTRIES or len(found) > _MAX_DIMS:
                return f"its results are too large: {len(found)} of shape {y.shape}"
            if not bool((abs(to_numpy(y)) <= _MAX_VALUE).all()):
                return f"its results are not finite, or above {_MAX_VALUE:g}: {format_array(to_numpy(y))}"
        fresh = len(self.values)
        results = (operands[0],) if o.in_place else tuple(range(fresh, fresh + len(found)))
        step = Step(o, tuple(operands), results)
        if o.in_place and not self._keeps_gradients(step):
            return "a gradient needs the values that it would overwrite"
        self.steps.append(step)
        self.values.update(zip(results, found))
        return None

    def _can_be_overwritten(self, i: int) -> bool:
        """Return whether no input and no other value would change, too."""
        array = self.values[i].array
        return i >= len(self.inputs) and not any(
            np.may_share_memory(array, v.array) for k, v in self.values.items() if k != i
        )

    def _keeps_gradients(self, step: Step) -> bool:
        """Return whether gradients of both orders can be computed after this in-place step.

        The library may raise an error for it, but must not give wrong gradients.
        """
        program = Program(self.inputs, [*self.steps, step])
        try:
            with enable_grad():
                xs = [tensor(a, requires_grad=True) for a in program.inputs]
                ys = program(*xs)
                first = gradients_or_zeros(ys, xs, [ones_like(y) for y in ys], create_graph=True)
                gradients_or_zeros(first, xs, [ones_like(x) for x in xs])
        except (VersionError, GraphError):
            return False
        return True
