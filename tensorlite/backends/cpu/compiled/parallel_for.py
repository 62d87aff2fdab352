"""A second pair of hands for compiled loops: threads that share them without Python, and so without waiting for it.

To wake a sleeping thread takes 40 us, as long as a product of a small model. So a worker that has just worked looks for
the next work for a while, in compiled code that holds no lock of the interpreter, before it sleeps. Work is a range,
cut into pieces, always the same ones for the same range, and each thread begins with its own, so that an array's parts
stay in the cache of one core from op to op; if a worker is late, because something else has its core, the others do its
pieces too, and nobody waits for anybody who has not begun.

    parallel_for(board, bind_kernel(kernel, arguments), n, 1, 1)    # kernel(*arguments, start, stop)

Products are shared like any other loop; their pieces are computed by NumPy's own BLAS, called by its address. All that
threads tell each other is on a board, an array of 64-bit numbers, read and written atomically where two may meet, each
in a cache line of its own:

    OPEN     1 while there is work; what is below WORK is written only while it is 0
    INSIDE   how many workers may be reading it
    TAKEN    a bit for each piece that somebody has begun
    DONE     pieces that are done, and beside it how many of them failed: a kernel raises nothing but for want of memory
    WORK     pieces, their length, n, the address of a function (context, start, stop), and that of its context
    HANDS    how many threads there are, and the address of the system's sched_yield, or 0

Each worker has a number of its own beside it: 1 calls it back to Python, for another kind of work.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, config, types
from numba import njit as _njit
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

if config.DISABLE_JIT:
    raise ImportError("numba is told not to compile (NUMBA_DISABLE_JIT)")

__all__ = [
    "AS_IT_IS", "TRANSPOSED", "address_of", "as_read", "board", "cut", "floats", "njit", "numbers", "product",
    "rows_times", "serve", "sgemm", "parallel_for", "bind_kernel",
]  # fmt: skip


def njit(*signature: Any, **options: Any) -> Any:
    """numba's decorator, with its options; with ``cache=True`` it keeps what it has compiled, if there is a folder that
    it can write to, until that function's file or one of the kernels' changes."""
    if signature and callable(signature[0]):  # `@njit` without parentheses
        return njit()(signature[0])

    def decorate(function: Any) -> Any:
        try:
            return _compiled(function, signature, options)
        except (RuntimeError, OSError):  # there is no such folder
            return _compiled(function, signature, {**options, "cache": False})

    return decorate


def _compiled(function: Any, signature: tuple[str, ...], options: dict[str, Any]) -> Any:
    result = _njit(**options)(function)
    if options.get("cache"):
        _stamp(result)
    for types_of_arguments in signature:
        result.compile(types_of_arguments)
    if signature:
        result.disable_compile()  # for others
    return result


def _stamp(compiled: Any) -> None:
    """Have what numba keeps of a function count for nothing once a file of kernels has changed.

    A kernel is compiled into each function that calls it, wherever that is, and numba looks at the caller's file alone.
    """
    try:
        files = [path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))]
        kept = compiled._cache._cache_file
        kept._source_stamp = (kept._source_stamp, [(file.st_mtime, file.st_size) for file in files])
    except (AttributeError, OSError):  # numba's own affair, and it may change
        pass


_LINE = 8  # numbers in a cache line
OPEN, INSIDE, TAKEN, DONE, WORK, HANDS = (8 * _LINE * i for i in range(6))  # in bytes from the board's address
LENGTH = 6 * _LINE
AS_IT_IS, TRANSPOSED = 111, 112  # CblasNoTrans, CblasTrans

_COMPILED: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_INLINE: dict[str, Any] = {"inline": "always", "error_model": "numpy"}
_PART: dict[str, Any] = {  # of other compiled functions, so that nobody calls it from Python
    "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "no_cpython_wrapper": True,
}  # fmt: skip
_SUM: dict[str, Any] = {**_PART, "fastmath": {"reassoc", "contract", "nsz"}}  # so that sums are vectorised
_FAILED = (
    "a compiled loop failed on one of the threads that share it: its kernel raised an error (one of tensorlite's own "
    "does so for want of memory alone)"
)
_MOST = 60  # pieces: each has a bit of one number
_POLLS = 64  # between two times that the core is offered to others
_TILE = 16  # rows, or columns, that BLAS computes at a time: pieces are made of whole ones
_LARGE = 20_000_000  # multiplications and additions from which smaller pieces cost little, and even out delays

# ---- what numba has no words for --------------------------------------------------------------

_I64 = ir.IntType(64)
_TASK = ir.FunctionType(_I64, [_I64] * 3)


def _pointer(builder: Any, address: Any, to: Any) -> Any:
    return builder.inttoptr(address, to.as_pointer())


@intrinsic
def _load(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, args[0], _I64), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def _store(context: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _pointer(builder, args[0], _I64), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def _change(operation: str) -> Any:
    """Changes a number so, in one piece, and returns what it was before."""

    @intrinsic
    def change(context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.atomic_rmw(operation, _pointer(builder, args[0], _I64), args[1], "seq_cst")

        return types.int64(types.int64, types.int64), generate

    return change


_add, _set = _change("add"), _change("or")


@intrinsic
def floats(context: Any, address: Any) -> Any:
    """A pointer to float32, for ``numba.carray``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _pointer(builder, args[0], ir.FloatType())

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def _offer_core(context: Any, function: Any) -> Any:
    """Call ``int function(void)`` by its address: the system's sched_yield."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(_pointer(builder, args[0], kind), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def _call(context: Any, function: Any, about: Any, start: Any, stop: Any) -> Any:
    """``function(context, start, stop)`` by its address: 1 if it failed, else 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(_pointer(builder, args[0], _TASK), args[1:])

    return types.int64(*[types.int64] * 4), generate


