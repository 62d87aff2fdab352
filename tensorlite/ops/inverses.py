"""Inverses: of matrices, in linear equations and in determinants.

The matrices are (..., n, n), of float32 or float64; the leading dimensions are a batch. Raises ShapeError for other
shapes, DTypeError for other dtypes. On the CPU LinAlgError says which matrix is singular; on a GPU its result is not
finite.

Source of the gradients: Giles, "An extended collection of matrix derivative results for forward and reverse mode
algorithmic differentiation", 2008.
"""

from __future__ import annotations

import math
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from ..autograd.autocast_mode import autocasts
from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import Array, Namespace
from ..dtypes import finfo
from ..errors import ShapeError
from ..scalars import flag_in
from .arguments import Operand, shape_of
from .elementwise import where
from .linalg import diagonal, matmul
from .matrices import call_lapack, check_matrices, flipped
from .reduce import sum
from .shape import squeeze, unsqueeze

__all__ = ["det", "inverse", "logdet", "pinverse", "slogdet"]

V = TypeVar("V")

# ---- inverses and linear equations ----------------------------------------------------------


@op(lambda g, out: -matmul(flipped(out), matmul(g, flipped(out))), bfloat16=True)
def inv(xp: Namespace, A: Array) -> Array:
    """Return the inverses of matrices (..., n, n).

    To solve equations, :func:`tensorlite.linalg.solve` is faster and more accurate.
    Raises LinAlgError for a singular matrix. Source of the gradient: Giles 2008, section 2.2.3.
    """
    check_matrices(A)
    return call_lapack("is singular", xp.linalg.inv, A)


def inverse(input: Value) -> Value:
    """Return the inverses of matrices (..., n, n): :func:`tensorlite.linalg.inv`."""
    return inv(input)


@op(
    lambda g, A, out: -matmul(solve_(flipped(A), g), flipped(out)),
    lambda g, A: solve_(flipped(A), g),
    dtypes="same",
    bfloat16=True,
)
def solve_(xp: Namespace, A: Array, B: Array) -> Array:
    """Return X with ``A X = B`` for matrices (..., n, n) and (..., n, k). Source: Giles 2008, section 2.3.1."""
    check_matrices(A)
    if B.ndim < 2 or B.shape[-2] != A.shape[-1]:
        raise ShapeError(f"expected shapes (..., n, n) and (..., n, k) or (n,), got {A.shape} and {B.shape}")
    batch = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    a, b = (xp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (A, B))
    return call_lapack("is singular", xp.linalg.solve, a, b)


def solve(A: Value, B: Value, *, left: bool = True) -> Value:
    """Return the solution X of linear equations.

    A: (..., n, n).
    B: a vector (n,), a batch of vectors in the shape of A without its last dimension, or matrices (..., n, k).
    left: solve ``A X = B``. False solves ``X A = B`` for matrices B (..., k, n).

    Returns the shape of B; leading dimensions broadcast. Raises LinAlgError for a singular matrix, ShapeError for
    shapes that do not fit, DTypeError for different dtypes.
    """
    a, b = shape_of("solve", A), shape_of("solve", B)
    if not flag_in("solve", "left", left):
        if len(b) < 2:
            raise ShapeError(f"solve: left=False expects B (..., k, n), got shape {b}. Use unsqueeze(0).")
        return flipped(solve_(flipped(A), flipped(B)))
    if len(b) == 1 or b == a[:-1]:
        return squeeze(solve_(A, unsqueeze(B, -1)), -1)
    return solve_(A, B)


# ---- determinants ---------------------------------------------------------------------------


def _of_matrices(g: Value) -> Value:
    """Return one number for each matrix as matrices (..., 1, 1)."""
    return unsqueeze(unsqueeze(g, -1), -1)


@op(lambda g, A: _of_matrices(g) * _cofactors(A), bfloat16=True)
def det(xp: Namespace, A: Array) -> Array:
    """Return the determinants of matrices (..., n, n), as (...).

    The gradient, the matrix of cofactors, is also correct for singular matrices.
    Source: Giles 2008, section 2.2.4.
    """
    check_matrices(A)
    return xp.linalg.det(A)


