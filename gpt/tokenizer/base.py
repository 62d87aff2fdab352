"""The interface of a tokenizer."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpt.config import DataConfig
from gpt.errors import UserError

Ids = NDArray[np.int64]

T = TypeVar("T")


class TokenizerError(UserError, ValueError):
    """Text that a tokenizer cannot encode, ids that it cannot decode, or a tokenizer that cannot be made."""


class TokenError(TokenizerError):
    """Token ids that cannot be used: too few, or outside the vocabulary."""


class Tokenizer(Protocol):
    """A reversible map between text and token ids, which are 0 <= id < vocab_size.

    It turns into JSON (`to_dict`) and back (`from_dict`), so that a checkpoint can store it; nothing is pickled.
    """

    kind: str
    """The name of its class in `gpt.config.TOKENIZERS`."""
    vocab_size: int

    @classmethod
    def create(cls, text: str, train_text: str, config: DataConfig) -> Self:
        """Return a new tokenizer for `text`.

        train_text: the training split of `text`. A tokenizer that learns statistics learns them from this only.
        Raises TokenizerError, and DownloadError if it needs files.
        """
        ...

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the tokenizer that `to_dict` described."""
        ...

    @classmethod
    def expected_vocab_size(cls, config: DataConfig) -> int | None:
        """Return the vocabulary size that `create` is going to give, or None if it depends on the text."""
        ...

    def encode(self, text: str) -> Ids:
        """Return the ids of `text`, a 1-d int64 array. Raises TokenizerError for text outside the vocabulary."""
        ...

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """Return the UTF-8 bytes of `ids`; a token may end inside a character. Raises TokenError for a bad id."""
        ...

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD. Raises TokenError for a bad id."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return everything that `from_dict` needs, in types that JSON has."""
        ...


def typed(values: Mapping[str, Any], key: str, kind: type[T]) -> T:
    """Return `values[key]`. Raises TokenizerError if it is missing or not of the type `kind`."""
    if not isinstance(values, Mapping) or key not in values:
        raise TokenizerError(f"this is not the description of a tokenizer: {key!r} is missing")
    value = values[key]
    if type(value) is not kind:
        raise TokenizerError(f"{key} is of another type: expected {kind.__name__}, got {reprlib.repr(value)}")
    return value


def check_token_ids(ids: Sequence[int] | Ids, vocab_size: int) -> Ids:
    """Return `ids` as a 1-d int64 array, or raise TokenError if one is outside the vocabulary.

    The check is needed on a GPU in particular, where an id outside the vocabulary reads the embedding of another token.
    """
    tokens = np.asarray(ids, dtype=np.int64).reshape(-1)
    bad = np.flatnonzero((tokens < 0) | (tokens >= vocab_size))
    if bad.size:
        raise TokenError(
            f"token id {tokens[bad[0]]} at position {bad[0]} is outside the vocabulary of {vocab_size} tokens"
        )
    return tokens


def start_ids(tokenizer: Tokenizer) -> Ids:
    """Return the ids to generate from without a prompt: a line break, or token 0 if the vocabulary has none."""
    try:
        return tokenizer.encode("\n")
    except TokenizerError:
        return np.zeros(1, np.int64)
