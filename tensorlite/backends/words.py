"""The check of a number in the saved state of a random generator."""

from __future__ import annotations

from typing import Any

__all__ = ["require_word"]


def require_word(key: str, value: Any, bits: int) -> int:
    """Return a non-negative int of at most ``bits`` bits. Raises TypeError or ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{key} must be an int, got {type(value).__name__}")
    if not 0 <= value < 2**bits:
        given = "a negative number" if value < 0 else "a larger one"  # It may be too long to print.
        raise ValueError(f"{key} must be at least 0 and below 2**{bits}, got {given}")
    return value
