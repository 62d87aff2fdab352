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
    parser = argparse.ArgumentParser(
        COMMAND,
        description="List the chapters of docs/learn, and check their exercises.",
        epilog="Without a command: the list, and what to do next. For each chapter N: read its page, run `start N`, "
        "fill in the functions of chapter_N.py, and run `check N` until all are right.",
    )
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
            if not check(options.chapter, options.file):
                return 1
            if options.chapter + 1 in CHAPTERS:
                print(_begin(CHAPTERS[options.chapter + 1]))
        elif options.command == "start":
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
    """Return the list of the chapters, with what the files in a folder solve, and what to do next."""
    width = max(len(chapter.title) for chapter in CHAPTERS.values())
    rows, todo = [], ""
    for chapter in CHAPTERS.values():
        path = folder / chapter.file
        solved, state = _state(chapter, path)
        rows.append(f"{chapter.number}  {chapter.title:{width}}  {state}")
        if not solved and not todo:
            go_on = f"Next: fill in {chapter.file}, then run: {COMMAND} check {chapter.number}"
            todo = go_on if path.is_file() else _begin(chapter)
    return "\n".join([*rows, "", todo or "All exercises are right."])


def _begin(chapter: Chapter) -> str:
    """Return what to do to begin a chapter."""
    return f"Next: read {chapter.page}, then run: {COMMAND} start {chapter.number}"


def _state(chapter: Chapter, path: Path) -> tuple[bool, str]:
    """Return whether a file solves all exercises of a chapter, and in words how many."""
    if not path.is_file():
        return False, "not started"
    try:
        with redirect_stdout(io.StringIO()):  # what the learner's file prints is not part of the list
            results = verdicts(chapter, load_functions(path))
    except BrokenFileError:
        return False, f"{path.name} does not run; check {chapter.number} says why"
    right = sum(verdict.state == "right" for verdict in results)
    return right == len(results), f"{right} of {len(results)} right in {path.name}"
