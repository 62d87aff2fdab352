"""Strategies for the entries of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from ...dtypes import as_dtype, float64
from .arguments import Shape, as_int
from .conversion import to_array
from .primitives import byte_strings, integers

__all__ = ["Array", "ElementsLike", "TieFree", "away_from", "draw_entries", "elements", "entry_source",
           "is_near_by", "shifted", "tie_free"]  # fmt: skip

Array: TypeAlias = np.ndarray[Any, Any]
ElementsLike: TypeAlias = "str | SearchStrategy[Any] | TieFree"
"""The kind of entries: its name, a strategy for one entry, or :func:`tie_free`."""

_TABLE_SIZE = 256  # an entry is drawn as one byte, an index into a table of numbers
_SPREAD = 4  # one array in four has most of its entries from all sizes, and one of two scalars
_FEW = 16  # the number of moderate entries in such an array's table


def _by_simplicity(values: Iterable[float]) -> list[float]:
    """Return the values in the order in which examples shrink: 0, 1, -1, 2, ..., then halves, quarters, eighths."""
    return sorted(set(values), key=lambda x: (next(d for d in (1, 2, 4, 8) if x * d % 1 == 0), abs(x), x < 0))


_DYADIC = _by_simplicity(k / 8 for k in range(-32, 33))

# Numbers of all sizes. A rule may be wrong in a part of the axis only: within a narrow branch, where a guard against 0
# is active, beyond a threshold. The sizes below 1/8 are powers of two, so that x + h has no rounding error.
_TINY = [2.0**-k for k in (21, 22, 24, 27, 30, 40)]
_SMALL = [2.0**-k for k in (4, 5, 6, 8, 10, 14, 17)]
_ABOVE = [5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0, 20.0, 25.0, 32.0, 50.0, 64.0, 100.0, 128.0, 200.0, 300.0, 500.0]
_LARGE = [800.0, 1000.0, 2000.0, 4000.0, 6000.0, 8192.0, 1e4, 2e4, 5e4, 1e5]


def _signed(values: Iterable[float]) -> list[float]:
    return [y for x in values for y in (x, -x)]


_BELOW = _signed([*_SMALL, *_TINY])
_SIZES = [*_BELOW, *_signed([*_ABOVE, *_LARGE])]
_REAL = [*_DYADIC, *_SIZES]

# The numbers of each kind, then those of them that are drawn more often.
_KINDS: dict[str, tuple[list[float], list[float]]] = {
    "real": (_REAL, [0.0] * 16 + [1.0, -1.0] * 6),
    "moderate": ([*_DYADIC, *_BELOW], [0.0] * 8),
    "nonzero": ([x for x in _REAL if x], [1.0, -1.0] * 6),
    "positive": ([x for x in _REAL if x > 0], [1.0] * 8),
    "unit": ([x for x in [*_DYADIC, *_BELOW] if abs(x) < 1], []),
    "any": (
        [*_REAL, -0.0, 1e-30, 1e30, -1e30, math.inf, -math.inf, math.nan],
        [0.0, -0.0, math.inf, math.nan] * 4,
    ),
    "int": ([float(x) for x in _by_simplicity(range(-8, 9))], [0.0] * 14),
    "bool": ([0.0, 1.0], [0.0] * 127),
}

# The tables of strategies that `elements` returned. With a table, an array is drawn as one byte string. Most arrays use
# the first table, and some the second one, in which most numbers are of other sizes.
_TABLES: WeakKeyDictionary[SearchStrategy[Any], tuple[tuple[Any, ...], tuple[Any, ...]]] = WeakKeyDictionary()

_NEAR_BY: WeakSet[SearchStrategy[Any]] = WeakSet()  # the strategies that ``is_near_by`` is true for


def _table(
    numbers: list[float], frequent: list[float], again: Callable[[float], bool] | None = None
) -> tuple[float, ...]:
    """Return 256 numbers, the simplest first: ``numbers``, ``frequent``, then those for which ``again`` holds."""
    table = [*numbers, *frequent]
    common = [x for x in numbers if (again or _is_moderate)(x)] or numbers
    while len(table) < _TABLE_SIZE:
        table += common[: _TABLE_SIZE - len(table)]
    return tuple(table[:_TABLE_SIZE])


def _is_moderate(x: float) -> bool:
    return math.isfinite(x) and 2.0**-4 < abs(x) <= 4


def _is_of_another_size(x: float) -> bool:
    return math.isfinite(x) and x != 0 and not _is_moderate(x)


def _sampled(table: tuple[Any, ...], spread: tuple[Any, ...] | None = None) -> SearchStrategy[Any]:
    strategy = st.sampled_from(table)
    _TABLES[strategy] = (table, spread or table)
    return strategy


def _sampled_numbers(numbers: list[float], frequent: list[float]) -> SearchStrategy[Any]:
    simple = [x for x in numbers if _is_moderate(x) or x == 0][:_FEW]  # an array shrinks to the first numbers
    sizes = [x for x in numbers if _is_of_another_size(x)]
    return _sampled(_table(numbers, frequent), _table([*simple, *sizes], [], _is_of_another_size))


def is_near_by(source: Any) -> bool:
    """Return whether a number close to one of ``source`` is as valid as that one."""
    return source in _NEAR_BY


def _numbers_of_kind(name: str, kind: str) -> tuple[list[float], list[float]]:
    if kind not in _KINDS:
        raise ValueError(f"{name}: unknown kind {kind!r}. Use one of {', '.join(map(repr, _KINDS))}")
    return _KINDS[kind]


def elements(kind: str = "real", *, kinks: Sequence[float] = (), below: int | None = None) -> SearchStrategy[Any]:
    """Draw one entry of a tensor.

    =============  =========================================================================================
    ``real``       multiples of 1/8 from -4 to 4, 0 and ±1 more often, and numbers of all sizes from 1e-12 to 1e5
    ``moderate``   multiples of 1/8 from -4 to 4, and smaller numbers down to 1e-12
    ``nonzero``    ``real`` without 0
    ``positive``   ``real``, those above 0
    ``unit``       ``moderate``, those above -1 and below 1
    ``any``        ``real``, and -0.0, 1e±30, infinities, NaN; not suitable for derivatives
    ``int``        integers from -8 to 8; with ``below``, from 0 to below - 1
    ``bool``       True or False
    =============  =========================================================================================

    kinks: points that a quarter of all entries lie on. All other entries are at least 1/8 away from them.
    below: for the kind ``int`` only, a number from 1 to 256.
    Raises ValueError for an unknown kind, or for a ``below`` that is out of range or given for another kind.
    """
    numbers, frequent = _numbers_of_kind("elements", kind)
    if below is not None:
        if kind != "int" or not 1 <= below <= _TABLE_SIZE:
            raise ValueError(
                f"elements: expected below from 1 to {_TABLE_SIZE} for the kind 'int', got {below} for {kind!r}"
            )
        numbers = [float(x) for x in range(below)]
    points = _as_points("elements: kinks", kinks)
    if points:
        numbers = _distant(numbers, points)
        numbers = [*_by_value(points), *numbers]
        frequent = (points * _TABLE_SIZE)[: _TABLE_SIZE // 4]
    if kind in ("int", "bool"):
        table = _table(numbers, frequent, lambda x: True)
        return _sampled(tuple(map(int if kind == "int" else bool, table)))
    if points:
        return _sampled(_table(numbers, frequent))
    strategy = _sampled_numbers(numbers, frequent)
    if kind in ("real", "moderate"):
        _NEAR_BY.add(strategy)
    return strategy


def away_from(points: Sequence[float], kind: str = "real") -> SearchStrategy[Any]:
    """Draw entries of this kind that are at least 1/8 away from each of the points: ``away_from([0])`` for ``abs``.

    Raises ValueError if no number of the kind is.
    """
    numbers, frequent = _numbers_of_kind("away_from", kind)
    numbers = _distant(numbers, _as_points("away_from: points", points))
    if not numbers:
        raise ValueError(f"away_from: no number of the kind {kind!r} is at least 1/8 away from all of {list(points)}")
    return _sampled_numbers(numbers, [x for x in frequent if x in numbers])


def _as_points(what: str, given: Any) -> list[float]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{what} must be a list of numbers, got {given!r:.60}")
    return [float(p) for p in given]


def _distant(numbers: list[float], points: list[float]) -> list[float]:
    return [x for x in numbers if not any(abs(x - p) < 0.125 for p in points)]


def _by_value(points: list[float]) -> list[float]:
    return sorted(dict.fromkeys(points), key=abs)


@dataclass(frozen=True)
class TieFree:
    """The kind of entries that :func:`tie_free` returns."""

    axis: int | None = -1


def tie_free(axis: int | None = -1) -> TieFree:
    """Return a kind of entries that differ by at least 1/8 along ``axis``, or in the whole tensor for None.

    For ``amax``, ``sort``, ``median`` and similar functions, which have a kink where two entries are equal:
    ``tensors((2, 3), elements=tie_free(-1))``. Shrinks to 0, 1, 2, ...
    """
    return TieFree(axis if axis is None else as_int("tie_free: axis", axis))


_STARTS = _table(_by_simplicity(range(-4, 5)), [], lambda x: True)
_GAPS = _table([1.0, 2.0, 0.125, 0.25, 0.5, 3.0, 10.0, 800.0], [], lambda x: x < 100)


def _row_without_ties(data: bytes, size: int) -> list[float]:
    """Return numbers that grow from a start by gaps, in some order. Takes 2 * size bytes; zeros give 0, 1, 2, ..."""
    left, x = [], _STARTS[data[0]]
    for gap in data[1:size]:
        left.append(x)
        x += _GAPS[gap]
    left.append(x)
    return [left.pop(place % len(left)) for place in data[size:]]


def draw_entries(draw: DrawFn, shape: Shape, source: SearchStrategy[Any] | TieFree, dtype: np.dtype[Any]) -> Array:
    """Draw a new C-contiguous array of entries."""
    count = math.prod(shape)
    if isinstance(source, TieFree):
        return _tie_free_values(draw, shape, source.axis).astype(dtype)
    tables = _TABLES.get(source)
    if tables is None:
        found = draw(st.lists(source, min_size=count, max_size=count)) if count else []
        return to_array(found, dtype, source).reshape(shape)
    table, spread = tables
    if spread is not table and draw(integers(0, _SPREAD - 1)) >= (_SPREAD - 1 if count > 1 else _SPREAD // 2):
        table = spread
    # An empty array takes a byte, too. Else it would be simpler than one entry, and examples would shrink to it.
    found = [table[byte] for byte in draw(byte_strings(count or 1))[:count]]
    return np.array(found, dtype).reshape(shape)


_SHIFTS = _table([0.0, *_signed([2.0**-k for k in (6, 5, 8, 10, 4, 14, 20)])], [], lambda x: True)


def shifted(draw: DrawFn, array: Array) -> Array:
    """Draw an array that is close to this one: each entry is moved by at most 1/16, or not at all."""
    shifts = [_SHIFTS[byte] for byte in draw(byte_strings(array.size or 1))[: array.size]]
    return np.asarray(array + np.array(shifts).reshape(array.shape))


def _tie_free_values(draw: DrawFn, shape: Shape, axis: int | None) -> Array:
    if axis is None or not shape:
        size, axis, lead = math.prod(shape), None, tuple[int, ...]()
    elif not -len(shape) <= axis < len(shape):
        raise ValueError(f"tie_free: axis {axis} is out of range for the shape {shape}")
    else:
        size, lead = shape[axis], tuple(np.delete(shape, axis).tolist())
    if not math.prod(shape):
        return np.zeros(shape)
    step = 2 * size
    data = draw(byte_strings(step * math.prod(lead)))
    rows = np.array([_row_without_ties(data[at : at + step], size) for at in range(0, len(data), step)])
    if axis is None:
        return rows.reshape(shape)
    return np.ascontiguousarray(np.moveaxis(rows.reshape((*lead, size)), -1, axis))


def entry_source(
    name: str, given: ElementsLike | None, dtype: Any
) -> tuple[SearchStrategy[Any] | TieFree, np.dtype[Any]]:
    """Return the strategy for entries, and their dtype. If one of the two is None, the other one decides."""
    if given is None:
        target = float64 if dtype is None else as_dtype(dtype)
        given = "bool" if target.kind == "b" else "int" if target.kind in "iu" else "real"
        strategy = elements(given)
        if target.kind == "u":
            strategy = _sampled(tuple(abs(x) for x in _TABLES[strategy][0]))
        return strategy, target
    if isinstance(given, str):
        given = elements(given)
    if not isinstance(given, SearchStrategy | TieFree):
        raise TypeError(f"{name}: expected elements to be a kind, a strategy or tie_free(), got {type(given).__name__}")
    if dtype is not None:
        return given, as_dtype(dtype)
    tables = None if isinstance(given, TieFree) else _TABLES.get(given)
    return given, float64 if tables is None else np.array(tables[0][0]).dtype
