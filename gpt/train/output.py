"""Print for people, in a way that a run survives the end of its reader."""

import os
import sys
from contextlib import suppress


def say(text: str, end: str = "\n") -> None:
    """Print text to stdout at once. If that fails, say so on stderr, and drop this and all further output.

    The reader may have ended (`train | head`) or the terminal may be closed. A run must not end with it.
    """
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        with suppress(OSError):
            silence()
        with suppress(OSError):
            print(
                f"Nobody reads the output any longer ({error.strerror}). Training goes on without it; Ctrl-C stops it.",
                file=sys.stderr,
                flush=True,
            )


def silence() -> None:
    """Connect stdout to nothing. What its buffer still holds would otherwise be an error at the end of the process."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, sys.stdout.fileno())
    finally:
        os.close(nothing)
