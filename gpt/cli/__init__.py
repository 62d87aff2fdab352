"""The command line of `python -m gpt`."""

from gpt.errors import extra

with extra():
    import click  # noqa: F401

from gpt.cli.app import main

__all__ = ["main"]
