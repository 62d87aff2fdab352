"""Numbers of bfloat16 in compiled loops, and the loop that converts arrays of them.

numba has no bfloat16, so a kernel takes the bits: an array of uint16. One source serves float32 and bfloat16 arrays,
because these functions choose by the type: a loop reads ``widened(x[i])``, computes in float32, and writes
``rounded(value, y)`` into y. Each is one instruction or a few, and LLVM vectorises them.

A result is rounded to nearest, ties to even. Overflow gives infinity, and NaN becomes the quiet NaN of its sign. This
is what ml_dtypes computes. The processor's own instruction ``vcvtneps2bf16`` is not used, because it replaces subnormal
numbers by 0: the bits would depend on the processor. Integers are as fast, since memory limits these loops.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .parallel_for import bind_kernel, parallel_for
from .support import ENTRY, LOOP, njit

__all__ = ["cast", "rounded", "widened"]

Array = Any
_I16, _I32, _F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()
_GRAIN_SIZE = 2048  # entries, so that a chunk of bfloat16 numbers begins a page


@intrinsic
def widened(context: Any, number: Any) -> Any:
    """Return a float32 number, or the bits of a bfloat16 number, as float32. A bfloat16 has the upper 16 bits of it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if number == types.float32:
            return args[0]
        return builder.bitcast(builder.shl(builder.zext(args[0], _I32), _I32(16)), _F32)

    return (types.float32(number), generate) if number in (types.float32, types.uint16) else None


@intrinsic
def rounded(context: Any, number: Any, array: Any) -> Any:
    """Return a float32 number as an array of float32 or of the bits of bfloat16 stores it."""
    stored = array.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0] if stored == types.float32 else _round(builder, args[0])

    return (stored(types.float32, array), generate) if stored in (types.float32, types.uint16) else None


def _round(builder: Any, number: Any) -> Any:
    """Return the bits of the bfloat16 that is nearest to a float32."""
    bits = builder.bitcast(number, _I32)
    odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
    nearest = builder.add(bits, builder.add(odd, _I32(0x7FFF)))  # a carry increases the exponent, as it should
    quiet = builder.or_(builder.and_(bits, _I32(-0x80000000)), _I32(0x7FC00000))
    is_nan = builder.icmp_unsigned(">", builder.and_(bits, _I32(0x7FFFFFFF)), _I32(0x7F800000))
    return builder.trunc(builder.lshr(builder.select(is_nan, quiet, nearest), _I32(16)), _I16)


@njit(**LOOP)
def cast_range(x: Array, y: Array, start: int, stop: int) -> None:
    x, y = x[start:stop], y[start:stop]
    for i in range(x.size):
        y[i] = rounded(widened(x[i]), y)


@njit(**ENTRY)
def cast(pool: int, x: Array, y: Array) -> None:
    """Write a flat array of float32 or of bits of bfloat16 into y, which has the other type."""
    parallel_for(pool, bind_kernel(cast_range, (x, y)), x.size, _GRAIN_SIZE, 1)
