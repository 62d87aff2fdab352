"""Tests of check_op, check_against and numpy_op."""
import re

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.testing import GradientError, check_against, check_grad, check_op, numpy_op

X = np.array([[1.0, 2.0, 4.0], [0.0, -1.0, 0.5]])


def elementwise(forward, rule=lambda g, x: 2.0 * g):
    """Return an op with one argument."""
    forward.__name__ = "sample"
    return tl.op(rule)(forward)


# ---- check_op -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "args", "kwargs"),
    [
        (tl.softmax, (X,), {"dim": 1}),
        (tl.exp, (800 * X,), {}),
        (tl.reshape, (X, (3, 2)), {}),
        (tl.Tensor.expand, (X[:, :1], 2, 3), {}),
        (tl.amax, (np.array([1.0, 1.0, 0.0]),), {"dim": 0}),
        (F.rms_norm, (X, (3,), np.array([1.0, 2.0, 3.0])), {}),
        (tl.matmul, (X, np.ones((3, 2))), {}),
        (tl.exp, (np.array(2.0),), {}),
        (tl.exp, (np.zeros((0, 3)),), {}),
        (tl.gather, (X, 1, np.array([[0, 0], [2, 1]])), {}),
        (lambda x: (x + 1e4).var(), (X,), {}),  # cancels, in float32 too
    ],
)
def test_right_ops_pass(f, args, kwargs):
    check_op(f, *args, **kwargs)


def changes_its_argument(x):
    x.array *= 2.0  # by hand, because an op refuses it
    return x * 1.0


def shares_memory(x):
    y = x * 1.0
    y.array = x.array
    return y


def counts_calls(xp, x, calls=[0]):  # noqa: B006
    calls[0] += 1
    return 2.0 * x + calls[0]


def widens(xp, x):
    return x * np.float64(2.0)


def narrows(xp, x):
    return 2.0 * x.astype(np.float32)


def overflows_in_float32(xp, x):
    return 2.0 * x + xp.exp(x * 100) * 0 if x.dtype == np.float64 else 2.0 * x + 1


def reads_memory_in_order(xp, x):
    return 2.0 * np.frombuffer(x.tobytes("A"), x.dtype).reshape(x.shape)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (counts_calls, r"sample: two calls with the same arguments differ in result 0"),
        (widens, r"sample: result 0 is float64 for arguments of float32"),
        (narrows, r"sample: result 0 is float32 for arguments of float64"),
        (overflows_in_float32, r"sample: result 0 in float32 differs from float64"),
        (
            reads_memory_in_order,
            r"sample: result 0 depends on the memory layout of the arguments\n    contiguous .*\n +\w+ ",
        ),
    ],
)
def test_wrong_forwards_are_found(forward, message):
    with pytest.raises(GradientError, match=message) as caught:
        check_op(elementwise(forward), X.copy(), name="sample")
    assert "check_op(sample, np.array(" in str(caught.value)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (changes_its_argument, r"sample: the forward pass changes x in place\n    before .*\n    after"),
        (shares_memory, r"sample: result 0 shares memory with x"),
    ],
)
def test_functions_that_touch_the_memory_of_their_arguments_are_found(f, message):
    with pytest.raises(GradientError, match=message):
        check_op(f, X.copy(), name="sample")


def test_a_gradient_that_depends_on_layout_is_found():
    def rule(g, x):
        return g * 2.0 * np.frombuffer(x.tobytes("A"), x.dtype).reshape(x.shape)

    square = elementwise(lambda xp, x: x * x, rule)
    with pytest.raises(GradientError, match="the gradient of x depends on the memory layout of the arguments"):
        check_op(square, X)


def test_a_result_that_stays_attached_under_no_grad_is_found():
    kept = tl.tensor(1.0, dtype=tl.float64, requires_grad=True)
    held = kept * 2

    def f(x):
        return held + x if tl.is_grad_enabled() else held

    with pytest.raises(GradientError):
        check_op(f, X)


# ---- check_against --------------------------------------------------------------------------


def np_softmax(x, dim):
    e = np.exp(x - x.max(dim, keepdims=True))
    return e / e.sum(dim, keepdims=True)


