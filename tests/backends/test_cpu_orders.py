"""Top k, medians and the order of integers on the CPU against their reference: ties, NaN, layouts, dtypes, threads."""
import numpy as np
import pytest

from tensorlite.backends import reference, registry
from tensorlite.backends.cpu import compiled_loops, orders, thread_pool
from tests.support.array_layouts import LAYOUTS

XP = registry.namespace(registry.device("cpu"))
DTYPES = ("float32", "float64", "float16", "int64", "int32", "uint8")


@pytest.fixture(params=[1, 3], autouse=True)
def threads(request, monkeypatch):
    """Run a test on one thread, and with threads that share every loop, even over small arrays."""
    monkeypatch.setattr(thread_pool, "_num_threads", request.param)
    monkeypatch.setattr(compiled_loops, "MIN_SHARED", 1)
    monkeypatch.setattr(compiled_loops, "MIN_COMPILED", 1)


def with_ties(dtype, nan):
    """Yield arrays with equal entries, some of them with NaN, in all layouts."""
    rng = np.random.default_rng(0)
    for shape in ((7,), (5, 12), (3, 4, 6), (4, 1)):
        x = rng.integers(0, 6, shape).astype(dtype)
        if nan and x.dtype.kind == "f":
            x[rng.random(shape) < 0.15] = np.nan
        for layout in LAYOUTS.values():
            yield layout(x)


@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_medians_equal_the_reference(dtype, nan):
    for x in with_ties(dtype, nan):
        for axis in range(x.ndim):
            for ignore in (False, True):
                found, expected = (k.median_places(XP, x, axis, ignore) for k in (orders, reference))
                np.testing.assert_array_equal(found, expected, strict=True)
        for ignore in (False, True):
            found, expected = (np.asarray(k.median_of_all(XP, x.reshape(-1), ignore)) for k in (orders, reference))
            np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_top_entries_are_those_of_a_sort_and_the_first_of_equal_ones(dtype, nan):
    for x in with_ties(dtype, nan):
        for axis in range(x.ndim):
            for largest in (False, True):
                k = min(3, x.shape[axis])
                found = orders.top_places(XP, x, k, axis, largest, True)
                order = np.sort(x, axis=axis)
                order = np.flip(order, axis) if largest else order
                np.testing.assert_array_equal(np.take_along_axis(x, found, axis), order.take(np.arange(k), axis))
                assert (np.diff(np.sort(found, axis=axis), axis=axis) > 0).all()
                assert found.dtype == np.int64


def test_a_compiled_top_k_takes_the_first_of_equal_entries():
    pytest.importorskip("numba")
    x = np.float32([[2, 5, 5, 1, 5, 1, -0.0, 0.0]])
    assert orders.top_places(XP, x, 4, 1, True, True).tolist() == [[1, 2, 4, 0]]
    assert orders.top_places(XP, x, 4, 1, False, True).tolist() == [[6, 7, 3, 5]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_of_entries_is_the_stable_one(dtype):
    for x in with_ties(dtype, nan=True):
        for axis in range(x.ndim):
            found = orders.places_in_order(XP, x, axis, True)
            np.testing.assert_array_equal(found, np.argsort(x, axis=axis, kind="stable"), strict=True)


@pytest.mark.parametrize("ends", [(-(2**63), 2**63 - 1), (-(2**63), -(2**63) + 5), (0, 2**64 - 1), (2**62, 2**62 + 9)])
def test_the_order_of_integers_near_the_limits(ends):
    x = np.array([ends[1], ends[0], ends[1], ends[0] + 1, ends[0]], np.uint64 if ends[1] >= 2**63 else np.int64)
    assert orders.places_in_order(XP, x, 0, True).tolist() == [1, 4, 3, 0, 2]
