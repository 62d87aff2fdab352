"""The messages of failed checks: the worst entry, a hint, the arguments."""

from __future__ import annotations

import math

import numpy as np

from .compare import Comparison
from .function import FunctionUnderTest

__all__ = ["failure_message", "format_array"]

_MAX_PRINTED = 40  # the number of entries up to which a report prints a length array


def format_array(a: np.ndarray) -> str:
    """Return an array as text: dtype, shape, entries (if they are few), and its strides unless it is C-contiguous."""
    text = np.array2string(
        a, separator=", ", threshold=_MAX_PRINTED, edgeitems=2, max_line_width=10_000, floatmode="unique"
    )  # fmt: skip
    layout = "" if a.flags.c_contiguous else f", strides {tuple(s // a.itemsize for s in a.strides)}"
    return f"{a.dtype} {a.shape}{layout}  {' '.join(text.split())}"


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
    function: FunctionUnderTest, what: str, found: Comparison, labels: list[str],
    arrays: list[tuple[str, np.ndarray]], gradient: str | None = None,
) -> str:  # fmt: skip
    """Return the report of a failed comparison.

    what: the kind of derivative, such as "the gradient". labels: the names of the arrays it is taken with respect to.
    arrays: the names and values to print: arguments, cotangents and directions.
    gradient: for a higher order the argument whose gradient has the wrong derivative, if it is known.
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
    if gradient is not None and gradient != target:
        target = f"{gradient} with respect to {target}"
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
