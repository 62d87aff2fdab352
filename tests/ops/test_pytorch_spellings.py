"""Spellings that PyTorch users bring along: names of arguments, ``dtype=``, and edge cases."""
import math

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.errors import DTypeError

X = tl.tensor([[1.0, 2.0], [3.0, 4.0]])
INTS = tl.tensor([3, 1, 2])


def leaf(*values, dtype=tl.float64):
    return tl.tensor(values, dtype, requires_grad=True)


# ---- dtype= ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "cumsum", "softmax", "log_softmax"])
def test_a_reduction_computes_in_the_dtype_that_it_is_given(name):
    """Check function and method; the gradient has the dtype of the input."""
    x = leaf(1.0, 2.0, 4.0, dtype=tl.float16)
    for found in (getattr(tl, name)(x, 0, dtype=tl.float64), getattr(x, name)(0, dtype=tl.float64)):
        expected = getattr(tl, name)(x.double(), 0)
        assert found.dtype == tl.float64
        assert tl.equal(found, expected)
        (g,) = tl.autograd.grad(found.sum(), x)
        assert g.dtype == tl.float16
        assert tl.equal(g, tl.autograd.grad(expected.sum(), x)[0])


def test_a_dtype_makes_a_mean_of_integers():
    assert tl.mean(INTS, dtype=tl.float32).item() == 2.0
    assert INTS.softmax(0, dtype="float64").dtype == tl.float64
    with pytest.raises(DTypeError, match="mean"):
        tl.mean(X, dtype=tl.int64)
    with pytest.raises(TypeError, match="dtype"):
        tl.exp(X, dtype=tl.float64)


@pytest.mark.parametrize("name", ["sum", "prod", "cumsum"])
def test_unsigned_integers_add_up_to_int64(name):
    x = tl.tensor([200, 100, 2], dtype=tl.uint8)
    found = getattr(x, name)(0)
    assert found.dtype == tl.int64
    assert np.array_equal(found.numpy(), getattr(np, name)([200, 100, 2]))


# ---- names of arguments ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (tl.exp(input=X), tl.exp(X)),
        (F.relu(input=X), F.relu(X)),
        (tl.pow(input=X, exponent=2), X**2),
        (X.pow(exponent=2), X**2),
        (tl.max(X, other=X + 1), X + 1),
        (tl.max(input=X, dim=1).values, X[:, 1]),
        (tl.mm(input=X, mat2=X), X @ X),
        (tl.bmm(X[None], mat2=X[None]), (X @ X)[None]),
        (tl.mv(X, vec=X[0]), X @ X[0]),
        (tl.dot(X[0], tensor=X[1]), X[0] @ X[1]),
        (tl.outer(X[0], vec2=X[1]), X[0].outer(X[1])),
        (tl.where(X > 2, input=X, other=0.0), X * (X > 2)),
        (tl.gather(input=X, dim=1, index=tl.tensor([[1], [0]])), tl.tensor([[2.0], [3.0]])),
        (X.scatter(1, tl.tensor([[0], [1]]), value=9), tl.tensor([[9.0, 2.0], [3.0, 9.0]])),
        (X.clone().scatter_(1, tl.tensor([[0]]), value=9), tl.tensor([[9.0, 2.0], [3.0, 4.0]])),
        (tl.split(input=X, split_size_or_sections=1)[1], X[1:]),
        (tl.flatten(input=X), X.reshape(4)),
        (tl.broadcast_to(X, size=(1, 2, 2)), X[None]),
        (tl.zeros(size=(2,)), tl.zeros(2)),
        (tl.ones(size=(2, 1), dtype=tl.int64), tl.tensor([[1], [1]])),
        (tl.full_like(input=X, fill_value=3), 0 * X + 3),
        (tl.arange(end=3), tl.tensor([0, 1, 2])),
    ],
)
def test_arguments_have_their_names_in_pytorch(found, expected):
    assert found.dtype == expected.dtype
    assert tl.equal(found, expected)


@pytest.mark.parametrize("make", [tl.empty, tl.rand, tl.randn])
def test_sizes_may_be_named(make):
    assert make(size=(2, 3)).shape == (2, 3)
    with pytest.raises(TypeError, match="sizes"):
        make(2, size=(2, 3))


def test_scatter_takes_either_src_or_value():
    for given in ({}, {"src": X, "value": 1}):
        with pytest.raises(TypeError, match="scatter"):
            tl.scatter(X, 0, tl.tensor([[0, 1]]), **given)


def test_randint_by_names():
    assert tl.randint(high=1, size=(3,)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("decorator", "recorded"), [(tl.no_grad, False), (tl.enable_grad, True)])
def test_a_grad_mode_decorates_without_parentheses(decorator, recorded):
    @decorator
    def double(x):
        """Twice."""
        return x * 2

    with tl.set_grad_enabled(not recorded):
        y = double(leaf(1.0))
        assert y.requires_grad is recorded
        assert tl.is_grad_enabled() is not recorded
    assert double.__doc__ == "Twice."


def test_a_bool_as_dimension_raises():
    """As a dimension False would be 0."""
    for f in (X.mean, X.prod, X.sum):
        with pytest.raises(TypeError, match="False"):
            f(False)


WITH_DIM = "sum mean prod amax argmax any var std norm logsumexp cumsum softmax sort unbind"


@pytest.mark.parametrize("name", WITH_DIM.split())
def test_methods_take_numpys_names_of_dimensions(name):
    f = getattr(X, name)
    for x, y in zip(leaves_of(f(axis=0)), leaves_of(f(dim=0)), strict=True):
        assert tl.equal(x, y)
    with pytest.raises(TypeError, match="axis"):
        f(dim=0, axis=0)


