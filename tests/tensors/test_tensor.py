"""Tensors as objects: how they are made, shown, read and converted, and how they meet Python's and NumPy's numbers."""

import copy
import inspect
import math
import subprocess
import sys

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.ops import shape as ops_shape
from tensorlite.ops.reduce import sum_to_size

FLOATS = [tl.float16, tl.float32, tl.float64]
INTEGERS = [tl.uint8, tl.int8, tl.int16, tl.int32, tl.int64]


@pytest.fixture(autouse=True)
def default_dtype():
    yield
    tl.set_default_dtype(tl.float32)


def x23(**kwargs):
    return tl.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], **kwargs)


# ---- from data ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (1, tl.int64, ()),
        (1.0, tl.float32, ()),
        (True, tl.bool_, ()),
        (1 + 2j, tl.complex64, ()),
        ([], tl.float32, (0,)),
        ([1, 2], tl.int64, (2,)),
        ([1, 2.5], tl.float32, (2,)),
        ([True, False], tl.bool_, (2,)),
        ([True, 2], tl.int64, (2,)),
        ([[1], [2]], tl.int64, (2, 1)),
        ([[], []], tl.float32, (2, 0)),
        ((1.0, 2.0), tl.float32, (2,)),
        (range(3), tl.int64, (3,)),
        (np.float64(1), tl.float64, ()),
        (np.int32(1), tl.int32, ()),
        (np.bool_(True), tl.bool_, ()),
        ([np.float64(1), 2.0], tl.float64, (2,)),
        (np.ones((2, 1)), tl.float64, (2, 1)),
        ([np.ones(2), np.ones(2)], tl.float64, (2, 2)),
        (np.ones(2, ">f4"), tl.float32, (2,)),
        (np.ones((2, 2), np.uint8), tl.uint8, (2, 2)),
    ],
)
def test_the_dtype_of_data(data, dtype, shape):
    for make in (tl.tensor, tl.as_tensor):
        x = make(data)
        assert (x.dtype, x.shape) == (dtype, shape)
        assert x.dtype.isnative
        np.testing.assert_array_equal(x.numpy(), np.asarray(data))
        assert not x.requires_grad


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, tl.bool_])
def test_a_dtype_is_kept(dtype):
    array = np.array([0, 1, 1], dtype)
    for x in (
        tl.tensor(array),
        tl.from_numpy(array),
        tl.tensor([0, 1, 1], dtype=dtype),
        tl.tensor([0.0, 1.0, 1.0]).to(dtype),
    ):
        assert x.dtype == dtype
        assert x.tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", ["float64", np.float64, float, np.dtype("f8"), "d", tl.float64])
def test_names_of_a_dtype(name):
    assert tl.zeros(1, dtype=name).dtype == tl.tensor(1, dtype=name).dtype == tl.ones(1).to(name).dtype == tl.float64


def test_python_numbers_keep_their_digits():
    """0.1 is not rounded to float32 on its way to float64."""
    for x in (
        tl.tensor(0.1, dtype=tl.float64),
        tl.as_tensor([0.1], dtype=tl.float64),
        tl.full((), 0.1, dtype=tl.float64),
    ):
        assert x.item() == 0.1
    assert tl.tensor(2**53 + 1, dtype=tl.int64).item() == 2**53 + 1
    assert tl.arange(0, 1, 0.1, dtype=tl.float64).tolist() == pytest.approx([k / 10 for k in range(10)], rel=1e-15)


def test_the_default_dtype():
    tl.set_default_dtype(tl.float64)
    assert tl.get_default_dtype() == tl.float64
    for x in (
        tl.tensor(1.0),
        tl.zeros(2),
        tl.rand(2),
        tl.arange(0.0, 2),
        tl.linspace(0, 1, 2),
        tl.full((1,), 1.0),
        tl.eye(2),
    ):
        assert x.dtype == tl.float64
    assert (tl.tensor([1, 2]) / 2).dtype == tl.float64
    assert tl.tensor([1]).dtype == tl.int64
    with pytest.raises(tl.DTypeError, match="set_default_dtype: expected a floating point dtype, got int64"):
        tl.set_default_dtype(tl.int64)
    assert tl.get_default_dtype() == tl.float64


