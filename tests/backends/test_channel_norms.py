"""Compiled loops over channels against the reference in float64: layouts, offsets, extremes, threads."""

import numpy as np
import pytest

from tensorlite.backends import reference, registry
from tensorlite.backends.cpu import channel_norms, compiled_loops, compiled_sums, thread_pool

XP = registry.namespace(registry.device("cpu"))
BATCH, GROUPS = (0, 2, 3), (2, 3)
SHAPES = {
    "images": (3, 4, 1, 35), "groups": (3, 2, 3, 7), "vectors": (37, 70, 1, 1), "one example": (1, 5, 1, 16),
    "long": (2, 2, 1, 9000), "many": (700, 3, 1, 1), "few entries": (5, 4, 1, 3), "groups of vectors": (5, 2, 6, 1),
}  # fmt: skip
rng = np.random.default_rng(0)


@pytest.fixture(params=[1, 3], autouse=True)
def threads(request, monkeypatch):
    """Run a test on one thread, and with threads that share every loop, even over small arrays."""
    pytest.importorskip("numba")
    monkeypatch.setattr(thread_pool, "_num_threads", request.param)
    for module in (compiled_loops, compiled_sums):
        monkeypatch.setattr(module, "MIN_SHARED", 1)
        monkeypatch.setattr(module, "MIN_COMPILED", 1)


def arrays(shape, offset=0.0, size=1.0):
    """Return x and a gradient (N, G, K, S), and a weight and a bias (1, G, K, 1), float32."""
    x, g = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    weight, bias = (rng.standard_normal((1, *shape[1:3], 1)).astype(np.float32) for _ in range(2))
    return np.float32(size) * x + np.float32(offset), g, weight, bias


def assert_close(found, expected, atol=2e-6):
    """Check float32 arrays, relative to the largest entry."""
    for a, b in zip(found, expected, strict=True):
        assert (a.dtype, a.shape) == (np.float32, b.shape)
        np.testing.assert_allclose(a, b, rtol=0, atol=atol * max(abs(b).max(), 1e-30))


def normalized(kernels, x, g, weight, bias, axes, eps):
    """Return the result and the gradients of x, weight and bias."""
    y, *saved = kernels.channel_norm(XP, x, weight, bias, axes, eps, None)
    return y, *kernels.channel_norm_backward(XP, g, x, weight, *saved, axes)


@pytest.mark.parametrize("axes", [BATCH, GROUPS])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("offset", [0.0, -3000.0])
def test_normalized_channels(shape, axes, offset):
    values = arrays(shape, offset)
    for weight, bias in (values[2:], (None, None)):
        exact = [a if a is None else a.astype(np.float64) for a in (*values[:2], weight, bias)]
        if offset:
            exact[0] += 3000  # exact, because the sum of both is a float32
        found = normalized(channel_norms, *values[:2], weight, bias, axes, 1e-5)
        assert_close(found, normalized(reference, *exact, axes, 1e-5), 4e-6)


@np.errstate(all="ignore")  # as ops run
@pytest.mark.parametrize("axes", [BATCH, GROUPS])
@pytest.mark.parametrize("shape", [SHAPES["images"], SHAPES["vectors"]])
@pytest.mark.parametrize(("size", "eps"), [(1e25, 1e-5), (1e-25, 0.0), (0.0, 1e-5)])
def test_sizes_whose_squares_overflow_or_vanish(shape, axes, size, eps):
    if axes == GROUPS and shape[3] == 1:
        return  # a group of one entry has no deviation
    values = arrays(shape, size=size)
    exact = [a.astype(np.float64) for a in values]
    assert_close(normalized(channel_norms, *values, axes, eps), normalized(reference, *exact, axes, eps), 1e-5)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_scaled_channels(shape):
    x, g, factor, offset = arrays((shape[0], shape[1] * shape[2], 1, shape[3]))
    shift = rng.standard_normal(factor.shape).astype(np.float32)
    results = []
    for kernels, dtype in ((channel_norms, np.float32), (reference, np.float64)):
        a, b, c, d, e = (v.astype(dtype) for v in (x, g, shift, factor, offset))
        results.append([kernels.scale_channels(XP, a, c, d, e), *kernels.scale_channels_backward(XP, b, a, c, d)])
    assert_close(*results, 4e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [SHAPES["images"], SHAPES["vectors"]])
@np.errstate(all="ignore")
def test_numbers_that_are_not_finite_stay_in_their_channel(shape, value):
    x, g, factor, offset = arrays(shape)
    x[0, 1, 0, 0] = value
    y, dx, *_ = normalized(channel_norms, x, g, factor, offset, BATCH, 1e-5)
    for result in (y, dx):
        assert np.isnan(result[:, 1]).all()
        assert np.isfinite(np.delete(result, 1, axis=1)).all()
    scaled = channel_norms.scale_channels(XP, x, factor, abs(factor), offset)
    np.testing.assert_array_equal(scaled[0, 1, 0, 0], value)
    assert np.isfinite(np.delete(scaled.reshape(-1), scaled[0, 0].size)).all()
