"""Tests of selections, scatters and windows along an axis, with compiled loops and without, against NumPy."""

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.backends import reference
from tensorlite.backends.cpu import compiled_loops, compiled_sums, indexing, scatters, sums, thread_pool
from tensorlite.backends.registry import BACKENDS
from tests.support import array_layouts

rng = np.random.default_rng(0)
CPU = BACKENDS[np.ndarray]

LAYOUTS = {name: layout for name, layout in array_layouts.LAYOUTS.items() if name != "broadcast"}


@pytest.fixture(params=["numba", "numba, 3 threads", "numpy"])
def compiled(request, monkeypatch):
    """Run a test with compiled loops even for small arrays, on one thread or three, and without them."""
    if request.param == "numpy":
        monkeypatch.setattr(compiled_sums, "load_sums", lambda: None)
        monkeypatch.setattr(compiled_loops, "load_loops", lambda module: None)
        return
    pytest.importorskip("numba")
    monkeypatch.setattr(thread_pool, "_num_threads", 3 if "3" in request.param else 1)
    for module, name in ((compiled_loops, "MIN_COMPILED"), (compiled_sums, "MIN_SHARED"),
                         (compiled_loops, "MIN_SHARED"), (indexing, "_MIN_SELECTED")):  # fmt: skip
        monkeypatch.setattr(module, name, 1)


def grid(shape, axis, m, dtype=np.int64):
    """Return an index of gather: places along an axis, and for the other axes every position."""
    index = [np.arange(n).reshape(-1, *(1,) * (len(shape) - d - 1)) for d, n in enumerate(shape)]
    index[axis] = rng.integers(0, shape[axis], (*shape[:axis], m, *shape[axis + 1 :])).astype(dtype)
    return tuple(index)


def indices():
    """Yield shapes and indices of them."""
    for shape in ((7,), (5, 6), (3, 4, 5)):
        for axis in range(len(shape)):
            for m in (0, 1, 4, 300):  # 300 values in one entry are added in float64
                yield shape, grid(shape, axis, m, np.int32 if m == 4 else np.int64)
                yield shape, (*(slice(None),) * axis, rng.integers(-shape[axis], shape[axis], m))
    yield (5, 6), (np.arange(5), rng.integers(0, 6, 5))  # one entry of each row
    yield (5, 6), (np.arange(5)[::-1, None].copy(), rng.integers(0, 6, (5, 4)))  # rows in another order
    yield (5, 6), (np.arange(3)[:, None], rng.integers(0, 6, (3, 4)))  # not all rows
    yield (5, 6), (slice(1, 4), np.array([0, 5, -1]))
    yield (5, 6), (np.array([[0, 1], [4, -5]]),)
    yield (5, 6), rng.random((5, 6)) > 0.5


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.usefixtures("compiled")
def test_selections_and_scatters_are_numpys(dtype, layout):
    for shape, index in indices():
        x = LAYOUTS[layout](rng.standard_normal(shape).astype(dtype))
        found = indexing.take_at(np, x, index)
        np.testing.assert_array_equal(found, x[index], strict=True)
        source = rng.standard_normal(found.shape).astype(dtype)
        out, wide = x.copy(), x.astype(np.float64)
        if out.size != 0 and not isinstance(index, np.ndarray):
            assert sums.scatter_add_into(np, out, index, LAYOUTS[layout](source) if source.size else source) is out
            np.add.at(wide, index, source.astype(np.float64))
            np.testing.assert_allclose(out, wide, rtol=1e-5, atol=1e-5)


