"""Several data sets that are trained on together: each sequence comes from one of them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gpt.data.dataset import Batch, Dataset, Split
from gpt.data.text import DataError
from gpt.tokenizer import Ids


@dataclass(frozen=True)
class Mixture(Dataset):
    """Several data sets of one tokenizer. `train` and `val` are empty arrays; the tokens are those of the sources.

    weights: the share of each source in the sequences of a batch. They add up to 1.
    """

    sources: tuple[Dataset, ...] = field(kw_only=True)
    weights: tuple[float, ...] = field(kw_only=True)

    @property
    def parts(self) -> list[tuple[Dataset, float]]:
        """Return the data sets that this one takes its sequences from, and the share of each."""
        return list(zip(self.sources, self.weights))

    @cached_property
    def digest(self) -> str:
        """Return a SHA-256 of the digests of all sources."""
        return hashlib.sha256(" ".join(source.digest for source in self.sources).encode()).hexdigest()

    def size(self, split: Split) -> int:
        """Return the number of tokens of a split."""
        return sum(source.size(split) for source in self.sources)

    def batch(self, rng: np.random.Generator, split: Split, batch_size: int, block_size: int) -> Batch:
        """Return random sequences, each from a source that is drawn by its weight."""
        usable = np.array([source.count(split, block_size) > 0 for source in self.sources])
        weights = np.where(usable, self.weights, 0.0)
        drawn = rng.choice(len(weights), batch_size, p=weights / weights.sum())
        parts = [
            (np.flatnonzero(drawn == i), source.batch(rng, split, int(np.count_nonzero(drawn == i)), block_size))
            for i, source in enumerate(self.sources)
            if np.any(drawn == i)
        ]
        return assemble(parts, batch_size)

    def windows(
        self, split: Split, batch_size: int, block_size: int, max_tokens: int | None = None
    ) -> Iterator[Batch]:
        """Yield the windows of all sources, one source after the other; `max_tokens` are shared by their sizes."""
        for source, share in zip(self.sources, self.shares(split, max_tokens)):
            if source.size(split) > 1:
                yield from source.windows(split, batch_size, block_size, share)

    def predicted(self, split: Split, block_size: int, max_tokens: int | None = None) -> int:
        """Return the number of tokens that `windows` predicts."""
        shares = self.shares(split, max_tokens)
        return sum(s.predicted(split, block_size, n) for s, n in zip(self.sources, shares) if s.size(split) > 1)

    def shares(self, split: Split, max_tokens: int | None) -> list[int | None]:
        """Return how many of `max_tokens` each source gets."""
        total = max(1, self.size(split))
        return [
            None if max_tokens is None else max(1, max_tokens * source.size(split) // total) for source in self.sources
        ]

    def first_tokens(self, split: Split) -> Ids:
        """Return the tokens of a split that are never predicted: the first ones of the sources."""
        return np.concatenate([source.first_tokens(split) for source in self.sources if source.size(split)])


def assemble(parts: Sequence[tuple[NDArray[np.int64], Batch]], batch_size: int) -> Batch:
    """Return one batch whose rows are those of several; each has the numbers of its rows in that batch."""
    return tuple(merge([(rows, batch[i]) for rows, batch in parts], batch_size) for i in range(len(parts[0][1])))


def merge(parts: Sequence[tuple[NDArray[np.int64], Ids]], batch_size: int) -> Ids:
    """Return an array (B, T) with the given rows."""
    result = np.empty((batch_size, parts[0][1].shape[1]), np.int64)
    for rows, values in parts:
        result[rows] = values
    return result


def mix(sources: Sequence[Dataset], names: Sequence[str], weights: float | Sequence[float] | None) -> Mixture:
    """Return the mixture of data sets of one tokenizer. weights: None for the numbers of their training tokens."""
    given = list(weights) if isinstance(weights, Sequence) else [source.size("train") for source in sources]
    total = sum(given)
    if not total:
        raise DataError(f"{', '.join(map(repr, names))} have no tokens to train on. Use longer texts (--data)")
    none = np.empty(0, np.uint8)
    splits: tuple[Split, Split] = ("train", "val")
    chars = {split: sum(source.chars[split] for source in sources) for split in splits}
    shares = tuple(weight / total for weight in given)
    return Mixture(sources[0].tokenizer, none, none, chars, sources=tuple(sources), weights=shares)
