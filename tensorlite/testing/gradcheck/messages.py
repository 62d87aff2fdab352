"""The messages of failed checks: the worst entry, a hint, the arguments, the call that reproduces the failure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...pytree import tree_leaves
from ...tensors.tensor import Tensor
from ..report import GradientError
from .compare import Comparison
from .function import FunctionUnderTest, to_numpy

__all__ = ["append_replay", "failure_message", "format_array", "has_replay", "replay_call", "with_replay"]

_REPLAY = "\nreproduce with\n    "
_MAX_PRINTED = 40  # the number of entries up to which a report prints a length array


def format_array(a: np.ndarray) -> str:
    """Return an array as text: dtype, shape, entries (if they are few), and its strides unless it is C-contiguous."""
    text = np.array2string(
        a, separator=", ", threshold=_MAX_PRINTED, edgeitems=2, max_line_width=10_000, floatmode="unique"
    )  # fmt: skip
    layout = "" if a.flags.c_contiguous else f", strides {tuple(s // a.itemsize for s in a.strides)}"
    return f"{a.dtype} {a.shape}{layout}  {' '.join(text.split())}"


def _format_argument(x: Any) -> str:
    """Return an argument as source text."""
    if isinstance(x, Tensor):
        x = to_numpy(x)
        text = _format_array_literal(x)
        return text if x.dtype.kind == "f" else f"tl.tensor({text})"
    if isinstance(x, np.ndarray):
        return _format_array_literal(x)
    if isinstance(x, (list, tuple)):
        inside = ", ".join(map(_format_argument, x))
        return f"[{inside}]" if isinstance(x, list) else f"({inside}{',' if len(x) == 1 else ''})"
    return repr(x)


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


@contextmanager
def append_replay(call: str) -> Iterator[None]:
    """Append ``call``, which reproduces the check, to the message of each GradientError raised in this block."""
    try:
        yield
    except GradientError as error:
        if not call or has_replay(error):
            raise
        raise GradientError(with_replay(str(error), call), error.report) from None


def with_replay(text: str, call: str) -> str:
    """Return a message that ends with the call that reproduces the failure."""
    return f"{text}{_REPLAY}{call}"


def has_replay(error: GradientError) -> bool:
    """Return whether the message ends with a call that reproduces the failure."""
    return _REPLAY in str(error)


def replay_call(check: str, function: FunctionUnderTest, **options: Any) -> str:
    """Return the call that repeats a check, in one line. Return an empty string if the arguments are too large."""
    args, kwargs = function.original_call
    arrays = [x for x in tree_leaves([list(args), dict(kwargs)]) if isinstance(x, (Tensor, np.ndarray))]
    if sum(math.prod(x.shape) for x in arrays) > _MAX_PRINTED:
        return ""
    given: list[str] = list(map(_format_argument, args))
    given += [f"{key}={_format_argument(value)}" for key, value in kwargs.items()]
    given += [f"{key}={value!r}" for key, value in options.items()]
    return f"{check}({', '.join([str(function.name), *given])})"


def _hint(found: Comparison) -> str:
    """Return a guess at the cause from the pattern of the wrong entries, or an empty string."""
    wrong = [e for e in found.wrong if e.position is not None and math.isfinite(e.analytic) and not e.on_kink]
    if not wrong:
        return ""
    leaves = {e.position[0] for e in wrong if e.position}
    other = any(e.analytic for e in found.right if e.position and e.position[0] in leaves)
    if not other and all(e.analytic == 0 for e in wrong):
        return "the gradient is 0. Look for detach(), numpy() or item() on the way, or for a missing rule"
    analytic, numeric = np.array([e.analytic for e in wrong]), np.array([e.numeric for e in wrong])
    if len(wrong) > 1 and (numeric != 0).all():
        ratio = analytic / numeric
        if np.ptp(ratio) <= 1e-6 * abs(ratio).max():
            return f"every wrong entry is {ratio[0]:.7g} times the correct value"
    if len(wrong) > 1:
        if np.ptp(analytic - numeric) <= 1e-6 * abs(analytic - numeric).max():
            return f"every wrong entry differs by {analytic[0] - numeric[0]:+.7g}"
        if np.allclose(np.sort(analytic), np.sort(numeric), rtol=1e-6, atol=0):
            return "the numbers are right, but in other positions. Look for a wrong axis or index"
    return ""


def _format_position(label: str, index: tuple[int, ...]) -> str:
    return f"{label}[{', '.join(map(str, index))}]" if index else label


def failure_message(
    function: FunctionUnderTest, what: str, found: Comparison, labels: list[str], arrays: list[tuple[str, np.ndarray]]
) -> str:  # fmt: skip
    """Return the report of a failed comparison.

    what: the kind of derivative, such as "the gradient". labels: the names of the arrays it is taken with respect to.
    arrays: the names and values to print: arguments, cotangents and directions.
    """
    located = [e for e in found.wrong if e.position is not None]
    worst = max(located or found.wrong, key=lambda e: (e.relative, e.difference))
    right = [e for e in found.right if e.position is not None]
    if worst.position is None:
        target = labels[0] if len(labels) == 1 else "some argument"
        position = "along a direction that moves every entry"
    else:
        leaf, index = worst.position
        target, position = labels[leaf], f"at {_format_position(labels[leaf], index)}"
    numeric = f"{worst.numeric:.12g}"
    if worst.on_kink:
        numeric = f"between {worst.low:.9g} and {worst.high:.9g}, the one-sided derivatives at a kink"
    method = "complex step, 1e-20" if worst.step == 0 else f"central differences of order 4, step {worst.step:.2g}"
    counts = []
    for k, label in enumerate(labels):
        bad, good = (sum(e.position[0] == k for e in some if e.position) for some in (located, right))
        if bad or good:
            counts.append(f"{label}: {bad} of {bad + good}")
    lines = [
        f"{function.name}: {what} of {target} is wrong",
        "",
        f"{position}:",
        f"    analytic       {worst.analytic:.12g}",
        f"    numeric        {numeric}",
        f"    difference     {worst.difference:.3g} (relative: {worst.relative:.3g})",
        f"    method         {method}, error about {max(worst.error, 1e-16 * worst.terms):.1e}",
        f"    wrong entries  {', '.join(counts) or '-'}",
    ]
    if hint := _hint(found):
        lines.append(f"    hint           {hint}")
    lines.append("arguments")
    width = max(len(label) for label, _ in arrays)
    lines += [f"    {label:<{width}}  {format_array(a)}" for label, a in arrays]
    return "\n".join(lines)
