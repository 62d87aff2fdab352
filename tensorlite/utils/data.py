"""Datasets and batches of them, with the names of ``torch.utils.data``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ..dtypes import kind_of
from ..errors import ShapeError
from ..ops.shape import stack
from ..random import Generator
from ..scalars import as_number, int_in
from ..tensors.creation import randperm, tensor
from ..tensors.tensor import Tensor

__all__ = ["DataLoader", "Dataset", "Subset", "TensorDataset", "default_collate", "random_split"]

Item = TypeVar("Item", covariant=True)


class Dataset(Generic[Item]):
    """Base class of data sets: a subclass defines ``__getitem__`` for an integer, and ``__len__``.

    A list, or any object with these two methods, serves as well.
    """

    def __getitem__(self, index: int) -> Item:
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__(index)")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} does not define __len__()")


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """A data set of tensors of one length. Item i is the tuple of their rows i.

    Raises ShapeError for tensors of different lengths, ValueError without tensors.
    """

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise ValueError("TensorDataset: expected at least one tensor")
        for t in tensors:
            if not isinstance(t, Tensor):
                raise TypeError(f"TensorDataset: expected Tensors, got {type(t).__name__}. Use tl.tensor(...).")
        lengths = [len(t) if t.ndim else None for t in tensors]
        if None in lengths or len(set(lengths)) > 1:
            shapes = ", ".join(str(t.shape) for t in tensors)
            raise ShapeError(f"TensorDataset: expected tensors of one length, got shapes {shapes}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        """Return the rows at an index, or of several for a slice or a list."""
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class Subset(Dataset[Item]):
    """The part of a data set at some indices, in their order."""

    def __init__(self, dataset: Dataset[Item], indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index: int) -> Item:
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(
    dataset: Dataset[Item], lengths: Sequence[float], generator: Generator | None = None
) -> list[Subset[Item]]:
    """Return disjoint random parts of a data set.

    lengths: the sizes of the parts, which add up to that of the data set; or fractions that add up to 1. The items that
        rounding leaves over go to the first parts, one to each.
    generator: the source of the random order; None is the default generator.

    Raises ValueError for lengths that do not add up.
    """
    numbers, count = [as_number(x) for x in lengths], len(dataset)
    if any(x is None or x < 0 for x in numbers):
        raise ValueError(f"random_split: expected lengths of 0 or more, got {list(lengths)}")
    values: list[Any] = numbers
    if abs(sum(values) - 1) < 1e-6 and all(x <= 1 for x in values) and count != 1:
        sizes = [int(x * count) for x in values]
        for i in range(count - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = [int(x) for x in values]
        if sizes != values or sum(sizes) != count:
            raise ValueError(
                f"random_split: expected lengths that add up to {count}, the size of the data set, or fractions that "
                f"add up to 1, got {list(lengths)}"
            )
    order = randperm(count, generator=generator).tolist()
    ends = np.cumsum(sizes)
    return [Subset(dataset, order[end - size : end]) for size, end in zip(sizes, ends.tolist(), strict=True)]


def default_collate(batch: Sequence[Any]) -> Any:
    """Return the batch of a list of items: tensors are stacked along a new first dimension.

    NumPy arrays and scalars become tensors first; ints become int64, floats float64, bools bool. Items that are tuples,
    named tuples, lists or dicts are collated entry by entry, a tuple into a list. A list of texts stays what it is.

    Raises ShapeError for tensors of different shapes, TypeError for items that cannot be collated.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return stack(list(batch), 0)
    if isinstance(first, (np.ndarray, np.generic)) and kind_of(first.dtype) in "biufc":
        return stack([tensor(np.asarray(item)) for item in batch], 0)
    if isinstance(first, (bool, int)):
        return tensor(list(batch))
    if isinstance(first, float):
        return tensor(np.asarray(batch, np.float64))
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return {key: default_collate([item[key] for item in batch]) for key in first}
    if isinstance(first, (tuple, list)):
        if any(len(item) != len(first) for item in batch):
            raise ShapeError(f"default_collate: expected items of one length, got {sorted({len(i) for i in batch})}")
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    raise TypeError(
        f"default_collate: expected tensors, arrays, numbers, texts, tuples, lists or dicts, got "
        f"{type(first).__name__}. Pass collate_fn to the DataLoader."
    )


class DataLoader(Generic[Item]):
    """An iterable of the batches of a data set. Each ``for`` loop over it is an epoch.

    dataset: a Dataset, or any object with ``__getitem__`` and ``__len__``.
    batch_size: the number of items of a batch; None gives single items, without a batch dimension.
    shuffle: whether each epoch has an order of its own.
    collate_fn: makes a batch of a list of items; None is :func:`default_collate`.
    drop_last: whether an incomplete last batch is left out.
    generator: the source of the random order; None is the default generator.
    num_workers: 0; items are loaded by the thread that iterates.

    Raises ValueError for a batch size below 1, and for workers. The names are those of ``torch.utils.data``.
    """

    def __init__(
        self,
        dataset: Dataset[Item] | Sequence[Item],
        batch_size: int | None = 1,
        shuffle: bool = False,
        *,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        generator: Generator | None = None,
    ) -> None:
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise TypeError(
                f"DataLoader: expected a data set with __getitem__ and __len__, got {type(dataset).__name__}"
            )
        if num_workers != 0:
            raise ValueError(f"DataLoader: expected num_workers=0, got {num_workers!r}. There are no worker processes.")
        if batch_size is not None:
            batch_size = int_in("DataLoader", "batch_size", batch_size)
            if batch_size < 1:
                raise ValueError(f"DataLoader: expected a batch_size of 1 or more, got {batch_size}")
        elif drop_last:
            raise ValueError("DataLoader: expected a batch_size with drop_last=True, got None")
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.collate_fn, self.drop_last, self.generator = collate_fn, drop_last, generator

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        size = self.batch_size or 1
        return len(self.dataset) // size if self.drop_last else -(-len(self.dataset) // size)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of an epoch."""
        n = len(self.dataset)
        order = randperm(n, generator=self.generator).tolist() if self.shuffle else range(n)
        if self.batch_size is None:
            for i in order:
                yield self.dataset[i] if self.collate_fn is None else self.collate_fn(self.dataset[i])  # type: ignore[arg-type]
            return
        for k in range(len(self)):
            indices = order[k * self.batch_size : (k + 1) * self.batch_size]
            if self.collate_fn is None and type(self.dataset) is TensorDataset:
                yield list(self.dataset[list(indices)])  # one index for the batch is faster than one for each item
            else:
                yield (self.collate_fn or default_collate)([self.dataset[i] for i in indices])
