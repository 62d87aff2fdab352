"""The learner's file: written once with empty functions, and loaded to be checked."""

from __future__ import annotations

import linecache
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any, NoReturn

from .judging import TimeLimitError, line_of, time_limit

__all__ = ["BrokenFileError", "load_functions", "write_new"]


class BrokenFileError(ValueError):
    """A learner's file that does not run. The message has the line."""


class _UncachedLoader(SourceFileLoader):
    """A loader that neither reads nor writes bytecode, because a file that was saved twice in a second is new, too."""

    def path_stats(self, path: Any) -> NoReturn:
        raise OSError


def write_new(path: Path, text: str) -> None:
    """Write a file. Raises FileExistsError if there is one, and leaves it unchanged."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise FileExistsError(
            f"start: expected no file {path}, got one, and left it unchanged. Move it, or name another file."
        ) from None


def load_functions(path: Path) -> dict[str, Any]:
    """Run a learner's file, and return its names.

    Raises FileNotFoundError if there is no such file, ValueError if it is not a Python file, and BrokenFileError if it
    does not run.
    """
    if path.suffix != ".py":
        raise ValueError(f"check: expected a Python file, got {path}. Name a file that ends with .py.")
    if not path.is_file():
        raise FileNotFoundError(f"check: expected a file {path}, got none. Write it with the command start.")
    file = str(path.resolve())
    linecache.checkcache(file)
    name = f"learner_{path.stem}"
    loader = _UncachedLoader(name, file)
    spec = spec_from_loader(name, loader)
    assert spec is not None  # it is None only without a loader
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up the module of their class
    try:
        with time_limit():
            loader.exec_module(module)
    except (Exception, SystemExit, TimeLimitError) as error:
        what = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
        place = line_of(error, file) or path.name
        raise BrokenFileError(f"check: expected a file that runs, got {what}. Mend {place}") from None
    return vars(module)
