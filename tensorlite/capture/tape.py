"""The recorded calls of a step, and their replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from ..autograd.op_errors import translate_error

__all__ = ["ERRORS", "Tape"]

ERRORS = (ValueError, TypeError, IndexError, OverflowError)
"""The errors of functions on arrays that name no op."""


class Tape:
    """A list of calls on numbered places. Each call reads its arguments from places and writes its results to others.

    template: the values of the places before the first call: those of constants, and None for the others.
    constants: the places of constants.
    program: after :meth:`finish`, for each call its function, a function that takes its arguments out of the values,
        its results, whether they are several, the places that it frees, and the name of its op. sources: the places of
        its arguments.
    """

    def __init__(self) -> None:
        self.template: list[Any] = []
        self.constants: set[int] = set()
        self.calls: list[tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...], bool, str]] = []
        self.program: list[tuple[Any, ...]] = []
        self.sources: list[tuple[int, ...]] = []

    def new_place(self) -> int:
        """Return the number of a new place, whose value comes later."""
        self.template.append(None)
        return len(self.template) - 1

    def new_constant(self, value: Any) -> int:
        """Return the number of a new place, which always has this value."""
        place = self.new_place()
        self.template[place] = value
        self.constants.add(place)
        return place

    def add(
        self, f: Callable[..., Any], sources: Sequence[int], results: Sequence[int], several: bool, op: str
    ) -> None:
        """Append a call. ``several`` says that it returns a tuple; a place of -1 stands for a result that nobody uses.

        op: the name of the op for error messages, or an empty string.
        """
        self.calls.append((f, tuple(sources), tuple(results), several, op))

    def finish(self, kept: set[int]) -> None:
        """Find for each call the places that no later call reads, so that a replay frees them.

        kept: the places that are read after the last call.
        """
        seen, program = kept | self.constants, []
        for f, sources, results, several, op in reversed(self.calls):
            freed = tuple({k for k in (*sources, *results) if k >= 0} - seen)
            seen.update(freed)
            program.append((f, _getter(sources), results if several else results[0], several, freed, op))
            self.sources.append(sources)
        self.program = program[::-1]
        self.sources.reverse()
        self.calls.clear()

    def run(self, given: Sequence[tuple[int, Any]]) -> list[Any]:
        """Do all calls and return the values of the places.

        given: places and the values that they have before the first call. Raises the errors of the ops.
        """
        values = self.template.copy()
        for place, value in given:
            values[place] = value
        array, ndarray, generic = np.asarray, np.ndarray, np.generic
        with np.errstate(all="ignore"):
            for f, get, results, several, freed, op in self.program:
                arguments = get(values)
                try:
                    out = f(*arguments)
                except ERRORS as error:
                    if not op:
                        raise
                    raise translate_error(op, error, list(arguments[1:])) from None
                if several:
                    for place, value in zip(results, out, strict=True):
                        if place >= 0:
                            values[place] = array(value) if isinstance(value, generic) else value
                elif results >= 0:
                    values[results] = out if type(out) is ndarray or not isinstance(out, generic) else array(out)
                for place in freed:
                    values[place] = None
        return values


def _getter(sources: tuple[int, ...]) -> Callable[[list[Any]], tuple[Any, ...]]:
    """Return a function that takes these places out of a list, as a tuple."""
    if len(sources) > 1:
        return itemgetter(*sources)
    if not sources:
        return lambda values: ()
    [place] = sources
    return lambda values: (values[place],)
