"""Convolutions without a copy of all windows, in compiled loops over contiguous float32 images.

They are faster than products of matrices where a group has few channels, because each entry of a copied window is then
used in few multiplications. The loops are those of ``compiled/convolution_kernels.py``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from . import compiled_loops
from .compiled_loops import FLOAT32, MIN_COMPILED, run_loop

__all__ = ["direct_correlate", "direct_correlate_input", "direct_correlate_weight"]

Array = Any
XP = Any
Ints = Sequence[int]

_IMAGES = 1 << 16  # float32 numbers of a copy of an image, which fits the second-level cache
# Measured on Zen 4, with one thread and two:
_MANY = 64  # channels, from which products of matrices are faster for few positions, and with more for single elements
_FEW = 100  # positions
_LARGE = 1 << 16  # entries of the gradient of a kernel; for more, products of matrices are faster


class _Plan(NamedTuple):
    """What the loops need besides arrays.

    taps: the elements of the kernel for each phase of the result, as indices of the kernel, flattened.
    distances: for each phase, each channel and each of these elements in turn, in bytes.
    """

    taps: list[list[int]]
    counts: Array
    distances: Array
    packing: Any
    target: Any


def _loops(*arrays: Array) -> Any:
    """Return the module of the loops if they take these arrays, else None."""
    if max(a.size for a in arrays) < MIN_COMPILED or not all(a.size for a in arrays):
        return None
    if not all(a.dtype == FLOAT32 for a in arrays) or not 4 <= arrays[0].ndim <= 5:
        return None
    return compiled_loops.load_loops("convolution_kernels")


def _two(sizes: Ints, alone: int) -> tuple[int, int]:
    """Return the sizes of images. A sequence is an image of one row."""
    return (alone, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def _images(x: Array) -> Array:
    """Return (N, G, C, *S) as contiguous images (N G, C, H, W)."""
    return np.ascontiguousarray(x).reshape(x.shape[0] * x.shape[1], x.shape[2], *_two(x.shape[3:], 1))


def _band(channels: int, phases: int, halo: int, pitch: int, rows: int) -> int:
    """Return how many rows of positions are computed from one copy of an image."""
    return max(1, min(rows, _IMAGES // (channels * phases * pitch) - halo))


@lru_cache(maxsize=256)
def _forward_plan(
    channels: int, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int],
    padding: tuple[int, int], sizes: tuple[int, int],
) -> _Plan:  # fmt: skip
    """Return the plan of :func:`direct_correlate` and of :func:`direct_correlate_weight`. sizes: of the result."""
    loops = compiled_loops.load_loops("convolution_kernels")
    phases = stride[0] * stride[1]
    halo, wide = ((k - 1) * d // s for k, d, s in zip(kernel, dilation, stride, strict=True))
    pitch = sizes[1] + wide
    band = _band(channels, phases, halo, pitch, sizes[0])
    plane = (band + halo) * pitch
    distances = []
    for c, k, m in itertools.product(range(channels), *map(range, kernel)):
        h, w = k * dilation[0], m * dilation[1]
        phase = c * phases + h % stride[0] * stride[1] + w % stride[1]
        distances.append(4 * (phase * plane + h // stride[0] * pitch + w // stride[1]))
    taps = [*range(math.prod(kernel))]
    return _Plan(
        [taps], np.array([len(distances)]), np.array(distances),
        loops.Packing(stride, padding, halo, pitch, band, band < sizes[0]), loops.Target((1, 1), (0, 0), *sizes),
    )  # fmt: skip


@lru_cache(maxsize=256)
def _input_plan(
    channels: int, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int],
    padding: tuple[int, int], sizes: tuple[int, int],
) -> _Plan:  # fmt: skip
    """Return the plan of :func:`direct_correlate_input`. channels: of y. sizes: those of x.

    Pixel h of the padded x is ``i stride + a``. It gets the elements k of the kernel for which ``dilation k - a`` is a
    multiple ``m stride``, from entry ``i - m`` of y.
    """
    loops = compiled_loops.load_loops("convolution_kernels")
    first = tuple(p // s for p, s in zip(padding, stride, strict=True))  # the first i of a pixel of x
    last = tuple((n + p - 1) // s for n, p, s in zip(sizes, padding, stride, strict=True))
    most = tuple((k - 1) * d // s for k, d, s in zip(kernel, dilation, stride, strict=True))
    rows, columns = (b - a + 1 for a, b in zip(first, last, strict=True))
    pitch = columns + most[1]
    band = _band(channels, 1, most[0], pitch, rows)
    plane = (band + most[0]) * pitch
    taps, distances = [], []
    for a in itertools.product(*map(range, stride)):
        found = [
            [(k, (k * d - at) // s) for k in range(n) if (k * d - at) % s == 0]
            for n, s, d, at in zip(kernel, stride, dilation, a, strict=True)
        ]
        pairs = list(itertools.product(*found))
        taps.append([h[0] * kernel[1] + w[0] for h, w in pairs])
        distances += [
            4 * (c * plane + (most[0] - h[1]) * pitch + most[1] - w[1]) for c in range(channels) for h, w in pairs
        ]
    before = (most[0] - first[0], most[1] - first[1])
    after = tuple(p - f * s for p, f, s in zip(padding, first, stride, strict=True))
    return _Plan(
        taps, np.array([channels * len(t) for t in taps]), np.array(distances, np.int64),
        loops.Packing((1, 1), before, most[0], pitch, band, band < rows),
        loops.Target(stride, after, rows, columns),
    )  # fmt: skip


def _convolve(loops: Any, x: Array, out: Array, weight: Array, bias: Array | None, plan: _Plan) -> None:
    """Write a convolution of images x to images ``out``. weight: (G, O, C, elements of the kernel). bias: (G, O)."""
    groups, outs = weight.shape[:2]
    tile = loops.tile_of(outs)
    width = loops.CHANNELS[tile]
    phases = [weight if len(t) == weight.shape[3] else weight[..., t] for t in plan.taps]
    lines = np.concatenate([w.reshape(groups, outs, -1) for w in phases], 2) if len(phases) > 1 else phases[0]
    lines = lines.reshape(groups, outs, -1)
    blocks = -(-outs // width)
    if blocks * width != outs:
        lines = np.concatenate([lines, np.zeros((groups, blocks * width - outs, lines.shape[2]), FLOAT32)], 1)
    lines = np.ascontiguousarray(lines.reshape(groups, blocks, width, -1).swapaxes(2, 3))
    added = np.zeros((groups, blocks * width), FLOAT32)
    if bias is not None:
        added[:, :outs] = bias
    run_loop(
        loops.convolve, out.size * int(plan.counts.max()), x, out, lines, added, plan.counts, plan.distances,
        plan.packing, plan.target, groups, tile,
    )  # fmt: skip


def direct_correlate(
    xp: XP, x: Array, weight: Array, bias: Array | None, stride: Ints, dilation: Ints, padding: Ints, positions: Ints
) -> Array | None:  # fmt: skip
    """Compute the same as the reference."""
    loops = _loops(x, weight)
    if loops is None or not math.prod(positions) or _suits_products(weight, positions):
        return None
    groups, outs, channels, *kernel = weight.shape
    y = np.empty((len(x), groups, outs, *positions), FLOAT32)
    plan = _forward_plan(
        channels, _two(kernel, 1), _two(stride, 1), _two(dilation, 1), _two(padding, 0), _two(positions, 1)
    )
    _convolve(loops, _images(x), _images(y), weight.reshape(groups, outs, channels, -1), bias, plan)
    return y


def _suits_products(weight: Array, positions: Ints) -> bool:
    """Return whether products of matrices take less time, as for small images with many channels."""
    channels = min(weight.shape[1:3])
    if channels < _MANY or weight.shape[0] > 1:
        return False
    return math.prod(positions) < _FEW or (math.prod(weight.shape[3:]) == 1 and weight.shape[2] > _MANY)


def direct_correlate_input(
    xp: XP, y: Array, weight: Array, shape: Ints, stride: Ints, dilation: Ints, padding: Ints
) -> Array | None:  # fmt: skip
    """Compute the same as the reference."""
    loops = _loops(y, weight)
    if loops is None or not math.prod(shape) or _suits_products(weight, y.shape[3:]):
        return None
    groups, outs, channels, *kernel = weight.shape
    if not math.isfinite(weight.sum()):  # because a position that is not there would add 0 times infinity
        return None
    plan = _input_plan(
        outs, _two(kernel, 1), _two(stride, 1), _two(dilation, 1), _two(padding, 0), _two(shape[3:], 1)
    )
    x = np.empty(tuple(shape), FLOAT32)
    matrix = weight.reshape(groups, outs, channels, -1).swapaxes(1, 2)
    _convolve(loops, _images(y), _images(x), matrix, None, plan)
    return x


def direct_correlate_weight(
    xp: XP, y: Array, x: Array, shape: Ints, stride: Ints, dilation: Ints, padding: Ints
) -> Array | None:  # fmt: skip
    """Compute the same as the reference."""
    loops = _loops(x, y)
    groups, outs, channels, *kernel = shape
    if loops is None or not math.prod(shape) or math.prod(shape[1:]) > _LARGE:
        return None
    if groups == 1 and math.prod(kernel) == 1 and channels > _MANY:
        return None
    plan = _forward_plan(
        channels, _two(kernel, 1), _two(stride, 1), _two(dilation, 1), _two(padding, 0), _two(y.shape[3:], 1)
    )
    tile = 0 if outs < loops.GRADIENTS[1] else 1
    out = np.empty((groups, outs, plan.distances.size), FLOAT32)
    rest = -plan.distances.size % loops.TAPS[tile]
    distances = np.concatenate([plan.distances, np.zeros(rest, np.int64)]) if rest else plan.distances
    work = y.size * plan.distances.size
    run_loop(loops.convolve_weight, work, _images(x), _images(y), out, distances, plan.packing, groups, tile)
    if not math.isfinite(out.sum()):  # because a position beyond the end of a row adds 0 times infinity
        return None
    return out.reshape(tuple(shape))
