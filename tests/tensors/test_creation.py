"""Functions that make tensors: from data, filled, counted."""

import math

import numpy as np
import pytest

import tensorlite as tl

# ---- from data ------------------------------------------------------------------------------


def test_tensors_in_lists():
    assert tl.tensor([tl.tensor(1.0), tl.tensor(2.0)]).tolist() == [1, 2]
    assert tl.tensor([tl.tensor([1, 2]), tl.tensor([3, 4])]).tolist() == [[1, 2], [3, 4]]
    with pytest.warns(UserWarning, match=r"^tensor: a Tensor that requires gradients is copied .*use tl\.stack\(\)"):
        assert tl.tensor([tl.tensor(1.0, requires_grad=True), 2]).requires_grad is False


def test_copies_and_shared_memory():
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
    x = tl.ones(2, 3, requires_grad=True)
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
        (["a"], TypeError, "^tensor: expected numbers or booleans, got str 'a'"),
        (None, TypeError, "^tensor: expected numbers or booleans, got NoneType"),
        ({1, 2}, TypeError, "^tensor: expected numbers or booleans, got set"),
        (b"ab", TypeError, "^tensor: expected numbers or booleans, got bytes"),
        (2**70, tl.DTypeError, "^tensor: 1180591620717411303424 does not fit into int64"),
        (np.array(["2020-01-01"], "datetime64[D]"), tl.DTypeError, "dtype: expected a number type"),
        (np.array([None]), tl.DTypeError, "dtype: expected a number type"),
    ],
)
def test_wrong_data(data, error, message):
    with pytest.raises(error, match=message):
        tl.tensor(data)


MASKED = np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0])


@pytest.mark.parametrize(
    "use",
    [
        tl.tensor, tl.as_tensor, tl.from_numpy, tl.Tensor, lambda m: tl.tensor([m, m]),
        lambda m: tl.tensor([1.0, m[1]]),
        lambda m: tl.ones(3) + m, lambda m: m * tl.ones(3), lambda m: np.add(m, tl.ones(3)), lambda m: tl.ones(3) @ m,
        lambda m: tl.where(tl.ones(3) > 0, m, 0.0), lambda m: tl.ones(3)[m > 1], lambda m: tl.ones(3).copy_(m),
        lambda m: tl.ones(3).__setitem__(slice(None), m), lambda m: tl.ones(3).__setitem__(m > 1, 0.0),
        lambda m: tl.ones(3, requires_grad=True).mul(1).__setitem__(0, m[1]), lambda m: tl.ones(3) < m,
    ],
)  # fmt: skip
def test_a_masked_array_does_not_lose_its_mask(use):
    with pytest.raises(TypeError, match=r": expected an array without a mask, got a masked one .*\.filled\(value\)"):
        use(MASKED)


def test_other_subclasses_of_arrays_are_arrays(tmp_path):
    mapped = np.memmap(tmp_path / "m", np.float32, "w+", shape=3)
    mapped[:] = [1, 2, 3]
    x = tl.ones(3, requires_grad=True)
    (x * mapped).sum().backward()
    assert x.grad.tolist() == [1, 2, 3]
    assert type((mapped + x.detach()).numpy()) is type(tl.tensor(mapped).numpy()) is np.ndarray
    assert np.shares_memory(tl.from_numpy(mapped).numpy(), mapped)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([1, 2], "^from_numpy: expected a numpy.ndarray, got list"),
        (np.float64(1), "^from_numpy: expected a numpy.ndarray, got float64"),
        (np.array(["a"]), "^from_numpy: expected native numbers, got <U1"),
        (np.ones(2, ">i4"), "^from_numpy: expected native numbers, got >i4"),
    ],
)
def test_from_numpy_refuses_other_data(array, message):
    with pytest.raises(TypeError, match=message):
        tl.from_numpy(array)


def test_a_read_only_array_stays_read_only():
    x = tl.from_numpy(np.broadcast_to(np.float32(1), (2, 2)))
    with pytest.raises(tl.ShapeError, match=r"^add_: cannot write into a tensor of shape \(2, 2\): .*read-only"):
        x.add_(1)
    assert (x + 1).tolist() == [[2, 2], [2, 2]]


# ---- filled, counted, random ----------------------------------------------------------------


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


def test_functions_that_end_in_like():
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
        (lambda: tl.ones(2.0), TypeError, r"^ones: sizes must be an int or several, got \(2.0,\)$"),
        (lambda: tl.full((2, -3), 1), tl.ShapeError, "^full: sizes must not be negative"),
        (lambda: tl.rand("2"), TypeError, "^rand: sizes must be an int or several"),
        (lambda: tl.eye(2, -1), tl.ShapeError, "^eye: sizes must not be negative"),
        (lambda: tl.eye(1.5), TypeError, "^eye: n must be an int, got 1.5"),
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
        (lambda: tl.tensor([1], requires_grad=True), tl.DTypeError, "^requires_grad: .* got int64. Convert it with"),
    ],
)
def test_errors(f, error, message):
    with pytest.raises(error, match=message):
        f()
