"""Dtypes: those of data, the default one, promotion between tensors and numbers, conversions."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import tensorlite as tl

FLOATS = [tl.float16, tl.float32, tl.float64]
INTEGERS = [tl.uint8, tl.int8, tl.int16, tl.int32, tl.int64]


@pytest.fixture(autouse=True)
def default_dtype():
    yield
    tl.set_default_dtype(tl.float32)


def x23(**kwargs):
    return tl.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], **kwargs)


# ---- of data --------------------------------------------------------------------------------


def test_the_dtype_of_tensors_in_a_list():
    double, single, byte = tl.tensor(0.1, dtype=tl.float64), tl.tensor(0.5), tl.tensor(3, dtype=tl.int8)
    for data, dtype in [
        ([double, double], tl.float64), ([double, 1.0], tl.float64), ([1, double], tl.float64),
        ([[single], [double]], tl.float64), ([single, 1], tl.float32), ([byte, byte], tl.int8), ([byte, 1], tl.int64),
        ([byte, True], tl.int8), ([byte, 1.5], tl.float32), ((tl.tensor(True), False), tl.bool_),
        ([double, np.float32(1), 2], tl.float64), ([tl.zeros(2, dtype=tl.float64), [1, 2]], tl.float64),
    ]:  # fmt: skip
        assert tl.tensor(data).dtype == dtype, data
    assert tl.tensor([double, 1.0]).tolist() == [0.1, 1.0]
    assert tl.tensor([[double], [single]]).tolist() == [[0.1], [0.5]]
    assert tl.tensor([double], dtype=tl.float32).tolist() == [np.float32(0.1)]


def test_numbers_of_the_standard_library_are_numbers():
    for number in (Fraction(1, 2), Decimal("0.5")):
        y = tl.ones(2) * number + number
        assert (y.dtype, y.tolist()) == (tl.float32, [1.0, 1.0])
        assert (tl.arange(2) < number).tolist() == [True, False]


def test_numbers_wider_than_float64_are_an_error():
    for data in (np.longdouble(1), [1.0, np.longdouble(1)], np.ones(2, np.longdouble), np.clongdouble(1)):
        with pytest.raises(tl.DTypeError, match=r"^dtype: expected a number type"):
            tl.tensor(data)


def test_the_dtype_of_the_data_of_other_libraries():
    torch = pytest.importorskip("torch")
    assert tl.tensor(torch.ones(2, dtype=torch.float64)).dtype == tl.float64
    assert tl.tensor([torch.tensor(1.0, requires_grad=True), torch.tensor(2.0)]).dtype == tl.float32
    with pytest.raises(TypeError, match=r"^add: expected a Tensor or .*, got torch\.Tensor\. .*tl\.tensor\(\)"):
        tl.ones(2) + torch.ones(2)


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
        ([1.0, np.float64(2)], tl.float64, (2,)),
        ([[1, 2.0], [True, np.float64(3)]], tl.float64, (2, 2)),
        ([np.float16(1), 2.0], tl.float32, (2,)),
        ([np.float16(1), np.float16(2)], tl.float16, (2,)),
        ([np.float16(1), 2], tl.float16, (2,)),
        ([np.int8(1), 2], tl.int64, (2,)),
        ([np.int8(1), True, np.int16(2)], tl.int16, (3,)),
        ([np.uint8(200), np.int8(-1)], tl.int16, (2,)),
        ([np.bool_(True), 1], tl.int64, (2,)),
        ([np.array(1.0), 2.0], tl.float64, (2,)),
        ([np.array([1.0]), [2]], tl.float64, (2, 1)),
        ([np.complex128(1j), 1.0], tl.complex128, (2,)),
        ([1j, 1.0], tl.complex64, (2,)),
        ([2**60 + 1, np.int64(3)], tl.int64, (2,)),
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


@pytest.mark.parametrize("dtype", ["flot32", object, "U3", str, 3, np.longdouble, ">f4", "datetime64[s]"])
def test_wrong_dtypes(dtype):
    for f in (
        lambda: tl.zeros(2, dtype=dtype),
        lambda: tl.tensor([1], dtype=dtype),
        lambda: tl.rand(2, dtype=dtype),
        lambda: tl.arange(3, dtype=dtype),
        lambda: tl.ones(2).to(dtype=dtype),
    ):
        with pytest.raises(tl.DTypeError, match=r"^dtype: expected a number type such as tensorlite.float32 .*, got "):
            f()


# ---- conversions and promotion --------------------------------------------------------------


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


def test_an_array_with_dimensions_decides_the_width():
    assert (tl.ones(2) * np.ones(2)).dtype == (np.ones(2) * tl.ones(2)).dtype == tl.float64
    assert (np.float64(2) * tl.ones(2)).dtype == tl.float32
    assert (np.array(2.0) * tl.ones(2)).dtype == tl.float32
    assert (tl.tensor(2.0, dtype=tl.float64) * tl.ones(2)).dtype == tl.float32
    assert (tl.ones(2, dtype=tl.int64) * 2.5).dtype == tl.float32
    assert (tl.ones(2, dtype=tl.float16) * 2.5).dtype == tl.float16
    assert (tl.ones(2, dtype=tl.float16) * tl.ones(2, dtype=tl.int64)).dtype == tl.float16


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
