"""Containers: modules that hold other modules, or parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Generic, Self, TypeVar, overload

from ..scalars import int_in
from ..tensors.tensor import Tensor
from .module import Module
from .parameter import Parameter

__all__ = ["ModuleDict", "ModuleList", "ParameterList", "Sequential"]


T = TypeVar("T", bound=Module | Parameter)
M = TypeVar("M", bound=Module)


def _check_module(cls: type, value: object) -> Any:
    """Return the value. Raise TypeError if it is not a Module."""
    if not isinstance(value, Module):
        advice = ""
        if isinstance(value, (list, tuple)) and cls.__name__ == "Sequential":
            advice = " Unpack it: Sequential(*layers)."
        elif isinstance(value, type) and issubclass(value, Module):
            advice = f" Make one: {value.__name__}()."
        elif callable(value):
            advice = " Call it in the forward() of a module, or use a layer such as nn.ReLU()."
        raise TypeError(f"{cls.__name__}: expected a Module, got {type(value).__name__}.{advice}")
    return value


class _IndexedModule(Module, Generic[T]):
    """A module that is a sequence. Its items are attributes called "0", "1", ..."""

    def _names(self) -> list[str]:
        return [name for name, value in vars(self).items() if isinstance(value, (Module, Parameter))]

    def _name(self, index: int) -> str:
        names = self._names()
        index = int_in(type(self).__name__, "the index", index)
        if not -len(names) <= index < len(names):
            raise IndexError(f"{type(self).__name__}: index {index} is out of range for {len(names)} items")
        return names[index]

    def _replace(self, items: Iterable[T]) -> None:
        """Make these the items, numbered from 0."""
        items = list(items)
        for name in self._names():
            delattr(self, name)
        for i, item in enumerate(items):
            setattr(self, str(i), item)

    def __len__(self) -> int:
        return len(self._names())

    def __iter__(self) -> Iterator[T]:
        return iter([getattr(self, name) for name in self._names()])

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._slice(index)
        return getattr(self, self._name(index))

    def _slice(self, index: slice) -> Any:
        return type(self)(list(self)[index])  # type: ignore[call-arg]

    def __setitem__(self, index: int, item: T) -> None:
        setattr(self, self._name(index), item)

    def __delitem__(self, index: int | slice) -> None:
        items = list(self)
        del items[index]
        self._replace(items)

    def pop(self, index: int = -1) -> T:
        """Remove an item, the last one by default, and return it. Raises IndexError if there is none."""
        item = self[index]
        del self[index]
        return item

    def __iadd__(self, items: Iterable[T]) -> Self:
        return self.extend(items)

    def _check(self, item: Any) -> T:
        """Return the item as it is stored. Raise TypeError for an item of another type."""
        checked: T = _check_module(type(self), item)
        return checked

    def append(self, item: T) -> Self:
        """Add an item at the end. Return the container."""
        setattr(self, str(len(self)), self._check(item))
        return self

    def extend(self, items: Iterable[T]) -> Self:
        """Add several items at the end. Return the container."""
        for item in list(items):
            self.append(item)
        return self

    def insert(self, index: int, item: T) -> None:
        """Insert an item before the one at ``index``."""
        items = list(self)
        items.insert(index, self._check(item))
        self._replace(items)


class Sequential(_IndexedModule[Module]):
    """A module that calls other modules one after the other: each gets the result of the one before.

    modules: modules, or one mapping of names to modules.

    It can be indexed, sliced and iterated over. Raises TypeError for an item that is not a Module.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        named: Mapping[str, object]
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = modules[0]
        else:
            named = {str(i): module for i, module in enumerate(modules)}
        for name, module in named.items():
            self.add_module(name, _check_module(type(self), module))

    def _slice(self, index: slice) -> Sequential:
        return type(self)({name: getattr(self, name) for name in self._names()[index]})

    def forward(self, input: Tensor) -> Tensor:
        """Return the last module's result; the input itself if there are no modules."""
        for module in self:
            input = module(input)
        return input


class ModuleList(_IndexedModule[M]):
    """A list of modules that are part of the module that has the list. It has no ``forward``; loop over it.

    modules: the first items.

    Raises TypeError for an item that is not a Module.
    """

    def __init__(self, modules: Iterable[M] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def __add__(self, other: Iterable[M]) -> ModuleList[M]:
        return ModuleList([*self, *other])

    def _child_reprs(self) -> list[tuple[str, str]]:
        """Show equal neighbours on one line: ``(0-3): 4 x Block(...)``."""
        lines = []
        for text, group in groupby(super()._child_reprs(), key=lambda child: child[1]):
            names = [name for name, _ in group]
            several = len(names) > 1
            lines.append((f"{names[0]}-{names[-1]}", f"{len(names)} x {text}") if several else (names[0], text))
        return lines


class ModuleDict(Module, Generic[M]):
    """A dict of modules that are part of the module that has the dict. It has no ``forward``.

    modules: a mapping of names to modules, or pairs of names and modules.

    Raises TypeError for an item that is not a Module. Raises KeyError for a name that is not a string, contains a dot,
    or is an attribute of the class, such as "keys".
    """

    def __init__(self, modules: Mapping[str, M] | Iterable[tuple[str, M]] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def __len__(self) -> int:
        return len(list(self.keys()))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __getitem__(self, key: str) -> M:
        if key not in self:
            raise KeyError(f"ModuleDict: expected one of {', '.join(map(repr, self)) or 'no names'}, got {key!r}")
        module: M = getattr(self, key)
        return module

    def __setitem__(self, key: str, module: M) -> None:
        self.add_module(key, _check_module(type(self), module))

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def keys(self) -> list[str]:
        """Return the names, in order of insertion."""
        return [name for name, value in vars(self).items() if isinstance(value, Module)]

    def values(self) -> list[M]:
        """Return the modules, in order of insertion."""
        return [getattr(self, name) for name in self.keys()]

    def items(self) -> list[tuple[str, M]]:
        """Return the names and modules as pairs, in order of insertion."""
        return [(name, getattr(self, name)) for name in self.keys()]

    def update(self, modules: Mapping[str, M] | Iterable[tuple[str, M]]) -> None:
        """Add modules from a mapping of names to modules, or from pairs of names and modules."""
        for key, module in dict(modules).items():
            self[key] = module

    def clear(self) -> None:
        """Remove all modules."""
        for key in self.keys():
            delattr(self, key)

    def pop(self, key: str) -> M:
        """Remove a module and return it. Raise KeyError if there is none of that name."""
        module = self[key]
        delattr(self, key)
        return module


class ParameterList(_IndexedModule[Parameter]):
    """A list of Parameters that are part of the module that has the list.

    values: the first items. Tensors become Parameters that share their memory.

    Raises TypeError for an item that is not a Tensor.
    """

    def __init__(self, values: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.extend(values)

    def _check(self, item: Tensor) -> Parameter:
        return item if isinstance(item, Parameter) else Parameter(item)

    def append(self, item: Tensor) -> Self:
        """Add a Parameter, or a Tensor as one, at the end. Return the container."""
        return super().append(self._check(item))

    def extend(self, items: Iterable[Tensor]) -> Self:
        """Add several Parameters or Tensors at the end. Return the container."""
        return super().extend(map(self._check, items))

    def insert(self, index: int, item: Tensor) -> None:
        """Insert a Parameter, or a Tensor as one, before the one at ``index``."""
        super().insert(index, self._check(item))

    def _child_reprs(self) -> list[tuple[str, str]]:
        return [(name, f"Parameter of {p.dtype}{tuple(p.shape)}") for name, p in self.named_parameters()]
