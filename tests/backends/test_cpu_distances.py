"""Distances of all pairs of vectors and their gradients, compiled, against the reference in float64."""
import math

import numpy as np
import pytest

from tensorlite.backends import reference, registry
from tensorlite.backends.cpu import compiled_loops, distances, thread_pool

XP = registry.namespace(registry.device("cpu"))
SIZES = [(1, 1, 1), (5, 7, 3), (4, 32, 256), (9, 33, 300), (2, 3, 0), (0, 3, 2), (6, 40, 64), (6, 300, 97)]
BATCHES = [((), ()), ((2, 1), (3,)), ((2,), (2,))]


@pytest.fixture(autouse=True)
def always_compiled(monkeypatch):
    """Compile for arrays of any size."""
    pytest.importorskip("numba")
    monkeypatch.setattr(compiled_loops, "MIN_SHARED", 1)
    monkeypatch.setattr(compiled_loops, "MIN_COMPILED", 1)


def vectors(size, batches):
    rng = np.random.default_rng(0)
    n, m, k = size
    x, y = (rng.standard_normal((*b, r, k)).astype(np.float32) for b, r in zip(batches, (n, m), strict=True))
    if min(n, m):
        y[..., 0, :] = x[(0,) * (x.ndim - 1)]  # equal vectors, where the gradient is 0
    return x, y, rng.standard_normal((*np.broadcast_shapes(*batches), n, m)).astype(np.float32)


@np.errstate(all="ignore")  # as ops run
@pytest.mark.parametrize("p", [1, 2.0, math.inf])
@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("size", SIZES)
def test_distances_and_gradients_equal_the_reference(size, batches, p, monkeypatch):
    x, y, g = vectors(size, batches)
    found = []
    for threads in (1, 3):  # the same bits
        monkeypatch.setattr(thread_pool, "_num_threads", threads)
        out = distances.distances_of_pairs(XP, x, y, p)
        found.append((out, *distances.distances_of_pairs_backward(XP, g, x, y, out, p)))
        for a, b in zip(found[0], found[-1], strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    wide = [a.astype(np.float64) for a in (g, x, y, found[0][0])]
    expected = reference.distances_of_pairs(XP, *wide[1:3], p)
    np.testing.assert_allclose(found[0][0], expected, rtol=2e-6, atol=1e-6)
    assert found[0][0].shape == expected.shape
    if p != math.inf:
        for a, b in zip(found[0][1:], reference.distances_of_pairs_backward(XP, *wide, p), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-5)


@np.errstate(all="ignore")
@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_a_distance_with_nan_is_nan_and_those_with_infinity_are_infinite(p):
    for place in (0, 2, 299):
        x, y = np.ones((2, 300), np.float32), np.zeros((3, 300), np.float32)
        x[1, place], y[2, 299 - place] = np.nan, np.inf
        expected = reference.distances_of_pairs(XP, x, y, p)
        np.testing.assert_allclose(distances.distances_of_pairs(XP, x, y, p), expected, rtol=1e-6)


def test_close_vectors_far_from_the_origin_keep_their_distance():
    x = np.float32([[4096.0, 4096.0], [4096.0, 4096.25]])
    assert distances.distances_of_pairs(XP, x, x, 2).tolist() == [[0.0, 0.25], [0.25, 0.0]]
