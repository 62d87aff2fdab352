"""References of functions of matrices, from their definitions: Leibniz's formula, Cramer's rule, Jacobi's rotations.

Factors whose signs LAPACK chooses have none; tests/ops/test_factorizations.py multiplies them instead.
"""
import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from tests.ops.op_references import REFERENCES, Array, Reference, adder, axes_of, fold, made

MATRIX_REFERENCES: dict[str, Reference] = {}
"""As REFERENCES in tests/ops/op_references.py."""

Rows = list[list[Any]]


of = adder(MATRIX_REFERENCES)


def for_each_matrix(f: Callable[..., Any]) -> Callable[..., Array]:
    """Return a function that applies f, a function of nested lists, to each matrix of a batch."""

    def g(x: Array, *args: Any, **kwargs: Any) -> Array:
        found = {i: np.asarray(f(x[i].tolist(), *args, **kwargs), float) for i in np.ndindex(x.shape[:-2])}
        if not found:
            return np.zeros((*x.shape[:-2], *np.shape(f(np.eye(*x.shape[-2:]).tolist(), *args, **kwargs))))
        shape = next(iter(found.values())).shape
        return made((*x.shape[:-2], *shape), lambda *i: found[i[: x.ndim - 2]][i[x.ndim - 2 :]])

    return g


# ---- determinants and inverses --------------------------------------------------------------


def parity(order: tuple[int, ...]) -> int:
    return -1 if sum(a > b for a, b in itertools.combinations(order, 2)) % 2 else 1


def determinant(rows: Rows) -> Any:
    n = range(len(rows))
    return sum(parity(p) * math.prod(rows[i][p[i]] for i in n) for p in itertools.permutations(n))


def without(rows: Rows, i: int, j: int) -> Rows:
    return [[v for c, v in enumerate(row) if c != j] for r, row in enumerate(rows) if r != i]


def inverse(rows: Rows) -> Rows:
    n, d = range(len(rows)), determinant(rows)
    return [[(-1) ** (i + j) * determinant(without(rows, j, i)) / d for j in n] for i in n]


