"""Products of vectors, matrices and stacks of matrices, Einstein sums, and diagonals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_letters
from typing import Any, TypeAlias

from ..autograd.engine import Value, op
from ..backends.registry import Array, Namespace
from ..errors import DTypeError, ShapeError
from .elementwise import mul
from .reduce import sum
from .shape import dim_in, permute, reshape, shape_of, squeeze, transpose, unsqueeze

__all__ = ["addmm", "bmm", "diag", "diagonal", "dot", "einsum", "matmul", "mm", "mv", "outer", "trace"]

# ---- matrix products ------------------------------------------------------------------------


def rows(x: Value) -> Value:
    """All dimensions but the last made one."""
    return x if len(x.shape) == 2 else reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def _matmul_left(g: Value, y: Value, in_shape: Sequence[int]) -> Value:
    if len(y.shape) == 1:
        return g * y if len(in_shape) == 1 else unsqueeze(g, -1) * y
    if len(in_shape) == 1:
        return squeeze(matmul(y, unsqueeze(g, -1)), -1)
    return matmul(g, transpose(y, -2, -1))


def _matmul_right(g: Value, x: Value, in_shape: Sequence[int]) -> Value:
    if len(x.shape) == 1:
        return g * x if len(in_shape) == 1 else unsqueeze(x, -1) * unsqueeze(g, -2)
    if len(in_shape) == 1:
        return matmul(reshape(g, (math.prod(g.shape),)), rows(x))
    if len(in_shape) == 2:  # one product, however many matrices x holds, and nothing left to sum
        return matmul(permute(rows(x), (1, 0)), rows(g))
    return matmul(transpose(x, -2, -1), g)


@op(_matmul_left, _matmul_right, dtypes="same")
def matmul(xp: Namespace, x: Array, y: Array) -> Array:
    """``x @ y``: of vectors (k,), matrices (n, k) and (k, m), or stacks (..., n, k) and (..., k, m) that broadcast.

    A vector stands for a row on the left and a column on the right, and the result lacks that dimension.
    Raises ShapeError if the shapes do not fit, DTypeError if the dtypes differ.
    """
    try:
        if y.ndim == 2 and x.ndim > 2:  # one product instead of one for each matrix of x
            flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
            return xp.matmul(flat, y).reshape(*x.shape[:-1], y.shape[1])
        return xp.matmul(x, y)
    except (ValueError, AttributeError):
        if isinstance(x, (int, float)) or isinstance(y, (int, float)):
            raise TypeError("a number has no matrix product; multiply with *") from None
        raise ShapeError(_misfit(x.shape, y.shape)) from None


def _misfit(x: Sequence[int], y: Sequence[int]) -> str:
    if not x or not y:
        return "0-d tensors have no matrix product; multiply them with *"
    inner = y[-2] if len(y) > 1 else y[0]
    if x[-1] != inner:
        which = "last but one" if len(y) > 1 else "only one"
        return f"the last dimension of the first ({x[-1]}) and the {which} of the second ({inner}) must be equal"
    return "the dimensions before the matrices must broadcast"


def _product(name: str, x: Any, y: Any, wanted: str, ranks: tuple[int, int]) -> Any:
    n, m = shape_of(name, x), shape_of(name, y)
    if (len(n), len(m)) != ranks or n[-1] != m[max(len(m) - 2, 0)] or n[:-2] != m[:-2]:
        raise ShapeError(f"{name}: expected shapes {wanted}, got {n} and {m}")
    if x.dtype != y.dtype:
        raise DTypeError(f"{name}({x.dtype}{n}, {y.dtype}{m}): expected tensors of one dtype; convert with .to(dtype)")
    return matmul(x, y)


def mm(input: Any, mat2: Any) -> Any:
    """The product of matrices (n, k) and (k, m). Raises ShapeError for anything else."""
    return _product("mm", input, mat2, "(n, k) and (k, m)", (2, 2))


def bmm(input: Any, mat2: Any) -> Any:
    """The products of two stacks of matrices, (b, n, k) and (b, k, m). Raises ShapeError for anything else."""
    return _product("bmm", input, mat2, "(b, n, k) and (b, k, m)", (3, 3))


def mv(input: Any, vec: Any) -> Any:
    """The product of a matrix (n, k) and a vector (k,). Raises ShapeError for anything else."""
    return _product("mv", input, vec, "(n, k) and (k,)", (2, 1))


def dot(input: Any, tensor: Any) -> Any:
    """The scalar product of two vectors of one length. Raises ShapeError for anything else."""
    return _product("dot", input, tensor, "(n,) and (n,)", (1, 1))


def outer(input: Any, vec2: Any) -> Any:
    """``input[i] * vec2[j]`` of vectors (n,) and (m,), as (n, m). Raises ShapeError for anything else."""
    n, m = shape_of("outer", input), shape_of("outer", vec2)
    if len(n) != 1 or len(m) != 1:
        raise ShapeError(f"outer: expected two vectors, got shapes {n} and {m}")
    return mul(unsqueeze(input, 1), vec2)


@op(
    lambda g, beta: g * beta,
    lambda g, mat2, alpha: _scaled(matmul(g, permute(mat2, (1, 0))), alpha),
    lambda g, mat1, alpha: _scaled(matmul(permute(mat1, (1, 0)), g), alpha),
    dtypes="same",
)
def addmm(xp: Namespace, input: Array, mat1: Array, mat2: Array, beta: float = 1, alpha: float = 1) -> Array:
    """``beta * input + alpha * (mat1 @ mat2)``; ``input`` broadcasts to the product, and ``beta=0`` ignores it.

    Raises ShapeError if the shapes do not fit, DTypeError if the dtypes differ.
    """
    if mat1.ndim != 2 or mat2.ndim != 2 or mat1.shape[1] != mat2.shape[0]:
        raise ShapeError(f"shapes {mat1.shape} and {mat2.shape} are not those of matrices (n, k) and (k, m)")
    out = xp.matmul(mat1, mat2)
    if input.ndim > 2 or any(n not in (1, m) for n, m in zip(input.shape[::-1], out.shape[::-1])):
        raise ShapeError(f"input of shape {input.shape} does not broadcast to the product's shape {out.shape}")
    if alpha != 1:
        out *= alpha
    if beta:
        out += input if beta == 1 else input * beta
    return out


def _scaled(x: Value, alpha: float) -> Value:
    return x if alpha == 1 else x * alpha


# ---- diagonals ------------------------------------------------------------------------------


@op(lambda g, offset, dim1, dim2, in_shape: _undiagonal(g, in_shape, offset, dim1, dim2), view=True)
def diagonal(xp: Namespace, x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    """The entries ``x[i, i + offset]`` of the matrices along two dimensions, as the last dimension of the result.

    A read-only view. Raises IndexError if a dimension is out of range, ShapeError if the two are the same.
    """
    first, second = dim_in("", dim1, x.ndim), dim_in("", dim2, x.ndim)
    if first == second:
        raise ShapeError(f"dim1 {dim1} and dim2 {dim2} are the same dimension")
    return x.diagonal(offset, first, second)


@op(lambda g, offset, dim1, dim2: diagonal(g, offset, dim1, dim2))
def _undiagonal(xp: Namespace, x: Array, shape: Sequence[int], offset: int, dim1: int, dim2: int) -> Array:
    """Zeros of this shape with x on the diagonal: the transpose of :func:`diagonal`."""
    out = xp.zeros(shape, x.dtype)
    i = xp.arange(x.shape[-1])
    xp.moveaxis(out, (dim1, dim2), (-2, -1))[..., i + max(-offset, 0), i + max(offset, 0)] = x
    return out


def diag(x: Any, diagonal: int = 0) -> Any:
    """A square matrix with the vector x on its diagonal, or the diagonal of the matrix x; 1 is the one above it."""
    shape = shape_of("diag", x)
    if len(shape) == 1:
        n = shape[0] + abs(diagonal)
        return _undiagonal(x, (n, n), diagonal, 0, 1)
    if len(shape) != 2:
        raise ShapeError(f"diag: expected a vector or a matrix, got shape {shape}")
    return _diagonal(x, diagonal)


_diagonal = diagonal  # the name that `diag` has for its argument, as in PyTorch


def trace(x: Any) -> Any:
    """The sum of the diagonal of a matrix. Raises ShapeError for anything else."""
    shape = shape_of("trace", x)
    if len(shape) != 2:
        raise ShapeError(f"trace: expected a matrix, got shape {shape}")
    return sum(diagonal(x))


# ---- Einstein sums --------------------------------------------------------------------------

Label: TypeAlias = str | int
"""A letter of an equation, or one of the dimensions under its ellipsis: -1 for the last of them, -2, ..."""
Shape: TypeAlias = tuple[int, ...]


def einsum(equation: Any, *operands: Any) -> Any:
    """The sum of products that the equation spells out: ``einsum("bij,bjk->bik", x, y)`` is ``x @ y``.

    A letter names a dimension of each operand; those that the output lacks are summed over. A letter twice in one
    operand means its diagonal, ``...`` any further dimensions, which broadcast, as dimensions of size 1 do. Without
    ``->`` the output is ``...`` and the letters that occur once, in alphabetical order. The other form is
    ``einsum(x, [0, 1, 2], y, [0, 2, 3], [0, 1, 3])``. Operands are contracted from the left, two at a time.

    Raises ValueError for a malformed equation, ShapeError if it does not fit the operands, DTypeError if dtypes differ.
    """
    if not isinstance(equation, str):
        equation, operands = _from_lists([equation, *operands])
    elif len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    inputs, output, sizes = _parse(equation, tuple(shape_of("einsum", x) for x in operands))
    if any(x.dtype != operands[0].dtype for x in operands):
        raise DTypeError(f"einsum: expected operands of one dtype, got {', '.join(str(x.dtype) for x in operands)}")
    terms = [_distinct(x, labels, sizes) for x, labels in zip(operands, inputs, strict=True)]
    while len(terms) > 1:
        (x, left), (y, right), *rest = terms
        later = {*output}.union(*(labels for _, labels in rest))
        terms = [_contract(*_fold(x, left, later.union(right)), *_fold(y, right, later.union(left)), later), *rest]
    x, labels = _fold(*terms[0], {*output})
    return permute(x, tuple(labels.index(label) for label in output))


def _from_lists(args: list[Any]) -> tuple[str, tuple[Any, ...]]:
    """The equation that lists of numbers from 0 to 51 stand for."""
    lists = [*args[1::2], *(args[-1:] if len(args) % 2 else [])]
    letters = ascii_letters[26:] + ascii_letters[:26]
    try:
        terms = ["".join("..." if i is Ellipsis else letters[i] for i in entries) for entries in lists]
    except (TypeError, IndexError):
        raise ValueError("einsum: expected an equation, or after each operand a list of numbers from 0 to 51") from None
    count = len(args) // 2
    return ",".join(terms[:count]) + ("->" + terms[-1] if len(args) % 2 else ""), tuple(args[: 2 * count : 2])


@lru_cache(maxsize=1024)
def _parse(equation: str, shapes: tuple[Shape, ...]) -> tuple[list[list[Label]], list[Label], dict[Label, int]]:
    """The label of each dimension of each operand and of the output, and the size of what each label names."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise ValueError(f"einsum: {equation!r} is for {len(terms)} operands, got {len(shapes)}")
    inputs, sizes, hidden = [], dict[Label, int](), 0
    for k, (term, shape) in enumerate(zip(terms, shapes, strict=True)):
        head, dots, tail = _cut(equation, term)
        n = len(shape) - len(head) - len(tail)
        if n < 0 or (n and not dots):
            raise ShapeError(f"einsum: {term!r} in {equation!r} does not fit operand {k} of shape {shape}")
        hidden = max(hidden, n)
        labels: list[Label] = [*head, *range(-n, 0), *tail]
        for label, size in zip(labels, shape, strict=True):
            known, first = sizes.setdefault(label, size), shape[labels.index(label)]
            if size != first or (known != size and 1 not in (known, size)):
                other = first if size != first else known
                what = "a dimension under '...'" if isinstance(label, int) else repr(label)
                raise ShapeError(f"einsum: in {equation!r} {what} has sizes {other} and {size}")
            if known == 1:
                sizes[label] = size
        inputs.append(labels)
    if arrow:
        head, dots, tail = _cut(equation, right)
        output: list[Label] = [*head, *(range(-hidden, 0) if dots else ()), *tail]
    else:
        counts = Counter(label for labels in inputs for label in labels)
        output = [*range(-hidden, 0), *sorted(a for a, n in counts.items() if isinstance(a, str) and n == 1)]
    for label in output:
        if label not in sizes or output.count(label) > 1:
            raise ValueError(f"einsum: in {equation!r} the output's {label!r} must occur there once, and in an operand")
    return inputs, output, sizes


