"""Compare what a learner's function returned with what was expected, and say in words how they differ."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["difference", "show"]

_LARGEST_SHOWN = 24  # entries of an array that is shown as numbers
_LONGEST_SHOWN = 80  # characters of any other value


def show(value: Any) -> str:
    """Return a value as a short text: an array with its shape, a function as its docstring."""
    if isinstance(value, np.ndarray) and value.size <= _LARGEST_SHOWN:
        entries = np.array2string(value, separator=", ", max_line_width=10_000, formatter={"float_kind": _number})
        return f"array {' '.join(entries.split())} of shape {value.shape}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, tuple | list):
        text = ", ".join(map(show, value))
        if isinstance(value, list):
            return f"[{text}]"
        return f"({text},)" if len(value) == 1 else f"({text})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {show(entry)}" for key, entry in value.items()) + "}"
    if callable(value):
        return str(getattr(value, "__doc__", None) or getattr(value, "__name__", "a function"))
    try:
        text = repr(value)
    except Exception as error:  # a class of the learner may have a wrong __repr__
        return f"{_kind(value)}, whose repr raises {type(error).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def difference(expected: Any, got: Any, tolerance: float, parts: Sequence[str] = ()) -> str | None:
    """Return one sentence that says how `got` differs from `expected`, or None if it does not. NaN equals NaN.

    parts: the names of the entries, if `expected` is a tuple of results.
    """
    if got is None:
        return "The function returned None. Does it end with `return`?"
    if isinstance(expected, dict):
        return _dict_difference(expected, got, tolerance)
    if isinstance(expected, tuple):
        return _tuple_difference(expected, got, tolerance, parts)
    if isinstance(expected, np.ndarray):
        return _array_difference(expected, got, tolerance)
    if isinstance(expected, str):
        return None if type(got) is str and got == expected else f"{show(got)} is not {expected!r}."
    if not _is_number(got):
        return f"A number is expected, not {_kind(got)}."
    try:
        got = float(got)
    except OverflowError:
        return "The number is too large for a float."
    return None if _close(expected, got, tolerance) else f"{_number(got)} is not {_number(float(expected))}."


def _dict_difference(expected: dict[str, Any], got: Any, tolerance: float) -> str | None:
    if not isinstance(got, dict):
        return f"A dict is expected, not {_kind(got)}."
    if missing := [key for key in expected if key not in got]:
        return f"{missing[0]!r} is missing."
    if extra := [key for key in got if key not in expected]:
        return f"{extra[0]!r} should not be there."
    for key, value in expected.items():
        if (text := difference(value, got[key], tolerance)) is not None:
            return f"At {key!r}: {text}"
    return None


def _tuple_difference(expected: tuple[Any, ...], got: Any, tolerance: float, parts: Sequence[str]) -> str | None:
    if not isinstance(got, tuple | list):
        return f"A tuple is expected, not {_kind(got)}."
    if len(got) != len(expected):
        return f"A tuple of {len(expected)} is expected, not of {len(got)}."
    names = parts or [f"entry {i}" for i in range(len(expected))]
    for name, wanted, value in zip(names, expected, got):
        if value is None:
            return f"In {name}: None came."
        if (text := difference(wanted, value, tolerance)) is not None:
            return f"In {name}: {text}"
    return None


def _array_difference(expected: np.ndarray, got: Any, tolerance: float) -> str | None:
    if not isinstance(got, np.ndarray | np.generic):
        return f"A NumPy array is expected, not {_kind(got)}."
    got = np.asarray(got)
    if got.dtype.kind not in "iuf":
        return f"An array of numbers is expected, not of {got.dtype}."
    if got.shape != expected.shape:
        return f"The shape is {got.shape}, not {expected.shape}."
    # No solution returns nan. A typical mistake may, and a learner's function that returns the same has to be found.
    wrong = np.argwhere(~np.isclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True))
    if not len(wrong):
        return None
    first = tuple(int(i) for i in wrong[0])
    place = f" at {list(first)}" if first else ""
    return f"{len(wrong)} of {expected.size} numbers differ. The first is {show(got[first])}{place}, not " \
           f"{show(expected[first])}."  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)  # NumPy registers its real numbers, too


def _close(expected: Any, got: Any, tolerance: float) -> bool:
    return bool(np.isclose(got, float(expected), rtol=tolerance, atol=tolerance, equal_nan=True))


def _number(value: float | np.floating[Any]) -> str:
    return f"{value:.10g}"


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"
