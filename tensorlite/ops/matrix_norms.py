"""Norms of vectors or of matrices, as the arguments say; condition numbers."""

from __future__ import annotations

from ..autograd.autocast_mode import autocasts
from ..autograd.graph import Value
from ..dtypes import DTypeLike
from ..errors import ShapeError
from ..scalars import ints_in
from .arguments import Dim, shape_of
from .factorizations import svdvals
from .inverses import inv
from .norms import matrix_norm, vector_norm
from .reduce import sum


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
    x = A if dtype is None else A.to(dtype=dtype)
    if ord is None:
        return vector_norm(x, 2, dim, keepdim)
    if dim is None and len(shape) not in (1, 2):
        raise ShapeError(f"norm: ord={ord!r} without dim expects a vector or a matrix, got shape {shape}. Pass dim.")
    axes = tuple(range(len(shape))) if dim is None else ints_in("norm", "dim", dim)
    if len(axes) == 2:
        return matrix_norm(x, ord, axes, keepdim)
    if isinstance(ord, str):
        raise ValueError(f"norm: ord={ord!r} is a norm of matrices, got dim {dim}. Pass two dimensions.")
    return vector_norm(x, ord, axes, keepdim)


@autocasts
def cond(A: Value, p: float | str | None = None) -> Value:
    """Return the condition numbers of matrices (..., n, m): ``norm(A) * norm(inv(A))``, as (...).

    p: an ord of :func:`tensorlite.linalg.matrix_norm`. None is 2, the largest singular value divided by the smallest;
        then, and for -2, the matrices need not be square.

    Raises LinAlgError for a singular matrix and another p.
    """
    if shape_of("cond", A)[-2:] == (0, 0):
        return sum(A, (-2, -1))  # zeros, as PyTorch has it
    if p in (None, 2, -2):
        values = svdvals(A)
        first, last = values[..., 0], values[..., -1]
        return last / first if p == -2 else first / last
    return matrix_norm(A, p) * matrix_norm(inv(A), p)
