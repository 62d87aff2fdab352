"""Call a learner's function, and say in words what is wrong with it.

Whatever the function does is a verdict: a wrong value, an exception of its own, a loop that does not end.
"""

from __future__ import annotations

import copy
import io
import linecache
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from .comparing import difference, show
from .exercises import Exercise

__all__ = ["TimeLimitError", "Verdict", "judge", "line_of", "time_limit"]

SECONDS = 5.0
"""The time in seconds after which a call of a learner's function, or the run of a learner's file, is ended."""


@dataclass(frozen=True)
class Verdict:
    """What the check of one exercise found: a state, and the lines that explain it."""

    name: str
    state: Literal["right", "wrong", "not written"]
    lines: tuple[str, ...] = ()


class TimeLimitError(BaseException):
    """The end of a call that took too long. An `except Exception` in the learner's code must not catch it."""


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise TimeLimitError at the next line of Python code that runs after SECONDS. A debugger turns the limit off."""
    if sys.gettrace() is not None:
        yield
        return
    end = time.monotonic() + SECONDS

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if time.monotonic() > end:
            raise TimeLimitError(f"it did not end within {SECONDS:g} seconds")
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


def judge(exercise: Exercise, function: object) -> Verdict:
    """Return what a learner's function does wrong in its first wrong call. None is a function that is missing."""

    def wrong(*lines: str) -> Verdict:
        return Verdict(exercise.name, "wrong", lines)

    if function is None:
        return wrong(f"There is no function {exercise.name}. Write `def {exercise.signature}:`.")
    if not callable(function):
        return wrong(f"{exercise.name} is {show(function)}, not a function. Write `def {exercise.signature}:`.")
    for arguments in exercise.calls:
        call = f"{exercise.name}({', '.join(map(show, arguments))})"
        expected, wanted_error = _call(exercise.solution, arguments)
        got, error = _call(function, arguments)
        if isinstance(error, NotImplementedError):
            return Verdict(exercise.name, "not written")
        wanted = f"a {type(wanted_error).__name__}" if wanted_error else show(expected)
        if wanted_error is not None and type(error) is type(wanted_error):
            continue
        if error is not None:
            return wrong(call, f"expected: {wanted}", *_error_lines(exercise, function, error))
        if wanted_error is not None:
            problem: str | None = f"This call has no answer: {wanted_error}."
        else:
            problem = difference(expected, got, exercise.tolerance, exercise.parts)
        if problem is not None:
            hint = f"Hint: {_hint(exercise, function, arguments)}"
            return wrong(call, f"expected: {wanted}", f"got:      {show(got)}", problem, hint)
    return Verdict(exercise.name, "right")


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    """Return what a function returns for copies of the arguments, and None; or None, and what it raised."""
    try:
        with time_limit():
            return function(*copy.deepcopy(arguments)), None
    except (Exception, SystemExit, TimeLimitError) as error:
        return None, error


def _hint(exercise: Exercise, function: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    """Return the hint of the mistake that does the same in every call, or in this one, or else that of the exercise."""
    every_call, this_call = (_hint_of(exercise, function, calls) for calls in (exercise.calls, (arguments,)))
    return every_call or this_call or exercise.hint


def _hint_of(exercise: Exercise, function: Callable[..., Any], calls: tuple[tuple[Any, ...], ...]) -> str | None:
    """Return the hint of the first mistake that does the same in some calls."""
    with redirect_stdout(io.StringIO()):  # the learner has already seen what the function prints
        for mistake in exercise.mistakes:
            if all(_does_the_same(exercise, mistake.function, function, call) for call in calls):
                return mistake.hint
    return None


def _does_the_same(
    exercise: Exercise, mistake: Callable[..., Any], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> bool:
    """Return whether two functions return the same, or both raise."""
    (expected, wanted_error), (got, error) = _call(mistake, arguments), _call(function, arguments)
    if wanted_error is not None or error is not None:
        return wanted_error is not None and error is not None
    return difference(expected, got, exercise.tolerance) is None


def _error_lines(exercise: Exercise, function: Callable[..., Any], error: BaseException) -> list[str]:
    code = getattr(function, "__code__", None)
    place = line_of(error, code.co_filename) if code is not None else None
    if isinstance(error, TimeLimitError):
        lines = [f"got:      nothing after {SECONDS:g} seconds", "Is there a loop that does not end?"]
    else:
        lines = [f"got:      {type(error).__name__}: {error}".removesuffix(": ")]
    if place is None and isinstance(error, TypeError):
        return [*lines, f"The exercise calls {exercise.signature}. Write a function with these arguments."]
    if place is not None:
        lines.append(place)
    if isinstance(error, (ArithmeticError, LookupError, ValueError)):  # of the numbers, not of the spelling
        lines.append(f"Hint: {_hint_of(exercise, function, exercise.calls) or exercise.hint}")
    return lines


def line_of(error: BaseException, file: str) -> str | None:
    """Return the last line of `file` that was running when the error came: ``chapter_1.py, line 7: return 1 / 0``."""
    numbers = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file and error.lineno:
        numbers.append(error.lineno)
    if not numbers or numbers[-1] is None:
        return None
    name = Path(file).name if Path(file).exists() else "the cell"
    return f"{name}, line {numbers[-1]}: {linecache.getline(file, numbers[-1]).strip()}"
