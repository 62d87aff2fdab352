"""Cut a text into pieces, so that a large one is never encoded as a whole."""

import re
from collections.abc import Iterable, Iterator

# The last place where a word ends and a space, or a line break, follows. The first part is greedy, so it searches from
# the end.
LAST_WORD_END = {before: re.compile(rf"(?s:.*)\S(?=[{before}])") for before in (" ", " \n")}


def as_pieces(text: str | Iterable[str]) -> Iterable[str]:
    """Return the pieces of a text, which is one string or is in pieces already."""
    return [text] if isinstance(text, str) else text


def smaller_pieces(pieces: Iterable[str], size: int) -> Iterator[str]:
    """Yield the same text in pieces of `size` characters at most."""
    for piece in pieces:
        yield from (piece[i : i + size] for i in range(0, len(piece), size))


def between_words(pieces: Iterable[str], before: str = " \n", longest: int | None = None) -> Iterator[str]:
    """Yield the same text in pieces that end where a word ends and white space follows.

    before: the white space, a space and a line break, a space, or "" to yield the text as one piece.
    longest: a text without such a place is cut after this number of characters or some more, if given.

    The patterns of GPT-2 never let a token cross such a place, and do not look back over it. So a byte-pair encoding
    gives the pieces the same tokens as the whole text. Later patterns let a token hold punctuation and the line breaks
    after it: their texts are cut before spaces only. A text without white space is one piece.
    """
    if not before:
        if text := "".join(pieces):
            yield text
        return
    pattern, white = LAST_WORD_END[before], tuple(before)
    held: list[str] = []
    for piece in pieces:
        # The space that ends the last word may be the first character of this piece.
        if held and piece[:1] in white and not held[-1][-1].isspace():
            yield "".join(held)
            held = []
        end = found.end() if (found := pattern.match(piece)) else 0
        if end:
            yield "".join(held) + piece[:end]
            held = []
        if rest := piece[end:]:
            held.append(rest)
        if longest is not None and sum(map(len, held)) >= longest:
            yield "".join(held)
            held = []
    if held:
        yield "".join(held)
