"""A data set: the two encoded splits of a text, and the batches and windows cut from them."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt.config import DataConfig
from gpt.data.encoding import encode_pieces
from gpt.data.text import DataError, TextFile, open_text
from gpt.tokenizer import Ids, Tokenizer

Split = Literal["train", "val"]


# Inputs and targets, (B, T) each, int64; with packed documents also the number of the document of each input.
Batch = tuple[Ids, ...]


@dataclass(frozen=True)
class Dataset:
    """The two encoded splits of a text, and the tokenizer that encoded them.

    train, val: 1-d arrays of token ids, in the smallest unsigned type that holds the vocabulary. `val` is empty if the
        configuration has val_fraction = 0.
    chars: the number of characters of each split.
    ends: the position after the last token of each document of a split, int64; without it, a split is one document.
    """

    tokenizer: Tokenizer
    train: NDArray[np.unsignedinteger]
    val: NDArray[np.unsignedinteger]
    chars: dict[Split, int]
    ends: dict[Split, NDArray[np.int64]] = field(default_factory=dict, kw_only=True)

    @property
    def unit(self) -> str:
        """Return what a row of a batch is, in words before its number of tokens."""
        return "sequences of"

    @property
    def parts(self) -> "list[tuple[Dataset, float]]":
        """Return the data sets that this one takes its sequences from, and the share of each."""
        return [(self, 1.0)]

    @cached_property
    def digest(self) -> str:
        """Return a SHA-256 of the tokens of both splits."""
        sha = hashlib.sha256(self.train.data)
        sha.update(self.val.data)
        return sha.hexdigest()

    def tokens(self, split: Split) -> NDArray[np.unsignedinteger]:
        """Return the token ids of a split, 1-d. Raises ValueError for another name."""
        if split not in ("train", "val"):
            raise ValueError(f"Dataset: expected the split 'train' or 'val', got {split!r:.80}")
        return {"train": self.train, "val": self.val}[split]

    def size(self, split: Split) -> int:
        """Return the number of tokens of a split."""
        return len(self.tokens(split))

    def borders(self, split: Split) -> NDArray[np.int64]:
        """Return where each document of a split ends, in tokens, in order."""
        return self.ends.get(split, np.array([self.size(split)] if self.size(split) else [], np.int64))

    def take(self, split: Split, starts: NDArray[np.int64], length: int) -> Ids:
        """Return `length` tokens from each of some places, (B, length), int64."""
        return self.tokens(split)[starts[:, None] + np.arange(length)].astype(np.int64)

    def batch(self, rng: np.random.Generator, split: Split, batch_size: int, block_size: int) -> Batch:
        """Return `batch_size` windows from random positions: x and y, int64 (B, T), where y is x shifted by one."""
        starts = rng.integers(0, self.size(split) - block_size, size=(batch_size, 1))
        windows = self.take(split, starts[:, 0], block_size + 1)
        return windows[:, :-1].copy(), windows[:, 1:].copy()

    def count(self, split: Split, block_size: int) -> int:
        """Return the number of sequences in an epoch: windows that do not overlap. A shorter rest is left out."""
        return max(0, self.size(split) - 1) // block_size

    def sequences(self, split: Split, numbers: NDArray[np.int64], block_size: int) -> Batch:
        """Return the sequences of an epoch with these numbers, as a batch."""
        windows = self.take(split, numbers * block_size, block_size + 1)
        return windows[:, :-1].copy(), windows[:, 1:].copy()

    def windows(
        self, split: Split, batch_size: int, block_size: int, max_tokens: int | None = None
    ) -> Iterator[Batch]:
        """Yield non-overlapping windows in order, which predict each token except the first exactly once.

        Of N tokens, window k has x = tokens[kT : kT+T] and y shifted by one. Yields (x, y), int64, (B, T) with
        B <= batch_size, then one (1, r) if r = (N - 1) mod T targets are left. The targets add up to N - 1: the mean
        loss on the whole split is sum(loss * y.size) / (N - 1).

        max_tokens: predict this number of tokens at most, but one window at least. The windows are then spread evenly
            over the split.
        """
        total = self.size(split) - 1
        whole, rest = divmod(total, block_size)
        chosen = np.arange(whole)
        if max_tokens is not None and max_tokens < total and whole:
            chosen = np.linspace(0, whole - 1, min(whole, max(1, max_tokens // block_size))).astype(np.int64)
            rest = 0
        for first in range(0, len(chosen), batch_size):
            yield self.sequences(split, chosen[first : first + batch_size], block_size)
        if rest:
            last = self.take(split, np.array([total - rest]), rest + 1)
            yield last[:, :-1], last[:, 1:]

    def predicted(self, split: Split, block_size: int, max_tokens: int | None = None) -> int:
        """Return the number of tokens that `windows` predicts."""
        total = self.size(split) - 1
        if max_tokens is None or max_tokens >= total or total < block_size:
            return total
        return max(1, max_tokens // block_size) * block_size

    def first_tokens(self, split: Split) -> Ids:
        """Return the tokens of a split that are never predicted: the first one."""
        return self.take(split, np.zeros(1, np.int64), 1)[0]

    def bits_per_char(self, loss: float, split: Split = "val") -> float:
        """Return bits per character for a mean loss on a whole split in nats per token; it compares tokenizers.

        The result is loss / ln 2, times the number of predicted tokens (all except the first), divided by the number of
        characters that they hold. A character that spans several tokens counts where it ends.
        """
        first, times = np.unique(self.first_tokens(split), return_counts=True)
        given = sum(
            int(number) * len(self.tokenizer.decode_bytes([int(token)]).decode(errors="ignore"))
            for token, number in zip(first, times)
        )
        return loss / math.log(2) * (self.size(split) - int(times.sum())) / (self.chars[split] - given)

    def check_length(self, block_size: int, name: str, val_fraction: float) -> None:
        """Raise DataError if a split is too short for a window, except the validation split of val_fraction = 0."""
        splits: tuple[Split, Split] = ("train", "val")
        for split in splits:
            if self.size(split) < block_size + 1 and (split == "train" or val_fraction):
                raise DataError(
                    f"{name!r} is too short: its {split} split has {self.size(split)} tokens, and a context "
                    f"of {block_size} tokens needs {block_size + 1}. Use a longer text (--data), a smaller "
                    "context (--block-size), or another fraction for validation (--val-fraction, 0 for none)."
                )


@dataclass(frozen=True)
class PlainText:
    """A text that is to be encoded: the first characters are for training, the others for validation.

    length: the number of characters of both splits, cut: of the training split.
    """

    text: TextFile
    length: int
    cut: int

    def pieces(self) -> Iterator[str]:
        """Yield the whole text in pieces."""
        return self.text.pieces()

    def training_pieces(self) -> Iterator[str]:
        """Yield the training split in pieces."""
        return self.text.pieces(0, self.cut)

    def encode(self, tokenizer: Tokenizer) -> Dataset:
        """Return the tokens. Raises TokenizerError, with the place, if the tokenizer does not know a character."""
        train, val = encode(self.text, 0, self.cut, tokenizer), encode(self.text, self.cut, self.length, tokenizer)
        return Dataset(tokenizer, train, val, {"train": self.cut, "val": self.length - self.cut})


def open_plain_text(config: DataConfig) -> PlainText:
    """Return the text of a configuration with one data set, and where it is split. Raises the errors of `open_text`.

    The text is read in pieces, several times. So the memory is that of the tokens, and not of the whole text.
    """
    text = open_text(config)
    length = sum(map(len, text.pieces()))
    return PlainText(text, length, int(length * (1 - config.val_fraction)))


def encode(text: TextFile, start: int, stop: int, tokenizer: Tokenizer) -> NDArray[np.unsignedinteger]:
    """Return the tokens of the characters from `start` to `stop`, in the smallest unsigned type that holds them.

    Raises TokenizerError, with the place in the file, for a character outside the vocabulary.
    """
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    ids = encode_pieces(text.pieces(start, stop), tokenizer, dtype, start, text.place)
    return np.frombuffer(ids, dtype) if ids else np.empty(0, dtype)
