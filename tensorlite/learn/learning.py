"""The two functions for learners: `start` writes a file of exercises, `check` checks them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .chapters import chapter_of
from .exercises import Chapter
from .judging import Verdict, judge
from .learner_file import load_functions, write_new

__all__ = ["check", "report", "start", "verdicts"]


def start(chapter: int, file: str | os.PathLike[str] | None = None) -> Path:
    """Write the exercises of a chapter as functions without a body, and return the path of the file.

    file: ``chapter_N.py`` in the current folder if None. Raises FileExistsError if there is such a file, and ValueError
    if there is no such chapter.
    """
    found = chapter_of(chapter)
    path = Path(file or found.file)
    write_new(path, found.stubs())
    return path


def check(chapter: int, solutions: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> bool:
    """Check the exercises of a chapter, print what was found, and return whether all of them are right.

    solutions: a file, or the functions by name, such as ``globals()`` in a notebook; None is ``chapter_N.py`` in the
    current folder. Raises ValueError if there is no such chapter or the file does not run, and FileNotFoundError if
    there is no such file.
    """
    found = chapter_of(chapter)
    functions = solutions if isinstance(solutions, Mapping) else load_functions(Path(solutions or found.file))
    results = verdicts(found, functions)
    print(report(found, results))
    return all(verdict.state == "right" for verdict in results)


def verdicts(chapter: Chapter, functions: Mapping[str, Any]) -> list[Verdict]:
    """Return the verdict on each exercise of a chapter."""
    return [judge(exercise, functions.get(exercise.name)) for exercise in chapter.exercises]


def report(chapter: Chapter, results: list[Verdict]) -> str:
    """Return the verdicts as text."""
    lines = [f"chapter {chapter.number}: {chapter.title}", ""]
    width = max(len(verdict.name) for verdict in results)
    for verdict in results:
        lines += [f"{verdict.name:{width}}  {verdict.state}", *(f"    {line}" for line in verdict.lines)]
    right = sum(verdict.state == "right" for verdict in results)
    return "\n".join([*lines, "", f"{right} of {len(results)} right."])
