"""The command ``python -m tensorlite.learn``."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from .chapters import CHAPTERS
from .exercises import Chapter
from .learner_file import BrokenFileError, load_functions
from .learning import check, start, verdicts

__all__ = ["main"]

COMMAND = "python -m tensorlite.learn"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status.

    It is 0, or 1 if an exercise is not right, 2 after an error, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(COMMAND, description="List the chapters of docs/learn, and check their exercises.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in (
        ("list", "list the chapters, and what is solved in this folder"),
        ("start", "write a file with the exercises of a chapter as empty functions"),
        ("check", "check the exercises of a chapter"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name != "list":
            command.add_argument("chapter", type=int, metavar="N", help="the number of the chapter")
            command.add_argument("file", nargs="?", metavar="FILE", help="instead of chapter_N.py in this folder")
    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            return 0 if check(options.chapter, options.file) else 1
        if options.command == "start":
            path = start(options.chapter, options.file)
            named = f" {path}" if options.file else ""
            print(f"Wrote {path}. Fill in its functions, then run: {COMMAND} check {options.chapter}{named}")
        else:
            print(overview(Path()))
    except (OSError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    return 0


def overview(folder: Path) -> str:
    """Return the list of the chapters, with what the files in a folder solve."""
    width = max(len(chapter.title) for chapter in CHAPTERS.values())
    rows = [f"{c.number}  {c.title:{width}}  {_state(c, folder / c.file)}" for c in CHAPTERS.values()]
    return "\n".join([*rows, "", f"The pages are in docs/learn. Begin one with: {COMMAND} start N"])


def _state(chapter: Chapter, path: Path) -> str:
    """Return how many exercises of a chapter a file solves, in words."""
    if not path.is_file():
        return "not started"
    try:
        with redirect_stdout(io.StringIO()):  # what the learner's file prints is not part of the list
            results = verdicts(chapter, load_functions(path))
    except BrokenFileError:
        return f"{path.name} does not run; check {chapter.number} says why"
    right = sum(verdict.state == "right" for verdict in results)
    return f"{right} of {len(results)} right in {path.name}"