def leaves_of(result):
    return result if isinstance(result, tuple) else [result]


def test_functions_take_numpys_names_of_dimensions():
    assert tl.cat([X, X], axis=1).shape == (2, 4)
    assert tl.stack([X, X], axis=2).shape == (2, 2, 2)
    assert tl.max(X, axis=1, keepdims=True).values.tolist() == [[2.0], [4.0]]
    assert X.sum(axis=(0, 1), keepdims=True).shape == (1, 1)
    assert X.max(axis=0).indices.tolist() == [1, 1]
    assert X.unsqueeze(axis=0).squeeze(axis=0).shape == (2, 2)


def test_other_names_of_the_methods():
    x = X.clone()
    assert x.clip_(1.5, 3.5).tolist() == [[1.5, 2.0], [3.0, 3.5]]
    assert x.clamp_min_(2).clamp_max_(3).tolist() == [[2.0, 2.0], [3.0, 3.0]]
    assert X.clamp_min(2).tolist() == [[2.0, 2.0], [3.0, 4.0]]
    assert X.clamp_max(2).tolist() == [[1.0, 2.0], [2.0, 2.0]]
    assert x.multiply_(2).subtract_(1).divide_(1).true_divide(1).tolist() == [[3.0, 3.0], [5.0, 5.0]]
    assert [getattr(INTS, n)().dtype for n in ("short", "char", "byte")] == [tl.int16, tl.int8, tl.uint8]
    assert X.to("cpu", non_blocking=True) is X
    assert X.new_empty(2, 1).shape == (2, 1)
    assert X.equal(X.clone())
    assert not X.equal(X[0])
    assert X.allclose(X + 1e-7)
    assert X.isclose(X + tl.tensor([0.0, 1.0])).tolist() == [[True, False]] * 2


def test_format_of_a_number():
    half = tl.tensor(0.5, requires_grad=True)
    assert f"{INTS[0]} {half} {half:.2f} {INTS}" == "3 0.5 0.50 tensor([3, 1, 2])"


# ---- edges ----------------------------------------------------------------------------------


def test_where_with_a_condition_alone_is_nonzero():
    rows, columns = tl.where(X > 1.5)
    assert rows.tolist() == [0, 1, 1]
    assert columns.tolist() == [1, 0, 1]
    with pytest.raises(TypeError, match="None"):
        tl.where(X > 1, X)


def test_where_of_two_python_floats_is_of_the_default_dtype():
    assert tl.where(X > 2, 1.0, 0).dtype == tl.float32
    assert tl.where(X > 2, 1, 0).dtype == tl.int64


@pytest.mark.parametrize(
    "divide",
    [
        lambda x, y: x // y, lambda x, y: x % y, tl.fmod, lambda x, y: tl.div(x, y, rounding_mode="trunc"),
        lambda x, y: tl.div(x, y, rounding_mode="floor"),
    ],
)  # fmt: skip
def test_integers_are_not_divided_by_zero(divide):
    for y in (0, tl.tensor([1, 0, 2])):
        with pytest.raises(RuntimeError, match="by 0"):
            divide(INTS, y)
    assert not np.isfinite(divide(INTS.float(), 0).numpy()).any()
    assert divide(tl.zeros(0, dtype=tl.int64), tl.zeros(0, dtype=tl.int64)).shape == (0,)


def test_sign_of_nan_is_zero_and_of_booleans_themselves():
    assert tl.sign(tl.tensor([math.nan, -math.inf, 2.0])).tolist() == [0.0, -1.0, 1.0]
    assert tl.sign(tl.tensor([True, False])).tolist() == [True, False]
    assert tl.norm(tl.tensor([math.nan, 0.0, 2.0]), 0).item() == 2.0


def test_a_clamped_nan_has_no_gradient():
    x = leaf(math.nan, 1.0, 3.0)
    x.clamp(0, 2).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0]


def test_a_nan_takes_the_gradient_of_the_largest_value():
    x = leaf(1.0, math.nan, 3.0)
    x.max().backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0]


def test_the_exponent_of_zero_has_no_gradient():
    for x in (leaf(0.0, 0.0), 0.0):
        y = leaf(0.0, 2.0)
        tl.pow(x, y).sum().backward()
        assert y.grad.tolist() == [0.0, 0.0]


def test_softmax_of_empty_rows():
    for f in (F.softmax, F.log_softmax):
        assert f(tl.zeros(3, 0), 1).shape == (3, 0)


def test_a_tensor_is_not_none():
    assert (X == None) is False  # noqa: E711
    assert (X != None) is True  # noqa: E711


def test_numpy_with_force():
    x = leaf(1.0, 2.0)
    assert (x * 2).numpy(force=True).tolist() == [2.0, 4.0]
    assert tl.zeros(2, 3).stride(0) == 3


def test_division_in_place_with_a_rounding_mode():
    assert tl.tensor([5.0, -5.0]).div_(2, rounding_mode="floor").tolist() == [2.0, -3.0]
    assert tl.tensor([5, -5]).div_(2, rounding_mode="trunc").tolist() == [2, -2]


def test_booleans_are_close_to_themselves():
    assert tl.isclose(tl.tensor([True, False]), tl.tensor([True, True])).tolist() == [True, False]


def test_an_array_that_became_a_tensor_is_an_error():
    """``w.array = w.array - step`` makes one of an array and a Tensor."""
    w = leaf(1.0, 2.0)
    w.array = w.array - tl.ones(2)
    for use in (lambda: w * 2, lambda: w.sum(), lambda: repr(w), lambda: w.device):
        with pytest.raises(TypeError, match=r"must be a raw array .* got Tensor\. .* x\.data -= step"):
            use()
