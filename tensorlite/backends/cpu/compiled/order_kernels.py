"""The largest or smallest entries of rows, and search in sorted rows, as loops that numba compiles for each dtype.

The form of the kernels is that of ``kernels.py``, and the arrays are contiguous.
"""

from __future__ import annotations

from typing import Any

from .parallel_for import bind_kernel, parallel_for
from .support import ENTRY, INLINE, INNER, njit

__all__ = ["search_rows", "top_places"]

Array = Any


@njit(**INLINE)
def _is_before(a: Any, b: Any, largest: bool) -> bool:
    """Return whether a comes before b. NaN counts as the largest."""
    return (a > b or (a != a and b == b)) if largest else (a < b or (b != b and a == a))


@njit(**INNER)
def _insert(value: Any, place: int, last: int, largest: bool, best: Array, found: Array) -> None:
    """Put an entry before all that it precedes. The one at ``last`` drops out."""
    while last > 0 and _is_before(value, best[last - 1], largest):
        best[last], found[last] = best[last - 1], found[last - 1]
        last -= 1
    best[last], found[last] = value, place


@njit(**INNER)
def _scan_row(row: Array, largest: bool, best: Array, found: Array) -> None:
    k = best.size
    for j in range(k):
        _insert(row[j], j, j, largest, best, found)
    for j in range(k, row.size):
        if _is_before(row[j], best[k - 1], largest):
            _insert(row[j], j, k - 1, largest, best, found)


@njit(**INNER)
def top_places_range(x: Array, largest: bool, best: Array, found: Array, start: int, stop: int) -> None:
    for i in range(start, stop):
        if largest:  # the constants give a loop for each
            _scan_row(x[i], True, best[i], found[i])
        else:
            _scan_row(x[i], False, best[i], found[i])


@njit(**ENTRY)
def top_places(pool: int, x: Array, largest: bool, best: Array, found: Array) -> None:
    """Write the largest or smallest entries of each row in order, (rows, k), and their places, int64.

    The earlier one of two equal entries comes first.
    """
    parallel_for(pool, bind_kernel(top_places_range, (x, largest, best, found)), len(x), 1, 1)


@njit(**INNER)
def search_rows_range(edges: Array, values: Array, right: bool, found: Array, start: int, stop: int) -> None:
    for i in range(start, stop):
        row = edges[i]
        for j in range(values.shape[1]):
            value, low, high = values[i, j], 0, row.size
            while low < high:
                middle = (low + high) // 2
                after = not _is_before(value, row[middle], False) if right else _is_before(row[middle], value, False)
                low, high = (middle + 1, high) if after else (low, middle)
            found[i, j] = low


@njit(**ENTRY)
def search_rows(pool: int, edges: Array, values: Array, right: bool, found: Array) -> None:
    """Write the places of values (rows, m) in sorted rows (rows, n): before equal edges, or after them if ``right``."""
    parallel_for(pool, bind_kernel(search_rows_range, (edges, values, right, found)), len(edges), 1, 1)
