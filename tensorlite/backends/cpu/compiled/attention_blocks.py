"""The parts of attention for a block of queries: packed matrices, products of tiles, and the softmax of the scores.

The loops of :mod:`.attention` call them. Matrices are given by the addresses of their first numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray

from .amx import AMX_ROWS, BLOCK_BYTES, BLOCK_LINES
from .attention_tiles import int32_pointer
from .instructions import LANES
from .microkernels import (
    BY_KEYS,
    BY_QUERIES,
    LINE,
    PACKED,
    QUERIES,
    ROWS,
    amx_tile_number,
    store_line,
    tile_number,
)
from .parts import (
    COLUMN_MAXIMA,
    COPY_BLOCKS,
    COPY_LINES,
    EXPONENTIALS,
    PROBABILITIES,
    SCORE_GRADIENTS,
    TRANSPOSE_LINES,
    TRANSPOSE_STRIP,
    call_part,
    call_tile,
)
from .simd import fma_16, load_16, splat_16, store_16, zeros_16
from .support import INNER, float32_pointer, njit

__all__ = [
    "PANEL", "TILE_ROW", "Matrix", "Sizes", "add_by_queries", "head_address", "multiply_by_keys", "multiply_scores",
    "pack_columns", "pack_left", "pack_rows", "packed_lines", "round_up", "softmax_block", "softmax_block_backward",
    "write_limits",
]  # fmt: skip

Array = Any
f32 = np.float32

_SUM_LINES = 512  # lines after which a sum starts anew, so that its rounding errors stay small
_SUM_PAIRS = 128  # pairs of keys, likewise
PANEL = 32  # columns of a tile
TILE_ROW = 4 * PANEL  # bytes
_STRIP = 4 * ROWS  # bytes of a line of packed rows
_AHEAD = 16  # rows that are asked for ahead


class Matrix(NamedTuple):
    """The matrices of all heads: the address of the first number, and strides in bytes."""

    address: int
    batch: int
    head: int
    row: int


class Sizes(NamedTuple):
    """What all heads share."""

    code: int  # address of the inner loops, see parts.py
    kind: int  # FLOAT32 or BFLOAT16
    amx: int  # 1 if products of bfloat16 are computed with AMX, else 0
    per_line: int  # numbers of k in a line of a packed matrix: 1 or 2
    size: int  # bytes of a number
    heads: int  # of a sequence
    queries: int
    keys: int
    width: int  # of queries and keys
    value_width: int
    causal: int  # 1 if query t sees keys 0 to t, else 0
    scale: int  # the bits of a float32 number


# ---- packed matrices ----------------------------------------------------------------------------


@njit(**INNER)
def round_up(number: int, multiple: int) -> int:
    """Return the smallest multiple of a number that is not below another one."""
    return -(-number // multiple) * multiple


@njit(**INNER)
def packed_lines(p: Any, numbers: int) -> int:
    """Return how many lines a packed matrix has room for."""
    return round_up(-(-numbers // p.per_line), LANES)


@njit(**INNER)
def head_address(p: Any, x: Any, head: int) -> int:
    """Return the address of a head's matrix."""
    return x.address + head // p.heads * x.batch + head % p.heads * x.head


