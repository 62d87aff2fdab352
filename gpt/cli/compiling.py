"""One line for the user while kernels are compiled, which takes several seconds without other output."""

import logging
import sys

import click

MESSAGE = "Compiling the kernels; this happens once after an installation and takes about 15 seconds."


class FirstMessage(logging.Handler):
    """A handler that prints MESSAGE to stderr for the first record of a logger."""

    def __init__(self) -> None:
        super().__init__()
        self.printed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message, once."""
        if not self.printed:
            self.printed = True
            click.echo(MESSAGE, err=True)


def announce_compilation() -> None:
    """Print a line when tensorlite compiles its first kernel in this process, if stderr is a terminal."""
    logger = logging.getLogger("tensorlite.compiled")
    if sys.stderr is not None and sys.stderr.isatty() and not logger.handlers:
        logger.addHandler(FirstMessage())
        logger.setLevel(logging.INFO)
        logger.propagate = False  # The program's other handlers would print the names of functions.