def _rotations(xp: Namespace, x: Array) -> tuple[Array, Array, Array, Array]:
    """Return U, s and V^T of the singular value decomposition of x, and ``det(U) det(V^T)``, which is 1 or -1.

    A matrix that is not finite gets NaN for s.
    """
    finite = xp.isfinite(x).all(axis=(-2, -1), keepdims=True)
    u, s, vt = xp.linalg.svd(xp.where(finite, x, xp.zeros_like(x)))
    sign = xp.sign(xp.linalg.det(u) * xp.linalg.det(vt))
    return u, xp.where(finite[..., 0], s, xp.full_like(s, math.nan)), vt, sign[..., None, None]


def _left_out(xp: Namespace, s: Array) -> Array:
    """Return a matrix for each row of s: its row i is s with a 1 instead of entry i."""
    n = s.shape[-1]
    return xp.where(xp.eye(n, dtype=bool), xp.ones_like(s[..., None, :]), s[..., None, :])


@op(lambda g, x: _cofactors_gradient(x, g))
def _cofactors(xp: Namespace, x: Array) -> Array:
    """Return the matrices of cofactors, ``det(x) x^-T`` for an invertible x.

    With the singular value decomposition x = U diag(s) V^T it is ``det(U) det(V) U diag(p) V^T``, where p_i is the
    product of all singular values but s_i. This needs no inverse.
    """
    u, s, vt, sign = _rotations(xp, x)
    return sign * xp.matmul(u * _left_out(xp, s).prod(axis=-1)[..., None, :], vt)


def _cofactors_second(h: Value, x: Value, g: Value) -> Value:
    """Return the gradient of ``det(x) (tr(pg) tr(ph) - tr(pgph))`` with p = x^-1: the third derivative of det.

    It is ``det(x)`` times the transpose of ``(ab - tr(pgph)) p - b pgp - a php + pgphp + phpgp`` with a = tr(pg),
    b = tr(ph). It needs an invertible x.
    """
    p = inv(x)
    pg, ph = matmul(p, flipped(flipped(g))), matmul(p, h)
    a, b = (_of_matrices(sum(diagonal(y, 0, -2, -1), -1)) for y in (pg, ph))
    both = matmul(pg, ph)
    c = _of_matrices(sum(diagonal(both, 0, -2, -1), -1))
    inner = (a * b - c) * p - b * matmul(pg, p) - a * matmul(ph, p) + matmul(both + matmul(ph, pg), p)
    return _of_matrices(det(x)) * flipped(inner)


@op(_cofactors_second, lambda h, x: _cofactors_gradient(x, h))
def _cofactors_gradient(xp: Namespace, x: Array, g: Array) -> Array:
    """Return the gradient of ``sum(g * cofactors(x))``, the second derivative of the determinant.

    At a diagonal matrix diag(s) it has the entries ``sum_j p_ij g_jj`` on its diagonal and ``-p_ij g_ji`` elsewhere,
    where p_ij is the product of all singular values but s_i and s_j. Other matrices are rotated to a diagonal one.
    """
    u, s, vt, sign = _rotations(xp, x)
    rest = _left_out(xp, s)
    ones = xp.ones_like(rest[..., :1])
    before = xp.concatenate([ones, xp.cumprod(rest[..., :-1], axis=-1)], axis=-1)
    after = xp.flip(xp.concatenate([ones, xp.cumprod(xp.flip(rest, -1)[..., :-1], axis=-1)], axis=-1), -1)
    on_diagonal = xp.eye(s.shape[-1], dtype=bool)
    pairs = xp.where(on_diagonal, xp.zeros_like(rest), before * after)
    rotated = xp.matmul(u.swapaxes(-2, -1), xp.matmul(g, vt.swapaxes(-2, -1)))
    sums = xp.matmul(pairs, rotated.diagonal(0, -2, -1)[..., None])
    inner = xp.where(on_diagonal, sums, -pairs * rotated.swapaxes(-2, -1))
    return sign * xp.matmul(u, xp.matmul(inner, vt))


class SlogDet(NamedTuple, Generic[V]):
    """The result of ``slogdet``: the sign of the determinants, and the logarithm of their absolute values."""

    sign: V
    logabsdet: V


