"""What a captured step depends on in Python, and whether it has changed since."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Iterable
from itertools import repeat
from operator import is_
from typing import Any

import numpy as np

from ..autograd.graph import Variable
from ..backends.registry import Device
from ..nn.module import Module
from ..nn.parameter import Parameter
from ..optim.lr_scheduler import LRScheduler
from ..optim.optimizer import Optimizer
from ..tensors.tensor import Tensor

__all__ = ["PLAIN", "Guards", "NotCapturableError", "is_plain_tensor"]

_MISSING = object()
PLAIN = (int, float, complex, str, bytes, type(None), type(...), type(NotImplemented), np.generic, np.dtype, range, slice,
         Device)  # fmt: skip
"""Types whose values cannot change."""

SAFE_C_MODULES = {"math", "_operator"}
SAFE_BUILTINS = {
    "abs", "all", "any", "bool", "dict", "divmod", "enumerate", "float", "frozenset", "int", "isinstance", "len", "list",
    "max", "min", "range", "reversed", "round", "set", "slice", "sorted", "str", "sum", "super", "tuple", "type", "zip",
    "True", "False", "None", "NotImplemented", "Ellipsis", "object",
}  # fmt: skip
"""Names of Python whose results depend on their arguments alone. Exceptions count as well."""

_TENSOR_ATTRIBUTES = {"array", "accumulated_grad", "node", "tracked", "hooks", "retain_hook", "view_info"}
_CONTAINERS = (list, tuple, dict, set, frozenset)


class NotCapturableError(Exception):
    """The reason for which a step cannot be captured."""


def is_plain_tensor(x: Any) -> bool:
    """Return whether x is a Tensor or Parameter without attributes of a user."""
    return type(x) in (Tensor, Parameter) and vars(x).keys() <= _TENSOR_ATTRIBUTES


class Guards:
    """The values that a step reads without getting them as arguments, each with what it was.

    attributes: the names of all attributes that the step's own code reads.
    tensors: the Tensors found, by the ids of their arrays.
    """

    def __init__(self, attributes: Collection[str]) -> None:
        self.attributes = set(attributes)
        self.globals: set[tuple[int, tuple[str, ...]]] = set()
        self.tensors: dict[int, Variable] = {}
        self._dicts: list[tuple[Any, list[Any], list[Any], int]] = []
        self._sequences: list[tuple[Any, list[Any]]] = []
        self._cells: list[tuple[Any, Any]] = []
        self._leaves: list[tuple[Any, Any, bool, bool]] = []
        self._seen: dict[int, Any] = {}

    # ---- collecting -------------------------------------------------------------------------

    def add_global(self, names: dict[str, Any], builtins: dict[str, Any], path: tuple[str, ...]) -> None:
        """Guard the value of a global name. Raises NotCapturableError if a change of it could not be noticed.

        path: the name, and the names of the attributes that are read from its value at once.
        """
        name, *rest = path
        value = names.get(name, _MISSING)
        self.globals.add((id(names), path))
        self._dicts.append((names, [name], [value], -1))
        if value is _MISSING:
            value = builtins.get(name, _MISSING)
            is_error = isinstance(value, type) and issubclass(value, BaseException)
            if name not in SAFE_BUILTINS and not is_error:
                raise NotCapturableError(f"it uses {name}(), whose result may be another each time")
            self._dicts.append((builtins, [name], [value], -1))
            return
        while isinstance(value, types.ModuleType) and rest and rest[0] in vars(value):
            ours, members = _is_ours(value), vars(value)
            name, *rest = rest
            value = members[name]
            self._dicts.append((members, [name], [value], -1))
            if ours and not isinstance(value, types.ModuleType):
                return
        self.add(value, ".".join(path[: len(path) - len(rest)]))

    def add_function(self, f: types.FunctionType) -> None:
        """Guard the closure and the defaults of a function that the step calls."""
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:
                raise NotCapturableError(f"{f.__name__} reads {name}, which has no value yet") from None
            self._cells.append((cell, value))
            self.add(value, name)
        self.add(f.__defaults__, f"the defaults of {f.__name__}")
        self.add(f.__kwdefaults__, f"the defaults of {f.__name__}")
        self._members(f, ("__code__", "__defaults__", "__kwdefaults__"))

    def add(self, value: Any, name: str) -> None:
        """Guard a value and all that is reached from it. Raises NotCapturableError, which says ``name``."""
        stack = [(value, name)]
        while stack:
            value, name = stack.pop()
            if isinstance(value, PLAIN) or id(value) in self._seen:
                continue
            self._seen[id(value)] = value
            stack += self._one(value, name)

    def _one(self, x: Any, name: str) -> Iterable[tuple[Any, str]]:
        """Guard one value, and return the values that it holds with their names."""
        if isinstance(x, Variable):
            return self._tensor(x, name)
        if isinstance(x, types.ModuleType):
            return self._module(x)
        if isinstance(x, types.FunctionType):
            return self._named(vars(x), name) if vars(x) else ()
        if isinstance(x, types.MethodType):
            return [(x.__self__, name), (x.__func__, name)]
        if isinstance(x, (types.BuiltinFunctionType, types.BuiltinMethodType)):
            owner = x.__self__
            if isinstance(owner, _CONTAINERS):
                return [(owner, name)]
            known = x.__name__ in SAFE_BUILTINS if x.__module__ == "builtins" else x.__module__ in SAFE_C_MODULES
            if known:
                return ()
        elif isinstance(x, type):
            return self._class(x, name)
        elif isinstance(x, (property, staticmethod, classmethod)):
            return ()
        elif isinstance(x, Module):
            return [*self._whole(vars(x), name), (type(x), name)]
        elif isinstance(x, (Optimizer, LRScheduler)):
            return [*self._named(vars(x), name), (type(x), name)]
        elif type(x) in _CONTAINERS:
            return self._container(x, name)
        elif not _is_ours(type(x)) and hasattr(x, "__dict__") and not isinstance(x, (np.ndarray, np.ufunc)):
            held = [*self._named(vars(x), name), (type(x), name)]
            return held + list(self._container(x, name)) if isinstance(x, _CONTAINERS) else held
        raise NotCapturableError(f"it reads {name}, a {type(x).__name__}, whose changes cannot be noticed")

    def _tensor(self, x: Any, name: str) -> Iterable[tuple[Any, str]]:
        if not is_plain_tensor(x) or x.node is not None or x.hooks or type(x.array) is not np.ndarray:
            raise NotCapturableError(
                f"it reads {name}, a tensor with hooks, with a graph, with attributes of its own, or on another device"
            )
        self.tensors[id(x.array)] = x
        self._leaves.append((x, x.array, x.tracked, x.accumulated_grad is None))
        return ()

    def _module(self, x: types.ModuleType) -> Iterable[tuple[Any, str]]:
        names = vars(x)
        found = [n for n in self.attributes if n in names]
        if found:
            self._dicts.append((names, found, [names[n] for n in found], -1))
        ours = _is_ours(x)
        return [(names[n], f"{x.__name__}.{n}") for n in found if not ours or isinstance(names[n], types.ModuleType)]

    def _class(self, x: Any, name: str) -> Iterable[tuple[Any, str]]:
        held: list[tuple[Any, str]] = []
        for c in x.__mro__:
            if c.__module__ == "builtins" or issubclass(c, np.generic):
                continue
            if not c.__flags__ & (1 << 9):  # a class that was written in C
                raise NotCapturableError(f"it uses the class {c.__name__} ({name}), whose state cannot be seen")
            names = dict(vars(c))
            found = [n for n in {*self.attributes, "forward", "__call__"} if n in names]
            self._sequences.append((_Members(c), [len(names), *(names[n] for n in found)]))
            self._sequences[-1][0].names = found
            if not _is_ours(c):
                held += [(names[n], f"{c.__name__}.{n}") for n in found]
        return held

    def _members(self, x: Any, names: Iterable[str]) -> None:
        """Guard attributes that are not in a dict."""
        members = _Members(x, get=getattr)
        members.names = list(names)
        self._sequences.append((members, list(members)))

    def _whole(self, d: dict[str, Any], name: str) -> list[tuple[Any, str]]:
        self._dicts.append((d, list(d), list(d.values()), len(d)))
        return [(value, f"{name}.{key}") for key, value in d.items()]

    def _named(self, d: dict[str, Any], name: str) -> list[tuple[Any, str]]:
        found = [key for key in d if key in self.attributes]
        self._dicts.append((d, found, [d[key] for key in found], len(d)))
        return [(d[key], f"{name}.{key}") for key in found]

    def _container(self, x: Any, name: str) -> list[tuple[Any, str]]:
        if isinstance(x, dict):
            self._sequences.append((x, list(x)))
            self._dicts.append((x, list(x), list(x.values()), len(x)))
            return [(value, f"{name}[{key!r}]") for key, value in x.items()] + [(key, name) for key in x]
        self._sequences.append((x, list(x)))
        return [(value, f"an entry of {name}") for value in x]

    def covers(self, other: Guards) -> bool:
        """Return whether all that ``other`` depends on is guarded here."""
        return other.attributes <= self.attributes and other.globals <= self.globals

    # ---- checking ---------------------------------------------------------------------------

    def finish(self) -> None:
        """Join the guards of one dict into one check."""
        joined: dict[int, tuple[Any, dict[Any, Any], int]] = {}
        for d, names, values, size in self._dicts:
            entry = joined.setdefault(id(d), (d, {}, size))
            entry[1].update(zip(names, values, strict=True))
            joined[id(d)] = (d, entry[1], max(size, entry[2]))
        self._dicts = [(d, list(m), list(m.values()), size) for d, m, size in joined.values()]

    def hold(self, forget_grads: bool = False) -> bool:
        """Return whether nothing has changed. ``forget_grads`` leaves out which tensors have a ``grad``."""
        for d, names, values, size in self._dicts:
            if (size >= 0 and len(d) != size) or not all(map(is_, map(d.get, names, repeat(_MISSING)), values)):
                return False
        for x, array, tracked, without_grad in self._leaves:
            if x.array is not array or x.tracked is not tracked or x.hooks or x.node is not None:
                return False
            if (x.accumulated_grad is None) is not without_grad and not forget_grads:
                return False
        for cell, value in self._cells:
            if _content(cell) is not value:
                return False
        return all(len(x) == len(values) and all(map(is_, x, values)) for x, values in self._sequences)


class _Members:
    """The attributes of an object as a sequence: those of a class after the number of all of them."""

    names: list[str]

    def __init__(self, x: Any, get: Callable[..., Any] | None = None) -> None:
        self.x, self.get = x, get

    def __len__(self) -> int:
        return len(self.names) + (self.get is None)

    def __iter__(self) -> Any:
        if self.get is not None:
            return iter([self.get(self.x, n, _MISSING) for n in self.names])
        names = vars(self.x)
        return iter([len(names), *(names.get(n, _MISSING) for n in self.names)])


def _content(cell: Any) -> Any:
    """Return the value of a variable of a closure."""
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def _is_ours(x: Any) -> bool:
    """Return whether a module or class belongs to this library."""
    name = getattr(x, "__name__", "") if isinstance(x, types.ModuleType) else getattr(x, "__module__", "") or ""
    return name.partition(".")[0] == __name__.partition(".")[0]
