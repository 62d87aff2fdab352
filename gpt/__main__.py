"""`python -m gpt`, and the command `tensorlite-gpt`."""

import sys


def main() -> None:
    try:
        import click  # noqa: F401
    except ImportError:
        sys.exit("Error: the gpt commands need some packages: pip install 'tensorlite[gpt,plot]'")
    from gpt.cli import main

    main(prog_name="python -m gpt")


if __name__ == "__main__":
    main()
