"""A tokenizer with one token per character."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpt.config import DataConfig
from gpt.tokenizer.base import CharacterError, Ids, TokenizerError, check_text, check_token_ids, typed
from gpt.tokenizer.pieces import as_pieces


class CharTokenizer:
    """One token per character; `vocab` holds the characters in the order of their ids."""

    kind = "char"
    by_character = True
    cuts_before = ""
    special_tokens: Mapping[str, int] = MappingProxyType({})
    bos_id: int | None = None
    eos_id: int | None = None
    add_bos = False
    stop_ids: frozenset[int] = frozenset()
    chat_template: str | None = None

    def __init__(self, vocab: str) -> None:
        if not vocab:
            raise TokenizerError("a character vocabulary needs at least one character")
        if len(set(vocab)) != len(vocab):
            raise TokenizerError("a character vocabulary holds each character once")
        self.vocab = vocab
        self.vocab_size = len(vocab)
        codes = code_points(vocab)
        self._order = np.argsort(codes)
        self._sorted = codes[self._order]

    @classmethod
    def create(cls, text: Iterable[str], train_text: Iterable[str], config: DataConfig) -> Self:
        return cls.train(text)

    @classmethod
    def train(cls, text: Iterable[str]) -> Self:
        """Return a tokenizer for the characters of `text`, a string or pieces, in the order of their code points."""
        characters: set[str] = set()
        for piece in as_pieces(text):
            check_text(piece)
            characters.update(piece)
        return cls("".join(sorted(characters)))

    @classmethod
    def expected_vocab_size(cls, config: DataConfig) -> int | None:
        return None

    def encode(self, text: str, allow_special: bool = False) -> Ids:
        check_text(text)
        codes = code_points(text)
        # A binary search encodes a million characters in milliseconds; a dictionary needs a Python step for each.
        place = np.minimum(np.searchsorted(self._sorted, codes), self.vocab_size - 1)
        unknown = np.flatnonzero(self._sorted[place] != codes)
        if unknown.size:
            position = int(unknown[0])
            raise CharacterError(
                f"character {text[position]!r}",
                position,
                f"is not in the vocabulary of {self.vocab_size} characters. Leave it out, or use a model with a BPE, "
                "which encodes any text",
            )
        return self._order[place].astype(np.int64)

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        return self.decode(ids).encode()

    def decode(self, ids: Sequence[int] | Ids) -> str:
        return "".join(self.vocab[i] for i in check_token_ids(ids, self.vocab_size))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocab": self.vocab}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        try:
            return cls(typed(values, "vocab", str))
        except TokenizerError as error:
            raise TokenizerError(f"vocab: {error}") from None


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the Unicode code points of `text`, one per character. Raises TokenizerError for half a surrogate pair."""
    try:
        return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    except UnicodeEncodeError as error:
        raise TokenizerError(f"{text[error.start]!r} at position {error.start} is not a character") from None

