"""Settings of glibc's malloc that keep the memory freed by one training step for the next.

By default glibc gets every large block from the operating system and returns it when it is freed. A training step
makes the same arrays as the step before, so it would pay each time for pages that the system clears first. That is
about a third of the time of a small GPT's step. With these settings the process keeps the memory instead, up to the
most that it has needed at once.

The settings are for the whole process. So they are made by the first backward pass, or by a call of
``keep_freed_memory``, and not by an import.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MAX_BLOCK = 32 << 20  # bytes: the largest threshold that glibc takes; the system still provides larger blocks
_MAX_KEPT = 1 << 30  # bytes

# If one of these is set, the user has configured malloc already.
SETTINGS = (
    "GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_",
)  # fmt: skip


@cache
def keep_freed_memory() -> bool:
    """Let malloc keep up to 1 GiB of freed memory in the process, in blocks of up to 32 MiB. Return whether it does.

    The first backward pass calls it. A program that only evaluates a model can call it itself, once. See mallopt(3).

    It does nothing if the C library is not glibc, if the environment has settings for malloc (such as
    ``MALLOC_TRIM_THRESHOLD_``), or with ``TENSORLITE_MALLOC=system``.
    """
    configured = os.environ.get("TENSORLITE_MALLOC") == "system" or any(name in os.environ for name in SETTINGS)
    if configured or not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - other C libraries have a mallopt with other meanings
        mallopt = libc.mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MAX_BLOCK)) and bool(mallopt(_M_TRIM_THRESHOLD, _MAX_KEPT))
