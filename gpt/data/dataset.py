"""A data set: the two encoded splits of a text, and the batches and windows cut from them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt import tokenizer as tokenizers
from gpt.config import DataConfig
from gpt.data.text import DataError, TextFile, open_text
from gpt.tokenizer import CharacterError, Ids, Tokenizer
from gpt.tokenizer.pieces import between_words

Split = Literal["train", "val"]


@dataclass(frozen=True)
class Dataset:
    """The two encoded splits of a text, and the tokenizer that encoded them.

    train, val: 1-d arrays of token ids, in the smallest unsigned type that holds the vocabulary. `val` is empty if the
        configuration has val_fraction = 0.
    chars: the number of characters of each split.
    """

    tokenizer: Tokenizer
    train: NDArray[np.unsignedinteger]
    val: NDArray[np.unsignedinteger]
    chars: dict[Split, int]

    @property
    def unit(self) -> str:
        """Return what a row of a batch is, in words before its number of tokens."""
        return "sequences of"

    def tokens(self, split: Split) -> NDArray[np.unsignedinteger]:
        """Return the token ids of a split, 1-d. Raises ValueError for another name."""
        if split not in ("train", "val"):
            raise ValueError(f"Dataset: expected the split 'train' or 'val', got {split!r:.80}")
        return {"train": self.train, "val": self.val}[split]

    def batch(
        self, rng: np.random.Generator, split: Split, batch_size: int, block_size: int
    ) -> tuple[Ids, Ids]:
        """Return `batch_size` windows from random positions: x and y, int64 (B, T), where y is x shifted by one."""
        tokens = self.tokens(split)
        starts = rng.integers(0, len(tokens) - block_size, size=(batch_size, 1))
        windows = tokens[starts + np.arange(block_size + 1)].astype(np.int64)
        return windows[:, :-1].copy(), windows[:, 1:].copy()

    def windows(
        self, split: Split, batch_size: int, block_size: int, max_tokens: int | None = None
    ) -> Iterator[tuple[Ids, Ids]]:
        """Yield non-overlapping windows in order, which predict each token except the first exactly once.

        Of N tokens, window k has x = tokens[kT : kT+T] and y shifted by one. Yields (x, y), int64, (B, T) with
        B <= batch_size, then one (1, r) if r = (N - 1) mod T targets are left. The targets add up to N - 1: the mean
        loss on the whole split is sum(loss * y.size) / (N - 1).

        max_tokens: predict this number of tokens at most, but one window at least. The windows are then spread evenly
            over the split.
        """
        tokens = self.tokens(split)
        whole, rest = divmod(len(tokens) - 1, block_size)
        chosen = np.arange(whole)
        if max_tokens is not None and max_tokens < len(tokens) - 1 and whole:
            chosen = np.linspace(0, whole - 1, min(whole, max(1, max_tokens // block_size))).astype(np.int64)
            rest = 0
        for first in range(0, len(chosen), batch_size):
            starts = chosen[first : first + batch_size, None] * block_size
            windows = tokens[starts + np.arange(block_size + 1)].astype(np.int64)  # (B, T + 1)
            yield windows[:, :-1], windows[:, 1:]
        if rest:
            last = tokens[-rest - 1 :].astype(np.int64)
            yield last[None, :-1], last[None, 1:]

    def predicted(self, split: Split, block_size: int, max_tokens: int | None = None) -> int:
        """Return the number of tokens that `windows` predicts."""
        total = len(self.tokens(split)) - 1
        if max_tokens is None or max_tokens >= total or total < block_size:
            return total
        return max(1, max_tokens // block_size) * block_size

    def bits_per_char(self, loss: float, split: Split = "val") -> float:
        """Return bits per character for a mean loss on a whole split in nats per token; it compares tokenizers.

        The result is loss / ln 2, times the number of predicted tokens (all except the first), divided by the number of
        characters that they hold. A character that spans several tokens counts where it ends.
        """
        tokens = self.tokens(split)
        given = len(self.tokenizer.decode_bytes([int(tokens[0])]).decode(errors="ignore"))
        return loss / math.log(2) * (len(tokens) - 1) / (self.chars[split] - given)


def load_text_dataset(config: DataConfig, block_size: int, tokenizer: Tokenizer | None = None) -> Dataset:
    """Load a text, split it (the first 90% of the characters train, by default) and encode both splits.

    The text is read in pieces, several times. So the memory is that of the tokens, and not of the whole text.

    tokenizer: an existing one, as for a resumed run; None makes one from `config`. A `char` tokenizer takes its
        vocabulary from the whole text, a `bpe` tokenizer learns from the training split.

    Raises DataError if a split is too short for a window of `block_size` tokens, except the validation split of
    val_fraction = 0. Raises TokenizerError, with the place in the file, if the tokenizer does not know a character.
    """
    text = open_text(config)
    length = sum(map(len, text.pieces()))
    cut = int(length * (1 - config.val_fraction))
    if tokenizer is None:
        tokenizer = tokenizers.build(text.pieces(), text.pieces(0, cut), config)
    ids = {"train": encode(text, 0, cut, tokenizer), "val": encode(text, cut, length, tokenizer)}
    for split, tokens in ids.items():
        if len(tokens) < block_size + 1 and (split == "train" or config.val_fraction):
            raise DataError(
                f"{config.dataset!r} is too short: its {split} split has {len(tokens)} tokens, and a context "
                f"of {block_size} tokens needs {block_size + 1}. Use a longer text (--data), a smaller "
                "context (--block-size), or another fraction for validation (--val-fraction, 0 for none)."
            )
    return Dataset(tokenizer, ids["train"], ids["val"], {"train": cut, "val": length - cut})


def encode(text: TextFile, start: int, stop: int, tokenizer: Tokenizer) -> NDArray[np.unsignedinteger]:
    """Return the tokens of the characters from `start` to `stop`, in the smallest unsigned type that holds them.

    Raises TokenizerError, with the place in the file, for a character outside the vocabulary.
    """
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    pieces = text.pieces(start, stop)
    ids, position = bytearray(), start
    for piece in pieces if tokenizer.by_character else between_words(pieces, tokenizer.cuts_before):
        try:
            ids += tokenizer.encode(piece).astype(dtype).tobytes()
        except CharacterError as error:
            position += error.position
            raise error.at(position, text.place(position)) from None
        position += len(piece)
    return np.frombuffer(ids, dtype) if ids else np.empty(0, dtype)
