"""Attention and its gradients, float32 or bfloat16, with our own products, for processors with AVX-512.

The queries of a head are processed in blocks, so that their scores stay in the second-level cache. Keys and values are
packed once for a head. Tiles of scores that a causal mask hides are not computed. The backward pass computes the scores
again. In bfloat16 the softmax and the gradients of the scores are rounded for their products. All sums, and the
statistics of a softmax, are float32, and the results are rounded once.
Source: Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", 2023.

With AMX, products in bfloat16 are tiles of 32 rows and columns (see ``amx.py``). They read numbers of queries and keys
that a causal mask hides, so zeros are written there.

A head is computed by one thread, so the bits do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types

from .amx import AMX_ROWS
from .attention_blocks import (
    PANEL,
    TILE_ROW,
    Matrix,
    Sizes,
    add_by_queries,
    head_address,
    multiply_by_keys,
    multiply_scores,
    pack_columns,
    pack_left,
    pack_rows,
    packed_lines,
    round_up,
    softmax_block,
    softmax_block_backward,
    write_limits,
)
from .instructions import FLOAT32, LANES
from .microkernels import LINE, QUERIES, store_line
from .parallel_for import bind_kernel, parallel_for
from .parts import LOAD_TILE_SHAPES, PARTS, RELEASE_TILES, call_part
from .support import ENTRY, INNER, float32_pointer, keep_alive, njit

__all__ = ["PARTS", "attend", "attend_backward"]

Array = Any
f32 = np.float32


@njit(**INNER)
def _aligned(memory: Array) -> Any:
    address = np.int64(memory.ctypes.data)
    return address + -address % 64


@njit(**INNER)
def _attend_range(
    p: Any, q: Any, k: Any, v: Any, out: Any, tops: int, totals: int, start: int, stop: int
) -> None:  # fmt: skip
    lines, keys = packed_lines(p, p.width), round_up(p.keys, 2 * LANES)
    key_bytes, value_bytes = 4 * keys * lines, 4 * round_up(p.value_width, LANES) * packed_lines(p, p.keys)
    query_bytes, score_bytes = 4 * QUERIES * lines, keys * LINE
    line_bytes = 0 if p.kind == FLOAT32 else score_bytes // 2
    block_bytes = 2 * AMX_ROWS * keys if p.amx else 0
    memory = np.empty(
        (key_bytes + value_bytes + query_bytes + score_bytes + line_bytes + block_bytes) // 4 + 2048, f32
    )
    left = _aligned(memory)
    right = left + key_bytes
    block = right + value_bytes
    scores = block + query_bytes
    softmax = scores if p.kind == FLOAT32 else scores + score_bytes
    blocks = scores + score_bytes + line_bytes
    zeros = blocks + block_bytes
    limits, top, total, tile = zeros + TILE_ROW, zeros + 384, zeros + 640, zeros + 896
    carray(float32_pointer(zeros), PANEL)[:] = f32(0)
    found_top, found_total = carray(float32_pointer(top), QUERIES), carray(float32_pointer(total), QUERIES)
    if p.amx:
        call_part(p.code, LOAD_TILE_SHAPES, ())
    for head in range(start, stop):
        queries, to = head_address(p, q, head), head_address(p, out, head)
        pack_left(p, head_address(p, k, head), k.row, p.keys, p.width, left)
        pack_columns(p, head_address(p, v, head), v.row, p.keys, p.value_width, packed_lines(p, p.keys), right)
        head_tops = carray(float32_pointer(tops + 4 * head * p.queries), p.queries)
        head_totals = carray(float32_pointer(totals + 4 * head * p.queries), p.queries)
        for first in range(0, p.queries, QUERIES):
            count = min(QUERIES, p.queries - first)
            pack_rows(p, queries + first * q.row, q.row, count, p.width, block)
            write_limits(p, first, count, limits)
            multiply_scores(p, left, block, p.width, zeros, first, count, scores)
            softmax_block(p, scores, softmax, first, count, limits, top, total)
            for i in range(count):
                head_tops[first + i], head_totals[first + i] = found_top[i], found_total[i]
                found_total[i] = f32(1) / found_total[i]
            multiply_by_keys(
                p, softmax, right, p.value_width, zeros, tile, first, count, total, to + first * out.row, out.row,
                blocks,
            )  # fmt: skip
    if p.amx:
        call_part(p.code, RELEASE_TILES, ())
    keep_alive(memory)


@njit(**INNER)
def _store_rows(p: Any, source: int, columns: int, target: int, row: int) -> None:
    """Write a row for each key."""
    for key in range(p.keys):
        for column in range(0, columns, LANES):
            at = source + 4 * (key * round_up(columns, LANES) + column)
            store_line(p.per_line - 1, at, target + key * row + column * p.size, columns - column)


@njit(**INNER)
def _attend_backward_range(
    p: Any, g: Any, q: Any, k: Any, v: Any, dq: Any, dk: Any, dv: Any, tops: int, totals: int, start: int, stop: int
) -> None:  # fmt: skip
    keys, width, value_width = round_up(p.keys, 2 * LANES), round_up(p.width, LANES), round_up(p.value_width, LANES)
    lines, value_lines, key_lines = packed_lines(p, p.width), packed_lines(p, p.value_width), packed_lines(p, p.keys)
    block_lines = packed_lines(p, QUERIES)
    score_bytes, narrow = keys * LINE, 0 if p.kind == FLOAT32 else keys * LINE // 2
    sizes = (
        4 * keys * lines, 4 * keys * value_lines, 4 * width * key_lines, 4 * QUERIES * lines,
        4 * QUERIES * value_lines, 4 * width * QUERIES, 4 * value_width * QUERIES, score_bytes, score_bytes,
        4 * keys * width, 4 * keys * value_width, narrow, narrow, narrow, 2 * AMX_ROWS * keys if p.amx else 0,
    )  # fmt: skip
    needed = 0
    for i in range(len(sizes)):
        needed += sizes[i]
    memory = np.empty(needed // 4 + 2048, f32)
    left_k = _aligned(memory)
    left_v = left_k + sizes[0]
    right_k = left_v + sizes[1]
    query_columns = right_k + sizes[2]
    slope_columns = query_columns + sizes[3]
    query_rows = slope_columns + sizes[4]
    slope_rows = query_rows + sizes[5]
    scores = slope_rows + sizes[6]
    gradients = scores + sizes[7]
    sums_k = gradients + sizes[8]
    sums_v = sums_k + sizes[9]
    ds_lines, p_rows, ds_rows = gradients, scores, gradients
    zeros = sums_v + sizes[10]
    if narrow > 0:
        ds_lines, p_rows, ds_rows = zeros, zeros + narrow, zeros + 2 * narrow
        zeros += 3 * narrow
    blocks = zeros
    zeros += sizes[14]
    limits, top, part, total, ones = zeros + TILE_ROW, zeros + 384, zeros + 640, zeros + 896, zeros + 1152
    tile = zeros + 1408
    carray(float32_pointer(zeros), PANEL)[:] = f32(0)
    carray(float32_pointer(ones), QUERIES)[:] = f32(1)
    block_top, block_part = carray(float32_pointer(top), QUERIES), carray(float32_pointer(part), QUERIES)
    if p.amx:
        call_part(p.code, LOAD_TILE_SHAPES, ())
    for head in range(start, stop):
        queries, slopes, to_q = head_address(p, q, head), head_address(p, g, head), head_address(p, dq, head)
        pack_left(p, head_address(p, k, head), k.row, p.keys, p.width, left_k)
        pack_left(p, head_address(p, v, head), v.row, p.keys, p.value_width, left_v)
        pack_columns(p, head_address(p, k, head), k.row, p.keys, p.width, key_lines, right_k)
        carray(float32_pointer(sums_k), keys * (width + value_width))[:] = f32(0)
        head_tops = carray(float32_pointer(tops + 4 * head * p.queries), p.queries)
        head_totals = carray(float32_pointer(totals + 4 * head * p.queries), p.queries)
        for first in range(0, p.queries, QUERIES):
            count = min(QUERIES, p.queries - first)
            query, slope = queries + first * q.row, slopes + first * g.row
            pack_rows(p, query, q.row, count, p.width, query_columns)
            pack_rows(p, slope, g.row, count, p.value_width, slope_columns)
            pack_columns(p, query, q.row, count, p.width, block_lines, query_rows)
            pack_columns(p, slope, g.row, count, p.value_width, block_lines, slope_rows)
            write_limits(p, first, count, limits)
            for i in range(QUERIES):
                block_top[i] = head_tops[first + i] if i < count else f32(0)
                block_part[i] = f32(1) / head_totals[first + i] if i < count else f32(0)
            multiply_scores(p, left_k, query_columns, p.width, zeros, first, count, scores)
            multiply_scores(p, left_v, slope_columns, p.value_width, zeros, first, count, gradients)
            softmax_block_backward(
                p, scores, gradients, ds_lines, p_rows, ds_rows, first, count, limits, top, part, total
            )  # fmt: skip
            add_by_queries(p, p_rows, slope_rows, p.value_width, first, count, sums_v)
            add_by_queries(p, ds_rows, query_rows, p.width, first, count, sums_k)
            multiply_by_keys(
                p, ds_lines, right_k, p.width, zeros, tile, first, count, ones, to_q + first * dq.row, dq.row, blocks
            )  # fmt: skip
        _store_rows(p, sums_k, p.width, head_address(p, dk, head), dk.row)
        _store_rows(p, sums_v, p.value_width, head_address(p, dv, head), dv.row)
    if p.amx:
        call_part(p.code, RELEASE_TILES, ())
    keep_alive(memory)


# ---- calls from Python --------------------------------------------------------------------------

_MATRIX, _SIZES = types.UniTuple(types.int64, 4), types.UniTuple(types.int64, 12)


@njit(**INNER)
def _matrix(x: Any) -> Any:
    return Matrix(x[0], x[1], x[2], x[3])


@njit(**INNER)
def _sizes(n: Any) -> Any:
    return Sizes(n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11])


@njit(types.void(types.int64, _SIZES, *[_MATRIX] * 4, *[types.int64] * 3), **ENTRY)
def attend(
    pool: int, sizes: Any, q: Any, k: Any, v: Any, out: Any, tops: int, totals: int, count: int
) -> None:  # fmt: skip
    """Write ``softmax(scale q k^T) v``, the maxima of the scores' rows, and their sums of ``exp(s - max)``.

    count: how many heads there are. sizes: the numbers of :class:`Sizes`. q, k, v, out: those of
    :class:`Matrix`, with contiguous rows. tops, totals: addresses of float32 numbers, one for each query of each head.
    """
    args = (_sizes(sizes), _matrix(q), _matrix(k), _matrix(v), _matrix(out), tops, totals)
    parallel_for(pool, bind_kernel(_attend_range, args), count, 1, 1)


@njit(types.void(types.int64, _SIZES, *[_MATRIX] * 7, *[types.int64] * 3), **ENTRY)
def attend_backward(
    pool: int, sizes: Any, g: Any, q: Any, k: Any, v: Any, dq: Any, dk: Any, dv: Any, tops: int,
    totals: int, count: int,
) -> None:  # fmt: skip
    """Write the gradients of q, k and v, given that of the result, g. The arguments are those of :func:`attend`."""
    args = (
        _sizes(sizes), _matrix(g), _matrix(q), _matrix(k), _matrix(v), _matrix(dq), _matrix(dk), _matrix(dv),
        tops, totals,
    )  # fmt: skip
    parallel_for(pool, bind_kernel(_attend_backward_range, args), count, 1, 1)
