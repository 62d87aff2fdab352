"""Checks of matrices, and calls of LAPACK whose errors say which matrix failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.graph import Value
from ..backends.registry import Array
from ..errors import DTypeError, LinAlgError, ShapeError
from .shape import transpose

__all__ = ["call_lapack", "check_matrices", "flipped"]


def check_matrices(x: Array, square: bool = True) -> None:
    """Check an argument of a function of matrices.

    Raises ShapeError unless x is (..., n, m), with n equal to m if ``square``. Raises DTypeError unless it holds
    floating point numbers of 32 or 64 bits: LAPACK has no others.
    """
    if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
        raise ShapeError(f"expected matrices {'(..., n, n)' if square else '(..., n, m)'}, got shape {x.shape}")
    if x.dtype.kind not in "fc" or x.dtype.itemsize < 4:
        raise DTypeError(f"expected floating point numbers of 32 or 64 bits, got {x.dtype}. Convert with .float().")


def call_lapack(problem: str, f: Callable[..., Any], *arrays: Array) -> Any:
    """Return ``f(*arrays)`` for stacks of matrices of one batch shape.

    problem: what is wrong with a matrix if f raises, such as "is singular".

    Raises LinAlgError, which names the first matrix that f refuses. NumPy reports this; CuPy returns NaN instead,
    because a check would force a sync.
    """
    try:
        return f(*arrays)
    except np.linalg.LinAlgError:
        raise LinAlgError(f"the matrix{_first_refused(f, arrays)} {problem}") from None


def _first_refused(f: Callable[..., Any], arrays: tuple[Array, ...]) -> str:
    """Return " at (1, 0)" for the first matrix of a batch that f refuses, "" without a batch."""
    for index in np.ndindex(arrays[0].shape[:-2]):
        try:
            f(*(a[index] for a in arrays))
        except np.linalg.LinAlgError:
            return f" at {index}" if index else ""
    return ""


def flipped(x: Value) -> Value:
    """Return the transposes of matrices (..., n, m), as (..., m, n)."""
    return transpose(x, -2, -1)
