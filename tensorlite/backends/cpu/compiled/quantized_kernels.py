"""Products with matrices in 4 and 8 bits, whose layout is that of `tensorlite.backends.cpu.quantized`.

A product has two steps. The activations are rounded to 8 bits and packed: eight rows of x make a tile, and of each
block of 32 numbers a tile has

    32 bytes for each row; then a scale for each row, float32; then a correction for each row

The rows that are left make tiles of 4, 2 and 1. Then each group of 16 rows of the matrix is multiplied by tile after
tile. A block of the group is unpacked once for all rows of a tile. The sum over a block is exact, because it is one of
integers:

    sum w x = scale scale_x (sum q q_x - offset sum q_x) + minimum scale_x sum q_x

The correction of a row is -offset sum q_x, int32, with which the sum of integers starts. For a matrix with minima it is
scale_x sum q_x, float32.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from ...reference import SMALLEST_BLOCK
from .parallel_for import bind_kernel, parallel_for
from .simd import (
    F32,
    I32,
    F32x16,
    I32x16,
    dot_bytes,
    f32x16,
    fused_multiply_add,
    load,
    load_halves,
    splat,
    store,
)
from .support import ENTRY, I64, INNER, LOOP, float32_pointer, keep_alive, njit, to_pointer

__all__ = ["linear", "packed_bytes", "quantized_linear", "quantized_linear_pointer"]

Array = Any
f32 = np.float32

_BLOCK, _GROUP, _TILE = 32, 16, 8
_ROW_BYTES = _BLOCK + 8  # of a block of one row of x: its numbers, its scale and its correction
_MIN_SHARED = 1 << 15  # multiplications, from which threads share a product


# ---- one block of a group of rows, times a tile -------------------------------------------------


def _words(builder: Any, quants: Any, bits: int) -> list[Any]:
    """Return a block of 16 rows as eight vectors, each with four numbers of every row."""
    if bits == 8:
        return [load(builder, quants, I32x16, 64 * i) for i in range(8)]
    low, four = ir.Constant(I32x16, [0x0F0F0F0F] * _GROUP), ir.Constant(I32x16, [4] * _GROUP)
    both = [load(builder, quants, I32x16, 64 * i) for i in range(4)]
    return [builder.and_(word, low) for word in both] + [
        builder.and_(builder.lshr(word, four), low) for word in both
    ]


def _make_add_block(bits: int, has_minimum: bool, rows: int) -> Any:
    """Make a compiled function that adds the products of a block to the sums of a tile, a tuple of vectors."""
    sums_type = types.UniTuple(f32x16, rows)

    @intrinsic
    def add_block(context: Any, sums: Any, quants: Any, scales: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            sums, quants, scales, x = args
            words = _words(builder, quants, bits)
            scale = load_halves(builder, scales)
            minimum = load_halves(builder, scales, 2 * _GROUP) if has_minimum else None
            new = []
            for row in range(rows):
                at_scale = rows * _BLOCK + 4 * row
                at_correction = at_scale + 4 * rows
                start = ir.Constant(I32x16, [0] * _GROUP)
                if not has_minimum:
                    start = splat(builder, load(builder, x, I32, at_correction))
                # Two sums, because each addition waits for the one before.
                totals = [start, ir.Constant(I32x16, [0] * _GROUP)]
                for i, word in enumerate(words):
                    four = splat(builder, load(builder, x, I32, row * _BLOCK + 4 * i))
                    totals[i % 2] = dot_bytes(builder, totals[i % 2], word, four)
                total = builder.sitofp(builder.add(*totals), F32x16)
                factor = builder.fmul(scale, splat(builder, load(builder, x, F32, at_scale)))
                value = fused_multiply_add(builder, factor, total, builder.extract_value(sums, row))
                if minimum is not None:
                    correction = splat(builder, load(builder, x, F32, at_correction))
                    value = fused_multiply_add(builder, minimum, correction, value)
                new.append(value)
            return context.make_tuple(builder, sums_type, new)

        return sums_type(sums_type, *[types.int64] * 3), generate

    return add_block


def _make_zeros(rows: int) -> Any:
    """Make a compiled function that returns the sums of a tile, all 0."""
    sums_type = types.UniTuple(f32x16, rows)

    @intrinsic
    def zeros(context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            zero = ir.Constant(F32x16, [0.0] * _GROUP)
            return context.make_tuple(builder, sums_type, [zero] * rows)

        return sums_type(), generate

    return zeros


def _make_write(rows: int) -> Any:
    """Make a compiled function that writes the sums of a tile to an address, with `stride` bytes between rows."""
    sums_type = types.UniTuple(f32x16, rows)

    @intrinsic
    def write(context: Any, sums: Any, out: Any, stride: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            for row in range(rows):
                address = builder.add(args[1], builder.mul(args[2], I64(row)))
                store(builder, builder.extract_value(args[0], row), address)
            return context.get_dummy_value()

        return types.void(sums_type, types.int64, types.int64), generate

    return write


def _make_tile(bits: int, has_minimum: bool, rows: int) -> Any:
    """Make a compiled function that multiplies a group of rows of a matrix by a tile of x."""
    zeros, add_block, write = _make_zeros(rows), _make_add_block(bits, has_minimum, rows), _make_write(rows)
    quants_step, scales_step = _GROUP * _BLOCK * bits // 8, _GROUP * (4 if has_minimum else 2)

    @njit(**INNER, forceinline=False)
    def tile(quants: int, scales: int, x: int, num_blocks: int, out: int, stride: int) -> None:
        sums = zeros()
        for block in range(num_blocks):
            sums = add_block(
                sums, quants + quants_step * block, scales + scales_step * block, x + rows * _ROW_BYTES * block
            )
        write(sums, out, stride)

    return tile


def _make_groups(bits: int, has_minimum: bool) -> Any:
    """Make a compiled loop over groups of rows of a matrix, for a format."""
    eight, four, two, one = (_make_tile(bits, has_minimum, rows) for rows in (8, 4, 2, 1))
    group_bytes = _GROUP * _BLOCK * bits // 8
    scale_bytes = _GROUP * (4 if has_minimum else 2)

    @njit(**INNER, forceinline=False)
    def groups(
        quants: int, scales: int, num_blocks: int, rows: int, x: int, T: int, out: int, ldo: int, start: int, stop: int
    ) -> None:  # fmt: skip
        spare = np.empty((_TILE, _GROUP), f32)  # for the last group, which may have fewer rows
        for group in range(start, stop):
            width = min(_GROUP, rows - _GROUP * group)
            whole = width == _GROUP
            q, s = quants + group * num_blocks * group_bytes, scales + group * num_blocks * scale_bytes
            t = 0
            while t < T:
                at = x + t * num_blocks * _ROW_BYTES
                to = out + 4 * (t * ldo + _GROUP * group) if whole else np.int64(spare.ctypes.data)
                step = 4 * ldo if whole else 4 * _GROUP
                left = T - t
                if left >= 8:
                    eight(q, s, at, num_blocks, to, step)
                    count = 8
                elif left >= 4:
                    four(q, s, at, num_blocks, to, step)
                    count = 4
                elif left >= 2:
                    two(q, s, at, num_blocks, to, step)
                    count = 2
                else:
                    one(q, s, at, num_blocks, to, step)
                    count = 1
                if not whole:
                    for i in range(count):
                        row = carray(float32_pointer(out + 4 * ((t + i) * ldo + _GROUP * group)), width)
                        for j in range(width):
                            row[j] = spare[i, j]
                t += count
        keep_alive(spare)

    return groups


_groups_8, _groups_4, _groups_4_minimum = _make_groups(8, False), _make_groups(4, False), _make_groups(4, True)

# ---- activations --------------------------------------------------------------------------------


@intrinsic
def _pointer(context: Any, of: Any, address: Any) -> Any:
    """Return a pointer to numbers of a dtype at an address, for ``numba.carray``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return to_pointer(builder, args[1], context.get_data_type(of.dtype))

    return types.CPointer(of.dtype)(of, address), generate


