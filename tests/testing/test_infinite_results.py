"""Tests of the checks at points where results are infinity or NaN: they have no derivative, the others are checked."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import Phase, settings
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.testing import GradientError, check_adjoint, check_grad, check_op, gradtest
from tensorlite.testing.gradcheck.numerical import slope

X = np.array([0.0, 800.0])  # exp(800) is infinity
ORDERS = pytest.mark.parametrize("order", [1, 2, 3])


def exp_times(factor: float) -> Any:
    """Return exp with a gradient that is multiplied by a factor."""

    @tl.op(lambda g, x: g * factor * tl.exp(x))
    def exp(xp: Any, x: Any) -> Any:
        return xp.exp(x)

    return exp


@tl.op(lambda g, x: g * tl.exp(x))
def sum_of_exp(xp: Any, x: Any) -> Any:
    return xp.exp(x).sum()


def constant(value: float, factor: float) -> Any:
    """Return an op with a constant result and a gradient of g times a factor."""
    return tl.op(lambda g: factor * g)(lambda xp, x: 0.0 * x + value)


pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


@ORDERS
def test_an_infinite_sum_is_inconclusive(order: int) -> None:
    with pytest.raises(GradientError, match="nothing could be checked") as error:
        check_grad(sum_of_exp, X, order=order)
    assert "Its results are float64 float64 ()  inf" in str(error.value)
    report = check_grad(sum_of_exp, X, order=order, allow_inconclusive=True)
    assert report.checked == 0
    assert report.inconclusive >= 2


@ORDERS
def test_finite_results_beside_infinite_ones_are_checked(order: int) -> None:
    report = check_grad(exp_times(1.0), X, order=order)
    assert report.checked == report.inconclusive == 2 * order - 1
    with pytest.raises(GradientError, match=r"(?s)the gradient of x is wrong.*at x\[0\].*x: 1 of 1"):
        check_grad(exp_times(2.0), X, order=order)


@pytest.mark.parametrize(("f", "x", "checked"), [
    (tl.log, [0.0, 1.0, 2.0], 2),
    (tl.log, [-1.0, 1.0, 2.0], 2),
    (lambda x: 1.0 / x, [1.0, 0.0, 2.0], 2),
    (lambda x: x * x, [1.0, math.nan, math.inf], 1),
    (lambda x: tl.cumsum(tl.exp(x), 0), [1.0, 2.0, 800.0, 0.0], 2),
    (lambda x: tl.masked_fill(x, x > 1.0, -math.inf), [0.5, -2.0, 3.0], 2),
    (lambda x: (tl.exp(x).sum(), tl.sin(x)), [1.0, 2.0, 800.0], 2),  # 0 times infinity is NaN at 800
])  # fmt: skip
def test_infinity_and_nan_among_results(f: Any, x: list[float], checked: int) -> None:
    report = check_grad(f, np.array(x), order=1)
    assert (report.checked, report.inconclusive) == (checked, len(x) - checked)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("factor", [0.0, 1.0, math.nan])
def test_a_constant_infinity_has_no_derivative(value: float, factor: float) -> None:
    report = check_grad(constant(value, factor), np.array([1.0]), order=1, allow_inconclusive=True)
    assert (report.checked, report.inconclusive) == (0, 1)


@pytest.mark.parametrize("factor", [1.0, math.nan, math.inf])
def test_a_gradient_of_a_finite_constant_is_wrong(factor: float) -> None:
    assert check_grad(constant(2.0, 0.0), np.array([1.0]), order=1).checked == 1
    with pytest.raises(GradientError, match="the gradient of x is wrong"):
        check_grad(constant(2.0, factor), np.array([1.0]), order=1)


def test_infinite_neighbours() -> None:
    peak = tl.op(lambda g: 0.0 * g)(lambda xp, x: xp.where(x == 1, 0 * x, math.inf))
    report = check_grad(peak, np.array([1.0]), order=1, allow_inconclusive=True)
    assert (report.checked, report.inconclusive) == (0, 1)
    assert check_grad(exp_times(1.0), np.array([707.5]), order=1).checked == 1  # large steps overflow


def test_one_infinite_result_among_many() -> None:
    x = np.linspace(-2.0, 2.0, 100)
    x[50] = 800.0

    def wrong_at(index: int) -> Any:
        factors = np.where(np.arange(100) == index, 2.0, 1.0)
        return tl.op(lambda g, x: g * tl.exp(x) * factors)(lambda xp, x: xp.exp(x))

    report = check_grad(wrong_at(50), x, order=1)
    assert report.checked >= 16  # of single entries, and of directions
    for index in (0, 17, 99):
        with pytest.raises(GradientError, match=rf"at x\[{index}\]"):
            check_grad(wrong_at(index), x, order=1)


def test_check_adjoint() -> None:
    assert check_adjoint(exp_times(1.0), X) < 1e-12
    assert check_adjoint(lambda x: tl.cumsum(tl.exp(x), 0), np.array([0.5, 1.0, 800.0])) < 1e-12
    assert check_adjoint(lambda x: tl.clamp(tl.exp(x), 0.0, 10.0), np.array([1.0, 800.0])) < 1e-12
    with pytest.raises(GradientError, match="<c, J v> and <J"):
        check_adjoint(exp_times(2.0), X)
    for f, x in ((sum_of_exp, X), (exp_times(1.0), X[1:])):
        with pytest.raises(GradientError, match="along a random direction is inconclusive"):
            check_adjoint(f, x)


def test_infinite_results_of_empty_arguments_are_right() -> None:
    empty = np.zeros((2, 0))  # the result is two times -inf
    assert check_grad(tl.logsumexp, empty, dim=1, order=2).inconclusive == 0
    assert check_adjoint(tl.logsumexp, empty, dim=1) == 0.0


def test_check_op() -> None:
    for f in (sum_of_exp, exp_times(1.0), lambda x: tl.cumsum(tl.exp(x), 0)):
        check_op(f, np.array([0.0, 80.0, 100.0]))  # exp(100) is infinity in float32
        check_op(f, X)


def test_gradtest() -> None:
    sizes = st.sampled_from([0.0, 1.0, 800.0])

    @gradtest("(n)->()", elements=sizes, layouts=False, order=1, max_examples=20)
    def right(x: Any) -> Any:
        return sum_of_exp(x)

    right()

    @settings(phases=[Phase.generate])
    @gradtest("(2)->(2)", elements=sizes, layouts=False, order=1, max_examples=20)
    def wrong(x: Any) -> Any:
        return exp_times(2.0)(x)

    with pytest.raises(GradientError, match="the gradient of x is wrong"):
        wrong()


def test_slope_of_entries_that_are_not_finite() -> None:
    zero = np.array([math.inf, 3.0, math.nan, 0.0])
    found = slope(lambda t: zero + t * np.array([0.0, 2.0, 0.0, 5.0]), zero)
    assert np.isnan(found.value[[0, 2]]).all()
    assert np.isinf(found.error[[0, 2]]).all()
    assert found.value[[1, 3]] == pytest.approx([2.0, 5.0], rel=1e-12)
    assert (found.error[[1, 3]] < 1e-11).all()
