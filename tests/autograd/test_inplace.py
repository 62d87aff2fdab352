"""Changes in place: the values that they write, their gradients, and their errors."""
import math

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.errors import DTypeError, GraphError, ShapeError

MASK = np.array([[True, False, True], [False, False, True]])
INDEX = np.array([[0, 1, 1], [1, 0, 0]])
ROWS = np.array([1, 0])

# In-place method, arguments, and the same in NumPy.
METHODS = [
    ("add_", (2.0,), lambda x: x + 2),
    ("sub_", (2.0,), lambda x: x - 2),
    ("mul_", (2.0,), lambda x: x * 2),
    ("div_", (2.0,), lambda x: x / 2),
    ("pow_", (3,), lambda x: x**3),
    ("remainder_", (0.7,), lambda x: x % 0.7),
    ("floor_divide_", (0.7,), lambda x: x // 0.7),
    ("neg_", (), lambda x: -x),
    ("abs_", (), np.abs),
    ("exp_", (), np.exp),
    ("log_", (), np.log),
    ("sqrt_", (), np.sqrt),
    ("tanh_", (), np.tanh),
    ("sigmoid_", (), lambda x: 1 / (1 + np.exp(-x))),
    ("relu_", (), lambda x: np.maximum(x, 0)),
    ("clamp_", (0.8, 1.5), lambda x: np.clip(x, 0.8, 1.5)),
    ("clamp_min_", (0.8,), lambda x: np.maximum(x, 0.8)),
    ("clamp_max_", (1.5,), lambda x: np.minimum(x, 1.5)),
    ("square_", (), np.square),
    ("reciprocal_", (), np.reciprocal),
    ("rsqrt_", (), lambda x: 1 / np.sqrt(x)),
    ("expm1_", (), np.expm1),
    ("log1p_", (), np.log1p),
    ("erf_", (), np.vectorize(math.erf)),
    ("sin_", (), np.sin),
    ("cos_", (), np.cos),
    ("sign_", (), np.sign),
    ("floor_", (), np.floor),
    ("ceil_", (), np.ceil),
    ("round_", (), np.round),
    ("trunc_", (), np.trunc),
    ("tril_", (-1,), lambda x: np.tril(x, -1)),
    ("triu_", (1,), lambda x: np.triu(x, 1)),
    ("masked_fill_", (tl.tensor(MASK), 7.0), lambda x: np.where(MASK, 7.0, x)),
    ("index_add_", (0, tl.tensor(ROWS), tl.ones(2, 3, dtype=tl.float64)), lambda x: x + 1),
    (
        "scatter_",
        (0, tl.tensor([[1, 0, 1]]), tl.tensor([[9.0, 8.0, 7.0]], dtype=tl.float64)),
        lambda x: np.array([[x[0, 0], 8.0, x[0, 2]], [9.0, x[1, 1], 7.0]]),
    ),
    (
        "scatter_add_",
        (0, tl.tensor(INDEX), tl.ones(2, 3, dtype=tl.float64)),
        lambda x: x + np.ones((2, 3)),
    ),
    ("copy_", (tl.tensor([1.0, 2.0, 3.0]),), lambda x: np.array([[1.0, 2.0, 3.0]] * 2)),
    ("fill_", (4.0,), lambda x: np.full((2, 3), 4.0)),
    ("zero_", (), np.zeros_like),
]
OTHER_NAMES = {"clip_": "clamp_", "divide_": "div_", "multiply_": "mul_", "subtract_": "sub_"}
METHODS += [(other, *rest) for other, name in OTHER_NAMES.items() for method, *rest in METHODS if method == name]
NAMES = [name for name, _, _ in METHODS]


def start():
    return tl.linspace(0.55, 2.05, 6, dtype=tl.float64).reshape(2, 3)


def test_every_in_place_method_is_in_the_table():
    ends = {n for n in dir(tl.Tensor) if n.endswith("_") and not n.startswith("_")}
    assert ends == {*NAMES, "uniform_", "normal_", "requires_grad_", "detach_"}


@pytest.mark.parametrize(("name", "args", "expected"), METHODS, ids=NAMES)
def test_the_method_writes_into_the_memory_and_returns_the_tensor(name, args, expected):
    x = start().clone()
    data, before = x.array, x.numpy().copy()
    assert getattr(x, name)(*args) is x
    assert x.array is data
    assert x._version == 1
    np.testing.assert_allclose(data, expected(before), rtol=1e-15)


@pytest.mark.parametrize(("name", "args", "expected"), METHODS, ids=NAMES)
def test_the_gradient_is_that_of_the_op(name, args, expected):
    leaf = start().clone().requires_grad_()
    weight = tl.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], dtype=tl.float64)

    def value(a):
        return float((expected(a) * weight.numpy()).sum())

    y = leaf * 1
    getattr(y, name)(*args)
    assert y.requires_grad
    (found,) = tl.autograd.grad((y * weight).sum(), leaf, allow_unused=True)
    found = np.zeros((2, 3)) if found is None else found.numpy()
    step, at = 1e-6, leaf.detach().numpy()
    for i in np.ndindex(2, 3):
        shift = np.zeros((2, 3))
        shift[i] = step
        assert found[i] == pytest.approx((value(at + shift) - value(at - shift)) / (2 * step), abs=1e-7)


