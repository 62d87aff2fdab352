"""Memory that one training step gives back is there for the next: glibc's malloc, told to keep it.

By default glibc asks the operating system for every large block and returns it as soon as it is free. A training step
makes the same arrays each time, so it would pay each time for pages that the system first has to clear: about a third
of a small GPT's step. Kept, they cost nothing; the process holds on to the most that it has needed.
"""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_BLOCK = 32 << 20  # the largest threshold that glibc takes; larger blocks still come from the system
_KEPT = 1 << 30

# Where one of these is set, someone has decided already.
_SETTINGS = (
    "GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_",
)  # fmt: skip


def keep_freed_memory() -> bool:
    """Let malloc keep up to 1 GiB of freed memory in the process, in blocks of up to 32 MiB. Returns whether it does.

    It does nothing with another C library than glibc, where the environment has settings for malloc, or with
    ``TENSORLITE_MALLOC=system``. See mallopt(3).
    """
    wanted = os.environ.get("TENSORLITE_MALLOC") != "system" and not any(name in os.environ for name in _SETTINGS)
    if not wanted or not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - other C libraries have mallopt too, with other meanings
        mallopt = libc.mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))
