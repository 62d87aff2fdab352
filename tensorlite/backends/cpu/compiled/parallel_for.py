"""Compiled loops that several threads share without holding the interpreter's lock.

Waking a sleeping thread takes 40 us, as long as a product of a small model. So a worker that has just worked spins for
a while before it sleeps: compiled code that does not hold the lock watches for the next task.

A task is a kernel and a range. The range is split into chunks, which depend only on its length and the number of
threads. Each thread starts with the chunk of its own index. So a part of an array stays in one core's cache from op to
op. If a worker is delayed, the other threads process its chunks. No thread waits for a worker that has not
started.

    parallel_for(pool, bind_kernel(kernel, arguments), n, 1, 1)    # kernel(*arguments, start, stop)

The threads communicate through the memory of a pool, an array of 64-bit integers. Numbers that several threads access
are accessed atomically. Each group below starts a cache line of its own:

    ACTIVE       1 while there is a task. TASK is written only while it is 0.
    READERS      Number of workers that may be reading the task.
    CLAIMED      One bit for each chunk that a thread has started.
    COMPLETED    Completed chunks, then failed chunks. A kernel of tensorlite fails only when memory runs out.
    TASK         Number of chunks, chunk length, n, addresses of a function (context, start, stop) and its context.
    NUM_THREADS  Number of threads, then the address of the system's sched_yield, or 0.

Each worker has a wake flag in addition: 1 makes it return to Python, for a job of Python functions.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from .support import (
    CACHE_LINE,
    ENTRY,
    I64,
    INNER,
    aligned_zeros,
    atomic_add,
    atomic_load,
    atomic_or,
    atomic_store,
    njit,
    sched_yield,
    to_pointer,
)

__all__ = ["bind_kernel", "create_pool", "parallel_for", "split_range", "worker_loop"]

# Offsets in bytes from the address of a pool.
ACTIVE, READERS, CLAIMED, COMPLETED, TASK, NUM_THREADS = (8 * CACHE_LINE * i for i in range(6))
POOL_LENGTH = 6 * CACHE_LINE

_FAILED = (
    "parallel_for: a compiled loop failed on one of the threads that share it: its kernel raised an error (a kernel of "
    "tensorlite fails only when memory runs out)"
)
_MAX_CHUNKS = 60  # CLAIMED has one bit for each
_SPINS_PER_YIELD = 64

# ---- kernels with their arguments -----------------------------------------------------------

_BOUND_KERNEL = ir.FunctionType(I64, [I64] * 3)  # (context, start, stop) -> 1 if it failed, else 0


@intrinsic
def _call_bound_kernel(context: Any, function: Any, about: Any, start: Any, stop: Any) -> Any:
    """Call ``function(context, start, stop)`` by its address; return 1 if it failed, else 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(to_pointer(builder, args[0], _BOUND_KERNEL), args[1:])

    return types.int64(*[types.int64] * 4), generate


@intrinsic
def bind_kernel(context: Any, kernel: Any, arguments: Any) -> Any:
    """Bind a compiled function to its first arguments, for :func:`parallel_for` to call.

    kernel: a compiled function that takes the arguments, then ``start`` and ``stop``. arguments: a tuple.

    Returns a tuple: the address of a function (context, start, stop), the address of its context, and the arguments.
    The context is a copy of the arguments on the caller's stack, so the result must not leave the caller. It includes
    the arguments, so that their arrays live as long as it does.
    """
    if not isinstance(kernel, types.Dispatcher) or not isinstance(arguments, types.BaseTuple):
        raise TypingError(
            "bind_kernel: expected a compiled function and a tuple of its arguments, as in bind_kernel(kernel, (x,))"
        )
    result_type = types.Tuple((types.int64, types.int64, arguments))
    call_type = kernel.get_call_type(context, (*arguments.types, types.int64, types.int64), {})

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        compiled = kernel.dispatcher.get_compile_result(call_type)
        context.add_linking_libs([compiled.library])
        copy = cgutils.alloca_once_value(builder, args[1])
        module = builder.module
        function = ir.Function(module, _BOUND_KERNEL, module.get_unique_name("bound_kernel"))
        function.linkage = "internal"
        body = ir.IRBuilder(function.append_basic_block())
        values = cgutils.unpack_tuple(body, body.load(body.inttoptr(function.args[0], copy.type)))
        values = [
            context.cast(body, value, given, expected)
            for value, given, expected in zip(values, arguments.types, call_type.args, strict=False)
        ]
        status, _ = context.call_internal_no_propagate(
            body, compiled.fndesc, call_type, [*values, *function.args[1:]]
        )
        body.ret(body.zext(status.is_error, I64))
        context.nrt.incref(builder, arguments, args[1])
        addresses = [builder.ptrtoint(function, I64), builder.ptrtoint(copy, I64)]
        return context.make_tuple(builder, result_type, [*addresses, args[1]])

    return result_type(kernel, arguments), generate


# ---- the task of a pool ---------------------------------------------------------------------


@njit(**INNER)
def spin_wait(pool: int, spins: int) -> int:
    """Return ``spins + 1``; every 64 spins give up the core for other threads."""
    yield_pointer = atomic_load(pool + NUM_THREADS + 8)
    if spins % _SPINS_PER_YIELD == _SPINS_PER_YIELD - 1 and yield_pointer != 0:
        sched_yield(yield_pointer)
    return spins + 1


