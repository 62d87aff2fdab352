"""Make methods from functions: reflected operators, methods that take sizes one by one, conversions to a dtype."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ..dtypes import DType, as_dtype
from .arguments import flatten_sizes
from .convert import to_dtype

__all__ = ["to_method", "reflected", "with_sizes"]


def reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the method for ``other * x`` from the op of ``x * other``."""

    def method(self: Any, other: Any) -> Any:
        return function(other, self)

    method.__name__ = f"reflected_{function.__name__}"
    method.__doc__ = f"Return ``{function.__name__}(other, self)``."
    return method


def with_sizes(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Make a method that takes ``f(2, 3)``, ``f((2, 3))`` and ``f(name=(2, 3))`` from an op that takes one tuple."""

    def method(self: Any, *sizes: Any, **named: Any) -> Any:
        if named:
            if set(named) != {name} or sizes:
                raise TypeError(f"{function.__name__}: expected sizes or {name}=, got {', '.join(map(repr, named))}")
            sizes = (named[name],)
        if len(sizes) == 1 and type(sizes[0]) is not int:
            sizes = flatten_sizes(sizes)
        return function(self, sizes)

    first = next(iter(inspect.signature(function).parameters.values()))
    rest = inspect.Parameter(name, inspect.Parameter.VAR_POSITIONAL)
    method.__signature__ = inspect.Signature([first.replace(annotation=first.empty), rest])  # type: ignore[attr-defined]
    method.__name__, method.__doc__ = function.__name__, function.__doc__
    return method


def to_method(name: str, dtype: DType | str) -> Callable[[Any], Any]:
    """Make the method that converts to one dtype."""

    def method(self: Any) -> Any:
        return to_dtype(self, dtype if isinstance(dtype, np.dtype) else as_dtype(dtype))

    method.__name__, method.__doc__ = name, f"Return this tensor as {dtype}, or itself if it is {dtype}."
    return method
