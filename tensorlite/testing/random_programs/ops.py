"""The table of ops that programs consist of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ... import ops as op
from ...nn import functional as F
from ...ops import clone
from ...tensors.creation import tensor
from ...tensors.tensor import Tensor
from ..strategies.arguments import Shape
from ..strategies.signatures import Signature

__all__ = ["BUILT_IN", "IN_PLACE", "ProgramOp", "built_in_ops", "user_ops"]


@dataclass(frozen=True)
class ProgramOp:
    """A function of Tensors with the shapes it takes.

    source: the text of a call, such as "f({}, dim=0)". in_place: whether it writes into its first operand.
    from_user: whether it was passed to ``programs``.
    """

    source: str
    f: Callable[..., Any]
    signature: Signature
    in_place: bool = False
    from_user: bool = False

    @property
    def name(self) -> str:
        """Return the name in messages: the function's if the source is a plain call, else the source."""
        head = self.source.partition("(")[0]
        return head if head.isidentifier() else self.source

    def without_mutation(self, *operands: Tensor) -> Any:
        """Call the function on a copy of its first operand if it works in place."""
        return self.f(clone(operands[0]), *operands[1:]) if self.in_place else self.f(*operands)

    def fits(self, shapes: Sequence[Shape]) -> bool:
        """Return whether these can be the shapes of its first operands."""
        sizes: dict[str, int] = {}
        least = dict(self.signature.least)
        batch: Shape = ()
        for number, ((leads, dims), shape) in enumerate(zip(self.signature.inputs, shapes)):
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


# Ops that are smooth everywhere, with results about as large as their operands.
BUILT_IN: dict[str, tuple[Callable[..., Any], str]] = {
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

# Ops that write into their first operand. A program uses them only where no other value shares that memory and no
# gradient needs the old entries.
IN_PLACE: dict[str, tuple[Callable[..., Any], str]] = {
    "{}.add_({})": (lambda x, y: x.add_(y), _elementwise(2)),
    "{}.mul_({})": (lambda x, y: x.mul_(y), _elementwise(2)),
    "{}.tanh_()": (lambda x: x.tanh_(), "(...)"),
    "{}.sin_()": (lambda x: x.sin_(), "(...)"),
    "{}[0] = {}": (_write_row, "(m>=1,n),(n)"),
    "scale_column({})": (_scale_column, "(...,n>=1)"),
}


@cache
def built_in_ops() -> tuple[ProgramOp, ...]:
    """Return the library's own ops: those of BUILT_IN, then those of IN_PLACE."""
    return tuple(
        ProgramOp(source, f, Signature.parse(takes), in_place=table is IN_PLACE)
        for table in (BUILT_IN, IN_PLACE) for source, (f, takes) in table.items()
    )  # fmt: skip


def user_ops(given: Any) -> list[ProgramOp]:
    """Return the ops of a list or dict passed to ``programs``. Raise TypeError or ValueError if it is invalid."""
    if given is None:
        return []
    if callable(given):
        raise TypeError("programs: expected ops to be a list or dict of functions, got one function. Pass [f]")
    if isinstance(given, Mapping):
        return [_user_op(str(name), value) for name, value in given.items()]
    return [_user_op(getattr(f, "__name__", type(f).__name__), f) for f in given]


def _user_op(name: str, given: Any) -> ProgramOp:
    f, takes = given if isinstance(given, tuple) else (given, None)
    if not callable(f):
        raise TypeError(f"programs: expected op {name!r} to be a function, got {type(f).__name__}")
    signature = Signature.parse(takes) if isinstance(takes, str) else None
    arity = len(signature.inputs) if signature else _arity(name, f) if takes is None else takes
    if type(arity) is not int or arity < 1:
        raise ValueError(f"programs: expected the number of operands of op {name!r} to be 1 or more, got {arity!r}")
    if "{" in name:
        if name.count("{}") != arity or name.count("{") != arity:
            raise ValueError(f"programs: expected one {{}} in {name!r} for each of {arity} operands")
    else:
        name = f"{name}({', '.join(['{}'] * arity)})"
    return ProgramOp(name, f, signature or Signature.parse(_elementwise(arity)), from_user=True)


def _arity(name: str, f: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    count = sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    if not count:
        raise ValueError(
            f"programs: cannot tell how many tensors {name} takes. Pass ops={{{name!r}: (f, 2)}}, or shapes instead of "
            f"the number: '(m,n),(n)'"
        )
    return count
