"""What a captured step depends on in Python, and whether it has changed since."""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Collection, Iterable
from itertools import chain
from operator import attrgetter, getitem, is_
from typing import Any

import numpy as np

from ..autograd.graph import Variable
from ..backends.registry import Device
from ..distributed.data_parallel import Reducer
from ..distributed.group import Group
from ..nn.module import Module
from ..nn.parameter import Parameter
from ..optim.lr_scheduler import LRScheduler
from ..optim.optimizer import Optimizer
from ..tensors.tensor import Tensor

__all__ = ["SAFE_BUILTINS", "SAFE_C_MODULES", "Guards", "NotCapturableError", "is_plain", "is_plain_tensor"]

_MISSING = object()
_PLAIN = (int, float, complex, str, bytes, type(None), type(...), type(NotImplemented), np.generic, np.dtype, range,
          slice)  # fmt: skip

SAFE_C_MODULES = {"math", "_operator"}
SAFE_BUILTINS = {
    "abs", "all", "any", "bool", "dict", "divmod", "enumerate", "float", "frozenset", "int", "isinstance", "len",
    "list", "max", "min", "range", "reversed", "round", "set", "slice", "sorted", "str", "sum", "super", "tuple",
    "type", "zip", "True", "False", "None", "NotImplemented", "Ellipsis", "object",
}  # fmt: skip
"""Names of Python whose results depend on their arguments alone. Exceptions count as well."""

_USED_AGAIN = (Group, Reducer)  # Recorded calls alone use what is inside, and a replay makes them again.
_TENSOR_ATTRIBUTES = {"array", "accumulated_grad", "node", "tracked", "hooks", "retain_hook", "view_info"}
_CONTAINERS = (list, tuple, dict, set, frozenset)


class NotCapturableError(Exception):
    """The reason for which a step cannot be captured."""


