"""What numba lacks for the compiled kernels: a cache that knows their sources, atomic numbers, pointers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba import njit as _njit
from numba.extending import intrinsic

if config.DISABLE_JIT:
    raise ImportError("numba is told not to compile (NUMBA_DISABLE_JIT)")

__all__ = [
    "COMPILED", "I64", "INLINE", "LINE", "PART", "SUM", "atomic_add", "atomic_load", "atomic_or", "atomic_store",
    "floats", "njit", "numbers", "pointer", "sched_yield",
]  # fmt: skip

# ---- compiling ------------------------------------------------------------------------------

COMPILED: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "no_cfunc_wrapper": True}
INLINE: dict[str, Any] = {"inline": "always", "error_model": "numpy"}
PART: dict[str, Any] = {  # of other compiled functions, so that nobody calls it from Python
    "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "no_cpython_wrapper": True,
}  # fmt: skip
SUM: dict[str, Any] = {**PART, "fastmath": {"reassoc", "contract", "nsz"}}  # so that sums are vectorised


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


# ---- atomic numbers, and pointers -----------------------------------------------------------

I64 = ir.IntType(64)


def pointer(builder: Any, address: Any, to: Any) -> Any:
    return builder.inttoptr(address, to.as_pointer())


@intrinsic
def atomic_load(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(pointer(builder, args[0], I64), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def atomic_store(context: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], pointer(builder, args[0], I64), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def _atomic_rmw(operation: str) -> Any:
    """Changes a number so, in one piece, and returns what it was before."""

    @intrinsic
    def change(context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.atomic_rmw(operation, pointer(builder, args[0], I64), args[1], "seq_cst")

        return types.int64(types.int64, types.int64), generate

    return change


atomic_add, atomic_or = _atomic_rmw("add"), _atomic_rmw("or")


@intrinsic
def floats(context: Any, address: Any) -> Any:
    """A pointer to float32, for ``numba.carray``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return pointer(builder, args[0], ir.FloatType())

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def sched_yield(context: Any, function: Any) -> Any:
    """Call ``int function(void)`` by its address: the system's sched_yield."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(pointer(builder, args[0], kind), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


LINE = 8  # numbers in a cache line


def numbers(length: int) -> Any:
    """So many zeros, in cache lines of their own."""
    room = np.zeros(length + 2 * LINE, np.int64)
    skip = (-room.ctypes.data // 8) % LINE
    return room[skip : skip + length]