@njit(**INNER)
def _run_chunks(pool: int, index: int) -> None:
    """Run chunks of the task until all are claimed, starting with the chunk of this thread's index."""
    task = pool + TASK
    chunks, length, n = atomic_load(task), atomic_load(task + 8), atomic_load(task + 16)
    function, context = atomic_load(task + 24), atomic_load(task + 32)
    for i in range(chunks):
        chunk = (index + i) % chunks
        bit = 1 << chunk
        if atomic_load(pool + CLAIMED) & bit == 0 and atomic_or(pool + CLAIMED, bit) & bit == 0:
            start = chunk * length
            if _call_bound_kernel(function, context, start, min(start + length, n)) != 0:
                atomic_add(pool + COMPLETED + 8, 1)
            atomic_add(pool + COMPLETED, 1)


# Compiled at import, so that a fork never inherits numba's lock from a worker thread that compiles.
@njit("i8(i8, i8, i8, i8)", **ENTRY)
def worker_loop(pool: int, index: int, wake_flag: int, max_spins: int) -> int:
    """Help with tasks as they come. Return 1 when the wake flag is set, 0 after ``max_spins`` looks without a task.

    pool, wake_flag: addresses. index: number of the worker, from 1; the calling thread of a task has 0.
    """
    spins = 0
    while spins < max_spins:
        if atomic_load(wake_flag) != 0:
            return 1
        if atomic_load(pool + ACTIVE) != 0:
            atomic_add(pool + READERS, 1)
            if atomic_load(pool + ACTIVE) != 0 and atomic_load(pool + CLAIMED) + 1 != 1 << atomic_load(pool + TASK):
                _run_chunks(pool, index)
                spins = 0
            atomic_add(pool + READERS, -1)
        spins = spin_wait(pool, spins)
    return 0


@njit(**INNER)
def split_range(pool: int, n: int, grain_size: int, chunks_per_thread: int) -> tuple[int, int]:
    """Return the number of chunks into which :func:`parallel_for` splits ``range(n)``, and their length."""
    if pool == 0:
        return 1, n
    chunks = min(chunks_per_thread * atomic_load(pool + NUM_THREADS), _MAX_CHUNKS)
    length = max(1, -(-n // (chunks * grain_size))) * grain_size
    return -(-n // length), length


@njit("void(i8, i8, i8, i8, i8, i8)", **ENTRY)
def _parallel_for(pool: int, function: int, context: int, n: int, grain_size: int, chunks_per_thread: int) -> None:
    if grain_size < 1 or chunks_per_thread < 1:  # because the wait for the chunks would not end
        raise ValueError("parallel_for: expected grain_size and chunks_per_thread of 1 or more")
    chunks, length = split_range(pool, n, grain_size, chunks_per_thread)
    if chunks <= 1:
        if _call_bound_kernel(function, context, 0, n) != 0:
            raise RuntimeError(_FAILED)
        return
    if atomic_load(pool + ACTIVE) != 0:  # because a nested call would overwrite the outer task and deadlock
        raise RuntimeError("parallel_for: a kernel that runs in parallel cannot call parallel_for with the same pool")
    spins = 0
    while atomic_load(pool + READERS) != 0:  # because a late worker may still read the previous task
        spins = spin_wait(pool, spins)
    task = (chunks, length, n, function, context)
    for i in range(len(task)):
        atomic_store(pool + TASK + 8 * i, task[i])
    atomic_store(pool + CLAIMED, 0)
    atomic_store(pool + COMPLETED, 0)
    atomic_store(pool + COMPLETED + 8, 0)
    atomic_store(pool + ACTIVE, 1)
    _run_chunks(pool, 0)
    spins = 0
    while atomic_load(pool + COMPLETED) < chunks:
        spins = spin_wait(pool, spins)
    atomic_store(pool + ACTIVE, 0)
    if atomic_load(pool + COMPLETED + 8) != 0:
        raise RuntimeError(_FAILED)


# This is an intrinsic, because numba would compile a function again for each type of bound kernel.
@intrinsic
def parallel_for(
    context: Any, pool: Any, bound_kernel: Any, n: Any, grain_size: Any, chunks_per_thread: Any
) -> Any:  # fmt: skip
    """Call a bound kernel for ranges ``start, stop`` that make up ``range(n)``; return when all calls are done.

    pool: the address that :func:`run` passes, or 0 to make one call on this thread. bound_kernel: the result of
    :func:`bind_kernel`. grain_size: the ranges are multiples of it, except the last one. chunks_per_thread: about how
    many ranges each thread gets. The ranges must not depend on one another.

    Raises RuntimeError if a call of the kernel raised an error, or if this is called inside a kernel that runs in
    parallel. Raises ValueError if grain_size or chunks_per_thread is below 1.
    """
    implementation = context.resolve_value_type(_parallel_for)
    call_type = implementation.get_call_type(context, (types.int64,) * 6, {})

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pool, bound_kernel, n, grain_size, chunks_per_thread = args
        addresses = [builder.extract_value(bound_kernel, i) for i in range(2)]
        call = context.get_function(implementation, call_type)
        return call(builder, (pool, *addresses, n, grain_size, chunks_per_thread))

    return types.void(types.int64, bound_kernel, *[types.int64] * 3), generate


def create_pool(num_threads: int = 1, sched_yield_pointer: int = 0) -> Any:
    """Return the memory of a pool, an int64 array whose address compiled functions take as ``pool``.

    sched_yield_pointer: the address of the system's ``sched_yield``, or 0 to spin without it.
    """
    memory = aligned_zeros(POOL_LENGTH)
    memory[NUM_THREADS // 8 : NUM_THREADS // 8 + 2] = num_threads, sched_yield_pointer
    return memory
