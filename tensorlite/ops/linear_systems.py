"""Linear systems that ``solve`` does not take: triangular matrices, more equations than unknowns; the rank."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from ..autograd.autocast_mode import autocasts
from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import BACKENDS, Array, Namespace
from ..dtypes import finfo
from ..errors import ShapeError
from .arguments import Operand, array_of, shape_of
from .elementwise import square
from .inverses import pinv, solve
from .linalg import matmul, tril, triu
from .matrices import call_lapack, check_matrices
from .reduce import sum
from .shape import narrow, reshape, squeeze, unsqueeze

V = TypeVar("V")

_DRIVERS = (None, "gels", "gelsy", "gelsd", "gelss")


@autocasts
def solve_triangular(A: Value, B: Value, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Value:
    """Return the solution X of linear equations with triangular matrices.

    A: (..., n, n), of which one triangle is read.
    B: (..., n, k). Leading dimensions broadcast.
    upper: read the upper triangle of A; False reads the lower one.
    left: solve ``A X = B``. False solves ``X A = B`` for B (..., k, n).
    unitriangular: take the diagonal of A as ones.

    Raises LinAlgError for a zero on the diagonal, ShapeError for shapes that do not fit, DTypeError for different
    dtypes.
    """
    a, b = shape_of("solve_triangular", A), shape_of("solve_triangular", B)
    if len(a) < 2 or len(b) < 2 or a[-1] != a[-2] or a[-1] != b[-2 if left else -1]:
        expected = "(..., n, n) and (..., n, k)" if left else "(..., n, n) and (..., k, n)"
        raise ShapeError(f"solve_triangular: expected shapes {expected}, got {a} and {b}")
    diagonal = int(unitriangular)
    triangle = triu(A, diagonal) if upper else tril(A, -diagonal)
    if unitriangular:
        raw = array_of(A)
        triangle = triangle + BACKENDS[type(raw)].eye(a[-1], dtype=raw.dtype)
    if len(b) == len(a) - 1:  # a stack of vectors for solve, but one of matrices here
        B = unsqueeze(B, 0)
    return solve(triangle, B, left=left)


@op(bfloat16=True)
def sizes_(xp: Namespace, A: Array, hermitian: bool) -> Array:
    """Return the singular values of matrices (..., n, m), or the sizes of the eigenvalues of symmetric ones."""
    check_matrices(A, square=hermitian)
    if hermitian:
        return xp.abs(call_lapack("has no eigenvalues: it is not finite", xp.linalg.eigvalsh, A))
    return call_lapack("has no singular values: it is not finite", lambda a: xp.linalg.svd(a, compute_uv=False), A)


@op()
def matrix_rank_(xp: Namespace, sizes: Array, atol: Operand | None, rtol: Operand) -> Array:
    """Return how many singular values are above a tolerance, for each matrix, int64."""
    cutoff = _per_matrix(rtol) * (sizes.max(axis=-1, keepdims=True) if sizes.shape[-1] else sizes)
    if atol is not None:
        cutoff = xp.maximum(cutoff, _per_matrix(atol))
    return (sizes > cutoff).sum(axis=-1)


def _per_matrix(tolerance: Operand) -> Operand:
    return tolerance[..., None] if hasattr(tolerance, "ndim") else tolerance


@autocasts
def matrix_rank(
    A: Value,
    tol: Operand | None = None,
    hermitian: bool = False,
    *,
    atol: Operand | None = None,
    rtol: Operand | None = None,
) -> Value:
    """Return the ranks of matrices (..., n, m) as int64 (...): how many singular values are above a tolerance.

    atol, rtol: the tolerance is ``max(atol, rtol * largest)``. Numbers, or tensors (...) of the batch. The default of
        rtol is ``max(n, m)`` times the machine epsilon, or 0 if atol is given.
    hermitian: whether the matrices are symmetric; then only the lower triangle is read.
    tol: NumPy's name of atol.
    """
    atol = atol if tol is None else tol
    sizes = sizes_(A, hermitian)
    if rtol is None:
        precision = float(finfo(array_of(sizes).dtype).eps)
        rtol = max(shape_of("matrix_rank", A)[-2:]) * precision if atol is None else 0.0
    return matrix_rank_(sizes, atol, rtol)


class LeastSquares(NamedTuple, Generic[V]):
    """The result of ``lstsq``. What the driver does not compute is empty."""

    solution: V
    residuals: V
    rank: V
    singular_values: V


@autocasts
def lstsq(A: Value, B: Value, rcond: float | None = None, *, driver: str | None = None) -> LeastSquares[Value]:
    """Return ``(solution, residuals, rank, singular_values)``: the X with the least sum of squares of ``A X - B``.

    A: (..., n, m).
    B: (..., n, k), or vectors in the shape of A without its last dimension. Leading dimensions broadcast.
    rcond: singular values that are at most ``rcond * largest`` count as 0. The default is ``max(n, m)`` times the
        machine epsilon.
    driver: the LAPACK routine whose results are returned: "gelsy", which is the default, "gels", "gelsd" or "gelss".
        The solution is the one of least norm for each of them.

    Returns X (..., m, k); the sums of squares (..., k), except for "gelsy", if n > m and every rank is m; the ranks
    (...), int64, except for "gels"; and the singular values for "gelsd" and "gelss". The gradient holds as long as the
    rank does not change.

    Raises ShapeError for shapes that do not fit, ValueError for another driver.
    Source: Golub and Van Loan, "Matrix Computations", 4th edition, section 5.5.
    """
    if driver not in _DRIVERS:
        raise ValueError(f"lstsq: expected driver to be 'gels', 'gelsy', 'gelsd' or 'gelss', got {driver!r}")
    a, b = shape_of("lstsq", A), shape_of("lstsq", B)
    vectors = len(a) > 1 and b == a[:-1]
    right = unsqueeze(B, -1) if vectors else B
    if len(a) < 2 or len(b) < 1 or shape_of("lstsq", right)[-2:-1] != a[-2:-1]:
        raise ShapeError(f"lstsq: expected shapes (..., n, m) and (..., n, k) or (..., n), got {a} and {b}")
    solution = matmul(pinv(A, rtol=rcond), right)
    rank, values = matrix_rank(A, rtol=rcond), sizes_(A, False)
    residuals = sum(square(matmul(A, solution) - right), -2)
    wanted = driver not in (None, "gelsy") and a[-2] > a[-1]
    return LeastSquares(
        squeeze(solution, -1) if vectors else solution,
        residuals if wanted and bool((array_of(rank) == a[-1]).all()) else _nothing(residuals),
        _nothing(rank) if driver == "gels" else rank,
        values if driver in ("gelsd", "gelss") else _nothing(values),
    )


def _nothing(x: Value) -> Value:
    """Return an empty vector with the dtype of x."""
    return narrow(reshape(x, (-1,)), 0, 0, 0)
