"""The innermost loops of a product of matrices, in instructions of AVX-512.

A product is computed in tiles of 8 rows and up to 48 columns, because 24 registers hold the sums of such a tile while a
loop passes over k once (Van Zee and van de Geijn, *BLIS: A Framework for Rapidly Instantiating BLAS Functionality*,
2015). The loop reads copies of both matrices, in which the numbers of a step are adjacent: 8 of the left matrix, and
16, 32 or 48 of the right one. Such a copy is called packed, and the numbers of a step are a line of it.

A step is one k in float32, and two in bfloat16. Two bfloat16 numbers of a row or column share 32 bits, so packed copies
of both have the same layout. Addresses and numbers are integers. Strides are in bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .instructions import (
    BFLOAT16,
    FLOAT32,
    LANES,
    MULTIPLY_ADD,
    ROUNDED,
    I16x16,
    I16x32,
    after,
    by_case,
    first_lanes,
    has_kernel,
    loop,
    masked_load,
    masked_store,
    packed_kinds,
    prefetch,
    round_two,
    shuffle,
)
from .simd import I32, F32x16, I32x16, load, splat, store
from .support import I64

__all__ = [
    "BFLOAT16", "FLOAT32", "LANES", "MAX_VECTORS", "ROUNDED", "ROWS", "copy_lines", "has_kernel", "multiply_tile",
    "store_line", "transpose_lines", "write_tile",
]  # fmt: skip

ROWS, MAX_VECTORS = 8, 3  # rows of a tile, vectors of a row of a tile

_AHEAD = 16  # numbers of k that are asked for ahead

I32x8 = ir.VectorType(I32, 8)


# ---- tiles --------------------------------------------------------------------------------------


def write_tile(
    builder: Any, kind: int, vectors: int, steps: Any, a: Any, b: Any, addend: Any, addend_stride: Any, out: Any,
    out_stride: Any, row: int = 4, step: int = 4 * ROWS,
) -> None:  # fmt: skip
    """Write the loop over k for one kind and number of vectors.

    row, step: bytes of the left matrix from one row to the next, and from one step to the next. It is packed otherwise.
    """
    zeros = [ir.Constant(F32x16, [0.0] * LANES)] * (ROWS * vectors)
    with loop(builder, steps, [a, b, *zeros]) as ((a, b, *sums), following):
        following += [after(builder, a, step), after(builder, b, 4 * LANES * vectors)]
        columns = [load(builder, b, F32x16, 4 * LANES * j) for j in range(vectors)]
        for i in range(ROWS):
            left = builder.bitcast(splat(builder, load(builder, a, I32, row * i)), F32x16)
            for j in range(vectors):
                following.append(MULTIPLY_ADD[kind](builder, sums[i * vectors + j], left, columns[j]))
    for i in range(ROWS):
        for j in range(vectors):
            value = load(builder, addend, F32x16, 4 * LANES * j)
            store(builder, builder.fadd(following[2 + i * vectors + j], value), after(builder, out, 4 * LANES * j))
        addend, out = builder.add(addend, addend_stride), builder.add(out, out_stride)


@intrinsic
def multiply_tile(
    context: Any, kind: Any, vectors: Any, steps: Any, a: Any, b: Any, addend: Any, addend_stride: Any, out: Any,
    out_stride: Any,
) -> Any:  # fmt: skip
    """Write the product of packed matrices, plus an addend, to a tile of 8 rows and 16, 32 or 48 columns of float32.

    kind: FLOAT32 or BFLOAT16. vectors: 1, 2 or 3, a sixteenth of the number of columns. steps: lines of the packed
    matrices, at least one. a, b: their addresses. addend, out: addresses of float32 numbers, with the bytes from one
    row to the next. Both may be the same.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, vectors, *rest = args
        number = builder.sub(builder.add(builder.mul(kind, I64(MAX_VECTORS)), vectors), I64(1))
        kinds = [k for k in packed_kinds() if k in MULTIPLY_ADD]
        cases = {k * MAX_VECTORS + v: (k, v + 1) for k in kinds for v in range(MAX_VECTORS)}
        by_case(builder, number, cases, lambda case: write_tile(builder, *cases[case], *rest))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), generate


