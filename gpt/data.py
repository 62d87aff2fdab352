"""Text from a data set or a file, its split, and the batches and windows cut from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt.config import DataConfig
from gpt.tokenizer import Tokenizer

Split = Literal["train", "val"]
Ids = NDArray[np.int64]


class DataError(ValueError):
    """A text that is missing, not UTF-8, too short, or that could not be fetched."""


@dataclass(frozen=True)
class Dataset:
    """A text's two encoded splits, and the tokenizer that encoded them.

    train, val: 1-d arrays of token ids, in the smallest unsigned type that holds the vocabulary.
    chars: the number of characters of each split.
    """

    tokenizer: Tokenizer
    train: NDArray[np.unsignedinteger]
    val: NDArray[np.unsignedinteger]
    chars: dict[Split, int]

    def batch(self, rng: np.random.Generator, split: Split, batch_size: int, block_size: int) -> tuple[Ids, Ids]:
        """`batch_size` random windows: x and y, int64 (B, T), where y is x moved one token on."""
        raise NotImplementedError

    def windows(self, split: Split, batch_size: int, block_size: int) -> Iterator[tuple[Ids, Ids]]:
        """Non-overlapping windows in order, that predict every token of the split but the first exactly once.

        For a split of N tokens, window k has x = tokens[kT : kT+T] and y one token on. Yields (x, y), int64,
        (B, T) with B <= batch_size, and at the end one (1, r) for the r < T targets that are left. The targets
        sum to N - 1, so the mean loss over the split is sum(loss * y.size) / (N - 1).
        """
        raise NotImplementedError

    def bits_per_char(self, loss: float, split: Split = "val") -> float:
        """A mean loss in nats a token, over a whole split, as bits a character: comparable across tokenizers.

        loss / ln 2 times the tokens predicted (all but the first) over the characters they hold.
        """
        raise NotImplementedError


def load_text(config: DataConfig) -> str:
    """The whole text of `config.dataset`. Raises DataError."""
    raise NotImplementedError


def load_dataset(config: DataConfig, block_size: int, tokenizer: Tokenizer | None = None) -> Dataset:
    """Loads, splits (first 90% of characters train, the rest validates) and encodes the text.

    tokenizer: one that exists already, as on resuming; else one is built as `config` says, from the whole text
    (nanoGPT too takes its vocabulary from both splits). Raises DataError if a split is too short for one
    window of `block_size` tokens, and TokenizerError for text outside the given tokenizer's vocabulary.
    """
    raise NotImplementedError
