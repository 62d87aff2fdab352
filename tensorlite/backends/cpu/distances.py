"""The kernels of ``reference`` for distances of all pairs of vectors, faster for float32 with numba."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import reference
from . import compiled_loops
from .compiled_loops import FLOAT32, run_loop

__all__ = ["distances_of_pairs", "distances_of_pairs_backward"]

Array = Any
XP = Any

_CODES = {2: "SQUARES", 1: "ABSOLUTE", math.inf: "LARGEST"}


def _loops(pairs: int, p: float, *arrays: Array) -> Any:
    """Return the compiled loops if they compute distances of this order, else None."""
    if p not in _CODES or pairs * arrays[0].shape[-1] < compiled_loops.MIN_COMPILED:
        return None
    return compiled_loops.load_loops("distance_kernels") if all(a.dtype == FLOAT32 for a in arrays) else None


def _matrices(x: Array, batch: tuple[int, ...], padding: tuple[int, int] = (0, 0), swap: bool = False) -> Array:
    """Return matrices (..., n, k) as contiguous ones (B, n, k), transposed if ``swap``, with zeros behind them."""
    x = x.swapaxes(-2, -1) if swap else x
    sizes = [n + more for n, more in zip(x.shape[-2:], padding, strict=True)]
    out = np.zeros((*batch, *sizes), x.dtype) if any(padding) else np.empty((*batch, *sizes), x.dtype)
    out[..., : x.shape[-2], : x.shape[-1]] = x
    return out.reshape(-1, *sizes)


def distances_of_pairs(xp: XP, x1: Array, x2: Array, p: float) -> Array:
    """Compute the same as the reference."""
    batch = np.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    out = np.empty((*batch, x1.shape[-2], x2.shape[-2]), x1.dtype)
    loops = _loops(out.size, p, x1, x2)
    if loops is None:
        return reference.distances_of_pairs(xp, x1, x2, p)
    columns = _matrices(x2, batch, (0, -x2.shape[-2] % loops.COLUMNS), swap=True)
    rows, whole = _matrices(x1, batch), out.reshape(-1, *out.shape[-2:])
    run_loop(loops.distances, out.size * x1.shape[-1], getattr(loops, _CODES[p]), rows, columns, whole)
    return out


def distances_of_pairs_backward(xp: XP, g: Array, x1: Array, x2: Array, out: Array, p: float) -> tuple[Array, Array]:
    """Compute the same as the reference."""
    loops = _loops(out.size, p, x1, x2, g) if p != math.inf else None
    if loops is None:
        return reference.distances_of_pairs_backward(xp, g, x1, x2, out, p)
    batch, k = out.shape[:-2], x1.shape[-1]
    zero = out == 0
    weights = np.where(zero, np.float32(0), g / np.where(zero, np.float32(1), out) if p == 2 else g)
    padding = (0, -k % loops.COLUMNS)
    first, second = _matrices(x1, batch, padding), _matrices(x2, batch, padding)
    found = []
    for x, y, swap in ((first, second, False), (second, first, True)):
        d = np.empty_like(x)
        run_loop(loops.pulls, out.size * k, getattr(loops, _CODES[p]), _matrices(weights, batch, swap=swap), x, y, d)
        found.append(d[..., :k].reshape(*batch, d.shape[1], k))
    return found[0], found[1]
