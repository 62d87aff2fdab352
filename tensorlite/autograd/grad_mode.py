"""The grad mode of each thread: whether ops are recorded."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from threading import get_ident
from typing import Any, TypeVar, overload

from .thread_state import threads

__all__ = ["enable_grad", "inference_mode", "is_grad_enabled", "is_inference_mode_enabled", "no_grad",
           "set_grad_enabled"]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


def is_grad_enabled() -> bool:
    """Return whether this thread records ops on tensors that require gradients."""
    return threads.state.records


def is_inference_mode_enabled() -> bool:
    """Return whether this thread is inside an ``inference_mode()`` block."""
    return threads.state.inference


def _in_context(context: Callable[[], Any], f: F) -> F:
    """Return f wrapped so that each call runs inside a new ``context()``."""
    if inspect.isgeneratorfunction(f):
        raise TypeError(
            f"{f.__name__}: expected a function, got a generator function, which runs after the call. Use a with block "
            f"inside it."
        )

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with context():
            return f(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


class set_grad_enabled:
    """Context manager, function and decorator that switches recording on or off in this thread.

    ``set_grad_enabled(False)`` takes effect at once. The end of a ``with`` statement restores the old mode. A
    decorated function runs in the mode.
    """

    def __init__(self, mode: bool) -> None:
        self.mode = bool(mode)
        self._previous, threads.state.records = threads.state.records, self.mode

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        threads.state.records = self._previous

    def __call__(self, f: F) -> F:
        threads.state.records = self._previous
        return _in_context(lambda: set_grad_enabled(self.mode), f)


class _GradModeContext:
    """A context manager and decorator that sets the grad mode. It can be nested and used again."""

    mode: bool
    _previous: dict[int, Any]  # the modes before, by thread, because threads may enter one object at the same time

    @overload
    def __new__(cls, f: F) -> F: ...  # type: ignore[misc]
    @overload
    def __new__(cls, f: None = None) -> _GradModeContext: ...
    def __new__(cls, f: Any = None) -> Any:
        if f is not None:  # so that `@no_grad` works without parentheses
            return _in_context(cls, f)
        self = super().__new__(cls)
        self._previous = {}
        return self

    def __enter__(self) -> None:
        thread = get_ident()
        self._previous[thread] = (threads.state.records, self._previous.get(thread))
        threads.state.records = self.mode

    def __exit__(self, *exc: object) -> None:
        thread = get_ident()
        previous = self._previous.get(thread)
        if previous is not None:  # None if another thread entered
            threads.state.records, self._previous[thread] = previous

    def __call__(self, f: F) -> F:
        return _in_context(type(self), f)


class no_grad(_GradModeContext):
    """Context manager and decorator that switches recording off."""

    mode = False


class enable_grad(_GradModeContext):
    """Context manager and decorator that switches recording on, also within a ``no_grad()`` block."""

    mode = True


class inference_mode:
    """Context manager and decorator for code that needs no gradients, like ``torch.inference_mode``.

    ``inference_mode()`` switches recording off, ``inference_mode(False)`` switches it on. It does what ``no_grad()``
    does, at the same cost: ops that are not recorded keep no views and no versions here. Unlike in PyTorch, the
    tensors made inside are ordinary tensors. They may be changed in place and used in recorded ops afterwards, and
    ``enable_grad()`` inside records again.
    """

    mode: bool
    _previous: dict[int, Any]  # by thread

    @overload
    def __new__(cls, mode: F) -> F: ...  # type: ignore[misc]
    @overload
    def __new__(cls, mode: bool = True) -> inference_mode: ...
    def __new__(cls, mode: Any = True) -> Any:
        if callable(mode):  # so that `@inference_mode` works without parentheses
            return _in_context(cls, mode)
        self = super().__new__(cls)
        self.mode = bool(mode)
        self._previous = {}
        return self

    def __enter__(self) -> None:
        thread = get_ident()
        self._previous[thread] = (threads.state.records, threads.state.inference, self._previous.get(thread))
        threads.state.records, threads.state.inference = not self.mode, self.mode

    def __exit__(self, *exc: object) -> None:
        thread = get_ident()
        previous = self._previous.get(thread)
        if previous is not None:  # None if another thread entered
            threads.state.records, threads.state.inference, self._previous[thread] = previous

    def __call__(self, f: F) -> F:
        return _in_context(lambda: type(self)(self.mode), f)