def test_tensors_in_lists():
    assert tl.tensor([tl.tensor(1.0), tl.tensor(2.0)]).tolist() == [1, 2]
    assert tl.tensor([tl.tensor([1, 2]), tl.tensor([3, 4])]).tolist() == [[1, 2], [3, 4]]
    assert tl.tensor([tl.tensor(1.0, requires_grad=True), 2]).requires_grad is False


def test_what_is_copied():
    array = np.zeros(3, np.float32)
    x = tl.tensor(array)
    shared, as_is = tl.from_numpy(array), tl.as_tensor(array)
    again = tl.tensor(x)
    array[0] = 7
    assert (x[0].item(), shared[0].item(), as_is[0].item()) == (0, 7, 7)
    x[1] = 5
    assert again[1].item() == 0
    assert tl.as_tensor(x) is x
    assert tl.as_tensor(x, dtype=tl.float64) is not x
    shared[2] = 9
    assert array[2] == 9
    assert np.shares_memory(shared.numpy(), array)


def test_tensor_of_a_tensor_is_a_leaf():
    x = x23(requires_grad=True)
    y = tl.tensor(x * 2)
    assert y.is_leaf
    assert not y.requires_grad
    assert tl.as_tensor(x * 2).requires_grad


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([[1, 2], [3]], tl.ShapeError, "^tensor: the nested sequences have different lengths"),
        ([[1, 2], 3], tl.ShapeError, "^tensor: the nested sequences have different lengths"),
        ("abc", TypeError, "^tensor: expected numbers or booleans, got str"),
        (["a"], TypeError, "^tensor: expected numbers or booleans, got list"),
        (None, TypeError, "^tensor: expected numbers or booleans, got NoneType"),
        ({1, 2}, TypeError, "^tensor: expected numbers or booleans, got set"),
        (b"ab", TypeError, "^tensor: expected numbers or booleans, got bytes"),
        (2**70, tl.DTypeError, "^tensor: 1180591620717411303424 does not fit into int64"),
        (np.array(["2020-01-01"], "datetime64[D]"), tl.DTypeError, "is no number type"),
        (np.array([None]), tl.DTypeError, "is no number type"),
    ],
)
def test_what_is_no_data(data, error, message):
    with pytest.raises(error, match=message):
        tl.tensor(data)


@pytest.mark.parametrize("dtype", ["flot32", object, "U3", str, 3, np.longdouble, ">f4", "datetime64[s]"])
def test_what_is_no_dtype(dtype):
    for f in (
        lambda: tl.zeros(2, dtype=dtype),
        lambda: tl.tensor([1], dtype=dtype),
        lambda: tl.rand(2, dtype=dtype),
        lambda: tl.arange(3, dtype=dtype),
        lambda: tl.ones(2).to(dtype=dtype),
    ):
        with pytest.raises(tl.DTypeError, match=r"^dtype: .* is no number type; give one such as tensorlite.float32"):
            f()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([1, 2], "^from_numpy: expected a numpy.ndarray, got list"),
        (np.float64(1), "^from_numpy: expected a numpy.ndarray, got float64"),
        (np.array(["a"]), "^from_numpy: expected native numbers, got <U1"),
        (np.ones(2, ">i4"), "^from_numpy: expected native numbers, got >i4"),
    ],
)
def test_from_numpy_refuses(array, message):
    with pytest.raises(TypeError, match=message):
        tl.from_numpy(array)


def test_a_read_only_array_stays_as_it_is():
    x = tl.from_numpy(np.broadcast_to(np.float32(1), (2, 2)))
    with pytest.raises(tl.ShapeError, match=r"^add_: cannot write into a tensor of shape \(2, 2\): .*read-only"):
        x.add_(1)
    assert (x + 1).tolist() == [[2, 2], [2, 2]]


