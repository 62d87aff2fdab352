"""Matrix products in the tile registers of AMX (Advanced Matrix Extensions), for bfloat16.

A tile register has 16 rows of 64 bytes. One instruction multiplies 16 rows of 32 bfloat16 numbers by 32 rows of 16, in
pairs of rows, and adds the product to 16 x 16 sums in float32. Source: Intel, *Architecture Instruction Set Extensions
Programming Reference*, 319433, chapter 3. Of eight registers, four have the sums of a tile of 32 rows and 32 columns.

The instruction adds the products of even and of odd numbers of a row on their own, then both to the sum. It takes
subnormal numbers as 0, gives 0 for subnormal results, and rounds to nearest even. So the bits are not those of
AVX512_BF16. They depend on the numbers of a row and a column and on their order alone.

A process asks Linux for the registers once. Each thread sets their shapes before it uses them, and frees them after,
because other libraries of the process use the registers with their own shapes.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .instructions import BFLOAT16, after, call, has_kernel, loop, prefetch
from .simd import I8, cpu_features
from .support import I64, to_pointer

__all__ = [
    "AMX_COLUMNS", "AMX_ROWS", "BLOCK_BYTES", "BLOCK_LINES", "TILE_BYTES", "has_amx", "is_amx_allowed",
    "load_tile_shapes", "release_tiles", "write_amx_tile",
]  # fmt: skip

_SIZE = 16  # rows of a register, and numbers of 32 bits in a row
TILE_BYTES = 64 * _SIZE
AMX_ROWS, AMX_COLUMNS = 2 * _SIZE, 2 * _SIZE  # of the sums in four registers
BLOCK_LINES = 16  # pairs of k that an instruction multiplies
BLOCK_BYTES = 2 * TILE_BYTES  # of these for the rows of a tile, which is a block of a packed left matrix

# Numbers of Linux, from asm/prctl.h, asm/unistd_64.h and asm/fpu/types.h.
_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILE_DATA = 158, 0x1023, 18


def has_amx() -> bool:
    """Return whether the processor that numba compiles for has AMX for bfloat16."""
    return {"+amx-tile", "+amx-bf16"} <= cpu_features() and has_kernel(BFLOAT16)


@cache
def is_amx_allowed() -> bool:
    """Return whether the processor has AMX and the system lets this process use it, which is asked for here.

    Linux refuses it if a thread has too small a stack for signals, or if a container's policy says so.
    """
    if not has_amx() or sys.platform != "linux":
        return False
    syscall = ctypes.CDLL(None).syscall
    syscall.restype, syscall.argtypes = ctypes.c_long, [ctypes.c_long] * 3
    return bool(syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILE_DATA) == 0)


# ---- instructions -------------------------------------------------------------------------------


def _tile(builder: Any, name: str, *args: Any) -> None:
    call(builder, f"llvm.x86.{name}", ir.VoidType(), *args)


def _shapes() -> Any:
    """Return the shapes of the registers as ``ldtilecfg`` reads them: 16 rows of 64 bytes for all eight."""
    numbers = [0] * 64
    numbers[0] = 1  # the palette
    numbers[16:32] = [64, 0] * 8
    numbers[48:56] = [_SIZE] * 8
    return ir.Constant(ir.VectorType(I8, 64), numbers)


@intrinsic
def load_tile_shapes(context: Any) -> Any:
    """Set the shapes of this thread's tile registers. A processor without AMX does nothing."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if has_amx():
            shapes = cgutils.alloca_once_value(builder, _shapes())
            _tile(builder, "ldtilecfg", builder.bitcast(shapes, I8.as_pointer()))
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def release_tiles(context: Any) -> Any:
    """Free this thread's tile registers, so that the system need not save them. Without AMX it does nothing."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if has_amx():
            _tile(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


def write_amx_tile(
    rows: int, columns: int, places: tuple[int, int, int], builder: Any, lines: Any, a: Any, b: Any, addend: Any,
    addend_stride: Any, out: Any, out_stride: Any,
) -> None:  # fmt: skip
    """Write the instructions that add a product to an addend: the arguments of ``multiply_tile``.

    rows, columns: how many registers the sums have each way, 1 or 2. places: bytes of the left matrix from one row to
    the next, to the second register, and to the next block. b: lines of ``columns`` times 64 bytes. Both matrices have
    zeros up to a multiple of ``BLOCK_LINES`` lines.
    """
    row, half, block = places
    sums = [(I8(2 * i + j), i, j) for i in range(rows) for j in range(columns)]
    left, right = [I8(4 + i) for i in range(rows)], [I8(6 + j) for j in range(columns)]
    pointer = lambda address, offset: to_pointer(builder, after(builder, address, offset), I8)

    def place(address: Any, stride: Any, i: int, j: int) -> Any:
        return pointer(builder.add(address, builder.mul(stride, I64(_SIZE * i))), 64 * j)

    for number, i, j in sums:
        _tile(builder, "tileloadd64", number, place(addend, addend_stride, i, j), addend_stride)
    at = out
    for _ in range(_SIZE * rows):  # because the last instructions would wait for the memory that they write to
        for j in range(columns):
            prefetch(builder, after(builder, at, 64 * j), write=True)
        at = builder.add(at, out_stride)
    blocks = builder.sdiv(builder.add(lines, I64(BLOCK_LINES - 1)), I64(BLOCK_LINES))
    with loop(builder, blocks, [a, b]) as ((x, y), following):
        for j in range(columns):
            _tile(builder, "tileloadd64", right[j], pointer(y, 64 * j), I64(64 * columns))
        for i in range(rows):
            _tile(builder, "tileloadd64", left[i], pointer(x, half * i), I64(row))
            for j in range(columns):
                _tile(builder, "tdpbf16ps", sums[i * columns + j][0], left[i], right[j])
        following += [after(builder, x, block), after(builder, y, 64 * columns * BLOCK_LINES)]
    for number, i, j in sums:
        _tile(builder, "tilestored64", number, place(out, out_stride, i, j), out_stride)
