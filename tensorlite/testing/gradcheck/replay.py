"""The call that reproduces a failure, as source text."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ...dtypes import is_floating
from ...pytree import tree_leaves
from ...tensors.tensor import Tensor
from ..report import GradientError
from .function import FunctionUnderTest, to_numpy
from .source_text import Label, source_text

__all__ = ["has_replay", "replay_call", "run_with_replay", "with_replay"]

Result = TypeVar("Result")

_REPLAY = "\nreproduce with\n    "
_MAX_PRINTED = 40  # the number of entries of all arguments together up to which the call is printed


def _format_argument(x: Any) -> str:
    """Return an argument as source text."""
    if isinstance(x, Tensor):
        x = to_numpy(x)
        text = _format_array_literal(x)
        return text if is_floating(x.dtype) else f"tl.tensor({text})"
    if isinstance(x, np.ndarray):
        return _format_array_literal(x)
    if isinstance(x, (list, tuple)):
        inside = ", ".join(map(_format_argument, x))
        return f"[{inside}]" if isinstance(x, list) else f"({inside}{',' if len(x) == 1 else ''})"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{key!r}: {_format_argument(value)}" for key, value in x.items()) + "}"
    if isinstance(x, np.dtype):
        return f"np.dtype({x.name!r})"
    if isinstance(x, float) and not math.isfinite(x):
        return f"float({str(x)!r})"
    return source_text(x) if callable(x) else repr(x)


def _format_array_literal(x: np.ndarray) -> str:
    """Return an array as source text that also recreates its memory layout, because some bugs only show for views."""
    if not x.size:
        return f"np.zeros({x.shape}{_format_dtype(x)})"
    base = x.base
    if not isinstance(base, np.ndarray) or base.dtype != x.dtype or base.size > _MAX_PRINTED:
        base = None
    elif not base.flags.c_contiguous:
        base = None
    if 0 in (step for step, n in zip(x.strides, x.shape) if n > 1):
        part = x[tuple(slice(1) if step == 0 else slice(None) for step in x.strides)]
        return f"np.broadcast_to({_format_array_literal(np.array(part))}, {x.shape})"
    if base is not None and (base.size > x.size or not x.flags.c_contiguous) and (cut := _format_slices(x, base)):
        return f"{_format_array_literal(np.array(base))}[{cut}]"
    order = ", order='F'" if x.flags.f_contiguous and not x.flags.c_contiguous else ""
    values = repr(x.tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
    return f"np.array({values}{_format_dtype(x)}{order})"


def _format_dtype(x: np.ndarray) -> str:
    return "" if x.dtype in (np.float64, np.int64, np.bool_) and x.size else f", dtype={x.dtype.name!r}"


def _format_slices(x: np.ndarray, base: np.ndarray) -> str:
    """Return the slices that make x of base, or an empty string if slices cannot."""
    start = (x.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // x.itemsize
    if not 0 <= start < base.size or base.ndim < x.ndim:
        return ""
    first, parts = np.unravel_index(start, base.shape), []
    steps = [0] * (base.ndim - x.ndim) + list(x.strides)
    sizes = [0] * (base.ndim - x.ndim) + list(x.shape)
    for at, step, size, length, stride in zip(first, steps, sizes, base.shape, base.strides):
        by = step // stride
        if not size:
            parts.append(str(at))
        elif step % stride or not by or not 0 <= (last := int(at) + by * (size - 1)) < length:
            return ""
        else:
            end = last + (1 if by > 0 else -1)
            parts.append(f"{at}:{end if end >= 0 else ''}:{by}")
    return ", ".join([*parts, "..."] if not x.ndim else parts)


def run_with_replay(
    run: Callable[[], Result], check: str, function: FunctionUnderTest, options: dict[str, Any],
    defaults: dict[str, Any],
) -> Result:  # fmt: skip
    """Return ``run()``. If it raises a GradientError, append the call that reproduces the check to the message.

    options: the options of the check. Those that have their default are left out, except for the seed.
    """
    try:
        return run()
    except GradientError as error:
        failure = error
    text = str(failure)
    if not has_replay(failure):
        shown = {k: v for k, v in options.items() if k == "seed" or not (v is defaults[k] or v == defaults[k])}
        if call := replay_call(check, function, **shown):
            text = with_replay(text, call)
    # Raise each error as a new one, at this place, and outside of the except block. hypothesis takes errors with other
    # places or other contexts for other bugs, and would not shrink an example of one to an example of the other.
    raise GradientError(text, failure.report, failure.order)


def with_replay(text: str, call: str) -> str:
    """Return a message that ends with the call that reproduces the failure."""
    return f"{text}{_REPLAY}{call}"


def has_replay(error: GradientError) -> bool:
    """Return whether the message ends with a call that reproduces the failure."""
    return _REPLAY in str(error)


def replay_call(check: str, function: FunctionUnderTest, **options: Any) -> str:
    """Return the call that repeats a check, in one line. Return an empty string if the arguments are too large.

    A Tensor or array that is passed twice is one there, too.
    """
    args, kwargs = function.original_call
    leaves = tree_leaves([list(args), dict(kwargs)])
    arrays = [x for x in leaves if isinstance(x, (Tensor, np.ndarray))]
    if sum(math.prod(x.shape) for x in arrays) > _MAX_PRINTED:
        return ""
    repeated = [x for k, x in enumerate(arrays) if any(x is y for y in arrays[:k])]
    shared = {id(x): f"shared{k or ''}" for k, x in enumerate({id(x): x for x in repeated}.values())}

    def text(x: Any) -> str:
        return shared.get(id(x)) or _format_argument(x)

    name = function.name
    given = [name.expression() if isinstance(name, Label) else source_text(function.f, str(name))]
    given += [text(x) for x in args]
    given += [f"{key}={text(value)}" for key, value in kwargs.items()]
    given += [f"{key}={_format_argument(value)}" for key, value in options.items()]
    call = f"{check}({', '.join(given)})"
    if not shared:
        return call
    values = {id(x): _format_argument(x) for x in repeated}
    return f"(lambda {', '.join(shared.values())}: {call})({', '.join(values[key] for key in shared)})"