def along(shape, axis, m):
    """Yield a vector of m places along an axis, and an array with a place for each entry."""
    for size in ((m,), (*shape[:axis], m, *shape[axis + 1 :]), tuple(max(n - 1, 1) for n in shape)):
        for dtype in (np.int64, np.int32):
            yield rng.integers(0, shape[axis], size).astype(dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.usefixtures("compiled")
def test_selections_and_scatters_along_an_axis_are_the_references(dtype, layout):
    for shape, axis, m in (((7,), 0, 9), ((5, 6), 0, 4), ((5, 6), 1, 300), ((3, 4, 5), 1, 7), ((3, 4, 5), 2, 1)):
        x = LAYOUTS[layout](rng.standard_normal(shape).astype(dtype))
        for index in along(shape, axis, m):
            for negative in (False, True):
                places = index - shape[axis] * (rng.random(index.shape) < 0.5) if negative else index
                places = places.astype(index.dtype)
                places.flags.writeable = bool(negative)
                take = "take_entries" if index.ndim == x.ndim else "take_slices"
                taken = getattr(indexing, take)(np, x, axis, places, negative)
                np.testing.assert_array_equal(taken, getattr(reference, take)(np, x, axis, index), strict=True)
                for source in (rng.standard_normal(taken.shape).astype(dtype), 2.5):
                    for add in (False, True):
                        expected = reference.scatter_into(CPU, x.astype(np.float64), axis, index, source, add)
                        out = scatters.scatter_into(CPU, x.copy(), axis, places, source, add, negative)
                        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
            if index.ndim == x.ndim:
                found = scatters.take_last_entries(CPU, x, axis, index)
                expected = reference.take_last_entries(CPU, x, axis, index)
                np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("at", [0, 5, 6])  # in the first places, which are checked together, and after them
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("wrong", [7, -1])
@pytest.mark.usefixtures("compiled")
def test_a_place_out_of_range_is_an_error(wrong, axis, at):
    x, vector, entries = np.zeros((7, 7), np.float32), np.zeros(7, np.int64), np.zeros((7, 7), np.int64)
    vector[at] = entries[at, at] = wrong
    for call in (
        lambda: indexing.take_slices(np, x, axis, vector),
        lambda: indexing.take_entries(np, x, axis, entries),
        lambda: scatters.take_last_entries(CPU, x, axis, entries),
        lambda: scatters.scatter_into(CPU, x.copy(), axis, vector, x, True),
        lambda: scatters.scatter_into(CPU, x.copy(), axis, entries, x, True),
        lambda: scatters.scatter_into(CPU, x.copy(), axis, entries, x, False),
        lambda: tl.nn.functional.embedding(tl.from_numpy(vector), tl.from_numpy(x)),
    ):
        with pytest.raises(IndexError, match=r"out of range|not in the table"):
            call()


@pytest.mark.parametrize("wrong", [7, -8])
@pytest.mark.usefixtures("compiled")
def test_an_index_out_of_range_is_an_error(wrong):
    x, index = np.zeros((3, 7), np.float32), (slice(None), np.array([0, wrong, 1]))
    with pytest.raises(IndexError, match="out of bounds"):
        indexing.take_at(np, x, index)
    with pytest.raises(IndexError, match="out of bounds"):
        sums.scatter_add_into(np, x, index, np.ones((3, 3), np.float32))


@pytest.mark.usefixtures("compiled")
def test_the_sum_of_many_values_keeps_its_digits():
    ids = tl.tensor(rng.integers(0, 3, (2, 100_000)))
    found = tl.zeros(2, 3).scatter_add(1, ids, tl.full((2, 100_000), 0.1)).numpy()
    counts = [np.bincount(row, minlength=3) for row in ids.numpy()]
    np.testing.assert_allclose(found, np.float64(np.float32(0.1)) * np.array(counts), rtol=2e-7)


WINDOWS = [  # kernel, stride, padding, dilation, sizes of an image of 6 x 7
    ((2, 2), (2, 2), (0, 0), (1, 1), (3, 3)),
    ((3, 2), (1, 2), (1, 0), (1, 2), (6, 3)),
    ((3, 3), (2, 2), (1, 1), (1, 1), (4, 4)),
    ((6, 7), (1, 1), (0, 0), (1, 1), (1, 1)),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.usefixtures("compiled")
def test_the_places_of_the_largest_entries(dtype, layout):
    for special in (0.0, np.nan, np.inf, -np.inf):
        x = rng.integers(-2, 3, (2, 3, 6, 7)).astype(dtype)  # with equal entries
        x[rng.random(x.shape) < 0.2] = special
        x = LAYOUTS[layout](x)
        for window in WINDOWS:
            found = indexing.pool_places(np, x, *window)
            np.testing.assert_array_equal(found, reference.pool_places(np, x, *window), strict=True)
            row = [part[1:] for part in window]
            found = indexing.pool_places(np, x[:, :, 0], *row)
            np.testing.assert_array_equal(found, reference.pool_places(np, x[:, :, 0], *row), strict=True)


def test_an_adaptive_mean_over_all_positions_is_the_mean():
    x = tl.tensor(rng.standard_normal((2, 3, 4, 5)), requires_grad=True)
    y = F.adaptive_avg_pool2d(x, 1)
    y.backward(tl.ones(2, 3, 1, 1, dtype=tl.float64))
    np.testing.assert_allclose(y.detach().numpy(), x.detach().numpy().mean((2, 3), keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), np.full(x.shape, 1 / 20), rtol=1e-12)
