"""Einstein sums, computed by diagonals, sums and matrix products."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import combinations
from string import ascii_letters
from typing import Any, TypeAlias, overload

from ..autograd.autocast_mode import can_combine, lowered
from ..autograd.graph import Value
from ..errors import DTypeError, ShapeError
from .arguments import shape_of
from .elementwise import mul
from .half_precision import rounds_once
from .linalg import diagonal, matmul
from .reduce import sum
from .shape import permute, reshape

__all__ = ["einsum"]

Label: TypeAlias = str | int
"""A letter of an equation, or one of the dimensions under its ellipsis: -1 for the last of them, -2, ..."""
Shape: TypeAlias = tuple[int, ...]


@overload
def einsum(equation: str, operands: Sequence[Value], /) -> Value: ...
@overload
def einsum(equation: str, *operands: Value) -> Value: ...
@overload
def einsum(operand: Value, dims: Sequence[Any], /, *more: Value | Sequence[Any]) -> Value: ...
def einsum(equation: Any, *operands: Any) -> Any:
    """Return the sum of products that an equation describes: ``einsum("bij,bjk->bik", x, y)`` is ``x @ y``.

    A letter names a dimension of each operand. Letters that the output lacks are summed over. A letter that occurs
    twice in one operand selects its diagonal. ``...`` stands for any further dimensions. These, and dimensions of size
    1, broadcast. Without ``->`` the output is ``...`` and the letters that occur once, in alphabetical order. The other
    form is ``einsum(x, [0, 1, 2], y, [0, 2, 3], [0, 1, 3])``. Operands are contracted two at a time,
    those with the smallest product first. Inside ``autocast`` the products of matrices compute in its dtype, which is
    that of the result.

    Raises ValueError for a malformed equation, ShapeError if it does not fit the operands, DTypeError if dtypes differ.
    """
    if not isinstance(equation, str):
        equation, operands = _from_lists([equation, *operands])
    elif len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    inputs, output, sizes = _parse(equation, tuple(shape_of("einsum", x) for x in operands))
    if can_combine(*operands):
        return lowered(_contract_all(inputs, output, sizes, *operands))
    if any(x.dtype != operands[0].dtype for x in operands):
        raise DTypeError(f"einsum: expected operands of one dtype, got {', '.join(str(x.dtype) for x in operands)}")
    return _contract_once(inputs, output, sizes, *operands)


def _contract_all(inputs: list[list[Label]], output: list[Label], sizes: dict[Label, int], *operands: Any) -> Any:
    """Return the sum of products, for the labels of each operand and of the output, and the sizes of the labels."""
    terms = [_distinct(x, labels, sizes) for x, labels in zip(operands, inputs, strict=True)]
    while len(terms) > 1:
        i, j = _next_pair([labels for _, labels in terms], output, sizes)
        (x, left), (y, right) = terms[i], terms[j]
        rest = [term for k, term in enumerate(terms) if k not in (i, j)]
        later = {*output}.union(*(labels for _, labels in rest))
        terms = [_contract(*_fold(x, left, later.union(right)), *_fold(y, right, later.union(left)), later), *rest]
    x, labels = _fold(*terms[0], {*output})
    return permute(x, tuple(labels.index(label) for label in output))


_contract_once = rounds_once(_contract_all)
"""Does the same, and computes float16 and bfloat16 in float32, so that the result is rounded once."""


def _from_lists(args: list[Any]) -> tuple[str, tuple[Any, ...]]:
    """Return the equation and the operands of a call with lists of numbers from 0 to 51."""
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
    """Return the label of each dimension of each operand and of the output, and the size of each label."""
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
            raise ValueError(f"einsum: the output of {equation!r} must have {label!r} once, as an operand must")
    return inputs, output, sizes


def _cut(equation: str, term: str) -> tuple[str, str, str]:
    """Split a term of an equation at its ellipsis. Raises ValueError if it has other characters than letters."""
    head, dots, tail = term.partition("...")
    if not {*head, *tail} <= {*ascii_letters}:
        raise ValueError(f"einsum: {term!r} in {equation!r} must consist of letters and at most one '...'")
    return head, dots, tail


def _distinct(x: Any, labels: Sequence[Label], sizes: dict[Label, int]) -> tuple[Any, list[Label]]:
    """Return an operand with each label once, by taking diagonals, and without the dimensions that broadcast."""
    labels = list(labels)
    for label in {a for a in labels if labels.count(a) > 1}:
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            x = diagonal(x, 0, i, j)
            labels = [a for k, a in enumerate(labels) if k not in (i, j)] + [label]
    kept = [a for a, n in zip(labels, x.shape, strict=True) if n == sizes[a]]
    return (x if kept == labels else reshape(x, tuple(sizes[a] for a in kept))), kept


def _next_pair(terms: list[list[Label]], output: list[Label], sizes: dict[Label, int]) -> tuple[int, int]:
    """Return the two operands whose product adds the fewest entries to what is in memory, the first ones of equals."""
    if len(terms) == 2:
        return 0, 1

    def growth(pair: tuple[int, int]) -> int:
        left, right = (terms[k] for k in pair)
        later = {*output}.union(*(labels for k, labels in enumerate(terms) if k not in pair))
        product = later & {*left, *right}
        return _size(product, sizes) - _size(left, sizes) - _size(right, sizes)

    return min(combinations(range(len(terms)), 2), key=growth)


def _size(labels: Iterable[Label], sizes: dict[Label, int]) -> int:
    return math.prod(sizes[label] for label in labels)


def _fold(x: Any, labels: list[Label], keep: set[Label]) -> tuple[Any, list[Label]]:
    """Sum an operand over the labels that neither another operand nor the output has."""
    dims = tuple(d for d, a in enumerate(labels) if a not in keep)
    return (sum(x, dims), [a for a in labels if a in keep]) if dims else (x, labels)


def _contract(x: Any, left: list[Label], y: Any, right: list[Label], keep: set[Label]) -> tuple[Any, list[Label]]:
    """Multiply two operands and sum over the labels that only they have, by one batched matrix product."""
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
