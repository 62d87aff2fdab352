"""A second pair of hands for products: threads that share them without Python, and so without waiting for it.

To wake a sleeping thread takes 40 us, as long as a product of a small model. So a worker that has just worked looks for
the next product for a while, in compiled code that holds no lock of the interpreter, before it sleeps. A product is cut
into pieces, always the same ones for the same shapes, and whoever is free takes the next; if a worker is late, because
something else has its core, the caller does its pieces too, and nobody waits for anybody who has not begun.

The pieces are computed by NumPy's own BLAS, called by its address. All that threads tell each other is on a board, an
array of 64-bit numbers that are read and written atomically, each in a cache line of its own:

    OPEN     1 while a product may be worked on; what is below PARAMETERS is written only while it is 0
    INSIDE   how many workers may be reading the parameters
    NEXT     the next piece to be taken
    DONE     pieces that are done

Each worker has a number of its own beside it: 1 calls it back to Python, for another kind of work.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba import njit as _njit
from numba.extending import intrinsic

if config.DISABLE_JIT:
    raise ImportError("numba is told not to compile (NUMBA_DISABLE_JIT)")

__all__ = ["AS_IT_IS", "TRANSPOSED", "address_of", "board", "njit", "product", "serve"]


def njit(*signature: Any, **options: Any) -> Any:
    """numba's, which keeps what it has compiled if there is a folder that it can write to."""

    def decorate(function: Any) -> Any:
        try:
            return _njit(*signature, **options)(function)
        except (RuntimeError, OSError):  # there is none
            return _njit(*signature, **{**options, "cache": False})(function)

    return decorate


_LINE = 8  # numbers in a cache line
OPEN, INSIDE, NEXT, DONE, PARAMETERS = (_LINE * i for i in range(5))
LENGTH = PARAMETERS + 3 * _LINE
AS_IT_IS, TRANSPOSED = 111, 112  # CblasNoTrans, CblasTrans

_COMPILED: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
_INLINE: dict[str, Any] = {"inline": "always", "error_model": "numpy"}
_POLLS = 64  # between two times that the core is offered to others
_TILE = 16  # rows, or columns, that BLAS computes at a time: pieces are made of whole ones
_LARGE = 20_000_000  # multiplications and additions from which smaller pieces cost little, and even out delays

# ---- what numba has no words for --------------------------------------------------------------


def _pointer(builder: Any, address: Any, to: Any) -> Any:
    return builder.inttoptr(address, to.as_pointer())


