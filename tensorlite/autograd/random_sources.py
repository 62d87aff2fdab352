"""The random generators that a function may draw from, and their states before a call.

A function reaches a generator through its arguments, its closure, its defaults, global names in its code, and the
attributes of objects that it reaches in these ways. NumPy's and Python's global generators count for every function.
"""

from __future__ import annotations

import functools
import random as python_random
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .. import random
from ..backends.registry import BACKENDS
from .graph import Node, Variable

__all__ = ["RandomSources", "reachable_generators"]

_MAX_OBJECTS = 100_000  # objects that the search looks at; a module of a GPT with 100 layers has 10,000
_LEAVES = (Variable, Node, str, bytes, int, float, complex, type(None), type, types.ModuleType, np.ndarray, np.generic)


class _Kind(NamedTuple):
    """A kind of generator that is not tensorlite's: how its state is read and set."""

    type: type
    get: Callable[[Any], Any]
    set: Callable[[Any, Any], None]


def _set_bits(generator: Any, state: Any) -> None:
    generator.bit_generator.state = state


def _set_state(bits: Any, state: Any) -> None:
    bits.state = state


_KINDS = (
    _Kind(np.random.Generator, lambda g: g.bit_generator.state, _set_bits),
    _Kind(np.random.BitGenerator, lambda g: g.state, _set_state),
    _Kind(np.random.RandomState, lambda g: g.get_state(legacy=False), lambda g, s: g.set_state(s)),
    _Kind(python_random.Random, lambda g: g.getstate(), lambda g, s: g.setstate(s)),
)
_GENERATORS = (random.Generator, *(kind.type for kind in _KINDS))
_GLOBALS = ((np.random, _KINDS[2]), (python_random, _KINDS[3]))  # these modules have the functions of their classes

_swapping = threading.RLock()
"""The lock for replays of generators whose state all threads see."""


def reachable_generators(*roots: Any) -> list[Any]:
    """Return the generators that the objects reach, each once."""
    found: list[Any] = []
    seen: set[int] = set()
    stack = list(roots)
    while stack and len(seen) < _MAX_OBJECTS:
        x = stack.pop()
        if id(x) in seen or isinstance(x, _LEAVES) or type(x) in BACKENDS:
            continue
        seen.add(id(x))
        if isinstance(x, _GENERATORS):
            if not isinstance(x, python_random.SystemRandom):  # which has no state
                found.append(x)
        else:
            stack += _held_by(x)
    return found


def _held_by(x: Any) -> list[Any]:
    """Return the objects that a container, a function or another object holds."""
    if isinstance(x, dict):
        return list(x.values())
    if isinstance(x, (list, tuple, set, frozenset)):
        return list(x)
    if isinstance(x, functools.partial):
        return [x.func, x.args, x.keywords]
    if isinstance(x, types.MethodType):
        return [x.__self__, x.__func__]
    if isinstance(x, types.BuiltinMethodType):  # a method of a class that is written in C
        return [x.__self__]
    if isinstance(x, types.FunctionType):
        return [] if _is_ours(x) else _held_by_function(x)
    own = [vars(x)] if hasattr(x, "__dict__") else []
    kind: Any = type(x)
    slots, methods = _slots_and_methods(kind)
    return own + [getattr(x, name, None) for name in slots] + methods


@functools.lru_cache(maxsize=1000)
def _slots_and_methods(kind: Any) -> tuple[list[str], list[Any]]:
    """Return the names of a class's slots, and those of its functions that are not this library's."""
    slots = [name for c in kind.__mro__ for name in getattr(c, "__slots__", ()) if isinstance(name, str)]
    members = [m for c in kind.__mro__ if not _is_ours(c) for m in vars(c).values()]
    return slots, [m for m in members if isinstance(m, types.FunctionType)]


def _is_ours(x: Any) -> bool:
    """Return whether a function or class belongs to this library, whose only global generator is the default one."""
    return str(getattr(x, "__module__", "")).partition(".")[0] == __name__.partition(".")[0]


def _held_by_function(f: types.FunctionType) -> list[Any]:
    held: list[Any] = [f.__defaults__, f.__kwdefaults__]
    for cell in f.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # the variable is not set yet
            continue
    codes = [f.__code__]
    while codes:
        code = codes.pop()
        held += [f.__globals__[name] for name in code.co_names if name in f.__globals__]
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return held


def _is_equal(a: Any, b: Any) -> bool:
    """Return whether two states are equal. They are numbers, arrays, and tuples or dicts of these."""
    if isinstance(a, dict):
        return all(_is_equal(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, tuple) and len(a) < 10:
        return all(map(_is_equal, a, b))
    return bool(a == b)


class RandomSources:
    """The generators that a call may draw from, with the states before it.

    roots: the function and its arguments.
    """

    def __init__(self, *roots: Any) -> None:
        found = {id(g): g for g in (random.default_generator, *reachable_generators(*roots))}
        self.ours = [(g, g.get_state()) for g in found.values() if isinstance(g, random.Generator)]
        pairs = [(g, kind) for g in found.values() for kind in _KINDS if isinstance(g, kind.type)]
        self.others = [(g, kind, kind.get(g)) for g, kind in (*_GLOBALS, *pairs)]

    def drop_unused(self) -> None:
        """Forget the generators of NumPy and Python whose state has not changed, because the call did not use them."""
        self.others = [(g, kind, state) for g, kind, state in self.others if not _is_equal(kind.get(g), state)]

    def drew_numbers(self) -> bool:
        """Return whether a generator has another state than before the call."""
        return any(not _is_equal(g.get_state(), state) for g, state in self.ours) or any(
            not _is_equal(kind.get(g), state) for g, kind, state in self.others
        )

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Context manager in which the generators give the same numbers again. Afterwards they go on as before.

        Other threads do not see it, unless a generator is NumPy's or Python's.
        """
        if not self.others:
            with random.replayed(self.ours):
                yield
            return
        with _swapping:
            current = [kind.get(g) for g, kind, _ in self.others]
            try:
                for g, kind, state in self.others:
                    kind.set(g, state)
                with random.replayed(self.ours):
                    yield
            finally:
                for (g, kind, _), state in zip(self.others, current, strict=True):
                    kind.set(g, state)
