"""Matrix products of our own: what the processor can do."""

from __future__ import annotations

from functools import cache

from .find_compiled import find_compiled

__all__ = ["has_bfloat16_products"]


@cache
def has_bfloat16_products() -> bool:
    """Return whether a compiled kernel multiplies bfloat16 matrices by instructions of the processor for them."""
    if find_compiled() is None:
        return False
    from .compiled.simd import cpu_features  # imported here, because numba is an extra

    return "+avx512bf16" in cpu_features()
