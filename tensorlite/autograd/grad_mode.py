"""The grad mode of each thread: whether ops are recorded."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

__all__ = ["enable_grad", "grad_mode", "is_grad_enabled", "no_grad", "set_grad_enabled"]

F = TypeVar("F", bound=Callable[..., Any])


class GradMode(threading.local):
    """Whether ops are recorded, in each thread."""

    enabled = True


grad_mode = GradMode()


def is_grad_enabled() -> bool:
    """Whether ops on tensors that require gradients are recorded, in this thread."""
    return grad_mode.enabled


def _decorated(mode: Callable[[], Any], f: F) -> F:
    """f, each call of which runs in a new ``mode()``."""
    if inspect.isgeneratorfunction(f):
        raise TypeError(f"{f.__name__}: a generator runs between its calls; use a with block inside it instead")

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with mode():
            return f(*args, **kwargs)

    return cast(F, wrapped)


class set_grad_enabled:
    """Switch recording on or off in this thread: at once, for a ``with`` block, or in the decorated function."""

    def __init__(self, mode: bool) -> None:
        self.mode = bool(mode)
        self._old, grad_mode.enabled = grad_mode.enabled, self.mode

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        grad_mode.enabled = self._old

    def __call__(self, f: F) -> F:
        grad_mode.enabled = self._old
        return _decorated(lambda: set_grad_enabled(self.mode), f)


class _GradMode:
    """A context manager and decorator that sets the grad mode, nestable and reusable."""

    mode: bool

    def __new__(cls, f: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if f is None else _decorated(cls, f)  # `@no_grad` without its parentheses

    def __init__(self) -> None:
        self._old: list[bool] = []

    def __enter__(self) -> None:
        self._old.append(grad_mode.enabled)
        grad_mode.enabled = self.mode

    def __exit__(self, *exc: object) -> None:
        grad_mode.enabled = self._old.pop()

    def __call__(self, f: F) -> F:
        return _decorated(type(self), f)


class no_grad(_GradMode):
    """Record nothing inside this ``with`` block, or inside the decorated function."""

    mode = False


class enable_grad(_GradMode):
    """Record again inside this ``with`` block, or inside the decorated function."""

    mode = True
