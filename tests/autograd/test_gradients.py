"""The gradients of backward() and autograd.grad(): values, arguments, errors."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.errors import DeviceError, DTypeError, GraphError, ShapeError


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
    with pytest.warns(UserWarning, match=r"^grad: this tensor is the result of sum, .* Call retain_grad\(\) on it"):
        assert loss.grad is None


def test_backward_takes_a_gradient_of_the_result():
    x = leaf(1.0, 2.0, 3.0)
    (x * x).backward(tl.tensor([1.0, 0.0, -1.0]))
    assert x.grad.tolist() == [2.0, 0.0, -6.0]


def test_backward_of_one_entry_needs_no_gradient():
    x = leaf(3.0)
    (x * x).reshape(1, 1).backward()
    assert x.grad.tolist() == [6.0]


def test_backward_of_a_leaf_adds_the_given_gradient():
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


def test_gradients_accumulate_in_place():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    held = x.grad
    (x * 10).sum().backward()
    assert held is x.grad
    assert held.tolist() == [12.0, 14.0]
    assert held._version == 1


def test_a_gradient_that_was_broadcast_accumulates():
    """The gradient of a mean is a broadcast view, which NumPy makes read-only, also with one entry."""
    x = tl.tensor([[2.0]], requires_grad=True)
    for _ in range(2):
        x.mean().backward()
    assert x.grad.tolist() == [[2.0]]
    (g,) = tl.autograd.grad(x.mean(), x)
    g.add_(1)
    assert g.tolist() == [[2.0]]


@pytest.mark.parametrize(
    ("grad", "error", "message"),
    [
        (tl.ones(1, 2), ShapeError, r"got float32\(1, 2\)\. Give it the tensor's shape"),
        (tl.ones(2, dtype=tl.float64), DTypeError, r"got float64\(2,\)\. Convert it with \.to"),
        (tl.arange(2), DTypeError, r"got int64\(2,\)"),
        (tl.ones(2, device="strict"), DeviceError, r"got float32\(2,\) on strict\. Move it with \.to"),
        (np.ones(2, np.float32), TypeError, r"got numpy\.ndarray\. Make one with tl\.tensor"),
        (0, TypeError, r"got int\. To clear it write x\.grad = None"),
        (0.0, TypeError, r"got float\. To clear it write x\.grad = None"),
        ([1.0, 2.0], TypeError, "got list"),
        (False, TypeError, "got bool"),
    ],
)
@pytest.mark.parametrize("make", [leaf, lambda *v: leaf(*v) * 1, lambda *v: tl.nn.Parameter(tl.tensor(v))])
def test_a_grad_that_does_not_fit_is_refused_at_the_assignment(grad, error, message, make):
    x = make(1.0, 2.0)
    x.grad = kept = tl.ones(2)
    expected = r"^grad: expected None or a Tensor float32\(2,\), as the tensor itself, "
    with pytest.raises(error, match=expected + message):
        x.grad = grad
    assert x.grad is kept


def test_a_tensor_is_not_its_own_grad():
    x = leaf(1.0)
    with pytest.raises(GraphError, match=r"^grad: a tensor cannot be its own gradient"):
        x.grad = x
    x.grad = x.detach()
    del x.grad
    assert x.grad is None


def test_a_grad_of_another_shape_than_replaced_data_is_an_error():
    x = leaf(1.0, 2.0)
    x.grad = tl.ones(2)
    x.data = tl.ones(3)
    with pytest.raises(ShapeError, match=r"^backward: expected a grad of shape \(3,\), got .*Set grad to None"):
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


def test_inputs_limits_which_grads_are_filled():
    x, w = leaf(2.0), leaf(5.0)
    y = x * w
    (y * y).sum().backward(inputs=[x, y])
    assert x.grad.tolist() == [2 * 10 * 5]
    assert y.grad.tolist() == [20.0]
    assert w.grad is None


def test_only_gradients_that_lead_to_an_input_are_computed():
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
    x.grad = None  # otherwise the graph of the gradient holds x, and x holds the gradient


@pytest.mark.parametrize(
    ("gradient", "error", "message"),
    [
        (None, GraphError, r"scalar, and this tensor has shape \(3,\)"),
        (tl.ones(2), ShapeError, r"expected a gradient of shape \(3,\), got one of \(2,\)"),
        (tl.ones(3, dtype=tl.float64), DTypeError, "expected a gradient of float32, got one of float64"),
        (2.0, TypeError, r"must be a Tensor of shape \(3,\), got float"),
        ([1.0, 2.0], GraphError, "one gradient for each of 1 outputs, got 2"),
    ],
)
def test_the_gradient_must_fit_the_tensor(gradient, error, message):
    with pytest.raises(error, match=rf"^backward: .*{message}"):
        (tl.ones(3, requires_grad=True) * 2).backward(gradient)


def test_backward_of_a_tensor_without_gradients_is_an_error():
    with pytest.raises(GraphError, match=r"^backward: .* does not require gradients"):
        tl.ones(3).sum().backward()
    with pytest.raises(GraphError, match=r"^backward: expected at least one Tensor in inputs"):
        leaf(1.0).sum().backward(inputs=[])
    with pytest.raises(GraphError, match=r"^backward: each of inputs"):
        leaf(1.0).sum().backward(inputs=[tl.ones(1)])


def test_backward_accepts_pytorchs_argument_names():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    tl.autograd.backward(tensors=[x * 2, x * 3], grad_tensors=[tl.ones(2), tl.ones(2)], inputs=[x])
    assert x.grad.tolist() == [5.0, 5.0]
    assert tl.autograd.detect_anomaly is tl.detect_anomaly


# ---- autograd.grad --------------------------------------------------------------------------


def test_grad_of_several_outputs_is_their_sum_and_fills_no_grad():
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


def test_grad_by_an_output_is_its_grad_output():
    x = leaf(1.0, 2.0)
    y = x * 3
    weight = tl.tensor([5.0, 7.0])
    gy, gx = tl.autograd.grad(y, [y, x], weight)
    assert gy.tolist() == [5.0, 7.0]
    assert gx.tolist() == [15.0, 21.0]
    assert not np.shares_memory(gy.array, weight.array)


def test_an_unused_input_is_an_error_or_none():
    x, other = leaf(1.0), tl.ones(2, 3, requires_grad=True)
    with pytest.raises(GraphError, match=r"do not depend on input 1, of shape \(2, 3\)\. Pass allow_unused=True"):
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


def test_a_broadcast_gradient_is_copied():
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


def test_large_gradients_of_one_tensor_are_added():
    x = tl.ones(1 << 19, requires_grad=True)
    (2.0 * x + x * 3.0).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.full(1 << 19, 5, np.float32))
