"""Detection of the compiled kernels, which need numba."""

from __future__ import annotations

import os
import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

from .environment import is_on

__all__ = ["find_compiled"]


@cache
def find_compiled() -> Any:
    """Return the package ``compiled``, or None if numba is not installed or ``TENSORLITE_JIT=0`` is set.

    The first call imports numba, which takes about half a second. If numba is installed and fails, this warns once and
    returns None, because NumPy alone computes the same, to rounding, in more time.
    """
    if not is_on("TENSORLITE_JIT", default=True) or os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return None
    if find_spec("numba") is None:
        return None
    try:
        from . import compiled
    except Exception as error:  # a broken compiler may raise anything
        warnings.warn(
            f"tensorlite: numba is installed but does not work ({type(error).__name__}: {error}), so NumPy alone "
            "computes, which takes several times as long. Reinstall numba and llvmlite, or set TENSORLITE_JIT=0.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return compiled
