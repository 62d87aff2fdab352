"""The errors of a user: mistakes that the command line prints without a traceback, and missing packages."""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Values in messages are cut, because a file or a text may be of any length.
_CUT = reprlib.Repr()
_CUT.maxstring = _CUT.maxother = 80


class UserError(Exception):
    """A mistake that the user can correct: the message names it and says what to do."""


def short(value: Any) -> str:
    """Return a value for a message, cut if it is long."""
    return _CUT.repr(value)


@contextmanager
def extra() -> Iterator[None]:
    """Context manager for the import of a package of the extra gpt. Its ModuleNotFoundError says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise ModuleNotFoundError(
            f"gpt needs the package {package}: pip install 'tensorlite[gpt]'", name=error.name
        ) from error
