"""Matrices whose numbers are kept in 4 or 8 bits: their layout in memory, and the products with them.

Blocks of 32 numbers along a row have a scale each, as in ggml: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

    q8_0    w = scale q            q from -127 to 127                   34 bytes a block
    q4_0    w = scale (q - 8)      q from 0 to 15                       18 bytes
    q4_1    w = scale q + minimum  q from 0 to 15                       20 bytes

Scales and minima are float16. The bits are those of ggml in another order: 16 rows lie side by side, so that one
vector instruction multiplies four numbers of each of 16 rows by the same four activations. Its first factor is
unsigned, so q8_0 is kept as q + 128.

    quants  (G, N, 4, 16, 4) for 4 bits: byte [g, n, v, r, i] has number 4v + i of block n of row 16g + r, and in its
            upper half number 16 + 4v + i. For 8 bits (G, N, 8, 16, 4), where each number has a byte.
    scales  (G, N, S, 16), float16: the scale of block n of row 16g + r, and for q4_1 the minimum.

In a product, the activations are rounded to 8 bits in blocks of 32, too, as llama.cpp does. Then the sums over a block
are sums of integers. NumPy and the compiled kernels compute the same, to the last bit of a scale and of a sum of
blocks. So an activation halfway between two integers may become the other one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import numpy as np

from ..reference import SMALLEST_BLOCK
from .find_compiled import find_compiled
from .thread_pool import run_parallel

__all__ = [
    "BLOCK", "GROUP", "KINDS", "Kind", "dequantize", "linear", "load_kernels", "pack", "packed_shapes", "quantize",
    "round_activations", "unpack",
]  # fmt: skip

Array = Any

BLOCK = 32  # numbers that share a scale
GROUP = 16  # rows side by side
_ROWS_AT_ONCE = 2048  # of a matrix that NumPy multiplies, so that its float32 numbers stay few
_FLOAT16_MAX = 65504.0
_ARENA = 1 << 23  # bytes of a piece of memory for small matrices


@dataclass(frozen=True)
class Kind:
    """A format of blocks. offset: what is added to a number so that it is not negative."""

    name: str
    bits: int
    offset: int
    has_minimum: bool

    @property
    def words(self) -> int:
        """Return how many groups of four bytes hold a block of one row."""
        return self.bits

    @property
    def num_scales(self) -> int:
        """Return the float16 numbers of a block."""
        return 2 if self.has_minimum else 1

    @property
    def block_bytes(self) -> int:
        """Return the bytes of a block."""
        return BLOCK * self.bits // 8 + 2 * self.num_scales


KINDS = {kind.name: kind for kind in (Kind("q8_0", 8, 128, False), Kind("q4_0", 4, 8, False), Kind("q4_1", 4, 0, True))}

# ---- between ggml's blocks and ours -------------------------------------------------------------


def pack(blocks: Array, kind: Kind) -> tuple[Array, Array]:
    """Return the quants and scales of rows of ggml's blocks, (rows, N block_bytes), uint8."""
    rows, N, S = len(blocks), blocks.shape[1] // kind.block_bytes, kind.num_scales
    groups = -(-rows // GROUP)
    if rows % GROUP:  # The rows that fill the last group have scales of 0.
        blocks = np.concatenate([blocks, np.zeros((groups * GROUP - rows, blocks.shape[1]), np.uint8)])
    blocks = blocks.reshape(groups, GROUP, N, kind.block_bytes)
    scales = np.ascontiguousarray(blocks[..., : 2 * S]).view(np.float16)  # (G, 16, N, S)
    words = np.ascontiguousarray(blocks[..., 2 * S :]).view(np.uint32)  # (G, 16, N, words)
    quants = _aligned((groups, N, kind.words, GROUP, 4))
    quants.view(np.uint32)[..., 0] = words.transpose(0, 2, 3, 1)
    if kind.bits == 8:
        quants ^= 128  # q + 128 of a signed byte is its bits with the first one turned
    packed_scales = _aligned((groups, N, S, 2 * GROUP)).view(np.float16)
    packed_scales[...] = scales.transpose(0, 2, 3, 1)
    return quants, packed_scales


def packed_shapes(shape: tuple[int, int], kind: Kind) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of the quants and the scales of a matrix (rows, columns)."""
    groups, N = -(-shape[0] // GROUP), -(-shape[1] // BLOCK)
    return (groups, N, kind.words, GROUP, 4), (groups, N, kind.num_scales, GROUP)


def unpack(quants: Array, scales: Array, kind: Kind, rows: int) -> Array:
    """Return rows of ggml's blocks, (rows, N block_bytes), uint8: the inverse of `pack`."""
    G, N, words = quants.shape[:3]
    blocks = np.empty((G, GROUP, N, kind.block_bytes), np.uint8)
    S = kind.num_scales
    blocks[..., : 2 * S] = np.ascontiguousarray(scales.transpose(0, 3, 1, 2)).view(np.uint8)
    bits = quants ^ 128 if kind.bits == 8 else quants
    blocks[..., 2 * S :] = bits.transpose(0, 3, 1, 2, 4).reshape(G, GROUP, N, 4 * words)
    return blocks.reshape(G * GROUP, N * kind.block_bytes)[:rows]


_arena, _arena_lock = np.empty(0, np.uint8), Lock()


def _aligned(shape: tuple[int, ...]) -> Array:
    """Return an uninitialised array of bytes at a multiple of 64, where vectors do not cross lines of the cache.

    Small arrays lie side by side in large pieces of memory. For those, NumPy asks the system for pages of 2 MB, so that
    a model that is read from one end to the other looks up few of them.
    """
    global _arena
    size = int(np.prod(shape))
    rounded = -(-size // 64) * 64
    if rounded > _ARENA // 4:
        memory = np.empty(size + 64, np.uint8)
        start = -memory.ctypes.data % 64
        return memory[start : start + size].reshape(shape)
    with _arena_lock:
        if len(_arena) < rounded:
            memory = np.empty(_ARENA + 64, np.uint8)
            _arena = memory[-memory.ctypes.data % 64 :]
        array, _arena = _arena[:size], _arena[rounded:]
    return array.reshape(shape)


# ---- from and to float32 ------------------------------------------------------------------------


def quantize(values: Array, kind: Kind) -> Array:
    """Return rows of ggml's blocks, (rows, N block_bytes), for float32 numbers (rows, 32 N).

    A scale is rounded to float16 first, and the numbers are rounded with what became of it.
    """
    rows = len(values)
    x = values.reshape(rows, -1, BLOCK).astype(np.float32)
    if kind.has_minimum:
        low = np.clip(x.min(-1), -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16)
        scale = ((x.max(-1) - low) / 15).astype(np.float16)
        x = x - low[..., None].astype(np.float32)
        header = np.stack([scale, low], -1)
        top, offset = 15, 0
    else:
        # The number of the largest magnitude becomes -8, of which there is no positive counterpart, or 127 or -127.
        largest = np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1)[..., 0]
        scale = (largest / -8 if kind.bits == 4 else np.abs(largest) / 127).astype(np.float16)
        header = scale[..., None]
        top, offset = (15, 8) if kind.bits == 4 else (127, 0)
    wide = scale.astype(np.float32)
    inverse = np.divide(1, wide, out=np.zeros_like(wide), where=wide != 0)
    q = np.clip(np.rint(x * inverse[..., None]) + offset, -127 if kind.bits == 8 else 0, top)
    if kind.bits == 8:
        numbers = q.astype(np.int8).view(np.uint8)
    else:
        nibbles = q.astype(np.uint8)
        numbers = nibbles[..., :16] | nibbles[..., 16:] << 4
    return np.concatenate([np.ascontiguousarray(header).view(np.uint8), numbers], -1).reshape(rows, -1)


def dequantize(quants: Array, scales: Array, kind: Kind, rows: Array) -> Array:
    """Return rows of a matrix, float32 (number of rows, 32 N), for integers `rows`."""
    group, place = rows // GROUP, rows % GROUP
    bits = quants[group, :, :, place]  # (rows, N, words, 4)
    if kind.bits == 4:
        bits = np.concatenate([bits & 15, bits >> 4], axis=2)  # (rows, N, 8, 4)
    numbers = bits.reshape(len(rows), -1, BLOCK).astype(np.float32)  # (rows, N, 32)
    if kind.offset:
        numbers -= kind.offset
    factors = scales[group, :, :, place].astype(np.float32)  # (rows, N, S)
    numbers *= factors[..., :1]
    if kind.has_minimum:
        numbers += factors[..., 1:]
    return numbers.reshape(len(rows), -1)


# ---- products -----------------------------------------------------------------------------------


def round_activations(x: Array) -> tuple[Array, Array]:
    """Return x, float32 (T, 32 N), in 8 bits: numbers from -127 to 127, int8 (T, N, 32), and scales, float32 (T, N).

    A block with a number that is not finite has the scale NaN; one with numbers below `SMALLEST_BLOCK` alone is 0.
    """
    blocks = x.reshape(len(x), -1, BLOCK)
    largest = np.abs(blocks).max(-1)
    usual = (largest >= SMALLEST_BLOCK) & (largest < np.inf)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=usual)
    unusual = np.where(largest < SMALLEST_BLOCK, np.float32(0), np.float32(np.nan))
    scales = np.where(usual, largest / np.float32(127), unusual)
    numbers = np.rint(np.where(usual[..., None], blocks, 0) * inverse[..., None])
    return numbers.astype(np.int8), scales


@cache
def load_kernels() -> Any:
    """Return the module of compiled products, or None if nothing is compiled."""
    if find_compiled() is None:
        return None
    from .compiled import quantized_kernels

    return quantized_kernels


def linear(x: Array, quants: Array, scales: Array, kind: Kind, rows: int) -> Array:
    """Return ``x W^T``, float32 (T, rows), for x, float32 (T, 32 N), and a matrix W of this many rows."""
    kernels = load_kernels()
    if kernels is not None:
        out = np.empty((len(x), rows), np.float32)
        run_parallel(kernels.linear, kind.bits, kind.offset, quants, scales, x, out)
        return out
    numbers, factors = round_activations(x)
    rounded = (numbers * factors[..., None]).reshape(x.shape)
    out = np.empty((len(x), rows), np.float32)
    for start in range(0, rows, _ROWS_AT_ONCE):
        some = np.arange(start, min(start + _ROWS_AT_ONCE, rows))
        out[:, some] = rounded @ dequantize(quants, scales, kind, some).T
    return out
