"""Matrices in 4 or 8 bits a number, for models that only predict.

    >>> import numpy as np
    >>> from tensorlite.quantized import QuantizedMatrix, linear
    >>> weight = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    >>> matrix = QuantizedMatrix.quantize(weight, "q8_0")
    >>> matrix
    QuantizedMatrix(q8_0, 2 x 32, 8.5 bits a number)
    >>> bool(np.abs(matrix.dequantize() - weight).max() < 0.005)
    True

A number takes a quarter or an eighth of the memory of float32. A model that writes one token at a time reads all its
weights for each, so it writes as many times faster. With numba (the extra `fast`) the products are sums of integers,
where the processor has instructions for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends.cpu import quantized as kernels
from .backends.cpu.quantized import BLOCK, GROUP, KINDS
from .dtypes import is_floating

__all__ = ["BLOCK", "KINDS", "QuantizedMatrix", "check_values", "linear"]


class QuantizedMatrix:
    """A matrix (rows, columns) in blocks of 32 numbers along each row, which share a scale.

    kind: q8_0, 8.5 bits a number; q4_0, 4.5 bits; q4_1, 5 bits with a minimum for each block. They are the formats of
        ggml with these names. `quants` and `scales` hold the same bits in another order, 16 rows side by side.

    `QuantizedMatrix.quantize` and `QuantizedMatrix.from_blocks` make one. Raises ValueError for other arrays than they
    make, because the compiled products do not check what they read.
    """

    def __init__(self, kind: str, shape: tuple[int, int], quants: NDArray[np.uint8], scales: NDArray[Any]) -> None:
        found = kind_named("QuantizedMatrix", kind)
        for name, array, dtype, expected in zip(
            ("quants", "scales"), (quants, scales), ("uint8", "float16"), kernels.packed_shapes(shape, found),
            strict=True,
        ):  # fmt: skip
            if array.dtype != np.dtype(dtype) or array.shape != expected or not array.flags.c_contiguous:
                raise ValueError(
                    f"QuantizedMatrix: expected contiguous {name}, {dtype} {expected}, got {array.dtype} {array.shape}"
                )
        self.kind, self.shape, self.quants, self.scales = kind, shape, quants, scales

    @classmethod
    def quantize(cls, values: Any, kind: str) -> QuantizedMatrix:
        """Round a matrix, (rows, columns), to a kind. Columns are filled up with zeros to a multiple of 32.

        Raises ValueError for an unknown kind, another number of dimensions, numbers that are not finite, or numbers
        whose scale has no float16.
        """
        found = kind_named("quantize", kind)
        values = check_values(values, kind)
        rows, columns = values.shape
        if missing := -columns % BLOCK:
            values = np.concatenate([values, np.zeros((rows, missing), values.dtype)], axis=1)
        step = 4096  # rows at once, so that the numbers in between take little memory
        blocks = [kernels.quantize(values[i : i + step], found) for i in range(0, rows, step)]
        packed = np.concatenate(blocks) if blocks else np.empty((0, values.shape[1] // BLOCK * found.block_bytes), "u1")
        return cls(kind, (rows, columns), *kernels.pack(packed, found))

    @classmethod
    def from_blocks(cls, blocks: NDArray[np.uint8], kind: str) -> QuantizedMatrix:
        """Take a matrix as ggml has it: blocks, uint8 (rows, bytes of a row). The numbers keep their bits.

        Raises ValueError for an unknown kind or rows that are not whole blocks.
        """
        found = kind_named("from_blocks", kind)
        blocks = np.asarray(blocks)
        if blocks.dtype != np.uint8 or blocks.ndim != 2 or blocks.shape[1] % found.block_bytes:
            raise ValueError(
                f"from_blocks: expected uint8 (rows, a multiple of {found.block_bytes} bytes) for {kind}, got "
                f"{blocks.dtype} {blocks.shape}"
            )
        shape = (len(blocks), blocks.shape[1] // found.block_bytes * BLOCK)
        return cls(kind, shape, *kernels.pack(blocks, found))

    def to_blocks(self) -> NDArray[np.uint8]:
        """Return the matrix as ggml has it, uint8 (rows, bytes of a row): the inverse of `from_blocks`."""
        blocks: NDArray[np.uint8] = kernels.unpack(self.quants, self.scales, KINDS[self.kind], self.shape[0])
        return blocks

    @classmethod
    def concatenate(cls, matrices: Sequence[QuantizedMatrix]) -> QuantizedMatrix:
        """Join matrices of one kind and width along their rows. Raises ValueError if these differ, and TypeError."""
        matrices = [check_matrix("concatenate", matrix) for matrix in matrices]
        kinds = {(matrix.kind, matrix.shape[1]) for matrix in matrices}
        if len(kinds) != 1:
            shown = ", ".join(map(repr, matrices))
            raise ValueError(f"concatenate: expected matrices of one kind and width, got {shown or 'none'}")
        first = matrices[0]
        rows = sum(matrix.shape[0] for matrix in matrices)
        if any(matrix.shape[0] % GROUP for matrix in matrices[:-1]):  # Then groups of rows are made anew.
            packed = kernels.pack(np.concatenate([m.to_blocks() for m in matrices]), KINDS[first.kind])
            return cls(first.kind, (rows, first.shape[1]), *packed)
        quants = np.concatenate([matrix.quants for matrix in matrices])
        scales = np.concatenate([matrix.scales for matrix in matrices])
        return cls(first.kind, (rows, first.shape[1]), quants, scales)

    def dequantize(self, rows: Any = None) -> NDArray[np.float32]:
        """Return the matrix, or the rows of these numbers, in any shape (...): float32 (..., columns).

        Raises IndexError for a row that is not there, TypeError for numbers that are not integers.
        """
        chosen = np.arange(self.shape[0]) if rows is None else np.asarray(rows)
        flat = chosen.reshape(-1)
        if not flat.size:
            return np.zeros((*chosen.shape, self.shape[1]), np.float32)
        if flat.dtype.kind not in "iu":
            raise TypeError(f"dequantize: expected integers as rows, got {flat.dtype}")
        if not (0 <= flat.min() and flat.max() < self.shape[0]):
            last = self.shape[0] - 1
            raise IndexError(f"dequantize: expected rows from 0 to {last}, got {flat.min()} to {flat.max()}")
        values = kernels.dequantize(self.quants, self.scales, KINDS[self.kind], flat)[:, : self.shape[1]]
        return np.ascontiguousarray(values).reshape(*chosen.shape, self.shape[1])

    @property
    def nbytes(self) -> int:
        """Return the bytes that the matrix takes in memory."""
        return int(self.quants.nbytes + self.scales.nbytes)

    def __repr__(self) -> str:
        rows, columns = self.shape
        bits = KINDS[self.kind].block_bytes * 8 / BLOCK
        return f"QuantizedMatrix({self.kind}, {rows} x {columns}, {bits:g} bits a number)"


def kind_named(op: str, kind: str) -> kernels.Kind:
    """Return a kind. Raises ValueError for an unknown one."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"{op}: expected a kind of {', '.join(KINDS)}, got {kind!r:.80}")
    return KINDS[kind]


