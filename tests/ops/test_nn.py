"""Embedding tables and one-hot vectors: the values of PyTorch, and the errors."""
import numpy as np
import pytest

import tensorlite as tl
from tensorlite.ops.nn import embedding, one_hot
from tests.support.oracle import assert_same_as_torch

RNG = np.random.default_rng(0)


def real(*shape: int) -> np.ndarray:
    return np.asarray(RNG.standard_normal(shape))


@pytest.mark.parametrize("size", [(4,), (2, 3), ()])
@pytest.mark.parametrize("padding", [None, 0, -1])
def test_embedding_equals_torch(size, padding):
    ids = np.asarray(RNG.integers(0, 5, size))

    def rows(lib, table):
        if lib is tl:
            return embedding(table, lib.tensor(ids), padding)
        return lib.nn.functional.embedding(lib.tensor(ids), table, padding)

    assert_same_as_torch(rows, real(5, 3))


def test_embedding_adds_up_gradients_and_skips_the_padding():
    table = tl.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
    embedding(table, tl.tensor([[0, 2], [2, 1]]), -2).sum().backward()
    assert table.grad.tolist() == [[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]]
    table.grad = None
    embedding(table, tl.tensor(np.zeros((0, 2), int))).sum().backward()
    assert table.grad.tolist() == [[0.0, 0.0]] * 3


def test_one_hot():
    assert one_hot(tl.tensor([[0], [2]])).tolist() == [[[1, 0, 0]], [[0, 0, 1]]]
    assert one_hot(tl.tensor(1), 4).tolist() == [0, 1, 0, 0]
    assert one_hot(tl.tensor(np.zeros(0, int)), 3).shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda w: embedding(w, tl.tensor([[0, 3]])), IndexError, r"id 3 at position \(0, 1\) .* table of 3 rows"),
        (lambda w: embedding(w, tl.tensor([0, -1])), IndexError, r"id -1 at position \(1,\) .* table of 3 rows"),
        (lambda w: embedding(w, tl.tensor([0]), 3), IndexError, r"padding_idx 3 is out of range"),
        (lambda w: embedding(w, tl.tensor([0.0])), tl.DTypeError, r"embedding: expected an index tensor"),
        (lambda w: embedding(w[0], tl.tensor([0])), tl.ShapeError, r"embedding.*expected a table \(V, C\)"),
        (lambda w: one_hot(tl.tensor([0, 3]), 3), IndexError, r"class 3 at position \(1,\) is not one of 3"),
        (lambda w: one_hot(tl.tensor([0, -3])), IndexError, r"class -3 at position \(1,\)"),
        (lambda w: one_hot(tl.tensor(np.zeros(0, int))), ValueError, r"one_hot.*Pass num_classes"),
    ],
)  # fmt: skip
def test_an_id_outside_of_the_table_raises(call, error, words):
    with pytest.raises(error, match=words):
        call(tl.zeros(3, 2))
