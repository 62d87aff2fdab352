"""Control of OpenBLAS, the library with which NumPy computes products.

OpenBLAS has threads of its own. After a product they spin for a while, on cores that our threads need. When
another process needs a core, they wait for each other for milliseconds. So OpenBLAS gets one thread while a kernel of
tensorlite computes, and each of our threads calls it for its own part of a product.

OpenBLAS starts a thread for each core that it sees, also in a container whose quota is far less. Then the system stops
them in the middle of a product. So it gets at most as many threads as the quota, unless the user sets their number.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .cores import available_cores

__all__ = ["OpenBlas", "find_openblas", "gemm_pointer", "one_blas_thread"]

_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")  # which OpenBLAS reads


class OpenBlas:
    """The functions of one OpenBLAS library that tensorlite calls.

    get_num_threads, set_num_threads: the library's own functions. initial_num_threads: its number of threads before
    tensorlite changed it. gemm: a dict from dtype to ``cblas_?gemm`` with 64-bit sizes, None if there is none.

    Raises AttributeError if the library has no function of that prefix and suffix.
    """

    def __init__(self, library: Any, prefix: str, suffix: str) -> None:
        self.set_num_threads = getattr(library, f"{prefix}openblas_set_num_threads{suffix}")
        self.get_num_threads = getattr(library, f"{prefix}openblas_get_num_threads{suffix}")
        self.set_num_threads.argtypes, self.set_num_threads.restype = [ctypes.c_int], None
        self.get_num_threads.argtypes, self.get_num_threads.restype = [], ctypes.c_int
        self.initial_num_threads = int(self.get_num_threads())
        self.gemm = {
            dtype: getattr(library, f"{prefix}cblas_{letter}gemm{suffix}", None) if suffix else None
            for dtype, letter in ((np.dtype(np.float32), "s"), (np.dtype(np.float64), "d"))
        }


def _library_paths() -> Iterator[str]:
    """Yield the paths of files that may give access to NumPy's OpenBLAS, the most reliable ones first.

    threadpoolctl would find the library too, but it does not give the address of gemm, and it is optional.
    """
    # A symbol of a library that the extension module is linked with is found through the module itself.
    extension = sys.modules.get("numpy._core._multiarray_umath")
    if extension is not None and extension.__file__:
        yield extension.__file__
    # Windows's loader does not look into linked libraries, so list the libraries in the folders of NumPy's wheels.
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        yield from map(str, folder.glob("*openblas*"))
    # FlexiBLAS opens OpenBLAS by itself, so NumPy is not linked with it.
    try:
        maps = Path("/proc/self/maps").read_text("utf-8")
    except OSError:
        return
    yield from sorted({line.split(maxsplit=5)[5] for line in maps.splitlines() if "openblas" in line})


@cache
def find_openblas() -> OpenBlas | None:
    """Return the OpenBLAS that NumPy computes with, or None if NumPy has another BLAS or it cannot be found.

    Wheels of NumPy include an OpenBLAS whose names begin with ``scipy_`` and end in ``64_`` (64-bit sizes).
    Distributions link NumPy with the system's.
    """
    for path in _library_paths():
        for prefix in ("scipy_", ""):
            for suffix in ("64_", ""):
                try:
                    return _keep_quota(OpenBlas(ctypes.CDLL(path), prefix, suffix))
                except (OSError, AttributeError):
                    continue
    return None


def _keep_quota(blas: OpenBlas) -> OpenBlas:
    """Return an OpenBLAS with at most as many threads as this process may use, unless the environment sets them."""
    cores = available_cores()
    if cores < blas.initial_num_threads and not any(map(os.environ.get, _THREAD_VARIABLES)):
        blas.set_num_threads(cores)
        blas.initial_num_threads = cores
    return blas


@cache
def gemm_pointer(dtype: Any) -> int:
    """Return the address of ``cblas_sgemm`` or ``cblas_dgemm`` with 64-bit sizes, or 0 if there is none.

    dtype: float32 or float64; there is none for another dtype.
    """
    blas = find_openblas()
    gemm = None if blas is None else blas.gemm.get(dtype)
    return 0 if gemm is None else int(ctypes.cast(gemm, ctypes.c_void_p).value or 0)


class _OneBlasThread:
    """Context manager inside which OpenBLAS computes on the calling thread.

    Several threads may be inside at once. The last one to leave restores the number of threads from before the first.
    """

    def __init__(self) -> None:
        # A signal handler may compute while its thread holds the lock, so the lock is reentrant.
        self.lock, self.before = threading.RLock(), 0
        # Ids of the threads inside; an entry left by an interrupt is cleared when that thread enters again and leaves.
        self.inside: set[int] = set()

    def __enter__(self) -> None:
        blas = find_openblas()
        if blas is not None:
            with self.lock:
                if not self.inside:
                    self.before = blas.get_num_threads()
                self.inside.add(threading.get_ident())
                blas.set_num_threads(1)

    def __exit__(self, *exc: object) -> None:
        blas = find_openblas()
        if blas is not None:
            with self.lock:
                ident = threading.get_ident()
                if self.inside == {ident}:
                    blas.set_num_threads(self.before)
                self.inside.discard(ident)

    def reset(self) -> None:
        """Restore OpenBLAS's threads in a forked child, where only the thread that forked exists."""
        if self.inside and (blas := find_openblas()) is not None:
            blas.set_num_threads(self.before)
        self.lock, self.inside = threading.RLock(), set()


one_blas_thread = _OneBlasThread()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=one_blas_thread.reset)
