"""The entry point of `python -m gpt` and of the command `tensorlite-gpt`."""

import os
import sys


def main() -> None:
    """Run the command line, or exit with what to install."""
    open_closed_streams()
    try:
        import click  # noqa: F401
    except ImportError:
        sys.exit("Error: the gpt commands need some packages: pip install 'tensorlite[gpt,plot]'")
    from gpt.cli import main

    main(prog_name="python -m gpt")


def open_closed_streams() -> None:
    """Connect each standard stream that the process began without to nothing.

    Python then has None for it. The next file that opens would get its number, and so its output (`2>&-` of a shell).
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # The lowest free number, which is that of the stream.


if __name__ == "__main__":
    main()