# ---- filled and counted ---------------------------------------------------------------------


@pytest.mark.parametrize(("make", "value"), [(tl.zeros, 0), (tl.ones, 1)])
@pytest.mark.parametrize("size", [(), (0,), (3,), (2, 0), (2, 3)])
def test_filled(make, value, size):
    for x in (make(*size), make(size), make(list(size)), make(*map(np.int64, size)), make(*map(tl.tensor, size))):
        assert (x.shape, x.dtype) == (size, tl.float32)
        assert (x.numpy() == value).all()
    assert make(*size, dtype=tl.int32).dtype == tl.int32
    assert make(*size, requires_grad=True).requires_grad


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(3, tl.int64), (3.0, tl.float32), (True, tl.bool_), (np.float64(3), tl.float64), (1j, tl.complex64)],
)
def test_full(value, dtype):
    x = tl.full((2, 3), value)
    assert (x.dtype, x.shape, x[1, 2].item()) == (dtype, (2, 3), value)
    assert tl.full((2,), tl.tensor(2.5)).tolist() == [2.5, 2.5]
    assert tl.full(2, 1, dtype=tl.float16).dtype == tl.float16


def test_likes():
    x = tl.ones(2, 3, dtype=tl.float64, requires_grad=True)
    for make in (tl.zeros_like, tl.ones_like, tl.empty_like, tl.rand_like, tl.randn_like):
        assert (make(x).shape, make(x).dtype, make(x).requires_grad) == ((2, 3), tl.float64, False)
        assert make(x, dtype=tl.float16, requires_grad=True).dtype == tl.float16
    assert tl.full_like(x, 7).tolist() == [[7] * 3] * 2
    assert tl.full_like(x, 7).dtype == tl.float64
    drawn = tl.randint_like(x, 3, 5)
    assert drawn.dtype == tl.float64
    assert set(drawn.numpy().ravel()) <= {3, 4}


@pytest.mark.parametrize(
    ("args", "expected", "dtype"),
    [
        ((5,), [0, 1, 2, 3, 4], tl.int64),
        ((2, 5), [2, 3, 4], tl.int64),
        ((5, 0, -2), [5, 3, 1], tl.int64),
        ((0,), [], tl.int64),
        ((3, 3), [], tl.int64),
        ((0, 1, 0.25), [0, 0.25, 0.5, 0.75], tl.float32),
        ((2.0,), [0, 1], tl.float32),
        ((0, 7, 3), [0, 3, 6], tl.int64),
        ((tl.tensor(3),), [0, 1, 2], tl.int64),
        ((np.int64(1), np.int64(3)), [1, 2], tl.int64),
    ],
)
def test_arange(args, expected, dtype):
    x = tl.arange(*args)
    assert (x.tolist(), x.dtype) == (expected, dtype)
    assert tl.arange(*args, dtype=tl.float64).tolist() == expected


