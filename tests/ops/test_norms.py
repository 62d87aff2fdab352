"""Norms where random numbers do not go: zeros, ties, infinities, NaN, large and small numbers, float16."""
import math

import numpy as np
import pytest

import tensorlite as tl
from tests.support.oracle import assert_same_as_torch

ORDERS = (0, 0.5, 1, 1.5, 2, 3, 3.5, math.inf, -math.inf, -1, -2.5)


@pytest.mark.parametrize("order", ORDERS)
def test_zeros_and_ties(order):
    """Compare the first gradient with PyTorch, whose second is often NaN at 0. Ours is 0, as the first is constant."""
    torch = pytest.importorskip("torch")
    rows = [[0.0, 0.0], [3.0, -3.0], [1.0, 2.0], [0.0, 2.0]][: 4 if order >= 1 else 3]  # else infinite
    found, expected = (
        (x := lib.tensor(rows, dtype=lib.float64, requires_grad=True), lib.linalg.vector_norm(x, order, 1))
        for lib in (tl, torch)
    )
    np.testing.assert_allclose(found[1].tolist(), expected[1].tolist(), rtol=1e-15)
    (expected[1].sum() + 0 * expected[0].sum()).backward()  # because its gradient of the 0-norm is None
    (first,) = tl.autograd.grad(found[1].sum(), [found[0]], create_graph=True)
    np.testing.assert_allclose(first.tolist(), expected[0].grad.tolist(), rtol=1e-14)
    if first.requires_grad:
        (second,) = tl.autograd.grad(first.sum(), [found[0]], allow_unused=True)
        assert second is None or second[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("order", [-1, -2.5, -math.inf])
def test_a_zero_entry_hides_the_others_from_a_negative_order(order):
    x = tl.tensor([0.0, 2.0, 1.0], requires_grad=True)
    norm = tl.linalg.vector_norm(x, order)
    norm.backward()
    assert norm.item() == 0.0
    assert x.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("f", [tl.norm, tl.linalg.vector_norm])
@pytest.mark.parametrize("order", [1, 2, 3, 0.5, 0])
def test_float16_is_computed_in_float32(f, order):
    assert f(tl.tensor([300.0, 400.0], dtype=tl.float16)).item() == 500.0
    x = tl.full((3000,), 0.01, dtype=tl.float16)
    found, wide = f(x, order), f(x.double(), order)
    assert found.dtype == tl.float16
    assert found.item() == wide.half().item()


@pytest.mark.parametrize("order", [3, 40.0, -3, -40.0, 0.5])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_powers_do_not_overflow(order, size):
    x = np.array([3.0, -4.0, 1.0])
    found = tl.linalg.vector_norm(tl.tensor(x * size, dtype=tl.float32), order).item()
    assert found / size == pytest.approx(np.sum(np.abs(x) ** order) ** (1 / order), rel=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_infinity_and_nan(order):
    torch = pytest.importorskip("torch")
    x = np.array([[math.inf, 1.0, 2.0], [math.nan, 1.0, 2.0], [-math.inf, math.inf, 0.0]])
    expected = torch.linalg.vector_norm(torch.tensor(x), order, 1).numpy()
    np.testing.assert_array_equal(tl.linalg.vector_norm(tl.tensor(x), order, 1).numpy(), expected)


def test_norms_of_matrices():
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    assert_same_as_torch(lambda lib, x: lib.norm(x, "nuc", dim=(2, 0), keepdim=True), x)
    for order in ("fro", "nuc", 1, 2, math.inf):
        assert tl.linalg.matrix_norm(tl.zeros(2, 0, 3), order).tolist() == [0.0, 0.0]
    for order in (-1, -2, -math.inf):
        with pytest.raises(tl.ShapeError, match="no entries to choose from"):
            tl.linalg.matrix_norm(tl.zeros(0, 0), order)


def test_dtype_converts_first():
    x = tl.tensor([30000.0, 40000.0], dtype=tl.float16, requires_grad=True)
    norm = tl.linalg.vector_norm(x, dtype=tl.float32)
    assert (norm.dtype, norm.item()) == (tl.float32, 50000.0)
    norm.backward()
    assert x.grad.dtype == tl.float16
    assert tl.norm(x, dtype=tl.float64).dtype == tl.float64


@pytest.mark.parametrize("order", ORDERS)
def test_no_entries(order):
    if order < 0 or order == math.inf:
        with pytest.raises(tl.ShapeError, match="needs at least one entry"):
            tl.linalg.vector_norm(tl.zeros(0), order)
        assert tl.linalg.vector_norm(tl.zeros(0, 2), order, 1).shape == (0,)
    else:
        assert tl.linalg.vector_norm(tl.zeros(2, 0), order, 1).tolist() == [0.0, 0.0]
