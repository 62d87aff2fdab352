"""Arrays of any size as short summaries: numbers, or a heat map of few cells."""

from __future__ import annotations

import base64
import weakref
from typing import Any

import numpy as np

from ..autograd.graph import Variable
from ..backends.registry import BACKENDS, device_of
from ..dtypes import is_floating

__all__ = ["ValueTable", "device_name", "summary"]

NUMBERS = 64  # entries that are shown as numbers
CELLS = 32  # rows and columns of a heat map


def device_name(array: Any) -> str:
    """Return the name of the device that holds a raw array."""
    return str(device_of(array))


def to_numpy(array: Any) -> np.ndarray:
    """Return a raw array of any device as a NumPy array. It is the explicit transfer of this package."""
    if isinstance(array, np.generic):
        return np.asarray(array)
    found: np.ndarray = BACKENDS[type(array)].to_numpy(array)
    return found


class ValueTable:
    """The summaries of arrays, each array once.

    entries: the summaries. cells: the largest number of rows and of columns of a heat map. numbers: the largest number
    of entries that are shown as numbers.
    """

    def __init__(self, cells: int = CELLS, numbers: int = NUMBERS) -> None:
        self.entries: list[dict[str, Any]] = []
        self.cells, self.numbers = cells, numbers
        self._seen: dict[int, tuple[Any, int]] = {}

    def add(self, value: Any) -> int | None:
        """Return the place of the summary of an array or a Tensor, None for anything else."""
        if isinstance(value, Variable):
            value = value.array
        if type(value) not in BACKENDS and not isinstance(value, np.generic):
            return None
        known = self._seen.get(id(value))
        if known is not None and known[0]() is value:
            return known[1]
        self.entries.append(summary(to_numpy(value), self.cells, self.numbers))
        place = len(self.entries) - 1
        if not isinstance(value, np.generic):
            self._seen[id(value)] = weakref.ref(value), place
        return place


def summary(array: np.ndarray, cells: int = CELLS, numbers: int = NUMBERS) -> dict[str, Any]:
    """Return the summary of an array: shape, dtype, statistics, and numbers or a heat map.

    The statistics are those of the finite entries, None if there are none, and of the absolute values of complex ones.
    cells: the largest number of rows and of columns of the heat map. numbers: the largest number of entries without it.
    """
    found: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    real = abs(array) if array.dtype.kind == "c" else array
    size = max(array.size, 1)
    nans = infs = 0
    finite = real
    if is_floating(real.dtype):
        good = np.isfinite(real)
        if not good.all():
            nans = int(np.isnan(real).sum())
            infs = int(real.size - good.sum()) - nans
            finite = real[good]
    if finite.size:
        low, high = finite.min(), finite.max()
        found |= {"min": _number(low), "mean": float(f"{finite.mean(dtype=np.float64):.9g}"), "max": _number(high)}
    else:
        found |= {"min": None, "mean": None, "max": None}
    zeros = int(array.size - np.count_nonzero(array))
    found |= {"zeros": zeros / size, "nans": nans / size, "infs": infs / size}
    if array.size <= numbers:
        found["numbers"] = _nested(array)
    else:
        found["heat"] = heat_map(real, cells)
    return found


def _number(x: Any) -> Any:
    """Return a number of an array as JSON has it: the shortest decimal that gives the same number back."""
    if x.dtype.kind == "b":
        return bool(x)
    if x.dtype.kind in "iu":
        return int(x)
    if x.dtype.kind == "c":
        return str(x).strip("()")
    if np.isnan(x):
        return "nan"
    if np.isinf(x):
        return "inf" if x > 0 else "-inf"
    return float(str(x))


def _nested(array: np.ndarray) -> Any:
    return [_nested(row) for row in array] if array.ndim else _number(array[()])


def heat_map(array: np.ndarray, cells: int = CELLS) -> dict[str, Any]:
    """Return an array as a heat map. All dimensions but the last are its rows.

    A cell is the mean of the finite entries of a block; 255 marks a block without any.
    """
    rows = array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array.reshape(1, -1)
    limits = (cells, cells) if len(rows) > 1 else (1, 4 * cells)
    starts, heights = zip(*(_blocks(n, limit) for n, limit in zip(rows.shape, limits, strict=True)), strict=True)
    means = _block_means(rows, starts)
    good = np.isfinite(means)
    low, high = (float(means[good].min()), float(means[good].max())) if good.any() else (0.0, 0.0)
    with np.errstate(all="ignore"):
        scaled = np.where(good, (means - low) / (high - low or 1.0) * 254, 255)
    codes = np.rint(scaled).astype(np.uint8)
    return {
        "rows": codes.shape[0],
        "cols": codes.shape[1],
        "cells": base64.b64encode(codes.tobytes()).decode(),
        "low": float(f"{low:.6g}"),
        "high": float(f"{high:.6g}"),
        "reduced": None if heights == (1, 1) else f"mean of {heights[0]} x {heights[1]} entries",
    }


def _blocks(n: int, limit: int) -> tuple[np.ndarray, int]:
    """Return where the blocks of n entries start, and how long they are, for at most ``limit`` blocks."""
    length = max(1, -(-n // limit))
    return np.arange(0, n, length), length


def _block_means(rows: np.ndarray, starts: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the mean of the finite entries of each block, NaN for a block without any."""
    good = np.isfinite(rows) if is_floating(rows.dtype) else None
    if good is not None and good.all():
        good = None
    values = rows if good is None else np.where(good, rows, 0)
    sums = _block_sums(values, starts)
    if good is None:
        sides = [np.diff(np.append(s, n)) for s, n in zip(starts, rows.shape, strict=True)]
        return np.asarray(sums / np.outer(*sides))
    counts = _block_sums(good, starts)
    with np.errstate(all="ignore"):
        return np.asarray(np.where(counts > 0, sums / counts, np.nan))


def _block_sums(rows: np.ndarray, starts: tuple[np.ndarray, ...]) -> np.ndarray:
    columns = np.add.reduceat(rows, starts[1], axis=1, dtype=np.float64)
    return np.asarray(np.add.reduceat(columns, starts[0], axis=0))
