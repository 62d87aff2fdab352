"""The errors of a user: mistakes that the command line prints without a traceback, and missing packages."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake that the user can correct: the message names it and says what to do."""


@contextmanager
def extra(name: str = "gpt") -> Iterator[None]:
    """Context manager for the import of a package of an extra: without it, ModuleNotFoundError says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise ModuleNotFoundError(
            f"gpt needs the package {package}: pip install 'tensorlite[{name}]'", name=error.name
        ) from error
