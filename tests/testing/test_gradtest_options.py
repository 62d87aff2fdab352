"""Tests of gradtest with decorators of hypothesis and pytest, its reports of a failure, and order 3."""
import inspect

import numpy as np
import pytest

pytest.importorskip("hypothesis")

import hypothesis
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tensorlite as tl
import tensorlite.nn.functional as F
import tensorlite.testing
from tensorlite.testing import (
    GradientError,
    OpSpec,
    Program,
    check_grad,
    check_op,
    gradtest,
    numpy_op,
    optest,
    real,
    s,
)
from tensorlite.testing.random_programs.ops import user_ops
from tensorlite.testing.random_programs.program import Step

X = np.array([1.0, 2.0])


@pytest.fixture(autouse=True)
def _the_same_examples_every_time(monkeypatch):
    monkeypatch.setenv("TENSORLITE_TESTING_PROFILE", "ci")


def message(call, *args, **kwargs):
    with pytest.raises(GradientError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# ---- decorators -----------------------------------------------------------------------------


def test_settings_above_and_below():
    counts = []
    for above in (True, False):
        drawn = []

        def f(x, k, drawn=drawn):
            drawn.append(k)
            return x * 1.0

        decorators = [gradtest("()", k=st.integers(0, 10**9)), settings(max_examples=7)]
        for decorate in decorators if above else reversed(decorators):
            f = decorate(f)
        f()
        f()
        counts.append(len(set(drawn)))
    assert all(3 <= count <= 7 for count in counts)


def test_explicit_examples_above_and_below():
    seen = []

    @example(x=[7.0, 8.0], k=3)
    @gradtest("(n)", k=st.integers(0, 2), order=1, max_examples=3)
    @example(x=tl.tensor([5.5], dtype=tl.float64), k=9)
    def f(x, k):
        seen.append((x.detach().tolist(), k))
        return x * k

    f()
    assert ([7.0, 8.0], 3) in seen
    assert ([5.5], 9) in seen


def test_an_explicit_example_can_fail():
    @gradtest("(n)", elements="unit", order=1, max_examples=5)
    @example([100.0])
    def f(x):
        return x * 1.0 if not x.numel() or x.detach().max().item() < 50 else x.detach() + 2.0 * x

    assert "check_grad(f.f, np.array([100.0]), seed=0, order=1)" in message(f)


def test_parametrize_below():
    @gradtest("(n)", max_examples=5)
    @pytest.mark.parametrize("factor", [2.0, 3.0])
    def f(x, factor):
        return x * factor

    assert list(inspect.signature(f).parameters) == ["factor"]
    f(factor=2.0)


async def _coroutine(x):
    return x


def _generator(x):
    yield x


@given(st.integers())
def _given(x):
    return x


@pytest.mark.parametrize(
    ("f", "words"),
    [(_coroutine, "is an async function"), (_generator, "is a generator"), (_given, "is decorated with @given. Pass")],
)
def test_other_kinds_of_functions_are_an_error(f, words):
    with pytest.raises(TypeError, match=words):
        gradtest("(n)")(f)


def test_a_star_import_leaves_given_of_hypothesis_alone():
    names = {"given": given}
    exec("from tensorlite.testing import *", names)  # noqa: S102
    assert names["given"] is given
    assert tensorlite.testing.given([1.0]).grad
    assert tensorlite.testing.given(st.integers()).__module__ == hypothesis.given.__module__


def test_optest_can_be_called():
    optest(OpSpec("exp", tl.exp, [s(real(2))], reference=np.exp))()
    with pytest.raises(GradientError, match="exp: the result"):
        optest(OpSpec("exp", tl.exp, [s(real(2))], reference=np.sin))()


# ---- reports --------------------------------------------------------------------------------


@tl.op(lambda g, y: g * y, lambda g, x: g * (x.detach() if isinstance(x, tl.Tensor) else x))
def detaches_x(xp, x, y):
    return x * y


class Case:
    @gradtest("(n)")
    def test_it(self, x):
        return x.detach() * x


local = lambda x: x.detach() * x
of_numpy = numpy_op(lambda x: x * x, lambda g, x: 3 * g * x)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (gradtest("(n)")(lambda x: x.detach() * x), "check_grad((lambda x: x.detach() * x), np.array"),
        (Case().test_it, "check_grad(Case.test_it.f.__get__(Case()), np.array"),
        (lambda: check_grad(local, X), "check_grad(local, np.array([1.0, 2.0]), seed=0)"),
        (lambda: check_grad(lambda x, k: x.detach() * x * k, X, k=2.0, rtol=1e-5), "k=2.0, seed=0, rtol=1e-05)"),
        (lambda: check_grad(lambda x, y: x * y.detach(), X, X + 1, wrt=[1]), "seed=0, wrt=[1])"),
        (lambda: check_grad(lambda x, y: x.detach() * y, X, X), "(lambda shared: check_grad((lambda x, y: x.detach()"),
        (lambda: check_grad(of_numpy, X, order=1), "check_grad(of_numpy, np.array([1.0, 2.0]), seed=0, order=1)"),
    ],
)  # fmt: skip
def test_the_last_line_repeats_the_failure(call, said):
    line = message(call).splitlines()[-1].strip()
    assert said in line
    assert "is wrong" in message(lambda: eval(line, globals()))  # noqa: S307