def is_plain(x: Any) -> bool:
    """Return whether x is a number, a string or the like, which cannot change and has no attributes of a user."""
    return type(x) is Device or (isinstance(x, _PLAIN) and not hasattr(x, "__dict__"))


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
        self._whole: dict[int, Any] = {}  # dicts of which every key and value is guarded
        self._items: dict[tuple[int, str], tuple[Any, str, Any]] = {}  # single values of dicts, by their keys
        self._absent: list[tuple[Any, str]] = []
        self._sizes: dict[int, tuple[Any, int]] = {}
        self._sequences: list[tuple[Any, list[Any]]] = []
        self._members: list[tuple[Any, str, Any]] = []
        self._cells: list[tuple[Any, Any]] = []
        self._leaves: list[Any] = []
        self._seen: dict[int, Any] = {}

    # ---- collecting -------------------------------------------------------------------------

    def add_global(self, names: dict[str, Any], known: dict[str, Any], path: tuple[str, ...]) -> None:
        """Guard the value of a global name. Raises NotCapturableError if a change of it could not be noticed.

        path: the name, and the names of the attributes that are read from its value at once.
        """
        name, *rest = path
        value = names.get(name, _MISSING)
        self.globals.add((id(names), path))
        if value is _MISSING:
            self._absent.append((names, name))
            value = known.get(name, _MISSING)
            is_error = isinstance(value, type) and issubclass(value, BaseException)
            if name not in SAFE_BUILTINS and not is_error:
                raise NotCapturableError(f"it uses {name}(), whose result may be another each time")
            self._item(known, name)
            return
        self._item(names, name)
        while isinstance(value, types.ModuleType) and rest and rest[0] in vars(value):
            ours, members = _is_ours(value), vars(value)
            name, *rest = rest
            value = members[name]
            self._item(members, name)
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
        self._members += [(f, name, getattr(f, name)) for name in ("__code__", "__defaults__", "__kwdefaults__")]

    def _item(self, d: Any, name: str) -> None:
        """Guard one value of a dict."""
        self._items[id(d), name] = d, name, d[name]

    def _size(self, d: Any) -> None:
        """Guard the number of the keys of a dict."""
        self._sizes[id(d)] = d, len(d)

    def add(self, value: Any, name: str) -> None:
        """Guard a value and all that is reached from it. Raises NotCapturableError, which says ``name``."""
        stack = [(value, name)]
        while stack:
            value, name = stack.pop()
            if is_plain(value) or id(value) in self._seen:
                continue
            self._seen[id(value)] = value
            stack += self._one(value, name)

    def _one(self, x: Any, name: str) -> Iterable[tuple[Any, str]]:
        """Guard one value, and return the values that it holds with their names."""
        if hasattr(x, "__dict__") and not isinstance(x, (type, types.ModuleType, types.FunctionType)):
            self._members.append((x, "__class__", type(x)))
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
        elif isinstance(x, (property, staticmethod, classmethod, *_USED_AGAIN)):
            return ()
        elif isinstance(x, Module):
            return [*self._all_of(vars(x), name), (type(x), name)]
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
        self._leaves.append(x)
        return ()

    def _module(self, x: types.ModuleType) -> Iterable[tuple[Any, str]]:
        names = vars(x)
        found = [n for n in self.attributes if n in names]
        for n in found:
            self._item(names, n)
        ours = _is_ours(x)
        return [(names[n], f"{x.__name__}.{n}") for n in found if not ours or isinstance(names[n], types.ModuleType)]

    def _class(self, x: Any, name: str) -> Iterable[tuple[Any, str]]:
        held: list[tuple[Any, str]] = []
        for c in x.__mro__:
            if vars(builtins).get(c.__name__) is c or issubclass(c, np.generic):
                continue
            if _is_written_in_c(c):
                raise NotCapturableError(f"it uses the class {c.__name__} ({name}), whose state cannot be seen")
            if id(c) in self._seen and c is not x:
                continue
            self._seen[id(c)] = c
            if not _is_ours(c) and set(vars(c).get("__slots__", ())) - {"__dict__", "__weakref__"}:
                raise NotCapturableError(f"it uses the class {c.__name__}, which has __slots__")
            names = vars(c)  # a new object for each call, which reads the class
            found = [n for n in {*self.attributes, "forward", "__call__"} if n in names]
            self._sizes[id(c)] = names, len(names)
            self._items.update(((id(c), n), (names, n, names[n])) for n in found)
            if not _is_ours(c):
                held += [(names[n], f"{c.__name__}.{n}") for n in found]
        return held

    def _all_of(self, d: dict[Any, Any], name: str) -> list[tuple[Any, str]]:
        self._whole[id(d)] = d
        return [(value, f"{name}.{key}") for key, value in d.items()]

    def _named(self, d: dict[str, Any], name: str) -> list[tuple[Any, str]]:
        found = [key for key in d if key in self.attributes]
        self._size(d)
        for key in found:
            self._item(d, key)
        return [(d[key], f"{name}.{key}") for key in found]

    def _container(self, x: Any, name: str) -> list[tuple[Any, str]]:
        if isinstance(x, dict):
            self._whole[id(x)] = x
            return [(value, f"{name}[{key!r}]") for key, value in x.items()] + [(key, name) for key in x]
        self._sequences.append((x, list(x)))
        return [(value, f"an entry of {name}") for value in x]

    def has(self, x: Any) -> bool:
        """Return whether an object was reached."""
        return id(x) in self._seen

    def covers(self, other: Guards) -> bool:
        """Return whether all that ``other`` depends on is guarded here."""
        return other.attributes <= self.attributes and other.globals <= self.globals

    # ---- checking ---------------------------------------------------------------------------

    def finish(self) -> None:
        """Lay out all that is guarded in lists, so that a check is a few loops in C."""
        whole, sizes, items = list(self._whole.values()), list(self._sizes.values()), list(self._items.values())
        sequences, leaves = [x for x, _ in self._sequences], self._leaves
        self._sized = [*whole, *(d for d, _ in sizes), *sequences]
        self._lengths = [*map(len, whole), *(n for _, n in sizes), *(len(values) for _, values in self._sequences)]
        self._wholes, self._keys = whole, [key for d in whole for key in d]
        self._values = [value for d in whole for value in d.values()]
        self._item_owners, self._item_names, self._item_values = ([row[k] for row in items] for k in range(3))
        self._listed = sequences, [value for _, values in self._sequences for value in values]
        self._attributes = [[row[k] for row in self._members] for k in range(3)]
        self._contents = [cell for cell, _ in self._cells], [value for _, value in self._cells]
        self._states = [_state_of(x) for x in leaves]
        self._tensor_state = [value for state in self._states for value in state]
        self.note_gradients()

    def note_gradients(self) -> None:
        """Note which leaves have a gradient now, at the start of a call. At its end others may have one."""
        self._missing_gradients = [_has_no_gradient(x) for x in self._leaves]

    def hold(self, at_start: bool = True) -> bool:
        """Return whether nothing has changed. at_start: whether the same leaves must have gradients, too."""
        try:
            return (
                list(map(len, self._sized)) == self._lengths
                and all(map(is_, chain.from_iterable(self._wholes), self._keys))
                and all(map(is_, chain.from_iterable(map(dict.values, self._wholes)), self._values))
                and all(map(is_, map(getitem, self._item_owners, self._item_names), self._item_values))
                and all(map(is_, chain.from_iterable(self._listed[0]), self._listed[1]))
                and all(map(is_, map(getattr, *self._attributes[:2]), self._attributes[2]))
                and all(map(is_, map(_content, self._contents[0]), self._contents[1]))
                and all(map(is_, chain.from_iterable(map(_state_of, self._leaves)), self._tensor_state))
                and (not at_start or all(map(is_, map(_has_no_gradient, self._leaves), self._missing_gradients)))
                and not any(name in d for d, name in self._absent)
            )
        except (KeyError, ValueError, AttributeError, RuntimeError):
            return False


_content = attrgetter("cell_contents")


def _state_of(x: Any) -> tuple[Any, ...]:
    """Return what of a leaf a step depends on; hooks and a graph are not allowed."""
    return x.array, x.tracked, not x.hooks, x.node


def _has_no_gradient(x: Any) -> bool:
    return x.accumulated_grad is None


def _is_written_in_c(c: type) -> bool:
    """Return whether a class is not written in Python, such as ``threading.local``, so that its state is hidden."""
    module = sys.modules.get(c.__module__)
    if not c.__flags__ & (1 << 9):  # Py_TPFLAGS_HEAPTYPE, which each class in Python has
        return True
    if c.__module__ == "__main__" or module is None or vars(module).get(c.__name__) is not c:
        return False
    return not str(getattr(module, "__file__", "")).endswith((".py", ".pyc"))


def _is_ours(x: Any) -> bool:
    """Return whether a module or class belongs to this library."""
    name = getattr(x, "__name__", "") if isinstance(x, types.ModuleType) else getattr(x, "__module__", "") or ""
    return name.partition(".")[0] == __name__.partition(".")[0]
