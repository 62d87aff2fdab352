"""Linear algebra: products of vectors and matrices, diagonals, triangles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..autograd.autocast_mode import autocasts, can_combine
from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.registry import Array, Namespace
from ..dtypes import DType, accumulate_dtype, cast_array
from ..errors import DTypeError, ShapeError
from ..scalars import int_in, number_in
from .arguments import dim_in, shape_of
from .elementwise import convert, mul
from .reduce import sum
from .shape import permute, reshape, roll, squeeze, transpose, unsqueeze

__all__ = ["addmm", "bmm", "cross", "diag", "diagonal", "dot", "kron", "matmul", "mm", "mv", "outer", "trace", "tril",
           "triu"]  # fmt: skip

# ---- matrix products ------------------------------------------------------------------------


def rows(x: Value) -> Value:
    """Merge all dimensions but the last into one."""
    return x if len(x.shape) == 2 else reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def _is_rounded(g: Value, given_dtype: DType | None) -> bool:
    """Return whether g, the gradient of a product, has a narrower dtype than the input had before ``autocast``."""
    return given_dtype is not None and given_dtype.itemsize > g.dtype.itemsize


def _widened(x: Value) -> Value:
    """Return x in the dtype in which its numbers are added: float32 for float16 and bfloat16."""
    wide = accumulate_dtype(x.dtype)
    return x if x.dtype == wide else convert(x, wide, x.dtype)


def _chosen_product(
    g: Value, other: Value, in_shape: Sequence[int], given_dtype: DType
) -> tuple[Callable[[Value, Value], Value], Value, Value]:
    """Return the product that gives a gradient in the dtype of the input before ``autocast``, and its two factors."""
    if not _is_rounded(g, given_dtype):
        return matmul, g, other
    if 1 in (len(other.shape), len(in_shape)):
        return matmul, _widened(g), _widened(other)
    return wide_matmul, g, other  # keeps the sums, which are float32


def _matmul_left(g: Value, y: Value, in_shape: Sequence[int], given_dtype: DType | None) -> Value:
    product, g, y = (matmul, g, y) if given_dtype is None else _chosen_product(g, y, in_shape, given_dtype)
    if len(y.shape) == 1:
        return g * y if len(in_shape) == 1 else unsqueeze(g, -1) * y
    if len(in_shape) == 1:
        return squeeze(matmul(y, unsqueeze(g, -1)), -1)
    y = transpose(y, -2, -1)
    summed = _broadcast_dims(g, in_shape)
    return _summed_product(product, g, y, summed, in_shape) if summed else product(g, y)


def _matmul_right(g: Value, x: Value, in_shape: Sequence[int], given_dtype: DType | None) -> Value:
    product, g, x = (matmul, g, x) if given_dtype is None else _chosen_product(g, x, in_shape, given_dtype)
    if len(x.shape) == 1:
        return g * x if len(in_shape) == 1 else unsqueeze(x, -1) * unsqueeze(g, -2)
    if len(in_shape) == 1:
        return matmul(reshape(g, (math.prod(g.shape),)), rows(x))
    if len(in_shape) == 2:  # one product for all matrices of x, so that nothing is left to sum
        return product(permute(rows(x), (1, 0)), rows(g))
    x = transpose(x, -2, -1)
    summed = _broadcast_dims(g, in_shape)
    return _summed_product(product, x, g, summed, in_shape) if summed else product(x, g)


def _broadcast_dims(g: Value, in_shape: Sequence[int]) -> list[int]:
    """Return the leading dimensions of g along which an input of this shape was broadcast."""
    missing = len(g.shape) - len(in_shape)
    return [d for d, n in enumerate(g.shape[:-2]) if n != 1 and (d < missing or in_shape[d - missing] == 1)]


def _summed_product(
    product: Callable[[Value, Value], Value], x: Value, y: Value, summed: Sequence[int], shape: Sequence[int]
) -> Value:
    """Return the product of stacks, summed over some leading dimensions, in this shape.

    It is one product over these dimensions and the inner one, because the single products may be far larger than x, y
    and the result.
    """
    ndim = max(len(x.shape), len(y.shape))
    x, y = (reshape(z, (*(1,) * (ndim - len(z.shape)), *z.shape)) for z in (x, y))
    kept = [d for d in range(ndim - 2) if d not in summed]
    inner = math.prod(x.shape[d] for d in summed) * x.shape[-1]
    x = permute(x, (*kept, ndim - 2, *summed, ndim - 1))
    y = permute(y, (*kept, *summed, ndim - 2, ndim - 1))
    x = reshape(x, (*x.shape[: len(kept) + 1], inner))
    y = reshape(y, (*y.shape[: len(kept)], inner, y.shape[-1]))
    return reshape(product(x, y), tuple(shape))


@op(_matmul_left, _matmul_right, dtypes="same", bfloat16=True)
def matmul(xp: Namespace, x: Array, y: Array) -> Array:
    """Return the matrix product ``input @ other``.

    The arguments are vectors (k,), matrices (n, k) and (k, m), or stacks (..., n, k) and (..., k, m) of matrices. The
    leading dimensions of stacks broadcast. A vector counts as a row on the left and as a column on the right; the
    result lacks that dimension. Raises ShapeError if the shapes do not fit, DTypeError if the dtypes differ.
    """
    try:
        return _flat_product(xp.matmul, x, y) if y.ndim == 2 < x.ndim else xp.matmul(x, y)
    except (ValueError, AttributeError):
        if isinstance(x, (int, float)) or isinstance(y, (int, float)):
            raise TypeError("a number has no matrix product. Multiply with *.") from None
        raise ShapeError(_misfit(x.shape, y.shape)) from None


def _flat_product(product: Callable[[Array, Array], Array], x: Array, y: Array) -> Array:
    """Return the product of matrices x and a single one y, as one product instead of one for each matrix of x."""
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return product(flat, y).reshape(*x.shape[:-1], y.shape[1])


@op(
    lambda g, y, in_shape: _matmul_left(convert(g, y.dtype, g.dtype), y, in_shape, None),
    lambda g, x, in_shape: _matmul_right(convert(g, x.dtype, g.dtype), x, in_shape, None),
    dtypes="same", bfloat16=True,
)
def wide_matmul(xp: Namespace, x: Array, y: Array) -> Array:
    """Return the matrix product of float16 or bfloat16 tensors in float32, in which it is added up."""
    return _flat_product(xp.wide_matmul, x, y) if y.ndim == 2 < x.ndim else xp.wide_matmul(x, y)


def _misfit(x: Sequence[int], y: Sequence[int]) -> str:
    """Say why shapes have no matrix product."""
    if not x or not y:
        return "0-d tensors have no matrix product. Multiply them with *."
    inner = y[-2] if len(y) > 1 else y[0]
    if x[-1] != inner:
        which = "last but one" if len(y) > 1 else "only one"
        return f"the last dimension of the first ({x[-1]}) and the {which} of the second ({inner}) must be equal"
    return "the dimensions before the matrices must broadcast"


def _product(name: str, x: Any, y: Any, wanted: str, ranks: tuple[int, int]) -> Any:
    """Return the matrix product of two tensors with these numbers of dimensions, without broadcasting."""
    n, m = shape_of(name, x), shape_of(name, y)
    if (len(n), len(m)) != ranks or n[-1] != m[max(len(m) - 2, 0)] or n[:-2] != m[:-2]:
        raise ShapeError(f"{name}: expected shapes {wanted}, got {n} and {m}")
    if x.dtype != y.dtype and not can_combine(x, y):
        raise DTypeError(f"{name}({x.dtype}{n}, {y.dtype}{m}): expected tensors of one dtype. Convert with .to(dtype).")
    return matmul(x, y)


def mm(input: Value, mat2: Value) -> Value:
    """Return the product of matrices (n, k) and (k, m), as (n, m). Raises ShapeError for other shapes."""
    return _product("mm", input, mat2, "(n, k) and (k, m)", (2, 2))


def bmm(input: Value, mat2: Value) -> Value:
    """Return the products of matrices (b, n, k) and (b, k, m), as (b, n, m). Raises ShapeError for other shapes."""
    return _product("bmm", input, mat2, "(b, n, k) and (b, k, m)", (3, 3))


def mv(input: Value, vec: Value) -> Value:
    """Return the product of a matrix (n, k) and a vector (k,), as (n,). Raises ShapeError for other shapes."""
    return _product("mv", input, vec, "(n, k) and (k,)", (2, 1))


@autocasts
def dot(input: Value, tensor: Value) -> Value:
    """Return the scalar product of two vectors of the same length. Raises ShapeError for other shapes."""
    return _product("dot", input, tensor, "(n,) and (n,)", (1, 1))


@op(
    lambda g, y: sum(g * y, 1), lambda g, x: sum(g * unsqueeze(x, 1), 0), dtypes="scale", widen="numbers"
)
def outer_(xp: Namespace, x: Array, y: Array) -> Array:
    """Return the products of all entries of two vectors."""
    return xp.multiply_arrays(x[:, None], y[None])


def outer(input: Value, vec2: Value) -> Value:
    """Return ``input[i] * vec2[j]`` of vectors (n,) and (m,), as (n, m). Raises ShapeError for other shapes."""
    n, m = shape_of("outer", input), shape_of("outer", vec2)
    if len(n) != 1 or len(m) != 1:
        raise ShapeError(f"outer: expected two vectors, got shapes {n} and {m}")
    return outer_(input, vec2)


def kron(input: Value, other: Value) -> Value:
    """Return the Kronecker product: blocks ``input[i, j, ...] * other``, each in the place of an entry of the input.

    The tensor with fewer dimensions gets leading ones of size 1. Each size of the result is the product of both sizes.
    """
    n, m = shape_of("kron", input), shape_of("kron", other)
    ndim = len(n) if len(n) > len(m) else len(m)
    n, m = (1,) * (ndim - len(n)) + n, (1,) * (ndim - len(m)) + m
    outer_shape = tuple(size for pair in zip(n, (1,) * ndim) for size in pair)
    inner_shape = tuple(size for pair in zip((1,) * ndim, m) for size in pair)
    product = mul(reshape(input, outer_shape), reshape(other, inner_shape))
    return reshape(product, tuple(a * b for a, b in zip(n, m)))


@op(
    lambda g, beta, given_dtype: (_widened(g) if _is_rounded(g, given_dtype) else g) * number_in("", "beta", beta),
    lambda g, mat2, alpha, in_shape, given_dtype: _scaled(_matmul_left(g, mat2, in_shape, given_dtype), alpha),
    lambda g, mat1, alpha, in_shape, given_dtype: _scaled(_matmul_right(g, mat1, in_shape, given_dtype), alpha),
    dtypes="same", widen=True,
)
def addmm(xp: Namespace, input: Array, mat1: Array, mat2: Array, beta: float = 1, alpha: float = 1) -> Array:
    """Return ``beta * input + alpha * (mat1 @ mat2)`` for matrices (n, k) and (k, m).

    ``input`` broadcasts to (n, m). With ``beta=0`` it is ignored, NaNs included.
    Raises ShapeError if the shapes do not fit, DTypeError if the dtypes differ.
    """
    if mat1.ndim != 2 or mat2.ndim != 2 or mat1.shape[1] != mat2.shape[0]:
        raise ShapeError(f"shapes {mat1.shape} and {mat2.shape} are not those of matrices (n, k) and (k, m)")
    out = xp.wide_matmul(mat1, mat2)
    if input.ndim > 2 or any(n not in (1, m) for n, m in zip(input.shape[::-1], out.shape[::-1])):
        raise ShapeError(f"input of shape {input.shape} does not broadcast to the product's shape {out.shape}")
    alpha, beta = number_in("", "alpha", alpha), number_in("", "beta", beta)
    if alpha != 1:
        out *= alpha
    if beta:
        added = input if input.dtype == out.dtype else cast_array(input, out.dtype)
        out += added if beta == 1 else added * beta
    return out if out.dtype == mat1.dtype else cast_array(out, mat1.dtype)


def _scaled(x: Value, alpha: float) -> Value:
    return x if alpha == 1 else x * number_in("", "alpha", alpha)


def cross(input: Value, other: Value, dim: int | None = None) -> Value:
    """Return the cross products of vectors of 3 entries along a dimension. The other dimensions broadcast.

    dim: None is the first dimension of size 3 of the input, as in PyTorch; write it out where several have this size.

    Raises ShapeError for different numbers of dimensions, and if the size of the dimension is not 3.
    """
    a, b = shape_of("cross", input), shape_of("cross", other)
    if dim is None:
        dim = a.index(3) if 3 in a else -1
    d = dim_in("cross", dim, len(a))
    if len(a) != len(b) or not a or a[d] != 3 or b[d] != 3:
        raise ShapeError(f"cross: expected two tensors of one number of dimensions, of size 3 in dim {d}, got {a}, {b}")
    return mul(roll(input, -1, d), roll(other, 1, d)) - mul(roll(input, 1, d), roll(other, -1, d))


# ---- diagonals ------------------------------------------------------------------------------


@op(lambda g, offset, dim1, dim2, in_shape: _undiagonal(g, in_shape, offset, dim1, dim2), view=True)
def diagonal(xp: Namespace, x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    """Return the entries ``x[i, i + offset]`` of the matrices along two dimensions.

    They are the last dimension of the result, which is a read-only view. Raises IndexError if a dimension is out of
    range, ShapeError if both are the same.
    """
    first, second = dim_in("", dim1, x.ndim), dim_in("", dim2, x.ndim)
    if first == second:
        raise ShapeError(f"dim1 {dim1} and dim2 {dim2} are the same dimension")
    return x.diagonal(int_in("", "offset", offset), first, second)


@op(lambda g, offset, dim1, dim2: diagonal(g, offset, dim1, dim2), bfloat16=True)
def _undiagonal(xp: Namespace, x: Array, shape: Sequence[int], offset: int, dim1: int, dim2: int) -> Array:
    """Return zeros of this shape with x on the diagonal: the transpose of :func:`diagonal`."""
    out = xp.zeros(shape, x.dtype)
    i = xp.arange(x.shape[-1])
    xp.moveaxis(out, (dim1, dim2), (-2, -1))[..., i + max(-offset, 0), i + max(offset, 0)] = x
    return out


def diag(input: Value, diagonal: int = 0) -> Value:
    """Return a square matrix with a vector on its diagonal, or the diagonal of a matrix.

    diagonal: 0 is the main diagonal, 1 the one above it, -1 the one below it.

    Raises ShapeError for a tensor that is neither a vector nor a matrix.
    """
    shape, diagonal = shape_of("diag", input), int_in("diag", "diagonal", diagonal)
    if len(shape) == 1:
        n = shape[0] + abs(diagonal)
        return _undiagonal(input, (n, n), diagonal, 0, 1)
    if len(shape) != 2:
        raise ShapeError(f"diag: expected a vector or a matrix, got shape {shape}")
    return _diagonal(input, diagonal)


_diagonal = diagonal  # because `diag` has an argument of this name, as in PyTorch


def trace(input: Value) -> Value:
    """Return the sum of the diagonal of a matrix. Raises ShapeError for other shapes."""
    shape = shape_of("trace", input)
    if len(shape) != 2:
        raise ShapeError(f"trace: expected a matrix, got shape {shape}")
    return sum(diagonal(input))


# ---- triangles -------------------------------------------------------------------------------


@op(lambda g, diagonal: tril(g, diagonal), bfloat16=True)
def tril(xp: Namespace, x: Array, diagonal: int = 0) -> Array:
    """Return the lower triangles of matrices (..., n, m), with zeros above the given diagonal.

    diagonal: 0 is the main diagonal, 1 the one above it. Raises ShapeError for fewer than 2 dimensions.
    """
    k = int_in("", "diagonal", diagonal)
    if _matrices(x).dtype.kind != "f":
        return xp.tril(x, k)
    return xp.where(xp.tri(*x.shape[-2:], k, dtype=bool), x, 0.0)


@op(lambda g, diagonal: triu(g, diagonal), bfloat16=True)
def triu(xp: Namespace, x: Array, diagonal: int = 0) -> Array:
    """Return the upper triangles of matrices (..., n, m), with zeros below the given diagonal.

    diagonal: 0 is the main diagonal, 1 the one above it. Raises ShapeError for fewer than 2 dimensions.
    """
    k = int_in("", "diagonal", diagonal)
    if _matrices(x).dtype.kind != "f":
        return xp.triu(x, k)
    return xp.where(xp.tri(*x.shape[-2:], k - 1, dtype=bool), 0.0, x)


def _matrices(x: Array) -> Array:
    """Return x. Raises ShapeError if it has fewer than 2 dimensions."""
    if x.ndim < 2:
        raise ShapeError("expected a tensor of at least 2 dimensions")
    return x
