"""The innermost loops of direct convolutions, in vectors of sixteen float32 numbers.

An image is in memory as rows of one length with the padding included. Then an element of the kernel, a tap, reads the
image at a fixed distance from the position, whatever the row. A tile is the sums over all taps for several channels and
vectors of positions. Its registers hold these sums while a loop passes over the taps once, or, for the gradient of the
kernel, over the positions once. Addresses and distances are integers, in bytes.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .instructions import (
    FLOAT32,
    LANES,
    after,
    by_case,
    first_lanes,
    has_kernel,
    loop,
    masked_load,
    masked_store,
    shuffle,
)
from .simd import F32, F32x16, fused_multiply_add, load, splat, store
from .support import I64

__all__ = [
    "CHANNELS", "GRADIENTS", "TAPS", "VECTORS", "add_products", "copy_alternate", "copy_in_turn", "copy_some",
    "sum_taps",
]  # fmt: skip

_WIDE = has_kernel(FLOAT32)  # whether there are 32 registers of 64 bytes

# The channels of a tile, and for each the vectors of positions, or the taps of a tile of the gradient.
CHANNELS = (1, 4, 8)
VECTORS = (8, 6, 3) if _WIDE else (4, 2, 1)
GRADIENTS = (1, 4)
TAPS = (9, 6) if _WIDE else (9, 2)


def _vector(builder: Any, address: Any, place: int) -> Any:
    """Return vector number ``place`` of those at an address."""
    return load(builder, address, F32x16, 4 * LANES * place)


@intrinsic
def sum_taps(
    context: Any, tile: Any, taps: Any, x: Any, distances: Any, weight: Any, bias: Any, out: Any, step: Any
) -> Any:  # fmt: skip
    """Write ``bias[o] + sum_t weight[t, o] x[position + distances[t]]`` for each channel o and position of a tile.

    tile: a place in ``CHANNELS``. taps: how many there are, at least one. x: the image at the first position.
    distances: int64. weight: float32 (taps, channels). out: the first channel's positions, the next ones ``step`` bytes
    after each other.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile, taps, x, distances, weight, bias, out, step = args

        def write(case: int) -> None:
            channels, vectors = CHANNELS[case], VECTORS[case]
            added = [splat(builder, load(builder, bias, F32, 4 * i)) for i in range(channels) for _ in range(vectors)]
            with loop(builder, taps, [distances, weight, *added]) as ((at, w, *sums), following):
                following += [after(builder, at, 8), after(builder, w, 4 * channels)]
                entry = builder.add(x, load(builder, at, I64))
                columns = [_vector(builder, entry, j) for j in range(vectors)]
                for i in range(channels):
                    factor = splat(builder, load(builder, w, F32, 4 * i))
                    for j in range(vectors):
                        total = sums[i * vectors + j]
                        following.append(fused_multiply_add(builder, factor, columns[j], total))
            row = out
            for i in range(channels):
                for j in range(vectors):
                    store(builder, following[2 + i * vectors + j], after(builder, row, 4 * LANES * j))
                row = builder.add(row, step)

        by_case(builder, tile, range(len(CHANNELS)), write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


@intrinsic
def add_products(context: Any, tile: Any, steps: Any, g: Any, channel: Any, x: Any, distances: Any, sums: Any) -> Any:
    """Add ``sum_p g[o, p] x[p + distances[t]]`` to sums[o, t] for the channels o and the taps t of a tile.

    tile: a place in ``GRADIENTS``. steps: vectors of positions p, at least one. channel: bytes from one channel of g to
    the next. sums: vectors whose lanes are to be added up.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile, steps, g, channel, x, distances, sums = args

        def write(case: int) -> None:
            channels, taps = GRADIENTS[case], TAPS[case]
            count = channels * taps
            rows = [builder.add(g, builder.mul(channel, I64(i))) for i in range(channels)]
            images = [builder.add(x, load(builder, distances, I64, 8 * t)) for t in range(taps)]
            start = [I64(0), *(_vector(builder, sums, k) for k in range(count))]
            with loop(builder, steps, start) as ((at, *totals), following):
                following.append(after(builder, at, 4 * LANES))
                grads = [_vector(builder, builder.add(row, at), 0) for row in rows]
                for t in range(taps):
                    column = _vector(builder, builder.add(images[t], at), 0)
                    for i in range(channels):
                        total = totals[t * channels + i]
                        following.append(fused_multiply_add(builder, grads[i], column, total))
            for k in range(count):
                store(builder, following[1 + k], after(builder, sums, 4 * LANES * k))

        by_case(builder, tile, range(len(GRADIENTS)), write)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


def _load_some(builder: Any, source: Any, count: Any, vectors: int) -> list[Any]:
    """Return vectors of the first ``count`` numbers at an address, with zeros after them."""
    masks = [first_lanes(builder, count, LANES, LANES * i) for i in range(vectors)]
    return [masked_load(builder, after(builder, source, 4 * LANES * i), F32x16, m) for i, m in enumerate(masks)]


def _store_some(builder: Any, values: list[Any], target: Any, count: Any) -> None:
    """Write the first ``count`` numbers of vectors to an address."""
    for i, value in enumerate(values):
        mask = first_lanes(builder, count, LANES, LANES * i)
        masked_store(builder, value, after(builder, target, 4 * LANES * i), mask)


@intrinsic
def copy_some(context: Any, source: Any, target: Any, count: Any) -> Any:
    """Copy up to sixteen float32 numbers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target, count = args
        _store_some(builder, _load_some(builder, source, count, 1), target, count)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


@intrinsic
def copy_alternate(context: Any, source: Any, target: Any, count: Any) -> Any:
    """Copy up to sixteen float32 numbers, each second one of those at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target, count = args
        pair = _load_some(builder, source, builder.sub(builder.mul(count, I64(2)), I64(1)), 2)
        _store_some(builder, [shuffle(builder, *pair, [*range(0, 2 * LANES, 2)])], target, count)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


@intrinsic
def copy_in_turn(context: Any, first: Any, second: Any, target: Any, count: Any) -> Any:
    """Write up to 32 float32 numbers: by turns one of the first sixteen and one of the second sixteen."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first, second, target, count = args
        x, y = _vector(builder, first, 0), _vector(builder, second, 0)
        turns = [i // 2 + i % 2 * LANES for i in range(2 * LANES)]
        halves = [shuffle(builder, x, y, turns[i : i + LANES]) for i in (0, LANES)]
        _store_some(builder, halves, target, count)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate
