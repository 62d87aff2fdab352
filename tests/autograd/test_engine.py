"""The engine: the graph, the sweep, grad mode, hooks, a user's own ops, and what becomes of memory."""
import gc
import threading
import weakref

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.errors import DTypeError, GraphError, ShapeError


def leaf(*values, dtype=None):
    return tl.tensor(list(values), dtype=dtype, requires_grad=True)


# ---- backward -------------------------------------------------------------------------------


def test_backward_of_a_scalar_fills_the_leaves():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    loss = (x * x * w).sum()
    loss.backward()
    assert x.grad.tolist() == [6.0, 16.0]
    assert w.grad.tolist() == [1.0, 4.0]
    assert not x.grad.requires_grad
    assert loss.grad is None


def test_backward_takes_the_weight_of_each_entry():
    x = leaf(1.0, 2.0, 3.0)
    (x * x).backward(tl.tensor([1.0, 0.0, -1.0]))
    assert x.grad.tolist() == [2.0, 0.0, -6.0]


def test_backward_of_one_entry_needs_no_gradient():
    x = leaf(3.0)
    (x * x).reshape(1, 1).backward()
    assert x.grad.tolist() == [6.0]


def test_backward_of_a_leaf_gives_it_the_seed():
    x, seed = leaf(1.0, 2.0), tl.tensor([5.0, 6.0])
    x.backward(seed)
    assert x.grad.tolist() == [5.0, 6.0]
    seed.zero_()
    assert x.grad.tolist() == [5.0, 6.0]


def test_a_value_used_twice_sums_its_gradients():
    x = leaf(2.0)
    y = x * 3
    (y * y + y + x).sum().backward()
    assert x.grad.tolist() == [2 * 6 * 3 + 3 + 1]


def test_gradients_accumulate_and_whoever_holds_them_sees_the_sum():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    held = x.grad
    (x * 10).sum().backward()
    assert held is x.grad
    assert held.tolist() == [12.0, 14.0]
    assert held._version == 1


def test_a_gradient_that_was_broadcast_accumulates():
    """The mean's gradient is a broadcast view, which NumPy forbids to write to, and here one entry of one entry."""
    x = tl.tensor([[2.0]], requires_grad=True)
    for _ in range(2):
        x.mean().backward()
    assert x.grad.tolist() == [[2.0]]
    (g,) = tl.autograd.grad(x.mean(), x)
    g.add_(1)
    assert g.tolist() == [[2.0]]


@pytest.mark.parametrize("grad", [tl.ones(1, 2), np.ones(2), 0.0])
def test_a_grad_that_was_set_to_something_that_does_not_fit(grad):
    x = leaf(1.0, 2.0)
    x.grad = grad
    with pytest.raises(ShapeError, match=r"^backward: expected a grad of shape \(2,\), got .*set grad to None"):
        x.sum().backward()


def test_retain_graph_allows_a_second_pass():
    x = leaf(2.0)
    loss = (x**3).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert x.grad.tolist() == [24.0]


def test_a_second_backward_over_a_freed_graph_is_an_error():
    x = leaf(2.0)
    y = x.exp()
    loss = (y * y).sum()
    loss.backward()
    with pytest.raises(GraphError, match=r"^sum: .* freed. Pass retain_graph=True"):
        loss.backward()
    with pytest.raises(GraphError, match=r"^exp: .* freed"):
        y.sum().backward()
    assert x.grad.tolist() == pytest.approx([2 * np.exp(4.0)], rel=1e-6)


def test_inputs_limits_what_is_filled_and_may_name_results_of_ops():
    x, w = leaf(2.0), leaf(5.0)
    y = x * w
    (y * y).sum().backward(inputs=[x, y])
    assert x.grad.tolist() == [2 * 10 * 5]
    assert y.grad.tolist() == [20.0]
    assert w.grad is None


def test_what_does_not_lead_to_an_input_is_not_computed():
    def forbidden(g):
        raise AssertionError("this rule was not needed")

    @tl.op(lambda g, y: g * y, forbidden)
    def product(xp, x, y):
        return x * y

    x, y = leaf(2.0), leaf(3.0)
    product(x, y).sum().backward(inputs=x)
    assert x.grad.tolist() == [3.0]


def test_create_graph_makes_the_gradient_differentiable():
    x = leaf(2.0)
    (x**3).sum().backward(create_graph=True)
    assert x.grad.requires_grad
    (second,) = tl.autograd.grad(x.grad.sum(), x)
    assert second.tolist() == [12.0]
    x.grad = None  # else the graph of the gradient keeps x, and x keeps the gradient


@pytest.mark.parametrize(
    ("gradient", "error", "message"),
    [
        (None, GraphError, r"scalar, and this tensor has shape \(3,\)"),
        (tl.ones(2), ShapeError, r"of shape \(2,\) for a tensor of shape \(3,\)"),
        (tl.ones(3, dtype=tl.float64), DTypeError, "dtype float64 for a tensor of dtype float32"),
        (2.0, TypeError, r"must be a Tensor of shape \(3,\), got float"),
        ([1.0, 2.0], GraphError, "1 outputs but 2 gradients"),
    ],
)
def test_the_gradient_must_fit_the_tensor(gradient, error, message):
    with pytest.raises(error, match=rf"^backward: .*{message}"):
        (tl.ones(3, requires_grad=True) * 2).backward(gradient)


def test_what_needs_no_gradient_has_no_backward():
    with pytest.raises(GraphError, match=r"^backward: .* does not require gradients"):
        tl.ones(3).sum().backward()
    with pytest.raises(GraphError, match=r"^backward: inputs is empty"):
        leaf(1.0).sum().backward(inputs=[])
    with pytest.raises(GraphError, match=r"^backward: each of inputs"):
        leaf(1.0).sum().backward(inputs=[tl.ones(1)])


# ---- autograd.grad --------------------------------------------------------------------------


def test_grad_of_several_outputs_sums_over_them_and_fills_nothing():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    weights = [tl.tensor(10.0), tl.tensor([1.0, -1.0])]
    gx, gw = tl.autograd.grad([(x * w).sum(), x * x], [x, w], weights)
    assert gx.tolist() == [30 + 2.0, 40 - 4.0]
    assert gw.tolist() == [10.0, 20.0]
    assert x.grad is None
    assert w.grad is None


def test_the_same_output_twice_counts_twice():
    x = leaf(3.0)
    y = (x * x).sum()
    assert tl.autograd.grad([y, y], x)[0].tolist() == [12.0]


def test_grad_for_an_output_itself_is_its_weight():
    x = leaf(1.0, 2.0)
    y = x * 3
    weight = tl.tensor([5.0, 7.0])
    gy, gx = tl.autograd.grad(y, [y, x], weight)
    assert gy.tolist() == [5.0, 7.0]
    assert gx.tolist() == [15.0, 21.0]
    assert not np.shares_memory(gy.array, weight.array)


def test_an_unused_input_is_an_error_or_none():
    x, other = leaf(1.0), tl.ones(2, 3, requires_grad=True)
    with pytest.raises(GraphError, match=r"do not depend on input 1, of shape \(2, 3\); pass allow_unused=True"):
        tl.autograd.grad((x * x).sum(), [x, other])
    gx, none = tl.autograd.grad((x * x).sum(), [x, other], allow_unused=True)
    assert gx.tolist() == [2.0]
    assert none is None
    for create_graph in (False, True):
        found = tl.autograd.grad((x * x).sum(), [x, other], None, None, create_graph, materialize_grads=True)
        assert [g.tolist() for g in found] == [gx.tolist(), [[0.0] * 3] * 2]


def test_an_input_without_gradients_is_an_error():
    with pytest.raises(GraphError, match=r"^grad: an input of shape \(2,\) does not require gradients"):
        tl.autograd.grad(leaf(1.0).sum(), tl.ones(2))
    with pytest.raises(TypeError, match=r"^grad: expected a Tensor to differentiate, got float"):
        tl.autograd.grad(3.0, leaf(1.0))
    with pytest.raises(TypeError, match=r"^grad: expected a Tensor as an input, got float"):
        tl.autograd.grad(leaf(1.0).sum(), 3.0)


def test_gradients_never_share_memory():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    seed = tl.tensor([1.0, 2.0])
    gx, gy = tl.autograd.grad(x + y, [x, y], seed)
    twice = tl.autograd.grad(x * 1 + 0, [x, x], seed)
    arrays = [seed.array, gx.array, gy.array, *(g.array for g in twice)]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
    (x + y.reshape(2, 1).T.flatten()).backward(seed)
    x.grad.add_(100)
    assert y.grad.tolist() == [1.0, 2.0]
    assert seed.tolist() == [1.0, 2.0]


def test_a_broadcast_gradient_is_memory_of_its_own():
    x = tl.ones(3, 4, requires_grad=True)
    x.sum().backward()
    assert x.grad.array.flags.writeable
    assert x.grad.array.strides == (16, 4)


@pytest.mark.parametrize(
    ("f", "derivatives"),
    [
        (lambda x: x**5, [lambda x: 5 * x**4, lambda x: 20 * x**3, lambda x: 60 * x**2, lambda x: 120 * x]),
        (tl.sin, [np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x), np.sin]),
        (lambda x: 1 / x, [lambda x: -(x**-2), lambda x: 2 * x**-3, lambda x: -6 * x**-4, lambda x: 24 * x**-5]),
    ],
)
def test_derivatives_up_to_the_fourth(f, derivatives):
    x = leaf(0.5, -1.5, dtype=tl.float64)
    y = f(x)
    for expected in derivatives:
        (y,) = tl.autograd.grad(y.sum(), x, create_graph=True)
        np.testing.assert_allclose(y.detach().numpy(), expected(x.detach().numpy()), rtol=1e-13)


# ---- grad mode ------------------------------------------------------------------------------


def test_no_grad_and_enable_grad_as_context_and_decorator():
    x = leaf(1.0)

    @tl.no_grad()
    def quiet():
        """Its name and its docstring stay."""
        return (x * 2).requires_grad

    @tl.enable_grad()
    def loud():
        return (x * 2).requires_grad

    assert not quiet()
    assert quiet.__name__ == "quiet"
    assert quiet.__doc__
    with tl.no_grad():
        assert not tl.is_grad_enabled()
        assert not (x * 2).requires_grad
        assert loud()
        with tl.enable_grad():
            assert (x * 2).requires_grad
        assert not tl.is_grad_enabled()
    assert tl.is_grad_enabled()


def test_a_mode_object_can_be_nested_and_used_again():
    mode = tl.no_grad()
    with mode, mode:
        assert not tl.is_grad_enabled()
    assert tl.is_grad_enabled()
    with mode:
        assert not tl.is_grad_enabled()
    assert tl.is_grad_enabled()


def test_set_grad_enabled_at_once_or_for_a_block():
    with tl.set_grad_enabled(False):
        assert not tl.is_grad_enabled()
        with tl.set_grad_enabled(True):
            assert tl.is_grad_enabled()
    assert tl.is_grad_enabled()
    tl.set_grad_enabled(False)
    assert not tl.is_grad_enabled()
    tl.set_grad_enabled(True)
    assert tl.is_grad_enabled()


def test_set_grad_enabled_as_a_decorator():
    @tl.set_grad_enabled(False)
    def quiet():
        return tl.is_grad_enabled()

    assert tl.is_grad_enabled()
    assert not quiet()
    assert tl.is_grad_enabled()


def test_a_generator_cannot_be_decorated():
    def numbers():
        yield 1

    with pytest.raises(TypeError, match=r"^numbers: .* use a with block inside"):
        tl.no_grad()(numbers)


def test_the_mode_comes_back_after_an_exception():
    with pytest.raises(KeyError), tl.no_grad():
        raise KeyError
    assert tl.is_grad_enabled()


def test_the_mode_belongs_to_the_thread():
    seen = []
    with tl.no_grad():
        thread = threading.Thread(target=lambda: seen.append((tl.is_grad_enabled(), (leaf(1.0) * 2).requires_grad)))
        thread.start()
        thread.join()
    assert seen == [(True, True)]


def test_threads_differentiate_at_the_same_time():
    results = {}

    def work(k):
        x = tl.full((50,), float(k), dtype=tl.float64, requires_grad=True)
        for _ in range(30):
            x.grad = None
            (x * x).sum().backward()
        results[k] = x.grad.tolist()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {k: [2.0 * k] * 50 for k in range(4)}


def test_backward_under_no_grad_still_works():
    x = leaf(3.0)
    y = (x * x).sum()
    with tl.no_grad():
        y.backward()
        assert not tl.is_grad_enabled()
    assert x.grad.tolist() == [6.0]


@pytest.mark.parametrize("create_graph", [False, True])
def test_an_exception_in_a_rule_or_a_hook_leaves_the_mode_as_it_was(create_graph):
    def boom(g):
        raise KeyError("boom")

    @tl.op(boom)
    def broken(xp, x):
        return x * 1

    x = leaf(1.0)
    y = x * 2
    y.register_hook(boom)
    for loss in (broken(x).sum(), y.sum()):
        for mode in (tl.enable_grad, tl.no_grad):
            with mode():
                before = tl.is_grad_enabled()
                with pytest.raises(KeyError, match=r"boom"):
                    loss.backward(create_graph=create_graph, retain_graph=True)
                assert tl.is_grad_enabled() is before
    assert x.grad is None


# ---- hooks ----------------------------------------------------------------------------------


def test_hooks_on_leaves_and_results_see_the_whole_gradient_once():
    x, seen = leaf(1.0, 2.0), []
    y = x * 3
    x.register_hook(lambda g: seen.append(("x", g.tolist())))
    y.register_hook(lambda g: seen.append(("y", g.tolist())))
    (y * y + y).sum().backward()
    assert seen == [("y", [7.0, 13.0]), ("x", [21.0, 39.0])]


def test_what_a_hook_returns_takes_the_place_of_the_gradient():
    x = leaf(1.0, 2.0)
    y = x * 3
    y.register_hook(lambda g: g * 10)
    y.register_hook(lambda g: g + 1)
    x.register_hook(lambda g: -g)
    y.sum().backward()
    assert x.grad.tolist() == [-33.0, -33.0]


def test_a_hook_can_be_taken_away():
    x, calls = leaf(1.0), []
    handle = x.register_hook(calls.append)
    (x * 2).sum().backward()
    handle.remove()
    handle.remove()
    (x * 2).sum().backward()
    with x.register_hook(calls.append):
        (x * 2).sum().backward()
    (x * 2).sum().backward()
    assert len(calls) == 2


def test_a_hook_that_removes_itself_does_not_skip_the_next():
    x, calls = leaf(1.0), []

    def once(g):
        calls.append("once")
        handle.remove()

    handle = x.register_hook(once)
    x.register_hook(lambda g: calls.append("always"))
    for _ in range(2):
        (x * 2).sum().backward()
    assert calls == ["once", "always", "always"]


def test_hooks_run_for_autograd_grad_too():
    x = leaf(2.0)
    y = x * x
    y.register_hook(lambda g: g * 5)
    gy, gx = tl.autograd.grad(y.sum(), [y, x])
    assert gy.tolist() == [5.0]
    assert gx.tolist() == [20.0]


def test_ops_in_a_hook_are_recorded_only_under_create_graph():
    x = leaf(2.0)
    recorded = []

    def cube(g):
        recorded.append((g * g).requires_grad)
        return g * g * g

    y = x * x
    handle = y.register_hook(cube)
    (gx,) = tl.autograd.grad((y * y).sum(), x, create_graph=True)  # (2 x^2)^3 2 x = 16 x^7
    handle.remove()
    assert gx.tolist() == [16 * 2.0**7]
    assert tl.autograd.grad(gx.sum(), x)[0].tolist() == [112 * 2.0**6]
    assert recorded == [True]
    z = x * x
    z.register_hook(cube)
    z.sum().backward()
    assert recorded == [True, False]


def test_a_backward_inside_a_hook():
    x, w = leaf(2.0), leaf(3.0)

    def hook(g):
        with tl.enable_grad():
            (w * w).sum().backward()

    x.register_hook(hook)
    (x * x).sum().backward()
    assert x.grad.tolist() == [4.0]
    assert w.grad.tolist() == [6.0]


@pytest.mark.parametrize(
    ("hook", "error", "got"),
    [
        (lambda g: tl.ones(7), ShapeError, r"float32\(7,\)"),
        (lambda g: g.double(), DTypeError, r"float64\(2,\)"),
        (lambda g: 3, RuntimeError, "int"),
    ],
)
def test_what_a_hook_returns_must_fit(hook, error, got):
    x = leaf(1.0, 2.0)
    x.register_hook(hook)
    with pytest.raises(error, match=rf"^hook: .* None or a Tensor float32\(2,\), got {got}"):
        x.sum().backward()
    assert x.grad is None


def test_a_hook_needs_a_tensor_that_gets_gradients():
    with pytest.raises(GraphError, match=r"^register_hook: "):
        tl.ones(2).register_hook(print)
    with pytest.raises(GraphError, match=r"^retain_grad: "):
        tl.ones(2).retain_grad()


def test_retain_grad_fills_and_accumulates_and_shares_nothing():
    x = leaf(1.0, 2.0)
    y = x * 3
    y.retain_grad()
    x.retain_grad()  # nothing to do
    loss = (y * y).sum()
    loss.backward(retain_graph=True)
    assert y.grad.tolist() == [6.0, 12.0]
    loss.backward()
    assert y.grad.tolist() == [12.0, 24.0]
    assert x.grad.tolist() == [36.0, 72.0]
    y.grad.zero_()
    assert x.grad.tolist() == [36.0, 72.0]


# ---- ops with several results ---------------------------------------------------------------


def test_unused_results_count_as_zeros():
    x = tl.arange(6.0).reshape(3, 2).requires_grad_()
    first, _, last = x.unbind(0)
    (first * 2 + last * last).sum().backward()
    assert x.grad.tolist() == [[2.0, 2.0], [0.0, 0.0], [8.0, 10.0]]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_part_of_a_split_at_higher_orders(order):
    x = leaf(1.0, 2.0, 3.0, 4.0, dtype=tl.float64)
    y = x.split([1, 3])[1] ** 3
    expected = [None, [0, 12, 27, 48], [0, 12, 18, 24], [0, 6, 6, 6]][order]
    for _ in range(order):
        (y,) = tl.autograd.grad(y.sum(), x, create_graph=True)
    assert y.tolist() == expected


@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_are_shown_tensors_also_where_numpy_makes_scalars(create_graph):
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


# ---- mixed dtypes ---------------------------------------------------------------------------


@pytest.mark.parametrize("create_graph", [False, True])
def test_each_leaf_gets_gradients_of_its_own_dtype(create_graph):
    x, w = leaf(1.5, 2.0), leaf(3.0, 4.0, dtype=tl.float64)
    y = x * w + x
    assert y.dtype == tl.float64
    gx, gw = tl.autograd.grad((y * y).sum(), [x, w], create_graph=create_graph)
    assert (gx.dtype, gw.dtype) == (tl.float32, tl.float64)
    expected = 2 * np.array([6.0, 10.0]) * np.array([4.0, 5.0])
    np.testing.assert_array_equal(gx.detach().numpy(), expected)
    if create_graph:
        sx, sw = tl.autograd.grad(gx.sum() + gw.sum(), [x, w])
        assert (sx.dtype, sw.dtype) == (tl.float32, tl.float64)
        # L = x^2 (w+1)^2:  L_xx + L_wx = 2 (w+1)^2 + 4 x (w+1),  L_xw + L_ww = 4 x (w+1) + 2 x^2
        assert sx.tolist() == [2 * 16 + 24.0, 2 * 25 + 40.0]
        assert sw.tolist() == [24 + 4.5, 40 + 8.0]


