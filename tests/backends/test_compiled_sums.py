"""The compiled sums against float64: any number of rows and columns, long runs, equal bits on any number of threads."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.backends import registry
from tensorlite.backends.cpu import compiled_sums, moments, sums, thread_pool

XP = registry.namespace(registry.device("cpu"))
SHAPES = [(17, 300), (130, 64), (131, 61), (900, 3), (2501, 1), (16, 5000), (5000, 17)]


@pytest.fixture(params=["compiled", "plain"])
def form(request, monkeypatch):
    """Run a test with compiled loops, and without."""
    if request.param == "plain":
        monkeypatch.setattr(compiled_sums, "load_sums", lambda: None)
    else:
        pytest.importorskip("tensorlite.compiled", exc_type=ImportError)


def positive(*shape):
    """Return numbers of 0.1 to 1.1, of which no sum cancels."""
    return np.random.default_rng(0).random(shape, dtype=np.float32) + np.float32(0.1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("form")
class TestValues:
    def test_sums_of_rows(self, shape):
        x = positive(*shape)
        exact = x.sum(0, dtype=np.float64)
        for found in (sums.sum_to(XP, x, shape[1:]), sums.sum_over(XP, x, (0,)), sums.sum_over(XP, x[None], (0, 1))):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, exact, rtol=1e-6)

    def test_sums_along_the_last_axes(self, shape):
        x = positive(*shape)
        for y, axes in ((x, (1,)), (x, (0, 1)), (x[None], (2,)), (x.reshape(1, *shape, 1), (2, 3))):
            for keepdims in (False, True):
                exact = y.sum(axes, dtype=np.float64, keepdims=keepdims)
                found = sums.sum_over(XP, y, axes, keepdims)
                assert (found.dtype, found.shape) == (np.float32, exact.shape)
                np.testing.assert_allclose(found, exact, rtol=1e-6)

    def test_running_sums(self, shape):
        x = positive(*shape)
        exact = x.cumsum(0, dtype=np.float64)
        np.testing.assert_allclose(sums.running_sum(XP, x, 0), exact, rtol=3e-6)
        np.testing.assert_allclose(sums.running_sum(XP, x.T.copy(), 1), exact.T, rtol=3e-6)

    @pytest.mark.parametrize("rows", [2, 300])
    @pytest.mark.parametrize("kind", [np.int64, np.int32])
    def test_embedding_gradients(self, shape, rows, kind):
        g, ids = positive(*shape), np.random.default_rng(1).integers(0, rows, shape[0]).astype(kind)
        ids[ids == 1] = 0
        exact = np.zeros((rows, shape[1]))
        np.add.at(exact, ids, g.astype(np.float64))
        np.testing.assert_allclose(sums.embedding_backward(XP, g, ids, rows), exact, rtol=3e-6)

    def test_rows_that_are_added(self, shape):
        source, ids = positive(*shape), np.random.default_rng(1).integers(-7, 7, shape[0])
        out = positive(7, shape[1])
        exact = out.astype(np.float64)
        np.add.at(exact, ids, source.astype(np.float64))
        np.testing.assert_allclose(sums.scatter_add_into(XP, out.copy(), (ids,), source), exact, rtol=3e-6)
        with pytest.raises(IndexError):
            sums.scatter_add_into(XP, out, (ids + 1,), source)

    @pytest.mark.parametrize("axes", [(1,), (0, 1), (0,)])
    def test_variances(self, shape, axes):
        x = 1000 + positive(*shape)
        exact = x.astype(np.float64).var(axes, keepdims=True)
        variance, middle, rest = moments.variance(XP, x, axes, 2.0 / x.size * exact.size)
        deviation, _, _ = moments.deviation(XP, x, axes, 1.0 * exact.size / x.size)
        np.testing.assert_allclose(variance, 2 * exact, rtol=3e-6, atol=1e-30)
        np.testing.assert_allclose(deviation, np.sqrt(exact), rtol=3e-6, atol=1e-15)
        mean = x.mean(axes, dtype=np.float64, keepdims=True)
        np.testing.assert_allclose(middle.astype(np.float64) + rest, mean, rtol=1e-10)


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch):
    x, ids = positive(3000, 70) - np.float32(0.6), np.random.default_rng(1).integers(0, 9, 3000)
    monkeypatch.setattr(compiled_sums, "MIN_SHARED", 1)
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(thread_pool, "_num_threads", threads)
        found.append([sums.sum_to(XP, x, (70,)), sums.embedding_backward(XP, x, ids, 9), sums.running_sum(XP, x, 0),
                      *moments.variance(XP, x, (1,), 1.0)])  # fmt: skip
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("form")
def test_an_id_out_of_range_is_an_error():
    for wrong in (9, -10):
        with pytest.raises(IndexError):
            sums.embedding_backward(XP, positive(300, 70), np.full(300, wrong), 9)


@pytest.mark.parametrize("size", [10, 5000])
@pytest.mark.usefixtures("form")
def test_infinities_and_huge_numbers(size):
    x = np.full((2, size), 1e30, np.float32)
    x[:, ::2] = -1e30
    assert np.isfinite(tl.tensor(x).std(1).array).all()
    np.testing.assert_allclose(tl.tensor(x).norm(dim=1).array, 1e30 * np.sqrt(size), rtol=1e-5)
    x[0, 1] = np.inf
    out = tl.tensor(x).std(1).array
    assert np.isnan(out[0])
    assert np.isfinite(out[1])
