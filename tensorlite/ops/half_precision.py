"""Functions of several ops that compute float16 in float32 and round once.

A single op does so if it is defined with ``op(widen=True)``. Inside ``autocast`` these functions compute as one op of
their class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from ..autograd.autocast_mode import cast_tensors, casting, without_autocast
from ..dtypes import accumulate_dtype, convert_arrays, narrow_dtype

__all__ = ["rounds_once"]

F = TypeVar("F", bound=Callable[..., Any])


def rounds_once(f: F) -> F:
    """Make f convert float16 Tensors to float32 before it computes, and its result back. Gradients flow through."""

    @functools.wraps(f)
    def widened(*args: Any, **kwargs: Any) -> Any:
        if casting.active and (converted := cast_tensors(f, args, kwargs)) is not None:
            return without_autocast(f, *converted[0], **converted[1])
        narrow = narrow_dtype((*args, *kwargs.values()))
        if narrow is None:
            return f(*args, **kwargs)
        wide = accumulate_dtype(narrow)
        named = dict(zip(kwargs, convert_arrays(kwargs.values(), narrow, wide), strict=True))
        return convert_arrays([f(*convert_arrays(args, narrow, wide), **named)], wide, narrow)[0]

    return cast(F, widened)
