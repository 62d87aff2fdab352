"""Ops that users define with tl.op, and ops with several results."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.errors import GraphError, ShapeError


def leaf(*values, dtype=None):
    return tl.tensor(list(values), dtype=dtype, requires_grad=True)


# ---- ops with several results ---------------------------------------------------------------


def test_gradients_of_unused_results_are_zeros():
    x = tl.arange(6.0).reshape(3, 2).requires_grad_()
    first, _, last = x.unbind(0)
    (first * 2 + last * last).sum().backward()
    assert x.grad.tolist() == [[2.0, 2.0], [0.0, 0.0], [8.0, 10.0]]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_higher_orders_through_a_part_of_a_split(order):
    x = leaf(1.0, 2.0, 3.0, 4.0, dtype=tl.float64)
    y = x.split([1, 3])[1] ** 3
    expected = [None, [0, 12, 27, 48], [0, 12, 18, 24], [0, 6, 6, 6]][order]
    for _ in range(order):
        (y,) = tl.autograd.grad(y.sum(), x, create_graph=True)
    assert y.tolist() == expected


@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_get_tensors_also_for_numpy_scalars(create_graph):
    x, shown = tl.tensor(2.0, requires_grad=True), []
    a, b, _ = (x * tl.ones(3)).unbind()
    for t in (x, a, b):
        t.register_hook(lambda g: shown.append(repr(g.detach())))
    b.retain_grad()
    (a * b + a).backward(create_graph=create_graph)
    assert x.grad.item() == 5.0
    assert b.grad.item() == 2.0
    assert shown == ["tensor(2.)", "tensor(3.)", "tensor(5.)"]
    x.grad = b.grad = None


def test_hooks_and_targets_on_one_of_several_results():
    x = leaf(1.0, 2.0)
    a, b = x.unbind()
    a.register_hook(lambda g: g * 10)
    ga, gb, gx = tl.autograd.grad(a * 3 + b * b, [a, b, x])
    assert (ga.item(), gb.item(), gx.tolist()) == (30.0, 4.0, [30.0, 4.0])


# ---- a user's own op ------------------------------------------------------------------------


@pytest.mark.parametrize("through", [
    lambda v: tl.sum(tl.unsqueeze(v, -1), -1), lambda v: tl.squeeze(tl.flatten(v)), lambda v: tl.max(v, 0)[0],
    lambda v: tl.median(v, 0)[0], lambda v: tl.sort(v)[0], lambda v: tl.topk(v, 1)[0],
    lambda v: tl.quantile(v, 0.5), lambda v: tl.reshape(0.5 * tl.stack([v, v]).sum(0), ()),
])  # fmt: skip
def test_a_rule_may_give_an_op_a_numpy_scalar(through):
    """NumPy's operators make scalars of 0-d arrays, so ``g * x`` is one here."""
    square = tl.op(lambda g, x: through(2.0 * g * x))(lambda xp, x: x * x)
    x = tl.tensor(3.0, dtype=tl.float64, requires_grad=True)
    for create_graph in (False, True):
        (g,) = tl.autograd.grad(square(x), x, create_graph=create_graph)
        assert g.item() == 6.0
    (second,) = tl.autograd.grad(g, x)
    assert second.item() == 2.0


def test_rules_name_what_they_need():
    seen = {}

    def rule(g, x, out, power, in_shape):
        seen.update(power=power, in_shape=in_shape, out=out.tolist())
        return g * power * out / x

    @tl.op(rule)
    def raised(xp, x, power=2):
        return x**power

    x = leaf(1.0, 2.0)
    raised(x, power=3).sum().backward()
    assert x.grad.tolist() == [3.0, 12.0]
    assert seen == {"power": 3, "in_shape": (2,), "out": [1.0, 8.0]}
    assert isinstance(raised(x.array), np.ndarray)


def test_rules_in_ops_can_be_differentiated_again():
    @tl.op(lambda g, y: g * y, lambda g, x: g * x)
    def product(xp, x, y):
        return x * y

    x, y = leaf(2.0, dtype=tl.float64), leaf(3.0, dtype=tl.float64)
    (g,) = tl.autograd.grad(product(product(x, x), y).sum(), x, create_graph=True)
    assert g.tolist() == [12.0]
    assert [v.tolist() for v in tl.autograd.grad(g.sum(), [x, y])] == [[6.0], [4.0]]


def test_a_broadcast_gradient_is_summed_to_the_inputs_shape():
    @tl.op(lambda g: g, lambda g: g)
    def plus(xp, x, y):
        return x + y

    x, y = tl.ones(3, 1, requires_grad=True), tl.ones((), requires_grad=True)
    plus(plus(x, y), tl.ones(2, 3, 4)).sum().backward()
    assert x.grad.tolist() == [[8.0]] * 3
    assert y.grad.tolist() == 24.0