# ---- a user's own op ------------------------------------------------------------------------


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


def test_a_gradient_that_is_still_broadcast_is_summed_down():
    @tl.op(lambda g: g, lambda g: g)
    def plus(xp, x, y):
        return x + y

    x, y = tl.ones(3, 1, requires_grad=True), tl.ones((), requires_grad=True)
    plus(plus(x, y), tl.ones(2, 3, 4)).sum().backward()
    assert x.grad.tolist() == [[8.0]] * 3
    assert y.grad.tolist() == 24.0


def test_auxiliary_results_are_kept_for_the_rules_and_not_returned():
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
    def mine(xp, x):
        return 1 / (1 + xp.exp(-x))

    return mine


def test_a_backward_function_and_its_composite():
    calls = []
    mine = scaled_sigmoid(calls)
    x = leaf(0.3, -0.7, dtype=tl.float64)
    y = x.sigmoid()
    (first,) = tl.autograd.grad(mine(x).sum(), x)
    assert calls == [(0,)]
    np.testing.assert_allclose(first.numpy(), (y * (1 - y)).detach().numpy(), rtol=1e-14)
    (again,) = tl.autograd.grad(mine(x).sum(), x, create_graph=True)
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


def test_an_op_may_call_ops_and_differentiate_in_its_forward():
    @tl.op(lambda g, x: g * tl.tanh(x))
    def log_cosh(xp, x):
        inside = tl.tensor(x, requires_grad=True)
        (slope,) = tl.autograd.grad((inside * inside).sum(), inside)
        assert np.array_equal(slope.numpy(), 2 * x)
        return tl.log(tl.cosh(x))  # on raw arrays

    x = leaf(0.5, 1.0, dtype=tl.float64)
    log_cosh(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.tanh([0.5, 1.0]), rtol=1e-15)


def test_names_that_the_op_does_not_have_are_an_error():
    with pytest.raises(TypeError, match=r"^op square: its gradient rule names y, but it can only name x, out, in_"):

        @tl.op(lambda g, y: g * y)
        def square(xp, x):
            return x * x


def test_options_that_do_not_fit_are_an_error():
    with pytest.raises(TypeError, match=r"needs a composite"):
        tl.op(backward=lambda xp, g: (g,))
    with pytest.raises(ValueError, match=r"^op: dtypes='upcast' is not a policy; choose from 'promote'"):
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


# ---- memory ---------------------------------------------------------------------------------


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_hundred_thousand_ops_in_a_chain(no_collector):
    x = tl.ones((), dtype=tl.float64, requires_grad=True)
    y = x
    for _ in range(100_000):
        y = y * 1.00001
    middle = weakref.ref(y.grad_fn)
    y.backward()
    assert x.grad.item() == pytest.approx(1.00001**100_000)
    del y
    assert middle() is None


def test_a_chain_that_was_never_differentiated_is_freed_without_a_deep_recursion(no_collector):
    x = tl.ones((), requires_grad=True)
    y = x.exp()
    first = weakref.ref(y.grad_fn)
    for _ in range(100_000):
        y = y * 1.0
    del y
    assert first() is None


def test_memory_goes_back_while_the_sweep_passes(no_collector):
    alive = []

    @tl.op(lambda g, x, k: (alive.append([r() is not None for r in refs]), g * x)[1])
    def watched(xp, x, k):
        return x * 1

    x, refs = tl.ones(10, requires_grad=True), []
    y = x
    for k in range(3):
        y = y * 2.0
        refs.append(weakref.ref(y.array))
        y = watched(y, k)
    y.sum().backward()
    assert alive[0] == [True] * 3
    assert alive[2] == [True, False, False]


