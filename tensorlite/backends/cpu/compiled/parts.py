"""The innermost loops of products and attention, in two compiled functions that others call by their addresses.

The compiler would compile a loop again for each function that it is a part of. That took ten seconds for attention.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .amx import load_tile_shapes, release_tiles
from .attention_tiles import column_maxima, exponentials, probabilities, score_gradients
from .microkernels import multiply_tile, store_rows
from .packing import copy_blocks, copy_lines, copy_strips, transpose_blocks, transpose_lines, transpose_strip
from .simd import F32, I32, load
from .support import ENTRY, I64, njit, to_pointer

__all__ = [
    "COLUMN_MAXIMA", "COPY_BLOCKS", "COPY_LINES", "COPY_STRIPS", "EXPONENTIALS", "LOAD_TILE_SHAPES", "PARTS",
    "PROBABILITIES", "RELEASE_TILES", "SCORE_GRADIENTS", "STORE_ROWS", "TRANSPOSE_BLOCKS", "TRANSPOSE_LINES",
    "TRANSPOSE_STRIP", "call_at", "call_part", "call_tile", "code_address",
]  # fmt: skip

(
    COPY_LINES, COPY_STRIPS, TRANSPOSE_LINES, TRANSPOSE_STRIP, COLUMN_MAXIMA, EXPONENTIALS, PROBABILITIES,
    SCORE_GRADIENTS, COPY_BLOCKS, TRANSPOSE_BLOCKS, STORE_ROWS, LOAD_TILE_SHAPES, RELEASE_TILES,
) = range(13)  # fmt: skip

_COUNT = 12  # the most arguments of a part
_TYPES, _TILE_TYPES = (types.int64,) * (1 + _COUNT), (types.int64,) * 8


@njit(types.void(*_TILE_TYPES), **ENTRY)
def _run_tile(
    number: int, steps: int, a: int, b: int, addend: int, addend_stride: int, out: int, out_stride: int
) -> None:  # fmt: skip
    multiply_tile(number, steps, a, b, addend, addend_stride, out, out_stride)


@intrinsic
def _float_of(context: Any, bits: Any) -> Any:
    """Return the float32 number with these bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.trunc(args[0], I32), F32)

    return types.float32(types.int64), generate


@njit(types.void(*_TYPES), **ENTRY)
def _run_part(
    part: int, a: int, b: int, c: int, d: int, e: int, f: int, g: int, h: int, i: int, j: int, k: int, m: int
) -> None:  # fmt: skip
    """Call one of the functions below. Each takes the first of the arguments, a float32 number as its bits."""
    if part == COPY_LINES:
        copy_lines(a, b, c, d, e, f, g, h)
    elif part == COPY_STRIPS:
        copy_strips(a, b, c, d, e, f, g)
    elif part == TRANSPOSE_LINES:
        transpose_lines(a, b, c, d, e, f, g)
    elif part == TRANSPOSE_STRIP:
        transpose_strip(a, b, c, d, e, f)
    elif part == COLUMN_MAXIMA:
        column_maxima(a, b, c, d, _float_of(e), f, g)
    elif part == EXPONENTIALS:
        exponentials(a, b, c, d, e, _float_of(f), g, h, i, j)
    elif part == PROBABILITIES:
        probabilities(a, b, c, d, e, _float_of(f), g, h, i, j, k, m)
    elif part == SCORE_GRADIENTS:
        score_gradients(a, b, c, d, e, _float_of(f), g, h, i, j, k)
    elif part == COPY_BLOCKS:
        copy_blocks(a, b, c, d, e, f)
    elif part == TRANSPOSE_BLOCKS:
        transpose_blocks(a, b, c, d, e, f, g)
    elif part == STORE_ROWS:
        store_rows(a, b, c, d, e, f, g)
    elif part == LOAD_TILE_SHAPES:
        load_tile_shapes()
    elif part == RELEASE_TILES:
        release_tiles()


def code_address(function: Any) -> int:
    """Return the address of the machine code of a compiled function with one signature, as :func:`call_at` takes it."""
    [compiled] = function.overloads.values()
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


_ADDRESSES = np.array([code_address(_run_tile), code_address(_run_part)])
PARTS = int(_ADDRESSES.ctypes.data)
"""The address that :func:`call_tile` and :func:`call_part` take. The addresses of their code are there."""


def call_at(context: Any, builder: Any, address: Any, result: Any, arguments: Any, values: Any) -> Any:
    """Write a call of a compiled function by its address, given its types. Return what it returns."""
    convention = context.call_conv
    function = to_pointer(builder, address, convention.get_function_type(result, arguments))
    status, found = convention.call_function(builder, function, result, arguments, values)
    with cgutils.if_unlikely(builder, status.is_error):
        convention.return_status_propagate(builder, status)
    return found


@intrinsic
def call_tile(
    context: Any, code: Any, number: Any, steps: Any, a: Any, b: Any, addend: Any, addend_stride: Any, out: Any,
    out_stride: Any,
) -> Any:  # fmt: skip
    """Call :func:`multiply_tile`. code: :data:`PARTS`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code, *rest = args
        call_at(context, builder, load(builder, code, I64), types.none, _TILE_TYPES, rest)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), generate


@intrinsic
def call_part(context: Any, code: Any, part: Any, args: Any) -> Any:
    """Call a part: its number, and a tuple of its arguments, which are integers. code: :data:`PARTS`."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        code, part, values = given
        numbers = [
            context.cast(builder, value, given_type, types.int64)
            for value, given_type in zip(cgutils.unpack_tuple(builder, values), signature.args[2].types, strict=True)
        ]
        missing = [context.get_constant(types.int64, 0)] * (_COUNT - len(numbers))
        call_at(context, builder, load(builder, code, I64, 8), types.none, _TYPES, [part, *numbers, *missing])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, args), generate
