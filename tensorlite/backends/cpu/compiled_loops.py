"""Access to compiled loops over float32: which arrays they take, and how threads share them."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from .find_compiled import find_compiled
from .thread_pool import run_parallel

__all__ = ["FLOAT32", "load_loops", "loops_for", "run_loop"]

Array = Any

FLOAT32 = np.dtype(np.float32)
MIN_COMPILED = 1 << 11  # entries, from which a compiled loop is faster; smaller arrays never load the compiler
MIN_SHARED = 1 << 15  # entries, from which a loop takes long enough for threads to share it


@cache
def load_loops(module: str) -> Any:
    """Return the module of this name in the package ``compiled``, or None if nothing is compiled."""
    if find_compiled() is None:
        return None
    return import_module(f"{__package__}.compiled.{module}")


def loops_for(module: str, *arrays: Array) -> Any:
    """Return a module of loops if they take these arrays, else None. The first array is the largest.

    They take contiguous float32 arrays of at least ``MIN_COMPILED`` entries.
    """
    if arrays[0].size < MIN_COMPILED:
        return None
    for a in arrays:  # an explicit loop is twice as fast as all()
        # An unpickled array has a dtype object of its own. So has a result of machine code that numba has loaded.
        if not ((a.dtype is FLOAT32 or a.dtype == FLOAT32) and a.flags.c_contiguous):
            return None
    return load_loops(module)


def run_loop(kernel: Any, size: int, *args: Any) -> Any:
    """Call a compiled kernel; threads share its loop if it has enough entries, ``size``, for that to pay."""
    return run_parallel(kernel, *args) if size >= MIN_SHARED else kernel(0, *args)
