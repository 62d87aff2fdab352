"""Compiled loops of functions with several formulas against their reference, to the bit: edges, layouts, threads."""
import numpy as np
import pytest

from tensorlite.backends import reference, registry
from tensorlite.backends.cpu import compiled_loops, elementwise, piecewise, thread_pool
from tests.support.array_layouts import LAYOUTS

XP = registry.namespace(registry.device("cpu"))
EDGES = np.float32(
    [0.0, -0.0, 1, -1, 0.5, -0.5, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3e38, -3e38, 7, 3, -3, 0.1, 1e7,
     2**24 - 1, 2**24]
)  # fmt: skip


@pytest.fixture(params=[1, 3], autouse=True)
def threads(request, monkeypatch):
    """Run a test on one thread, and with threads that share every loop, even over small arrays."""
    pytest.importorskip("numba")
    monkeypatch.setattr(thread_pool, "_num_threads", request.param)
    monkeypatch.setattr(compiled_loops, "MIN_SHARED", 1)
    monkeypatch.setattr(compiled_loops, "MIN_COMPILED", 1)


def pairs():
    """Yield two arrays of one shape: all pairs of edges, and random numbers in each layout and dtype."""
    yield tuple(a.reshape(-1) for a in np.meshgrid(EDGES, EDGES))
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        for layout in LAYOUTS.values():
            yield tuple(layout((3 * rng.standard_normal((5, 70))).astype(dtype)) for _ in range(2))
    yield rng.standard_normal((3, 4)).astype(np.float32), rng.standard_normal(4).astype(np.float32)


CALLS = {
    "huber": [(1.0,), (0.25,), (2,)], "huber_slope": [(1.0,), (3,)], "relu_slope": [()],
    "leaky": [(0.01,), (-1,), (2.5,)],
    "lerp": [(0.0,), (0.3,), (0.5,), (-0.5,), (0.7,), (1,), (2.0,)],
}  # fmt: skip


@np.errstate(all="ignore")  # as ops run
@pytest.mark.parametrize(("name", "numbers"), [(name, numbers) for name, calls in CALLS.items() for numbers in calls])
def test_a_function_of_two_arrays_equals_the_reference(name, numbers):
    for x, y in pairs():
        found, expected = (getattr(k, name)(XP, x, y, *numbers) for k in (piecewise, reference))
        np.testing.assert_array_equal(found, expected, strict=True)


@np.errstate(all="ignore")
def test_weights_signs_and_whole_quotients_equal_the_reference():
    for x, y in pairs():
        found, expected = (k.lerp(XP, x, y, y) for k in (piecewise, reference))
        np.testing.assert_array_equal(found, expected, strict=True)
        np.testing.assert_array_equal(elementwise.sign_of(XP, x), reference.sign_of(XP, x), strict=True)
        np.testing.assert_array_equal(elementwise.floor_divide(XP, x, y), np.floor_divide(x, y), strict=True)
    x, y = next(pairs())
    for i in range(x.size):  # one at a time, because one large quotient sends all of them to NumPy
        a, b = x[i : i + 1], y[i : i + 1]
        found, expected = elementwise.floor_divide(XP, a, b), np.floor_divide(a, b)
        np.testing.assert_array_equal(found, expected, strict=True)
        assert np.isnan(found) or np.signbit(found) == np.signbit(expected)