def test_the_lowest_order_and_the_right_argument_are_blamed():
    said = message(check_grad, detaches_x, X, X)
    assert said.startswith("detaches_x: the second derivative of y with respect to x is wrong")
    assert message(check_grad, local, np.zeros(1)).startswith("<lambda>: the gradient of x is wrong")

    @gradtest("(n),(n)")
    def gate(x, y):
        return x * tl.sigmoid(x.detach()) + y

    assert message(gate).startswith(f"{gate.__qualname__.rpartition('.')[2]}.f: the gradient of x is wrong")


def _layout(x):
    return x * 1.0 if x.array.flags.c_contiguous else x * 2.0


@pytest.mark.parametrize("call", [
    lambda: check_grad(local, X),  # the first order
    lambda: check_grad(detaches_x, X, X),  # the second order
    lambda: check_grad(local, np.zeros(1)),  # the first order, after the second
    lambda: check_grad(local, np.zeros(100) + 1.5),  # without a call that reproduces it
    lambda: check_op(_layout, np.ones((2, 3))),
    lambda: check_op(lambda x: 1.0 * x.to(tl.float64), X),
    gradtest("(n)")(local),
    Program([X], [Step(user_ops([local])[0], (0,), (1,))]).check,
])  # fmt: skip
def test_errors_have_no_context(call):
    """hypothesis takes errors with other contexts for other bugs, and would not shrink one of them to another."""
    with pytest.raises(GradientError) as caught:
        call()
    assert caught.value.__context__ is None


def test_order_three():
    assert check_grad(tl.sin, X, order=3).checked >= 10
    third = tl.op(lambda g, x: g * _cos_of_constant(x))(lambda xp, x: xp.sin(x))
    check_grad(third, X)
    said = message(check_grad, third, X, order=3)
    assert "the third derivative of x is wrong" in said
    assert said.endswith("order=3)")


@tl.op(lambda g, x: -g * tl.sin(x.detach() if isinstance(x, tl.Tensor) else x))
def _cos_of_constant(xp, x):
    return xp.cos(x)


# ---- where floats cannot tell ---------------------------------------------------------------


@pytest.mark.parametrize("f", [tl.sin, tl.exp, tl.log, F.gelu, lambda x: 1 / (1 + tl.exp(-x)), lambda x: 1.0 / x])
def test_floats_without_bounds(f):
    @gradtest("(n)", elements=st.floats(), max_examples=25)
    def test(x):
        return f(x)

    test()


@pytest.mark.parametrize("f", [
    lambda x: F.gelu(x, "tanh"), lambda x: 1 / (1 + tl.exp(-x)), lambda x: tl.log(1 + tl.exp(x)),
])  # fmt: skip
def test_overflow_and_cancellation_on_the_way(f):
    for x in (-7.0, -4.0, -100.0, -800.0, 2.0**-24):
        check_grad(f, np.array([x]), allow_inconclusive=True)
        check_op(f, np.array([x]))


def test_a_pole_and_a_kink_close_by():
    for x in (1e-7, 2.0**-24, 1e-3, -1e-9):
        assert check_grad(lambda x: 1.0 / x, np.array([x])).checked
        check_grad(lambda x: tl.relu(x) - tl.relu(-x), np.array([x]), allow_inconclusive=True)
        check_grad(tl.relu, np.array([x]), allow_inconclusive=True)
