"""Access to the compiled sums: which arrays they take, and how threads share them."""

from __future__ import annotations

from typing import Any

from .compiled_loops import FLOAT32, MIN_COMPILED, load_loops
from .thread_pool import run_parallel

__all__ = ["FLOAT32", "MIN_COMPILED", "MIN_SHARED", "load_sums", "run_sum", "sums_for"]

Array = Any

MIN_SHARED = 1 << 17  # entries, from which a loop takes long enough for threads to share it


def load_sums() -> Any:
    """Return the module of compiled sums, or None if nothing is compiled."""
    return load_loops("sum_kernels")


def sums_for(x: Array) -> Any:
    """Return the module of compiled sums if they take this array, else None."""
    if x.size < MIN_COMPILED or not x.flags.c_contiguous:
        return None
    return load_sums() if x.dtype is FLOAT32 or x.dtype == FLOAT32 else None


def run_sum(kernel: Any, size: int, *args: Any) -> Any:
    """Call a compiled kernel; threads share its loop if it has enough entries, ``size``, for that to pay."""
    return run_parallel(kernel, *args) if size >= MIN_SHARED else kernel(0, *args)
