"""What a failed check says: the worst entry, the arguments, a hint, and the call that repeats it."""

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
from .function import Subject, host

__all__ = ["message", "repeatable", "replay", "shown"]

_SHOWN = 40  # entries of an array that a report prints


def shown(a: np.ndarray) -> str:
    """An array in a report: its entries if they are few, and how it lies in memory if that is unusual."""
    text = np.array2string(a, separator=", ", threshold=_SHOWN, edgeitems=2, max_line_width=10_000, floatmode="unique")
    layout = "" if a.flags.c_contiguous else f", strides {tuple(s // a.itemsize for s in a.strides)}"
    return f"{a.dtype} {a.shape}{layout}  {' '.join(text.split())}"


def _literal(x: Any) -> str:
    """An argument as one would write it."""
    if isinstance(x, Tensor):
        x = host(x)
        text = _array_literal(x)
        return text if x.dtype.kind == "f" else f"tl.tensor({text})"
    if isinstance(x, np.ndarray):
        return _array_literal(x)
    if isinstance(x, (list, tuple)):
        inside = ", ".join(map(_literal, x))
        return f"[{inside}]" if isinstance(x, list) else f"({inside}{',' if len(x) == 1 else ''})"
    return repr(x)


def _array_literal(x: np.ndarray) -> str:
    """``x``, and as it lies in memory: what only fails for views has to fail again."""
    if not x.size:
        return f"np.zeros({x.shape}{_dtype(x)})"
    base = x.base
    if not isinstance(base, np.ndarray) or base.dtype != x.dtype or base.size > _SHOWN or not base.flags.c_contiguous:
        base = None
    if 0 in (step for step, n in zip(x.strides, x.shape) if n > 1):
        part = x[tuple(slice(1) if step == 0 else slice(None) for step in x.strides)]
        return f"np.broadcast_to({_array_literal(np.array(part))}, {x.shape})"
    if base is not None and (base.size > x.size or not x.flags.c_contiguous) and (cut := _cut(x, base)):
        return f"{_array_literal(np.array(base))}[{cut}]"
    order = ", order='F'" if x.flags.f_contiguous and not x.flags.c_contiguous else ""
    values = repr(x.tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
    return f"np.array({values}{_dtype(x)}{order})"


def _dtype(x: np.ndarray) -> str:
    return "" if x.dtype in (np.float64, np.int64, np.bool_) and x.size else f", dtype={x.dtype.name!r}"


def _cut(x: np.ndarray, base: np.ndarray) -> str:
    """The slices that make x of base; empty if plain slices do not."""
    start = (x.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // x.itemsize
    if not 0 <= start < base.size or base.ndim < x.ndim:
        return ""
    first, parts = np.unravel_index(start, base.shape), []
    steps = [0] * (base.ndim - x.ndim) + list(x.strides)
    sizes = [0] * (base.ndim - x.ndim) + list(x.shape)
    for at, step, size, whole, stride in zip(first, steps, sizes, base.shape, base.strides):
        by = step // stride
        if not size:
            parts.append(str(at))
        elif step % stride or not by or not 0 <= (last := int(at) + by * (size - 1)) < whole:
            return ""
        else:
            end = last + (1 if by > 0 else -1)
            parts.append(f"{at}:{end if end >= 0 else ''}:{by}")
    return ", ".join([*parts, "..."] if not x.ndim else parts)


@contextmanager
def repeatable(again: str) -> Iterator[None]:
    """Every GradientError from here ends with the call that repeats the check."""
    try:
        yield
    except GradientError as error:
        if not again or "\nreplay\n" in str(error):
            raise
        raise GradientError(f"{error}\nreplay\n    {again}", error.report) from None


def replay(check: str, subject: Subject, **options: Any) -> str:
    """The call that repeats a check, in one line; empty if the arguments are too large to write down."""
    args, kwargs = subject.original
    arrays = [x for x in tree_leaves([list(args), dict(kwargs)]) if isinstance(x, (Tensor, np.ndarray))]
    if sum(math.prod(x.shape) for x in arrays) > _SHOWN:
        return ""
    given: list[str] = [*map(_literal, args), *(f"{key}={_literal(value)}" for key, value in kwargs.items())]
    given += [f"{key}={value!r}" for key, value in options.items()]
    return f"{check}({', '.join([str(subject.name), *given])})"


def _hint(found: Comparison) -> str:
    wrong = [e for e in found.wrong if e.where is not None and math.isfinite(e.analytic) and not e.on_kink]
    if not wrong:
        return ""
    leaves = {e.where[0] for e in wrong if e.where}
    other = any(e.analytic for e in found.right if e.where and e.where[0] in leaves)
    if not other and all(e.analytic == 0 for e in wrong):
        return "the gradient is 0: is something cut from the graph (detach, numpy, item), or a rule missing?"
    analytic, numeric = np.array([e.analytic for e in wrong]), np.array([e.numeric for e in wrong])
    if len(wrong) > 1 and (numeric != 0).all():
        ratio = analytic / numeric
        if np.ptp(ratio) <= 1e-6 * abs(ratio).max():
            return f"every wrong entry is {ratio[0]:.7g} times what it should be"
    if len(wrong) > 1:
        if np.ptp(analytic - numeric) <= 1e-6 * abs(analytic - numeric).max():
            return f"every wrong entry is off by {analytic[0] - numeric[0]:+.7g}"
        if np.allclose(np.sort(analytic), np.sort(numeric), rtol=1e-6, atol=0):
            return "the numbers are right but in other places: an axis or an index is mixed up"
    return ""


def _place(label: str, index: tuple[int, ...]) -> str:
    return f"{label}[{', '.join(map(str, index))}]" if index else label


def message(
    subject: Subject, what: str, found: Comparison, labels: list[str], arrays: list[tuple[str, np.ndarray]]
) -> str:  # fmt: skip
    located = [e for e in found.wrong if e.where is not None]
    worst = max(located or found.wrong, key=lambda e: (e.relative, e.difference))
    right = [e for e in found.right if e.where is not None]
    if worst.where is None:
        target, place = labels[0] if len(labels) == 1 else "some argument", "along a direction that moves every entry"
    else:
        leaf, index = worst.where
        target, place = labels[leaf], f"at {_place(labels[leaf], index)}"
    numeric = f"{worst.numeric:.12g}"
    if worst.on_kink:
        numeric = f"between {worst.low:.9g} and {worst.high:.9g}, from the two sides of a kink"
    method = "complex step, 1e-20" if worst.step == 0 else f"central differences of order 4, step {worst.step:.2g}"
    lines = [
        f"{subject.name}: {what} of {target} is wrong",
        "",
        f"{place}:",
        f"    analytic  {worst.analytic:.12g}",
        f"    numeric   {numeric}",
        f"    off by    {worst.difference:.3g}, a relative error of {worst.relative:.3g}",
        f"    method    {method}, good to {max(worst.error, 1e-16 * worst.terms):.1e}",
    ]
    tally = []
    for k, label in enumerate(labels):
        bad, good = (sum(e.where[0] == k for e in some if e.where) for some in (located, right))
        if bad or good:
            tally.append(f"{label}: {bad} of {bad + good} wrong")
    lines.append(f"    in all    {', '.join(tally)}" if tally else "    in all    -")
    if hint := _hint(found):
        lines.append(f"    hint      {hint}")
    lines.append("with")
    width = max(len(label) for label, _ in arrays)
    lines += [f"    {label:<{width}}  {shown(a)}" for label, a in arrays]
    return "\n".join(lines)
