"""Products of matrices, float32 or bfloat16, that threads share: our own for processors with AVX-512.

The loops around the tiles of ``microkernels.py`` follow BLIS. Columns of the right matrix are packed once for all
threads, up to ``RIGHT_BYTES``, which the third-level cache holds. Each thread packs rows of the left matrix for itself,
up to ``LEFT_BYTES``, which stay in its second-level cache, and computes the tiles of these rows and columns.

With AMX, bfloat16 matrices have larger tiles, whose left rows are packed in blocks (see ``packing.py``).

Each entry is a sum over k in an order that depends on the number of k alone. So its bits depend neither on the number
of threads nor on the number of rows and columns.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from .amx import AMX_ROWS, BLOCK_LINES, is_amx_allowed
from .instructions import AMX, BFLOAT16, FLOAT32, LANES, ROUNDED, has_kernel
from .microkernels import PACKED, ROWS, amx_tile_number, tile_number, tile_size
from .parallel_for import bind_kernel, parallel_for, split_range
from .parts import (
    COPY_BLOCKS,
    COPY_LINES,
    COPY_STRIPS,
    LOAD_TILE_SHAPES,
    PARTS,
    RELEASE_TILES,
    STORE_ROWS,
    TRANSPOSE_BLOCKS,
    TRANSPOSE_LINES,
    TRANSPOSE_STRIP,
    call_at,
    call_part,
    call_tile,
    code_address,
)
from .support import ENTRY, INNER, float32_pointer, njit

__all__ = [
    "AMX", "BFLOAT16", "FLOAT32", "MAX_LINES", "code_addresses", "has_kernel", "is_amx_allowed", "multiply_for",
]  # fmt: skip

Array = Any

LEFT_BYTES, RIGHT_BYTES = 1 << 19, 1 << 23
MAX_LINES = 2048  # lines of a packed matrix; for more, a product is the sum of several ones
SUM_LINES = 512  # lines after which a sum starts anew, so that its rounding errors stay small
_LARGE = 20_000_000  # multiplications; for more, smaller chunks cost little and even out delays
PRIVATE = 1 << 15  # entries of a matrix that is packed faster by each thread than once for all
COPIED = 8  # rows of a right matrix that are copied together, so that memory is read along them
KEPT_BYTES = 5 << 18  # of a packed right matrix, which the second-level cache of a processor with AMX keeps
AHEAD = 384  # bytes of such a row that are asked for ahead


class Product(NamedTuple):
    """A product of matrices as compiled functions take it: addresses, sizes, and strides in bytes."""

    code: int  # address of the inner loops, see parts.py
    kind: int  # FLOAT32, BFLOAT16 or AMX
    x: int
    x_kind: int  # what is packed
    x_size: int  # bytes of a number
    x_row: int  # bytes from one row to the next
    x_k: int
    y: int
    y_kind: int
    y_size: int
    y_column: int
    y_k: int
    rows: int
    numbers: int  # how many k there are
    columns: int
    out: int
    out_row: int
    rounded: int  # 1 for an output in bfloat16, 0 for float32
    bias: int  # float32 numbers, up to a multiple of the columns of a tile
    lines: int  # of the packed matrices, rounded up for their layout
    first: int  # the first number of this part of k
    length: int  # how many numbers this part has
    left_rows: int  # rows of the left matrix that are packed at a time
    by_columns: int  # 1 if threads share the columns of the product, 0 for the rows
    chunk: int  # how many rows, or panels, a chunk has
    right: int  # the packed right matrix that threads share, 0 if each packs its own
    first_panel: int  # the columns of this part, in tiles
    panels: int
    workspace: int  # of the first chunk
    workspace_bytes: int  # of each chunk


@njit(**INNER)
def _row_offset(p: Any, row: int) -> int:
    """Return where a row of the packed left matrix starts: the first of a strip, or of a half of blocks."""
    if p.kind == AMX:
        return row // AMX_ROWS * 4 * AMX_ROWS * p.lines + row % AMX_ROWS * 64
    return 4 * row * p.lines


@njit(**INNER, forceinline=False)
def _pack_left(p: Any, target: int, start: int, stop: int) -> None:
    """Pack rows of the left matrix."""
    source, strip = p.x + p.first * p.x_k, 4 * tile_size(p.kind)[0] * p.lines
    if p.x_k != p.x_size:
        args = (p.x_kind, source + start * p.x_row, p.x_k, stop - start, p.length, target, strip)
        call_part(p.code, TRANSPOSE_BLOCKS if p.kind == AMX else COPY_STRIPS, args)
        return
    step = LANES if p.kind == AMX else ROWS
    for row in range(start, stop, step):
        lanes, to = min(step, stop - row), target + _row_offset(p, row - start)
        args_of_rows = (p.x_kind, source + row * p.x_row, p.x_row, lanes, p.length, to)
        call_part(p.code, COPY_BLOCKS if p.kind == AMX else TRANSPOSE_STRIP, args_of_rows)


@njit(**INNER)
def _vectors(p: Any, panel: int) -> int:
    """Return how many vectors wide the tiles of a panel are."""
    tile_columns = tile_size(p.kind)[1]
    return min(tile_columns // LANES, -(-(p.columns - panel * tile_columns) // LANES))


@njit(**INNER, forceinline=False)
def _pack_right(p: Any, target: int, base: int, start: int, stop: int) -> None:
    """Pack panels ``start`` to ``stop`` of the right matrix, those of a part: the columns of a tile side by side."""
    tile_columns = tile_size(p.kind)[1]
    step = p.length if p.y_k == p.y_size else COPIED
    per_line = 1 if p.kind == FLOAT32 else 2
    for first in range(0, p.length, step):
        numbers = min(step, p.length - first)
        source = p.y + (p.first + first) * p.y_k
        for panel in range(start, stop):
            column = (p.first_panel + panel) * tile_columns
            columns = min(tile_columns, p.columns - column)
            line = 4 * LANES * _vectors(p, p.first_panel + panel)
            to = target + (panel - base) * 4 * tile_columns * p.lines + first // per_line * line
            at = source + column * p.y_column
            if p.y_k != p.y_size:
                call_part(p.code, COPY_LINES, (p.y_kind, at, p.y_k, columns, numbers, to, line, AHEAD))
            else:
                for lane in range(0, columns, LANES):
                    lanes, start_of_lane = min(LANES, columns - lane), at + lane * p.y_column
                    args = (p.y_kind, start_of_lane, p.y_column, lanes, numbers, to + 4 * lane, line)
                    call_part(p.code, TRANSPOSE_LINES, args)
    if p.kind == AMX and p.y_k != p.y_size:
        lines = -(-p.length // 2)
        for panel in range(start, stop):
            line = LANES * _vectors(p, p.first_panel + panel)
            at = target + (panel - base) * 4 * tile_columns * p.lines + 4 * lines * line
            carray(float32_pointer(at), (-lines % BLOCK_LINES) * line)[:] = np.float32(0)


@njit(**INNER, forceinline=False)
def _multiply_tile(p: Any, a: int, b: int, row: int, rows: int, panel: int, tile: int) -> None:
    """Compute up to a tile of the product: some rows of a panel. a, b: their packed numbers."""
    lines = -(-p.length // (1 if p.kind == FLOAT32 else 2))
    step = lines if p.kind == AMX else SUM_LINES
    tile_rows, tile_columns = tile_size(p.kind)
    column, vectors = panel * tile_columns, _vectors(p, panel)
    columns = min(tile_columns, p.columns - column)
    out, tile_row = p.out + row * p.out_row + (2 if p.rounded else 4) * column, 4 * tile_columns
    if p.kind == AMX:
        number = amx_tile_number(PACKED, -(-rows // LANES), vectors)
    else:
        number = tile_number(p.kind, PACKED, vectors)
    whole = rows % (LANES if p.kind == AMX else ROWS) == 0 and columns == LANES * vectors and p.rounded == 0
    target, target_row = (out, p.out_row) if whole else (tile, tile_row)
    addend, addend_row = p.bias + 4 * column, 0
    if p.first > 0:
        addend, addend_row = target, target_row
        if not whole:
            call_part(p.code, STORE_ROWS, (0, out, p.out_row, tile, tile_row, rows, columns))
    for line in range(0, lines, step):
        call_tile(
            p.code, number, min(step, lines - line), a + 4 * tile_rows * line, b + 4 * LANES * vectors * line,
            addend, addend_row, target, target_row,
        )  # fmt: skip
        addend, addend_row = target, target_row
    if not whole:
        call_part(p.code, STORE_ROWS, (p.rounded, tile, tile_row, out, p.out_row, rows, columns))


@njit(**INNER)
def _multiply_packed(
    p: Any, left: int, right: int, start: int, stop: int, start_panel: int, stop_panel: int, tile: int
) -> None:  # fmt: skip
    """Compute rows ``start`` to ``stop`` of some panels. left, right: the packed rows and panels."""
    tile_rows, tile_columns = tile_size(p.kind)
    together = stop_panel - start_panel if p.left_rows == tile_rows and p.kind == AMX else 1
    for first in range(start_panel, stop_panel, together):
        for row in range(start, stop, tile_rows):
            a, rows = left + (row - start) * 4 * p.lines, min(tile_rows, stop - row)
            for panel in range(first, min(first + together, stop_panel)):
                b = right + (panel - start_panel) * 4 * tile_columns * p.lines
                _multiply_tile(p, a, b, row, rows, p.first_panel + panel, tile)


@njit(**INNER)
def _multiply_range(p: Any, start: int, stop: int) -> None:
    """Compute a chunk: rows or panels ``start`` to ``stop``."""
    tile = p.workspace + start // p.chunk * p.workspace_bytes
    tile_rows, tile_columns = tile_size(p.kind)
    left = tile + 4 * tile_rows * tile_columns
    start_row, stop_row, start_panel, stop_panel = start, stop, 0, p.panels
    if p.by_columns:
        start_row, stop_row, start_panel, stop_panel = 0, p.rows, start, stop
    right = p.right
    if right == 0:
        right = left + 4 * p.left_rows * p.lines
        _pack_right(p, right, start_panel, start_panel, stop_panel)
    if p.kind == AMX:
        call_part(p.code, LOAD_TILE_SHAPES, ())
    for row in range(start_row, stop_row, p.left_rows):
        stop_of_rows = min(row + p.left_rows, stop_row)
        _pack_left(p, left, row, stop_of_rows)
        _multiply_packed(p, left, right, row, stop_of_rows, start_panel, stop_panel, tile)
    if p.kind == AMX:
        call_part(p.code, RELEASE_TILES, ())


_ADDRESSES = (types.int64,) * 20


@njit(types.int64(*_ADDRESSES), **ENTRY)
def _multiply(
    pool: int, code: int, kind: int, x: int, x_size: int, x_row: int, x_k: int, y: int, y_size: int, y_k: int,
    y_column: int, rows: int, numbers: int, columns: int, out: int, out_row: int, rounded: int, bias: int,
    workspace: int, workspace_bytes: int,
) -> int:  # fmt: skip
    """Compute a product given by addresses, unless the workspace is too small. Return how large it must be, or 0.

    rows, numbers, columns: the sizes, all at least one. A stride of each matrix is the size of its numbers.
    """
    per_line = 1 if kind == FLOAT32 else 2
    tile_rows, tile_columns = tile_size(kind)
    x_kind = min(kind, BFLOAT16) if x_size == 4 // per_line else ROUNDED
    y_kind = min(kind, BFLOAT16) if y_size == 4 // per_line else ROUNDED
    parts = -(-numbers // (MAX_LINES * per_line))
    length = -(-numbers // (parts * 2 * LANES)) * 2 * LANES
    lines = -(-length // (per_line * LANES)) * LANES
    panels = -(-columns // tile_columns)
    panel_bytes = 4 * tile_columns * lines
    part_panels = min(panels, max(1, RIGHT_BYTES // panel_bytes))
    unit = max(tile_rows, LANES)
    left_rows = max(1, LEFT_BYTES // (4 * unit * lines)) * unit
    if kind == AMX and x_k == x_size and panels * panel_bytes <= KEPT_BYTES:
        left_rows = unit

    # Few rows are not worth sharing, so threads share columns then, and each packs all rows.
    per_thread = 2 if rows * columns * numbers > _LARGE else 1
    threads, _ = split_range(pool, 1 << 20, 1, 1)
    by_columns = threads > 1 and rows < 4 * LANES * threads and panels >= threads
    chunks, chunk = split_range(pool, part_panels, 1, per_thread) if by_columns else split_range(
        pool, rows, unit, per_thread
    )
    own_panels = chunk if by_columns else part_panels if chunks == 1 or numbers * columns <= PRIVATE else 0
    left_rows = min(left_rows, -(-(rows if by_columns else chunk) // unit) * unit)
    shared_bytes = 0 if own_panels else part_panels * panel_bytes
    chunk_bytes = 4 * tile_rows * tile_columns + 4 * left_rows * lines + own_panels * panel_bytes
    addend_bytes = 4 * tile_columns * panels
    needed = addend_bytes + shared_bytes + chunks * chunk_bytes
    if needed > workspace_bytes:
        return needed

    addend = carray(float32_pointer(workspace), panels * tile_columns)
    for i in range(panels * tile_columns):
        addend[i] = 0
    if bias != 0:
        given = carray(float32_pointer(bias), columns)
        for i in range(columns):
            addend[i] = given[i]
    right = workspace + addend_bytes
    for first in range(0, numbers, length):
        for first_panel in range(0, panels, part_panels):
            count = min(part_panels, panels - first_panel)
            n, grain_size = (count, 1) if by_columns else (rows, unit)
            _, chunk = split_range(pool, n, grain_size, per_thread)
            p = Product(
                code, kind, x, x_kind, x_size, x_row, x_k, y, y_kind, y_size, y_column, y_k, rows, numbers, columns,
                out, out_row, rounded, workspace, lines, first, min(length, numbers - first), left_rows, by_columns,
                chunk, 0 if own_panels else right, first_panel, count, right + shared_bytes, chunk_bytes,
            )  # fmt: skip
            if own_panels == 0:
                parallel_for(pool, bind_kernel(_pack_right, (p, right, 0)), count, 1, 1)
            parallel_for(pool, bind_kernel(_multiply_range, (p,)), n, grain_size, per_thread)
    return 0


# ---- calls from Python --------------------------------------------------------------------------


@intrinsic
def _call_multiply(context: Any, function: Any, args: Any) -> Any:
    """Call ``_multiply`` by its address, so that its code is compiled once and not for each type of arrays."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        values = cgutils.unpack_tuple(builder, given[1])
        return call_at(context, builder, given[0], types.int64, _ADDRESSES, values)

    return types.int64(types.int64, types.UniTuple(types.int64, len(_ADDRESSES))), generate