@intrinsic
def bind_kernel(context: Any, kernel: Any, arguments: Any) -> Any:
    """``kernel(*arguments, start, stop)`` for a compiled function and a tuple, as something that can be shared.

    That is the address of a function of (context, start, stop), and that of its context: a copy of the arguments, on
    the stack of who calls this. And the arguments, so that arrays among them live as long as it.
    """
    if not isinstance(kernel, types.Dispatcher) or not isinstance(arguments, types.BaseTuple):
        raise TypingError(
            "bind_kernel: expected a compiled function and a tuple of its arguments, as in bind_kernel(kernel, (x,))"
        )
    made = types.Tuple((types.int64, types.int64, arguments))
    found = kernel.get_call_type(context, (*arguments.types, types.int64, types.int64), {})

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        compiled = kernel.dispatcher.get_compile_result(found)
        context.add_linking_libs([compiled.library])
        copy = cgutils.alloca_once_value(builder, args[1])
        module = builder.module
        function = ir.Function(module, _TASK, module.get_unique_name("bind_kernel"))
        function.linkage = "internal"
        inside = ir.IRBuilder(function.append_basic_block())
        values = cgutils.unpack_tuple(inside, inside.load(inside.inttoptr(function.args[0], copy.type)))
        values = [
            context.cast(inside, value, have, want)
            for value, have, want in zip(values, arguments.types, found.args, strict=False)
        ]
        status, _ = context.call_internal_no_propagate(
            inside, compiled.fndesc, found, [*values, *function.args[1:]]
        )
        inside.ret(inside.zext(status.is_error, _I64))
        context.nrt.incref(builder, arguments, args[1])
        addresses = [builder.ptrtoint(function, _I64), builder.ptrtoint(copy, _I64)]
        return context.make_tuple(builder, made, [*addresses, args[1]])

    return made(kernel, arguments), generate


def _gemm(number: Any, numba_number: Any) -> Any:
    """cblas_sgemm or cblas_dgemm by its address, row-major, with 64-bit sizes: ``C = op(A) op(B) + beta C``."""

    @intrinsic
    def gemm(
        context: Any, function: Any, ta: Any, tb: Any, m: Any, n: Any, k: Any, a: Any, lda: Any, b: Any, ldb: Any,
        beta: Any, c: Any, ldc: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            function, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc = args
            enum, size, memory = ir.IntType(32), _I64, ir.IntType(8).as_pointer()
            kind = ir.FunctionType(
                ir.VoidType(),
                [enum, enum, enum, size, size, size, number, memory, size, memory, size, number, memory, size],
            )
            short = lambda value: builder.trunc(value, enum)
            place = lambda value: builder.inttoptr(value, memory)
            builder.call(
                _pointer(builder, function, kind),
                [enum(101), short(ta), short(tb), m, n, k, number(1.0), place(a), lda, place(b), ldb, beta,
                 place(c), ldc],
            )  # fmt: skip
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10, numba_number, types.int64, types.int64), generate

    return gemm


sgemm, _dgemm = _gemm(ir.FloatType(), types.float32), _gemm(ir.DoubleType(), types.float64)

# ---- work on the board ------------------------------------------------------------------------


@njit(**_PART)
def _next_look(board: int, looked: int) -> int:
    """The number of the next look of who waits; now and then the core is offered to others before it."""
    offer = _load(board + HANDS + 8)
    if looked % _POLLS == _POLLS - 1 and offer != 0:
        _offer_core(offer)
    return looked + 1


