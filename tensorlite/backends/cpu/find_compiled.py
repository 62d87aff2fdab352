"""Detection of the compiled kernels, which need numba."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

__all__ = ["find_compiled"]


@cache
def find_compiled() -> Any:
    """Return the package ``compiled``, or None if numba is not installed or ``TENSORLITE_JIT=0`` is set.

    The first call imports numba, which takes about half a second.
    """
    if os.environ.get("TENSORLITE_JIT") == "0":
        return None
    try:
        from . import compiled
    except ImportError:
        return None
    return compiled
