"""Sorting, top-k and search: the values of PyTorch, and the errors."""
import numpy as np
import pytest

import tensorlite as tl
from tests.support.oracle import assert_same_as_torch

RNG = np.random.default_rng(0)


def real(*shape: int) -> np.ndarray:
    return np.asarray(RNG.standard_normal(shape))


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize(
    ("shape", "dim"), [((5,), 0), ((3, 4), 0), ((3, 4), -1), ((2, 3, 4), 1), ((0,), 0), ((3, 0), 1), ((), -1)]
)
def test_sort_equals_torch(shape, dim, flag):
    x = real(*shape)
    assert_same_as_torch(lambda lib, x: lib.sort(x, dim=dim, descending=flag).values, x)
    assert_same_as_torch(lambda lib, x: lib.sort(x, dim, flag)[1] * x, x)
    assert_same_as_torch(lambda lib, x: lib.argsort(x, dim, flag) * x, x)


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize(
    ("shape", "dim", "k"), [((5,), 0, 5), ((3, 4), 0, 2), ((3, 4), -1, 3), ((2, 3, 4), 1, 0), ((0,), 0, 0), ((), -1, 1)]
)
def test_topk_equals_torch(shape, dim, k, flag):
    x = real(*shape)
    assert_same_as_torch(lambda lib, x: lib.topk(x, k, dim=dim, largest=flag).values, x)
    assert_same_as_torch(lambda lib, x: lib.topk(x, k, dim, flag).indices * x.sum(), x)


def test_stable_sort_keeps_equal_entries_in_order():
    x = tl.tensor([1.0, 0.0, 1.0, 0.0, 1.0] * 20)
    ones, zeros = [i for i in range(100) if i % 5 % 2 == 0], [i for i in range(100) if i % 5 % 2]
    assert tl.sort(x, stable=True).indices.tolist() == zeros + ones
    assert tl.argsort(x, descending=True, stable=True).tolist() == ones + zeros


def test_nan_counts_as_the_largest():
    x = tl.tensor([1.0, float("nan"), float("inf"), -1.0])
    assert tl.sort(x).indices.tolist() == [3, 0, 2, 1]
    assert tl.sort(x, descending=True).indices.tolist() == [1, 2, 0, 3]
    assert tl.topk(x, 2).indices.tolist() == [1, 2]
    assert tl.topk(x, 2, largest=False).indices.tolist() == [3, 0]


def test_topk_finds_the_same_entries_unsorted():
    x = real(3, 50)
    found = tl.topk(tl.tensor(x), 7, sorted=False)
    assert np.sort(found.values.numpy()).tolist() == np.sort(x)[:, -7:].tolist()
    assert found.values.tolist() == np.take_along_axis(x, found.indices.numpy(), -1).tolist()


def test_sorting_with_invalid_arguments_raises():
    x = tl.zeros(2, 3)
    for call, words in [
        (lambda: tl.sort(x, 2), r"^sort: dim 2 is out of range"),
        (lambda: tl.topk(x, 4), r"topk\(float32\(2, 3\)\): k=4 is out of range for dim 1 of size 3"),
        (lambda: tl.topk(x, -1), r"topk.*k=-1 is out of range"),
        (lambda: tl.topk(x, 1, -3), r"topk.*dim -3 is out of range"),
    ]:
        with pytest.raises(IndexError, match=words):
            call()


def test_searchsorted():
    bounds, values = np.array([1.0, 2.0, 2.0, 3.0]), np.array([[0.0, 2.0], [3.0, 4.0]])
    for right in (False, True):
        found = tl.searchsorted(tl.tensor(bounds), tl.tensor(values), right=right)
        assert found.tolist() == np.searchsorted(bounds, values, "right" if right else "left").tolist()