def test_auxiliary_results_are_saved_and_not_returned():
    @tl.op(lambda g, e: g * e, aux=("e",))
    def exponential(xp, x):
        e = xp.exp(x)
        return e * 1, e

    x = leaf(0.0, 1.0)
    y = exponential(x)
    y.sum().backward()
    assert isinstance(y, tl.Tensor)
    assert x.grad.tolist() == y.tolist()


def test_an_op_with_several_results():
    @tl.op(lambda g, x: g[0] * 2 * x + g[1], multi_output=True)
    def square_and_same(xp, x):
        return x * x, x * 1

    x = leaf(3.0)
    a, b = square_and_same(x)
    (a + 10 * b).sum().backward()
    assert x.grad.tolist() == [16.0]


def scaled_sigmoid(calls):
    def backward(xp, g, x, out, needs):
        calls.append(needs)
        return (g * out * (1 - out) if 0 in needs else None,)

    @tl.op(backward=backward, composite=lambda x: 1 / (1 + tl.exp(-x)))
    def fused(xp, x):
        return 1 / (1 + xp.exp(-x))

    return fused


def test_a_backward_function_and_its_composite():
    calls = []
    fused = scaled_sigmoid(calls)
    x = leaf(0.3, -0.7, dtype=tl.float64)
    y = x.sigmoid()
    (first,) = tl.autograd.grad(fused(x).sum(), x)
    assert calls == [(0,)]
    np.testing.assert_allclose(first.numpy(), (y * (1 - y)).detach().numpy(), rtol=1e-14)
    (again,) = tl.autograd.grad(fused(x).sum(), x, create_graph=True)
    (second,) = tl.autograd.grad(again.sum(), x)
    np.testing.assert_allclose(again.detach().numpy(), first.numpy(), rtol=1e-14)
    np.testing.assert_allclose(second.numpy(), (y * (1 - y) * (1 - 2 * y)).detach().numpy(), rtol=1e-13)
    assert len(calls) == 1  # with a graph the composite is differentiated


def test_an_op_with_any_number_of_tensors():
    @tl.op(lambda g, factor, terms, index: g * factor * len(terms) * (index + 1))
    def weighted(xp, factor, *terms):
        return factor * sum(terms)

    with pytest.raises(GraphError, match=r"no gradient is defined"):
        tl.op(None)(lambda xp, x: x)(leaf(1.0))
    a, b = leaf(1.0), leaf(2.0)
    assert weighted(2.0, a, b).tolist() == [6.0]


def test_an_op_may_call_ops_and_differentiate_inside():
    @tl.op(lambda g, x: g * tl.tanh(x))
    def log_cosh(xp, x):
        inside = tl.tensor(x, requires_grad=True)
        (slope,) = tl.autograd.grad((inside * inside).sum(), inside)
        assert np.array_equal(slope.numpy(), 2 * x)
        return tl.log(tl.cosh(x))  # on raw arrays

    x = leaf(0.5, 1.0, dtype=tl.float64)
    log_cosh(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.tanh([0.5, 1.0]), rtol=1e-15)


def test_a_rule_that_names_an_unknown_value_is_an_error():
    with pytest.raises(TypeError, match=r"^op square: its gradient rule names y, but it can only name x, out, in_"):

        @tl.op(lambda g, y: g * y)
        def square(xp, x):
            return x * x


def test_options_that_do_not_fit_are_an_error():
    with pytest.raises(TypeError, match=r"needs a composite"):
        tl.op(backward=lambda xp, g: (g,))
    with pytest.raises(ValueError, match=r"^op: dtypes='upcast' is not a policy\. Choose from 'promote'"):
        tl.op(dtypes="upcast")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda g: tl.ones(5), ShapeError, r"gave shape \(5,\), which does not fit the argument's shape \(3,\)"),
        (lambda g: g.sum(), ShapeError, r"gave shape \(\)"),
        (lambda g: 2.0, TypeError, "must return an array, got float"),
    ],
)
def test_a_rule_must_give_the_shape_of_its_argument(given, error, message):
    @tl.op(given)
    def wrong(xp, x):
        return x * 1

    with pytest.raises(error, match=rf"^wrong: the gradient rule of argument 'x' {message}"):
        wrong(tl.ones(3, requires_grad=True)).sum().backward()


def test_calls_that_do_not_fit_are_an_error():
    @tl.op(lambda g: g)
    def same(xp, x, scale=1.0):
        return x * scale

    x = leaf(1.0)
    with pytest.raises(TypeError, match=r"^same: missing a required argument: 'x'; its signature is same\(x, scale"):
        same()
    with pytest.raises(TypeError, match=r"^same: got an unexpected keyword argument 'factor'"):
        same(x, factor=2)
    with pytest.raises(TypeError, match=r"^same: expected a Tensor or a number, got a list"):
        same([1.0])
    with pytest.raises(TypeError, match=r"^same: expected a Tensor, got float, float"):
        same(1.0)
