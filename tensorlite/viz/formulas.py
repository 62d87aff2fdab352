"""Formulas: the gradients of ops as one line of tensor code, for the page of the explorer.

A gradient rule handles every shape and option, and often calls a kernel. The formula of a call is for its shapes and
options alone: the gradient of the weight of ``linear`` is ``g.T @ x``, and that of ``x ** 2`` is ``g * (2 * x)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..autograd.graph import Node, Output
from ..backends.registry import BACKENDS

__all__ = ["FORMULAS", "Call", "formula_of"]

Shape: TypeAlias = tuple[int, ...]


@dataclass
class Call:
    """One call of an op, as its formulas see it.

    g: the shape of the gradient that arrives. argument, x: name and shape of the input that the formula is for.
    shapes: the shapes of all inputs that are known, by name. saved: the values that the op has saved, by name.
    """

    g: Shape
    argument: str
    x: Shape
    shapes: Mapping[str, Shape]
    saved: Mapping[str, Any]

    def text(self, name: str) -> str:
        """Return a short Python number as its digits, and any other argument as its name."""
        value: Any = self.saved.get(name)
        is_short = type(value) in (int, float) and math.isfinite(value) and len(repr(value)) < 8
        return repr(value) if is_short else name

    def has(self, name: str) -> bool:
        """Return whether an optional argument was given."""
        return name in self.shapes

    def dims(self) -> list[int]:
        """Return the dimensions that the op reduced, counted from the front."""
        dim = self.saved.get("dim")
        several = dim if isinstance(dim, (tuple, list)) else [] if dim is None or isinstance(dim, bool) else [dim]
        return sorted(d % len(self.x) for d in several) if several and self.x else list(range(len(self.x)))

    def count(self) -> int:
        """Return how many entries the op reduced to one."""
        return math.prod(self.x[d] for d in self.dims())

    def kept(self, name: str) -> str:
        """Return a reduced value that broadcasts to the shape of the input."""
        dims = self.dims()
        if len(self.g) == len(self.x) or not self.g:
            return name
        if len(dims) == 1:
            return f"{name}.unsqueeze({dims[0]})"
        return f"{name}.reshape{tuple(1 if d in dims else n for d, n in enumerate(self.x))}"

    def along(self) -> str:
        """Return the arguments of a reduction over the same dimensions that keeps them."""
        dims = self.dims()
        return f"{dims[0] if len(dims) == 1 else tuple(dims)}, True" if self.x else ""


Formula: TypeAlias = str | Callable[[Call], str | None]


def _rows(call: Call, text: str) -> str:
    """Return the sum of a value over all dimensions but the last."""
    lead = len(call.g) - 1
    if lead == 0:
        return text
    return f"{text}.sum({0 if lead == 1 else tuple(range(lead))})"


def _matrix(name: str, shape: Shape) -> str:
    """Return a value as a matrix whose rows are those of all leading dimensions."""
    return name if len(shape) == 2 else f"{name}.flatten(0, -2)"


def _linear_weight(call: Call) -> str:
    if len(call.g) == 1:
        return "g[:, None] * x"
    return f"{_matrix('g', call.g)}.T @ {_matrix('x', call.g)}"


def _matmul_x(call: Call) -> str | None:
    y = call.shapes.get("y", ())
    if len(y) == 1:
        return "g * y" if len(call.x) == 1 else "g[..., None] * y"
    if len(call.x) == 1:
        return "y @ g" if len(y) == 2 else None
    if len(y) == 2:
        return "g @ y.T"
    return "g @ y.mT" if call.g[:-2] == call.x[:-2] else None


def _matmul_y(call: Call) -> str | None:
    x = call.shapes.get("x", ())
    if len(x) == 1:
        return "g * x" if len(call.x) == 1 else "x[:, None] * g" if len(call.x) == 2 else None
    if len(call.x) == 1:
        return "x.T @ g" if len(x) == 2 else "x.flatten(0, -2).T @ g.flatten()"
    if len(call.x) == 2:
        return f"{_matrix('x', x)}.T @ {_matrix('g', call.g)}"
    return "x.mT @ g" if call.g[:-2] == call.x[:-2] else None


def _scaled(sign: str) -> Callable[[Call], str | None]:
    """Return the formula of the second argument of a sum or a difference, which has a factor."""

    def formula(call: Call) -> str | None:
        alpha = call.saved.get("alpha", 1)
        if type(alpha) not in (int, float):
            return None
        return f"{sign}g" if alpha == 1 else f"{sign}{alpha!r} * g"

    return formula


def _power_x(call: Call) -> str | None:
    exponent: Any = call.saved.get("exponent")
    if type(exponent) not in (int, float) or exponent == 0 or not math.isfinite(exponent):
        return None
    exponent = int(exponent) if exponent == int(exponent) else exponent
    special = {1: "g", 2: "g * (2 * x)"}
    return special.get(exponent) or f"g * ({exponent!r} * x ** {exponent - 1!r})"


def _mean(call: Call) -> str | None:
    return f"{call.kept('g')} / {call.count()}" if call.count() else None


def _deviation(call: Call, factor: str, less: str) -> str | None:
    dim, correction = call.saved.get("dim"), call.saved.get("correction")
    if isinstance(dim, bool):
        correction = int(dim)
    elif correction is None or isinstance(correction, bool):
        correction = int(correction is not False)
    freedom = call.count() - correction
    if not call.x or freedom <= 0:
        return None
    return f"{call.kept('g')} * {factor}(x - x.mean({call.along()})) / {less.format(freedom)}"


def _std(call: Call) -> str | None:
    out = call.saved["out"]
    return _deviation(call, "", f"({{}} * {call.kept('out')})") if bool((out > 0).all()) else None


def _extreme(call: Call) -> str | None:
    x = call.saved["x"]
    if not call.x or bool((x != x).any()):
        return None
    g = call.kept("g")
    return f"where(hit, {g}, 0.0) / hit.sum({call.along()}) with hit = x == {call.kept('out')}"


def _pick(call: Call) -> str | None:
    if not call.x:
        return None
    return f"zeros({', '.join(map(str, call.x))}).scatter({call.dims()[0]}, index, {call.kept('g')})"


def _softmax(call: Call) -> str:
    return f"out * (g - (g * out).sum({call.text('dim')}, True))"


def _log_softmax(call: Call) -> str:
    return f"g - exp(out) * g.sum({call.text('dim')}, True)"


def _cross_entropy(call: Call) -> str | None:
    target, ignored, smoothing = (call.saved[name] for name in ("target", "ignore_index", "smoothing"))
    classes = call.x[-1]
    left_out = bool((target == ignored).any())
    wanted = f"one_hot({'target.clamp(0)' if left_out else 'target'}, {classes})"
    if smoothing:
        wanted = f"({1 - smoothing!r} * {wanted} + {smoothing / classes!r})"
    reduction = call.saved.get("reduction", "none")
    g = {"none": "g[:, None]", "sum": "g", "mean": "g / count"}[reduction]
    found = f"{g} * (softmax(logits, -1) - {wanted})"
    found = f"{found} * (target != {ignored})[:, None]" if left_out else found
    return f"{found} with count = (target != {ignored}).sum()" if reduction == "mean" else found


def _layer_norm_x(call: Call) -> str:
    n = "n = (x - mean) * rstd"
    if not call.has("weight"):
        return f"rstd * (g - g.mean(-1, True) - n * (g * n).mean(-1, True)) with {n}"
    return f"rstd * (h - h.mean(-1, True) - n * (h * n).mean(-1, True)) with h = g * weight and {n}"


def _rms_norm_x(call: Call) -> str:
    if not call.has("weight"):
        return "rrms * (g - n * (g * n).mean(-1, True)) with n = x * rrms"
    return "rrms * (h - n * (h * n).mean(-1, True)) with h = g * weight and n = x * rrms"


def _gelu(call: Call) -> str:
    if call.saved["approximate"] == "tanh":
        return (
            "g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * sqrt(2 / pi) * (1 + 0.134145 * x * x)) "
            "with t = tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3))"
        )
    return "g * (cdf + x * pdf) with cdf = 0.5 * (1 + erf(x / sqrt(2))) and pdf = exp(-0.5 * x * x) / sqrt(2 * pi)"


def _embedding(call: Call) -> str | None:
    ids, padding = call.saved["input"], call.saved.get("padding_idx")
    g = "g" if padding is None else f"(g * (input != {padding % call.x[0]})[..., None])"
    if not ids.ndim:
        return None
    places, rows = ("input", g) if ids.ndim == 1 else ("input.flatten()", f"{g}.flatten(0, -2)")
    return f"zeros{call.x}.index_add(0, {places}, {rows})"


def _cat(call: Call) -> str | None:
    ends, dim = call.saved.get("ends"), call.saved.get("dim")
    if ends is None or dim is None:
        return None
    index = int(call.argument.removeprefix("tensors[").removesuffix("]"))
    start = ends[index - 1] if index else 0
    return f"g.narrow({dim}, {start}, {ends[index] - start})"


def _clamp(call: Call) -> str | None:
    bounds = [(sign, bound) for name, sign in (("min", ">="), ("max", "<="))
              if (bound := call.saved.get(name)) is not None]  # fmt: skip
    if any(type(bound) not in (int, float) for _, bound in bounds):
        return None
    parts = [f"x {sign} {bound!r}" for sign, bound in bounds]
    return f"where({parts[0] if len(parts) == 1 else f'({parts[0]}) & ({parts[1]})'}, g, 0.0)"


def _probabilities(call: Call) -> str | None:
    """Return the weights of attention as code, None where a query sees no key."""
    shapes = [call.shapes.get(name, ())[:-2] for name in "qkv"]
    if len(set(shapes)) > 1:
        return None
    (queries, _), (keys, _) = call.shapes["q"][-2:], call.shapes["k"][-2:]
    scores = f"{call.text('scale')} * q @ k.mT"
    mask, causal = call.saved.get("mask"), call.saved["causal"]
    if mask is not None:
        if causal:
            return None
        boolean = mask.dtype.kind == "b"
        if not bool((mask if boolean else mask > -math.inf).any(-1).all()):
            return None
        scores = f"where(mask, {scores}, -inf)" if boolean else f"{scores} + mask"
    if causal:
        scores = f"where(ones({queries}, {keys}).tril() > 0, {scores}, -inf)"
    return f"p = softmax({scores}, -1)"


def _attention(call: Call) -> str | None:
    p = _probabilities(call)
    if p is None:
        return None
    drop = " * dropout_mask" if call.saved.get("dropout_mask") is not None else ""
    if call.argument == "v":
        return f"(p{drop}).mT @ g with {p}" if drop else f"p.mT @ g with {p}"
    e = f"(g @ v.mT){drop}" if drop else "g @ v.mT"
    scores = "d" if call.argument == "q" else "d.mT"
    other = "k" if call.argument == "q" else "q"
    return (
        f"{call.text('scale')} * {scores} @ {other} with {p} and e = {e} "
        "and d = p * (e - (p * e).sum(-1, True))"
    )


def _fits(call: Call, x: Shape, kernel: Shape, g: Shape) -> bool:
    """Return whether a convolution has one group, and its windows reach the end of x in every dimension."""
    stride, dilation = call.saved["stride"], call.saved["dilation"]
    sizes = zip(x[3:], g[3:], kernel[3:], stride, dilation, _padding(call), strict=True)
    return kernel[0] == 1 and all(s + 2 * b == (p - 1) * t + (k - 1) * d + 1 for s, p, k, t, d, b in sizes)


def _padding(call: Call) -> Sequence[int]:
    """Return the padding of a convolution, a number for each dimension."""
    return call.saved["padding"] or (0,) * len(call.saved["stride"])


def _option(name: str, steps: Sequence[int], default: int = 1) -> str:
    return "" if all(t == default for t in steps) else f", {name}={tuple(steps)}"


def _correlate_weight(call: Call) -> str | None:
    """Return the gradient of the kernel of a convolution: the convolution of x with g."""
    x = call.shapes["x"]
    if not _fits(call, x, call.x, call.g):
        return None
    options = _option("stride", call.saved["dilation"]) + _option("dilation", call.saved["stride"])
    options += _option("padding", _padding(call), 0)
    return f"conv{len(x) - 3}d(x[:, 0].transpose(0, 1), g[:, 0].transpose(0, 1){options}).transpose(0, 1)[None]"


def _correlate_x(call: Call) -> str | None:
    """Return the gradient of the input of a convolution: the transposed convolution of g."""
    if not _fits(call, call.x, call.shapes["weight"], call.g):
        return None
    options = _option("stride", call.saved["stride"]) + _option("dilation", call.saved["dilation"])
    options += _option("padding", _padding(call), 0)
    return f"conv_transpose{len(call.x) - 3}d(g[:, 0], weight[0]{options})[:, None]"


FORMULAS: dict[str, dict[str, Formula]] = {
    "add": {"y": _scaled("")},
    "sub": {"y": _scaled("-")},
    "true_divide": {"x": lambda call: f"g / {call.text('y')}", "y": lambda call: f"-g * {call.text('x')} / (y * y)"},
    "pow": {"x": _power_x},
    "sum": {"x": lambda call: call.kept("g")},
    "mean": {"x": _mean},
    "var": {"x": lambda call: _deviation(call, "2 * ", "{}")},
    "std": {"x": _std},
    "amax": {"x": _extreme},
    "amin": {"x": _extreme},
    "pick": {"x": _pick},
    "clamp": {"x": _clamp},
    "cat": {f"tensors[{i}]": _cat for i in range(16)},
    "relu": {"x": "where(out > 0, g, 0.0)"},
    "tanh": {"x": "g * (1 - out * out)"},
    "sigmoid": {"x": "g * out * (1 - out)"},
    "silu": {"x": "g * (s + out * (1 - s)) with s = sigmoid(x)"},
    "gelu": {"x": _gelu},
    "softmax": {"x": _softmax},
    "log_softmax": {"x": _log_softmax},
    "cross_entropy_rows": {"logits": _cross_entropy},
    "linear": {"x": "g @ weight", "weight": _linear_weight, "bias": lambda call: _rows(call, "g")},
    "matmul": {"x": _matmul_x, "y": _matmul_y},
    "layer_norm_rows": {
        "x": _layer_norm_x,
        "weight": lambda call: _rows(call, "(g * n)") + " with n = (x - mean) * rstd",
        "bias": lambda call: _rows(call, "g"),
    },
    "rms_norm_rows": {"x": _rms_norm_x, "weight": lambda call: _rows(call, "(g * n)") + " with n = x * rrms"},
    "apply_dropout_mask": {"x": "g * dropout_mask"},
    "embedding": {"weight": _embedding},
    "attention": {"q": _attention, "k": _attention, "v": _attention},
    "correlate": {"x": _correlate_x, "weight": _correlate_weight},
}
"""For an op and its argument: the gradient, in the names of the op's arguments, ``g`` and ``out``.

``with`` introduces names that the line uses: ``g * (s + out * (1 - s)) with s = sigmoid(x)``. The functions are those
of tensorlite and of the math module. A result with fewer entries than the input broadcasts to its shape.
"""


def formula_of(node: Node, saved: Sequence[Any] | None, k: int, g: Shape) -> str | None:
    """Return the gradient of the k-th differentiated input of a node as one line of code, None where there is none.

    saved: the values that the node has saved. g: the shape of the gradient that arrives.
    """
    plan = node.plan
    argument = plan.input_names[k]
    formula = FORMULAS.get(plan.op_name, {}).get(argument)
    if formula is None or saved is None or isinstance(node, Output) or plan.op is None or not plan.op.built_in:
        return None
    if isinstance(formula, str):
        return formula
    values = dict(zip(plan.saved_names, saved, strict=True))
    shapes = {name: tuple(value.shape) for name, value in values.items() if type(value) in BACKENDS}
    shapes |= {name: tuple(shape) for name, shape in zip(plan.input_names, node.shapes, strict=True)}
    return formula(Call(tuple(g), argument, tuple(node.shapes[k]), shapes, values))
