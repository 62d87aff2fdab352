"""The Python code that a step runs: which functions, what they read, and what in them cannot be captured."""

from __future__ import annotations

import abc
import builtins
import dis
import gc
import sys
import types
from collections.abc import Callable
from operator import is_
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.registry import Device
from .guards import SAFE_BUILTINS, SAFE_C_MODULES, Guards, NotCapturableError
from .known_code import is_known

__all__ = ["Watcher", "guards_of"]

_FOLDER = str(Path(__file__).parents[1])
_FORBIDDEN = {
    "STORE_ATTR": "sets the attribute", "DELETE_ATTR": "deletes the attribute", "STORE_GLOBAL": "sets the global name",
    "DELETE_GLOBAL": "deletes the global name", "DELETE_SUBSCR": "deletes an item", "IMPORT_NAME": "imports",
    "IMPORT_STAR": "imports", "PUSH_EXC_INFO": "has a with or try statement", "LOAD_NAME": "reads the name",
    "LOAD_CLASSDEREF": "defines a class", "LOAD_BUILD_CLASS": "defines a class", "GET_AWAITABLE": "is asynchronous",
    "YIELD_VALUE": "is a generator",
}  # fmt: skip
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"}
_HIDDEN = {"array", "accumulated_grad", "grad", "node", "tracked", "hooks", "retain_hook", "view_info", "grad_fn"}
"""Attributes of Tensors whose values a replay does not see."""
_KNOWN_DUNDERS = {"__init__", "__name__", "__qualname__"}
_SAFE_METHODS_OF = (list, tuple, dict, set, frozenset, str, range)
_Frame = types.FrameType
_UNSET = object()
_SILENT = (str(Path(np.__file__).parent), abc.ABCMeta.__instancecheck__.__code__.co_filename)
"""Where the code is that the library itself calls on raw arrays: NumPy's, and ``isinstance(x, Iterable)``."""


_GENERATED = {f.__code__ for f in (Device.__init__, Device.__eq__, Device.__hash__)}
"""Code of the library that has no file."""


def is_user_code(code: types.CodeType) -> bool:
    """Return whether code does not belong to this library."""
    return not code.co_filename.startswith(_FOLDER) and code not in _GENERATED


class Watcher:
    """A context manager that watches which functions this thread calls, outside the functions of ops.

    landmarks: functions of the library that are called with the frame when their code starts. Until that code ends,
        nothing is watched, and ``busy`` is not 0.
    ended: called with the frame and the result when the code of a landmark ends.

    codes: the code of users that ran, with its global names. lines: the lines of it that ran. closures: the values of
        outer variables with which it was called.

    reason: why it cannot be captured, or None.
    """

    def __init__(
        self, landmarks: dict[types.CodeType, Callable[[_Frame], None]], ended: Callable[[_Frame, Any], None]
    ) -> None:
        self.landmarks, self.ended = landmarks, ended
        self.codes: dict[types.CodeType, dict[str, Any]] = {}
        self.lines: dict[types.CodeType, set[int]] = {}
        self.closures: dict[types.CodeType, list[list[Any]]] = {}
        self.reason: str | None = None
        self.busy = 0
        self._inside: _Frame | None = None

    def __enter__(self) -> Watcher:
        sys.settrace(self._trace)
        sys.setprofile(self._event)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)
        sys.settrace(None)

    def fail(self, reason: str) -> None:
        """Keep the first reason."""
        self.reason = self.reason or reason

    def has_failed(self) -> bool:
        """Return whether there is a reason."""
        return self.reason is not None

    def _event(self, frame: _Frame, event: str, argument: Any) -> None:
        if self._inside is not None:
            if event == "return" and frame is self._inside:
                self._inside = None
                self.busy -= 1
                if frame.f_code in self.landmarks:
                    try:
                        self.ended(frame, argument)
                    except NotCapturableError as error:
                        self.fail(f"{_place(frame.f_back)}: {error}")
            return
        if self.busy:
            return
        if event == "call":
            self._call(frame)
        elif event == "c_call" and is_user_code(frame.f_code) and not (
            _is_safe(argument) or _makes_named_tuple(frame)
        ):
            name = getattr(argument, "__qualname__", "") or getattr(argument, "__name__", "")
            self.fail(f"{_place(frame)} calls {name}(), whose result may be another each time")

    def _trace(self, frame: _Frame, event: str, argument: Any) -> Any:
        return self._line if not self.busy and is_user_code(frame.f_code) else None

    def _line(self, frame: _Frame, event: str, argument: Any) -> Any:
        if event == "line":
            self.lines.setdefault(frame.f_code, set()).add(frame.f_lineno)
        return self._line

    def _call(self, frame: _Frame) -> None:
        code = frame.f_code
        landmark = self.landmarks.get(code)
        if landmark is not None:
            self._inside = frame
            self.busy += 1
            try:
                landmark(frame)
            except NotCapturableError as error:
                self.fail(f"{_place(frame.f_back)}: {error}")
        elif is_user_code(code):
            if _makes_named_tuple(frame):
                return
            caller = frame.f_back
            if code.co_filename.startswith(_SILENT) and caller is not None and not is_user_code(caller.f_code):
                self._inside = frame
                self.busy += 1
                return
            if code.co_filename.startswith("<__array_function__"):
                self.fail(f"{_place(frame.f_back)} calls a function of NumPy")
            self.codes.setdefault(code, frame.f_globals)
            if code.co_freevars:
                values = frame.f_locals
                self.closures.setdefault(code, []).append([values.get(name, _UNSET) for name in code.co_freevars])
        elif code not in _GENERATED and not is_known(code, _FOLDER, _is_called_by_user(frame)):
            caller = frame.f_back
            while caller is not None and not is_user_code(caller.f_code):
                caller = caller.f_back
            self.fail(f"{_place(caller)} calls {code.co_qualname}(), which cannot be replayed")


