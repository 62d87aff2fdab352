"""Encode a text that comes in pieces."""

from collections.abc import Callable, Iterable

import numpy as np

from gpt.tokenizer import CharacterError, Tokenizer
from gpt.tokenizer.pieces import between_words

__all__ = ["encode_pieces", "separable_pieces"]


def separable_pieces(pieces: Iterable[str], tokenizer: Tokenizer) -> Iterable[str]:
    """Return the same text in pieces whose tokens are those of the whole text."""
    return pieces if tokenizer.by_character else between_words(pieces, tokenizer.cuts_before)


def encode_pieces(
    pieces: Iterable[str], tokenizer: Tokenizer, dtype: np.dtype[np.unsignedinteger], position: int,
    place: Callable[[int], str],
) -> bytearray:  # fmt: skip
    """Return the tokens of a text as bytes of a dtype.

    position: that of the first character in its file. place: returns a position of the file in words.

    Raises CharacterError, with the place in the file, for a character outside the vocabulary.
    """
    ids = bytearray()
    for piece in separable_pieces(pieces, tokenizer):
        try:
            ids += tokenizer.encode(piece).astype(dtype).tobytes()
        except CharacterError as error:
            position += error.position
            raise error.at(position, place(position)) from None
        position += len(piece)
    return ids
