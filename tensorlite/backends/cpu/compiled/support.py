"""Extensions of numba that the compiled kernels are built on."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba import njit as _njit
from numba.core import cgutils
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering
from numba.extending import intrinsic

from .machine_code import MachineCodeCache, warn_once

if config.DISABLE_JIT:
    raise ImportError("numba is set not to compile (NUMBA_DISABLE_JIT)")

__all__ = [
    "CACHE_LINE", "ENTRY", "I64", "INLINE", "INNER", "LOOP", "aligned_zeros", "atomic_add", "atomic_load", "atomic_or",
    "atomic_store", "copy_float32", "float32_pointer", "keep_alive", "njit", "sched_yield", "to_pointer",
]  # fmt: skip

# ---- compilation ----------------------------------------------------------------------------

# Options of njit. ENTRY: a function that Python calls, cached on disk. INNER: one that only compiled functions call.
# LOOP: an inner function whose sums may be reordered, so that they are vectorised; NaN and infinity keep their meaning.
ENTRY: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "no_cfunc_wrapper": True}
INNER: dict[str, Any] = {
    "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "no_cpython_wrapper": True,
}  # fmt: skip
LOOP: dict[str, Any] = {**INNER, "fastmath": {"reassoc", "contract", "arcp", "nsz"}}
INLINE: dict[str, Any] = {"inline": "always", "error_model": "numpy"}


class _WideVectors(Lower):  # type: ignore[misc]  # numba has no types
    """A translation to LLVM's code that lets loops use the widest vectors of the processor.

    LLVM prefers half of AVX-512 on Intel's processors, because early ones lowered their frequency for the whole of it.
    The kernels take 0.6 to 0.8 of the time with whole vectors, measured on a Xeon of the fifth generation.
    """

    def lower_normal_function(self, fndesc: Any) -> None:
        super().lower_normal_function(fndesc)
        set.add(self.function.attributes, '"prefer-vector-width"="512"')  # `add` takes attributes without a value alone


@register_pass(mutates_CFG=True, analysis_only=False)
class _WideLowering(NativeLowering):  # type: ignore[misc]
    """The pass of numba's compiler that calls :class:`_WideVectors`."""

    _name = "wide_lowering"
    lowering_class = _WideVectors


class _KernelCompiler(Compiler):  # type: ignore[misc]
    """numba's compiler with that pass."""

    def define_pipelines(self) -> list[Any]:
        pipelines: list[Any] = super().define_pipelines()
        for pipeline in pipelines:
            pipeline.passes = [(_WideLowering if p is NativeLowering else p, name) for p, name in pipeline.passes]
            pipeline.finalize()
        return pipelines


def njit(*signature: Any, **options: Any) -> Any:
    """Compile a function with numba's ``njit``; the arguments are those of ``njit``.

    With ``cache=True`` the machine code is kept on disk until the function's own file or a source of the kernels
    changes. If no folder for the cache is writable, the function is compiled in each process.

    A compiled function is inlined where another one calls it, unless ``forceinline=False`` is given. So machine code
    that is loaded from the cache gives the same bits as code that this process compiled. Without that, numba's linker
    prefers the copy of the inner function that was compiled on its own, which exists only in the process that compiles.
    """
    if signature and callable(signature[0]):  # `@njit` without parentheses
        return njit()(signature[0])
    options = {"forceinline": True, "pipeline_class": _KernelCompiler, **options}

    def decorate(function: Any) -> Any:
        dispatcher = _njit(**{**options, "cache": False})(function)
        if options.get("cache"):
            _cache_on_disk(dispatcher)
        for s in signature:
            dispatcher.compile(s)
        if signature:
            dispatcher.disable_compile()  # so that other types of arguments raise TypeError
        return dispatcher

    return decorate


def _cache_on_disk(dispatcher: Any) -> None:
    """Make a compiled function load its machine code from disk, and save it there."""
    try:
        dispatcher._cache = MachineCodeCache(dispatcher.py_func)
    except (RuntimeError, OSError) as error:  # there is no folder for the cache
        warn_once(
            f"tensorlite: no folder for the compiled kernels can be written ({error}), so each process compiles them "
            "again. Set NUMBA_CACHE_DIR to a folder that can be written."
        )


# ---- atomic operations on 64-bit integers, given by their addresses -------------------------

I64 = ir.IntType(64)


def to_pointer(builder: Any, address: Any, to: Any) -> Any:
    """Return LLVM's pointer to a value of type ``to`` at an integer address."""
    return builder.inttoptr(address, to.as_pointer())


@intrinsic
def atomic_load(context: Any, address: Any) -> Any:
    """Read a number that other threads may write."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(to_pointer(builder, args[0], I64), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def atomic_store(context: Any, address: Any, value: Any) -> Any:
    """Write a number that other threads may read."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], to_pointer(builder, args[0], I64), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def _atomic_rmw(operation: str) -> Any:
    """Make a compiled function that applies an operation to a number atomically and returns the old value."""

    @intrinsic
    def read_modify_write(context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.atomic_rmw(operation, to_pointer(builder, args[0], I64), args[1], "seq_cst")

        return types.int64(types.int64, types.int64), generate

    return read_modify_write


atomic_add, atomic_or = _atomic_rmw("add"), _atomic_rmw("or")

# ---- pointers -------------------------------------------------------------------------------

CACHE_LINE = 8  # 64-bit numbers


@intrinsic
def float32_pointer(context: Any, address: Any) -> Any:
    """Return a pointer to float32 numbers at an address, for ``numba.carray``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return to_pointer(builder, args[0], ir.FloatType())

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def copy_float32(context: Any, to: Any, source: Any, count: Any) -> Any:
    """Copy float32 numbers from one address to another, by the C library's ``memcpy``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, source = (to_pointer(builder, address, ir.FloatType()) for address in args[:2])
        cgutils.raw_memcpy(builder, to, source, args[2], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def keep_alive(context: Any, array: Any) -> Any:
    """Use an array, so that its memory is not freed before.

    numba frees an array after the last use of its variable. It does not know of code that has only the address. So a
    kernel that makes an array and works with its address calls this when it is done. Without that, another thread may
    get the same memory.
    """
    return types.void(array), lambda context, builder, signature, args: context.get_dummy_value()


@intrinsic
def sched_yield(context: Any, function: Any) -> Any:
    """Call the C function ``int sched_yield(void)`` at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function_type = ir.FunctionType(ir.IntType(32), [])
        builder.call(to_pointer(builder, args[0], function_type), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def aligned_zeros(length: int) -> Any:
    """Return ``length`` zeros (int64) that share no cache line with other data."""
    buffer = np.zeros(length + 2 * CACHE_LINE, np.int64)
    skip = (-buffer.ctypes.data // 8) % CACHE_LINE
    return buffer[skip : skip + length]
