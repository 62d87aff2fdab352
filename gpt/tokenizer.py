"""Text to token ids and back: characters, GPT-2's byte-pair encoding, or one trained on the user's text.

A tokenizer is a small object that turns into JSON (`to_dict`) and back (`from_dict`), so that it travels with
a checkpoint as data; nothing is pickled.
"""

import codecs
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class TokenizerError(ValueError):
    """Text that a tokenizer cannot encode, or a tokenizer that cannot be made."""


class Tokenizer(Protocol):
    """What every tokenizer offers. Ids are 0 <= id < vocab_size."""

    kind: str
    vocab_size: int

    def encode(self, text: str) -> Ids:
        """Ids of `text`, a 1-d int64 array. Raises TokenizerError for text outside the vocabulary."""
        ...

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """The UTF-8 bytes of `ids`; a token may end inside a character. Raises TokenizerError for a bad id."""
        ...

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Everything `from_dict` needs, in types that JSON has."""
        ...


class StreamDecoder:
    """Decodes one token at a time and holds bytes back until they make a whole character.

    >>> out = StreamDecoder(tokenizer)
    >>> for token in tokens: print(out.push(token), end="", flush=True)
    >>> print(out.flush())
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that `token` completes; may be empty."""
        return self.decoder.decode(self.tokenizer.decode_bytes([token]))

    def flush(self) -> str:
        """What is left at the end: U+FFFD where a character was never completed, else nothing."""
        return self.decoder.decode(b"", final=True)


def from_dict(values: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `to_dict` described, for example out of a checkpoint. Raises TokenizerError."""
    raise NotImplementedError


def build(kind: str, text: str, bpe_vocab_size: int = 1024) -> Tokenizer:
    """A tokenizer for `text`: kind is `char`, `gpt2` (text plays no part) or `bpe` (trained on text)."""
    raise NotImplementedError