@pytest.mark.parametrize("create_graph", [False, True])
def test_no_reference_cycles(no_collector, create_graph):
    x = tl.ones(4, 4, requires_grad=True)
    h = (x @ x).softmax(-1).gelu() if hasattr(tl.Tensor, "gelu") else (x @ x).softmax(-1).tanh()
    a, b = h.split(2)
    loss = (a * b).logsumexp(-1).sum()
    refs = [weakref.ref(v) for v in (h.array, a.array, h.grad_fn, loss.grad_fn, loss, h)]
    (g,) = tl.autograd.grad(loss, x, create_graph=create_graph)
    refs += [weakref.ref(g), weakref.ref(g.array)]
    del h, a, b, loss, g
    assert [r() for r in refs] == [None] * len(refs)
    assert gc.collect() == 0 or not any(isinstance(o, tl.autograd.Node) for o in gc.garbage)


def test_backward_keeps_nothing_but_the_gradients(no_collector):
    x = tl.ones(4, requires_grad=True)
    y = x.exp()
    data = weakref.ref(y.array)
    loss = (y * y).sum()
    del y
    assert data() is not None
    loss.backward()
    assert data() is None


def test_hooks_and_retain_grad_make_no_cycles(no_collector):
    x = leaf(1.0)
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: g * 2)
    refs = [weakref.ref(y), weakref.ref(y.grad_fn)]
    y.sum().backward()
    assert y.grad.tolist() == [1.0]
    del y
    assert [r() for r in refs] == [None, None]


def test_an_error_in_backward_keeps_nothing_alive(no_collector):
    x = leaf(1.0)
    y = x.exp()
    data = weakref.ref(y.array)
    with pytest.raises(GraphError):
        (y * tl.ones(2)).backward()
    del y
    assert data() is None


def test_inference_mode():
    x = tl.ones(2, requires_grad=True)
    with tl.inference_mode():
        assert tl.is_inference_mode_enabled()
        assert not tl.is_grad_enabled()
        y = x * 2
        with tl.enable_grad():
            assert (x * 2).requires_grad
        with tl.inference_mode(False):
            assert not tl.is_inference_mode_enabled()
            assert (x * 2).requires_grad
        assert tl.is_inference_mode_enabled()
    assert not tl.is_inference_mode_enabled()
    assert tl.is_grad_enabled()
    assert not y.requires_grad
    y.add_(1.0)
    (x * y).sum().backward()  # y is an ordinary tensor
    assert x.grad.tolist() == [3.0, 3.0]


def test_inference_mode_decorates_and_is_put_back_after_errors():
    def f(x):
        return tl.is_inference_mode_enabled(), (x * 2).requires_grad

    x = tl.ones(2, requires_grad=True)
    assert tl.inference_mode(f)(x) == tl.inference_mode()(f)(x) == (True, False)
    assert tl.inference_mode(False)(f)(x) == f(x) == (False, True)
    with pytest.raises(KeyError), tl.inference_mode():
        raise KeyError
    assert tl.is_grad_enabled()
    assert not tl.is_inference_mode_enabled()


def test_nothing_is_saved_under_no_grad(no_collector):
    x = tl.ones(3, requires_grad=True)
    with tl.no_grad():
        y = x.exp()
        data = weakref.ref(y.array)
        y = y * 2
    assert data() is None
    assert y.grad_fn is None


def test_detach_and_detach_cut_the_graph():
    x = leaf(1.0, 2.0)
    y = x * 2
    z = y.detach()
    assert z.is_leaf
    assert not z.requires_grad
    assert np.shares_memory(y.array, z.array)
    assert y.detach_() is y
    assert y.is_leaf
    assert y.grad_fn is None
    with pytest.raises(GraphError, match=r"Use detach"):
        (x * 2).requires_grad = False


def test_the_graph_can_be_looked_at():
    x = leaf(1.0)
    y = (x * 2).exp()
    assert [n.name for n in tl.autograd.topological_order([y.grad_fn])] == ["exp", "mul"]
    assert repr(y.grad_fn) == "<exp>"
    assert y.grad_fn.edges[0].edges == [x]


def test_backward_takes_pytorchs_names():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    tl.autograd.backward(tensors=[x * 2, x * 3], grad_tensors=[tl.ones(2), tl.ones(2)], inputs=[x])
    assert x.grad.tolist() == [5.0, 5.0]
    assert tl.autograd.detect_anomaly is tl.detect_anomaly