@op(lambda g, A: _of_matrices(g[1]) * flipped(inv(A)), multi_output=True, bfloat16=True)
def slogdet_(xp: Namespace, A: Array) -> tuple[Array, Array]:
    """Return the sign of the determinants, and the logarithm of their absolute values."""
    check_matrices(A)
    sign, logarithm = xp.linalg.slogdet(A)
    return sign, logarithm


def slogdet(A: Value) -> SlogDet[Value]:
    """Return ``(sign, logabsdet)`` of the determinants of matrices (..., n, n), each as (...).

    The determinant is ``sign * exp(logabsdet)``; for a singular matrix these are 0 and -inf, without a gradient.
    Source of the gradient, x^-T: Giles 2008, section 2.2.4.
    """
    return SlogDet(*slogdet_(A))


@autocasts
def logdet(input: Value) -> Value:
    """Return the logarithm of the determinants of matrices (..., n, n): NaN if negative, -inf for singular ones."""
    sign, logarithm = slogdet_(input)
    return where(sign < 0, math.nan, logarithm)


# ---- the pseudoinverse ----------------------------------------------------------------------


def _pinv_gradient(g: Value, A: Value, out: Value) -> Value:
    """Return ``-p'gp' + (1 - Ap) g'pp' + p'pg' (1 - pA)``, where p is the pseudoinverse and ' transposes."""
    pt, left, right = flipped(out), matmul(flipped(g), out), matmul(out, flipped(g))
    columns = matmul(left - matmul(A, matmul(out, left)), pt)
    rows = matmul(pt, right - matmul(matmul(right, out), A))
    return columns + rows - matmul(pt, matmul(g, pt))


@op(_pinv_gradient, bfloat16=True)
def pinv_(xp: Namespace, A: Array, rtol: Operand | None, atol: Operand | None, hermitian: bool) -> Array:
    """Return the pseudoinverses of matrices (..., n, m), as (..., m, n)."""
    check_matrices(A, square=hermitian)
    if hermitian:
        s, v = call_lapack("has no eigenvalues: it is not finite", xp.linalg.eigh, A)
        u, sizes = v, xp.abs(s)
    else:
        u, s, vt = call_lapack("has no singular values: it is not finite", _thin_svd(xp), A)
        v, sizes = vt.swapaxes(-2, -1), s
    if rtol is None:
        rtol = max(A.shape[-2:]) * float(finfo(A.dtype).eps) if atol is None else 0.0
    largest = sizes.max(axis=-1, keepdims=True) if sizes.shape[-1] else sizes
    cutoff = _per_matrix(rtol) * largest
    if atol is not None:
        cutoff = xp.maximum(cutoff, _per_matrix(atol))
    kept = sizes > cutoff
    inverse = xp.where(kept, 1.0 / xp.where(kept, s, xp.ones_like(s)), xp.zeros_like(s)).astype(A.dtype)
    return xp.matmul(v * inverse[..., None, :], u.swapaxes(-2, -1))


def _thin_svd(xp: Namespace) -> Any:
    return lambda x: xp.linalg.svd(x, False)


def _per_matrix(tolerance: Any) -> Any:
    """Return a tolerance (...) as (..., 1), and a number unchanged."""
    return tolerance[..., None] if hasattr(tolerance, "ndim") else tolerance


@autocasts
def pinv(
    A: Value,
    rcond: Operand | None = None,
    hermitian: bool = False,
    *,
    atol: Operand | None = None,
    rtol: Operand | None = None,
) -> Value:
    """Return the Moore-Penrose pseudoinverses of matrices (..., n, m), as (..., m, n).

    rtol, atol: singular values that are at most ``max(atol, rtol * largest)`` count as 0. Numbers, or tensors (...) of
        the batch. The default of rtol is ``max(n, m)`` times the machine epsilon, or 0 if atol is given.
    hermitian: whether the matrices are symmetric; then only the lower triangle is read.
    rcond: NumPy's name of rtol.

    The gradient holds as long as the rank does not change. Source: Golub and Pereyra, "The differentiation of
    pseudo-inverses and nonlinear least squares problems whose variables separate", 1973.
    """
    return pinv_(A, rtol if rcond is None else rcond, atol, hermitian)


def pinverse(input: Value, rcond: float = 1e-15) -> Value:
    """Return the pseudoinverses of matrices (..., n, m): :func:`tensorlite.linalg.pinv` with ``rtol=rcond``."""
    return pinv(input, rcond)
