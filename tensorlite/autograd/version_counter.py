"""Who changed which memory in place, and when.

Nodes and in-place changes take their numbers from one clock, so nothing need be written down when a value is saved: a
saved array is stale exactly if its memory was changed at a later tick than its node was made. Only memory that was
ever changed has an entry here, and views share the entry of the array that owns their memory.
"""

from __future__ import annotations

import weakref
from collections import deque
from itertools import count
from typing import Any

from ..backends.registry import BACKENDS, Array
from ..errors import VersionError

__all__ = ["changed", "changed_between", "check_saved", "clock", "last_change", "owner", "rebased", "touch", "version"]

clock = count(1).__next__
"""Ticks once for every recorded op and every in-place change: a topological order of the graph."""

_REMEMBERED = 64  # ticks kept a buffer, for the version numbers in messages


class _History:
    """The in-place changes of one buffer."""

    def __init__(self, array: Array) -> None:
        self.count = 0
        self.first = 0  # the tick of the first of them
        self.ticks: deque[int] = deque(maxlen=_REMEMBERED)
        key = id(array)
        self.alive = weakref.ref(array, lambda _: (changed.pop(key, None), rebased.pop(key, None)))


changed: dict[int, _History] = {}
"""The buffers that were ever changed in place, by the id of the array that owns them."""
last_change = 0
"""The tick of the latest change of any buffer: what was saved since then is as it was."""
rebased: dict[int, int] = {}
"""The buffers whose in-place change is part of the graph: views made before that tick have lost their history."""


def owner(array: Array) -> Array:
    """The array that owns the memory of this one: itself, or what it is a view of."""
    while type(array.base) in BACKENDS:
        array = array.base
    return array


def touch(array: Array, *, in_graph: bool = False) -> int:
    """Note that this array's memory has been changed; ``in_graph`` if the change has a gradient. Returns the tick."""
    global last_change
    buffer = owner(array)
    history = changed.get(id(buffer))
    if history is None:
        history = changed[id(buffer)] = _History(buffer)
    tick = last_change = clock()
    history.first = history.first or tick
    history.count += 1
    history.ticks.append(tick)
    if in_graph:
        rebased[id(buffer)] = tick
    return tick


def version(array: Array) -> int:
    """How often this array's memory has been changed in place."""
    history = changed.get(id(owner(array)))
    return 0 if history is None else history.count


def changed_between(array: Any, start: int, stop: int) -> bool:
    """Whether this array's memory has been changed in place, each time after tick ``start`` and not after ``stop``."""
    history = changed.get(id(owner(array))) if type(array) in BACKENDS else None
    return history is not None and start < history.first and history.ticks[-1] <= stop


def check_saved(op: str, seq: int, names: list[str], saved: list[Any]) -> None:
    """Raise VersionError if a value that a node saved at tick ``seq`` has been changed since."""
    for name, value in zip(names, saved, strict=True):
        if type(value) not in BACKENDS:
            continue
        history = changed.get(id(owner(value)))
        if history is not None and history.ticks[-1] > seq:
            later = sum(t > seq for t in history.ticks)
            then = f"at version {history.count - later}" if later < _REMEMBERED else f"{later} or more versions earlier"
            what = "its result" if name == "out" else f"its argument {name!r}"
            raise VersionError(
                f"{op}: the backward pass needs {what}, {value.dtype}{tuple(value.shape)}, which was saved {then} and "
                f"has been changed in place since (it is at version {history.count}). Use the op that returns a new "
                f"tensor, or clone() before changing it"
            )