@njit(**INNER)
def _vectors(columns: int, panel: int) -> int:
    """Return how many vectors wide the tiles of a panel are that starts at a column."""
    return min(2, -(-(columns - panel) // LANES))


@njit(**INNER, forceinline=False)
def pack_left(p: Any, source: int, row: int, rows: int, numbers: int, target: int) -> None:
    """Pack the rows of a matrix, each of which is contiguous: ROWS of them side by side, or in blocks for AMX."""
    strip = _STRIP * packed_lines(p, numbers)
    for first in range(0, rows if p.amx else 0, LANES):
        to = target + first // AMX_ROWS * 4 * AMX_ROWS * packed_lines(p, numbers) + first % AMX_ROWS * 64
        args_of_rows = (p.kind, source + first * row, row, min(LANES, rows - first), numbers, to)
        call_part(p.code, COPY_BLOCKS, args_of_rows)
    for first in range(0, 0 if p.amx else rows, ROWS):
        args = (p.kind, source + first * row, row, min(ROWS, rows - first), numbers, target)
        call_part(p.code, TRANSPOSE_STRIP, args)
        target += strip


@njit(**INNER, forceinline=False)
def pack_rows(p: Any, source: int, row: int, rows: int, numbers: int, target: int) -> None:
    """Pack the rows of a matrix as the columns of a right one: those of a tile side by side."""
    lines = packed_lines(p, numbers)
    for panel in range(0, rows, PANEL):
        line = 4 * LANES * _vectors(rows, panel)
        for first in range(panel, min(panel + PANEL, rows), LANES):
            to = target + 4 * panel * lines + 4 * (first - panel)
            args = (p.kind, source + first * row, row, min(LANES, rows - first), numbers, to, line)
            call_part(p.code, TRANSPOSE_LINES, args)


@njit(**INNER, forceinline=False)
def pack_columns(p: Any, source: int, row: int, rows: int, columns: int, lines: int, target: int) -> None:
    """Pack the columns of a right matrix, whose rows are contiguous: those of a tile side by side.

    lines: how many lines of a panel there is room for.
    """
    for panel in range(0, columns, PANEL):
        line = 4 * LANES * _vectors(columns, panel)
        at, lanes = source + panel * p.size, min(PANEL, columns - panel)
        args = (p.kind, at, row, lanes, rows, target + 4 * panel * lines, line, _AHEAD * row)
        call_part(p.code, COPY_LINES, args)
        if p.amx:
            pairs = -(-rows // 2)
            rest = carray(float32_pointer(target + 4 * panel * lines + pairs * line), -pairs % BLOCK_LINES * line // 4)
            rest[:] = f32(0)


# ---- products -----------------------------------------------------------------------------------


@njit(**INNER, forceinline=False)
def _multiply(
    p: Any, layout: int, vectors: int, steps: int, a: int, b: int, addend: int, addend_row: int, out: int,
    out_row: int,
) -> None:  # fmt: skip
    """Write a product plus an addend to a tile."""
    number = tile_number(p.kind, layout, vectors)
    a_step = _STRIP if layout == PACKED else LINE if layout == BY_KEYS else 4
    for line in range(0, steps, _SUM_LINES):
        call_tile(
            p.code, number, min(_SUM_LINES, steps - line), a + a_step * line, b + 4 * LANES * vectors * line, addend,
            addend_row, out, out_row,
        )  # fmt: skip
        addend, addend_row = out, out_row


@njit(**INNER, forceinline=False)
def multiply_scores(
    p: Any, left: int, right: int, numbers: int, zeros: int, first: int, queries: int, out: int
) -> None:  # fmt: skip
    """Write the products of keys, ``left``, and a block of queries, ``right``, as lines of scores."""
    lines = packed_lines(p, numbers)
    steps = -(-numbers // p.per_line)
    for panel in range(0, queries, PANEL):
        vectors = _vectors(queries, panel)
        keys = min(p.keys, first + panel + LANES * vectors) if p.causal else p.keys
        for key in range(0, keys if p.amx else 0, AMX_ROWS):
            call_tile(
                p.code, amx_tile_number(PACKED, min(2, -(-(keys - key) // LANES)), vectors), steps,
                left + key * 4 * lines, right + 4 * panel * lines, zeros, 0, out + key * LINE + 4 * panel, LINE,
            )  # fmt: skip
        for key in range(0, 0 if p.amx else keys, ROWS):
            _multiply(
                p, PACKED, vectors, steps, left + key // ROWS * _STRIP * lines, right + 4 * panel * lines,
                zeros, 0, out + key * LINE + 4 * panel, LINE,
            )  # fmt: skip


@njit(**INNER, forceinline=False)
def multiply_by_keys(
    p: Any, lines: int, right: int, columns: int, zeros: int, tile: int, first: int, queries: int, factors: int,
    out: int, out_row: int, blocks: int,
) -> None:  # fmt: skip
    """Write the product of a block's queries by keys, ``lines``, and a matrix with a row for each key.

    factors: address of a number for each query, by which its row is multiplied. blocks: memory for the lines as blocks
    for AMX.
    """
    right_lines = packed_lines(p, p.keys)
    factor = carray(float32_pointer(factors), QUERIES)
    height = AMX_ROWS if p.amx else ROWS
    for query in range(0, queries, height):
        rows = min(height, queries - query)
        keys = min(p.keys, first + query + (rows if p.amx else ROWS)) if p.causal else p.keys
        steps = -(-keys // p.per_line)
        if p.amx:
            for line in range(0, steps, BLOCK_LINES):
                args = (
                    p.kind, lines + 4 * query + line * LINE, LINE, LANES, 2 * AMX_ROWS,
                    blocks + line // BLOCK_LINES * BLOCK_BYTES, 64,
                )  # fmt: skip
                call_part(p.code, TRANSPOSE_LINES, args)
        for panel in range(0, columns, PANEL):
            vectors = _vectors(columns, panel)
            b = right + 4 * panel * right_lines
            if p.amx:
                number = amx_tile_number(PACKED, -(-rows // LANES), vectors)
                call_tile(p.code, number, steps, blocks, b, zeros, 0, tile, TILE_ROW)
            else:
                _multiply(p, BY_KEYS, vectors, steps, lines + 4 * query, b, zeros, 0, tile, TILE_ROW)
            for i in range(rows):
                for j in range(vectors):
                    at = tile + i * TILE_ROW + 4 * LANES * j
                    store_16(at, fma_16(load_16(at), splat_16(factor[query + i]), zeros_16()))
                    column = panel + LANES * j
                    store_line(
                        p.per_line - 1, at, out + (query + i) * out_row + column * p.size, columns - column
                    )  # fmt: skip


@njit(**INNER, forceinline=False)
def add_by_queries(
    p: Any, rows: int, right: int, columns: int, first: int, queries: int, sums: int
) -> None:  # fmt: skip
    """Add to a row for each key: the product of keys by a block's queries, ``rows``, and a row for each query."""
    right_lines = packed_lines(p, QUERIES)
    sums_row = 4 * round_up(columns, LANES)
    keys = min(p.keys, first + queries) if p.causal else p.keys
    for key in range(0, keys if p.amx else 0, AMX_ROWS):
        skipped = max(0, key - first) // AMX_ROWS * AMX_ROWS if p.causal else 0
        for panel in range(0, columns, PANEL):
            vectors = _vectors(columns, panel)
            number = amx_tile_number(BY_QUERIES, min(2, -(-(keys - key) // LANES)), vectors)
            b = right + 4 * panel * right_lines + skipped // 2 * 4 * LANES * vectors
            out = sums + key * sums_row + 4 * panel
            call_tile(
                p.code, number, -(-(queries - skipped) // 2), rows + key * (LINE // 2) + 2 * skipped, b, out,
                sums_row, out, sums_row,
            )  # fmt: skip
    for key in range(0, 0 if p.amx else keys, ROWS):
        skipped = max(0, key - first) // LANES * LANES if p.causal else 0  # queries that do not see the key
        steps = -(-(queries - skipped) // p.per_line)
        a = rows + key * (LINE // p.per_line) + skipped * p.size
        for panel in range(0, columns, PANEL):
            vectors = _vectors(columns, panel)
            b = right + 4 * panel * right_lines + skipped // p.per_line * 4 * LANES * vectors
            out = sums + key * sums_row + 4 * panel
            _multiply(p, BY_QUERIES, vectors, steps, a, b, out, sums_row, out, sums_row)


# ---- softmax ------------------------------------------------------------------------------------


@njit(**INNER)
def _seen_keys(p: Any, first: int, queries: int, column: int) -> tuple[int, int]:
    """Return how many keys every one of sixteen queries sees, rounded down to pairs, and how many any sees."""
    if not p.causal:
        return (p.keys // 2 * 2 if column + LANES <= queries else 0), p.keys
    seen = min(p.keys, first + column + 1) if column + LANES <= queries else 0
    return seen // 2 * 2, min(p.keys, first + column + LANES)


@njit(**INNER)
def write_limits(p: Any, first: int, queries: int, limits: int) -> None:
    """Write the last key that each query of a block sees, as int32; -1 for those after the last query."""
    for column in range(QUERIES):
        last = min(p.keys - 1, first + column) if p.causal else p.keys - 1
        carray(int32_pointer(limits), QUERIES)[column] = last if column < queries else -1


@njit(**INNER)
def _clear_lines(p: Any, lines: int, first: int, queries: int, keys: int) -> None:
    """Write zeros to sixteen queries' lines by keys, from the last key that they see to those that AMX reads."""
    seen = min(p.keys, first + queries) if p.causal else p.keys
    for pair in range((keys + 1) // 2, round_up((seen + 1) // 2, BLOCK_LINES)):
        store_16(lines + pair * LINE, zeros_16())


@njit(**INNER)
def _clear_rows(p: Any, rows: int, first: int, queries: int, keys: int) -> None:
    """Write zeros to sixteen queries' numbers in rows by queries, likewise."""
    seen = min(p.keys, first + queries) if p.causal else p.keys
    for key in range(round_up(keys, 2), round_up(seen, AMX_ROWS)):
        carray(float32_pointer(rows + key * (LINE // 2)), LANES // 2)[:] = f32(0)


@njit(**INNER, forceinline=False)
def softmax_block(
    p: Any, scores: int, lines: int, first: int, queries: int, limits: int, tops: int, totals: int
) -> None:  # fmt: skip
    """Write the exponentials of a block's scores, by keys, the scores' maxima, and the sums of the exponentials."""
    for column in range(0, queries, LANES):
        whole, keys = _seen_keys(p, first, queries, column)
        at, limit, top, total = scores + 4 * column, limits + 4 * column, tops + 4 * column, totals + 4 * column
        store_16(top, splat_16(f32(-np.inf)))
        store_16(total, zeros_16())
        if whole > 0:
            call_part(p.code, COLUMN_MAXIMA, (0, at, 0, whole // 2, p.scale, limit, top))
        if whole < keys:
            rest = (keys - whole + 1) // 2
            call_part(p.code, COLUMN_MAXIMA, (1, at + whole * LINE, whole, rest, p.scale, limit, top))
        key = 0
        while key < keys:
            masked = 0 if key < whole else 1
            pairs = min(_SUM_PAIRS, ((keys if masked else whole) - key + 1) // 2)
            args = (
                p.kind, masked, at + key * LINE, key, pairs, p.scale, limit, top, total,
                lines + 4 * column + key // 2 * LINE,
            )  # fmt: skip
            call_part(p.code, EXPONENTIALS, args)
            key += 2 * pairs
        if p.amx:
            _clear_lines(p, lines + 4 * column, first, queries, keys)


@njit(**INNER, forceinline=False)
def softmax_block_backward(
    p: Any, scores: int, gradients: int, lines: int, score_rows: int, gradient_rows: int, first: int, queries: int,
    limits: int, tops: int, parts: int, sums: int,
) -> None:  # fmt: skip
    """Replace a block's scores by their softmax, and its gradients by those of the scores."""
    for column in range(0, round_up(queries, AMX_ROWS) if p.amx else queries, LANES):
        whole, keys = _seen_keys(p, first, queries, column)
        at, slope, limit = scores + 4 * column, gradients + 4 * column, limits + 4 * column
        top, part, total = tops + 4 * column, parts + 4 * column, sums + 4 * column
        store_16(total, zeros_16())
        key = 0
        while key < keys:
            masked = 0 if key < whole else 1
            pairs = min(_SUM_PAIRS, ((keys if masked else whole) - key + 1) // 2)
            args = (
                p.kind, masked, at + key * LINE, key, pairs, p.scale, limit, top, part, slope + key * LINE, total,
                score_rows + 2 * column + key // 2 * LINE,
            )  # fmt: skip
            call_part(p.code, PROBABILITIES, args)
            key += 2 * pairs
        key = 0
        while key < keys:
            masked = 0 if key < whole else 1
            pairs = ((keys if masked else whole) - key + 1) // 2
            slopes = (
                p.kind, masked, at + key * LINE, key, pairs, p.scale, limit, slope + key * LINE, total,
                lines + 4 * column + key // 2 * LINE, gradient_rows + 2 * column + key // 2 * LINE,
            )  # fmt: skip
            call_part(p.code, SCORE_GRADIENTS, slopes)
            key += 2 * pairs
        if p.amx:
            _clear_lines(p, lines + 4 * column, first, queries, keys)
            _clear_rows(p, score_rows + 2 * column, first, queries, keys)
            _clear_rows(p, gradient_rows + 2 * column, first, queries, keys)