def _cut(equation: str, term: str) -> tuple[str, str, str]:
    head, dots, tail = term.partition("...")
    if not {*head, *tail} <= {*ascii_letters}:
        raise ValueError(f"einsum: {term!r} in {equation!r} may only consist of letters and one '...'")
    return head, dots, tail


def _distinct(x: Any, labels: Sequence[Label], sizes: dict[Label, int]) -> tuple[Any, list[Label]]:
    """An operand with each label once, by diagonals, and without the dimensions that would be broadcast."""
    labels = list(labels)
    for label in {a for a in labels if labels.count(a) > 1}:
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            x = diagonal(x, 0, i, j)
            labels = [a for k, a in enumerate(labels) if k not in (i, j)] + [label]
    kept = [a for a, n in zip(labels, x.shape, strict=True) if n == sizes[a]]
    return (x if kept == labels else reshape(x, tuple(sizes[a] for a in kept))), kept


def _fold(x: Any, labels: list[Label], keep: set[Label]) -> tuple[Any, list[Label]]:
    """An operand summed over what nobody else has."""
    dims = tuple(d for d, a in enumerate(labels) if a not in keep)
    return (sum(x, dims), [a for a in labels if a in keep]) if dims else (x, labels)


def _contract(x: Any, left: list[Label], y: Any, right: list[Label], keep: set[Label]) -> tuple[Any, list[Label]]:
    """Two operands multiplied, and summed over what only they have: one (batched) matrix product."""
    batch = [a for a in left if a in right and a in keep]
    summed = [a for a in left if a in right and a not in keep]
    rows = [a for a in left if a not in right]
    columns = [a for a in right if a not in left]
    size = dict(zip([*left, *right], [*x.shape, *y.shape], strict=True))

    def laid_out(z: Any, labels: list[Label], groups: tuple[list[Label], list[Label]]) -> Any:
        order = tuple(labels.index(a) for a in [*batch, *groups[0], *groups[1]])
        z = z if order == tuple(range(len(order))) else permute(z, order)
        return reshape(z, (*(size[a] for a in batch), *(math.prod(size[a] for a in group) for group in groups)))

    if summed:
        out = matmul(laid_out(x, left, (rows, summed)), laid_out(y, right, (summed, columns)))
    else:
        out = mul(laid_out(x, left, (rows, [])), laid_out(y, right, ([], columns)))
    labels = [*batch, *rows, *columns]
    return reshape(out, tuple(size[a] for a in labels)), labels
