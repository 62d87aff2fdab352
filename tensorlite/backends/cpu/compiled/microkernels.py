"""The innermost loops of a product of matrices, in instructions of AVX-512.

A product is computed in tiles of 8 rows and up to 48 columns, because 24 registers hold the sums of such a tile while a
loop passes over k once (Van Zee and van de Geijn, *BLIS: A Framework for Rapidly Instantiating BLAS Functionality*,
2015). The loop reads copies of both matrices, in which the numbers of a step are adjacent: 8 of the left matrix, and
16, 32 or 48 of the right one. Such a copy is called packed, and the numbers of a step are a line of it. ``packing.py``
makes it.

A step is one k in float32, and two in bfloat16. Two bfloat16 numbers of a row or column share 32 bits, so packed copies
of both have the same layout. Addresses and numbers are integers. Strides are in bytes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .instructions import (
    BFLOAT16,
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
    round_two,
    shuffle,
)
from .simd import I32, F32x16, load, splat, store
from .support import I64

__all__ = ["MAX_VECTORS", "ROWS", "multiply_tile", "store_line", "write_tile"]

ROWS, MAX_VECTORS = 8, 3  # rows of a tile, vectors of a row of a tile


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
