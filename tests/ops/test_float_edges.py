"""Every op at every combination of the edges of floats: values and gradients, with PyTorch as the reference.

A gradient is not compared where the value is NaN. ``EXCEPTIONS`` lists where PyTorch is wrong, and what is right there.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.backends.cpu import kernels as cpu

INF, NAN = math.inf, math.nan


def edges(dtype: Any) -> list[float]:
    """Return both zeros, the smallest numbers, the smallest normal one, some plain ones, both infinities and NaN."""
    info = np.finfo(dtype)
    small = float(info.smallest_subnormal)
    return [0.0, -0.0, small, -small, float(info.tiny), 1.0, -1.0, 2.5, INF, -INF, NAN]


def functional(lib: Any) -> Any:
    """Return the module of functions of tensorlite or PyTorch."""
    return F if lib is tl else lib.nn.functional


def named(*names: str) -> dict[str, Any]:
    """Return functions ``f(lib, *tensors)`` that have these names in the library itself."""
    return {name: lambda lib, *args, name=name: getattr(lib, name)(*args) for name in names}


UNARY = named(*"""abs neg sign square reciprocal clone exp expm1 tanh sigmoid erf sin cos tan asin acos atan sinh cosh
log log2 log10 log1p sqrt rsqrt floor ceil round trunc""".split())  # fmt: skip
UNARY |= {
    name: lambda lib, x, name=name: getattr(functional(lib), name)(x)
    for name in ("relu", "leaky_relu", "elu", "silu", "softplus", "gelu")
}
UNARY["gelu tanh"] = lambda lib, x: functional(lib).gelu(x, approximate="tanh")
UNARY |= {f"x ** {p}": lambda lib, x, p=p: x**p for p in (0, 1, 2, 3, -1, 0.5, -2.0, INF)}
UNARY |= {f"{b} ** x": lambda lib, x, b=b: b**x for b in (2.0, 0.0, 1.0, INF)}
UNARY |= {
    f"{name} {b}": lambda lib, x, name=name, b=b: getattr(lib, name)(x, b)
    for name in ("remainder", "fmod", "div", "mul") for b in (0.0, 2.0, -3.0, INF)
}  # fmt: skip
UNARY |= {
    f"clamp {a} {b}": lambda lib, x, a=a, b=b: lib.clamp(x, a, b)
    for a, b in ((0.0, 1.0), (1.0, -1.0), (None, 0.0), (-INF, INF), (NAN, 1.0))
}
UNARY |= {f"bce {t}": lambda lib, x, t=t: functional(lib).binary_cross_entropy_with_logits(
    x, lib.full_like(x, t), reduction="none") for t in (0.0, 0.3, 1.0)}  # fmt: skip
UNARY["where"] = lambda lib, x: lib.where(x > 0, x, 0.0)

BINARY = named(*"add sub mul div pow atan2 maximum minimum fmod remainder floor_divide logaddexp".split())
BINARY["div trunc"] = lambda lib, x, y: lib.div(x, y, rounding_mode="trunc")
BINARY["mse_loss"] = lambda lib, x, y: functional(lib).mse_loss(x, y, reduction="none")
BINARY["l1_loss"] = lambda lib, x, y: functional(lib).l1_loss(x, y, reduction="none")
BINARY["where"] = lambda lib, x, y: lib.where(x > y, x, y)

ROWS = {name: lambda lib, x, name=name: getattr(lib, name)(x, 1) for name in
        "sum mean prod amax amin var std cumsum logsumexp argmax argmin".split()}  # fmt: skip
ROWS |= {name: lambda lib, x, name=name: getattr(lib, name)(x, 1)[0] for name in ("max", "min", "sort")}
ROWS |= {f"norm {p}": lambda lib, x, p=p: lib.norm(x, p, 1) for p in (1, 2, 3, -1, -2, 0.5, INF, -INF)}
ROWS["sort descending"] = lambda lib, x: lib.sort(x, 1, descending=True)[0]
ROWS["topk"] = lambda lib, x: lib.topk(x, 1, 1)[0]
ROWS |= {name: lambda lib, x, name=name: getattr(functional(lib), name)(x, 1) for name in ("softmax", "log_softmax")}
ROWS |= {name: lambda lib, x, name=name: getattr(functional(lib), name)(x, (3,)) for name in ("layer_norm", "rms_norm")}
ROWS["normalize"] = lambda lib, x: functional(lib).normalize(x, dim=1)
ROWS["cosine"] = lambda lib, x: functional(lib).cosine_similarity(x, lib.ones_like(x[:1]), 1)
ROWS["cross_entropy"] = lambda lib, x: functional(lib).cross_entropy(x, lib.arange(len(x)) % 3, reduction="none")


# ---- where PyTorch is not the reference -----------------------------------------------------


class Exceptional(NamedTuple):
    """A reason, the combinations it is about, and what we give there: the value and the gradients.

    ``None`` instead means the same op in float64, in which the edges of float32 are plain numbers. It says nothing
    about float64 itself. What is missing is not compared.
    """

    reason: str
    where: Callable[..., Any]
    expected: tuple[Callable[..., Any], ...] | None


def constant(number: float) -> Callable[..., Any]:
    """Return a function that returns the number for each combination."""
    return lambda *args: np.full(len(args[0]), number)


def tiny(*args: Any) -> Any:
    """Return which combinations or rows have a number whose square vanishes."""
    rows = np.stack(args, 1) if len(args) > 1 else args[0].reshape(len(args[0]), -1)
    return ((rows != 0) & (abs(rows) < 1e-30)).any(1)


def subnormal(x: Any) -> Any:
    """Return which rows have a number of few digits, below the smallest normal one."""
    return ((x != 0) & (abs(x) < np.finfo(x.dtype).tiny)).any(1)


ZERO, ONE, HALF, INFINITE = constant(0.0), constant(1.0), constant(0.5), constant(INF)
VANISH = Exceptional("PyTorch's squares vanish", tiny, None)
FEW_DIGITS = Exceptional("results of few digits depend on the order of roundings", subnormal, ())
EXCEPTIONS: dict[str, list[Exceptional]] = {
    "log1p": [Exceptional("PyTorch flushes the smallest numbers to 0", tiny, (np.array, ONE))],
    "silu": [
        Exceptional("the limit of x s(x) is 0", lambda x: x == -INF, (ZERO, ZERO)),
        Exceptional("the limit of the slope is 1", lambda x: x == INF, (INFINITE, ONE)),
    ],
    **{
        name: [
            Exceptional("the limit of x cdf(x) is 0", lambda x: x == -INF, (ZERO, ZERO)),
            Exceptional("the limit of the slope is 1", lambda x: x == INF, (INFINITE, ONE)),
        ]
        for name in ("gelu", "gelu tanh")
    },
    "x ** 0.5": [Exceptional("PyTorch takes the root, whose slope at -0 is -inf", lambda x: x == 0, (ZERO, INFINITE))],
    "x ** inf": [Exceptional("x ** inf is 0 for all small x", lambda x: abs(x) < 1, (ZERO, ZERO))],
    "inf ** x": [Exceptional("inf ** x is 0 for all negative x", lambda x: x < 0, (ZERO, ZERO))],
    "pow": [
        Exceptional("x ** y is 0 around x", lambda x, y: np.isinf(y) & (x**y == 0), (ZERO, ZERO)),
        Exceptional("the limit of x ** y log x is 0", lambda x, y: (x == INF) & (y < 0), (ZERO, ZERO, ZERO)),
    ],
    "atan2": [
        Exceptional("far away the angle stays", lambda y, x: np.isinf(y) | np.isinf(x), (np.arctan2, ZERO, ZERO)),
        VANISH,
    ],
    "fmod": [Exceptional("PyTorch's quotient overflows", lambda x, y: np.isinf(x / y) & (y != 0), (np.fmod, ONE))],
    "remainder": [
        Exceptional("PyTorch's quotient overflows", lambda x, y: np.isinf(x / y) & (y != 0), (np.remainder, ONE)),
    ],
    "logaddexp": [
        Exceptional("equal numbers share", lambda x, y: np.isinf(x) & (x == y), (lambda x, y: x, HALF, HALF)),
    ],
    **{f"bce {t}": [Exceptional("PyTorch subtracts infinities", lambda x: x == -INF, (INFINITE, constant(-t)))]
       for t in (0.3, 1.0)},
    "logsumexp": [
        Exceptional(
            "infinite entries share", lambda x: (x == INF).any(1) & (x == x).all(1),
            (INFINITE, lambda x: (x == INF) / np.maximum((x == INF).sum(1, keepdims=True), 1)),
        ),
        Exceptional("there is nothing to share", lambda x: (x == -INF).all(1), (constant(-INF), np.zeros_like)),
    ],
    "topk": [
        Exceptional(
            "any of equal entries may have the gradient", lambda x: (x == x.max(1, keepdims=True)).sum(1) > 1,
            (lambda x: x.max(1, keepdims=True),),
        ),
    ],
    **{name: [VANISH, FEW_DIGITS] for name in ("std", "layer_norm", "norm 2", "norm 3", "norm -1", "norm -2")},
    "norm 0.5": [
        FEW_DIGITS,
        Exceptional("an entry of 0 keeps its slope of 0", lambda x: np.isinf(x).any(1) & (x == x).all(1), (INFINITE,)),
    ],
}  # fmt: skip


# ---- the test -------------------------------------------------------------------------------

TABLES = [(name, f, n) for n, table in ((1, UNARY), (2, BINARY), (3, ROWS)) for name, f in table.items()]


def arguments(count: int, dtype: Any) -> list[np.ndarray]:
    """Return all combinations of edges: two vectors, or rows of three, or a vector long enough for a vector loop."""
    combinations = np.array(list(itertools.product(edges(dtype), repeat=count)), dtype)
    if count == 1:
        return [np.tile(combinations[:, 0], 7)]  # its length is odd, so that each edge has every place in a vector
    return [combinations] if count == 3 else list(combinations.T.copy())


def derivatives(lib: Any, f: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Return the value of f, and its gradients if it has any."""
    xs = [lib.tensor(a, requires_grad=True) for a in arrays]
    y = f(lib, *xs)
    if not y.requires_grad:
        return [y.numpy()]
    gradients = lib.autograd.grad(y.sum(), xs, allow_unused=True)
    zeros = [lib.zeros_like(x) if g is None else g for g, x in zip(gradients, xs, strict=True)]
    return [y.detach().numpy(), *((g + 0.0).numpy() for g in zeros)]


