"""Products of others and running products, compiled, against the reference in float64: zeros, sizes, threads."""
import numpy as np
import pytest

from tensorlite.backends import reference, registry
from tensorlite.backends.cpu import compiled_loops, factors, folds, thread_pool

XP = registry.namespace(registry.device("cpu"))
SHAPES = [(1, 1), (3, 2), (3, 3), (5, 4), (2, 7), (9, 16), (7, 33), (3, 4, 5), (2, 100), (5000,), (4, 0), (0, 4)]


@pytest.fixture(autouse=True)
def always_compiled(monkeypatch):
    """Compile for arrays of any size."""
    pytest.importorskip("numba")
    monkeypatch.setattr(compiled_loops, "MIN_SHARED", 1)
    monkeypatch.setattr(compiled_loops, "MIN_COMPILED", 1)


def results(x, g):
    found = [(factors.other_products(XP, x), reference.other_products(XP, x.astype(np.float64)))]
    for axis in range(x.ndim):
        wide = g.astype(np.float64), x.astype(np.float64), axis
        found += [
            (factors.running_product(XP, x, axis), np.cumprod(x.astype(np.float64), axis=axis)),
            (factors.running_product_backward(XP, g, x, axis), reference.running_product_backward(XP, *wide)),
            (folds.product(XP, x, (axis,), False), x.astype(np.float64).prod(axis=axis)),
        ]
    return found


@pytest.mark.parametrize("zeros", [0, 1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_equal_the_reference(shape, zeros, monkeypatch):
    rng = np.random.default_rng(0)
    x, g = (1 + 0.1 * rng.standard_normal(shape)).astype(np.float32), rng.standard_normal(shape).astype(np.float32)
    if zeros:
        x.reshape(-1)[3 * zeros :: 7] = 0
    first = results(x, g)
    for found, expected in first:
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)
    monkeypatch.setattr(thread_pool, "_num_threads", 3)
    for (a, _), (b, _) in zip(first, results(x, g), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def test_the_product_of_others_has_infinities_and_nan_where_they_belong():
    x = np.full(40, 2.0, np.float32)
    x[7], x[30] = np.inf, 0.0
    with np.errstate(all="ignore"):
        found = factors.other_products(XP, x)
    assert found[7] == 0
    assert np.isinf(found[30])
    assert np.isnan(np.delete(found, [7, 30])).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_the_gradient_of_a_running_product_stops_at_a_zero_before_an_overflow(axis):
    x = np.ones((8, 8), np.float32)
    x[0], x[1:3] = 0.0, 1e30
    g = np.zeros_like(x)
    g[0] = 1
    if axis:
        x, g = x.T.copy(), g.T.copy()
    expected = np.zeros_like(x)
    expected[(0, slice(None)) if axis == 0 else (slice(None), 0)] = 1
    np.testing.assert_array_equal(factors.running_product_backward(XP, g, x, axis), expected)