def test_linspace_and_eye():
    assert tl.linspace(0, 1, 5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert tl.linspace(1, -1, 3, dtype=tl.float64).tolist() == [1, 0, -1]
    assert tl.linspace(3, 4, 1).tolist() == [3]
    assert tl.linspace(3, 4, 0).shape == (0,)
    assert tl.eye(2).tolist() == [[1, 0], [0, 1]]
    assert tl.eye(1, 3, dtype=tl.int64).tolist() == [[1, 0, 0]]
    assert tl.eye(0).shape == (0, 0)


def test_randint():
    assert tl.randint(3, (2, 2)).shape == tl.randint(0, 3, (2, 2)).shape == tl.randint(3, size=(2, 2)).shape == (2, 2)
    assert tl.randint(5, 6, (3,)).tolist() == [5, 5, 5]
    assert tl.randint(0, 2, (3,), dtype=tl.float32).dtype == tl.float32


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda: tl.zeros(-1), tl.ShapeError, r"^zeros: sizes must not be negative, got \(-1,\)$"),
        (lambda: tl.ones(2.0), TypeError, r"^ones: sizes must be ints, got \(2.0,\)$"),
        (lambda: tl.full((2, -3), 1), tl.ShapeError, "^full: sizes must not be negative"),
        (lambda: tl.rand("2"), TypeError, "^rand: sizes must be ints"),
        (lambda: tl.eye(2, -1), tl.ShapeError, "^eye: sizes must not be negative"),
        (lambda: tl.eye(1.5), TypeError, "^eye: sizes must be ints"),
        (lambda: tl.linspace(0, 1, -1), tl.ShapeError, "^linspace: sizes must not be negative"),
        (lambda: tl.linspace(0, math.inf, 3), ValueError, "^linspace: expected finite numbers, got inf"),
        (lambda: tl.randperm(-1), tl.ShapeError, "^randperm: sizes must not be negative"),
        (lambda: tl.arange(0, 5, -1), ValueError, "^arange: step -1 does not lead from 0 to 5$"),
        (lambda: tl.arange(0, 5, 0), ValueError, "^arange: step must not be 0$"),
        (lambda: tl.arange("a"), TypeError, "^arange: expected numbers, got str$"),
        (lambda: tl.arange(0, math.nan), ValueError, "^arange: expected finite numbers, got nan$"),
        (lambda: tl.randint(3, 3, (2,)), ValueError, "^randint: high must be above low, got low=3, high=3$"),
        (
            lambda: tl.rand(2, dtype=tl.int64),
            tl.DTypeError,
            r"^rand: .*floating point dtype, got int64. For integers use randint\(\)\.$",
        ),
        (lambda: tl.zeros(2, dtype=tl.int64, requires_grad=True), tl.DTypeError, "^requires_grad: expected a floating"),
        (lambda: tl.tensor([1], requires_grad=True), tl.DTypeError, "^requires_grad: .* got int64$"),
    ],
)
def test_errors_of_creation(f, error, message):
    with pytest.raises(error, match=message):
        f()


# ---- what a tensor is -----------------------------------------------------------------------


def test_properties():
    x = x23(dtype=tl.float64)
    assert (x.shape, x.ndim, x.dim(), x.numel(), x.nelement()) == ((2, 3), 2, 2, 6, 6)
    assert (x.size(), x.size(0), x.size(-1), x.itemsize, x.nbytes) == ((2, 3), 2, 3, 8, 48)
    assert x.T.tolist() == x.mT.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert tl.ones(2, 3, 4).T.shape == (4, 3, 2)
    assert tl.ones(2, 3, 4).mT.shape == (2, 4, 3)
    assert tl.ones(2).T.shape == (2,)
    assert x.is_floating_point()
    assert not x.long().is_floating_point()
    assert x.is_contiguous()
    assert not x.T.is_contiguous()
    assert x.contiguous() is x
    assert x.T.contiguous().is_contiguous()
    assert x.device == tl.device("cpu")
    with pytest.raises(IndexError, match="size: dim 2 is out of range"):
        x.size(2)
    with pytest.raises(AttributeError):
        x.shape = (6,)


