"""Access to the compiled sums: which arrays they take, and how threads share them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .find_compiled import find_compiled
from .thread_pool import run_parallel

__all__ = ["FLOAT32", "MIN_COMPILED", "MIN_SHARED", "load_sums", "run_sum", "sums_for"]

Array = Any

FLOAT32 = np.dtype(np.float32)
MIN_COMPILED = 1 << 11  # entries, from which a compiled loop is faster; smaller arrays never load the compiler
MIN_SHARED = 1 << 17  # entries, from which a loop takes long enough for threads to share it


@cache
def load_sums() -> Any:
    """Return the module of compiled sums, or None if nothing is compiled."""
    if find_compiled() is None:
        return None
    from .compiled import sum_kernels

    return sum_kernels


def sums_for(x: Array) -> Any:
    """Return the module of compiled sums if they take this array, else None."""
    if x.size < MIN_COMPILED or not x.flags.c_contiguous:
        return None
    return load_sums() if x.dtype is FLOAT32 or x.dtype == FLOAT32 else None


def run_sum(kernel: Any, size: int, *args: Any) -> None:
    """Call a compiled kernel; threads share its loop if it has enough entries, ``size``, for that to pay."""
    if size >= MIN_SHARED:
        run_parallel(kernel, *args)
    else:
        kernel(0, *args)
