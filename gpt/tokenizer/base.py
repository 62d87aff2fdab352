"""The interface of a tokenizer."""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpt.config import DataConfig
from gpt.errors import UserError, short

Ids = NDArray[np.int64]

T = TypeVar("T")


class TokenizerError(UserError, ValueError):
    """Text that a tokenizer cannot encode, ids that it cannot decode, or a tokenizer that cannot be made."""


class TokenError(TokenizerError):
    """Token ids that cannot be used: too few, or outside the vocabulary."""


class CharacterError(TokenizerError):
    """A character that a tokenizer cannot encode, at `position` in its text, counted from 0."""

    def __init__(self, what: str, position: int, then: str, place: str = "") -> None:
        super().__init__(f"{what} at position {position}{place and f' ({place})'} {then}")
        self.what, self.position, self.then = what, position, then

    def at(self, position: int, place: str) -> "CharacterError":
        """Return the same error about a longer text, with the position and the place in that."""
        return CharacterError(self.what, position, self.then, place)


class Tokenizer(Protocol):
    """A reversible map between text and token ids, which are 0 <= id < vocab_size.

    It turns into JSON (`to_dict`) and back (`from_dict`), so that a checkpoint can store it; nothing is pickled.
    """

    kind: str
    """The name of its class in `gpt.config.TOKENIZERS`."""
    vocab_size: int
    by_character: bool
    """Whether each character is encoded alone. Otherwise a long text is encoded in pieces of whole words."""
    cuts_before: str
    """The characters of white space before which a text may be cut, after a word, without a change of its ids."""
    special_tokens: Mapping[str, int]
    """The ids of the special tokens by their text, such as the end of a text or of a turn."""
    bos_id: int | None
    """The id of the token that begins a text, if there is one."""
    eos_id: int | None
    """The id of the token that ends a text, if there is one. It is one of `stop_ids`."""
    add_bos: bool
    """Whether the model wants `bos_id` before a text. `encode` never adds it; `prompt_ids` does."""
    stop_ids: frozenset[int]
    """The ids of the tokens that end a text or a turn. Generation stops there."""
    chat_template: str | None
    """The Jinja template that makes one text out of the messages of a conversation, if there is one."""

    @classmethod
    def create(cls, text: Iterable[str], train_text: Iterable[str], config: DataConfig) -> Self:
        """Return a new tokenizer for `text`.

        text: a string, or a text in pieces, which can be read once.
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

    def encode(self, text: str, allow_special: bool = False) -> Ids:
        """Return the ids of `text`, a 1-d int64 array. Raises TokenizerError for text outside the vocabulary.

        allow_special: whether the text of a special token becomes that token. Leave it False for what a user types.
        """
        ...

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """Return the UTF-8 bytes of `ids`; a token may end inside a character. Raises TokenError for a bad id.

        The bytes of several ids are those of each id, joined. So a text can be written while its ids arrive.
        """
        ...

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD. Raises TokenError for a bad id.

        Some tokenizers put a space before a text. `decode` removes it, `decode_bytes` does not.
        """
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
    """Return `ids` as a 1-d int64 array, or raise TokenError if they are not ids, or one is outside the vocabulary.

    ids: integers of one sequence, (T,) or (1, T), in a list, an array or a Tensor. Booleans and 1.0 are not integers.

    The check is needed on a GPU in particular, where an id outside the vocabulary reads the embedding of another token.
    """
    if type(ids) is list and len(ids) == 1 and type(ids[0]) is int and 0 <= ids[0] < vocab_size:
        return np.array(ids, np.int64)  # The text of each generated token comes here, so this case is fast.
    if isinstance(ids, str | bytes):
        raise TokenError(
            f"expected token ids, which are integers, got the text {short(ids)}. Encode it: tokenizer.encode(text)"
        )
    if isinstance(ids, np.ma.MaskedArray):
        raise TokenError("expected token ids, got an array with a mask, which would be lost. Pass ids.compressed()")
    values = to_array(ids)
    if values.size and values.dtype.kind not in "iu":
        raise TokenError(f"expected token ids, which are integers, got {short(ids)} ({values.dtype})")
    if values.ndim > 2 or (values.ndim == 2 and len(values) != 1):
        raise TokenError(f"expected the token ids of one sequence, (T,), got the shape {values.shape}")
    values = values.reshape(-1)
    tokens = values.astype(np.int64)
    bad = np.flatnonzero((tokens < 0) | (tokens >= vocab_size))
    if bad.size:
        raise TokenError(
            f"token id {values[bad[0]]} at position {bad[0]} is outside the vocabulary of {vocab_size} tokens"
        )
    return tokens


def to_array(ids: Any) -> NDArray[Any]:
    """Return token ids as an array of the type that they have. Raises TokenError if they are not numbers."""
    try:
        # A Tensor on a GPU does not convert itself. A list of booleans would, mixed with integers.
        values = np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)
    except (TypeError, ValueError, OverflowError):
        raise TokenError(f"expected token ids, which are integers, got {short(ids)}") from None
    if values.dtype.kind == "O" and all(type(value) is int for value in values.reshape(-1)):
        raise TokenError(f"token id {max(values.reshape(-1), key=abs):.3g} is outside every vocabulary")
    if isinstance(ids, list | tuple) and any(isinstance(value, bool | np.bool_) for value in ids):
        raise TokenError(f"expected token ids, which are integers, got the boolean in {short(ids)}")
    return values


def check_text(text: object) -> None:
    """Raise TokenizerError unless `text` is a string."""
    if not isinstance(text, str):
        hint = ". Decode it: text.decode()" if isinstance(text, bytes) else ""
        raise TokenizerError(f"expected a text (str), got {type(text).__name__} {short(text)}{hint}")


def check_characters(text: str) -> None:
    """Raise TokenizerError if `text` holds half a surrogate pair, which is not a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(f"{text[error.start]!r} at position {error.start} is not a character") from None


def prompt_ids(tokenizer: Tokenizer, text: str, allow_special: bool = False) -> Ids:
    """Return the ids of a text that begins a context: those of `encode`, after `bos_id` if the model wants it.

    A text that begins with that token itself, which needs `allow_special`, gets no second one.
    """
    ids = tokenizer.encode(text, allow_special)
    if not tokenizer.add_bos or tokenizer.bos_id is None or (ids.size and ids[0] == tokenizer.bos_id):
        return ids
    return np.concatenate([np.array([tokenizer.bos_id], np.int64), ids])


def start_ids(tokenizer: Tokenizer) -> Ids:
    """Return the ids to generate from without a prompt.

    It is the token that begins a text; else a line break, or token 0 if the vocabulary has none.
    """
    if tokenizer.bos_id is not None:
        return np.array([tokenizer.bos_id], np.int64)
    try:
        return tokenizer.encode("\n")
    except TokenizerError:
        return np.zeros(1, np.int64)


def same_tokens(one: Tokenizer, other: Tokenizer) -> bool:
    """Return whether two tokenizers have the same bytes for each id, whatever their classes are."""
    size = one.vocab_size
    return size == other.vocab_size and all(
        one.decode_bytes([token]) == other.decode_bytes([token]) for token in range(size)
    )