def test_a_numpy_reference():
    check_against(tl.softmax, np_softmax, X, dim=1)
    check_against(tl.log, np.log, np.array([0.0, -1.0, 1.0, np.inf]))
    check_against(lambda xs: tl.cat(xs, 0), lambda xs: np.concatenate(xs), [X, X])
    check_against(lambda x: x.sort(1), lambda x: (np.sort(x, 1), np.argsort(x, 1)), X)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            lambda x: np.exp(x) * (1 + 1e-7 * (x == 4)),
            r"exp: the result differs from the reference: expected 54\.598\d* at \[0, 2\], got 54\.598",
        ),
        (lambda x: np.exp(x)[:1], r"exp: the result has shape \(2, 3\), but the reference has \(1, 3\)"),
        (lambda x: np.exp(x) > 0, r"exp: the result is float64, but the reference is bool"),
        (lambda x: (np.exp(x), x), r"exp: 1 results, but the reference has 2"),
        (lambda x: np.where(x == 2, np.nan, np.exp(x)), r"expected nan at \[0, 1\], got 7\.389"),
        (lambda x: np.where(x == 2, np.inf, np.exp(x)), r"expected inf at \[0, 1\], got 7\.389"),
    ],
)
def test_differences_from_the_reference_are_found(reference, message):
    with pytest.raises(GradientError, match=message) as caught:
        check_against(tl.exp, reference, X, name="exp")
    assert "float64 (2, 3)" in str(caught.value)


def test_gradients_are_compared_with_a_reference_of_tensors():
    def composite(x, dim):
        e = (x - x.detach().amax(dim, keepdim=True)).exp()
        return e / e.sum(dim, keepdim=True)

    check_against(tl.softmax, composite, X, gradients=True, dim=1)
    with pytest.raises(GradientError, match="the gradient of input differs from the reference"):
        check_against(tl.softmax, lambda x, dim: composite(x, dim).detach() + x - x, X, gradients=True, dim=1)


# ---- numpy_op -------------------------------------------------------------------------------


def test_functions_of_arrays_can_be_checked():
    add = numpy_op(lambda x, y: x + y, lambda g, x, y: (g, g), name="add")
    assert check_grad(add, X, X + 1, order=1).checked == 12
    check_op(add, X, X + 1)
    scale = numpy_op(lambda x, by: x * by, lambda g, x, by: g * by)
    assert check_grad(scale, X, by=3.0, order=1).checked == 6


def test_a_numpy_op_works_in_models():
    """Check that numpy_op makes an op with a first-order gradient."""
    square = numpy_op(lambda x: x * x, lambda g, x: 2 * g * x, name="square")
    x = tl.tensor(X, requires_grad=True)
    (square(x.sin()) * 3.0).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 6 * np.sin(X) * np.cos(X))
    with pytest.raises(tl.errors.GraphError, match=r"square: .* cannot be differentiated again. Check it with order=1"):
        check_grad(square, X)


@pytest.mark.parametrize(
    ("vjp", "message"),
    [
        (lambda g, x: 3 * g * x, r"square: the gradient of x is wrong"),
        (lambda g, x: np.multiply(g, 2 * x, out=g), r"square: the backward pass changes the cotangent in place"),
        (lambda g, x: (2 * g * x).astype(np.float32), r"square: vjp returned float32 \(2, 3\) as the gradient of"),
        (lambda g, x: None, r"square: the gradient of x is wrong(.|\n)*the gradient is 0"),
        (lambda g, x: (2 * g * x, g), r"square: expected vjp to return 1 gradients, one for each array, got 2"),
    ],
)
def test_wrong_gradients_are_found(vjp, message):
    with pytest.raises((GradientError, TypeError)) as caught:
        check_grad(numpy_op(lambda x: x * x, vjp, name="square"), X, order=1)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_a_reused_gradient_buffer_is_found():
    buffer = np.zeros(X.shape)

    def vjp(g, x):
        np.multiply(2 * g, x, out=buffer)
        return buffer

    with pytest.raises(GradientError, match="changes when another one is computed"):
        check_grad(numpy_op(lambda x: x * x, vjp), X, order=1)