def _is_called_by_user(frame: _Frame) -> bool:
    return frame.f_back is None or is_user_code(frame.f_back.f_code)


def _makes_named_tuple(frame: _Frame) -> bool:
    """Return whether a frame is that of a constructor which ``collections.namedtuple`` made."""
    return str(frame.f_globals.get("__name__", "")).startswith("namedtuple_")


def _is_safe(f: Any) -> bool:
    """Return whether a function that is written in C depends on its arguments alone, or changes a container."""
    owner = getattr(f, "__self__", None)
    if isinstance(owner, types.ModuleType) or owner is None:
        if f.__module__ == "builtins" or (owner is builtins):
            return f.__name__ in SAFE_BUILTINS
        if f.__module__ is not None:
            return f.__module__ in SAFE_C_MODULES
        return getattr(f, "__objclass__", None) in _SAFE_METHODS_OF
    return type(owner) in _SAFE_METHODS_OF


def _place(frame: _Frame | None) -> str:
    """Return the line of code of a frame."""
    if frame is None:
        return "the step"
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} ({frame.f_code.co_name})"


def guards_of(watcher: Watcher, f: Any) -> Guards:
    """Return the guards for all that the watched code reads. Raises NotCapturableError.

    f: the function of the step.
    """
    codes = watcher.codes
    attributes: set[str] = set()
    globals_read: dict[types.CodeType, set[tuple[str, ...]]] = {}
    for code in codes:
        globals_read[code] = _check(code, watcher.lines.get(code, set()), attributes)
    guards = Guards(attributes)
    for code, names in codes.items():
        known = names.get("__builtins__", builtins)
        known = vars(known) if isinstance(known, types.ModuleType) else known
        for path in sorted(globals_read[code]):
            guards.add_global(names, known, path)
    for function in _functions_of(watcher):
        guards.add_function(function)
    guards.add(f, "the step")
    guards.finish()
    return guards


def _functions_of(watcher: Watcher) -> list[types.FunctionType]:
    """Return the functions that were called. Those that the step itself makes are gone when it ends.

    A frame does not have its function, so a function with the same code and the same values of outer variables counts.
    """
    found = []
    for f in gc.get_referrers(*watcher.codes):
        if isinstance(f, types.FunctionType) and f.__code__ in watcher.codes:
            values = [_content(cell) for cell in f.__closure__ or ()]
            calls = watcher.closures.get(f.__code__, [])
            if not values or any(all(map(is_, values, called)) for called in calls):
                found.append(f)
    return found


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _UNSET


def _check(code: types.CodeType, lines: set[int], attributes: set[str]) -> set[tuple[str, ...]]:
    """Return the global names that these lines of code read, and add the attributes. Raises NotCapturableError.

    Each name comes with the attributes that are read from its value at once, as ("tl", "nn", "functional").
    """
    paths: set[tuple[str, ...]] = set()
    path: tuple[str, ...] = ()
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        place = instruction.positions.lineno if instruction.positions is not None else None
        if place is not None and place not in lines:
            continue
        line, name, kind = place or line, instruction.argval, instruction.opname
        where = f"{Path(code.co_filename).name}:{line} ({code.co_name})"
        if kind in _FORBIDDEN:
            what = f" {name}" if isinstance(name, str) else ""
            raise NotCapturableError(f"{where} {_FORBIDDEN[kind]}{what}")
        if kind in ("STORE_DEREF", "DELETE_DEREF") and name in code.co_freevars:
            raise NotCapturableError(f"{where} sets the variable {name} of an outer function")
        if kind in _ATTRIBUTES:
            if name in _HIDDEN or (name.startswith("__") and name.endswith("__") and name not in _KNOWN_DUNDERS):
                raise NotCapturableError(f"{where} reads the attribute {name}")
            attributes.add(name)
            path = (*path, name) if path else ()
            continue
        paths |= {path} - {()}
        path = (name,) if kind == "LOAD_GLOBAL" else ()
    return paths | ({path} - {()})
