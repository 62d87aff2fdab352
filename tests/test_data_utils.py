"""Datasets and batches."""

from collections import namedtuple

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate, random_split

Pair = namedtuple("Pair", "x y")


class Squares(Dataset):
    """The pairs of i and its square."""

    def __getitem__(self, index):
        return tl.tensor(float(index)), index * index

    def __len__(self):
        return 10


@pytest.mark.parametrize("dataset", [TensorDataset(tl.arange(10.0), tl.arange(10) ** 2), Squares()])
def test_batches(dataset):
    batches = list(DataLoader(dataset, batch_size=4))
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    assert tl.equal(tl.cat([x for x, _ in batches]), tl.arange(10.0))
    assert all((x * x == y).all() for x, y in batches)
    loader = DataLoader(dataset, batch_size=4, drop_last=True)
    assert len(loader) == len(list(loader)) == 2


def test_shuffled_epochs_differ_and_follow_the_seed():
    def epochs(seed):
        loader = DataLoader(list(range(50)), 10, shuffle=True, generator=tl.Generator(seed))
        return [tl.cat(list(loader)).tolist() for _ in range(2)]

    first, second = epochs(0)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert epochs(0) == [first, second]
    assert epochs(1) != [first, second]
    tl.manual_seed(3)
    one = [x.item() for x in DataLoader(range(9), shuffle=True)]
    tl.manual_seed(3)
    assert [x.item() for x in DataLoader(range(9), shuffle=True)] == one


def test_no_batch_dimension_and_a_collate_function():
    assert list(DataLoader(range(3), None)) == [0, 1, 2]
    assert list(DataLoader(range(5), 2, collate_fn=sum)) == [1, 5, 4]
    with pytest.raises(ValueError, match="drop_last=True"):
        DataLoader(range(3), None, drop_last=True)


ITEMS = {
    "tensors": [np.ones(2, np.float32), np.zeros(2, np.float32)],
    "ints": [1, 2],
    "floats": [0.5, 1.5],
    "bools": [True, False],
    "texts": ["a", "b"],
    "tuples": [(1, "a"), (2, "b")],
    "lists": [[1, 2.0], [3, 4.0]],
    "dicts": [{"x": 1, "y": (2.0,)}, {"x": 3, "y": (4.0,)}],
    "named tuples": [Pair(1, 2.0), Pair(3, 4.0)],
    "NumPy scalars": [np.float32(1), np.float32(2)],
}


@pytest.mark.parametrize("name", ITEMS)
def test_collating_is_pytorchs(name):
    torch = pytest.importorskip("torch")
    data = pytest.importorskip("torch.utils.data")

    def plain(value):
        if isinstance(value, (tl.Tensor, torch.Tensor)):
            return str(value.dtype).removeprefix("torch."), value.tolist()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return (type(value), [plain(item) for item in value]) if isinstance(value, (list, tuple)) else value

    assert plain(default_collate(ITEMS[name])) == plain(data.default_collate(ITEMS[name]))


def test_random_split():
    dataset = Squares()
    parts = random_split(dataset, [7, 3], tl.Generator(0))
    assert [len(part) for part in parts] == [7, 3]
    assert sorted(part[i][1] for part in parts for i in range(len(part))) == [i * i for i in range(10)]
    assert [len(part) for part in random_split(dataset, [0.55, 0.25, 0.2])] == [6, 2, 2]
    again = random_split(dataset, [7, 3], tl.Generator(0))
    assert [part.indices for part in again] == [part.indices for part in parts]
    for lengths in ([5, 6], [0.5, 0.6], [-1, 11], [4.5, 5.5], []):
        with pytest.raises(ValueError, match="random_split: expected lengths"):
            random_split(dataset, lengths)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TensorDataset(), ValueError, "TensorDataset: expected at least one tensor"),
        (lambda: TensorDataset(tl.ones(2), tl.ones(3)), tl.ShapeError, "expected tensors of one length, got shapes"),
        (lambda: TensorDataset(tl.tensor(1.0)), tl.ShapeError, "TensorDataset"),
        (lambda: TensorDataset(np.ones(2)), TypeError, r"expected Tensors, got ndarray. Use tl.tensor\(...\)"),
        (lambda: DataLoader(3), TypeError, "expected a data set with __getitem__ and __len__, got int"),
        (lambda: DataLoader([1], 0), ValueError, "expected a batch_size of 1 or more, got 0"),
        (lambda: DataLoader([1], 1.5), TypeError, "batch_size"),
        (lambda: DataLoader([1], num_workers=2), ValueError, "expected num_workers=0, got 2"),
        (lambda: default_collate([object()]), TypeError, "got object. Pass collate_fn"),
        (lambda: default_collate([[1], [1, 2]]), tl.ShapeError, r"expected items of one length, got \[1, 2\]"),
        (lambda: Dataset()[0], NotImplementedError, "__getitem__"),
        (lambda: len(Dataset()), NotImplementedError, "__len__"),
    ],
)
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_subset_of_a_subset():
    assert Subset(Subset(list(range(10)), [5, 6, 7]), [2, 0])[0] == 7
