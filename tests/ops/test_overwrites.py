"""Assignments that name an entry twice: the last value stays, and it alone has a gradient."""
import math

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.backends import reference, registry
from tensorlite.testing import strict  # noqa: F401  registers the device

I, J = np.array([2, 0, 2, -1, 0]), np.array([1, 1, 1, 0, 1])
FORWARDS, BACKWARDS = np.zeros(10, np.int64)[::2], np.zeros(10, np.int64)[::-2]  # NumPy writes in the order of memory
FORWARDS[...], BACKWARDS[...] = I, I
GRID = np.asfortranarray([[0, 2, 0], [1, 0, -1]])
MASK = np.array([True, False, True])

# The shape of the tensor, the index, and the shape of the value.
ASSIGNMENTS = {
    "a vector": ((3,), (I,), (5,)),
    "a strided vector": ((3,), (FORWARDS,), (5,)),
    "a reversed vector": ((3,), (BACKWARDS,), (5,)),
    "one entry": ((3, 2), (np.array([[1, 1]]),), (1, 2, 2)),
    "rows": ((3, 4), (I,), (5, 4)),
    "rows of one value each": ((3, 4), (I,), (5, 1)),
    "one value for all": ((3, 4), (I,), ()),
    "columns": ((2, 3), (slice(None), I), (2, 5)),
    "pairs": ((3, 2), (I, J), (5,)),
    "an outer grid": ((3, 2), (I[:, None], J[None]), (5, 5)),
    "pairs around a slice": ((3, 4, 2), (I, slice(1, 3), J), (5, 2)),
    "pairs next to an integer": ((3, 4, 2), (I, 1, J), (5,)),
    "pairs after a slice": ((4, 3, 2), (slice(None, None, -2), I, J), (2, 5)),
    "a matrix in Fortran order": ((3, 2), (GRID,), (2, 3, 2)),
    "None between": ((3, 2), (I, None, J), (5, 1)),
    "a mask next to a vector": ((3, 3), (MASK, np.array([1, 1])), (2,)),
    "a mask next to one index": ((3, 3), (MASK, np.array([1])), (2,)),
    "a mask": ((3, 3), (MASK,), (2, 3)),
    "nothing": ((3,), (np.array([], np.int64),), (0,)),
}


def expected(x, index, value):
    """Return the new values, and which entries of the value stay, by writing one entry after the other."""
    places = np.arange(x.size).reshape(x.shape)[index]
    last = {place: k for k, place in enumerate(places.reshape(-1).tolist())}
    stays = np.isin(np.arange(places.size), list(last.values())).reshape(places.shape)
    out, wide = x.reshape(-1).copy(), np.broadcast_to(value, places.shape).reshape(-1)
    for place, k in last.items():
        out[place] = wide[k]
    return out.reshape(x.shape), stays


def summed(g, shape):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True).reshape(shape)


@pytest.mark.parametrize("device", ["cpu", "strict"])
@pytest.mark.parametrize("case", ASSIGNMENTS)
def test_the_last_value_stays_and_has_the_gradient(case, device):
    shape, index, value_shape = ASSIGNMENTS[case]
    rng = np.random.default_rng(0)
    x, value, weight = rng.standard_normal(shape), rng.standard_normal(value_shape), rng.standard_normal(shape)
    after, stays = expected(x, index, value)

    def tensor(a, **options):
        return tl.as_tensor(a, device=device, **options)

    at = tuple(tensor(i) if isinstance(i, np.ndarray) else i for i in index)
    plain = tensor(x.copy())
    plain[at] = tensor(value)
    assert plain.tolist() == after.tolist()
    leaf, v = (tl.tensor(a, device=device, requires_grad=True) for a in (x, value))
    y = leaf * 1.0
    y[at] = v
    assert y.tolist() == after.tolist()
    gx, gv = tl.autograd.grad((y * y * tensor(weight)).sum(), [leaf, v], create_graph=True)
    untouched = np.ones(shape)
    untouched[index] = 0
    np.testing.assert_allclose(gx.tolist(), 2 * x * weight * untouched, rtol=1e-12)
    np.testing.assert_allclose(gv.tolist(), summed(2 * (after * weight)[index] * stays, value_shape), rtol=1e-12)
    (second,) = tl.autograd.grad(gv.sum(), v)
    # A value that is broadcast into n entries has n times their slope, so only its diagonal is compared.
    if math.prod(value_shape) == stays.size:
        np.testing.assert_allclose(second.tolist(), (2 * weight[index] * stays).reshape(value_shape), rtol=1e-12)


@pytest.mark.parametrize("in_place", [False, True])
def test_scatter_keeps_the_last_value(in_place):
    x, src = tl.zeros(2, 3, requires_grad=True), tl.tensor([[1.0, 2, 3], [4, 5, 6]], requires_grad=True)
    index = tl.tensor([[1, 1, 0], [2, 2, 2]])
    y = (x * 1).scatter_(1, index, src) if in_place else tl.scatter(x, 1, index, src)
    assert y.tolist() == [[3.0, 2.0, 0.0], [0.0, 0.0, 6.0]]
    (y * tl.tensor([[1.0, 10.0, 100.0], [1.0, 10.0, 100.0]])).sum().backward()
    assert src.grad.tolist() == [[0.0, 10.0, 1.0], [0.0, 0.0, 100.0]]
    assert x.grad.tolist() == [[0.0, 0.0, 100.0], [1.0, 10.0, 0.0]]


def test_accumulating_adds_every_value():
    v = tl.tensor([1.0, 2.0, 4.0], requires_grad=True)
    y = tl.zeros(2).scatter_add(0, tl.tensor([0, 0, 1]), v)
    assert y.tolist() == [3.0, 4.0]
    y.square().sum().backward()
    assert v.grad.tolist() == [6.0, 6.0, 8.0]


class _WritesBackwards:
    """A vector or matrix that writes the values of an index array from the last to the first, as a GPU may."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __getitem__(self, index):
        return self.array[index]

    def __setitem__(self, index, value):
        places = np.arange(self.array.size).reshape(self.shape)[index]
        wide = np.broadcast_to(value, places.shape)
        for place, v in reversed(list(zip(places.reshape(-1), wide.reshape(-1), strict=True))):
            self.array.reshape(-1)[place] = v


IN_ONE_STEP = [
    name for name, (_, index, _) in ASSIGNMENTS.items()
    if all(isinstance(i, np.ndarray) or i == slice(None) for i in index)
]  # fmt: skip


@pytest.mark.parametrize("case", IN_ONE_STEP)
def test_the_order_in_which_a_device_writes_does_not_matter(case):
    shape, index, value_shape = ASSIGNMENTS[case]
    xp = registry.BACKENDS[np.ndarray]
    out, value = np.zeros(shape), np.arange(1.0, 1.0 + math.prod(value_shape)).reshape(value_shape)
    reference.assign_into(xp, _WritesBackwards(out), index, value)
    assert out.tolist() == expected(np.zeros(shape), index, value)[0].tolist()


def test_the_reference_finds_the_last_places():
    keys = np.random.default_rng(0).integers(0, 50, 200)
    xp = registry.BACKENDS[np.ndarray]
    assert reference.last_places(xp, keys, 50).tolist() == xp.last_places(keys, 50).tolist()
    assert xp.last_places(np.array([3, 3, 1]), 4).tolist() == [1, 1, 2]
