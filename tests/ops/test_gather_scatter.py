"""Gather, scatter and masks: the values and gradients of PyTorch, and the errors."""
import numpy as np
import pytest

import tensorlite as tl
from tests.support.oracle import assert_same_as_torch

RNG = np.random.default_rng(0)


def real(*shape: int) -> np.ndarray:
    return np.asarray(RNG.standard_normal(shape))


# ---- gather, scatter and the like ---------------------------------------------------------------------------

GATHERS = [
    ((3, 4), 0, (2, 4)), ((3, 4), 1, (3, 6)), ((3, 4), -1, (2, 2)), ((2, 3, 4), 1, (2, 2, 3)),
    ((2, 3, 4), -3, (5, 1, 1)),
    ((3,), 0, (5,)), ((3,), 0, ()), ((), 0, ()), ((), -1, (3,)), ((3, 4), 0, (0, 4)), ((0, 4), 0, (0, 3)),
    ((2, 3, 4), 2, (2, 3, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "dim", "size"), GATHERS)
def test_gather_and_scatter_equal_torch(shape, dim, size):
    n = shape[dim] if shape else 1
    index = np.asarray(RNG.integers(0, max(n, 1), size))
    assert_same_as_torch(lambda lib, x: lib.gather(x, dim, lib.tensor(index)), real(*shape))
    assert_same_as_torch(lambda lib, x, v: lib.scatter_add(x, dim, lib.tensor(index), v), real(*shape), real(*size))
    assert_same_as_torch(lambda lib, x: lib.scatter(x, dim, lib.tensor(index), 1.5), real(*shape))


@pytest.mark.parametrize(
    ("shape", "dim", "size"), [((3, 4), 0, (2, 4)), ((3, 4), -1, (2, 3)), ((2, 3, 4), 1, (2, 3, 1))]
)
def test_scatter_equals_torch(shape, dim, size):
    # The indices are distinct, because the result is not defined where an entry gets two values.
    index = RNG.permuted(np.indices(size)[dim], axis=dim)
    assert_same_as_torch(lambda lib, x, v: lib.scatter(x, dim, lib.tensor(index), v), real(*shape), real(*size))


def test_gather_is_take_along_axis():
    x, index = real(3, 4), RNG.integers(0, 4, (3, 2))
    assert tl.gather(tl.tensor(x), 1, tl.tensor(index)).tolist() == np.take_along_axis(x, index, 1).tolist()


def test_src_of_scatter_may_be_larger_than_the_index():
    x, src = tl.zeros(2, 3), tl.tensor([[1.0, 2.0], [4.0, 8.0]], requires_grad=True)
    y = tl.scatter_add(x, 1, tl.tensor([[2], [2]]), src)
    y.sum().backward()
    assert y.tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 4.0]]
    assert src.grad.tolist() == [[1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("alpha", [1, 2.5])
@pytest.mark.parametrize(
    ("shape", "dim", "n"),
    [((3, 4), 0, 5), ((3, 4), -1, 2), ((2, 3, 4), 1, 4), ((3,), 0, 2), ((3, 4), 1, 0), ((), 0, 1)],
)
def test_index_select_and_index_add_equal_torch(shape, dim, n, alpha):
    index = RNG.integers(0, shape[dim] if shape else 1, n)
    source = list(shape)
    if shape:
        source[dim] = n
    assert_same_as_torch(lambda lib, x: lib.index_select(x, dim, lib.tensor(index)), real(*shape))
    assert_same_as_torch(
        lambda lib, x, v: lib.index_add(x, dim, lib.tensor(index), v, alpha=alpha), real(*shape), real(*source)
    )


def test_take_along_dim_broadcasts():
    i, j, k = RNG.integers(0, 3, (1, 5, 1)), RNG.integers(0, 4, (1, 3, 2)), RNG.integers(0, 6, (2, 2))
    assert_same_as_torch(lambda lib, x: lib.take_along_dim(x, lib.tensor(i), 1), real(2, 3, 4))
    assert_same_as_torch(lambda lib, x: lib.take_along_dim(x, lib.tensor(j), -1), real(2, 1, 4))
    assert_same_as_torch(lambda lib, x: lib.take_along_dim(x, lib.tensor(k)), real(2, 3))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x, i: tl.gather(x, 1, i([[-1]])), IndexError, r"gather: index -1 at position \(0, 0\)"),
        (lambda x, i: tl.gather(x, -1, i([[0], [3]])), IndexError, r"gather: index 3 at .* dim 1 of size 3"),
        (lambda x, i: tl.gather(x, 2, i([[0]])), IndexError, r"gather: dim 2 is out of range"),
        (lambda x, i: tl.gather(x, 1, i([0])), tl.ShapeError, r"gather: index of shape \(1,\) .* \(2, 3\)"),
        (lambda x, i: tl.gather(x, 1, i([[0], [0], [0]])), tl.ShapeError, r"gather: .* larger than the tensor"),
        (lambda x, i: tl.gather(x, 1, i([[0.0]])), tl.DTypeError, r"gather: expected an index tensor .* float32"),
        (lambda x, i: tl.gather(x, 1, [[0]]), tl.DTypeError, r"gather: expected an index tensor .* list"),
        (lambda x, i: tl.scatter(x, 1, i([[0, 1]]), i([[1.0]])), tl.ShapeError, r"scatter: src of shape \(1, 1\)"),
        (lambda x, i: tl.scatter_add(x, 0, i([[2]]), i([[1.0]])), IndexError, r"scatter_add: index 2 .* of size 2"),
        (lambda x, i: tl.index_select(x, 1, i([0, -1])), IndexError, r"index_select: index -1 at position \(1,\)"),
        (lambda x, i: tl.index_select(x, 1, i([[0]])), tl.ShapeError, r"index_select: expected a vector of indices"),
        (lambda x, i: tl.index_add(x, 1, i([3]), x[:, :1]), IndexError, r"index_add: index 3 .* dim 1 of size 3"),
        (lambda x, i: tl.index_add(x, 1, i([0]), x), tl.ShapeError, r"index_add: source of shape \(2, 3\)"),
        (lambda x, i: tl.take_along_dim(x, i([6])), IndexError, r"take_along_dim: index 6 .* size 6"),
        (lambda x, i: tl.take_along_dim(x, i([[0]] * 3), 1), tl.ShapeError, r"take_along_dim: .* do not broadcast"),
    ],
)  # fmt: skip
def test_an_index_out_of_range_raises(call, error, words):
    with pytest.raises(error, match=words):
        call(tl.zeros(2, 3), tl.tensor)


