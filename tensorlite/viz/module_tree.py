"""A module's tree as data: the paths and types of the modules inside it, and the paths of its tensors."""

from __future__ import annotations

import weakref
from typing import Any

from ..nn.module import Module

__all__ = ["ModuleTree"]


class ModuleTree:
    """The tree of a module. It keeps no module and no tensor alive.

    name: what the program calls the module, such as ``net``.
    types: the name of the class of each module, by its path; the path of the outermost one is "".
    callable: the paths of the modules that have a ``forward``. A ModuleList has none.
    """

    def __init__(self, module: Module, name: str) -> None:
        self.name = name
        self.types: dict[str, str] = {}
        self.callable: set[str] = set()
        self._paths: dict[int, tuple[weakref.ref[Any], list[str]]] = {}
        self._tensors: dict[int, tuple[weakref.ref[Any], list[str]]] = {}
        for path, inner in module.named_modules(remove_duplicate=False):
            self.types[path] = type(inner).__name__
            if type(inner).forward is not Module.forward or "forward" in vars(inner):
                self.callable.add(path)
            self._paths.setdefault(id(inner), (weakref.ref(inner), []))[1].append(path)
        for named in (module.named_parameters, module.named_buffers):
            for path, tensor in named(remove_duplicate=False):
                self._tensors.setdefault(id(tensor), (weakref.ref(tensor), []))[1].append(path)

    def paths(self, module: object) -> list[str]:
        """Return the paths of a module in this tree: several if several attributes hold it, none if it is not here."""
        found = self._paths.get(id(module))
        return found[1] if found is not None and found[0]() is module else []

    def tensor_paths(self, tensor: object) -> list[str]:
        """Return the paths of a parameter or a buffer: several if it is tied, none if it is not here."""
        found = self._tensors.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else []

    def tensors(self) -> list[tuple[str, Any]]:
        """Return the parameters and buffers that are alive, each with its first path."""
        alive = ((paths[0], reference()) for reference, paths in self._tensors.values())
        return [(path, tensor) for path, tensor in alive if tensor is not None]

    def parent(self, path: str) -> str | None:
        """Return the path of the nearest module around a path that has a ``forward``; None for the outermost one.

        The outermost module counts in any case.
        """
        while path:
            path = path.rpartition(".")[0]
            if not path or path in self.callable:
                return path
        return None
