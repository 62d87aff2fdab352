"""Factorizations of matrices: Cholesky, QR, eigenvalues, singular values.

The matrices are of float32 or float64; leading dimensions are a batch. Raises ShapeError for other shapes, DTypeError
for other dtypes. On the CPU LinAlgError says which matrix has no factorization; on a GPU its result is not finite.

The gradient of an op with several results computes its factorization again, so that it depends on the input alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import Array, Namespace
from ..errors import GraphError
from ..scalars import flag_in
from .elementwise import where
from .inverses import solve_
from .linalg import matmul, tril
from .matrices import call_lapack, check_matrices, flipped
from .shape import cat, narrow, reshape, unsqueeze

V = TypeVar("V")


def _ratio(x: Value, y: Value) -> Value:
    """Return ``x / y``, and 0 where y is 0: a difference of a value with itself, or with an equal one."""
    zero = y == 0
    return where(zero, 0.0, x / where(zero, 1.0, y))


def _differences(s: Value) -> Value:
    """Return ``s_j - s_i`` at (i, j), for vectors (..., n) as (..., n, n)."""
    return unsqueeze(s, -2) - unsqueeze(s, -1)


def _sandwich(u: Value, s: Value, vt: Value) -> Value:
    """Return ``u diag(s) vt``."""
    return matmul(u * unsqueeze(s, -2), vt)


# ---- Cholesky -------------------------------------------------------------------------------


def _cholesky_gradient(g: Value, out: Value) -> Value:
    inner = matmul(flipped(out), g)
    lower = 0.5 * (tril(inner) + tril(inner, -1))  # with half of the diagonal, because both triangles share it
    left = solve_(flipped(out), lower)
    full = flipped(solve_(flipped(out), flipped(left)))
    return 0.5 * (full + flipped(full))


@op(_cholesky_gradient, bfloat16=True)
def cholesky_(xp: Namespace, A: Array) -> Array:
    """Return the lower triangular L with ``L L^T = A`` for the lower triangle of A."""
    check_matrices(A)
    return call_lapack("is not positive definite", xp.linalg.cholesky, A)


def cholesky(A: Value, *, upper: bool = False) -> Value:
    """Return the lower triangular L with ``L L^T = A`` for symmetric positive definite matrices (..., n, n).

    upper: return ``L^T`` instead, computed from the upper triangle.

    Only one triangle is read. The gradient is symmetric, as for changes that keep A symmetric.
    Raises LinAlgError for a matrix that is not positive definite.
    Source of the gradient: Murray, "Differentiation of the Cholesky decomposition", 2016, equation 10.
    """
    return flipped(cholesky_(flipped(A))) if flag_in("cholesky", "upper", upper) else cholesky_(A)


# ---- QR -------------------------------------------------------------------------------------


class QR(NamedTuple, Generic[V]):
    """The result of ``qr``: the matrices with orthonormal columns, and the upper triangular ones."""

    Q: V
    R: V


def _qr_gradient(g: Sequence[Value], A: Value, mode: str) -> Value:
    rows, columns = A.shape[-2:]
    if mode == "complete" and rows > columns:
        raise GraphError(
            f"qr: mode='complete' has no gradient for {rows} rows and {columns} columns, because the last columns of "
            f"Q are not unique. Use mode='reduced'."
        )
    gq, gr = g
    q, r = qr_(A, mode)
    if rows >= columns:
        return _tall_qr_gradient(gq, gr, q, r)
    # A is [X Y] and R is [U V], with X = Q U and Y = Q V.
    rest = columns - rows
    gu, gv = narrow(gr, -1, 0, rows), narrow(gr, -1, rows, rest)
    gq = gq + matmul(narrow(A, -1, rows, rest), flipped(gv))
    return cat([_tall_qr_gradient(gq, gu, q, narrow(r, -1, 0, rows)), matmul(q, gv)], -1)


def _tall_qr_gradient(gq: Value, gr: Value, q: Value, r: Value) -> Value:
    inner = matmul(r, flipped(gr)) - matmul(flipped(gq), q)
    symmetric = tril(inner) + flipped(tril(inner, -1))
    return flipped(solve_(r, flipped(gq + matmul(q, symmetric))))


@op(_qr_gradient, multi_output=True, bfloat16=True)
def qr_(xp: Namespace, A: Array, mode: str) -> tuple[Array, Array]:
    """Return Q and R with ``Q R = A``."""
    check_matrices(A, square=False)
    q, r = xp.linalg.qr(A, mode)
    return q, r


def qr(A: Value, mode: Literal["reduced", "complete", "r"] = "reduced") -> QR[Value]:
    """Return ``(Q, R)`` with ``Q R = A``, Q with orthonormal columns and R upper triangular.

    A: (..., n, m).
    mode: "reduced" gives Q (..., n, k) and R (..., k, m) with k = min(n, m). "complete" gives Q (..., n, n) and R
        (..., n, m). "r" gives an empty Q and the R of "reduced".

    The gradient needs linearly independent first k columns; "complete" has none for n > m. Raises ValueError for
    another mode.
    Source of the gradient: Walter and Lehmann, "Algorithmic differentiation of linear algebra functions", 2018.
    """
    if mode not in ("reduced", "complete", "r"):
        raise ValueError(f"qr: mode must be 'reduced', 'complete' or 'r', got {mode!r}")
    q, r = qr_(A, "reduced" if mode == "r" else mode)
    return QR(narrow(reshape(q, (-1,)), 0, 0, 0) if mode == "r" else q, r)


# ---- eigenvalues of symmetric matrices ------------------------------------------------------


class Eigh(NamedTuple, Generic[V]):
    """The result of ``eigh``: the eigenvalues in ascending order, and the eigenvectors as columns."""

    eigenvalues: V
    eigenvectors: V


def _check_triangle(UPLO: str) -> None:
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise ValueError(f"UPLO must be 'L' or 'U', got {UPLO!r}")


def _eigh_gradient(g: Sequence[Value], A: Value, UPLO: str) -> Value:
    values, vectors = eigh_(A, UPLO)
    inner = matmul(flipped(vectors), g[1])
    turned = _ratio(0.5 * (inner - flipped(inner)), _differences(values))
    return _sandwich(vectors, g[0], flipped(vectors)) + matmul(vectors, matmul(turned, flipped(vectors)))


@op(_eigh_gradient, multi_output=True, bfloat16=True)
def eigh_(xp: Namespace, A: Array, UPLO: str) -> tuple[Array, Array]:
    """Return the eigenvalues and the eigenvectors of symmetric matrices."""
    check_matrices(A)
    _check_triangle(UPLO)
    values, vectors = call_lapack("has no eigenvalues: it is not finite", lambda a: xp.linalg.eigh(a, UPLO), A)
    return values, vectors


@op(lambda g, A, UPLO: _eigenvalues_gradient(g, A, UPLO), bfloat16=True)
def eigvalsh(xp: Namespace, A: Array, UPLO: Literal["L", "U"] = "L") -> Array:
    """Return the eigenvalues of symmetric matrices (..., n, n) in ascending order, as (..., n).

    UPLO: the triangle that is read, "L" or "U". The gradient is symmetric. Raises ValueError for another UPLO.
    """
    check_matrices(A)
    _check_triangle(UPLO)
    return call_lapack("has no eigenvalues: it is not finite", lambda a: xp.linalg.eigvalsh(a, UPLO), A)


def _eigenvalues_gradient(g: Value, A: Value, UPLO: str) -> Value:
    vectors = eigh_(A, UPLO)[1]
    return _sandwich(vectors, g, flipped(vectors))


def eigh(A: Value, UPLO: Literal["L", "U"] = "L") -> Eigh[Value]:
    """Return ``(eigenvalues, eigenvectors)`` of symmetric matrices (..., n, n), as (..., n) and (..., n, n).

    UPLO: the triangle that is read, "L" or "U".

    The eigenvalues ascend; column i is the eigenvector of eigenvalue i. Its sign is not unique, so a loss should not
    depend on it. The gradient is symmetric. Eigenvectors of equal eigenvalues are not unique either; the gradient
    takes their rotation into each other as 0. Raises ValueError for another UPLO.
    Source of the gradient: Giles, "An extended collection of matrix derivative results for forward and reverse mode
    algorithmic differentiation", 2008, section 3.1.
    """
    return Eigh(*eigh_(A, UPLO))


# ---- singular values ------------------------------------------------------------------------


class SVD(NamedTuple, Generic[V]):
    """The result of ``svd``: left vectors as columns, the singular values, and right vectors as rows."""

    U: V
    S: V
    Vh: V


def _svd_gradient(g: Sequence[Value], A: Value, full_matrices: bool) -> Value:
    u, s, vt = svd_(A, False)
    k, (rows, columns) = s.shape[-1], A.shape[-2:]
    gu, gs, gvt = narrow(g[0], -1, 0, k), g[1], narrow(g[2], -2, 0, k)
    left, right = matmul(flipped(u), gu), matmul(vt, flipped(gvt))
    squares = _differences(s) * (unsqueeze(s, -2) + unsqueeze(s, -1))
    turned_left = _ratio(left - flipped(left), squares) * unsqueeze(s, -2)
    turned_right = unsqueeze(s, -1) * _ratio(right - flipped(right), squares)
    total = _sandwich(u, gs, vt) + matmul(u, matmul(turned_left + turned_right, vt))
    if rows > k:
        total = total + matmul(_ratio(gu - matmul(u, left), unsqueeze(s, -2)), vt)
    if columns > k:
        total = total + matmul(u, _ratio(gvt - matmul(flipped(right), vt), unsqueeze(s, -1)))
    return total


@op(_svd_gradient, multi_output=True, bfloat16=True)
def svd_(xp: Namespace, A: Array, full_matrices: bool) -> tuple[Array, Array, Array]:
    """Return the factors of ``A = U diag(S) Vh``."""
    check_matrices(A, square=False)
    u, s, vt = call_lapack("has no singular values: it is not finite", lambda a: xp.linalg.svd(a, full_matrices), A)
    return u, s, vt


def svd(A: Value, full_matrices: bool = True) -> SVD[Value]:
    """Return ``(U, S, Vh)`` with ``U diag(S) Vh = A``, orthonormal columns of U and rows of Vh, and descending S.

    A: (..., n, m); k = min(n, m).
    full_matrices: return U (..., n, n) and Vh (..., m, m). False returns U (..., n, k) and Vh (..., k, m).

    A pair of vectors may change its sign together, so a loss should not depend on it. The vectors beyond the first k
    are not unique and get no gradient, as in PyTorch. Vectors of equal singular values are not unique either; the
    gradient takes their rotation into each other as 0.
    Source of the gradient: Townsend, "Differentiating the singular value decomposition", 2016.
    """
    return SVD(*svd_(A, full_matrices))


@op(lambda g, A: _singular_values_gradient(g, A), bfloat16=True)
def svdvals(xp: Namespace, A: Array) -> Array:
    """Return the singular values of matrices (..., n, m) in descending order, as (..., min(n, m))."""
    check_matrices(A, square=False)
    return call_lapack("has no singular values: it is not finite", lambda a: xp.linalg.svd(a, compute_uv=False), A)


def _singular_values_gradient(g: Value, A: Value) -> Value:
    u, _, vt = svd_(A, False)
    return _sandwich(u, g, vt)