def replace_exceptions(name: str, f: Any, arrays: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Put what ``EXCEPTIONS`` says into PyTorch's results, NaN for what is not compared there."""
    for exception in EXCEPTIONS.get(name, ()):
        at = exception.where(*arrays)
        if exception.expected is not None:
            right: list[Any] = [g(*arrays) for g in exception.expected]
        elif arrays[0].dtype == np.float32:
            right = [r.astype(np.float32) for r in derivatives(tl, f, [a.astype(np.float64) for a in arrays])]
        else:
            right = []
        for k, result in enumerate(expected):
            result[at] = right[k][at] if k < len(right) else SKIPPED


SKIPPED = 12345.0
COMPILED = {"silu", "gelu", "gelu tanh", "softmax", "layer_norm", "cross_entropy"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dtype", "compiled"), [(np.float32, True), (np.float32, False), (np.float64, False)])
@pytest.mark.parametrize(("name", "f", "count"), TABLES, ids=[name for name, _, _ in TABLES])
def test_values_and_gradients_at_the_edges(
    name: str, f: Any, count: int, dtype: Any, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    if compiled and name not in COMPILED:
        pytest.skip("has no compiled loop")
    monkeypatch.setattr(cpu, "_MIN_COMPILED", 1)
    if not compiled:
        monkeypatch.setattr(cpu, "_compiled_kernels", lambda: None)
    arrays = arguments(count, dtype)
    found = derivatives(tl, f, arrays)
    try:
        expected = [np.array(e) for e in derivatives(torch, f, arrays)]
    except RuntimeError:  # floor_divide has no gradient there
        expected = [f(torch, *map(torch.tensor, arrays)).numpy().copy(), *(np.zeros_like(a) for a in arrays)]
    with np.errstate(all="ignore"):
        replace_exceptions(name, f, arrays, expected)
    of_nan = np.isnan(found[0]).reshape(len(found[0]), -1).any(1)
    tolerance = 3e-6 if dtype == np.float32 else 1e-12
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        kept = ~((b == SKIPPED).reshape(len(b), -1).any(1) | (of_nan if k else False))
        smallest = 1e-6 if k and count == 3 else 1e-35 if compiled else 0.0
        np.testing.assert_allclose(a[kept], b[kept], rtol=tolerance, atol=smallest)


@pytest.mark.parametrize("x", [0.7, -0.7])
def test_the_slope_of_a_remainder_fits_its_rounded_quotient(x: float) -> None:
    """The remainder of x and y is ``x - n y`` for a whole n, and its slope in y is -n for that n."""
    numbers = np.float32(x) * np.arange(1, 3000, dtype=np.float32)
    for op, pairs in ((tl.remainder, (numbers, -numbers)), (tl.fmod, (numbers, -numbers))):
        for dividend in pairs:
            y = tl.full((len(numbers),), x, requires_grad=True)
            out = op(tl.tensor(dividend), y)
            out.sum().backward()
            assert y.grad is not None
            n = -y.grad.numpy().astype(float)
            np.testing.assert_allclose(dividend - n * np.float32(x).astype(float), out.detach().numpy(), atol=3e-7)
    tiny = tl.tensor([-1e-12, 1e-12])
    y = tl.tensor([1.0, -1.0], requires_grad=True)
    (tiny % y).sum().backward()  # the results are rounded to y
    assert y.grad is not None
    assert y.grad.tolist() == [1.0, 1.0]


def power_derivatives(x: float, y: float) -> list[float]:
    """Return the derivatives of ``x ** y``: by x, by y, twice by x, by both (in either order), twice by y."""
    xs = [tl.tensor([x], dtype=tl.float64, requires_grad=True), tl.tensor([y], dtype=tl.float64, requires_grad=True)]
    first = tl.autograd.grad((xs[0] ** xs[1]).sum(), xs, create_graph=True)
    second = [tl.autograd.grad(g.sum(), xs, retain_graph=True) for g in first]
    return [float(g) for g in (*first, second[0][0], second[0][1], second[1][0], second[1][1])]


@pytest.mark.parametrize(("x", "y", "expected"), [
    (0.0, 0.0, [0, 0, 0, INF, INF, 0]),
    (0.0, 1.0, [1, 0, 0, 1, 1, 0]),
    (0.0, 2.0, [0, 0, 2, 0, 0, 0]),
    (0.0, 3.0, [0, 0, 0, 0, 0, 0]),
    (2.0, 0.0, [0, math.log(2), 0, 0.5, 0.5, math.log(2) ** 2]),
    (2.0, 2.0, [4, 4 * math.log(2), 2, 2 + 4 * math.log(2), 2 + 4 * math.log(2), 4 * math.log(2) ** 2]),
    (-2.0, 2.0, [-4, NAN, 2, NAN, NAN, NAN]),
    (INF, 0.0, [0, INF, 0, 0, 0, INF]),
    (INF, 1.0, [1, INF, 0, INF, INF, INF]),
    (INF, -1.0, [0, 0, 0, 0, 0, 0]),
    (0.5, INF, [0, 0, 0, 0, 0, 0]),
])  # fmt: skip
def test_all_derivatives_of_a_power_at_the_edges(x: float, y: float, expected: list[float]) -> None:
    np.testing.assert_allclose(power_derivatives(x, y), expected, rtol=1e-12)


def test_third_derivatives_of_a_power() -> None:
    x, y = (tl.tensor([v], dtype=tl.float64, requires_grad=True) for v in (1.7, -2.3))
    value = x**y
    for v in (x, x, y):
        (value,) = tl.autograd.grad(value.sum(), v, create_graph=True)
    a, b = 1.7, -2.3
    assert value.item() == pytest.approx(a ** (b - 2) * (2 * b - 1 + b * (b - 1) * math.log(a)), rel=1e-12)


def hessian(f: Any, x: Any) -> Any:
    """Return the Hessian of the sum of f at a vector."""
    return tl.func.hessian(lambda x: f(x).sum())(tl.tensor(x, dtype=tl.float64)).numpy()


def test_second_derivatives_at_infinity_and_zero() -> None:
    for f in (tl.erf, tl.atan, tl.tanh, tl.sigmoid, F.gelu, F.silu, F.softplus):
        assert not hessian(f, [INF, -INF]).any()
    np.testing.assert_array_equal(hessian(tl.prod, [0.0, INF]), [[0, 1], [1, 0]])
    x = tl.tensor([3.0, 1.0, INF], requires_grad=True)
    (first,) = tl.autograd.grad(x.prod(), x, create_graph=True)
    assert tl.autograd.grad(first.sum(), x)[0].tolist() == [INF, INF, 4.0]
    for p in (-1, -2):
        expected = np.zeros((3, 3))
        expected[:2, :2] = hessian(lambda x, p=p: tl.norm(x, p), [1.0, -2.0])
        np.testing.assert_allclose(hessian(lambda x, p=p: tl.norm(x, p), [1.0, -2.0, INF]), expected, rtol=1e-12)
