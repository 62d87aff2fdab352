"""Cut a text into pieces, so that a large one is never encoded as a whole."""

import re
from collections.abc import Iterable, Iterator

# The last place where a word ends and a space or a line break follows. The first part is greedy, so it searches from
# the end.
LAST_WORD_END = re.compile(r"(?s:.*)\S(?=[ \n])")


def as_pieces(text: str | Iterable[str]) -> Iterable[str]:
    """Return the pieces of a text, which is one string or is in pieces already."""
    return [text] if isinstance(text, str) else text


def smaller_pieces(pieces: Iterable[str], size: int) -> Iterator[str]:
    """Yield the same text in pieces of `size` characters at most."""
    for piece in pieces:
        yield from (piece[i : i + size] for i in range(0, len(piece), size))


def between_words(pieces: Iterable[str], longest: int | None = None) -> Iterator[str]:
    """Yield the same text in pieces that end where a word ends and white space follows.

    The patterns of GPT-2 never let a token cross such a place, and do not look back over it. So a byte-pair encoding
    gives the pieces the same tokens as the whole text. A text without white space is one piece.

    longest: cut a word where it has this number of characters, at the end of a given piece; None cuts no word.
    """
    held: list[str] = []
    for piece in pieces:
        # The space that ends the last word may be the first character of this piece.
        if held and piece[:1] in (" ", "\n") and not held[-1][-1].isspace():
            yield "".join(held)
            held = []
        end = found.end() if (found := LAST_WORD_END.match(piece)) else 0
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
