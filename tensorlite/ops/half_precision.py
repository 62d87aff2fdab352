"""Functions of several ops that compute float16 in float32 and round once.

A single op does so if it is defined with ``op(widen=True)``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from ..dtypes import accumulate_dtype, convert_arrays, narrow_dtype

__all__ = ["rounds_once"]

F = TypeVar("F", bound=Callable[..., Any])


def rounds_once(f: F) -> F:
    """Make f convert float16 Tensors to float32 before it computes, and its result back. Gradients flow through."""

    @functools.wraps(f)
    def widened(*args: Any, **kwargs: Any) -> Any:
        narrow = narrow_dtype((*args, *kwargs.values()))
        if narrow is None:
            return f(*args, **kwargs)
        wide = accumulate_dtype(narrow)
        named = dict(zip(kwargs, convert_arrays(kwargs.values(), narrow, wide), strict=True))
        return convert_arrays([f(*convert_arrays(args, narrow, wide), **named)], wide, narrow)[0]

    return cast(F, widened)