def product(a: Rows, b: Rows) -> Rows:
    return [[sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]


def transposed(rows: Rows) -> Rows:
    return [list(column) for column in zip(*rows)]


MATRIX_REFERENCES["det"] = MATRIX_REFERENCES["linalg.det"] = for_each_matrix(determinant)
MATRIX_REFERENCES["inverse"] = MATRIX_REFERENCES["linalg.inv"] = for_each_matrix(inverse)
MATRIX_REFERENCES["logdet"] = for_each_matrix(lambda rows: math.log(determinant(rows)))


@of("slogdet linalg.slogdet")
def slogdet(x: Array) -> tuple[Array, Array]:
    d = for_each_matrix(determinant)(x)
    return REFERENCES["sign"](d), REFERENCES["log"](REFERENCES["abs"](d))


@of("linalg.solve")
def solve(a: Array, b: Array, left: bool = True) -> Array:
    vector = b.ndim == 1 or b.shape == a.shape[:-1]
    b = b[..., None] if vector else b
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    inverses = for_each_matrix(inverse)(np.broadcast_to(a, (*batch, *a.shape[-2:])))
    right = np.broadcast_to(b, (*batch, *b.shape[-2:]))
    x = REFERENCES["matmul"](*((inverses, right) if left else (right, inverses)))
    return x[..., 0] if vector else x


@of("linalg.solve_triangular")
def solve_triangular(a: Array, b: Array, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Array:
    n = range(a.shape[-1])
    kept = [[(i < j if upper else i > j) or (i == j and not unitriangular) for j in n] for i in n]
    triangle = np.where(kept, a, np.eye(len(n)) if unitriangular else 0.0)
    if left:
        return MATRIX_REFERENCES["linalg.solve"](triangle, b[None] if b.ndim == a.ndim - 1 else b)
    return MATRIX_REFERENCES["linalg.solve"](triangle.swapaxes(-2, -1), b.swapaxes(-2, -1)).swapaxes(-2, -1)


@of("linalg.lstsq")
def lstsq(a: Array, b: Array, rcond: Any = None) -> tuple[Array, ...]:
    vectors = b.shape == a.shape[:-1]
    inverse = MATRIX_REFERENCES["linalg.pinv"](a)
    solution = REFERENCES["matmul"](inverse, b[..., None] if vectors else b)
    rank = np.full(a.shape[:-2], min(a.shape[-2:]), np.int64)
    return solution[..., 0] if vectors else solution, np.zeros(0), rank, np.zeros(0)


@of("linalg.matrix_rank")
def matrix_rank(x: Array, tol: Any = None, hermitian: bool = False, *, atol: Any = None) -> Array:
    cutoff = (lambda s: atol) if atol is not None else (lambda s: max(x.shape[-2:]) * 2.0**-52 * max(s, default=0.0))
    rank = for_each_matrix(lambda rows: sum(v > cutoff(s) for s in [singular_values(rows)] for v in s))
    return (rank(x) if x.size else np.zeros(x.shape[:-2])).astype(np.int64)


@of("cross")
def cross(x: Array, y: Array, dim: int | None = None) -> Array:
    dim = x.shape.index(3) if dim is None else dim
    x, y = (np.moveaxis(v, dim, -1) for v in np.broadcast_arrays(x, y))
    others = [(1, 2), (2, 0), (0, 1)]

    def entry(*i: int) -> float:
        a, b = ((*i[:-1], place) for place in others[i[-1]])
        return x[a] * y[b] - x[b] * y[a]

    return np.moveaxis(made(x.shape, entry), -1, dim)


MATRIX_REFERENCES["linalg.cross"] = lambda x, y, *, dim=-1: cross(x, y, dim)


@of("linalg.pinv pinverse")
def pinv(x: Array, rcond: Any = None, hermitian: bool = False, atol: Any = None, rtol: Any = None) -> Array:
    """Return the pseudoinverse of matrices of full rank: (A^T A)^-1 A^T or A^T (A A^T)^-1."""

    def f(rows: Rows) -> Rows:
        t = transposed(rows)
        if len(rows) >= len(t):
            return product(inverse(product(t, rows)), t)
        return product(t, inverse(product(rows, t)))

    return for_each_matrix(f)(x)


# ---- factorizations -------------------------------------------------------------------------


@of("linalg.cholesky")
def cholesky(x: Array, upper: bool = False) -> Array:
    def f(rows: Rows) -> Rows:
        lower = [[0.0] * len(rows) for _ in rows]
        for i in range(len(rows)):
            for j in range(i + 1):
                rest = rows[i][j] - sum(lower[i][k] * lower[j][k] for k in range(j))
                lower[i][j] = math.sqrt(rest) if i == j else rest / lower[j][j]
        return transposed(lower) if upper else lower

    return for_each_matrix(f)(x)


def eigenvalues(rows: Rows) -> list[float]:
    """Return the eigenvalues of a symmetric matrix in ascending order, by Jacobi's rotations."""
    a, n = [list(row) for row in rows], len(rows)
    for _ in range(30):
        for p, q in itertools.combinations(range(n), 2):
            angle = 0.5 * math.atan2(2 * a[p][q], a[q][q] - a[p][p])
            turn = [[float(i == j) for j in range(n)] for i in range(n)]
            turn[p][p] = turn[q][q] = math.cos(angle)
            turn[p][q], turn[q][p] = math.sin(angle), -math.sin(angle)
            a = product(transposed(turn), product(a, turn))
    return sorted(a[i][i] for i in range(n))


def singular_values(rows: Rows) -> list[float]:
    small = rows if len(rows) <= len(rows[0]) else transposed(rows)
    return [math.sqrt(max(v, 0.0)) for v in eigenvalues(product(small, transposed(small)))[::-1]]


MATRIX_REFERENCES["linalg.eigvalsh"] = for_each_matrix(lambda rows, UPLO="L": eigenvalues(rows))
MATRIX_REFERENCES["linalg.svdvals"] = for_each_matrix(singular_values)

# ---- functions and products -----------------------------------------------------------------


@of("matrix_exp linalg.matrix_exp")
def matrix_exp(x: Array) -> Array:
    """Return the sum of 80 terms of the power series, in fractions."""

    def f(rows: Rows) -> Rows:
        exact = [[Fraction(v) for v in row] for row in rows]
        term = total = [[Fraction(i == j) for j in range(len(rows))] for i in range(len(rows))]
        for k in range(1, 80):
            term = [[v / k for v in row] for row in product(term, exact)]
            total = [[a + b for a, b in zip(*pair)] for pair in zip(total, term)]
        return [[float(v) for v in row] for row in total]

    return for_each_matrix(f)(x)


@of("linalg.matrix_power")
def matrix_power(x: Array, n: int) -> Array:
    def f(rows: Rows) -> Rows:
        out: Rows = np.eye(len(rows)).tolist()
        for _ in range(abs(n)):
            out = product(out, rows if n > 0 else inverse(rows))
        return out

    return for_each_matrix(f)(x)


@of("linalg.multi_dot")
def multi_dot(tensors: list[Array]) -> Array:
    out = tensors[0]
    for x in tensors[1:]:
        out = REFERENCES["matmul"](out, x)
    return out


@of("linalg.vecdot")
def vecdot(x: Array, y: Array, dim: int = -1) -> Array:
    return fold(math.fsum)(REFERENCES["mul"](x, y), dim)


MATRIX_REFERENCES["linalg.matmul"] = REFERENCES["matmul"]

# ---- norms ----------------------------------------------------------------------------------

NORMS: dict[Any, Callable[[Rows], float]] = {
    "fro": lambda rows: math.sqrt(math.fsum(v * v for row in rows for v in row)),
    "nuc": lambda rows: sum(singular_values(rows)),
    2: lambda rows: max(singular_values(rows)),
    -2: lambda rows: min(singular_values(rows)),
    1: lambda rows: max(sum(map(abs, column)) for column in zip(*rows)),
    -1: lambda rows: min(sum(map(abs, column)) for column in zip(*rows)),
    math.inf: lambda rows: max(sum(map(abs, row)) for row in rows),
    -math.inf: lambda rows: min(sum(map(abs, row)) for row in rows),
}


@of("linalg.matrix_norm")
def matrix_norm(x: Array, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False) -> Array:
    axes = axes_of(x, dim)
    out = for_each_matrix(NORMS[ord])(np.moveaxis(x, axes, (-2, -1)))
    return out.reshape([1 if d in axes else n for d, n in enumerate(x.shape)]) if keepdim else out


@of("linalg.norm")
def norm(x: Array, ord: Any = None, dim: Any = None, keepdim: bool = False) -> Array:
    if ord is not None and len(axes_of(x, dim)) == 2:
        return matrix_norm(x, ord, axes_of(x, dim), keepdim)
    return REFERENCES["linalg.vector_norm"](x, 2 if ord is None else ord, dim, keepdim)


@of("linalg.cond")
def cond(x: Array, p: Any = None) -> Array:
    if p in (None, 2, -2):
        ratio = for_each_matrix(lambda rows: NORMS[2](rows) / NORMS[-2](rows))(x)
        return 1 / ratio if p == -2 else ratio
    return for_each_matrix(lambda rows: NORMS[p](rows) * NORMS[p](inverse(rows)))(x)
