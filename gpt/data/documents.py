"""Documents kept apart: sequences that have the tokens of one document, or of several that do not see each other."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gpt.data.dataset import Batch, Dataset, Split
from gpt.data.packing import pack
from gpt.data.text import DataError
from gpt.tokenizer import Ids

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """The sequences of a split. Sequence k has the pieces order[first[k]], ..., order[first[k + 1] - 1].

    starts, lengths: of each piece, its first token and its number of targets, which is the context at most.
    """

    starts: Positions
    lengths: Positions
    order: Positions
    first: Positions


@dataclass(frozen=True)
class Documents(Dataset):
    """A data set whose sequences have tokens of single documents. Behind them are tokens 0 whose targets do not count.

    A document that is longer than the context has several sequences, each of which begins with the last token of the
    one before. Each token of a document is predicted exactly once in an epoch, except the first.

    source: the data set with the documents. packed: whether a sequence has as many documents as fit, each with
        attention and positions of its own. A batch then has a third array: which of them each token belongs to.
    """

    source: Dataset = field(kw_only=True)
    packed: bool = field(kw_only=True)
    cache: dict[tuple[Split, int], Rows] = field(default_factory=dict, kw_only=True, repr=False)

    @cached_property
    def digest(self) -> str:
        """Return a SHA-256 of the tokens of both splits, and of where their documents end."""
        sha = hashlib.sha256(self.source.digest.encode())
        for split in self.chars:
            sha.update(np.ascontiguousarray(self.borders(split)).data)
        return sha.hexdigest()

    def take(self, split: Split, starts: Positions, length: int) -> Ids:
        """Return `length` tokens from each of some places, (B, length), int64."""
        return self.source.take(split, starts, length)

    def rows(self, split: Split, block_size: int) -> Rows:
        """Return the sequences of a split, which are computed once."""
        key = (split, block_size)
        if key not in self.cache:
            starts, lengths = cut_documents(self.borders(split), block_size)
            if self.packed:
                order, first = pack(lengths, block_size)
            else:
                order, first = np.arange(len(lengths)), np.arange(len(lengths) + 1)
            self.cache[key] = Rows(starts, lengths, order, first)
        return self.cache[key]

    def count(self, split: Split, block_size: int) -> int:
        """Return the number of sequences in an epoch."""
        return len(self.rows(split, block_size).first) - 1

    def batch(self, rng: np.random.Generator, split: Split, batch_size: int, block_size: int) -> Batch:
        """Return random sequences."""
        return self.sequences(split, rng.integers(0, self.count(split, block_size), batch_size), block_size)

    def sequences(self, split: Split, numbers: Positions, block_size: int) -> Batch:
        """Return the sequences of an epoch with these numbers, as a batch."""
        rows = self.rows(split, block_size)
        x = np.zeros((len(numbers), block_size), np.int64)
        y, documents = np.full_like(x, -1), np.zeros_like(x)
        for row, number in enumerate(numbers):
            place = 0
            pieces = rows.order[rows.first[number] : rows.first[number + 1]]
            for i, piece in enumerate(pieces):
                length = int(rows.lengths[piece])
                tokens = self.take(split, rows.starts[piece : piece + 1], length + 1)[0]
                stop = place + length
                x[row, place:stop], y[row, place:stop], documents[row, place:stop] = tokens[:-1], tokens[1:], i
                place = stop
            documents[row, place:] = len(pieces)
        return (x, y, documents) if self.packed else (x, y)

    def windows(
        self, split: Split, batch_size: int, block_size: int, max_tokens: int | None = None
    ) -> Iterator[Batch]:
        """Yield all sequences in batches, or with `max_tokens` some of them, spread evenly."""
        chosen = self.chosen(split, block_size, max_tokens)
        for first in range(0, len(chosen), batch_size):
            yield self.sequences(split, chosen[first : first + batch_size], block_size)

    def predicted(self, split: Split, block_size: int, max_tokens: int | None = None) -> int:
        """Return the number of tokens that `windows` predicts."""
        rows, chosen = self.rows(split, block_size), self.chosen(split, block_size, max_tokens)
        ends = np.concatenate([[0], np.cumsum(rows.lengths[rows.order])])[rows.first]
        return int((ends[chosen + 1] - ends[chosen]).sum())

    def chosen(self, split: Split, block_size: int, max_tokens: int | None) -> Positions:
        """Return the sequences of an evaluation: all, or as many as have about `max_tokens`, one at least."""
        number, total = self.count(split, block_size), int(self.rows(split, block_size).lengths.sum())
        if max_tokens is None or max_tokens >= total:
            return np.arange(number)
        return np.linspace(0, number - 1, max(1, number * max_tokens // total)).astype(np.int64)

    def first_tokens(self, split: Split) -> Ids:
        """Return the tokens of a split that are never predicted: the first one of each document."""
        starts = np.concatenate([np.zeros(1, np.int64), self.borders(split)[:-1]])
        return self.tokens(split)[starts].astype(np.int64)

    def check_length(self, block_size: int, name: str, val_fraction: float) -> None:
        """Raise DataError if a split has no document of two tokens, except the validation split of val_fraction = 0."""
        splits: tuple[Split, Split] = ("train", "val")
        for split in splits:
            if not self.count(split, block_size) and (split == "train" or val_fraction):
                raise DataError(
                    f"{name!r} is too short: its {split} split has no document of 2 tokens or more. Use a longer text "
                    "(--data), or another fraction for validation (--val-fraction, 0 for none)"
                )


def separate(source: Dataset, packed: bool) -> Documents:
    """Return a data set whose sequences have tokens of single documents. packed: see `Documents`."""
    return Documents(
        source.tokenizer, source.train, source.val, source.chars, ends=source.ends, source=source, packed=packed
    )


def cut_documents(ends: Positions, block_size: int) -> tuple[Positions, Positions]:
    """Return the first token and the number of targets of each piece of documents, in order.

    ends: the position after the last token of each document. A document of L tokens has L - 1 targets.
    """
    begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
    targets = np.maximum(ends - begins - 1, 0)
    counts = -(-targets // block_size)  # pieces of each document
    document = np.repeat(np.arange(len(ends)), counts)
    offset = (np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)) * block_size
    return begins[document] + offset, np.minimum(targets[document] - offset, block_size)
