"""The innermost loops of a product of matrices, in instructions of AVX-512.

A product is computed in tiles of 8 rows and up to 48 columns, because 24 registers hold the sums of such a tile while a
loop passes over k once (Van Zee and van de Geijn, *BLIS: A Framework for Rapidly Instantiating BLAS Functionality*,
2015). The loop reads copies of both matrices, in which the numbers of a step are adjacent: 8 of the left matrix, and
16, 32 or 48 of the right one. Such a copy is called packed, and the numbers of a step are a line of it. ``packing.py``
makes it.

A step is one k in float32, and two in bfloat16. Two bfloat16 numbers of a row or column share 32 bits, so packed copies
of both have the same layout. Addresses and numbers are integers. Strides are in bytes.

With AMX, products of bfloat16 matrices have tiles of 32 rows and 32 columns instead (see ``amx.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .amx import AMX_COLUMNS, AMX_ROWS, BLOCK_BYTES, TILE_BYTES, has_amx, write_amx_tile
from .instructions import (
    AMX,
    BFLOAT16,
    FLOAT32,
    LANES,
    MULTIPLY_ADD,
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
from .simd import I32, F32x16, load, splat, store
from .support import I64, INNER, njit

__all__ = [
    "BY_KEYS", "BY_QUERIES", "LINE", "MAX_VECTORS", "PACKED", "QUERIES", "ROWS", "amx_tile_number", "multiply_tile",
    "store_line", "store_rows", "tile_number", "tile_size",
]  # fmt: skip

ROWS, MAX_VECTORS = 8, 3  # rows of a tile, vectors of a row of a tile


# ---- tiles --------------------------------------------------------------------------------------


def _write_tile(
    kind: int, vectors: int, row: int, step: int, builder: Any, steps: Any, a: Any, b: Any, addend: Any,
    addend_stride: Any, out: Any, out_stride: Any,
) -> None:  # fmt: skip
    """Write the loop over k for one kind and number of vectors.

    row, step: bytes of the left matrix from one row to the next, and from one step to the next.
    """
    zeros = [ir.Constant(F32x16, [0.0] * LANES)] * (ROWS * vectors)
    with loop(builder, steps, [a, b, *zeros]) as ((a, b, *sums), following):
        following += [after(builder, a, step), after(builder, b, 4 * LANES * vectors)]
        if has_amx() and step == 4 * ROWS:
            # Intel's processors read the next lines of packed matrices late. Zen 4 does not gain by asking for them.
            for at, offset in ((a, 512), *((b, 3072 + 64 * j) for j in range(vectors))):
                prefetch(builder, after(builder, at, offset))
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


# How the left matrix of a tile is read: as packed rows; as lines of scores (see ``attention_tiles.py``), whose columns
# are the rows; as rows of such lines.
PACKED, BY_KEYS, BY_QUERIES = range(3)
QUERIES = 64  # numbers of a line of scores
LINE = 4 * QUERIES  # bytes of it

_KINDS = [kind for kind in packed_kinds() if kind in MULTIPLY_ADD]
_PLACES = {  # bytes from one row to the next, and from one step to the next
    (FLOAT32, PACKED): (4, 4 * ROWS), (FLOAT32, BY_KEYS): (4, LINE), (FLOAT32, BY_QUERIES): (LINE, 4),
    (BFLOAT16, PACKED): (4, 4 * ROWS), (BFLOAT16, BY_KEYS): (4, LINE), (BFLOAT16, BY_QUERIES): (LINE // 2, 4),
}  # fmt: skip


_AMX_PLACES = {  # bytes from one row to the next, to the second register, and to the next block
    PACKED: (64, TILE_BYTES, BLOCK_BYTES), BY_QUERIES: (LINE // 2, LANES * LINE // 2, 64),
}  # fmt: skip


@njit(**INNER)
def tile_number(kind: int, layout: int, vectors: int) -> int:
    """Return the number of a tile for :func:`multiply_tile`.

    kind: FLOAT32 or BFLOAT16. layout: how the left matrix is read. vectors: a sixteenth of the number of columns: 1 or
    2, and 3 for packed rows.
    """
    return (kind * 3 + layout) * MAX_VECTORS + vectors - 1


@njit(**INNER)
def amx_tile_number(layout: int, rows: int, vectors: int) -> int:
    """Return the number of a tile of AMX for :func:`multiply_tile`.

    layout: PACKED in blocks, or BY_QUERIES. rows, vectors: a sixteenth of the number of rows and of columns, 1 or 2.
    """
    return (AMX * 3 + layout) * MAX_VECTORS + 2 * rows + vectors - 3


@njit(**INNER)
def tile_size(kind: int) -> tuple[int, int]:
    """Return how many rows and columns the largest tile of packed matrices has."""
    return (AMX_ROWS, AMX_COLUMNS) if kind == AMX else (ROWS, MAX_VECTORS * LANES)


@intrinsic
def multiply_tile(
    context: Any, number: Any, steps: Any, a: Any, b: Any, addend: Any, addend_stride: Any, out: Any, out_stride: Any
) -> Any:  # fmt: skip
    """Write a product, plus an addend, to a tile of 8 rows and 16, 32 or 48 columns of float32; see AMX for its tiles.

    number: that of the tile. steps: lines of the packed right matrix, at least one. a, b: the addresses of both
    matrices. addend, out: addresses of float32 numbers, with the bytes from one row to the next. Both may be the same.
    """
    number_of = tile_number.py_func
    cases: dict[int, Callable[..., None]] = {
        number_of(kind, layout, count): partial(_write_tile, kind, count, *_PLACES[kind, layout])
        for kind in _KINDS for layout in range(3) for count in range(1, MAX_VECTORS + (layout == PACKED))
    }  # fmt: skip
    for layout, rows, columns in product(_AMX_PLACES, (1, 2), (1, 2)) if has_amx() else ():
        number_of_tile = amx_tile_number.py_func(layout, rows, columns)
        cases[number_of_tile] = partial(write_amx_tile, rows, columns, _AMX_PLACES[layout])

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number, *rest = args
        by_case(builder, number, cases, lambda case: cases[case](builder, *rest))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


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


@intrinsic
def store_rows(
    context: Any, rounded: Any, source: Any, source_row: Any, target: Any, target_row: Any, rows: Any, columns: Any
) -> Any:  # fmt: skip
    """Copy rows of float32 numbers, as bfloat16 if ``rounded`` is 1, and else if it is 0.

    rows, columns: how many there are, at least one of each.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rounded, source, source_row, target, target_row, rows, columns = args

        def write(rounds: int) -> None:
            pairs = builder.sdiv(builder.add(columns, I64(2 * LANES - 1)), I64(2 * LANES))
            with loop(builder, pairs, [source, target, columns]) as ((x, to, left), outer):
                masks = [first_lanes(builder, left, LANES, start) for start in (0, LANES)]
                both = first_lanes(builder, left, 2 * LANES)
                with loop(builder, rows, [x, to]) as ((at, out), following):
                    low, high = (masked_load(builder, after(builder, at, 64 * i), F32x16, masks[i]) for i in (0, 1))
                    if rounds:
                        masked_store(builder, round_two(builder, low, high), out, both)
                    else:
                        masked_store(builder, low, out, masks[0])
                        masked_store(builder, high, after(builder, out, 64), masks[1])
                    following += [builder.add(at, source_row), builder.add(out, target_row)]
                size = 2 if rounds else 4
                outer += [after(builder, x, 128), after(builder, to, 2 * LANES * size)]
                outer += [builder.sub(left, I64(2 * LANES))]

        by_case(builder, rounded, [0, 1] if has_kernel(BFLOAT16) else [0], write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate
