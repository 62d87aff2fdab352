"""Show generated text on a terminal, which would obey the control characters in it.

A vocabulary comes with a checkpoint, and so from anybody. An escape sequence in it could clear the screen, change the
title of the window or write over earlier lines.
"""

import re
import sys
import time
from collections.abc import Iterable, Iterator

# Control characters (the Unicode category Cc), except tab and line feed. A line feed may follow a carriage return.
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")


class ControlEscaper:
    """A function that escapes control characters in pieces of text, and remembers in `used` whether there were any."""

    used = False

    def __call__(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield the pieces with each control character as Python writes it, such as `\\x1b`."""
        held = ""
        for piece in pieces:
            text = held + piece
            held = "\r" if text.endswith("\r") else ""  # The next piece decides what it is.
            yield self.escape(text.removesuffix("\r") if held else text)
        if held:
            yield self.escape(held)

    def escape(self, text: str) -> str:
        """Return a text with its control characters escaped."""
        result, count = CONTROLS.subn(lambda match: ascii(match[0])[1:-1], text)
        self.used = self.used or count > 0
        return result


def gather(pieces: Iterable[str], seconds: float = 0.2) -> Iterator[str]:
    """Yield the pieces of a text, joined to one piece for each 0.2 seconds.

    A notebook shows each piece that is printed as an output of its own. After Ctrl-C the rest is yielded first.
    """
    held: list[str] = []
    until = time.monotonic() + seconds
    try:
        for piece in pieces:
            held.append(piece)
            if time.monotonic() >= until:
                yield "".join(held)
                held, until = [], time.monotonic() + seconds
    except KeyboardInterrupt:
        yield "".join(held)
        raise
    if held:
        yield "".join(held)


def on_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()
