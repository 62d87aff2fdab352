"""Norms of matrices, and the numbers that singular values give: rank and condition.

dim: the two dimensions of the matrices. keepdim: keep them, with size 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..autograd.graph import Value
from ..dtypes import DTypeLike
from ..errors import ShapeError
from .arguments import Dim, ints_in, shape_of
from .elementwise import abs
from .factorizations import svdvals
from .inverses import inv
from .norms import dims_in, vector_norm
from .reduce import amax, amin, sum
from .shape import movedim, unsqueeze

# Each norm of matrices whose rows are the dimension before the last, and whose columns are the last.
_NORMS: dict[Any, Callable[[Value], Value]] = {
    "fro": lambda x: vector_norm(x, 2, (-2, -1)),
    "nuc": lambda x: sum(svdvals(x), -1),
    1: lambda x: amax(sum(abs(x), -2), -1),
    -1: lambda x: amin(sum(abs(x), -2), -1),
    2: lambda x: amax(svdvals(x), -1),
    -2: lambda x: amin(svdvals(x), -1),
    math.inf: lambda x: amax(sum(abs(x), -1), -1),
    -math.inf: lambda x: amin(sum(abs(x), -1), -1),
}


def _converted(x: Value, dtype: DTypeLike | None) -> Value:
    return x if dtype is None else x.to(dtype=dtype)


def matrix_norm(
    A: Value,
    ord: float | str = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: DTypeLike | None = None,
) -> Value:
    """Return the norms of the matrices along two dimensions.

    ord: "fro" is the root of the sum of squares; "nuc" is the sum of the singular values; 2 and -2 are the largest and
        the smallest one. 1 and -1 are the largest and the smallest sum of ``|x|`` of a column, inf and -inf of a row.
    dim: the dimensions of the rows and of the columns.
    keepdim: keep them, with size 1.
    dtype: convert the input first.

    Raises ValueError for another ord, ShapeError unless dim names two dimensions, DTypeError for integers.
    """
    shape = shape_of("matrix_norm", A)
    dims = ints_in("matrix_norm", "dim", dim)
    if len(shape) < 2 or len(dims) != 2:
        raise ShapeError(f"matrix_norm: expected two dimensions of the matrices, got shape {shape} and dim {dim}")
    axes = dims_in("matrix_norm", dims, len(shape))
    norm = _NORMS.get(ord) if not isinstance(ord, bool) else None
    if norm is None:
        raise ValueError(f"matrix_norm: ord must be 'fro', 'nuc', 1, -1, 2, -2, inf or -inf, got {ord!r}")
    out = norm(movedim(_converted(A, dtype), axes, (-2, -1)))
    for d in sorted(axes) if keepdim else ():
        out = unsqueeze(out, d)
    return out


def norm(
    A: Value,
    ord: float | str | None = None,
    dim: Dim = None,
    keepdim: bool = False,
    *,
    dtype: DTypeLike | None = None,
) -> Value:
    """Return a norm of vectors or of matrices.

    ord: an order of :func:`tensorlite.linalg.vector_norm` or of :func:`tensorlite.linalg.matrix_norm`. None is the root
        of the sum of squares.
    dim: one dimension for vectors, two for matrices. None takes all entries as one vector if ord is None; otherwise
        the input must be a vector or a matrix.
    keepdim: keep these dimensions, with size 1.
    dtype: convert the input first.

    Raises ShapeError, ValueError, TypeError and DTypeError as these functions do.
    """
    shape = shape_of("norm", A)
    if dim is not None and len(ints_in("norm", "dim", dim)) not in (1, 2):
        raise ShapeError(f"norm: expected one dimension or two, got {dim}. Use vector_norm.")
    if ord is None:
        return vector_norm(_converted(A, dtype), 2, dim, keepdim)
    if dim is None and len(shape) not in (1, 2):
        raise ShapeError(f"norm: ord={ord!r} without dim expects a vector or a matrix, got shape {shape}. Pass dim.")
    axes = tuple(range(len(shape))) if dim is None else ints_in("norm", "dim", dim)
    if len(axes) == 2:
        return matrix_norm(A, ord, axes, keepdim, dtype=dtype)
    if isinstance(ord, str):
        raise ValueError(f"norm: ord={ord!r} is a norm of matrices, got dim {dim}. Pass two dimensions.")
    return vector_norm(_converted(A, dtype), ord, axes, keepdim)


def cond(A: Value, p: float | str | None = None) -> Value:
    """Return the condition numbers of matrices (..., n, m): ``norm(A) * norm(inv(A))``, as (...).

    p: an ord of :func:`tensorlite.linalg.matrix_norm`. None is 2, the largest singular value divided by the smallest;
        then, and for -2, the matrices need not be square.

    Raises LinAlgError for a singular matrix and another p.
    """
    if p in (None, 2, -2):
        values = svdvals(A)
        first, last = values[..., 0], values[..., -1]
        return last / first if p == -2 else first / last
    return matrix_norm(A, p) * matrix_norm(inv(A), p)
