"""OpenBLAS, as NumPy loads it: found, and told to use one thread inside our kernels."""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["find_blas", "gemm_address", "one_blas_thread"]


class _Blas:
    """The OpenBLAS that NumPy computes with, as far as it can be told how many threads to use."""

    def __init__(self, library: Any, prefix: str, suffix: str) -> None:
        self.set = getattr(library, f"{prefix}openblas_set_num_threads{suffix}")
        self.get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}")
        self.set.argtypes, self.set.restype = [ctypes.c_int], None
        self.get.argtypes, self.get.restype = [], ctypes.c_int
        self.threads = int(self.get())  # before anyone has changed it
        self.gemm = {
            dtype: getattr(library, f"{prefix}cblas_{letter}gemm{suffix}", None) if suffix else None  # of 64-bit sizes
            for dtype, letter in ((np.dtype(np.float32), "s"), (np.dtype(np.float64), "d"))
        }


@cache
def find_blas() -> _Blas | None:
    """What NumPy has loaded: its wheels bring an OpenBLAS of their own, distributions have one in the system."""
    home = Path(np.__file__).parent
    paths = [p for folder in (home.parent / "numpy.libs", home / ".dylibs") for p in folder.glob("*openblas*")]
    try:
        maps = Path("/proc/self/maps").read_text("utf-8")
        paths += {Path(line.split(maxsplit=5)[5]) for line in maps.splitlines() if "openblas" in line}
    except (OSError, IndexError):
        pass
    for path in paths:
        for prefix in ("scipy_", ""):
            for suffix in ("64_", ""):
                try:
                    return _Blas(ctypes.CDLL(str(path)), prefix, suffix)
                except (OSError, AttributeError):
                    continue
    return None


class _OneBlasThread:
    """Inside this block BLAS computes on the thread that calls it, whoever else is in such a block at the time."""

    def __init__(self) -> None:
        self.lock, self.before = threading.RLock(), 0  # a signal may come inside, whose handler computes
        self.inside: set[int] = set()  # threads: what an interrupt leaves behind, the next block of its thread mends

    def __enter__(self) -> None:
        blas = find_blas()
        if blas is not None:
            with self.lock:
                if not self.inside:
                    self.before = blas.get()
                self.inside.add(threading.get_ident())
                blas.set(1)

    def __exit__(self, *exc: object) -> None:
        blas = find_blas()
        if blas is not None:
            with self.lock:
                me = threading.get_ident()
                if self.inside == {me}:
                    blas.set(self.before)
                self.inside.discard(me)


one_blas_thread = _OneBlasThread()


def _after_fork() -> None:
    """In a child process there is only the thread that forked."""
    if one_blas_thread.inside and (blas := find_blas()) is not None:
        blas.set(one_blas_thread.before)
    one_blas_thread.lock, one_blas_thread.inside = threading.RLock(), set()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def gemm_address(dtype: Any) -> int:
    """Where BLAS's function for matrices of this dtype is, 0 if there is none."""
    blas = find_blas()
    gemm = None if blas is None else blas.gemm.get(dtype)
    return 0 if gemm is None else int(ctypes.cast(gemm, ctypes.c_void_p).value or 0)
