"""A data set: the two encoded splits of a text, and the batches and windows cut from them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt import tokenizer as tokenizers
from gpt.config import DataConfig
from gpt.data.text import DataError, load_text
from gpt.tokenizer import Ids, Tokenizer

Split = Literal["train", "val"]


@dataclass(frozen=True)
class Dataset:
    """The two encoded splits of a text, and the tokenizer that encoded them.

    train, val: 1-d arrays of token ids, in the smallest unsigned type that holds the vocabulary.
    chars: the number of characters of each split.
    """

    tokenizer: Tokenizer
    train: NDArray[np.unsignedinteger]
    val: NDArray[np.unsignedinteger]
    chars: dict[Split, int]

    def tokens(self, split: Split) -> NDArray[np.unsignedinteger]:
        """Return the token ids of a split, 1-d."""
        return {"train": self.train, "val": self.val}[split]

    def batch(
        self, rng: np.random.Generator, split: Split, batch_size: int, block_size: int
    ) -> tuple[Ids, Ids]:
        """Return `batch_size` windows from random positions: x and y, int64 (B, T), where y is x shifted by one."""
        tokens = self.tokens(split)
        starts = rng.integers(0, len(tokens) - block_size, size=(batch_size, 1))
        windows = tokens[starts + np.arange(block_size + 1)].astype(np.int64)
        return windows[:, :-1].copy(), windows[:, 1:].copy()

    def windows(self, split: Split, batch_size: int, block_size: int) -> Iterator[tuple[Ids, Ids]]:
        """Yield non-overlapping windows in order, which predict each token except the first exactly once.

        Of N tokens, window k has x = tokens[kT : kT+T] and y shifted by one. Yields (x, y), int64, (B, T) with
        B <= batch_size, then one (1, r) if r = (N - 1) mod T targets are left. The targets add up to N - 1: the mean
        loss on the whole split is sum(loss * y.size) / (N - 1).
        """
        tokens = self.tokens(split).astype(np.int64)
        whole, rest = divmod(len(tokens) - 1, block_size)
        x = tokens[: whole * block_size].reshape(whole, block_size)
        y = tokens[1 : whole * block_size + 1].reshape(whole, block_size)
        for first in range(0, whole, batch_size):
            yield x[first : first + batch_size], y[first : first + batch_size]
        if rest:
            yield tokens[None, -rest - 1 : -1], tokens[None, -rest:]

    def bits_per_char(self, loss: float, split: Split = "val") -> float:
        """Return bits per character for a mean loss on a whole split in nats per token; it compares tokenizers.

        The result is loss / ln 2, times the number of predicted tokens (all except the first), divided by the number of
        characters that they hold. A character that spans several tokens counts where it ends.
        """
        tokens = self.tokens(split)
        given = len(self.tokenizer.decode_bytes([int(tokens[0])]).decode(errors="ignore"))
        return loss / math.log(2) * (len(tokens) - 1) / (self.chars[split] - given)


def load_dataset(config: DataConfig, block_size: int, tokenizer: Tokenizer | None = None) -> Dataset:
    """Load a text, split it (the first 90% of the characters train, by default) and encode both splits.

    tokenizer: an existing one, as for a resumed run; None makes one from `config`. A `char` tokenizer takes its
        vocabulary from the whole text, a `bpe` tokenizer learns from the training split.

    Raises DataError if a split is too short for a window of `block_size` tokens, and TokenizerError if the tokenizer
    does not know a character.
    """
    text = load_text(config)
    cut = int(len(text) * (1 - config.val_fraction))
    parts: dict[Split, str] = {"train": text[:cut], "val": text[cut:]}
    if tokenizer is None:
        tokenizer = tokenizers.build(text, parts["train"], config)
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    ids = {split: tokenizer.encode(part).astype(dtype) for split, part in parts.items()}
    for split, tokens in ids.items():
        if len(tokens) < block_size + 1:
            raise DataError(
                f"{config.dataset!r} is too short: its {split} split has {len(tokens)} tokens, and a context "
                f"of {block_size} tokens needs {block_size + 1}. Use a longer text (--data), a smaller "
                "context (--block-size), or another fraction for validation (--val-fraction)."
            )
    chars: dict[Split, int] = {split: len(part) for split, part in parts.items()}
    return Dataset(tokenizer, ids["train"], ids["val"], chars)
