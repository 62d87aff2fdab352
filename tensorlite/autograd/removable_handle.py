"""The handle that removes a hook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

__all__ = ["RemovableHandle"]


class RemovableHandle:
    """The handle of a hook: ``remove()`` removes it. As a context manager, it removes the hook at the end."""

    def __init__(self, remove: Callable[[], None]) -> None:
        self.remove = remove

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()
