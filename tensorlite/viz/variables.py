"""The Tensors and Modules that variables of a program hold, with the names that its author gave them."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from functools import partial
from types import FrameType, FunctionType, MemberDescriptorType, MethodType, ModuleType, SimpleNamespace
from typing import Any

from ..nn.module import Module
from ..tensors.tensor import Tensor

__all__ = ["found_in", "module_name", "variables_of", "variables_of_function"]

_DEPTH = 4  # how many steps a name may have: self.layers[0]["w"] has three
_LIMIT = 100_000  # the number of objects after which the search ends, because a program may hold a data set
_LONGEST = 1_000  # the number of entries of a list or a dict that are looked at
_SESSION = re.compile(r"[@.].*|In|Out|exit|quit|get_ipython|_+|_i+|_i?\d+|_[iod]h")  # of IPython and pytest
_PLAIN = {int, float, bool, str, bytes, type(None)}  # types that hold nothing
_INLINE = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}  # code that sees the variables around it, too


def variables_of(frame: FrameType | None) -> dict[str, Any]:
    """Return the variables that code of a frame sees: its local ones first, then global ones that they do not hide.

    Names that begin with an underscore come last, because others say more.
    """
    if frame is None:
        return {}
    local, shared = locals_of(frame), frame.f_globals
    while frame.f_code.co_name in _INLINE and frame.f_back is not None and frame.f_back.f_globals is shared:
        frame = frame.f_back
        local = {**locals_of(frame), **local}
    return _ordered({**local, **{name: value for name, value in list(shared.items()) if name not in local}})


def locals_of(frame: FrameType) -> dict[str, Any]:
    """Return the local variables of a frame."""
    seen = frame.f_locals
    found = dict(seen)
    # Before Python 3.13 the frame of a function keeps this dict, and so what its variables held until it returns.
    if sys.version_info < (3, 13) and frame.f_code.co_flags & inspect.CO_OPTIMIZED and sys.gettrace() is None:
        seen.clear()
    return found


def variables_of_function(function: Any) -> dict[str, Any]:
    """Return the variables that a function sees without arguments: those of its closure, and global ones that it names.

    A bound method has its object as ``self``, as has an object that is called. The arguments of a ``functools.partial``
    have the names of the function's parameters.
    """
    found: dict[str, Any] = {}
    if isinstance(function, partial):
        with suppress(TypeError, ValueError):
            found |= inspect.signature(function.func).bind_partial(*function.args, **function.keywords).arguments
        return _ordered({**found, **variables_of_function(function.func)})
    if not isinstance(function, (FunctionType, MethodType)):
        function = getattr(function, "__call__", None)  # noqa: B004  # an object with this method
    if isinstance(function, MethodType):
        found["self"], function = function.__self__, function.__func__
    if isinstance(function, FunctionType):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with suppress(ValueError):  # a variable that is assigned later
                found[name] = cell.cell_contents
        used = set(function.__code__.co_names)
        found |= {name: value for name, value in function.__globals__.items() if name in used and name not in found}
    return _ordered(found)


def _ordered(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return variables in order, those with names for internal use last."""
    return dict(sorted(variables.items(), key=lambda item: item[0].startswith(("_", "."))))


def found_in(variables: Mapping[str, Any]) -> Iterator[tuple[str, Tensor | Module]]:
    """Iterate over the Tensors and Modules that variables hold, with expressions for them, the shortest first.

    It looks into lists, tuples, dicts and the attributes of objects: ``ws[0]``, ``state["w"]``, ``self.w``. It runs no
    code of the objects, so values of properties are not found. The inside of a Module is left to its own methods. The
    names that a notebook gives to its cells' results are left out.
    """
    level: list[tuple[str, Any]] = [(k, v) for k, v in variables.items() if not _SESSION.fullmatch(k)]
    seen: set[int] = set()
    classes: dict[int, _Class] = {}
    for _ in range(_DEPTH):
        for name, value in level:
            if isinstance(value, (Tensor, Module)):
                yield name, value
        below: list[tuple[str, Any]] = []
        for name, value in level:
            if id(value) not in seen and len(below) < _LIMIT:
                seen.add(id(value))
                below += (part for part in _parts(name, value, classes) if type(part[1]) not in _PLAIN)
        level = below