@cache
def code_addresses() -> tuple[int, int]:
    """Return the addresses of ``_multiply`` and of the parts that it calls."""
    return code_address(_multiply), PARTS


@cache
def multiply_for(x: Any, y: Any, out: Any) -> Any:
    """Return the compiled function that multiplies matrices of these dtypes: float32, or uint16 for bfloat16.

    It takes the address of a pool, the matrices x (m, k), y (k, n) and out (m, n), a bias (n,) of float32 or an empty
    array, FLOAT32, BFLOAT16 or AMX, both :func:`code_addresses`, and the address and size in bytes of a workspace. It
    returns 0, or the size of workspace that it needs if that is larger. m, k and n are at least one. The numbers of a
    row or of a column of x are adjacent in memory, and of y as well. The rows of ``out`` and the bias are contiguous.
    """
    number = lambda dtype: types.float32 if dtype == np.float32 else types.uint16
    matrices = [types.Array(number(dtype), 2, "A", readonly=True, aligned=False) for dtype in (x, y, out)]
    vector = types.Array(types.float32, 1, "C", readonly=True, aligned=False)

    @njit(types.int64(types.int64, *matrices, vector, *[types.int64] * 5), **ENTRY)
    def multiply(
        pool: int, x: Array, y: Array, out: Array, bias: Array, kind: int, function: int, code: int, workspace: int,
        size: int,
    ) -> int:  # fmt: skip
        addresses = np.int64(x.ctypes.data), np.int64(y.ctypes.data), np.int64(out.ctypes.data)
        args = (
            pool, code, kind, addresses[0], x.itemsize, x.strides[0], x.strides[1], addresses[1], y.itemsize,
            y.strides[0], y.strides[1], x.shape[0], x.shape[1], y.shape[1], addresses[2], out.strides[0],
            1 if out.itemsize == 2 else 0, np.int64(bias.ctypes.data) if bias.size > 0 else 0, workspace, size,
        )  # fmt: skip
        return _call_multiply(function, args)

    return multiply
