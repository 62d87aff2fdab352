"""Products of matrices that threads share, by calls of NumPy's own BLAS."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from .parallel_for import bind_kernel, parallel_for
from .support import ENTRY, I64, INLINE, INNER, LOOP, float32_pointer, njit, to_pointer

__all__ = ["NO_TRANS", "TRANS", "blas_layout", "gemv", "matmul", "sgemm"]

NO_TRANS, TRANS = 111, 112  # CblasNoTrans, CblasTrans
_GRAIN_SIZE = 16  # rows or columns, because OpenBLAS computes about that many at a time
_LARGE = 20_000_000  # multiplications; for more, smaller chunks cost little and even out delays

# ---- calls of BLAS --------------------------------------------------------------------------


def _gemm(number: Any, numba_number: Any) -> Any:
    """Make a compiled function that calls ``cblas_sgemm`` or ``cblas_dgemm`` at an address.

    It computes ``C = op(A) op(B) + beta C`` for row-major matrices, with 64-bit sizes. Matrices are given by addresses.
    """

    @intrinsic
    def gemm(
        context: Any, function: Any, ta: Any, tb: Any, m: Any, n: Any, k: Any, a: Any, lda: Any, b: Any, ldb: Any,
        beta: Any, c: Any, ldc: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            function, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc = args
            enum, size, memory = ir.IntType(32), I64, ir.IntType(8).as_pointer()
            function_type = ir.FunctionType(
                ir.VoidType(),
                [enum, enum, enum, size, size, size, number, memory, size, memory, size, number, memory, size],
            )
            to_enum = lambda value: builder.trunc(value, enum)
            to_matrix = lambda value: builder.inttoptr(value, memory)
            row_major, alpha = enum(101), number(1.0)
            builder.call(
                to_pointer(builder, function, function_type),
                [row_major, to_enum(ta), to_enum(tb), m, n, k, alpha, to_matrix(a), lda, to_matrix(b), ldb, beta,
                 to_matrix(c), ldc],
            )  # fmt: skip
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10, numba_number, types.int64, types.int64), generate

    return gemm


sgemm, _dgemm = _gemm(ir.FloatType(), types.float32), _gemm(ir.DoubleType(), types.float64)


@njit(**INLINE)
def blas_layout(x: Any) -> tuple[int, int]:
    """Return NO_TRANS or TRANS and the leading dimension with which BLAS reads a matrix; ``(0, 0)`` if it cannot.

    The leading dimension is the number of entries from one row in memory to the next.
    """
    size, rows, columns = x.itemsize, x.shape[0], x.shape[1]
    down, across = x.strides[0], x.strides[1]
    if across == size and down >= size * columns and down % size == 0:
        return NO_TRANS, down // size
    if down == size and across >= size * rows and across % size == 0:
        return TRANS, across // size
    return 0, 0


# ---- products -------------------------------------------------------------------------------


@njit(**INNER)
def _matmul_chunk(
    function: int, width: int, by_rows: bool, ta: int, tb: int, m: int, n: int, k: int, a: int, lda: int, b: int,
    ldb: int, c: int, ldc: int, start: int, stop: int,
) -> None:  # fmt: skip
    """Compute rows (``by_rows``) or columns ``start`` to ``stop`` of the product."""
    if by_rows:
        a += width * start * (lda if ta == NO_TRANS else 1)
        c += width * start * ldc
        m = stop - start
    else:
        b += width * start * (1 if tb == NO_TRANS else ldb)
        c += width * start
        n = stop - start
    if width == 4:
        sgemm(function, ta, tb, m, n, k, a, lda, b, ldb, np.float32(0), c, ldc)
    else:
        _dgemm(function, ta, tb, m, n, k, a, lda, b, ldb, 0.0, c, ldc)


@njit(**LOOP)
def gemv(w: int, ldw: int, k: int, x: int, y: int, start: int, stop: int) -> None:
    """Compute ``y[i] = sum_j w[i, j] x[j]`` for rows ``start`` to ``stop``, as fast as memory is read.

    w, x, y: addresses of float32 numbers. w: rows of k entries, with ldw entries from one row to the next. x: k
    entries. y: one entry per row.
    """
    # Compute four rows at a time, so that each entry of x is loaded once for four of them.
    v, out = carray(float32_pointer(x), k), carray(float32_pointer(y), stop)
    i = start
    while i + 4 <= stop:
        row = w + 4 * ldw * i
        p, q = carray(float32_pointer(row), k), carray(float32_pointer(row + 4 * ldw), k)
        r, s = carray(float32_pointer(row + 8 * ldw), k), carray(float32_pointer(row + 12 * ldw), k)
        a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for j in range(k):
            a += p[j] * v[j]
            b += q[j] * v[j]
            c += r[j] * v[j]
            d += s[j] * v[j]
        out[i], out[i + 1], out[i + 2], out[i + 3] = a, b, c, d
        i += 4
    while i < stop:
        p, a = carray(float32_pointer(w + 4 * ldw * i), k), np.float32(0)
        for j in range(k):
            a += p[j] * v[j]
        out[i] = a
        i += 1


@njit(*(f"b1(i8, {t}[:, :], {t}[:, :], {t}[:, ::1], i8)" for t in ("f4", "f8")), **ENTRY)
def matmul(pool: int, x: Any, y: Any, out: Any, function: int) -> bool:
    """Write ``x @ y`` into ``out``, shared among the threads of a pool. Return whether BLAS can compute it.

    x (m, k), y (k, n), out (m, n): all float32 or all float64. function: the address of BLAS's gemm for that dtype.

    It returns False if BLAS cannot read the strides of a matrix. It also returns False for a single row or column of
    float64, because gemm would copy the matrix for it.
    """
    (ta, lda), (tb, ldb) = blas_layout(x), blas_layout(y)
    if ta == 0 or tb == 0:
        return False
    m, k, n, width = x.shape[0], x.shape[1], y.shape[1], x.itemsize
    a, b, c = np.int64(x.ctypes.data), np.int64(y.ctypes.data), np.int64(out.ctypes.data)
    chunks_per_thread = 2 if m * n * k > _LARGE else 1
    if min(m, n) > 1:
        by_rows = m >= n
        arguments = (function, width, by_rows, ta, tb, m, n, k, a, lda, b, ldb, c, n)
        parallel_for(pool, bind_kernel(_matmul_chunk, arguments), m if by_rows else n, _GRAIN_SIZE, chunks_per_thread)
    elif width == 4 and m == 1 and x.strides[1] == 4 and tb == TRANS:
        parallel_for(pool, bind_kernel(gemv, (b, ldb, k, a, c)), n, _GRAIN_SIZE, 2)
    elif width == 4 and n == 1 and y.strides[0] == 4 and ta == NO_TRANS:
        parallel_for(pool, bind_kernel(gemv, (a, lda, k, b, c)), m, _GRAIN_SIZE, 2)
    else:
        return False
    return True
