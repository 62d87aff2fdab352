"""Extremes of rows, products with rows and columns, and search in rows, compiled, against NumPy, to the bit."""
import numpy as np
import pytest

from tensorlite.backends import reference, registry
from tensorlite.backends.cpu import broadcasts, compiled_loops, elementwise, folds, orders, thread_pool

XP = registry.namespace(registry.device("cpu"))


@pytest.fixture(params=[1, 3], autouse=True)
def threads(request, monkeypatch):
    """Run a test on one thread, and with threads that share every loop, even over small arrays."""
    pytest.importorskip("numba")
    monkeypatch.setattr(thread_pool, "_num_threads", request.param)
    monkeypatch.setattr(compiled_loops, "MIN_SHARED", 1)
    monkeypatch.setattr(compiled_loops, "MIN_COMPILED", 1)


@pytest.mark.parametrize("width", [33, 47, 48, 63, 64, 65, 100, 256])
def test_extremes_of_rows_equal_numpy_at_nan_and_infinity(width):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, width)).astype(np.float32)
    places = rng.integers(0, width, 60)
    for k, value in enumerate((np.nan, np.inf, -np.inf, 1e30)):
        rows = np.arange(k, 60, 5)
        x[rows, places[rows]] = value
    x[1], x[7, 0], x[9, -1] = -np.inf, np.nan, np.nan
    np.testing.assert_array_equal(folds.largest(XP, x, (1,), False), x.max(1), strict=True)
    np.testing.assert_array_equal(folds.smallest(XP, x, (1,), True), x.min(1, keepdims=True), strict=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_columns_and_both_equal_numpy(dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5, 37)).astype(dtype)
    x[0, 0, 0] = np.inf
    for shape in ((37,), (1, 37), (1, 1, 37), (4, 5, 1), (5, 1), (1, 1, 1), (5, 37), (4, 1, 37), (), (1,)):
        y = rng.standard_normal(shape).astype(dtype)
        for a, b in ((x, y), (y, x)):
            np.testing.assert_array_equal(broadcasts.multiply_arrays(XP, a, b), a * b, strict=True)
            np.testing.assert_array_equal(elementwise.add_arrays(XP, a, b), a + b, strict=True)
    column, row = x[0, :, :1].copy(), x[0, :1].copy()
    np.testing.assert_array_equal(broadcasts.multiply_arrays(XP, column, row), column * row, strict=True)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_search_in_rows_equals_the_reference(side, dtype):
    rng = np.random.default_rng(0)
    edges, values = (np.asarray(rng.integers(0, 9, n), dtype) for n in ((3, 4, 11), (3, 4, 6)))
    if dtype != "int64":
        edges[0, :, :2], values[0, :, 0], values[:, 0, 1] = np.nan, np.nan, np.inf
    edges.sort(axis=-1)
    found, expected = (k.search_rows(XP, edges, values, side) for k in (orders, reference))
    np.testing.assert_array_equal(found, expected, strict=True)
