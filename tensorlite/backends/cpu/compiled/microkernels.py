"""The innermost loops of a product of matrices, in instructions of AVX-512.

A product is computed in tiles of 8 rows and up to 48 columns, because 24 registers hold the sums of such a tile while a
loop passes over k once (Van Zee and van de Geijn, *BLIS: A Framework for Rapidly Instantiating BLAS Functionality*,
2015). The loop reads copies of both matrices, in which the numbers of a step are adjacent: 8 of the left matrix, and
16, 32 or 48 of the right one. Such a copy is called packed, and the numbers of a step are a line of it.

A step is one k in float32, and two in bfloat16. Two bfloat16 numbers of a row or column share 32 bits, so packed copies
of both have the same layout. Addresses and numbers are integers. Strides are in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .simd import I32, F32x16, I32x16, cpu_features, fused_multiply_add, load, splat
from .support import I64, to_pointer

__all__ = [
    "BFLOAT16", "FLOAT32", "LANES", "MAX_VECTORS", "ROUNDED", "ROWS", "copy_lines", "has_kernel", "multiply_tile",
    "store_line", "transpose_lines",
]  # fmt: skip

ROWS, LANES, MAX_VECTORS = 8, 16, 3  # rows of a tile, numbers of a vector, vectors of a row of a tile

# What is packed: float32 numbers; bfloat16 numbers, in pairs; float32 numbers that are rounded to bfloat16, in pairs.
FLOAT32, BFLOAT16, ROUNDED = range(3)

_AVX512 = {"+avx512f", "+avx512bw", "+avx512dq", "+avx512vl"}
_FEATURES = {FLOAT32: _AVX512, BFLOAT16: {*_AVX512, "+avx512bf16"}}

_AHEAD = 16  # numbers of k that are asked for ahead

I1, I16 = ir.IntType(1), ir.IntType(16)
I16x16, I16x32, I32x8 = ir.VectorType(I16, 16), ir.VectorType(I16, 32), ir.VectorType(I32, 8)


def has_kernel(kind: int) -> bool:
    """Return whether the processor that numba compiles for has the instructions for products of a kind."""
    return _FEATURES[kind] <= cpu_features()


def _kinds() -> list[int]:
    return [FLOAT32, BFLOAT16, ROUNDED] if has_kernel(BFLOAT16) else [FLOAT32]


# ---- what writes instructions -------------------------------------------------------------------


def _call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    function_type = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


def _after(builder: Any, address: Any, offset: int) -> Any:
    return builder.add(address, I64(offset)) if offset else address


def _shuffle(builder: Any, x: Any, y: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(places)), places))


def _first(builder: Any, count: Any, lanes: int, start: int = 0) -> Any:
    """Return a mask of the lanes whose number, counted from ``start``, is below ``count``."""
    numbers = ir.VectorType(I32, lanes)
    one = builder.insert_element(ir.Constant(numbers, ir.Undefined), builder.trunc(count, I32), I32(0))
    limit = _shuffle(builder, one, ir.Constant(numbers, ir.Undefined), [0] * lanes)
    return builder.icmp_signed("<", ir.Constant(numbers, list(range(start, start + lanes))), limit)


def _masked_load(builder: Any, address: Any, of: Any, mask: Any) -> Any:
    """Return the vector at an address, which may be any number, with zeros where the mask is off."""
    name = f"llvm.masked.load.v{of.count}{of.element.intrinsic_name}.p0"
    pointer, zeros = to_pointer(builder, address, of), ir.Constant(of, None)
    return _call(builder, name, of, pointer, I32(1), mask, zeros)


def _masked_store(builder: Any, value: Any, address: Any, mask: Any) -> None:
    of = value.type
    name = f"llvm.masked.store.v{of.count}{of.element.intrinsic_name}.p0"
    _call(builder, name, ir.VoidType(), value, to_pointer(builder, address, of), I32(1), mask)


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, to_pointer(builder, address, value.type)).align = 4


def _prefetch(builder: Any, address: Any) -> None:
    """Ask for the line of the cache at an address, which may be any number."""
    name, pointer = "llvm.prefetch.p0", to_pointer(builder, address, I32x16)
    _call(builder, name, ir.VoidType(), pointer, I32(0), I32(3), I32(1))


def _round_two(builder: Any, low: Any, high: Any) -> Any:
    """Return two vectors of float32 as one of bfloat16 numbers, in int16, rounded to nearest even."""
    return builder.bitcast(_call(builder, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", I16x32, high, low), I16x32)


def _dot_pairs(builder: Any, total: Any, x: Any, y: Any) -> Any:
    """Return ``total`` plus, in each lane, the sum of the products of two bfloat16 numbers."""
    x, y = (builder.bitcast(v, I32x16) for v in (x, y))
    return _call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", F32x16, total, x, y)


_MULTIPLY_ADD: dict[int, Callable[..., Any]] = {
    FLOAT32: lambda builder, total, x, y: fused_multiply_add(builder, x, y, total), BFLOAT16: _dot_pairs,
}  # fmt: skip


@contextmanager
def _loop(builder: Any, count: Any, values: list[Any]) -> Iterator[tuple[list[Any], list[Any]]]:
    """Write a loop that runs ``count`` times, at least once.

    It gives the values at the start of an iteration, and a list to which the body appends those of the next one.
    """
    before, body = builder.block, builder.append_basic_block("loop")
    builder.branch(body)
    builder.position_at_end(body)
    variables = [builder.phi(value.type) for value in (count, *values)]
    for variable, value in zip(variables, (count, *values), strict=True):
        variable.add_incoming(value, before)
    following: list[Any] = []
    yield variables[1:], following
    left = builder.sub(variables[0], I64(1))
    for variable, value in zip(variables, (left, *following), strict=True):
        variable.add_incoming(value, builder.block)
    after = builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed(">", left, I64(0)), body, after)
    builder.position_at_end(after)


def _by_case(builder: Any, number: Any, values: Iterable[int], write: Callable[[int], None]) -> None:
    """Write instructions for each of some values of a number; other values do nothing."""
    end = builder.append_basic_block("end")
    switch = builder.switch(number, end)
    for value in values:
        block = builder.append_basic_block(f"case{value}")
        switch.add_case(I64(value), block)
        builder.position_at_end(block)
        write(value)
        builder.branch(end)
    builder.position_at_end(end)


# ---- tiles --------------------------------------------------------------------------------------


def _write_tile(
    builder: Any, kind: int, vectors: int, steps: Any, a: Any, b: Any, addend: Any, addend_stride: Any, out: Any,
    out_stride: Any,
) -> None:  # fmt: skip
    """Write the loop over k for one kind and number of vectors."""
    zeros = [ir.Constant(F32x16, [0.0] * LANES)] * (ROWS * vectors)
    with _loop(builder, steps, [a, b, *zeros]) as ((a, b, *sums), following):
        following += [_after(builder, a, 4 * ROWS), _after(builder, b, 4 * LANES * vectors)]
        columns = [load(builder, b, F32x16, 4 * LANES * j) for j in range(vectors)]
        for i in range(ROWS):
            row = builder.bitcast(splat(builder, load(builder, a, I32, 4 * i)), F32x16)
            for j in range(vectors):
                following.append(_MULTIPLY_ADD[kind](builder, sums[i * vectors + j], row, columns[j]))
    for i in range(ROWS):
        for j in range(vectors):
            value = load(builder, addend, F32x16, 4 * LANES * j)
            _store(builder, builder.fadd(following[2 + i * vectors + j], value), _after(builder, out, 4 * LANES * j))
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
        kinds = [k for k in _kinds() if k in _MULTIPLY_ADD]
        cases = {k * MAX_VECTORS + v: (k, v + 1) for k in kinds for v in range(MAX_VECTORS)}
        _by_case(builder, number, cases, lambda case: _write_tile(builder, *cases[case], *rest))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), generate


@intrinsic
def store_line(context: Any, rounded: Any, source: Any, target: Any, count: Any) -> Any:
    """Copy up to 16 float32 numbers, as bfloat16 if ``rounded`` is 1, and else if it is 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rounded, source, target, count = args
        mask = _first(builder, count, LANES)

        def write(rounds: int) -> None:
            value = _masked_load(builder, source, F32x16, mask)
            if rounds:
                both = _round_two(builder, value, value)
                value = _shuffle(builder, both, both, [*range(LANES)])
            _masked_store(builder, value, target, mask)

        _by_case(builder, rounded, [0, 1] if has_kernel(BFLOAT16) else [0], write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


# ---- packing ------------------------------------------------------------------------------------


def _store_halves(builder: Any, line: Any, low: Any, high: Any) -> None:
    undefined = ir.Constant(I32x16, ir.Undefined)
    _store(builder, _shuffle(builder, line, undefined, [*range(8)]), low)
    _store(builder, _shuffle(builder, line, undefined, [*range(8, 16)]), high)


def _line_of_float32(builder: Any, x: Any, mask_x: Any, y: Any, mask_y: Any) -> Any:
    return builder.bitcast(_masked_load(builder, x, F32x16, mask_x), I32x16)


def _line_of_bfloat16(builder: Any, x: Any, mask_x: Any, y: Any, mask_y: Any) -> Any:
    low, high = _masked_load(builder, x, I16x16, mask_x), _masked_load(builder, y, I16x16, mask_y)
    shift = ir.Constant(I32x16, [16] * LANES)
    return builder.or_(builder.zext(low, I32x16), builder.shl(builder.zext(high, I32x16), shift))


def _line_of_rounded(builder: Any, x: Any, mask_x: Any, y: Any, mask_y: Any) -> Any:
    low, high = _masked_load(builder, x, F32x16, mask_x), _masked_load(builder, y, F32x16, mask_y)
    both = _round_two(builder, low, high)
    places = [number for pair in zip(range(16), range(16, 32), strict=True) for number in pair]
    return builder.bitcast(_shuffle(builder, both, both, places), I32x16)


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
        mask = _first(builder, lanes, LANES)

        def write(kind: int) -> None:
            step, line = _LINES[kind]
            lines = builder.sdiv(builder.add(numbers, I64(step - 1)), I64(step))
            with _loop(builder, lines, [source, low, high, numbers]) as ((x, lower, higher, left), following):
                # The processor does not foresee reads that are far apart.
                _prefetch(builder, builder.add(x, builder.mul(stride, I64(_AHEAD))))
                y = builder.add(x, stride)
                has_two = builder.icmp_signed(">", left, I64(1))
                mask_y = _first(builder, builder.select(has_two, lanes, I64(0)), LANES) if step == 2 else None
                _store_halves(builder, line(builder, x, mask, y, mask_y), lower, higher)
                following += [
                    builder.add(x, builder.mul(stride, I64(step))), builder.add(lower, line_stride),
                    builder.add(higher, line_stride), builder.sub(left, I64(step)),
                ]  # fmt: skip

        _by_case(builder, kind, _kinds(), write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


def _row_of_float32(builder: Any, x: Any, count: Any) -> Any:
    return _masked_load(builder, x, F32x16, _first(builder, count, LANES))


def _row_of_bfloat16(builder: Any, x: Any, count: Any) -> Any:
    return builder.bitcast(_masked_load(builder, x, I16x32, _first(builder, count, 2 * LANES)), F32x16)


def _row_of_rounded(builder: Any, x: Any, count: Any) -> Any:
    low = _masked_load(builder, x, F32x16, _first(builder, count, LANES))
    high = _masked_load(builder, _after(builder, x, 64), F32x16, _first(builder, count, LANES, LANES))
    return builder.bitcast(_round_two(builder, low, high), F32x16)


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
        ab, cd = ([_shuffle(builder, *pair, places) for places in (low, high)] for pair in ((a, b), (c, d)))
        fours.append([_shuffle(builder, ab[n], cd[n], places) for n in (0, 1) for places in (first, last)])
    columns: list[Any] = [None] * 16
    for c in range(4):
        for start, places in ((0, even), (4, odd)):
            top, bottom = (_shuffle(builder, fours[i][c], fours[i + 1][c], places) for i in (0, 2))
            columns[start + c] = _shuffle(builder, top, bottom, even)
            columns[start + 8 + c] = _shuffle(builder, top, bottom, odd)
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
            with _loop(builder, blocks, [source, low, high, numbers]) as ((x, lower, higher, left), following):
                rows = [_ROWS[kind](builder, builder.add(x, place), left) for place in places]
                for column in _transpose(builder, rows):
                    _store_halves(builder, builder.bitcast(column, I32x16), lower, higher)
                    lower, higher = builder.add(lower, line_stride), builder.add(higher, line_stride)
                following += [_after(builder, x, size * step), lower, higher, builder.sub(left, I64(step))]

        _by_case(builder, kind, _kinds(), write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate
