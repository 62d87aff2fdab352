"""The command line of `python -m gpt`."""

from gpt.cli.app import main

__all__ = ["main"]