def check_values(values: Any, kind: str) -> NDArray[Any]:
    """Return a matrix as an array if `QuantizedMatrix.quantize` takes it. Raises ValueError as that does."""
    found = kind_named("quantize", kind)
    values = np.asarray(values)
    if values.ndim != 2 or not is_floating(values.dtype):
        raise ValueError(f"quantize: expected a matrix of floats, got {values.dtype} {values.shape}")
    largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    limit = 65504.0 * (127 if found.bits == 8 else 8 if found.offset else 1)
    if not largest <= limit:
        raise ValueError(
            f"quantize: expected finite numbers up to {limit:g}, got {largest:g}. Keep this matrix in float32"
        )
    return values


def check_matrix(op: str, matrix: object) -> QuantizedMatrix:
    """Return a quantized matrix. Raises TypeError for anything else."""
    if not isinstance(matrix, QuantizedMatrix):
        raise TypeError(f"{op}: expected a QuantizedMatrix, got {type(matrix).__name__}. Use QuantizedMatrix.quantize")
    return matrix


def linear(x: NDArray[np.float32], matrix: QuantizedMatrix) -> NDArray[np.float32]:
    """Return ``x matrix^T``, float32 (..., rows), for x, float32 (..., columns).

    Each 32 numbers of x are rounded to 8 bits with a scale of their own, by at most a 254th of the largest of them.
    Raises ValueError for another shape or dtype, TypeError for another matrix.
    """
    rows, columns = check_matrix("linear", matrix).shape
    x = np.asarray(x)
    if x.dtype != np.float32 or x.ndim < 1 or x.shape[-1] != columns:
        raise ValueError(f"linear: expected x, float32 (..., {columns}), for {matrix!r}, got {x.dtype} {x.shape}")
    if not x.size:
        return np.zeros((*x.shape[:-1], rows), np.float32)
    flat = np.require(x, requirements=["C", "A"]).reshape(-1, columns)
    if missing := -columns % BLOCK:
        flat = np.concatenate([flat, np.zeros((len(flat), missing), np.float32)], axis=1)
    y: NDArray[np.float32] = kernels.linear(flat, matrix.quants, matrix.scales, KINDS[matrix.kind], rows)
    return y.reshape(*x.shape[:-1], rows)