def test_leaves():
    x = x23(requires_grad=True)
    y = x * 2
    assert (x.is_leaf, y.is_leaf, x.requires_grad, y.requires_grad) == (True, False, True, True)
    assert x.grad_fn is None
    assert repr(y.grad_fn) == "<mul>"
    assert y.grad_fn.name == "mul"
    assert x.detach().is_leaf
    assert not y.detach().requires_grad
    assert np.shares_memory(y.detach().numpy(), y.array)
    assert not np.shares_memory(y.clone().array, y.array)
    assert y.clone().requires_grad
    z = x23()
    assert z.requires_grad_() is z
    assert z.requires_grad
    assert z.requires_grad_(False).requires_grad is False
    with pytest.raises(tl.GraphError, match=r"requires_grad: .*Use detach\(\)"):
        y.requires_grad_(False)
    y.detach_()
    assert y.is_leaf
    with pytest.raises(tl.DTypeError, match="requires_grad: expected a floating point tensor"):
        tl.tensor([1]).requires_grad_()


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: tl.tensor(1.5), "tensor(1.5)"),
        (lambda: tl.tensor([1, 2]), "tensor([1, 2])"),
        (lambda: tl.tensor([True, False]), "tensor([ True, False])"),
        (lambda: tl.tensor([1.0, 0.123456]), "tensor([1.    , 0.1235])"),
        (lambda: x23(), "tensor([[1., 2., 3.],\n        [4., 5., 6.]])"),
        (lambda: x23(requires_grad=True)[0], "tensor([1., 2., 3.], grad_fn=<slice>)"),
        (lambda: tl.ones(2, requires_grad=True), "tensor([1., 1.], requires_grad=True)"),
        (lambda: tl.ones(2, requires_grad=True) * 3, "tensor([3., 3.], grad_fn=<mul>)"),
        (lambda: tl.ones(1, dtype=tl.float64), "tensor([1.], dtype=float64)"),
        (lambda: tl.ones(1, dtype=tl.int32), "tensor([1], dtype=int32)"),
        (lambda: tl.tensor([math.nan, math.inf]), "tensor([nan, inf])"),
        (lambda: tl.tensor([]), "tensor([])"),
        (lambda: tl.zeros(0, 3), "tensor([], size=(0, 3))"),
        (lambda: tl.zeros(1001), "tensor([0., 0., 0., ..., 0., 0., 0.])"),
    ],
)
def test_repr(make, shown):
    assert repr(make()) == str(make()) == f"{make()!r}" == shown


def test_repr_follows_the_default_dtype():
    tl.set_default_dtype(tl.float64)
    assert repr(tl.ones(1)) == "tensor([1.])"
    assert repr(tl.ones(1, dtype=tl.float32)) == "tensor([1.], dtype=float32)"


def test_containers():
    x = x23()
    assert len(x) == 2
    assert [row.tolist() for row in x] == [[1, 2, 3], [4, 5, 6]]
    assert [row.tolist() for row in reversed(x)] == [[4, 5, 6], [1, 2, 3]]
    assert list(tl.zeros(0)) == []
    _, last = x
    assert last.tolist() == [4, 5, 6]
    assert 3.0 in x
    assert tl.tensor(3.0) in x
    assert 9 not in x
    assert len({x: 1, x23(): 2}) == 2  # by identity
    for f in (len, iter, list):
        with pytest.raises(TypeError, match="0-d tensor"):
            f(tl.tensor(1.0))


def test_rows_are_differentiable():
    x = x23(requires_grad=True)
    a, b = x
    (a * b).sum().backward()
    assert x.grad.tolist() == [[4, 5, 6], [1, 2, 3]]


# ---- as Python's numbers --------------------------------------------------------------------


def test_numbers():
    x = tl.tensor([[2.5]])
    assert float(x) == 2.5
    assert int(x) == 2
    assert bool(x) is True
    assert complex(x) == 2.5
    assert bool(tl.tensor(0)) is False
    assert math.sqrt(tl.tensor(4.0)) == 2
    assert f"{x:.2f} {tl.tensor(3):03d}" == "2.50 003"
    assert f"{x23():.2f}" == repr(x23())
    assert [10, 20, 30][tl.tensor(1)] == 20
    assert list(range(tl.tensor(2))) == [0, 1]
    assert sum([tl.tensor(1.0), tl.tensor(2.0)]).item() == 3
    assert float(tl.tensor(1.0, requires_grad=True)) == 1


@pytest.mark.parametrize("x", [x23(), tl.tensor([])])
@pytest.mark.parametrize("f", [bool, float, int])
def test_only_one_entry_is_a_number(x, f):
    with pytest.raises(
        tl.ShapeError, match=r"^expected a tensor with one entry, got shape .* Use any\(\) or all\(\)"
    ):
        f(x)


def test_only_integers_are_an_index():
    with pytest.raises(TypeError, match="index: expected an integer tensor, got float32"):
        [1, 2][tl.tensor(1.0)]
    with pytest.raises(tl.ShapeError, match="expected a tensor with one entry"):
        [1, 2][tl.tensor([0, 1])]


