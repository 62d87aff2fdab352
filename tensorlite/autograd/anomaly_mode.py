"""Anomaly detection: find the op that made the first NaN or infinity."""

from __future__ import annotations

import linecache
import sys
import threading
from typing import Any

from ..backends.registry import BACKENDS, Array
from ..dtypes import kind_of
from ..errors import AnomalyError
from .graph import Output
from .shared_state import shared_state

__all__ = ["call_site", "check_backward", "check_forward", "check_infinities", "detect_anomaly", "enabled"]

enabled = 0
"""The number of open ``detect_anomaly()`` blocks in all threads. If it is zero, ops check nothing."""


class _State(threading.local):
    """The state of a thread: the number of its open ``detect_anomaly()`` blocks."""

    depth = 0


_state = _State()


class detect_anomaly:
    """Context manager in which the first op that makes a NaN or a harmful infinity raises AnomalyError.

    The error names the op, forward or backward, and the line of your code that called it. Where an infinity led to the
    NaN, it names the op that made it, too, if a gradient flows through that op. An op whose inputs already
    contain such a value (a mask filled with ``-inf``, say) raises nothing.

    An infinity in the forward pass can be intended: ``log(0)`` as a mask, say. So it raises in the backward pass, if a
    gradient that is not 0 arrives at it. Every result is checked, so this is slow. It applies to this thread's ops.
    """

    def __enter__(self) -> None:
        global enabled
        with shared_state:
            enabled += 1
        _state.depth += 1

    def __exit__(self, *exc: object) -> None:
        global enabled
        with shared_state:
            enabled -= 1
        _state.depth -= 1


def call_site() -> str:
    """Return the innermost line of the call stack outside this package, as text."""
    package = __name__.partition(".")[0] + "."
    frame = sys._getframe(1)
    while frame.f_back is not None and (frame.f_globals.get("__name__", "") + ".").startswith(package):
        frame = frame.f_back
    file, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(file, line).strip()
    return f"{file}:{line}, in {frame.f_code.co_name}" + (f": {text}" if text else "")


def introduced_nonfinite(values: list[Any], out: Array) -> str | None:
    """Return "NaN" or "infinity" if ``out`` contains one and the values it was made from do not; else None."""
    if kind_of(out.dtype) not in "fc":
        return None
    xp = BACKENDS[type(out)]
    if bool(xp.isfinite(out).all()):
        return None
    numbers = [v for v in values if isinstance(v, float) or (type(v) in BACKENDS and kind_of(v.dtype) in "fc")]
    numbers = [xp.asarray(v) if isinstance(v, float) else v for v in numbers]
    given_nan = any(bool(xp.isnan(v).any()) for v in numbers)
    if bool(xp.isnan(out).any()):
        return None if given_nan else "NaN"
    given_inf = any(bool(xp.isinf(v).any()) for v in numbers)
    return None if given_inf or given_nan else "infinity"


def check_forward(op: str, values: list[Any], out: Array, place: Any) -> None:
    """Raise AnomalyError if an op made a NaN. Remember the infinities that it made.

    values: the raw arguments of the op. out: its result. place: the node of that result, or None. The node that runs
    the op's rules gets the line that called the op.
    """
    if not _state.depth:
        return
    where = call_site()
    if place is not None:
        place.where = where
        if isinstance(place, Output):  # one of several results
            place.edges[0].where = where  # type: ignore[union-attr]
    what = introduced_nonfinite(values, out)
    if what == "infinity" and place is not None:
        place.infinite = BACKENDS[type(out)].isinf(out)
    elif what == "NaN":
        source = source_of_infinity(place)
        message = f"{op}: the forward pass made the first {what} here\n  {where}"
        if source is not None:
            message += f"\n  its input has an infinity, which {source.name} made\n  {source.where}"
        raise AnomalyError(message)


def source_of_infinity(place: Any) -> Any:
    """Return the oldest node before another one whose op made an infinity, or None. place: a node or None."""
    found, waiting, seen = None, [place], {id(place)}
    while waiting:
        for edge in getattr(waiting.pop(), "edges", ()):  # A leaf has none.
            if id(edge) in seen:
                continue
            seen.add(id(edge))
            waiting.append(edge)
            if getattr(edge, "infinite", None) is not None and (found is None or edge.seq < found.seq):
                found = edge
    return found


def check_infinities(node: Any, gradient: Any) -> None:
    """Raise AnomalyError if a gradient arrives at an infinity that the forward pass of the node's op made.

    gradient: the raw gradient of the node's result.
    """
    if not _state.depth or node.infinite is None:
        return
    met = node.infinite & (gradient != 0)
    if bool(met.any()):
        raise AnomalyError(
            f"{node.name}: the forward pass made the first infinity, and a gradient arrives at it\n"
            f"  forward call: {node.where}"
        )


def check_backward(op: str, where: str | None, values: list[Any], gradient: Array, name: str) -> None:
    """Raise AnomalyError if a gradient rule made a NaN or an infinity.

    where: the line that called the op, if known. values: the raw inputs of the rule. gradient: its result.
    name: the argument that the gradient is for.
    """
    if not _state.depth:
        return
    what = introduced_nonfinite(values, gradient)
    if what is not None:
        called = (
            f"\n  forward call: {where}" if where else " (run the forward pass under detect_anomaly() to see its line)"
        )
        raise AnomalyError(f"{op}: the backward pass made the first {what}, in the gradient of {name!r}{called}")