def _parts(name: str, value: Any, classes: dict[int, _Class]) -> Iterator[tuple[str, Any]]:
    """Iterate over what a container or an object holds, with expressions for it."""
    kind = type(value)
    if isinstance(value, list):
        first = list(list.__getitem__(value, slice(_LONGEST)))
        if not all(type(item) in _PLAIN for item in first):
            yield from ((f"{name}[{i}]", item) for i, item in enumerate(first))
    elif isinstance(value, tuple):
        fields = getattr(kind, "_fields", ())
        for i, item in enumerate(tuple.__getitem__(value, slice(_LONGEST))):
            yield f"{name}.{fields[i]}" if i < len(fields) else f"{name}[{i}]", item
    elif isinstance(value, dict):
        for i, (key, item) in enumerate(list(dict.items(value))):
            if i >= _LONGEST:
                return
            if isinstance(key, (str, int, float, bool, tuple)):
                yield f"{name}[{key!r:.40}]", item
    elif isinstance(value, (Tensor, ModuleType, FunctionType, MethodType)):
        return
    elif isinstance(value, Module):  # its tensors have names of their own, except lists and dicts of them
        for attribute, item in _attributes(value, classes):
            if not isinstance(item, Module) and not attribute.startswith("_"):
                yield f"{name}.{attribute}", item
    else:
        for attribute, item in _attributes(value, classes):
            if not attribute.startswith("__"):
                yield f"{name}.{attribute}", item


class _Class:
    """What a search looks at in the objects of a class.

    package: the first part of the name of the class's module. slots: the descriptors of its slots, by name.
    attributes: those of the class that may be or hold Tensors and Modules.
    """

    def __init__(self, cls: type) -> None:
        self.package = cls.__module__.partition(".")[0]
        self.slots: dict[str, MemberDescriptorType] = {}
        every: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            if base.__module__.partition(".")[0] not in ("builtins", "tensorlite"):
                every |= vars(base)
                self.slots |= {k: v for k, v in vars(base).items() if isinstance(v, MemberDescriptorType)}
        self.attributes = {k: v for k, v in every.items() if self.is_held(v)}

    def is_held(self, item: Any) -> bool:
        """Return whether the search goes on in an attribute: not in objects of other packages."""
        if isinstance(item, (Tensor, Module, list, tuple, dict, SimpleNamespace)) or is_dataclass(item):
            return True
        return type(item).__module__.partition(".")[0] == self.package != "builtins" and not isinstance(item, type)


def _attributes(value: Any, classes: dict[int, _Class]) -> list[tuple[str, Any]]:
    """Return the attributes of an object and of its class that may be or hold Tensors and Modules.

    classes: those that this search has seen, by their ids, because a metaclass may forbid their hash.
    """
    own: dict[str, Any] = {}
    with suppress(AttributeError):
        own |= object.__getattribute__(value, "__dict__")
    is_class = isinstance(value, type)
    cls = value if is_class else type(value)
    known = classes.get(id(cls))
    if known is None:
        known = classes[id(cls)] = _Class(cls)
    if not is_class:
        for slot, descriptor in known.slots.items():
            with suppress(AttributeError):  # a slot that is not set
                own[slot] = descriptor.__get__(value)
    inherited = [(k, v) for k, v in known.attributes.items() if k not in own]
    return [*inherited, *((k, v) for k, v in own.items() if isinstance(k, str) and known.is_held(v))]


def module_name(module: Module, frame: FrameType | None) -> str:
    """Return what a frame calls a module: ``net`` or ``self.net``, or else the name of its class."""
    for name, value in found_in(variables_of(frame)):
        if value is module:
            return name
    return type(module).__name__