@intrinsic
def store_line(context: Any, rounded: Any, source: Any, target: Any, count: Any) -> Any:
    """Copy up to 16 float32 numbers, as bfloat16 if ``rounded`` is 1, and else if it is 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rounded, source, target, count = args
        mask = first_lanes(builder, count, LANES)

        def write(rounds: int) -> None:
            value = masked_load(builder, source, F32x16, mask)
            if rounds:
                both = round_two(builder, value, value)
                value = shuffle(builder, both, both, [*range(LANES)])
            masked_store(builder, value, target, mask)

        by_case(builder, rounded, [0, 1] if has_kernel(BFLOAT16) else [0], write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


# ---- packing ------------------------------------------------------------------------------------


def _store_halves(builder: Any, line: Any, low: Any, high: Any) -> None:
    undefined = ir.Constant(I32x16, ir.Undefined)
    store(builder, shuffle(builder, line, undefined, [*range(8)]), low)
    store(builder, shuffle(builder, line, undefined, [*range(8, 16)]), high)


def _line_of_float32(builder: Any, x: Any, mask_x: Any, y: Any, mask_y: Any) -> Any:
    return builder.bitcast(masked_load(builder, x, F32x16, mask_x), I32x16)


def _line_of_bfloat16(builder: Any, x: Any, mask_x: Any, y: Any, mask_y: Any) -> Any:
    low, high = masked_load(builder, x, I16x16, mask_x), masked_load(builder, y, I16x16, mask_y)
    shift = ir.Constant(I32x16, [16] * LANES)
    return builder.or_(builder.zext(low, I32x16), builder.shl(builder.zext(high, I32x16), shift))


def _line_of_rounded(builder: Any, x: Any, mask_x: Any, y: Any, mask_y: Any) -> Any:
    low, high = masked_load(builder, x, F32x16, mask_x), masked_load(builder, y, F32x16, mask_y)
    both = round_two(builder, low, high)
    places = [number for pair in zip(range(16), range(16, 32), strict=True) for number in pair]
    return builder.bitcast(shuffle(builder, both, both, places), I32x16)


_LINES: dict[int, tuple[int, Callable[..., Any]]] = {
    FLOAT32: (1, _line_of_float32), BFLOAT16: (2, _line_of_bfloat16), ROUNDED: (2, _line_of_rounded),
}  # fmt: skip


@intrinsic
def copy_lines(
    context: Any, kind: Any, source: Any, stride: Any, lanes: Any, numbers: Any, low: Any, high: Any, line_stride: Any
) -> Any:  # fmt: skip
    """Pack up to 16 rows or columns that are adjacent in memory: for each k, they are read together.

    kind: FLOAT32, BFLOAT16 or ROUNDED. source: address of the first number. stride: from one k to the next. lanes: how
    many rows or columns there are; the others become zeros. numbers: how many k there are, at least one. low, high:
    where the first line's first and last eight numbers go. line_stride: from one line to the next.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, source, stride, lanes, numbers, low, high, line_stride = args
        mask = first_lanes(builder, lanes, LANES)

        def write(kind: int) -> None:
            step, line = _LINES[kind]
            lines = builder.sdiv(builder.add(numbers, I64(step - 1)), I64(step))
            with loop(builder, lines, [source, low, high, numbers]) as ((x, lower, higher, left), following):
                # The processor does not foresee reads that are far apart.
                prefetch(builder, builder.add(x, builder.mul(stride, I64(_AHEAD))))
                y = builder.add(x, stride)
                has_two = builder.icmp_signed(">", left, I64(1))
                mask_y = first_lanes(builder, builder.select(has_two, lanes, I64(0)), LANES) if step == 2 else None
                _store_halves(builder, line(builder, x, mask, y, mask_y), lower, higher)
                following += [
                    builder.add(x, builder.mul(stride, I64(step))), builder.add(lower, line_stride),
                    builder.add(higher, line_stride), builder.sub(left, I64(step)),
                ]  # fmt: skip

        by_case(builder, kind, packed_kinds(), write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


def _row_of_float32(builder: Any, x: Any, count: Any) -> Any:
    return masked_load(builder, x, F32x16, first_lanes(builder, count, LANES))


def _row_of_bfloat16(builder: Any, x: Any, count: Any) -> Any:
    return builder.bitcast(masked_load(builder, x, I16x32, first_lanes(builder, count, 2 * LANES)), F32x16)


def _row_of_rounded(builder: Any, x: Any, count: Any) -> Any:
    low = masked_load(builder, x, F32x16, first_lanes(builder, count, LANES))
    high = masked_load(builder, after(builder, x, 64), F32x16, first_lanes(builder, count, LANES, LANES))
    return builder.bitcast(round_two(builder, low, high), F32x16)


_ROWS: dict[int, Callable[..., Any]] = {
    FLOAT32: _row_of_float32, BFLOAT16: _row_of_bfloat16, ROUNDED: _row_of_rounded,
}  # fmt: skip


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Return the columns of sixteen rows of sixteen 32-bit numbers, with 64 instructions.

    A register has four quarters of four numbers. Two steps transpose within the quarters of four rows, two more move
    the quarters.
    """
    in_quarter = lambda places: [q * 4 + n % 4 + 16 * (n // 4) for q in range(4) for n in places]
    low, high = in_quarter([0, 4, 1, 5]), in_quarter([2, 6, 3, 7])  # numbers of the first row and of the second one
    first, last = in_quarter([0, 1, 4, 5]), in_quarter([2, 3, 6, 7])
    even = [n for q in (0, 2, 4, 6) for n in range(4 * q, 4 * q + 4)]
    odd = [n + 4 for n in even]
    fours = []  # fours[i][c]: columns c, c + 4, c + 8, c + 12 of the rows 4 i to 4 i + 3, a quarter each
    for i in range(0, 16, 4):
        a, b, c, d = rows[i : i + 4]
        ab, cd = ([shuffle(builder, *pair, places) for places in (low, high)] for pair in ((a, b), (c, d)))
        fours.append([shuffle(builder, ab[n], cd[n], places) for n in (0, 1) for places in (first, last)])
    columns: list[Any] = [None] * 16
    for c in range(4):
        for start, places in ((0, even), (4, odd)):
            top, bottom = (shuffle(builder, fours[i][c], fours[i + 1][c], places) for i in (0, 2))
            columns[start + c] = shuffle(builder, top, bottom, even)
            columns[start + 8 + c] = shuffle(builder, top, bottom, odd)
    return columns


@intrinsic
def transpose_lines(
    context: Any, kind: Any, source: Any, stride: Any, lanes: Any, numbers: Any, low: Any, high: Any, line_stride: Any
) -> Any:  # fmt: skip
    """Pack up to 16 rows or columns, each of which is contiguous in memory, 16 lines at a time.

    The arguments are those of :func:`copy_lines`, but ``stride`` is the bytes from one row or column to the next, and
    the last row or column takes the place of the missing ones. A multiple of 16 lines is written.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, source, stride, lanes, numbers, low, high, line_stride = args
        places = [I64(0)]
        for lane in range(1, LANES):
            exists = builder.icmp_signed("<", I64(lane), lanes)
            places.append(builder.add(places[-1], builder.select(exists, stride, I64(0))))

        def write(kind: int) -> None:
            step = LANES * _LINES[kind][0]
            blocks = builder.sdiv(builder.add(numbers, I64(step - 1)), I64(step))
            size = 2 if kind == BFLOAT16 else 4
            with loop(builder, blocks, [source, low, high, numbers]) as ((x, lower, higher, left), following):
                rows = [_ROWS[kind](builder, builder.add(x, place), left) for place in places]
                for column in _transpose(builder, rows):
                    _store_halves(builder, builder.bitcast(column, I32x16), lower, higher)
                    lower, higher = builder.add(lower, line_stride), builder.add(higher, line_stride)
                following += [after(builder, x, size * step), lower, higher, builder.sub(left, I64(step))]

        by_case(builder, kind, packed_kinds(), write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate
