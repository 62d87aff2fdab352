"""Loops over arrays of bfloat16: conversion from and to float32, and functions that are tables.

numba has no bfloat16, so a loop takes the bits: an array of uint16. They are the upper half of those of a float32.

A result is rounded to nearest, ties to even. Overflow gives infinity, and NaN becomes the quiet NaN of its sign. This
is what ml_dtypes computes. The processor's own instruction ``vcvtneps2bf16`` is not used, because it replaces subnormal
numbers by 0: the bits would depend on the processor. Integers are as fast, since memory limits these loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .parallel_for import bind_kernel, parallel_for
from .simd import F32x16, I32x16, load
from .support import ENTRY, I64, LOOP, njit, to_pointer

__all__ = [
    "look_up", "look_up_product", "round_array", "round_range", "rounded", "widen_array", "widen_range",
    "widened",
]  # fmt: skip

Array = Any
f32 = np.float32

_I16, _I32, _F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()
_BLOCK = 1024  # entries, so that two blocks of float32 stay in the first-level cache
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
        if stored == types.float32:
            return args[0]
        return builder.trunc(builder.lshr(_round(builder, builder.bitcast(args[0], _I32)), _I32(16)), _I16)

    return (stored(types.float32, array), generate) if stored in (types.float32, types.uint16) else None


def _round(builder: Any, bits: Any) -> Any:
    """Return the bits of float32 numbers, an int32 or a vector, rounded: the upper half of each is a bfloat16."""
    kind = bits.type
    lanes = getattr(kind, "count", 0)
    constant = lambda number: ir.Constant(kind, [number] * lanes if lanes else number)
    is_odd = builder.icmp_unsigned("!=", builder.and_(bits, constant(1 << 16)), constant(0))
    nearest = builder.add(bits, builder.select(is_odd, constant(0x8000), constant(0x7FFF)))  # a carry may double it
    quiet = builder.or_(builder.and_(bits, constant(-0x80000000)), constant(0x7FC00000))
    number = builder.bitcast(bits, F32x16 if lanes else _F32)
    return builder.select(builder.fcmp_unordered("uno", number, number), quiet, nearest)


@intrinsic
def _round_32(context: Any, source: Any, target: Any) -> Any:
    """Round 32 float32 numbers at an address, and write them to another one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shorts = ir.VectorType(_I16, 32)
        halves = [_round(builder, load(builder, args[0], I32x16, offset)) for offset in (0, 64)]
        upper = ir.Constant(ir.VectorType(_I32, 32), list(range(1, 64, 2)))
        joined = builder.shuffle_vector(*(builder.bitcast(half, shorts) for half in halves), upper)
        builder.store(joined, to_pointer(builder, args[1], shorts)).align = 2
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


# ---- arrays ---------------------------------------------------------------------------------


@njit(**LOOP)
def widen_range(x: Array, y: Array, start: int, stop: int) -> None:
    x, y = x[start:stop], y[start:stop]
    for i in range(x.size):
        y[i] = widened(x[i])


@njit(**LOOP)
def round_range(x: Array, y: Array, start: int, stop: int) -> None:
    x, y = x[start:stop], y[start:stop]
    source, target, whole = np.int64(x.ctypes.data), np.int64(y.ctypes.data), x.size - x.size % 32
    for i in range(0, whole, 32):  # written out, because LLVM's own loop stores in a form that takes twice as long
        _round_32(source + 4 * i, target + 2 * i)
    for i in range(whole, x.size):
        y[i] = rounded(x[i], y)


@njit(**ENTRY)
def widen_array(pool: int, x: Array, y: Array) -> None:
    """Write a flat array of bits of bfloat16 into y, float32."""
    parallel_for(pool, bind_kernel(widen_range, (x, y)), x.size, _GRAIN_SIZE, 1)


@njit(**ENTRY)
def round_array(pool: int, x: Array, y: Array) -> None:
    """Write a flat array of float32 into y, bits of bfloat16."""
    parallel_for(pool, bind_kernel(round_range, (x, y)), x.size, _GRAIN_SIZE, 1)


# ---- functions by table ---------------------------------------------------------------------


@intrinsic
def _look_up_4(context: Any, source: Any, table: Any, target: Any, array: Any) -> Any:
    """Write the entries of the table at an address for four bfloat16 numbers at another one.

    array: an array of the dtype of the entries.
    """
    size = array.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, table, target, _ = args
        entry = ir.IntType(8 * size)
        numbers, joined = builder.load(to_pointer(builder, source, I64)), I64(0)
        numbers.align = 2
        for k in range(4):
            place = builder.and_(builder.lshr(numbers, I64(16 * k)), I64(0xFFFF))
            found = builder.load(to_pointer(builder, builder.add(table, builder.mul(place, I64(size))), entry))
            found.align = size
            if size == 2:
                joined = builder.or_(joined, builder.shl(builder.zext(found, I64), I64(16 * k)))
            else:
                builder.store(found, to_pointer(builder, builder.add(target, I64(size * k)), entry)).align = size
        if size == 2:
            builder.store(joined, to_pointer(builder, target, I64)).align = 2
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, array), generate


@njit(**LOOP)
def look_up_range(x: Array, table: Array, y: Array, start: int, stop: int) -> None:
    x, y = x[start:stop], y[start:stop]
    source, entries, target = np.int64(x.ctypes.data), np.int64(table.ctypes.data), np.int64(y.ctypes.data)
    whole = x.size - x.size % 4
    for i in range(0, whole, 4):  # written out, because one number at a time takes a fifth longer
        _look_up_4(source + 2 * i, entries, target + y.itemsize * i, y)
    for i in range(whole, x.size):
        y[i] = table[x[i]]


@njit(**ENTRY)
def look_up(pool: int, x: Array, table: Array, y: Array) -> None:
    """Write ``table[x]`` of a flat array of bits into y."""
    parallel_for(pool, bind_kernel(look_up_range, (x, table, y)), x.size, _GRAIN_SIZE, 1)


@njit(**LOOP)
def look_up_product_range(g: Array, x: Array, table: Array, y: Array, start: int, stop: int) -> None:
    a, b = np.empty(_BLOCK, f32), np.empty(_BLOCK, f32)
    for first in range(start, stop, _BLOCK):
        n = min(_BLOCK, stop - first)
        widen_range(g[first : first + n], b, 0, n)
        look_up_range(x[first : first + n], table, a, 0, n)
        for i in range(n):
            b[i] *= a[i]
        round_range(b, y[first : first + n], 0, n)


@njit(**ENTRY)
def look_up_product(pool: int, g: Array, x: Array, table: Array, y: Array) -> None:
    """Write ``g table[x]`` of flat arrays of bits into y, for a table of float32. The product is rounded once."""
    parallel_for(pool, bind_kernel(look_up_product_range, (g, x, table, y)), x.size, _GRAIN_SIZE, 1)