@pytest.mark.parametrize(("value", "kind"), [(1, int), (1.5, float), (True, bool), (1j, complex)])
def test_item_and_tolist(value, kind):
    for shape in ((), (1,), (1, 1)):
        found = tl.full(shape, value).item()
        assert found == value
        assert type(found) is kind
    assert type(tl.tensor(value).tolist()) is kind
    assert tl.tensor([[value]]).tolist() == [[value]]
    for x in (x23(), tl.zeros(0)):
        with pytest.raises(tl.ShapeError, match=r"^item: expected a tensor with one entry, got "):
            x.item()


# ---- NumPy ----------------------------------------------------------------------------------


def test_to_numpy():
    x = x23()
    assert x.numpy() is x.array
    assert np.asarray(x) is x.array
    assert np.shares_memory(np.asarray(x), x.array)
    assert not np.shares_memory(np.array(x), x.array)
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert np.concatenate([x, x]).shape == (4, 3)
    assert np.array([tl.tensor(1.0), tl.tensor(2.0)]).tolist() == [1, 2]
    with pytest.raises(ValueError, match="copy"):
        np.asarray(x, dtype=np.float64, copy=False)
    for f in (lambda x: x.numpy(), np.asarray, np.array):
        with pytest.raises(tl.GraphError, match=r"numpy: .* Use x.detach\(\).numpy\(\)"):
            f(x23(requires_grad=True))


OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a**b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(
    "other",
    [
        2,
        2.5,
        np.float64(2.5),
        np.float32(2.5),
        np.int64(2),
        np.array([2.0, 3.0, 4.0], np.float32),
        np.array(2.0, np.float32),
    ],
)
def test_operators_with_numbers_and_arrays_on_either_side(name, other):
    """A Tensor comes out, float32 as the tensor is, and never a NumPy array of Tensors."""
    f, x = OPERATORS[name], x23()
    for found, expected in ((f(x, other), f(x.numpy(), other)), (f(other, x), f(other, x.numpy()))):
        assert type(found) is tl.Tensor
        assert found.dtype == (tl.bool_ if expected.dtype == bool else tl.float32)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_products_with_arrays():
    array, x = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), x23(requires_grad=True)
    y = array @ x
    assert type(y) is tl.Tensor
    np.testing.assert_array_equal(y.detach().numpy(), array @ x.detach().numpy())
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), array.T @ np.ones((2, 3)))
    assert type(x.detach() @ np.ones(3, np.float32)) is tl.Tensor


def test_an_array_with_dimensions_decides_the_width():
    assert (tl.ones(2) * np.ones(2)).dtype == (np.ones(2) * tl.ones(2)).dtype == tl.float64
    assert (np.float64(2) * tl.ones(2)).dtype == tl.float32
    assert (np.array(2.0) * tl.ones(2)).dtype == tl.float32
    assert (tl.tensor(2.0, dtype=tl.float64) * tl.ones(2)).dtype == tl.float32
    assert (tl.ones(2, dtype=tl.int64) * 2.5).dtype == tl.float32
    assert (tl.ones(2, dtype=tl.float16) * 2.5).dtype == tl.float16
    assert (tl.ones(2, dtype=tl.float16) * tl.ones(2, dtype=tl.int64)).dtype == tl.float16


def test_gradients_through_arrays_and_numbers():
    x = x23(requires_grad=True)
    (np.float64(2) * x + np.ones(3, np.float32) * x - x / np.float32(4)).sum().backward()
    assert x.grad.tolist() == [[2.75] * 3] * 2


