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

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from .support import (
    COMPILED,
    I64,
    LINE,
    PART,
    atomic_add,
    atomic_load,
    atomic_or,
    atomic_store,
    njit,
    numbers,
    pointer,
    sched_yield,
)  # fmt: skip

__all__ = ["bind_kernel", "board", "cut", "parallel_for", "serve"]

OPEN, INSIDE, TAKEN, DONE, WORK, HANDS = (8 * LINE * i for i in range(6))  # in bytes from the board's address
LENGTH = 6 * LINE
_FAILED = (
    "a compiled loop failed on one of the threads that share it: its kernel raised an error (one of tensorlite's own "
    "does so for want of memory alone)"
)
_MOST = 60  # pieces: each has a bit of one number
_POLLS = 64  # between two times that the core is offered to others

_TASK = ir.FunctionType(I64, [I64] * 3)


@intrinsic
def _call(context: Any, function: Any, about: Any, start: Any, stop: Any) -> Any:
    """``function(context, start, stop)`` by its address: 1 if it failed, else 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(pointer(builder, args[0], _TASK), args[1:])

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
        inside.ret(inside.zext(status.is_error, I64))
        context.nrt.incref(builder, arguments, args[1])
        addresses = [builder.ptrtoint(function, I64), builder.ptrtoint(copy, I64)]
        return context.make_tuple(builder, made, [*addresses, args[1]])

    return made(kernel, arguments), generate


# ---- work on the board ------------------------------------------------------------------------


@njit(**PART)
def _next_look(board: int, looked: int) -> int:
    """The number of the next look of who waits; now and then the core is offered to others before it."""
    offer = atomic_load(board + HANDS + 8)
    if looked % _POLLS == _POLLS - 1 and offer != 0:
        sched_yield(offer)
    return looked + 1


@njit(**PART)
def _work(board: int, me: int) -> None:
    """Work on pieces, from that of this thread's number on, until all are taken."""
    at = board + WORK
    pieces, length, n = atomic_load(at), atomic_load(at + 8), atomic_load(at + 16)
    function, context = atomic_load(at + 24), atomic_load(at + 32)
    for i in range(pieces):
        piece = (me + i) % pieces
        bit = 1 << piece
        if atomic_load(board + TAKEN) & bit == 0 and atomic_or(board + TAKEN, bit) & bit == 0:
            start = piece * length
            if _call(function, context, start, min(start + length, n)) != 0:
                atomic_add(board + DONE + 8, 1)
            atomic_add(board + DONE, 1)


@njit("i8(i8, i8, i8, i8)", **COMPILED)  # compiled on import: in a fork numba's lock must not be a worker's
def serve(board: int, me: int, called: int, patience: int) -> int:
    """A worker's time between two calls: help with work as it comes. Returns 1 when it is called, and 0 when it has
    looked ``patience`` times in vain. me: its number, from 1."""
    looked = 0
    while looked < patience:
        if atomic_load(called) != 0:
            return 1
        if atomic_load(board + OPEN) != 0:
            atomic_add(board + INSIDE, 1)
            if atomic_load(board + OPEN) != 0 and atomic_load(board + TAKEN) + 1 != 1 << atomic_load(board + WORK):
                _work(board, me)
                looked = 0
            atomic_add(board + INSIDE, -1)
        looked = _next_look(board, looked)
    return 0


@njit(**PART)
def cut(board: int, n: int, unit: int, each: int) -> tuple[int, int]:
    """How many pieces ``parallel_for`` makes, and their length: whole units, and about ``each`` pieces a thread."""
    if board == 0:
        return 1, n
    pieces = min(each * atomic_load(board + HANDS), _MOST)
    length = max(1, -(-n // (pieces * unit))) * unit
    return -(-n // length), length


@njit("void(i8, i8, i8, i8, i8, i8)", **COMPILED)
def _share(board: int, function: int, context: int, n: int, unit: int, each: int) -> None:
    if unit < 1 or each < 1:  # no pieces that make up the range: it would wait for ever
        raise ValueError("parallel_for: expected unit and each of 1 or more")
    pieces, length = cut(board, n, unit, each)
    if pieces <= 1:
        if _call(function, context, 0, n) != 0:
            raise RuntimeError(_FAILED)
        return
    if atomic_load(board + OPEN) != 0:  # a kernel's own call: the work around it would be lost, and waited for for ever
        raise RuntimeError("parallel_for: inside a kernel nothing can be shared again")
    looked = 0
    while atomic_load(board + INSIDE) != 0:  # who came late for the last work may still read what it was
        looked = _next_look(board, looked)
    work = (pieces, length, n, function, context)
    for i in range(len(work)):
        atomic_store(board + WORK + 8 * i, work[i])
    atomic_store(board + TAKEN, 0)
    atomic_store(board + DONE, 0)
    atomic_store(board + DONE + 8, 0)
    atomic_store(board + OPEN, 1)
    _work(board, 0)
    looked = 0
    while atomic_load(board + DONE) < pieces:
        looked = _next_look(board, looked)
    atomic_store(board + OPEN, 0)
    if atomic_load(board + DONE + 8) != 0:
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


def board(hands: int = 1, offer: int = 0) -> Any:
    """A board for so many threads, in cache lines of its own. offer: the address of sched_yield, or 0."""
    made = numbers(LENGTH)
    made[HANDS // 8 : HANDS // 8 + 2] = hands, offer
    return made
