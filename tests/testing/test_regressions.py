"""Regressions: bugs that the checks once missed, each with a right op, and right ops that they once rejected."""
from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis")

import tensorlite as tl
from tensorlite.nn import functional as F
from tensorlite.testing import (
    GradientError,
    OpSpec,
    away_from,
    axes,
    broadcastable,
    check_grad,
    check_op,
    elements,
    gradtest,
    indices,
    numpy_op,
    register_profiles,
    shapes,
    tensors,
    tie_free,
)

X = np.array([1.0, -2.0, 0.5])
Y = np.array([0.25, 1.0, -3.0])


def message(check: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(GradientError) as caught:
        check(*args, **kwargs)
    return str(caught.value)


# ---- one call at a time ---------------------------------------------------------------------


def test_a_rule_that_reads_values_of_the_last_call() -> None:
    last: dict[str, Any] = {}

    def forward(x: Any) -> Any:
        last["x"] = x.copy()
        return x * x

    assert "called once more" in message(check_grad, numpy_op(forward, lambda g, x: 2 * g * last["x"]), X, order=1)
    check_grad(numpy_op(forward, lambda g, x: 2 * g * x), X, order=1)


def _needs(first: bool) -> Any:
    def backward(xp: Any, g: Any, x: Any, y: Any, needs: Any) -> Any:
        found = [g * v for k, v in enumerate((y, x)) if k in needs]
        if first:
            return tuple(found) + (None,) * (2 - len(found))
        return tuple(found.pop(0) if k in needs else None for k in range(2))

    @tl.op(backward=backward, composite=lambda x, y: x * y)
    def product(xp: Any, x: Any, y: Any) -> Any:
        return x * y

    return product


def test_an_argument_that_needs_no_gradient() -> None:
    check_grad(_needs(True), X, Y)
    assert "the gradient of y changes where no other argument requires grad" in message(check_op, _needs(True), X, Y)
    check_op(_needs(False), X, Y)


def test_one_tensor_as_two_arguments() -> None:
    def product(x: Any, y: Any) -> Any:
        return x * y.detach() if x is y else x * y

    said = message(check_op, product, X, Y)
    assert "where x and y are the same Tensor" in said
    check_op(lambda x, y: x * y, X, Y)
    check_op(lambda x, y: tl.maximum(x, y), X, Y)


def test_one_tensor_as_two_arguments_with_different_domains() -> None:
    check_op(lambda x, y: x + tl.log(y), X, abs(Y))
    check_op(lambda y, x: x + tl.log(y), abs(Y), X)
    check_op(lambda x, y: tl.log(-x) + tl.log(y), -abs(X), abs(Y))  # no value is valid for both


# ---- cotangents -----------------------------------------------------------------------------


def test_a_clipped_cotangent() -> None:
    clipped = tl.op(lambda g, x: tl.clamp(g, -3.0, 3.0) * 2.0 * x)(_square)
    assert "not linear in the cotangent" in message(check_grad, clipped, X, order=1)


def _square(xp: Any, x: Any) -> Any:
    return x * x


def test_a_cotangent_of_zero() -> None:
    divided = numpy_op(lambda x: x * x, lambda g, x: np.where(g == 0, np.nan, 2 * g * x))
    said = message(check_grad, divided, X, order=1)
    assert "not linear in the cotangent" in said
    assert "with zeros elsewhere" in said


def test_an_unused_result() -> None:
    def rule(g: Any, x: Any) -> Any:
        return g[0] * 2.0 * x + g[1] * 3.0 * x * x if np.any(tl.Tensor.numpy(g[0]) if isinstance(g[0], tl.Tensor)
                                                            else g[0]) else g[1] * x  # fmt: skip

    both = tl.op(rule, multi_output=True)(lambda xp, x: (x * x, x * x * x))
    assert "not linear in the cotangent" in message(check_grad, both, X, order=1)


@pytest.mark.parametrize("f", [
    lambda x: (x + 64.0) * (x + 64.0) - 4096.0,
    lambda x: tl.softmax(1e3 * x, -1),
    lambda x: tl.exp(700.0 + x),
    lambda x: (tl.sum(x), tl.exp(x) - tl.exp(x)),
])  # fmt: skip
def test_gradients_that_are_linear_up_to_rounding(f: Any) -> None:
    check_grad(f, X, allow_inconclusive=True)


# ---- float32 --------------------------------------------------------------------------------


def test_a_gradient_that_is_wrong_in_float32() -> None:
    def backward(xp: Any, g: Any, x: Any) -> Any:
        return (g * 2 * x * (1.5 if x.dtype == np.float32 else 1),)

    f = tl.op(backward=backward, composite=lambda x: x * x)(_square)
    check_grad(f, X)
    assert "the gradient of x in float32 differs from float64" in message(check_op, f, X)


def test_an_epsilon_that_is_zero_in_float32() -> None:
    f = numpy_op(lambda x: np.sqrt(x * x), lambda g, x: g * x / (abs(x) + np.asarray(1e-300).astype(x.dtype)))
    assert "in float32" in message(check_op, f, np.array([0.0, 1.0]))


@pytest.mark.parametrize("f", [
    lambda x: (x - x.mean()) / tl.sqrt(tl.square(x - x.mean()).mean() + 1e-5),
    lambda x: F.layer_norm(x + 1000.0, (3,)),
    lambda x: tl.softmax(x / 0.01, -1),
    lambda x: tl.relu(x - x.mean()),
    lambda x: tl.clamp(0.1 * x, -0.1, 0.1),
    lambda x: F.normalize(x, dim=0),
])  # fmt: skip
@pytest.mark.parametrize("x", [[0.0, 0.0, 1.0], [2.0, 0.125, 2.0], [0.3, 0.3, 0.3], [1.0, -1.0, 3.0]])
def test_gradients_in_float32_that_cancel_or_lie_at_a_kink(f: Any, x: list[float]) -> None:
    check_op(f, np.array(x))


# ---- numerical derivatives ------------------------------------------------------------------


def test_a_fine_staircase_is_not_a_line() -> None:
    for steps in (4.0, 128.0, 4096.0):
        flat = tl.op(lambda g: g * 0.0)(lambda xp, x, n=steps: xp.round(x * n - 0.25) / n)
        for at in (0.0, 1.0, 800.0, 1e4):
            check_grad(flat, np.array([at]), allow_inconclusive=True)
    straight = tl.op(lambda g: g)(lambda xp, x: xp.round(x * 4.0 - 0.25) / 4.0)
    for at in (0.0, 1.0):
        assert "is wrong" in message(check_grad, straight, np.array([at]), order=1)


def _chosen(pick: int) -> Any:
    """Return the median with a gradient that goes to one of several equal entries."""

    def vjp(g: Any, x: Any) -> Any:
        d = np.zeros_like(x)
        order = np.argsort(x, kind="stable")
        same = np.flatnonzero(x == x[order[len(x) // 2]])
        d[same[pick % len(same)]] = g
        return d

    return numpy_op(lambda x: np.sort(x)[len(x) // 2], vjp, "median")


@pytest.mark.parametrize("pick", [0, 1, 2])
def test_any_of_several_equal_entries_may_have_the_gradient(pick: int) -> None:
    for seed in range(40):
        check_grad(_chosen(pick), np.zeros(3), order=1, seed=seed)
        check_grad(_chosen(pick), np.array([1.0, 0.0, 0.0, 2.0, 0.0]), order=1, seed=seed)


def test_ties_between_arguments() -> None:
    check_grad(lambda x, y: tl.maximum(x, y) * tl.minimum(x, y), np.zeros((1, 1)), np.zeros((1, 1)))


def test_a_slope_that_changes_within_one_step() -> None:
    check_grad(lambda x, y: tl.sqrt(x * x + y * y + 1e-30), np.array([0.0, 1.0]), np.array([0.0, 2.0]))


def test_a_saturated_softmax() -> None:
    check_grad(lambda x: tl.softmax(x / 0.01, -1), np.array([2.75, 3.125]), order=1, allow_inconclusive=True)
    check_grad(lambda x: tl.softmax(100.0 * tl.softmax(x, -1), -1), np.array([[1.0, 1.625]]))
    check_grad(lambda x: tl.softmax(100.0 * tl.softmax(x, -1), -1), np.array([[0.0, 1.0]]))


@pytest.mark.parametrize("x", [np.broadcast_to(np.array([[3.625, -3.625]]), (3, 2)), np.array([[3.0, -3.0, 2.875]])])
def test_sums_that_cancel_in_another_order(x: np.ndarray) -> None:
    check_op(lambda x: tl.sum(x * x * x) + tl.sum(1e-3 * tl.sin(x)), x)


def test_rounding_of_large_numbers_inside() -> None:
    def f(x: tl.Tensor, weight: tl.Tensor) -> tl.Tensor:
        return F.layer_norm(x + 1000.0, (3,), weight)

    check_grad(f, np.array([[0.0, 0.0, 1.0]]), np.array([1.0, 1.0, 1.0]))
    check_grad(f, np.array([[0.0, 0.0, -2.375]]), np.array([0.0, 0.0, 1.0]))


# ---- reports --------------------------------------------------------------------------------


def test_entries_are_counted_once() -> None:
    f = numpy_op(lambda x: np.clip(x, 0, 6), lambda g, x: g * ((x > 0) & (x < 6)) + 2 * g * (x == 6))
    said = message(check_grad, f, np.array([6.0]), order=1)
    assert "wrong entries  x: 1 of 1" in said
    assert "hint" not in said  # a hint would compare with the middle of the one-sided derivatives


def test_a_single_zero_gradient_gives_no_hint_of_a_cut_graph() -> None:
    def vjp(g: Any, x: Any) -> Any:
        d = np.zeros_like(x)
        d[:-1], d[1:] = g, 2 * g  # instead of +=
        d[-1] = 0
        return d

    said = message(check_grad, numpy_op(lambda x: x[:-1] + 2 * x[1:], vjp), X, order=1)
    assert "the gradient is 0" not in said


LAYOUTS = [
    np.array([9.0, 1.0, 9.0, 2.0, 9.0])[1::2],
    np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])[::-1, 1:],
    np.asfortranarray(np.array([[1.0, 2.0], [3.0, 4.0]])),
    np.broadcast_to(np.array([[1.0], [2.0]]), (2, 3)),
    np.array([5.0, 7.0])[1:].reshape(()),
    np.arange(24.0).reshape(2, 3, 4).copy()[1, ::2, 3:0:-1],
    np.array([[9.0, 1.0, 9.0]])[:, 1:2],
    np.zeros((0, 2)),
]


@pytest.mark.parametrize("x", LAYOUTS, ids=str)
def test_a_reproduced_call_has_the_same_memory_layout(x: np.ndarray) -> None:
    def refuses(g: Any, x: Any) -> Any:
        return 1.5 * g

    said = message(check_op, numpy_op(lambda x: x * 1, lambda g, x: g.astype(np.float16)), x)
    start = "reproduce with\n    check_op(numpy_op((lambda x: x * 1), (lambda g, x: g.astype(np.float16))), "
    line = said.rpartition(start)[2].removesuffix(", seed=0)")
    again = eval(line, {"np": np})  # noqa: S307
    np.testing.assert_array_equal(again, x)
    assert again.strides == x.strides or x.size < 2
    assert (again.base is None) == (x.base is None) or x.ndim > 1 or not x.size


def test_a_bug_of_strided_arguments_can_be_reproduced() -> None:
    @gradtest("(n)", order=1)
    def test_strided(x: tl.Tensor) -> tl.Tensor:
        return reads_memory(x)

    said = message(test_strided)
    line = said.rpartition("reproduce with\n    ")[2]
    with pytest.raises(GradientError):
        names = {"np": np, "check_grad": check_grad, "check_op": check_op, "f": test_strided.f}
        eval(line.replace(line.partition("(")[2].partition(",")[0], "f"), names)  # noqa: S307


def _as_if_contiguous(x: Any) -> Any:
    flat = x if x.base is None or x.base.dtype != x.dtype else x.base.ravel()
    return flat.ravel()[: x.size].reshape(x.shape) if flat.size >= x.size else x


reads_memory = numpy_op(lambda x: np.sin(_as_if_contiguous(x)), lambda g, x: g * np.cos(x), "reads_memory")


@pytest.mark.parametrize("wrong", [
    numpy_op(lambda x: x * 1, lambda g, x: g.astype(np.float32), "narrow"),
    numpy_op(lambda x: x * 1, lambda g, x: np.concatenate([g, g]), "long"),
])  # fmt: skip
def test_every_failure_of_a_gradtest_can_be_reproduced(wrong: Any) -> None:
    @gradtest("(n)", order=1)
    def test(x: tl.Tensor) -> tl.Tensor:
        return wrong(x)

    assert "\nreproduce with\n    check_grad(test.f, np.array([0.0]), seed=0, order=1)" in message(test)


def test_large_arguments_are_in_the_notes() -> None:
    @gradtest("(80)", order=1)
    def test(x: tl.Tensor) -> tl.Tensor:
        return x * 2.0 if float(x.detach().abs().max()) < math.inf and x.shape[0] < 64 else x.detach() * 2.0 + x

    with pytest.raises(GradientError) as caught:
        test()
    assert "reproduce with" not in str(caught.value)
    assert "80" in "".join(caught.value.__notes__)


def test_large_numbers_and_batches_are_drawn() -> None:
    seen: list[tuple[Any, ...]] = []

    @gradtest("(...,m),(...,n)", order=0, max_examples=1000)  # one of ten runs draws none in 200 examples
    def test(x: tl.Tensor, y: tl.Tensor) -> tl.Tensor:
        seen.append((x.shape[:-1], y.shape[:-1], float(abs(x.detach().numpy()).max(initial=0.0))))
        return x.sum(-1) + y.sum(-1)

    test()
    assert any(max(large, 0) >= 800 for _, _, large in seen)
    assert any(a != b and math.prod(a) > 1 for a, b, _ in seen)


# ---- other libraries ------------------------------------------------------------------------


def _strict_forward(x: Any) -> Any:
    """Return sin(x) like a library that only takes contiguous, writable arrays of float64."""
    assert x.flags.c_contiguous
    assert x.flags.writeable
    assert x.dtype == np.float64
    return np.sin(x)


def test_plain_arrays_for_another_library() -> None:
    f = numpy_op(_strict_forward, lambda g, x: _strict_forward(g) * 0 + g * np.cos(x), plain=True)
    gradtest("(m,n)->(m,n)", order=1, max_examples=20)(_named(f))()
    x = tl.tensor(X, dtype=tl.float32, requires_grad=True)
    y = f(x)
    y.sum().backward()
    assert y.dtype == tl.float32
    assert x.grad is not None
    assert x.grad.dtype == tl.float32


def _named(f: Any) -> Any:
    def test(x: tl.Tensor) -> tl.Tensor:
        return f(x)

    return test


@pytest.mark.parametrize("plain", [False, True])
def test_changes_in_place_are_seen(plain: bool) -> None:
    def of_cotangent(g: Any, x: Any) -> Any:
        g *= 2 * x
        return g

    def of_input(g: Any, x: Any) -> Any:
        x *= 2 * g
        return x * 1

    def of_forward(x: Any) -> Any:
        x += 1
        return x * 1

    square = lambda x: x * x
    said = message(check_grad, numpy_op(square, of_cotangent, plain=plain), X.copy(), order=1)
    assert "changes the cotangent in place" in said
    said = message(check_grad, numpy_op(square, of_input, plain=plain), X.copy(), order=1)
    assert ("vjp changes array 0 in place" if plain else "not linear in the cotangent") in said
    said = message(check_grad, numpy_op(of_forward, lambda g, x: g, plain=plain), X.copy(), order=1)
    assert ("forward changes array 0 in place" if plain else "the forward pass changes x in place") in said


def test_plain_keeps_integers_and_0d_arrays() -> None:
    def take(x: Any, i: Any) -> Any:
        assert i.dtype.kind == "i"
        return x * i

    f = numpy_op(take, lambda g, x, i: (g * i, None), plain=True)
    gradtest("(n),(n)", order=1, elements=["real", "int"], max_examples=20)(_pair(f))()
    check_grad(lambda x: f(x, tl.tensor(3)), np.array(2.0), order=1)


def _pair(f: Any) -> Any:
    def test(x: tl.Tensor, i: tl.Tensor) -> tl.Tensor:
        return f(x, i)

    return test


def test_an_op_of_torch() -> None:
    torch = pytest.importorskip("torch")

    def torch_op(f: Any) -> Any:  # as in docs/testing.md
        def forward(*xs: Any, **options: Any) -> Any:
            return f(*map(torch.from_numpy, xs), **options).numpy()

        def vjp(g: Any, *xs: Any, **options: Any) -> Any:
            leaves = [torch.from_numpy(x).requires_grad_() for x in xs]
            found = torch.autograd.grad(f(*leaves, **options), leaves, torch.from_numpy(g), allow_unused=True)
            return tuple(None if d is None else d.numpy() for d in found)

        return numpy_op(forward, vjp, f.__name__, plain=True)

    @gradtest("(m,n)->(m,n)", order=1, max_examples=30)
    def right(x: tl.Tensor) -> tl.Tensor:
        return torch_op(torch.logcumsumexp)(x, dim=1)

    right()

    class Silu(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * torch.sigmoid(x)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * torch.sigmoid(ctx.saved_tensors[0])

    def silu(x: Any) -> Any:
        return Silu.apply(x)

    @gradtest("(n)", order=1)
    def wrong(x: tl.Tensor) -> tl.Tensor:
        return torch_op(silu)(x)

    assert "the gradient of x is wrong" in message(wrong)


# ---- wrong arguments ------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: tensors(3), TypeError, "tensors: expected a shape, a tuple of sizes, got 3"),
    (lambda: tensors("ab"), TypeError, "a tuple of sizes"),
    (lambda: tensors((2.5,)), TypeError, "a size must be an int, got 2.5"),
    (lambda: tensors((-1,)), ValueError, "expected sizes of 0 or more"),
    (lambda: tensors((2,), layouts="C"), TypeError, "expected layouts to be True or False"),
    (lambda: elements(kinks="a"), TypeError, "kinks must be a list of numbers"),
    (lambda: away_from(0), TypeError, "points must be a list of numbers, got 0"),
    (lambda: tie_free("a"), TypeError, "axis must be an int"),
    (lambda: axes(-1), ValueError, "expected ndim of 0 or more"),
    (lambda: axes("a"), TypeError, "ndim must be an int"),
    (lambda: axes(2, "int"), ValueError, "expected some of the kinds 'int', 'negative'.* got 'int'"),
    (lambda: indices(3), TypeError, "indices: expected a shape, a tuple of sizes"),
    (lambda: indices((2,), "array"), ValueError, "got 'array'"),
    (lambda: broadcastable("a"), TypeError, "count must be an int"),
    (lambda: shapes("a"), TypeError, "shapes: dims must be an int"),
    (lambda: gradtest(lambda x: x), TypeError, "expected a signature, a string"),
    (lambda: gradtest("(n)", max_examples=0), ValueError, "max_examples must be an int of 1 or more"),
    (lambda: numpy_op(3, 4), TypeError, "expected forward to be a function, got int"),
    (lambda: numpy_op(np.sin, 4), TypeError, "expected vjp to be a function, got int"),
])  # fmt: skip
def test_wrong_arguments_are_errors(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_a_strategy_of_a_spec_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    (case,) = OpSpec("tanh", tl.tanh, strategy=object()).cases()
    for call in (case.run, register_profiles):
        with pytest.raises(ImportError, match=r"pip install 'tensorlite\[testing\]'"):
            call()
