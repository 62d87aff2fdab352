"""`python -m gpt`."""

import sys

try:
    import click  # noqa: F401
except ImportError:
    sys.exit("Error: the gpt commands need some packages: pip install 'tensorlite[gpt,plot]'")

from gpt.cli import main

main(prog_name="python -m gpt")
