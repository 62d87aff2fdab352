"""Cached strategies that the other modules draw from."""

from __future__ import annotations

from functools import lru_cache

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["BOOLEANS", "byte_strings", "integers"]

BOOLEANS = st.booleans()


@lru_cache(maxsize=1024)
def byte_strings(size: int) -> SearchStrategy[bytes]:
    """Return a strategy for bytes of this length."""
    return st.binary(min_size=size, max_size=size)


@lru_cache(maxsize=256)
def integers(low: int, high: int) -> SearchStrategy[int]:
    """Return a strategy for integers from low to high, both included."""
    return st.integers(low, high)
