"""A replay of a captured step in memory that stays where it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from ..autograd.op_errors import translate_error
from ..autograd.version_counter import base_array
from ..backends.cpu.planned_numpy import empty_like
from ..backends.cpu.thread_pool import are_deterministic_algorithms_enabled, get_num_threads
from .planned_steps import GradientPlans
from .planners import PLANNERS, VIEWS
from .steps import CallOnGradients, Creation, Delivery, Repetition
from .tape import ERRORS, Tape

__all__ = ["Plan", "settings"]

Array = Any

_SMALL = 1 << 10  # entries, of which a copy takes less time than a function of Python
_MAX_BYTES = 1 << 28  # of all memory; a step that needs more spends little of its time in Python


def settings() -> tuple[int, bool]:
    """Return what the calls of a plan depend on, next to its arrays."""
    return get_num_threads(), are_deterministic_algorithms_enabled()


class _Memory:
    """Arrays that are used again for others of the same dtype and number of entries, when no place needs them."""

    def __init__(self) -> None:
        self.bytes = 0
        self.free: dict[tuple[Any, int], list[Array]] = {}
        self.users: Counter[int] = Counter()
        self.blocks: dict[int, Array] = {}
        self.taken: list[int] = []

    def empty(self, shape: int | Sequence[int], dtype: Any) -> Array:
        """Return an array as ``np.empty`` does. It is a view of a block, which :meth:`settle` gives back or keeps."""
        block_size = int(np.prod(shape, dtype=np.int64))
        blocks = self.free.get((np.dtype(dtype), block_size))
        if blocks:
            block = blocks.pop()
        else:
            block = np.empty(block_size, dtype)
            self.bytes += block.nbytes
            self.blocks[id(block)] = block
        self.taken.append(id(block))
        return block.reshape(shape)

    def blocks_of(self, *arrays: Any) -> set[int]:
        """Return the ids of the blocks that arrays are views of."""
        return {id(b) for a in arrays if type(a) is np.ndarray and id(b := base_array(a)) in self.blocks}

    def keep(self, blocks: set[int]) -> None:
        """Count one more user of each of these blocks."""
        self.users.update(blocks)

    def adopt(self, array: Array) -> Array:
        """Return an array, which counts as a block that is never free."""
        self.blocks[id(array)] = array
        self.users[id(array)] = 1
        return array

    def release(self, blocks: set[int]) -> None:
        """Count one user less. A block without users is free."""
        for key in blocks:
            self.users[key] -= 1
            if not self.users[key]:
                self._give_back(key)

    def settle(self) -> None:
        """Give back the blocks that were taken since the last time and have no user."""
        for key in self.taken:
            if not self.users[key]:
                self._give_back(key)
        self.taken.clear()

    def _give_back(self, key: int) -> None:
        block = self.blocks[key]
        self.free.setdefault((block.dtype, block.size), []).append(block)


class Plan:
    """The calls of a tape with their arguments. Most of them write to memory that stays where it is.

    Making a plan does the step once. A function of ``planners.py`` gets memory for its results, which other results
    use again later. Its calls are done, and have to give the bits of the function itself. All other functions are
    called as on the tape.

    tape: a finished tape. given: the places of the step's arguments. arrays: these. kept: the places that are read at
    the end. gradients: the calls that change leaves.

    values: the values of the places after the step. complete: whether the plan can be used.
    """

    def __init__(self, tape: Tape, given: Sequence[int], arrays: Sequence[Array], kept: set[int]) -> None:
        self.settings = settings()
        self.values = tape.template.copy()
        self.given = list(given)
        self.inputs: list[Array | None] = [None] * len(given)  # copies of the arguments
        self.program: list[Callable[[], Any]] = []
        self.sources: list[tuple[str, tuple[int, ...]]] = []  # of each call, for its error
        self.memory = _Memory()
        self.fixed: set[int] = set(tape.constants)
        self.holds: dict[int, set[int]] = {}  # the blocks that a place may show
        self.gradients = GradientPlans(tape)
        for k, (place, array) in enumerate(zip(given, arrays, strict=True)):
            self.values[place] = array
            if place not in kept and (buffer := self._copy_of(array)) is not None:
                self.inputs[k] = self.values[place] = buffer
                self._fix(place, buffer)
        with np.errstate(all="ignore"):
            for row, sources in zip(tape.program, tape.sources, strict=True):
                try:
                    self._add(row, sources)
                except ERRORS as error:
                    self._fail(error, row[-1], sources)
        self.copied = {k for k in kept if k not in self.given and self.holds.get(k)}
        self.complete = self.memory.bytes <= _MAX_BYTES

    # ---- making a plan ------------------------------------------------------------------------

    def _copy_of(self, array: Array) -> Array | None:
        """Return a copy in memory of the plan, None if its layout would be another one."""
        buffer = empty_like(self.memory.empty, array)
        if buffer is None:
            self.memory.settle()
            return None
        buffer[...] = array
        return buffer

    def _fix(self, place: int, value: Any) -> None:
        """Give a place a value that stays where it is."""
        self.values[place] = value
        self.fixed.add(place)
        self._hold(place, self.memory.blocks_of(*(value if type(value) is tuple else (value,))))
        self.memory.settle()

    def _hold(self, place: int, blocks: set[int]) -> None:
        self.holds[place] = blocks
        self.memory.keep(blocks)

    def _fix_later(self, place: int) -> bool:
        """Copy the result of an earlier call, each time, to memory that stays. Return whether that is possible."""
        values = self.values
        buffer = self._copy_of(values[place])
        if buffer is None:
            return False
        before = self.holds.pop(place, set())
        self._fix(place, buffer)
        self.memory.release(before)
        self.program.append(lambda: np.copyto(buffer, values[place]))
        return True

    def _add(self, row: tuple[Any, ...], sources: tuple[int, ...]) -> None:
        """Do one call of the tape, and append how a replay does it."""
        f, get, results, several, freed, op = row
        places = tuple(results) if several else (results,)
        found = False
        if isinstance(f, (Delivery, CallOnGradients, Repetition)):
            found = self._add_step(f, sources, places)
        elif isinstance(f, Creation):
            found = self._add_creation(f, places[0])
        else:
            key = getattr(f, "func", getattr(f, "rule", f))
            found = key in VIEWS and self._add_view(f, sources, places, several)
            if not found and (planner := PLANNERS.get(key)) is not None:
                found = self._add_planned(f, planner, sources, places, several)
        if not found:
            self._add_call(f, get, sources, places, several, freed)
        while len(self.sources) < len(self.program):
            self.sources.append((op, sources))
        for place in freed:
            self.memory.release(self.holds.pop(place, set()))

    def _can_fix(self, sources: Sequence[int], at_most: float = math.inf) -> bool:
        """Return whether places stay where they are now, if they have no more entries than this."""
        for k in sources:
            if k not in self.fixed:
                value = self.values[k]
                if type(value) is not np.ndarray or value.size > at_most or not self._fix_later(k):
                    return False
        return True

    def _add_view(self, f: Any, sources: tuple[int, ...], places: tuple[int, ...], several: bool) -> bool:
        if not self._can_fix(sources, at_most=_SMALL):
            return False
        arguments = [self.values[k] for k in sources]
        out = f(*arguments)
        outs = tuple(out) if several else (out,)
        owners = {id(base_array(a)) for x in arguments for a in (x if type(x) is tuple else (x,))
                  if type(a) is np.ndarray}  # fmt: skip
        parts = [a for x in outs for a in (x if type(x) is tuple else (x,))]
        if not all(type(a) is np.ndarray and id(base_array(a)) in owners for a in parts):
            return False
        for place, value in zip(places, outs, strict=True):
            if place >= 0:
                self._fix(place, value)
        return True

    def _add_creation(self, f: Creation, place: int) -> bool:
        """Give a place a tensor of constants, which no call changes."""
        self._fix(place, self.memory.adopt(f()))
        return True

    def _add_planned(
        self, f: Any, planner: Any, sources: tuple[int, ...], places: tuple[int, ...], several: bool
    ) -> bool:
        if self.memory.bytes > _MAX_BYTES or not self._can_fix(sources):
            return False
        arguments = [self.values[k] for k in sources]
        planned = planner(self.memory.empty, *arguments)
        if planned is None:
            self.memory.settle()
            return False
        calls, out = planned
        for call in calls:
            call()  # first, because an error in it is one of the op
        found = f(*arguments)
        expected = [np.asarray(x) if isinstance(x, np.generic) else x for x in (found if several else (found,))]
        outs = tuple(out) if several else (out,)
        if len(outs) != len(places) or not all(map(_are_same, outs, expected, places)):
            self.memory.settle()
            return False
        self.program += calls
        for place, value in zip(places, outs, strict=True):
            if place >= 0:
                self.values[place] = value
                self.fixed.add(place)
                self._hold(place, self.memory.blocks_of(value))
        self.memory.settle()
        return True

    def _add_step(self, f: Any, sources: tuple[int, ...], places: tuple[int, ...]) -> bool:
        if isinstance(f, Delivery):
            if not self._can_fix(sources):
                return False
            arrays = [self.values[k] for k in sources]
            calls = self.gradients.deliver(f, arrays)
            if calls is not None:
                self.memory.keep(self.memory.blocks_of(*arrays))  # until the gradients are set to None
        elif isinstance(f, CallOnGradients):
            calls = self.gradients.call(f, [self.values[k] for k in sources])
            if calls is not None:
                [call], [place], values = calls, places, self.values

                def launch() -> None:
                    values[place] = call()

                launch()
                self.program.append(launch)
                return True
        else:
            calls = self.gradients.repeat(f)
        if calls is None:
            return False
        self.program += calls
        return True

    def _add_call(
        self, f: Any, get: Any, sources: tuple[int, ...], places: tuple[int, ...], several: bool,
        freed: tuple[int, ...],
    ) -> None:  # fmt: skip
        """Append a call of a function as on the tape. Its results may show the memory of its arguments."""
        values, array, generic = self.values, np.asarray, np.generic
        cleared = tuple(k for k in freed if k not in self.fixed)
        copies = isinstance(f, Delivery)

        def launch() -> None:
            arguments = get(values)
            out = f(*(map(np.copy, arguments) if copies else arguments))
            for place, value in zip(places, out if several else (out,), strict=True):
                if place >= 0:
                    values[place] = array(value) if isinstance(value, generic) else value
            for place in cleared:
                values[place] = None

        shown = {block for k in sources for block in self.holds.get(k, ())}
        launch()
        self.program.append(launch)
        for place in places:
            if place >= 0:
                self._hold(place, set(shown))

    # ---- using it -----------------------------------------------------------------------------

    def run(self, arrays: Sequence[Array]) -> None:
        """Do the step on these arguments. Raises the errors of the ops."""
        values = self.values
        for place, buffer, array in zip(self.given, self.inputs, arrays, strict=True):
            if buffer is None:
                values[place] = array
            else:
                np.copyto(buffer, array)
        k = 0
        with np.errstate(all="ignore"):
            try:
                for k, call in enumerate(self.program):  # noqa: B007  # for the error
                    call()
            except ERRORS as error:
                self._fail(error, *self.sources[k])

    def _fail(self, error: Exception, op: str, sources: Sequence[int]) -> NoReturn:
        """Raise an error of a call, as the op of this name raises it."""
        if not op:
            raise error
        raise translate_error(op, error, [self.values[s] for s in sources[1:]]) from None

    def result(self, place: int) -> Array:
        """Return the array of a place that a user gets: a copy where the next step would change it."""
        value = self.values[place]
        return value.copy(order="K") if place in self.copied else value


def _are_same(x: Any, y: Any, place: int) -> bool:
    """Return whether a result has the bits and the layout of another one, if anything reads it."""
    if place < 0:
        return True
    if type(x) is not np.ndarray or type(y) is not np.ndarray:
        return False
    same = x.shape == y.shape and x.strides == y.strides and x.dtype == y.dtype
    return same and x.tobytes() == y.tobytes()
