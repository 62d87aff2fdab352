"""Tests of extremes, products and running sums of rows of few entries, against NumPy's reductions."""

import itertools

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.backends.cpu import folds, sums
from tests.support.array_layouts import LAYOUTS

rng = np.random.default_rng(0)

SHAPES = [(), (0, 3), (3, 0), (1,), (7,), (5000,), (1000, 1), (700, 2), (999, 5), (3, 33, 40), (2, 1500), (40, 5, 3, 7)]
NUMBERS = [np.nan, np.inf, -np.inf, 0.0, -0.0]


def some(shape, dtype, layout, special):
    """Return numbers near 1, a hundredth of them special ones."""
    a = np.asarray(1 + rng.random(shape) / 64 if np.dtype(dtype).kind == "f" else rng.integers(-9, 9, shape), dtype)
    if special and np.dtype(dtype).kind == "f" and a.size:
        a.reshape(-1)[rng.integers(0, a.size, 1 + a.size // 100)] = rng.choice(NUMBERS, 1 + a.size // 100)
    return LAYOUTS[layout](a) if a.ndim else a


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "bool"])
@np.errstate(all="ignore")  # as ops run
def test_folds_are_numpys_reductions(dtype, layout):
    for shape, special, keepdims in itertools.product(SHAPES, (False, True), (False, True)):
        x = some(shape, dtype, layout, special)
        for count in range(x.ndim + 1):
            for axes in itertools.combinations(range(x.ndim), count):
                if all(x.shape[a] for a in axes):
                    found = folds.largest(np, x, axes[::-1], keepdims)
                    np.testing.assert_array_equal(found, x.max(axis=axes, keepdims=keepdims), strict=count < x.ndim)
                    found = folds.smallest(np, x, axes, keepdims)
                    np.testing.assert_array_equal(found, x.min(axis=axes, keepdims=keepdims), strict=count < x.ndim)
                if dtype != "float16":
                    found, expected = folds.product(np, x, axes, keepdims), x.prod(axis=axes, keepdims=keepdims)
                    assert found.dtype == expected.dtype
                    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_short_running_sums_are_added_in_order(layout):
    for shape in SHAPES[3:]:
        x = some(shape, "float32", layout, False)
        if x.shape[-1] <= 128:
            np.testing.assert_array_equal(sums.running_sum(np, x, x.ndim - 1), np.cumsum(x, axis=-1), strict=True)


def test_the_gradient_of_a_product_of_many_rows():
    x = tl.tensor(1 + rng.random((700, 3)) / 64, dtype=tl.float64, requires_grad=True)
    x.prod(1).sum().backward()
    a = x.detach().numpy()
    np.testing.assert_allclose(x.grad.numpy(), a.prod(1, keepdims=True) / a, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_product_of_a_column_and_a_row(dtype):
    x, y = (rng.standard_normal(n).astype(dtype) for n in (1400, 1200))
    x[3], y[5] = np.inf, 0.0
    for column, row in ((x[:, None], y[None]), (x[::-2, None], y[None, ::2]), (np.stack([x, x], 1)[:, :1], y[None])):
        found = (tl.tensor(column) @ tl.tensor(row)).numpy()
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(found, column * row, strict=True)
