"""Version counters: detect saved values that were changed in place.

Nodes and in-place changes take their numbers from one clock, so nothing is written down when a node saves a value. A
saved array is stale exactly if its memory was changed at a later tick than its node was made. Only memory that was
changed at least once has a counter, and all views of that memory share it.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from itertools import count
from typing import Any

from ..backends.registry import BACKENDS, Array
from ..errors import VersionError
from .shared_state import shared_state

__all__ = [
    "base_array", "bump_version", "bump_versions", "changed_between", "changed_since", "check_saved", "clock",
    "inplace_in_graph", "last_change", "record_change", "version", "version_counters",
]  # fmt: skip

clock = count(1).__next__
"""Return the next tick. Every recorded op and every in-place change takes one, so ticks order the graph."""

_REMEMBERED = 64  # ticks kept at least for each counter, so that messages can give the version of a saved value


class VersionCounter:
    """The in-place changes of one block of memory: their number, the first tick and the latest ticks."""

    __slots__ = ("alive", "count", "first", "ticks")

    def __init__(self, array: Array) -> None:
        self.count = 0
        self.first = 0
        self.ticks: list[int] = []
        key = id(array)
        self.alive = weakref.ref(array, lambda _: (version_counters.pop(key, None), inplace_in_graph.pop(key, None)))


version_counters: dict[int, VersionCounter] = {}
"""The counters of memory that was changed in place, by the id of the array that owns the memory."""
last_change = 0
"""The tick of the latest in-place change of any memory. A value that was saved later cannot be stale."""
inplace_in_graph: dict[int, int] = {}
"""The tick of the latest recorded in-place change, by the id of the owning array. Older views must be regenerated."""


def base_array(array: Array) -> Array:
    """Return the array that owns the memory of this one: itself, or the array that it is a view of."""
    while type(array.base) in BACKENDS:
        array = array.base
    return array


def bump_version(array: Array, *, in_graph: bool = False) -> int:
    """Record that this array's memory was changed in place, and return the tick of the change.

    in_graph: whether the change is recorded in the graph, that is, has a gradient.
    """
    with shared_state:
        return record_change(array, in_graph)


def bump_versions(arrays: Sequence[Array]) -> None:
    """Record that the memory of each of these arrays was changed in place."""
    with shared_state:
        for array in arrays:
            record_change(array)


def record_change(array: Array, in_graph: bool = False) -> int:
    """Do the work of :func:`bump_version` for a caller that holds the lock ``shared_state``."""
    global last_change
    memory = base_array(array)
    counter = version_counters.get(id(memory))
    if counter is None:
        counter = version_counters[id(memory)] = VersionCounter(memory)
    tick = last_change = clock()
    counter.first = counter.first or tick
    counter.count += 1
    counter.ticks.append(tick)
    if len(counter.ticks) > 2 * _REMEMBERED:
        counter.ticks = counter.ticks[-_REMEMBERED:]  # a new list, because another thread may read the old one
    if in_graph:
        inplace_in_graph[id(memory)] = tick
    return tick


def version(array: Array) -> int:
    """Return how often this array's memory was changed in place."""
    counter = version_counters.get(id(base_array(array)))
    return 0 if counter is None else counter.count


def changed_between(array: Any, start: int, stop: int) -> bool:
    """Return whether this array's memory was changed in place, but only after ``start`` and up to ``stop``."""
    counter = version_counters.get(id(base_array(array))) if type(array) in BACKENDS else None
    return counter is not None and start < counter.first and counter.ticks[-1] <= stop


def changed_since(array: Any, start: int) -> bool:
    """Return whether this array's memory was changed in place after ``start``."""
    counter = version_counters.get(id(base_array(array))) if type(array) in BACKENDS else None
    return counter is not None and counter.ticks[-1] > start


def check_saved(op: str, seq: int, names: list[str], saved: Sequence[Any]) -> None:
    """Raise VersionError if a value that a node saved at tick ``seq`` was changed in place since.

    names: the names of the saved values, for the message.
    """
    for name, value in zip(names, saved, strict=True):
        if type(value) not in BACKENDS:
            continue
        counter = version_counters.get(id(base_array(value)))
        if counter is not None and counter.ticks[-1] > seq:
            later = sum(t > seq for t in list(counter.ticks))  # a copy, to which no other thread adds
            then = f"at version {counter.count - later}" if later < _REMEMBERED else f"{later} or more versions earlier"
            what = "its result" if name == "out" else f"its argument {name!r}"
            raise VersionError(
                f"{op}: the backward pass needs {what}, {value.dtype}{tuple(value.shape)}, which was saved {then} and "
                f"has been changed in place since (it is at version {counter.count}). Use the op that returns a new "
                f"tensor, or clone() before changing it."
            )
