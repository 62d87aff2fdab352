"""Comparison of tensors, and questions about them."""

import pytest

import tensorlite as tl


def test_equal_compares_shape_and_entries():
    x = tl.tensor([[1.0, 2.0]])
    assert tl.equal(x, tl.tensor([[1.0, 2.0]]))
    assert not tl.equal(x, tl.tensor([[1.0, 3.0]]))
    assert not tl.equal(x, tl.tensor([1.0, 2.0]))
    assert not tl.equal(tl.tensor([tl.nan]), tl.tensor([tl.nan]))


def test_isclose_adds_the_two_tolerances():
    x = tl.tensor([1.0, 1.0, tl.inf, tl.inf, tl.nan], dtype=tl.float64)
    y = tl.tensor([1.0 + 1e-6, 1.1, tl.inf, 1.0, tl.nan], dtype=tl.float64)
    assert tl.isclose(x, y).tolist() == [True, False, True, False, False]
    assert tl.isclose(x, y, equal_nan=True).tolist() == [True, False, True, False, True]
    assert tl.isclose(x, y, rtol=0.0, atol=0.2).tolist() == [True, True, True, False, False]
    assert not tl.allclose(x, y)
    assert tl.allclose(x[:1], y[:1])


def test_allclose_of_shapes_that_do_not_broadcast():
    with pytest.raises(tl.ShapeError, match=r"allclose: shapes \(2,\) and \(3,\)"):
        tl.allclose(tl.ones(2), tl.ones(3))


def test_types_of_tensors():
    assert tl.is_tensor(tl.ones(1))
    assert not tl.is_tensor([1.0])
    assert tl.is_floating_point(tl.ones(1))
    assert not tl.is_floating_point(tl.arange(3))
    assert tl.numel(tl.ones(2, 3)) == 6


def test_pytorch_spellings():
    """Other names for arguments, and names for dtypes."""
    x = tl.tensor([[1.0, 2.0, 4.0], [0.0, 3.0, 5.0]])
    assert tl.equal(tl.sum(x, axis=1, keepdims=True), x.sum(1, keepdim=True))
    assert tl.equal(tl.add(input=x, other=x), x + x)
    assert tl.equal(x.var(1, False), x.var(1, correction=0))
    assert tl.equal(x.std(unbiased=False), tl.std(x, correction=0))
    assert (tl.float, tl.double, tl.half, tl.long, tl.int) == (tl.float32, tl.float64, tl.float16, tl.int64, tl.int32)
    assert x.new_zeros(2, 2).dtype == x.dtype
    assert x.double().new_tensor([1]).dtype == tl.float64
    assert tl.equal(x.t(), x.T)
    assert tl.equal(x.select(1, -1), x[:, 2])
    with pytest.raises(TypeError, match="sum: got an unexpected keyword argument 'dims'"):
        tl.sum(x, dims=1)
