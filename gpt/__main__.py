"""The entry point of `python -m gpt` and of the command `tensorlite-gpt`."""

import sys


def main() -> None:
    """Run the command line, or exit with what to install."""
    try:
        import click  # noqa: F401
    except ImportError:
        sys.exit("Error: the gpt commands need some packages: pip install 'tensorlite[gpt,plot]'")
    from gpt.cli import main

    main(prog_name="python -m gpt")


if __name__ == "__main__":
    main()