@njit(**_PART)
def _work(board: int, me: int) -> None:
    """Work on pieces, from that of this thread's number on, until all are taken."""
    at = board + WORK
    pieces, length, n, function, context = _load(at), _load(at + 8), _load(at + 16), _load(at + 24), _load(at + 32)
    for i in range(pieces):
        piece = (me + i) % pieces
        bit = 1 << piece
        if _load(board + TAKEN) & bit == 0 and _set(board + TAKEN, bit) & bit == 0:
            start = piece * length
            if _call(function, context, start, min(start + length, n)) != 0:
                _add(board + DONE + 8, 1)
            _add(board + DONE, 1)


@njit("i8(i8, i8, i8, i8)", **_COMPILED)  # compiled on import: in a fork numba's lock must not be a worker's
def serve(board: int, me: int, called: int, patience: int) -> int:
    """A worker's time between two calls: help with work as it comes. Returns 1 when it is called, and 0 when it has
    looked ``patience`` times in vain. me: its number, from 1."""
    looked = 0
    while looked < patience:
        if _load(called) != 0:
            return 1
        if _load(board + OPEN) != 0:
            _add(board + INSIDE, 1)
            if _load(board + OPEN) != 0 and _load(board + TAKEN) + 1 != 1 << _load(board + WORK):
                _work(board, me)
                looked = 0
            _add(board + INSIDE, -1)
        looked = _next_look(board, looked)
    return 0


@njit(**_PART)
def cut(board: int, n: int, unit: int, each: int) -> tuple[int, int]:
    """How many pieces ``parallel_for`` makes, and their length: whole units, and about ``each`` pieces a thread."""
    if board == 0:
        return 1, n
    pieces = min(each * _load(board + HANDS), _MOST)
    length = max(1, -(-n // (pieces * unit))) * unit
    return -(-n // length), length


@njit("void(i8, i8, i8, i8, i8, i8)", **_COMPILED)
def _share(board: int, function: int, context: int, n: int, unit: int, each: int) -> None:
    if unit < 1 or each < 1:  # no pieces that make up the range: it would wait for ever
        raise ValueError("parallel_for: expected unit and each of 1 or more")
    pieces, length = cut(board, n, unit, each)
    if pieces <= 1:
        if _call(function, context, 0, n) != 0:
            raise RuntimeError(_FAILED)
        return
    if _load(board + OPEN) != 0:  # a kernel's own call: the work around it would be lost, and waited for for ever
        raise RuntimeError("parallel_for: inside a kernel nothing can be shared again")
    looked = 0
    while _load(board + INSIDE) != 0:  # who came late for the last work may still read what it was
        looked = _next_look(board, looked)
    work = (pieces, length, n, function, context)
    for i in range(len(work)):
        _store(board + WORK + 8 * i, work[i])
    _store(board + TAKEN, 0)
    _store(board + DONE, 0)
    _store(board + DONE + 8, 0)
    _store(board + OPEN, 1)
    _work(board, 0)
    looked = 0
    while _load(board + DONE) < pieces:
        looked = _next_look(board, looked)
    _store(board + OPEN, 0)
    if _load(board + DONE + 8) != 0:
        raise RuntimeError(_FAILED)


@intrinsic
def parallel_for(context: Any, board: Any, task: Any, n: Any, unit: Any, each: Any) -> Any:
    """Call a task's kernel for ranges ``start, stop`` that make up range(n); return when all is done.

    board: its address, or 0 for one range, here. unit, each: of whole units, about so many ranges a thread. The ranges
    must not depend on one another, and inside a kernel nothing can be shared again. Raises RuntimeError if the kernel
    raised anything, ValueError for a unit or each below 1.
    """  # no function of numba's, which would be compiled for each kind of task
    shared = context.resolve_value_type(_share)
    found = shared.get_call_type(context, (types.int64,) * 6, {})

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        board, task, n, unit, each = args
        addresses = [builder.extract_value(task, i) for i in range(2)]
        return context.get_function(shared, found)(builder, (board, *addresses, n, unit, each))

    return types.void(types.int64, task, *[types.int64] * 3), generate


# ---- products ---------------------------------------------------------------------------------


@njit(**_INLINE)
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


@njit(**_PART)
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


@njit(**_SUM)
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


@njit(*(f"b1(i8, {t}[:, :], {t}[:, :], {t}[:, ::1], i8)" for t in ("f4", "f8")), **_COMPILED)
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


def address_of(function: Any) -> int:
    """Where a function of a C library is."""
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def board(hands: int = 1, offer: int = 0) -> Any:
    """A board for so many threads, in cache lines of its own. offer: the address of sched_yield, or 0."""
    made = numbers(LENGTH)
    made[HANDS // 8 : HANDS // 8 + 2] = hands, offer
    return made


def numbers(length: int) -> Any:
    """So many zeros, in cache lines of their own."""
    room = np.zeros(length + 2 * _LINE, np.int64)
    skip = (-room.ctypes.data // 8) % _LINE
    return room[skip : skip + length]