# ---- masks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 3), (2, 1)), ((3,), (2, 3)), ((2, 3), ()), ((), ()), ((), (3,)),
        ((0, 3), (3,)),
    ],
)
def test_masked_fill_and_masked_select_equal_torch(shape, size):
    mask = np.asarray(RNG.random(size) > 0.4)
    assert_same_as_torch(lambda lib, x: lib.masked_fill(x, lib.tensor(mask), 3), real(*shape))
    assert_same_as_torch(lambda lib, x, v: lib.masked_fill(x, lib.tensor(mask), v), real(*shape), real())
    assert_same_as_torch(lambda lib, x: lib.masked_select(x, lib.tensor(mask)), real(*shape))


def test_masked_fill_keeps_the_dtype():
    mask = tl.tensor([True, False])
    for x, value in [
        (tl.zeros(2), 1.5), (tl.zeros(2), tl.tensor(np.array(1.5))), (tl.zeros(2), np.float64(1.5)),
        (tl.tensor([1, 2]), 2.0),
        (tl.zeros(2, dtype=tl.float16), -float("inf")), (tl.tensor([False, False]), True), (tl.zeros(2), tl.tensor(3)),
    ]:  # fmt: skip
        filled = tl.masked_fill(x, mask, value)
        assert filled.dtype == x.dtype
        assert filled.tolist() == [float(value), x.tolist()[1]]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: tl.masked_fill(x, tl.ones(2), 0.0), tl.DTypeError, r"masked_fill: expected a mask .* float32"),
        (lambda x: tl.masked_fill(x, x > 0, tl.zeros(1)), tl.ShapeError, r"masked_fill: expected a number or a 0-d"),
        (lambda x: tl.masked_fill(x.long(), x > 0, 1.5), tl.DTypeError, r"masked_fill: 1.5 does not fit .* int64"),
        (lambda x: tl.masked_fill(x.long(), x > 0, float("inf")), tl.DTypeError, r"masked_fill: inf does not fit"),
        (lambda x: tl.masked_fill(x.long(), x > 0, x[0]), tl.DTypeError, r"masked_fill: float32 values do not fit"),
        (lambda x: tl.masked_select(x, tl.tensor([1, 0])), tl.DTypeError, r"masked_select: expected a mask .* int64"),
        (lambda x: tl.tril(x), tl.ShapeError, r"tril\(float32\(2,?\)\): expected a tensor of at least 2 dimensions"),
    ],
)  # fmt: skip
def test_an_invalid_mask_raises(call, error, words):
    with pytest.raises(error, match=words):
        call(tl.ones(2))


def test_nonzero():
    x = tl.tensor([[1.0, 0.0], [2.0, 3.0]])
    assert tl.nonzero(x).tolist() == [[0, 0], [1, 0], [1, 1]]
    assert [i.tolist() for i in tl.nonzero(x, as_tuple=True)] == [[0, 1, 1], [0, 0, 1]]
    assert x[tl.nonzero(x, as_tuple=True)].tolist() == [1.0, 2.0, 3.0]
    assert tl.nonzero(tl.tensor(5)).shape == (1, 0)
    assert [i.tolist() for i in tl.nonzero(tl.tensor(5), as_tuple=True)] == [[0]]
