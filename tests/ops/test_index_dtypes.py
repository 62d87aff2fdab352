"""Check that indices of every integer dtype give the same values, gradients and changes in place as int64."""

from typing import Any

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F

DTYPES = ["int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64"]
GRID, VECTOR, CLASSES = np.array([[0, 2, 1], [3, 1, 0]]), np.array([2, 0, 2]), np.array([0, 2, 1, 1])
RNG = np.random.default_rng(0)
X, S, ROWS = RNG.standard_normal((4, 3)), RNG.standard_normal((2, 3)), RNG.standard_normal((3, 3))


def changed(x: Any, change: Any) -> Any:
    """Return a copy of x after a change in place."""
    y = x * 1.0
    change(y)
    return y


# The indices, and a function of x, of the indices and of further values.
CASES: dict[str, Any] = {
    "gather": (GRID, lambda x, i: x.gather(0, i)),
    "take_along_dim": (GRID, lambda x, i: tl.take_along_dim(x, i, 0)),
    "take_along_dim-flat": (GRID, lambda x, i: tl.take_along_dim(x, i)),
    "scatter": (GRID, lambda x, i, s: x.scatter(0, i, s), S),
    "scatter-value": (GRID, lambda x, i: x.scatter(0, i, value=2.0)),
    "scatter-multiply": (GRID, lambda x, i, s: x.scatter(0, i, s, reduce="multiply"), S),
    "scatter_add": (GRID, lambda x, i, s: x.scatter_add(0, i, s), S),
    "index_select": (VECTOR, lambda x, i: x.index_select(1, i)),
    "index_add": (VECTOR, lambda x, i, s: x.index_add(0, i, s), ROWS),
    "repeat_interleave": (VECTOR, lambda x, i: x.repeat_interleave(i, 1)),
    "embedding": (GRID, lambda x, i: F.embedding(i, x)),
    "embedding-padding": (GRID, lambda x, i: F.embedding(i, x, padding_idx=2)),
    "one_hot": (VECTOR, lambda x, i: F.one_hot(i) * x[0]),
    "cross_entropy": (CLASSES, lambda x, i: F.cross_entropy(x, i, ignore_index=1)),
    "cross_entropy-weight": (CLASSES, lambda x, i: F.cross_entropy(x, i, weight=x[0].detach().abs())),
    "nll_loss": (CLASSES, lambda x, i: F.nll_loss(x, i)),
    "getitem": (VECTOR, lambda x, i: x[i]),
    "getitem-two": (VECTOR, lambda x, i: x[i, i]),
    "getitem-0d": (np.array(2), lambda x, i: x[i]),
    "setitem": (VECTOR[:2], lambda x, i, s: changed(x, lambda y: y.__setitem__(i, s)), S),
    "setitem-add": (VECTOR[:2], lambda x, i, s: changed(x, lambda y: y.__setitem__(i, y[i] + s)), S),
    "scatter_": (GRID, lambda x, i, s: changed(x, lambda y: y.scatter_(0, i, s)), S),
    "scatter_add_": (GRID, lambda x, i, s: changed(x, lambda y: y.scatter_add_(0, i, s)), S),
    "index_add_": (VECTOR, lambda x, i, s: changed(x, lambda y: y.index_add_(0, i, s)), ROWS),
}


def outcome(name: str, ids: Any, device: str) -> list[Any]:
    """Return the values, the gradients and the gradients of their squares."""
    f, values = CASES[name][1], CASES[name][2:]
    xs = [tl.tensor(a, device=device, requires_grad=True) for a in (X, *values)]
    y = f(xs[0], ids, *xs[1:])
    first = tl.autograd.grad((y * y * y).sum(), xs, create_graph=True)
    second = tl.autograd.grad(sum(((g * g).sum() for g in first[1:]), (first[0] * first[0]).sum()), xs)
    return [t.cpu().numpy(force=True) for t in (y, *first, *second)]


@pytest.mark.parametrize("name", CASES)
def test_dtypes(name, device):
    ids = CASES[name][0]
    expected = outcome(name, tl.tensor(ids, device=device), device)
    for dtype in DTYPES:
        given = [tl.tensor(ids.astype(dtype), device=device)]
        if "item" in name and device == "cpu":
            given += [ids.astype(dtype), ids.astype(dtype).tolist()]
        for index in given:
            if "item" in name and dtype == "uint8" and not isinstance(index, (list, int)):
                with pytest.raises(IndexError, match=r"uint8.*\. It is a mask in PyTorch and holds indices in NumPy"):
                    outcome(name, index, device)
            else:
                for a, b in zip(outcome(name, index, device), expected, strict=True):
                    np.testing.assert_array_equal(a, b)


def test_an_index_that_int64_cannot_hold_is_out_of_range():
    for index in (np.array([2**64 - 1], np.uint64), np.array([2**63], np.uint64)):
        with pytest.raises(IndexError, match="out of range"):
            tl.tensor(X).index_select(0, tl.tensor(index))
        with pytest.raises(IndexError, match="out of range"):
            tl.tensor(X)[index]
    for index in (-1, 3):
        with pytest.raises(IndexError, match="out of range"):
            tl.tensor(X).gather(1, tl.tensor([[index]], dtype=tl.int8))


def test_an_index_into_a_dimension_without_entries_is_out_of_range():
    """NumPy does not look at an index whose result is empty for another reason."""
    x = tl.zeros(3, 0, 2)
    for index in [(slice(3, 3), [0, 0]), (slice(3, 3), tl.tensor([0])), (slice(None), [0])]:
        with pytest.raises(IndexError, match="out of range"):
            x[index]
