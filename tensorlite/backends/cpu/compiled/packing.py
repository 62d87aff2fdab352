"""Packed matrices: the numbers of a product in the order in which the loops of ``microkernels.py`` read them.

A line has the numbers of one k in float32, and of two in bfloat16. The rows of a left matrix are packed as strips of 8
rows, whose lines are adjacent. The columns of a right matrix are packed in lines of 16, 32 or 48. Either way the
numbers of one k, or those of one row or column, are adjacent in the matrix itself. In the first case whole lines are
copied, in the second one squares of 16 numbers are transposed.

For AMX, blocks of 32 rows and 32 k of a left matrix are packed, row by row. So it is a matrix whose rows are adjacent
that is transposed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .amx import BLOCK_BYTES, BLOCK_LINES, TILE_BYTES
from .instructions import (
    BFLOAT16,
    FLOAT32,
    LANES,
    ROUNDED,
    I16x16,
    I16x32,
    after,
    by_case,
    first_lanes,
    loop,
    masked_load,
    packed_kinds,
    prefetch,
    round_two,
    shuffle,
)
from .microkernels import ROWS
from .simd import I8, F32x16, I32x16, store
from .support import I64

__all__ = ["copy_blocks", "copy_lines", "copy_strips", "transpose_blocks", "transpose_lines", "transpose_strip"]

_STEPS_AHEAD = 16  # numbers of k that copy_strips asks for ahead

# ---- copies -------------------------------------------------------------------------------------


def _line_of_float32(builder: Any, x: Any, mask_x: Any) -> Any:
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


# Of each kind: numbers of k in a line, bytes of a number, and the function that reads a line.
_LINES: dict[int, tuple[int, int, Callable[..., Any]]] = {
    FLOAT32: (1, 4, _line_of_float32), BFLOAT16: (2, 2, _line_of_bfloat16), ROUNDED: (2, 4, _line_of_rounded),
}  # fmt: skip


def _counts(builder: Any, lanes: Any, left: Any, steps: int) -> list[Any]:
    """Return how many numbers each of some k has: ``lanes``, and none after the ``left`` k that there are."""
    exists = [builder.icmp_signed(">", left, I64(i)) for i in range(1, steps)]
    return [lanes, *(builder.select(e, lanes, I64(0)) for e in exists)]


def _read(builder: Any, line: Callable[..., Any], x: Any, stride: Any, counts: list[Any], ahead: Any) -> list[Any]:
    """Return up to 16 numbers of each k as lines, and ask for those that are some bytes ahead."""
    pairs = []
    for count in counts:
        # The processor does not foresee reads that are far apart.
        prefetch(builder, builder.add(x, ahead))
        pairs.append((x, first_lanes(builder, count, LANES)))
        x = builder.add(x, stride)
    if line is _line_of_float32:
        return [line(builder, *pair) for pair in pairs]
    return [line(builder, *pairs[i], *pairs[i + 1]) for i in range(0, len(pairs), 2)]


@intrinsic
def copy_lines(
    context: Any, kind: Any, source: Any, stride: Any, lanes: Any, numbers: Any, target: Any, line_stride: Any,
    ahead: Any,
) -> Any:  # fmt: skip
    """Pack columns of a right matrix that are adjacent in memory.

    kind: FLOAT32, BFLOAT16 or ROUNDED. source: address of the first number. stride: from one k to the next. lanes: how
    many columns there are; zeros follow up to a multiple of 16. numbers: how many k there are, at least one. target:
    where the first line goes. line_stride: from one line to the next. ahead: how many bytes ahead memory is asked for.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, source, stride, lanes, numbers, target, line_stride, ahead = args
        vectors = builder.sdiv(builder.add(lanes, I64(LANES - 1)), I64(LANES))

        def write(kind: int) -> None:
            step, size, line = _LINES[kind]
            lines = builder.sdiv(builder.add(numbers, I64(step - 1)), I64(step))
            with loop(builder, lines, [source, target, numbers]) as ((row, out, left), following):
                start = [row, out, *_counts(builder, lanes, left, step)]
                with loop(builder, vectors, start) as ((x, to, *counts), inner):
                    store(builder, *_read(builder, line, x, stride, counts, ahead), to)
                    inner += [after(builder, x, LANES * size), after(builder, to, 4 * LANES)]
                    inner += [builder.sub(count, I64(LANES)) for count in counts]
                following += [
                    builder.add(row, builder.mul(stride, I64(step))), builder.add(out, line_stride),
                    builder.sub(left, I64(step)),
                ]  # fmt: skip

        by_case(builder, kind, packed_kinds(), write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


@intrinsic
def copy_strips(
    context: Any, kind: Any, source: Any, stride: Any, lanes: Any, numbers: Any, target: Any, strip_stride: Any
) -> Any:  # fmt: skip
    """Pack rows of a left matrix that are adjacent in memory.

    lanes: how many rows there are; zeros follow up to a multiple of 16. target: where the first strip goes.
    strip_stride: from one strip to the next. The other arguments are those of :func:`copy_lines`. An even number of
    lines is written.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, source, stride, lanes, numbers, target, strip_stride = args
        vectors = builder.sdiv(builder.add(lanes, I64(LANES - 1)), I64(LANES))
        ahead = builder.mul(stride, I64(_STEPS_AHEAD))
        low, high = [*range(8), *range(16, 24)], [*range(8, 16), *range(24, 32)]  # the halves of two lines

        def write(kind: int) -> None:
            step, size, line = _LINES[kind]
            pairs = builder.sdiv(builder.add(numbers, I64(2 * step - 1)), I64(2 * step))
            with loop(builder, pairs, [source, target, numbers]) as ((row, out, left), following):
                start = [row, out, *_counts(builder, lanes, left, 2 * step)]
                with loop(builder, vectors, start) as ((x, to, *counts), inner):
                    lines = _read(builder, line, x, stride, counts, ahead)
                    store(builder, shuffle(builder, *lines, low), to)
                    to = builder.add(to, strip_stride)
                    store(builder, shuffle(builder, *lines, high), to)
                    inner += [after(builder, x, LANES * size), builder.add(to, strip_stride)]
                    inner += [builder.sub(count, I64(LANES)) for count in counts]
                following += [
                    builder.add(row, builder.mul(stride, I64(2 * step))), after(builder, out, 8 * ROWS),
                    builder.sub(left, I64(2 * step)),
                ]  # fmt: skip

        by_case(builder, kind, packed_kinds(), write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


# ---- transpositions -----------------------------------------------------------------------------


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


def _in_quarters(places: list[int]) -> list[int]:
    """Return places of numbers of two registers, which are the same in each quarter, that is four numbers."""
    return [q * 4 + n % 4 + 16 * (n // 4) for q in range(4) for n in places]


_LOW, _HIGH, _FIRST, _LAST = map(_in_quarters, ([0, 4, 1, 5], [2, 6, 3, 7], [0, 1, 4, 5], [2, 3, 6, 7]))
_EVEN = [n for q in (0, 2, 4, 6) for n in range(4 * q, 4 * q + 4)]  # the quarters 0 and 2 of both registers
_ODD = [n + 4 for n in _EVEN]


def _within_quarters(builder: Any, rows: list[Any]) -> list[Any]:
    """Return the columns c, c + 4, c + 8 and c + 12 of four rows of sixteen numbers, a quarter each, for c < 4."""
    a, b, c, d = rows
    ab, cd = ([shuffle(builder, *pair, places) for places in (_LOW, _HIGH)] for pair in ((a, b), (c, d)))
    return [shuffle(builder, ab[n], cd[n], places) for n in (0, 1) for places in (_FIRST, _LAST)]


def _of_quarters(builder: Any, rows: list[Any]) -> list[Any]:
    """Return the transpose of four rows of quarters."""
    columns: list[Any] = [None] * 4
    for start, places in ((0, _EVEN), (1, _ODD)):
        top, bottom = (shuffle(builder, rows[i], rows[i + 1], places) for i in (0, 2))
        columns[start] = shuffle(builder, top, bottom, _EVEN)
        columns[start + 2] = shuffle(builder, top, bottom, _ODD)
    return columns


def _transpose_16(builder: Any, rows: list[Any]) -> list[Any]:
    """Return the columns of sixteen rows of sixteen 32-bit numbers."""
    fours = [_within_quarters(builder, rows[i : i + 4]) for i in range(0, 16, 4)]
    by_residue = [_of_quarters(builder, [four[c] for four in fours]) for c in range(4)]
    return [by_residue[column % 4][column // 4] for column in range(16)]


def _transpose_8(builder: Any, rows: list[Any]) -> list[Any]:
    """Return the columns of eight rows of sixteen 32-bit numbers, two of them in a register."""
    upper, lower = (_within_quarters(builder, rows[i : i + 4]) for i in (0, 4))
    by_residue = [_of_quarters(builder, [upper[c], lower[c], upper[c + 1], lower[c + 1]]) for c in (0, 2)]
    return [by_residue[pair % 2][pair // 2] for pair in range(8)]


def _write_transpose(
    builder: Any, kind: int, source: Any, stride: Any, lanes: Any, numbers: Any, target: Any, line_stride: Any,
    most: int, transpose: Callable[..., Any], skipped: int = 0,
) -> None:  # fmt: skip
    """Write the loop that transposes up to ``most`` rows, 16 lines at a time, with some bytes skipped after these."""
    places = [I64(0)]
    for lane in range(1, most):
        exists = builder.icmp_signed("<", I64(lane), lanes)
        places.append(builder.add(places[-1], builder.select(exists, stride, I64(0))))
    step, size, _ = _LINES[kind]
    step *= LANES
    blocks = builder.sdiv(builder.add(numbers, I64(step - 1)), I64(step))
    with loop(builder, blocks, [source, target, numbers]) as ((x, out, left), following):
        at = [builder.add(x, place) for place in places]
        for column in transpose(builder, [_ROWS[kind](builder, address, left) for address in at]):
            store(builder, column, out)
            out = builder.add(out, line_stride)
        following += [after(builder, x, size * step), after(builder, out, skipped), builder.sub(left, I64(step))]


@intrinsic
def transpose_lines(
    context: Any, kind: Any, source: Any, stride: Any, lanes: Any, numbers: Any, target: Any, line_stride: Any
) -> Any:  # fmt: skip
    """Pack up to 16 columns of a right matrix, each of which is contiguous in memory.

    The arguments are those of :func:`copy_lines`, but ``stride`` is the bytes from one column to the next, and the last
    column takes the place of the missing ones. A multiple of 16 lines is written.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, *rest = args
        by_case(
            builder, kind, packed_kinds(), lambda kind: _write_transpose(builder, kind, *rest, LANES, _transpose_16)
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


@intrinsic
def transpose_strip(
    context: Any, kind: Any, source: Any, stride: Any, lanes: Any, numbers: Any, target: Any
) -> Any:  # fmt: skip
    """Pack up to 8 rows of a left matrix, each of which is contiguous in memory, as a strip.

    The arguments are those of :func:`transpose_lines`.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, *rest = args
        two_lines = I64(8 * ROWS)
        by_case(
            builder, kind, packed_kinds(),
            lambda kind: _write_transpose(builder, kind, *rest, two_lines, ROWS, _transpose_8),
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


# ---- blocks for AMX -----------------------------------------------------------------------------


def _block_kinds() -> list[int]:
    return [kind for kind in packed_kinds() if kind != FLOAT32]


@intrinsic
def copy_blocks(context: Any, kind: Any, source: Any, stride: Any, lanes: Any, numbers: Any, target: Any) -> Any:
    """Pack up to 16 rows of a left matrix, each of which is contiguous in memory, as a half of blocks for AMX.

    kind: BFLOAT16 or ROUNDED. The other arguments are those of :func:`transpose_lines`.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, *rest = args
        by_case(
            builder, kind, _block_kinds(),
            lambda kind: _write_transpose(
                builder, kind, *rest, I64(64), LANES, lambda _, rows: rows, BLOCK_BYTES - TILE_BYTES
            ),
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


def _wide_row_of_bfloat16(builder: Any, x: Any, count: Any) -> Any:
    return masked_load(builder, x, I16x32, first_lanes(builder, count, 2 * LANES))


def _wide_row_of_rounded(builder: Any, x: Any, count: Any) -> Any:
    low = masked_load(builder, x, F32x16, first_lanes(builder, count, LANES))
    high = masked_load(builder, after(builder, x, 64), F32x16, first_lanes(builder, count, LANES, LANES))
    return round_two(builder, low, high)


# Of each kind: bytes of a number, and the function that reads up to 32 numbers as bfloat16.
_WIDE_ROWS: dict[int, tuple[int, Callable[..., Any]]] = {
    BFLOAT16: (2, _wide_row_of_bfloat16), ROUNDED: (4, _wide_row_of_rounded),
}  # fmt: skip

# Places of the pairs of two registers, of four numbers and of the next four in each quarter.
_PAIRS = [[8 * q + start + i + 32 * second for q in range(4) for i in range(4) for second in (0, 1)]
          for start in (0, 4)]  # fmt: skip


@intrinsic
def transpose_blocks(
    context: Any, kind: Any, source: Any, stride: Any, lanes: Any, numbers: Any, target: Any, strip_stride: Any
) -> Any:  # fmt: skip
    """Pack rows of a left matrix that are adjacent in memory as blocks for AMX.

    kind: BFLOAT16 or ROUNDED. strip_stride: from the blocks of 32 rows to those of the next. The other arguments are
    those of :func:`copy_lines`. Missing numbers are zeros.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, source, stride, lanes, numbers, target, strip_stride = args
        step = 2 * BLOCK_LINES
        strips = builder.sdiv(builder.add(lanes, I64(step - 1)), I64(step))
        ahead = builder.mul(stride, I64(step))
        zeros = ir.Constant(ir.VectorType(I8, 128), None)
        nothing = builder.ptrtoint(cgutils.alloca_once_value(builder, zeros), I64)

        def write(kind: int) -> None:
            size, read = _WIDE_ROWS[kind]
            blocks = builder.sdiv(builder.add(numbers, I64(step - 1)), I64(step))
            with loop(builder, blocks, [source, target, numbers]) as ((row, out, left), following):
                exists = [builder.icmp_signed(">", left, I64(k)) for k in range(step)]
                with loop(builder, strips, [row, out, lanes]) as ((x, to, count), inner):
                    rows, at = [], x
                    for k in range(step):
                        for offset in range(0, step * size, 64):
                            prefetch(builder, after(builder, builder.add(at, ahead), offset))
                        rows.append(read(builder, builder.select(exists[k], at, nothing), count))
                        at = builder.add(at, stride)
                    for half, places in enumerate(_PAIRS):
                        lines = [shuffle(builder, *rows[k : k + 2], places) for k in range(0, step, 2)]
                        lines = [builder.bitcast(line, I32x16) for line in lines]
                        for i, column in enumerate(_transpose_16(builder, lines)):
                            store(builder, column, after(builder, to, 64 * (8 * (i // 4) + 4 * half + i % 4)))
                    inner += [after(builder, x, step * size), builder.add(to, strip_stride)]
                    inner += [builder.sub(count, I64(step))]
                following += [builder.add(row, ahead), after(builder, out, BLOCK_BYTES), builder.sub(left, I64(step))]

        by_case(builder, kind, _block_kinds(), write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate
