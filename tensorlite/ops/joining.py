"""Tensors side by side, and the coordinates of a grid: hstack, vstack, meshgrid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd.graph import Value
from ..errors import DTypeError, ShapeError
from .arguments import array_of, shape_of
from .shape import broadcast_to, cat, reshape

__all__ = ["hstack", "meshgrid", "vstack"]


def hstack(tensors: Sequence[Value]) -> Value:
    """Concatenate along the second dimension; vectors, and 0-d tensors as vectors of one entry, along the first."""
    found = [reshape(x, (1,)) if not shape_of("hstack", x) else x for x in tensors]
    return cat(found, 0 if found and len(shape_of("hstack", found[0])) == 1 else 1)


def vstack(tensors: Sequence[Value]) -> Value:
    """Concatenate along the first dimension. Vectors and 0-d tensors become rows (1, n) first."""
    return cat([reshape(x, (1, -1)) if len(shape_of("vstack", x)) < 2 else x for x in tensors], 0)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Value, ...]:
    """Return the coordinates of a grid: for vectors (n,), (m,), ... one view (n, m, ...) each.

    tensors: vectors or 0-d tensors of one dtype, or one list of them.
    indexing: "ij", or "xy", which exchanges the first two dimensions: (m, n, ...).

    Raises ShapeError for other shapes, DTypeError for different dtypes, ValueError for another indexing.
    """
    given = list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else list(tensors)
    if indexing not in ("ij", "xy"):
        raise ValueError(f"meshgrid: expected indexing to be 'ij' or 'xy', got {indexing!r}")
    shapes = [shape_of("meshgrid", x) for x in given]
    if not given or any(len(shape) > 1 for shape in shapes):
        raise ShapeError(f"meshgrid: expected vectors, got {', '.join(map(str, shapes)) or 'nothing'}")
    dtypes = {array_of(x).dtype for x in given}
    if len(dtypes) > 1:
        raise DTypeError(f"meshgrid: expected tensors of one dtype, got {', '.join(sorted(map(str, dtypes)))}")
    order = list(range(len(given)))
    if indexing == "xy" and len(given) > 1:
        order[:2] = [1, 0]
    sizes = [shape[0] if shape else 1 for shape in shapes]
    full = tuple(sizes[d] for d in order)
    return tuple(
        broadcast_to(reshape(x, tuple(sizes[k] if d == k else 1 for d in order)), full) for k, x in enumerate(given)
    )
