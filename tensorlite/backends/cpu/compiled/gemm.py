"""Products of matrices by NumPy's own BLAS, called by its address and shared among threads."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from .parallel_for import bind_kernel, parallel_for
from .support import COMPILED, I64, INLINE, PART, SUM, floats, njit, pointer

__all__ = ["AS_IT_IS", "TRANSPOSED", "as_read", "product", "rows_times", "sgemm"]

AS_IT_IS, TRANSPOSED = 111, 112  # CblasNoTrans, CblasTrans
_TILE = 16  # rows, or columns, that BLAS computes at a time: pieces are made of whole ones
_LARGE = 20_000_000  # multiplications and additions from which smaller pieces cost little, and even out delays


def _gemm(number: Any, numba_number: Any) -> Any:
    """cblas_sgemm or cblas_dgemm by its address, row-major, with 64-bit sizes: ``C = op(A) op(B) + beta C``."""

    @intrinsic
    def gemm(
        context: Any, function: Any, ta: Any, tb: Any, m: Any, n: Any, k: Any, a: Any, lda: Any, b: Any, ldb: Any,
        beta: Any, c: Any, ldc: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            function, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc = args
            enum, size, memory = ir.IntType(32), I64, ir.IntType(8).as_pointer()
            kind = ir.FunctionType(
                ir.VoidType(),
                [enum, enum, enum, size, size, size, number, memory, size, memory, size, number, memory, size],
            )
            short = lambda value: builder.trunc(value, enum)
            place = lambda value: builder.inttoptr(value, memory)
            builder.call(
                pointer(builder, function, kind),
                [enum(101), short(ta), short(tb), m, n, k, number(1.0), place(a), lda, place(b), ldb, beta,
                 place(c), ldc],
            )  # fmt: skip
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10, numba_number, types.int64, types.int64), generate

    return gemm


sgemm, _dgemm = _gemm(ir.FloatType(), types.float32), _gemm(ir.DoubleType(), types.float64)


@njit(**INLINE)
def as_read(x: Any) -> tuple[int, int]:
    """How BLAS reads a matrix: as it is or transposed, and the entries from one of its rows in memory to the next. 0 if
    it cannot."""
    size, rows, columns = x.itemsize, x.shape[0], x.shape[1]
    down, across = x.strides[0], x.strides[1]
    if across == size and down >= size * columns and down % size == 0:
        return AS_IT_IS, down // size
    if down == size and across >= size * rows and across % size == 0:
        return TRANSPOSED, across // size
    return 0, 0


@njit(**PART)
def _piece_of_product(
    function: int, width: int, by_rows: bool, ta: int, tb: int, m: int, n: int, k: int, a: int, lda: int, b: int,
    ldb: int, c: int, ldc: int, start: int, stop: int,
) -> None:  # fmt: skip
    """Rows, or columns, ``start`` to ``stop`` of the result."""
    if by_rows:
        a += width * start * (lda if ta == AS_IT_IS else 1)
        c += width * start * ldc
        m = stop - start
    else:
        b += width * start * (1 if tb == AS_IT_IS else ldb)
        c += width * start
        n = stop - start
    if width == 4:
        sgemm(function, ta, tb, m, n, k, a, lda, b, ldb, np.float32(0), c, ldc)
    else:
        _dgemm(function, ta, tb, m, n, k, a, lda, b, ldb, 0.0, c, ldc)


@njit(**SUM)
def rows_times(w: int, ldw: int, k: int, x: int, y: int, start: int, stop: int) -> None:
    """``y[i] = sum_j w[i, j] x[j]`` of float32 by their addresses, four rows at a time: at memory speed.

    w: a matrix of rows of k entries, each ldw behind the one before. x: k entries. y: one entry a row.
    """
    v, out = carray(floats(x), k), carray(floats(y), stop)
    i = start
    while i + 4 <= stop:
        row = w + 4 * ldw * i
        p, q = carray(floats(row), k), carray(floats(row + 4 * ldw), k)
        r, s = carray(floats(row + 8 * ldw), k), carray(floats(row + 12 * ldw), k)
        a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for j in range(k):
            a += p[j] * v[j]
            b += q[j] * v[j]
            c += r[j] * v[j]
            d += s[j] * v[j]
        out[i], out[i + 1], out[i + 2], out[i + 3] = a, b, c, d
        i += 4
    while i < stop:
        p, a = carray(floats(w + 4 * ldw * i), k), np.float32(0)
        for j in range(k):
            a += p[j] * v[j]
        out[i] = a
        i += 1


@njit(*(f"b1(i8, {t}[:, :], {t}[:, :], {t}[:, ::1], i8)" for t in ("f4", "f8")), **COMPILED)
def product(board: int, x: Any, y: Any, out: Any, function: int) -> bool:
    """``x @ y`` into ``out``, shared. False if it cannot be: BLAS cannot read these matrices, or it would copy one for
    a single row or column.

    function: the address of BLAS's gemm for their dtype.
    """
    (ta, lda), (tb, ldb) = as_read(x), as_read(y)
    if ta == 0 or tb == 0:
        return False
    m, k, n, width = x.shape[0], x.shape[1], y.shape[1], x.itemsize
    a, b, c = np.int64(x.ctypes.data), np.int64(y.ctypes.data), np.int64(out.ctypes.data)
    each = 2 if m * n * k > _LARGE else 1
    if min(m, n) > 1:
        by_rows = m >= n
        arguments = (function, width, by_rows, ta, tb, m, n, k, a, lda, b, ldb, c, n)
        parallel_for(board, bind_kernel(_piece_of_product, arguments), m if by_rows else n, _TILE, each)
    elif width == 4 and m == 1 and x.strides[1] == 4 and tb == TRANSPOSED:
        parallel_for(board, bind_kernel(rows_times, (b, ldb, k, a, c)), n, _TILE, 2)
    elif width == 4 and n == 1 and y.strides[0] == 4 and ta == AS_IT_IS:
        parallel_for(board, bind_kernel(rows_times, (a, lda, k, b, c)), m, _TILE, 2)
    else:
        return False
    return True