@pytest.mark.parametrize(("name", "args", "expected"), METHODS, ids=NAMES)
def test_a_leaf_that_requires_gradients_can_be_changed_only_under_no_grad(name, args, expected):
    x = start().clone().requires_grad_()
    before = x.tolist()
    with pytest.raises(GraphError, match=rf"^{OTHER_NAMES.get(name, name)}: this leaf requires gradients.*no_grad\(\)"):
        getattr(x, name)(*args)
    assert x.tolist() == before
    with tl.no_grad():
        getattr(x, name)(*args)
    assert x.is_leaf
    assert x.requires_grad
    np.testing.assert_allclose(x.detach().numpy(), expected(np.array(before)), rtol=1e-15)


def test_augmented_assignment_operators():
    x = tl.tensor([5.0, 7.0])
    data = x.array
    x += 1
    x -= tl.tensor([1.0, 2.0])
    x *= 3
    x /= 2
    x **= 2
    x //= 2
    x %= 10
    assert x.array is data
    assert x.tolist() == [((5 * 3 / 2) ** 2 // 2) % 10, ((6 * 3 / 2) ** 2 // 2) % 10]
    assert x._version == 7


def test_add_and_sub_take_alpha():
    x = tl.tensor([1.0])
    assert x.add_(tl.tensor([2.0]), alpha=3).sub_(1, alpha=2).tolist() == [5.0]


def test_random_numbers_in_place():
    tl.manual_seed(0)
    x = tl.zeros(2000)
    assert x.uniform_(2, 4) is x
    assert 2 <= x.min().item() < 2.1 < 3.9 < x.max().item() < 4
    x.normal_(5, 2)
    assert abs(x.mean().item() - 5) < 0.3
    assert abs(x.std().item() - 2) < 0.2
    assert x._version == 2
    with pytest.raises(GraphError, match=r"^normal_: this leaf"):
        tl.zeros(2, requires_grad=True).normal_()


@pytest.mark.parametrize("name", ["uniform_", "normal_"])
def test_random_numbers_need_a_floating_point_tensor(name):
    x = tl.tensor([1, 2])
    with pytest.raises(DTypeError, match=rf"^{name}: .*int64"):
        getattr(x, name)()
    assert x.tolist() == [1, 2]


# ---- assignment -----------------------------------------------------------------------------

INDICES = [
    1,
    -1,
    slice(None),
    slice(None, None, -2),
    (slice(1, 3), 2),
    (..., 0),
    (None, 1),
    [2, 0],
    np.array([2, 0]),
    (np.array([0, 2]), np.array([3, 1])),
    (slice(None), np.array([3, 1])),
    (np.array([[0], [2]]), np.array([3, 1])),
    np.arange(12).reshape(3, 4) % 3 == 0,
    np.array([True, False, True]),
    (np.array([True, False, True]), 1),
    slice(0, 0),
    (),
]


@pytest.mark.parametrize("index", INDICES, ids=lambda i: repr(i).replace("\n", ""))
@pytest.mark.parametrize("number", [True, False])
def test_assignment_and_its_gradients(index, number):
    before = np.arange(12.0).reshape(3, 4)
    expected = before.copy()
    shape = expected[index].shape
    value = tl.full(shape, 50.0, dtype=tl.float64, requires_grad=True)
    expected[index] = 50.0

    plain = tl.tensor(before)
    plain[index] = 50.0 if number else value.detach()
    assert plain.tolist() == expected.tolist()
    assert plain._version == 1

    leaf = tl.tensor(before, requires_grad=True)
    x = leaf * 1
    x[index] = 50.0 if number else value
    assert x.tolist() == expected.tolist()
    x.square().sum().backward()
    inside = np.zeros((3, 4), dtype=bool)
    inside[index] = True
    assert leaf.grad.tolist() == np.where(inside, 0, 2 * before).tolist()
    if not number:
        assert value.grad.tolist() == np.full(shape, 100.0).tolist()


def test_assignment_with_tensor_indices_and_broadcasting():
    x = tl.zeros(3, 4)
    x[tl.tensor([0, 2])] = tl.arange(4.0)
    x[x > 2] = -1.0
    assert x.tolist() == [[0, 1, 2, -1], [0, 0, 0, 0], [0, 1, 2, -1]]
    row = tl.ones(4, requires_grad=True)
    x[1:] = row
    x.sum().backward()
    assert row.grad.tolist() == [2.0] * 4


def test_assigning_a_tracked_tensor_makes_the_target_tracked():
    buffer, x = tl.zeros(3), tl.tensor([1.0, 2.0], requires_grad=True)
    for k in range(2):
        buffer[k] = x[k] * 10
    assert buffer.requires_grad
    (buffer * tl.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [10.0, 20.0]


def test_augmented_assignment_to_an_index():
    leaf = tl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    plain = tl.tensor([1.0, 2.0, 3.0])
    plain[1:] += 10
    plain[0] *= 5
    assert plain.tolist() == [5.0, 12.0, 13.0]
    x = leaf * 2
    x[1:] = x[1:] * 5
    x.sum().backward()
    assert leaf.grad.tolist() == [2.0, 10.0, 10.0]


@pytest.mark.parametrize(
    ("index", "value", "error", "message"),
    [
        (5, 1.0, IndexError, "index 5 is out of range for dim 0 of size 3"),
        ("a", 1.0, IndexError, "'a' is not an integer"),
        (slice(0, 2), tl.ones(3), ShapeError, r"of shape \(3,\) does not broadcast to the indexed shape \(2, 4\)"),
        ((0, 0, 0), 1.0, IndexError, r"too many indices: 3 for a tensor of shape \(3, 4\)"),
        (([0, 3],), 1.0, IndexError, r"index 3 at position \(1,\) is out of range for a dimension of size 3"),
        (0, "a", TypeError, "expected a Tensor or "),
        (0, None, TypeError, "expected a Tensor or .*got None"),
        (0, object(), (TypeError, tl.DTypeError), "object"),
    ],
)
@pytest.mark.parametrize("tracked", [False, True])
def test_assignments_that_do_not_fit(index, value, error, message, tracked):
    x = tl.zeros(3, 4, requires_grad=tracked) * 1
    with pytest.raises(error, match=rf"^(setitem|index_put).*{message}"):
        x[index] = value
    assert x.tolist() == np.zeros((3, 4)).tolist()


def test_assignment_to_a_leaf():
    x = tl.zeros(3, requires_grad=True)
    with pytest.raises(GraphError, match=r"^setitem: this leaf requires gradients"):
        x[0] = 1.0
    with tl.no_grad():
        x[0] = 1.0
    assert x.tolist() == [1.0, 0.0, 0.0]
    assert x.is_leaf


# ---- shapes and dtypes ----------------------------------------------------------------------


@pytest.mark.parametrize("tracked", [False, True])
def test_results_that_do_not_fit(tracked):
    x = tl.ones(3, requires_grad=tracked) * 1
    with pytest.raises(ShapeError, match=r"^add_: the result has shape \(2, 3\), .* into shape \(3,\)"):
        x.add_(tl.ones(2, 3))
    with pytest.raises(ShapeError, match=r"^add\(float32\(3,\), float32\(2,\)\): the shapes do not broadcast"):
        x.add_(tl.ones(2))
    with pytest.raises(ShapeError, match=r"^(copy_|index_put).*\(2,\)"):
        x.copy_(tl.ones(2))
    assert x.tolist() == [1.0, 1.0, 1.0]


def test_integers_refuse_floating_point_results():
    x = tl.tensor([1, 2])
    with pytest.raises(DTypeError, match=r"^add_: the result is float32, which cannot be stored in place as int64"):
        x.add_(0.5)
    with pytest.raises(DTypeError, match=r"^div_: "):
        x /= 2
    assert x.tolist() == [1, 2]
    x += 1
    assert x.tolist() == [2, 3]
    assert x.dtype == tl.int64


def test_the_dtype_does_not_change():
    leaf = tl.tensor([1.0, 2.0], requires_grad=True)
    y = leaf * 1
    y.mul_(tl.tensor([3.0, 4.0], dtype=tl.float64))
    assert y.dtype == tl.float32
    y.sum().backward()
    assert leaf.grad.dtype == tl.float32
    assert leaf.grad.tolist() == [3.0, 4.0]
    x = tl.zeros(2).copy_(tl.tensor([1, 2]))
    assert x.dtype == tl.float32


def test_second_derivatives_through_a_change_in_place():
    leaf = tl.tensor([2.0, 3.0], dtype=tl.float64, requires_grad=True)
    y = leaf * leaf
    y.mul_(leaf)
    y[0] = y[1].clone() * leaf[0]  # [x1^3 x0, x1^3]
    (g,) = tl.autograd.grad(y.sum(), leaf, create_graph=True)
    assert g.tolist() == [27.0, 3 * 9 * 2 + 27.0]
    assert tl.autograd.grad(g[1], leaf)[0].tolist() == [27.0, 6 * 3 * 2 + 6 * 3.0]
