"""Functions of square matrices: the exponential, integer powers; and products of several matrices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ..autograd.autocast_mode import lowered
from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import BACKENDS, Array, Namespace
from ..errors import ShapeError
from ..scalars import int_in
from .arguments import array_of, dim_in, shape_of
from .elementwise import clone, mul, where
from .inverses import inv
from .linalg import cross as cross_product
from .linalg import matmul
from .matrices import check_matrices, flipped
from .reduce import sum
from .shape import cat, narrow, squeeze, unsqueeze

__all__ = ["matrix_exp"]

# ---- the exponential ------------------------------------------------------------------------

_PADE = (
    64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0, 129060195264000.0,
    10559470521600.0, 670442572800.0, 33522128640.0, 1323241920.0, 40840800.0, 960960.0, 16380.0, 182.0, 1.0,
)  # fmt: skip
"""The coefficients of the Padé approximant of degree 13 (Higham 2005, table 2.3 and equation 2.3)."""
_LARGEST_NORM = 5.371920351148152
"""The 1-norm up to which the approximant is accurate to 1e-16 (Higham 2005, table 2.3)."""


def _pade(xp: Namespace, x: Array) -> Array:
    """Return the Padé approximant of degree 13 of ``exp(x)`` (Higham 2005, equations 3.4 and 3.5)."""
    b, one = _PADE, xp.eye(x.shape[-1], dtype=x.dtype)
    x2 = xp.matmul(x, x)
    x4 = xp.matmul(x2, x2)
    x6 = xp.matmul(x2, x4)
    odd = xp.matmul(x6, b[13] * x6 + b[11] * x4 + b[9] * x2) + b[7] * x6 + b[5] * x4 + b[3] * x2 + b[1] * one
    even = xp.matmul(x6, b[12] * x6 + b[10] * x4 + b[8] * x2) + b[6] * x6 + b[4] * x4 + b[2] * x2 + b[0] * one
    odd = xp.matmul(x, odd)
    return xp.linalg.solve(even - odd, even + odd)


def _matrix_exp_gradient(g: Value, x: Value) -> Value:
    """Return the block at the top right of ``exp([[x^T, g], [0, x^T]])`` (Higham, "Functions of Matrices", 3.16)."""
    xt, n = flipped(x), x.shape[-1]
    zeros = BACKENDS[type(array_of(x))].zeros(x.shape, x.dtype)
    blocks = cat([cat([xt, g], -1), cat([zeros, xt], -1)], -2)
    return narrow(narrow(matrix_exp(blocks), -2, 0, n), -1, n, n)


@op(_matrix_exp_gradient, widen=True)
def matrix_exp(xp: Namespace, x: Array) -> Array:
    """Return the exponentials ``1 + x + x^2/2 + x^3/6 + ...`` of matrices (..., n, n).

    A matrix is divided by a power of 2 until its norm is small; the exponential of the quotient, a Padé approximant, is
    squared as often. A matrix that is not finite gives NaN. It waits for a GPU, to read the number of squarings.
    Raises ShapeError for other shapes, DTypeError for integers.
    Source: Higham, "The scaling and squaring method for the matrix exponential revisited", 2005.
    """
    check_matrices(x)
    if not x.size:
        return x.copy()
    norms = xp.abs(x).sum(axis=-2).max(axis=-1)[..., None, None]
    finite = xp.isfinite(norms)
    x, norms = xp.where(finite, x, xp.zeros_like(x)), xp.where(finite, norms, xp.zeros_like(norms))
    squarings = xp.ceil(xp.log2(xp.maximum(norms / _LARGEST_NORM, 1.0)))
    out = _pade(xp, x / 2.0**squarings)
    for k in range(int(squarings.max())):
        out = xp.where(k < squarings, xp.matmul(out, out), out)
    return xp.where(finite, out, xp.full_like(out, math.nan))


# ---- products -------------------------------------------------------------------------------


def matrix_power(A: Value, n: int) -> Value:
    """Return the product of n copies of matrices (..., m, m), in about ``log2(n)`` multiplications.

    n: an integer. 0 gives the identity, a negative number powers of the inverse.

    Raises ShapeError for other shapes, TypeError for another n, LinAlgError for a singular matrix and a negative n.
    """
    power = int_in("matrix_power", "n", n)
    shape = shape_of("matrix_power", A)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ShapeError(f"matrix_power: expected matrices (..., n, n), got shape {shape}")
    if power < 0:
        return matrix_power(inv(A), -power)
    out, square = None, A
    while power:
        if power % 2:
            out = square if out is None else matmul(out, square)
        power //= 2
        square = matmul(square, square) if power else square
    return clone(out) if out is not None else _identity_like(A, shape)


def _identity_like(A: Value, shape: Sequence[int]) -> Value:
    """Return identity matrices in the shape and dtype of A, whose gradient is 0."""
    array = array_of(A)
    xp = BACKENDS[type(array)]
    return where(xp.ones(shape, bool), xp.eye(shape[-1], dtype=array.dtype), A)


def _cheapest_split(sizes: Sequence[int]) -> dict[tuple[int, int], int]:
    """Return where to split each product of the matrices i to j, matrix k being (sizes[k], sizes[k + 1])."""
    n = len(sizes) - 1
    cost = {(i, i): 0 for i in range(n)}
    split = {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            costs = {
                k: cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1] for k in range(i, j)
            }
            split[i, j] = min(costs, key=lambda k: costs[k])
            cost[i, j] = costs[split[i, j]]
    return split


def multi_dot(tensors: Sequence[Value]) -> Value:
    """Return the product of two or more matrices, multiplied in the order that needs the fewest operations.

    The first may be a vector (a row) and the last one, too (a column); the result lacks that dimension.
    Raises ShapeError if the shapes do not fit, ValueError for fewer than two tensors.
    Source of the order: Cormen et al., "Introduction to Algorithms", section 14.2.
    """
    if not isinstance(tensors, (list, tuple)) or len(tensors) < 2:
        raise ValueError(f"multi_dot: expected a list of at least two tensors, got {tensors!r:.60}")
    shapes = [shape_of("multi_dot", t) for t in tensors]
    matrices = list(tensors)
    if len(shapes[0]) == 1:
        matrices[0] = unsqueeze(matrices[0], 0)
    if len(shapes[-1]) == 1:
        matrices[-1] = unsqueeze(matrices[-1], 1)
    sizes = [m.shape for m in matrices]
    if any(len(s) != 2 for s in sizes) or any(a[1] != b[0] for a, b in itertools.pairwise(sizes)):
        raise ShapeError(f"multi_dot: shapes {', '.join(map(str, shapes))} have no matrix product")
    split = _cheapest_split([sizes[0][0], *(s[1] for s in sizes)])

    def product(i: int, j: int) -> Value:
        return matrices[i] if i == j else matmul(product(i, split[i, j]), product(split[i, j] + 1, j))

    out = product(0, len(matrices) - 1)
    out = squeeze(out, 1) if len(shapes[-1]) == 1 else out
    return squeeze(out, 0) if len(shapes[0]) == 1 else out


def vecdot(x: Value, y: Value, *, dim: int = -1) -> Value:
    """Return the scalar products of vectors along a dimension. The other dimensions broadcast."""
    nx, ny = shape_of("vecdot", x), shape_of("vecdot", y)
    dim_in("vecdot", dim, max(len(nx), len(ny)))
    return lowered(sum(mul(x, y), dim))


def cross(input: Value, other: Value, *, dim: int = -1) -> Value:
    """Return the cross products of vectors of 3 entries along a dimension: :func:`tensorlite.cross`."""
    return cross_product(input, other, dim)
