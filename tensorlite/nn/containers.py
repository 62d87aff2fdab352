"""Modules that hold modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from ..tensors.tensor import Tensor
from .module import Module
from .parameter import Parameter

__all__ = ["ModuleDict", "ModuleList", "ParameterList", "Sequential"]


def _require_module(cls: type, value: object) -> Module:
    if not isinstance(value, Module):
        raise TypeError(f"{cls.__name__}: expected a Module, got {type(value).__name__}")
    return value


class _IndexedModule(Module):
    """A sequence whose items are attributes called "0", "1", ..."""

    def _names(self) -> list[str]:
        return [name for name, value in vars(self).items() if isinstance(value, (Module, Parameter))]

    def _name(self, index: int) -> str:
        names = self._names()
        if not isinstance(index, int):
            raise TypeError(f"{type(self).__name__}: the index must be an int or a slice, got {index!r}")
        if not -len(names) <= index < len(names):
            raise IndexError(f"{type(self).__name__}: index {index} is out of range, it has {len(names)} items")
        return names[index]

    def _replace(self, items: Iterable[Any]) -> None:
        items = list(items)
        for name in self._names():
            delattr(self, name)
        for i, item in enumerate(items):
            setattr(self, str(i), item)

    def __len__(self) -> int:
        return len(self._names())

    def __iter__(self) -> Iterator[Any]:
        return iter([getattr(self, name) for name in self._names()])

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._slice(index)
        return getattr(self, self._name(index))

    def _slice(self, index: slice) -> Any:
        return type(self)(list(self)[index])  # type: ignore[call-arg]

    def __setitem__(self, index: int, item: Any) -> None:
        setattr(self, self._name(index), item)

    def __delitem__(self, index: int | slice) -> None:
        items = list(self)
        del items[index]
        self._replace(items)

    def _check(self, item: Any) -> Any:
        return _require_module(type(self), item)

    def append(self, item: Any) -> Any:
        """Put an item at the end. Returns the container."""
        setattr(self, str(len(self)), self._check(item))
        return self

    def extend(self, items: Iterable[Any]) -> Any:
        """Put several items at the end. Returns the container."""
        for item in list(items):
            self.append(item)
        return self

    def insert(self, index: int, item: Any) -> None:
        """Put an item before the one that is at ``index`` now."""
        items = list(self)
        items.insert(index, self._check(item))
        self._replace(items)


class Sequential(_IndexedModule):
    """The modules one after the other: each gets what the one before it returned.

    Takes modules as arguments, or one mapping of names to modules. Can be indexed and sliced.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = dict(modules[0])
        else:
            named = {str(i): module for i, module in enumerate(modules)}  # type: ignore[misc]
        for name, module in named.items():
            self.add_module(name, _require_module(type(self), module))

    def _slice(self, index: slice) -> Sequential:
        return type(self)({name: getattr(self, name) for name in self._names()[index]})

    def forward(self, input: Any) -> Any:
        """What the last module makes of it all; the input itself if there is none."""
        for module in self:
            input = module(input)
        return input


class ModuleList(_IndexedModule):
    """A list of modules whose parameters are found. It has no ``forward``: loop over it."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def _child_reprs(self) -> list[tuple[str, str]]:
        """Equal neighbours on one line: ``(0-3): 4 x Block(...)``."""
        lines = []
        for text, group in groupby(super()._child_reprs(), key=lambda child: child[1]):
            names = [name for name, _ in group]
            several = len(names) > 1
            lines.append((f"{names[0]}-{names[-1]}", f"{len(names)} x {text}") if several else (names[0], text))
        return lines


class ModuleDict(Module):
    """A dict of modules whose parameters are found. It has no ``forward``.

    Keys are strings without dots, and not names that the class itself has, such as "keys": KeyError.
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def __len__(self) -> int:
        return len(list(self.keys()))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __getitem__(self, key: str) -> Any:
        if key not in self:
            raise KeyError(f"ModuleDict: no module {key!r}; it has {', '.join(map(repr, self)) or 'none'}")
        return getattr(self, key)

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, _require_module(type(self), module))

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def keys(self) -> list[str]:
        """The names, in order of insertion."""
        return [name for name, value in vars(self).items() if isinstance(value, Module)]

    def values(self) -> list[Any]:
        """The modules, in order of insertion."""
        return [getattr(self, name) for name in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        """Names and modules, in order of insertion."""
        return [(name, getattr(self, name)) for name in self.keys()]

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add the modules of a mapping, or of pairs of names and modules."""
        for key, module in dict(modules).items():
            self[key] = module

    def pop(self, key: str) -> Any:
        """Take a module out and return it."""
        module = self[key]
        delattr(self, key)
        return module


class ParameterList(_IndexedModule):
    """A list of Parameters that are found; Tensors become Parameters."""

    def __init__(self, values: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.extend(values)

    def _check(self, item: Any) -> Parameter:
        return item if isinstance(item, Parameter) else Parameter(item)

    def _child_reprs(self) -> list[tuple[str, str]]:
        return [(name, f"Parameter of {p.dtype}{tuple(p.shape)}") for name, p in self.named_parameters()]
