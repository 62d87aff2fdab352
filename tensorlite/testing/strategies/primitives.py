"""Cached strategies that the other files draw from."""

from __future__ import annotations

from functools import lru_cache

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["BOOLEANS", "byte_strings", "integers"]

BOOLEANS = st.booleans()


@lru_cache(maxsize=1024)
def byte_strings(size: int) -> SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


@lru_cache(maxsize=256)
def integers(low: int, high: int) -> SearchStrategy[int]:
    return st.integers(low, high)
