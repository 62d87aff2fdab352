"""Direct convolutions of contiguous float32 images, for ``cpu/convolutions.py``.

A thread copies the rows that a band of the result needs to memory of its own: with the padding, each row as long as the
others. With a stride of 2, even and odd rows and columns become images of their own, the phases. So each tap is at a
fixed distance from its position. ``tap_tiles.py`` has the loops over the taps. Positions beyond the end of a row are
computed as well, and dropped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .parallel_for import bind_kernel, parallel_for
from .simd import LANES, load_16, store_16
from .support import ENTRY, INNER, keep_alive, njit
from .tap_tiles import (
    CHANNELS,
    GRADIENTS,
    TAPS,
    VECTORS,
    add_products,
    copy_alternate,
    copy_in_turn,
    copy_some,
    sum_taps,
)

__all__ = ["CHANNELS", "GRADIENTS", "TAPS", "Packing", "Target", "convolve", "convolve_weight", "tile_of"]

Array = Any
f32 = np.float32

_LARGEST = LANES * max(VECTORS)  # positions of a tile
_RUN = 512  # vectors that are added up in float32; the sums of such runs are added in float64


class Packing(NamedTuple):
    """How images are copied: entry (i, j) of phase (a, b) is pixel ``(i steps[0] + a - before[0], ...)`` or 0."""

    steps: tuple[int, int]
    before: tuple[int, int]  # the padding before the first pixel; below 0, pixels are left out
    halo: int  # rows that a position reads, besides its own
    pitch: int  # the length of a row
    band: int  # rows of positions that are computed from one copy
    is_cut: bool  # whether there are more rows of positions than that


class Target(NamedTuple):
    """Where results go: entry (i, j) of phase (a, b) is pixel ``(i steps[0] + a - before[0], ...)`` if there is one."""

    steps: tuple[int, int]
    before: tuple[int, int]
    rows: int  # of positions
    columns: int


def tile_of(channels: int) -> int:
    """Return the place in ``CHANNELS`` of the tile for this many channels of a result."""
    return 0 if channels == 1 else 1 if channels <= 4 else 2


@njit(**INNER)
def _copy_rows(source: int, source_step: int, target: int, target_step: int, rows: int, count: int) -> None:
    """Copy rows of float32 numbers from one address to another. Steps are in bytes."""
    whole = count // LANES * LANES
    for _ in range(rows):
        for at in range(0, whole, LANES):
            store_16(target + 4 * at, load_16(source + 4 * at))
        if whole < count:
            copy_some(source + 4 * whole, target + 4 * whole, count - whole)
        source += source_step
        target += target_step


@njit(**INNER)
def _bounds(step: int, shift: int, size: int, count: int) -> tuple[int, int]:
    """Return the range of the numbers j below ``count`` for which ``j step + shift`` is from 0 to size - 1."""
    first = min(max(0, -(shift // step)), count)
    return first, max(first, min(count, -((shift - size) // step)))


@njit(**INNER, forceinline=False)
def _pack(image: Array, out: Array, p: Any, first: int, rows: int) -> None:
    """Copy the phases of an image (H, W) to out, from position row ``first`` on."""
    (step_h, step_w), (before_h, before_w) = p.steps, p.before
    height, width = image.shape
    at = 0
    for a in range(step_h):
        top, bottom = _bounds(step_h, first * step_h + a - before_h, height, rows)
        line = (first + top) * step_h + a - before_h
        for b in range(step_w):
            left, right = _bounds(step_w, b - before_w, width, p.pitch)
            if p.is_cut:  # otherwise what is not copied is 0 from the start
                out[at : at + (p.band + p.halo) * p.pitch] = f32(0)
            if top < bottom and left < right:
                source = image.ctypes.data + 4 * (line * width + left * step_w + b - before_w)
                target = out.ctypes.data + 4 * (at + top * p.pitch + left)
                if step_w == 1:
                    _copy_rows(source, 4 * step_h * width, target, 4 * p.pitch, bottom - top, right - left)
                elif step_w == 2:
                    for _ in range(top, bottom):
                        for j in range(0, right - left, LANES):
                            copy_alternate(source + 8 * j, target + 4 * j, min(LANES, right - left - j))
                        source += 4 * step_h * width
                        target += 4 * p.pitch
                else:
                    for i in range(top, bottom):
                        for j in range(left, right):
                            pixel = image[line + (i - top) * step_h, j * step_w + b - before_w]
                            out[at + i * p.pitch + j] = pixel
            at += (p.band + p.halo) * p.pitch


@njit(**INNER, forceinline=False)
def _unpack(sums: Array, image: Array, p: Any, target: Any, a: int, first: int, rows: int) -> None:
    """Copy rows of positions, from number ``first`` on, to their pixels. sums: (phases of a row, positions)."""
    (step_h, step_w), (before_h, before_w) = target.steps, target.before
    height, width = image.shape
    top, bottom = _bounds(step_h, first * step_h + a - before_h, height, rows)
    line = (first + top) * step_h + a - before_h
    if top >= bottom:
        return
    source, to = sums.ctypes.data + 4 * top * p.pitch, image.ctypes.data + 4 * line * width
    if step_w == 1:
        _copy_rows(source + 4 * before_w, 4 * p.pitch, to, 4 * step_h * width, bottom - top, width)
    elif step_w == 2:
        even = source if before_w == 0 else source + sums.strides[0]
        odd = source + sums.strides[0] if before_w == 0 else source + 4
        for _ in range(top, bottom):
            for j in range(0, width, 2 * LANES):
                copy_in_turn(even + 2 * j, odd + 2 * j, to + 4 * j, min(2 * LANES, width - j))
            even += 4 * p.pitch
            odd += 4 * p.pitch
            to += 4 * step_h * width
    else:
        for i in range(top, bottom):
            for w in range(width):
                j = w + before_w
                image[line + (i - top) * step_h, w] = sums[j % step_w, i * p.pitch + j // step_w]


@njit(**INNER)
def convolve_range(
    x: Array, out: Array, weight: Array, bias: Array, taps: Array, distances: Array, p: Any, target: Any, groups: int,
    tile: int, start: int, stop: int,
) -> None:  # fmt: skip
    bands = -(-target.rows // p.band)
    plane = p.steps[0] * p.steps[1] * (p.band + p.halo) * p.pitch
    room = _LARGEST + p.pitch
    images = np.zeros(x.shape[1] * plane + room, f32)
    step_h, step_w = target.steps
    channels = CHANNELS[tile]
    sums = np.zeros((channels, step_w, p.band * p.pitch + room), f32)
    width = LANES * VECTORS[tile]
    for task in range(start, stop):
        n, first = task // bands, task % bands * p.band
        rows = min(p.band, target.rows - first)
        for c in range(x.shape[1]):
            _pack(x[n, c], images[c * plane : (c + 1) * plane], p, first, rows + p.halo)
        length = (rows - 1) * p.pitch + target.columns
        for block in range(weight.shape[1]):
            at = 0
            added = bias[n % groups, block * channels :]
            for a in range(step_h):
                for b in range(step_w):
                    count = taps[a * step_w + b]
                    if count:
                        factors, places = weight[n % groups, block, at:], distances[at:]
                        for position in range(0, length, width):
                            sum_taps(
                                tile, count, images.ctypes.data + 4 * position, places.ctypes.data,
                                factors.ctypes.data, added.ctypes.data, sums[0, b].ctypes.data + 4 * position,
                                sums.strides[0],
                            )  # fmt: skip
                    else:
                        sums[:, b] = f32(0)
                    at += count
                for i in range(min(channels, out.shape[1] - block * channels)):
                    _unpack(sums[i], out[n, block * channels + i], p, target, a, first, rows)
    keep_alive(images)


@njit(**ENTRY)
def convolve(
    pool: int, x: Array, out: Array, weight: Array, bias: Array, taps: Array, distances: Array, p: Any, target: Any,
    groups: int, tile: int,
) -> None:  # fmt: skip
    """Write the sums over taps of images x (N G, C, H, W), and the bias, to images out (N G, O, P, Q).

    weight: (G, blocks of O, taps, channels of a tile). bias: (G, O), up to the end of the last block. It is not added
    at positions without a tap. taps: how many there are for each phase of the result.
    distances: their distances in bytes.
    """
    n = len(x) * -(-target.rows // p.band)
    arguments = (x, out, weight, bias, taps, distances, p, target, groups, tile)
    parallel_for(pool, bind_kernel(convolve_range, arguments), n, 1, 4)


@njit(**INNER)
def _flush(sums: Array, totals: Array) -> None:
    """Add the lanes of each vector to the totals, and set them to 0."""
    for k in range(totals.size):
        total = f32(0)
        for lane in range(LANES):
            total += sums[k, lane]
        totals[k] += total
    sums[:] = f32(0)


@njit(**INNER)
def convolve_weight_range(
    x: Array, g: Array, out: Array, distances: Array, p: Any, groups: int, tile: int, start: int, stop: int
) -> None:  # fmt: skip
    channels, taps = GRADIENTS[tile], TAPS[tile]
    rows, columns = g.shape[2:]
    blocks, tiles = -(-g.shape[1] // channels), distances.size // taps
    plane = p.steps[0] * p.steps[1] * (p.band + p.halo) * p.pitch
    images = np.zeros(x.shape[1] * plane + LANES, f32)
    lines = np.zeros((channels, p.band * p.pitch + LANES), f32)  # the gradient, 0 beyond the end of a row
    most = min(blocks, stop - start)
    sums = np.zeros((most, tiles, taps * channels, LANES), f32)
    totals = np.zeros((most, tiles, taps * channels))
    while start < stop:  # the blocks of one group
        group, block = start // blocks, start % blocks
        count = min(stop - start, blocks - block)
        run = 0
        for image in range(group, len(x), groups):
            for first in range(0, rows, p.band):
                lines_now = min(p.band, rows - first)
                for c in range(x.shape[1]):
                    _pack(x[image, c], images[c * plane : (c + 1) * plane], p, first, lines_now + p.halo)
                end = (lines_now - 1) * p.pitch + columns
                steps = -(-end // LANES)
                for k in range(count):
                    for i in range(min(channels, g.shape[1] - (block + k) * channels)):
                        source = g[image, (block + k) * channels + i, first:].ctypes.data
                        _copy_rows(source, 4 * columns, lines[i].ctypes.data, 4 * p.pitch, lines_now, columns)
                        lines[i, end : end + LANES] = f32(0)
                    for t in range(tiles):
                        add_products(
                            tile, steps, lines.ctypes.data, lines.strides[0], images.ctypes.data,
                            distances.ctypes.data + 8 * taps * t, sums[k, t].ctypes.data,
                        )  # fmt: skip
                run += steps
                if run >= _RUN:
                    _flush(sums.reshape(-1, LANES), totals.reshape(-1))
                    run = 0
        _flush(sums.reshape(-1, LANES), totals.reshape(-1))
        for k in range(count):
            for i in range(min(channels, g.shape[1] - (block + k) * channels)):
                for t in range(out.shape[2]):
                    out[group, (block + k) * channels + i, t] = f32(totals[k, t // taps, t % taps * channels + i])
        totals[:] = 0.0
        start += count
    keep_alive(images)
    keep_alive(lines)


@njit(**ENTRY)
def convolve_weight(
    pool: int, x: Array, g: Array, out: Array, distances: Array, p: Any, groups: int, tile: int
) -> None:  # fmt: skip
    """Write the gradient of the kernel to out (G, O, taps), for x (N G, C, H, W) and that of the result (N G, O, P, Q).

    distances: those of the taps, up to a multiple of the taps of a tile.
    """
    tasks = groups * -(-g.shape[1] // GRADIENTS[tile])
    parallel_for(pool, bind_kernel(convolve_weight_range, (x, g, out, distances, p, groups, tile)), tasks, 1, 1)
