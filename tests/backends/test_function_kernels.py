"""Tests of the compiled functions of numbers, against float64 and NumPy."""

import itertools
import math

import numpy as np
import pytest

from tensorlite.backends import reference
from tensorlite.backends.cpu import compiled_loops, elementwise, thread_pool

rng = np.random.default_rng(0)

EDGES = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-30, -1e-30, 1e-45, 2.0, 0.5, 5.5, -5.5, 80.0, -80.0]
PAIRS = np.array(list(itertools.product(EDGES, EDGES)), np.float32).T

UNARY = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "log_sigmoid": lambda x: np.minimum(x, 0) - np.log1p(np.exp(-abs(x))),
    "erf": np.vectorize(math.erf),
}
BINARY = {"fmod": np.fmod, "remainder": np.remainder, "logaddexp": np.logaddexp}


@pytest.fixture(params=[1, 3])
def compiled(request, monkeypatch):
    """Run a test with compiled loops even for small arrays, on one thread and on three."""
    pytest.importorskip("numba")
    monkeypatch.setattr(thread_pool, "_num_threads", request.param)
    monkeypatch.setattr(compiled_loops, "MIN_COMPILED", 0)
    monkeypatch.setattr(compiled_loops, "MIN_SHARED", 1)


def layouts(a):
    """Yield an array in several layouts, and an empty and a 0-d one."""
    yield from (a, a.reshape(-1, 2), np.asfortranarray(a.reshape(-1, 2)), a[::3], a[::-1], a[:0], a[7:8].reshape(()))


@np.errstate(all="ignore")  # as ops run
def check(name, found, exact, plain):
    """Check the dtype and shape of a result, its rounding to 4 units in the last place, and NaN and infinity."""
    assert (found.dtype, found.shape) == (np.float32, plain.shape)
    finite = np.isfinite(exact)
    np.testing.assert_array_equal(found[~finite], plain[~finite])
    size = np.spacing(np.abs(exact[finite]).astype(np.float32)).astype(np.float64)
    assert np.all(np.abs(found[finite] - exact[finite]) <= 4 * np.maximum(size, 1e-37)), name


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.usefixtures("compiled")
@np.errstate(all="ignore")
def test_functions_of_a_number(name):
    numbers = np.concatenate([np.float32(EDGES), (8 * rng.standard_normal(3000)).astype(np.float32)])
    for x in layouts(numbers[: numbers.size // 2 * 2]):
        function = getattr(elementwise, name)
        check(name, function(np, x), np.asarray(UNARY[name](x.astype(np.float64)) if x.size else x), np.asarray(
            getattr(reference, name)(np, x)))  # fmt: skip
        wide = x.astype(np.float64)
        np.testing.assert_array_equal(function(np, wide), getattr(reference, name)(np, wide), strict=True)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.usefixtures("compiled")
@np.errstate(all="ignore")
def test_functions_of_two_numbers(name):
    numbers = [np.concatenate([edges, (8 * rng.standard_normal(3000)).astype(np.float32)]) for edges in PAIRS]
    for x, y in zip(*map(layouts, numbers), strict=True):
        for other in (y, 2.0, -3, np.float32([[2.0]]), y.astype(np.float64)):
            found, plain = getattr(elementwise, name)(np, x, other), BINARY[name](x, other)
            if name == "logaddexp":
                size = 4e-7 * np.maximum(1, np.abs(plain, where=np.isfinite(plain), out=np.zeros(plain.shape)))
                same = (found == plain) | ((found != found) & (plain != plain))
                assert np.all(same | (np.abs(found - plain) <= size))
            else:
                np.testing.assert_array_equal(found, plain, strict=True)
                number = ~np.isnan(plain)
                np.testing.assert_array_equal(np.signbit(found[number]), np.signbit(plain[number]))


@pytest.mark.usefixtures("compiled")
def test_the_remainder_of_a_huge_quotient_is_exact():
    x, y = np.float32([3e38, 1e20, 5.5]), np.float32([3.0, 7.0, 2.0])
    np.testing.assert_array_equal(elementwise.fmod(np, x, y), np.fmod(x, y))
    np.testing.assert_array_equal(elementwise.remainder(np, -x, y), np.remainder(-x, y))


@pytest.mark.usefixtures("compiled")
def test_the_slope_of_the_sigmoid():
    for g, y in zip(layouts(rng.standard_normal(3000).astype("f")), layouts(rng.random(3000, "f")), strict=True):
        found, expected = elementwise.sigmoid_slope(np, g, y), reference.sigmoid_slope(np, *map(np.float64, (g, y)))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=3e-7)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.usefixtures("compiled")
def test_copies_are_copies(count, monkeypatch):
    monkeypatch.setattr(elementwise, "_MIN_COPIED", 0)
    for x in layouts(rng.standard_normal(6000).astype("f")):
        copies = elementwise.copies_of(np, x, count)
        for k, a in enumerate(copies):
            assert not any(np.shares_memory(a, other) for other in (x, *copies[:k]))
            np.testing.assert_array_equal(a, x, strict=True)
            assert a.flags.c_contiguous
            assert a.flags.owndata


@pytest.mark.parametrize("factor", [0.5, -3, 0, 1e-30, math.inf, math.nan])
@pytest.mark.usefixtures("compiled")
@np.errstate(all="ignore")
def test_sums_with_a_factor_have_numpys_bits(factor):
    for x, y in zip(layouts(PAIRS[0]), layouts(PAIRS[1]), strict=True):
        for other in (y, 2.0, y.astype(np.float64)):
            np.testing.assert_array_equal(
                elementwise.add_scaled(np, x, other, factor), x + factor * other, strict=True
            )
