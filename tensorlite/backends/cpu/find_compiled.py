"""Find the compiled kernels: numba is an extra."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

__all__ = ["load_crew"]


@cache
def load_crew() -> Any:
    """The compiled part of sharing work, or None if nothing is: without numba, or with ``TENSORLITE_JIT=0``."""
    if os.environ.get("TENSORLITE_JIT") == "0":
        return None
    try:
        from . import compiled as crew
    except ImportError:
        return None
    return crew