@intrinsic
def _load(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, args[0], ir.IntType(64)), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def _store(context: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _pointer(builder, args[0], ir.IntType(64)), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def _add(context: Any, address: Any, value: Any) -> Any:
    """Adds, and returns what was there before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, args[0], ir.IntType(64)), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _offer_core(context: Any, function: Any) -> Any:
    """Call ``int function(void)`` by its address: the system's sched_yield."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(_pointer(builder, args[0], kind), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def _gemm(number: Any, numba_number: Any) -> Any:
    """cblas_sgemm or cblas_dgemm by its address, row-major, with 64-bit sizes: ``C = op(A) op(B)``."""

    @intrinsic
    def gemm(
        context: Any, function: Any, ta: Any, tb: Any, m: Any, n: Any, k: Any, a: Any, lda: Any, b: Any, ldb: Any,
        c: Any, ldc: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            function, ta, tb, m, n, k, a, lda, b, ldb, c, ldc = args
            enum, size, memory = ir.IntType(32), ir.IntType(64), ir.IntType(8).as_pointer()
            kind = ir.FunctionType(
                ir.VoidType(),
                [enum, enum, enum, size, size, size, number, memory, size, memory, size, number, memory, size],
            )
            short = lambda value: builder.trunc(value, enum)
            place = lambda value: builder.inttoptr(value, memory)
            builder.call(
                _pointer(builder, function, kind),
                [enum(101), short(ta), short(tb), m, n, k, number(1.0), place(a), lda, place(b), ldb, number(0.0),
                 place(c), ldc],
            )  # fmt: skip
            return context.get_dummy_value()

        return types.void(*[types.int64] * 12), generate

    return gemm


_sgemm, _dgemm = _gemm(ir.FloatType(), types.float32), _gemm(ir.DoubleType(), types.float64)

# ---- a product --------------------------------------------------------------------------------


@njit(**_INLINE)
def _work(board: int) -> None:
    """Take pieces, and compute them, until none is left."""
    at = board + 8 * PARAMETERS
    pieces, length, by_rows, total = _load(at), _load(at + 8), _load(at + 16), _load(at + 24)
    function, width = _load(at + 32), _load(at + 40)
    ta, tb, m, n, k = _load(at + 48), _load(at + 56), _load(at + 64), _load(at + 72), _load(at + 80)
    a, lda, b, ldb, c, ldc = (
        _load(at + 88), _load(at + 96), _load(at + 104), _load(at + 112), _load(at + 120), _load(at + 128),
    )  # fmt: skip
    while True:
        piece = _add(board + 8 * NEXT, 1)
        if piece >= pieces:
            return
        start = piece * length
        count = min(length, total - start)
        left, right, result, rows, columns = a, b, c, m, n
        if by_rows == 1:  # of the result
            left += width * start * (lda if ta == AS_IT_IS else 1)
            result += width * start * ldc
            rows = count
        else:
            right += width * start * (1 if tb == AS_IT_IS else ldb)
            result += width * start
            columns = count
        if width == 4:
            _sgemm(function, ta, tb, rows, columns, k, left, lda, right, ldb, result, ldc)
        else:
            _dgemm(function, ta, tb, rows, columns, k, left, lda, right, ldb, result, ldc)
        _add(board + 8 * DONE, 1)


@njit("i8(i8, i8, i8, i8)", **_COMPILED)  # compiled on import: in a fork numba's lock must not be a worker's
def serve(board: int, called: int, patience: int, offer: int) -> int:
    """A worker's time between two calls: work on products as they come. Returns 1 when it is called, and 0 when it has
    looked ``patience`` times in vain."""
    looked = 0
    while looked < patience:
        if _load(called) != 0:
            return 1
        if _load(board + 8 * OPEN) != 0:
            _add(board + 8 * INSIDE, 1)
            if _load(board + 8 * OPEN) != 0 and _load(board + 8 * NEXT) < _load(board + 8 * PARAMETERS):
                _work(board)
                looked = 0
            _add(board + 8 * INSIDE, -1)
        looked += 1
        if looked % _POLLS == 0 and offer != 0:
            _offer_core(offer)
    return 0


@njit(**_INLINE)
def _reading(x: Any) -> tuple[int, int]:
    """How BLAS reads a matrix: as it is or transposed, and the entries from one of its rows in memory to the next. 0 if
    it cannot."""
    size, rows, columns = x.itemsize, x.shape[0], x.shape[1]
    down, across = x.strides[0], x.strides[1]
    if across == size and down >= size * columns and down % size == 0:
        return AS_IT_IS, down // size
    if down == size and across >= size * rows and across % size == 0:
        return TRANSPOSED, across // size
    return 0, 0


@njit([f"b1(i8, {t}[:, :], {t}[:, :], {t}[:, ::1], i8, i8, i8)" for t in ("f4", "f8")], **_COMPILED)
def product(board: int, x: Any, y: Any, out: Any, threads: int, function: int, offer: int) -> bool:
    """``x @ y`` into ``out``: put it on the board, work on it, and return when all of it is done. False if BLAS cannot
    read these matrices.

    function: the address of BLAS's, for their dtype. offer: that of sched_yield, or 0.
    """
    (ta, lda), (tb, ldb) = _reading(x), _reading(y)
    if ta == 0 or tb == 0:
        return False
    m, k, n = x.shape[0], x.shape[1], y.shape[1]
    by_rows = m >= n
    total = m if by_rows else n
    pieces = 2 * threads if m * n * k > _LARGE else threads
    length = -(-total // (pieces * _TILE)) * _TILE
    pieces = -(-total // length)

    _store(board + 8 * OPEN, 0)
    while _load(board + 8 * INSIDE) != 0:  # who came late for the last product may still read what it was
        pass
    at = board + 8 * PARAMETERS
    parameters = (
        pieces, length, int(by_rows), total, function, x.itemsize, ta, tb, m, n, k, np.int64(x.ctypes.data), lda,
        np.int64(y.ctypes.data), ldb, np.int64(out.ctypes.data), n,
    )  # fmt: skip
    for i in range(len(parameters)):
        _store(at + 8 * i, parameters[i])
    _store(board + 8 * NEXT, 0)
    _store(board + 8 * DONE, 0)
    _store(board + 8 * OPEN, 1)
    _work(board)
    looked = 0
    while _load(board + 8 * DONE) < pieces:
        looked += 1
        if looked % _POLLS == 0 and offer != 0:
            _offer_core(offer)
    _store(board + 8 * OPEN, 0)
    return True


def address_of(function: Any) -> int:
    """Where a function of a C library is."""
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def board(length: int = LENGTH) -> Any:
    """So many zeros, in cache lines of their own."""
    room = np.zeros(length + 2 * _LINE, np.int64)
    skip = (-room.ctypes.data // 8) % _LINE
    return room[skip : skip + length]
