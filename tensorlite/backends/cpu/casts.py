"""Conversion between float32 and bfloat16 on NumPy arrays.

ml_dtypes converts one number at a time. With numba, ``compiled/bfloats.py`` converts sixteen, and threads share a large
array. The bits are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...dtypes import CASTS, DType
from .compiled_loops import load_loops
from .thread_pool import run_parallel

__all__ = ["bits_of", "cast_array", "is_bfloat16"]

Array = Any

_FLOAT32 = np.dtype(np.float32)
_BITS = np.dtype(np.uint16)
_MIN_COMPILED = 1 << 11  # entries, from which the compiled loop is faster; smaller arrays never load the compiler
_MIN_SHARED = 1 << 15  # entries, from which threads share the loop


def is_bfloat16(dtype: Any) -> bool:
    """Return whether a dtype is bfloat16, without an import of ml_dtypes."""
    return bool(dtype.char == "E" and dtype.kind == "V")


def bits_of(x: Array) -> Array:
    """Return the bits of a bfloat16 array, which compiled loops take; other arrays as they are. It shares memory."""
    return x.view(_BITS) if is_bfloat16(x.dtype) else x


def cast_array(x: Array, dtype: DType) -> Array:
    """Return a copy of an array in another dtype, as ``x.astype(dtype)``."""
    source = x.dtype
    pair = (source == _FLOAT32 and is_bfloat16(dtype)) or (dtype == _FLOAT32 and is_bfloat16(source))
    if not pair or x.size < _MIN_COMPILED or (loops := load_loops("bfloats")) is None:
        return x.astype(dtype)
    out = np.empty_like(x, dtype)  # its axes are in the order of x's memory
    if any(a * out.itemsize != b * x.itemsize for a, b in zip(x.strides, out.strides, strict=True)):
        x = x.copy("K")  # because x has gaps or repeats entries
    flat = (bits_of(x).ravel("K"), bits_of(out).ravel("K"))
    cast = loops.round_array if source == _FLOAT32 else loops.widen_array
    run_parallel(cast, *flat) if x.size >= _MIN_SHARED else cast(0, *flat)
    return out


CASTS[np.ndarray] = cast_array