@pytest.mark.parametrize("f", [np.sin, lambda x: np.add(np.ones(3), x), lambda x: np.ones((2, 3)).__iadd__(x)])
def test_numpy_functions_do_not_take_tensors(f):
    """They would lose the gradient."""
    with pytest.raises(TypeError, match="does not support ufuncs"):
        f(x23())


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x + "a", "^add: expected a Tensor or a number, got a str"),
        (lambda x: x * [1, 2, 3], "^mul: expected a Tensor or a number, got a list"),
        (lambda x: x + None, r"^add\(float32\(2, 3\), None, 1\): this op is not defined for arguments of these types"),
        (lambda x: x @ 2, "^matmul.*a number has no matrix product"),
        (lambda x: 2 @ x, "^matmul.*a number has no matrix product"),
        (lambda x: ~x, r"^bitwise_not\(float32\(2, 3\)\)"),
    ],
)
def test_what_operators_refuse(f, message):
    with pytest.raises(TypeError, match=message):
        f(x23())


# ---- copies and conversions -----------------------------------------------------------------


def test_deepcopy():
    x = x23(requires_grad=True)
    (x * x).sum().backward()
    x.note = ["kept"]
    y = copy.deepcopy(x)
    assert y.requires_grad
    assert y.is_leaf
    assert y.grad.tolist() == x.grad.tolist()
    assert y.note == ["kept"]
    for a, b in ((x.array, y.array), (x.grad.array, y.grad.array)):
        assert not np.shares_memory(a, b)
    first, second, third = copy.deepcopy([x, x, x23()])
    assert first is second
    assert first is not third
    with pytest.raises(tl.GraphError, match=r"deepcopy: only leaf tensors .* Use clone\(\) or detach\(\)"):
        copy.deepcopy(x * 2)


def test_to():
    x = x23()
    for same in (
        x.to(tl.float32),
        x.to("cpu"),
        x.to(None),
        x.to(device="cpu", dtype=tl.float32),
        x.to(x),
        x.float(),
        x.cpu(),
    ):
        assert same is x
    assert x.to(tl.float32, copy=True) is not x
    assert (
        x.to("cpu", tl.float64).dtype
        == x.to(tl.float64).dtype
        == x.to("float64").dtype
        == x.to(float).dtype
        == tl.float64
    )
    assert x.to(tl.zeros(1, dtype=tl.int64)).dtype == x.type(int).dtype == tl.int64
    assert [y.dtype for y in (x.double(), x.half(), x.int(), x.long(), x.bool())] == [
        tl.float64,
        tl.float16,
        tl.int32,
        tl.int64,
        tl.bool_,
    ]
    assert tl.tensor([1.7, -1.7]).long().tolist() == [1, -1]
    assert tl.tensor([0.0, -0.5, math.nan]).bool().tolist() == [False, True, True]


def test_conversions_have_gradients():
    x = x23(requires_grad=True)
    y = x.double()
    z = (y * y).half()
    assert z.requires_grad
    z.float().sum().backward()
    assert x.grad.dtype == tl.float32
    assert x.grad.tolist() == [[2, 4, 6], [8, 10, 12]]
    assert not x.long().requires_grad
    assert not x.bool().requires_grad
    assert x.to("cpu", copy=True).requires_grad


def test_mixed_dtypes_give_each_its_own_gradient():
    a, b = tl.ones(2, dtype=tl.float32, requires_grad=True), tl.ones(2, dtype=tl.float64, requires_grad=True)
    y = a * b
    assert y.dtype == tl.float64
    y.sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (tl.float32, tl.float64)
    number = tl.tensor(2.0, dtype=tl.float64, requires_grad=True)
    (a.half() * number).sum().backward()
    assert (number.grad.dtype, number.grad.item()) == (tl.float64, 2.0)


@pytest.mark.parametrize("other", [np.ones(2), np.array(1.0), np.ones(2, np.float16), np.arange(2), np.ones(2) > 0])
def test_an_array_does_not_change_the_dtype_of_a_gradient(other):
    x = tl.ones(2, requires_grad=True)
    (x * other).sum().backward()
    assert x.grad.dtype == tl.float32
    np.testing.assert_array_equal(x.grad.numpy(), np.broadcast_to(other, 2))
    with pytest.raises(tl.DTypeError, match=r"^matmul\(float32\(2,\), float64\(2,\)\): expected tensors of one dtype"):
        x @ np.ones(2)