@njit(**LOOP)
def _round_block(x: Array, numbers: Array) -> tuple[Any, Any]:
    """Write 32 numbers rounded to 8 bits; return their scale and the sum of what is written."""
    largest, total = f32(0), np.int32(0)
    finite = True
    for j in range(_BLOCK):
        largest = max(largest, abs(x[j]))
        finite &= abs(x[j]) < f32(np.inf)
    largest = largest if finite else f32(np.nan)
    if not f32(SMALLEST_BLOCK) <= largest < f32(np.inf):
        for j in range(_BLOCK):
            numbers[j] = 0
        return f32(0) if largest < f32(SMALLEST_BLOCK) else f32(np.nan), total
    inverse = f32(127) / largest
    for j in range(_BLOCK):
        number = np.int32(np.rint(x[j] * inverse))
        numbers[j] = number
        total += number
    return largest / f32(127), total


@njit(**INNER)
def round_rows(x: int, ldx: int, K: int, T: int, offset: int, packed: int, start: int, stop: int) -> None:
    """Round rows `start` to `stop` of x to 8 bits and pack them into tiles.

    x: the address of T rows of K float32 numbers, ldx apart. offset: that of the matrix, or 0 for one with minima.
    """
    num_blocks = -(-K // _BLOCK)
    last = np.zeros(_BLOCK, f32)
    for t in range(start, stop):
        # The tile of row t: of eight rows, or of 4, 2 or 1 among those that are left.
        first, rows = t // _TILE * _TILE, _TILE
        left = T - first
        while left < rows or t >= first + rows:
            if left >= rows:
                first += rows
                left -= rows
            rows //= 2
        row = carray(float32_pointer(x + 4 * t * ldx), K)
        for block in range(num_blocks):
            at = packed + (first * num_blocks + rows * block) * _ROW_BYTES
            numbers = carray(_pointer(np.int8, at + _BLOCK * (t - first)), _BLOCK)
            to_scale = at + _BLOCK * rows + 4 * (t - first)
            if _BLOCK * (block + 1) <= K:
                scale, total = _round_block(row[_BLOCK * block : _BLOCK * (block + 1)], numbers)
            else:
                for j in range(K - _BLOCK * block):
                    last[j] = row[_BLOCK * block + j]
                scale, total = _round_block(last, numbers)
            carray(float32_pointer(to_scale), 1)[0] = scale
            if offset:
                carray(_pointer(np.int32, to_scale + 4 * rows), 1)[0] = -np.int32(offset) * total
            else:
                carray(float32_pointer(to_scale + 4 * rows), 1)[0] = scale * f32(total)


# ---- products -----------------------------------------------------------------------------------


# With a wrapper for C, because other compiled functions call it by its address: it takes seconds to compile.
@njit("void(" + ", ".join(["i8"] * 13) + ")", **{**ENTRY, "no_cfunc_wrapper": False})
def quantized_linear(
    pool: int, bits: int, offset: int, quants: int, scales: int, rows: int, K: int, x: int, ldx: int, T: int,
    packed: int, out: int, ldo: int,
) -> None:  # fmt: skip
    """Write ``x W^T``, (T, rows), for x (T, K) and a matrix W, (rows, K), of a format. All arrays are addresses.

    ldx, ldo: the numbers from one row to the next. packed: room for `packed_bytes(K, T)` bytes.
    """
    num_blocks = -(-K // _BLOCK)
    shared = pool if rows * K * T >= _MIN_SHARED else 0
    rounding = bind_kernel(round_rows, (x, ldx, K, T, offset, packed))
    parallel_for(shared if T * K >= _MIN_SHARED else 0, rounding, T, _TILE, 1)
    arguments = (quants, scales, num_blocks, rows, packed, T, out, ldo)
    count = -(-rows // _GROUP)
    if bits == 8:
        parallel_for(shared, bind_kernel(_groups_8, arguments), count, 1, 1)
    elif offset:
        parallel_for(shared, bind_kernel(_groups_4, arguments), count, 1, 1)
    else:
        parallel_for(shared, bind_kernel(_groups_4_minimum, arguments), count, 1, 1)


@cache
def quantized_linear_pointer() -> int:
    """Return the address of `quantized_linear`, a C function of thirteen 64-bit integers."""
    (result,) = quantized_linear.overloads.values()
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name))


def packed_bytes(K: int, T: int) -> int:
    """Return the bytes that T rows of K activations take when they are packed."""
    return T * -(-K // _BLOCK) * _ROW_BYTES


def linear(pool: int, bits: int, offset: int, quants: Array, scales: Array, x: Array, out: Array) -> None:
    """Write ``x W^T`` into out, (T, rows), for x, (T, K), with K a multiple of 32. All arrays are contiguous."""
    (T, K), rows = x.shape, out.shape[1]
    packed = np.empty(packed_bytes(K, T), np.uint8)
    addresses = [array.ctypes.data for array in (quants, scales, x, packed, out)]
    quants_at, scales_at, x_at, packed_at, out_at = addresses
    quantized_linear(
        pool, bits, offset, quants_at, scales_at, rows, K, x_at, K, T, packed_at, out_at, rows
    )  # fmt: skip