def test_conversions_are_twice_differentiable():
    x = tl.tensor(3.0, requires_grad=True)
    (g,) = tl.autograd.grad(x.double() ** 3, x, create_graph=True)
    assert g.dtype == tl.float32
    (h,) = tl.autograd.grad(g, x)
    assert h.item() == 18


# ---- methods and functions ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reshape", "view", "expand", "permute", "repeat", "tile", "flip", "sum_to_size"])
def test_sizes_come_one_by_one_or_as_one(name):
    x = tl.arange(6).reshape(1, 2, 3).float()
    sizes = {
        "permute": (2, 0, 1),
        "reshape": (3, 2),
        "view": (6,),
        "expand": (4, 2, 3),
        "flip": (0, 2),
        "sum_to_size": (1, 3),
    }.get(name, (2, 1, 2))
    method = getattr(x, name)
    assert (
        method(*sizes).tolist()
        == method(sizes).tolist()
        == method(list(sizes)).tolist()
        == (sum_to_size if name == "sum_to_size" else getattr(ops_shape, name))(x, sizes).tolist()
    )


def test_methods_are_functions():
    x, y = x23(), x23() + 1
    for name, args in {
        "add": (y,),
        "sub": (y,),
        "mul": (y,),
        "div": (y,),
        "pow": (2,),
        "maximum": (y,),
        "matmul": (y.T,),
        "sum": (0,),
        "mean": (1, True),
        "std": (),
        "amax": (1,),
        "logsumexp": (1,),
        "softmax": (-1,),
        "cumsum": (0,),
        "norm": (),
        "transpose": (0, 1),
        "unsqueeze": (0,),
        "split": (1,),
        "chunk": (2, 1),
        "unbind": (1,),
        "roll": (1,),
        "masked_fill": (x > 2, 0.0),
        "tril": (),
        "sort": (),
        "topk": (2,),
        "argmax": (1,),
        "clamp": (2, 4),
        "isnan": (),
        "round": (),
        "tanh": (),
    }.items():
        a, b = getattr(x, name)(*args), getattr(tl, name)(x, *args)
        pairs = zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]
        for found, expected in pairs:
            assert found.tolist() == expected.tolist()
            assert found.dtype == expected.dtype


def test_help_shows_the_ops_text_and_signature():
    assert tl.Tensor.exp is tl.exp
    assert tl.Tensor.exp.__doc__ == tl.exp.__doc__
    assert str(inspect.signature(tl.Tensor.sum)) == "(input, dim=None, keepdim=False, *, dtype=None)"
    assert str(inspect.signature(x23().sum)) == "(dim=None, keepdim=False, *, dtype=None)"
    assert str(inspect.signature(x23().add_)) == "(other, alpha=1)"
    assert str(inspect.signature(x23().reshape)) == "(*shape)"
    assert tl.exp.__doc__ in tl.Tensor.exp_.__doc__


def test_keywords_keep_their_meaning_in_any_order():
    x = x23()
    assert x.sum(keepdim=True, dim=0).tolist() == x.sum(0, True).tolist() == x.sum(axis=0, keepdims=True).tolist()
    assert tl.sum(input=x, dim=1).tolist() == tl.sum(dim=1, input=x).tolist() == [6.0, 15.0]
    assert tl.sub(other=x, input=2 * x).tolist() == x.tolist()
    for _ in range(2):
        with pytest.raises(TypeError, match=r"^sum: dim and axis are the same argument"):
            x.sum(dim=0, axis=0)
        with pytest.raises(TypeError, match=r"^sum: .*unexpected keyword argument 'dims'"):
            x.sum(dims=0)


# ---- the package ----------------------------------------------------------------------------


def test_modules_that_are_loaded_on_first_use():
    code = (
        "import sys, tensorlite as tl\n"
        "assert 'tensorlite.testing' not in sys.modules\n"
        "assert tl.testing is sys.modules['tensorlite.testing']\n"
        "assert not hasattr(tl, 'no_such_name')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
