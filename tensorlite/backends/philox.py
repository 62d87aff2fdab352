"""Counter-based random numbers, the same on every device that computes them.

The words come from the kernel ``philox``. Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dtypes import DIGITS, DType
from .words import require_word

__all__ = ["PhiloxGenerator"]

Array = Any
XP = Any

_drawing = threading.Lock()  # so that two threads never get the same numbers


class PhiloxGenerator:
    """A random number generator with a 64-bit seed and the number of used blocks as its whole state.

    A block is four 32-bit words; a draw uses whole blocks. ``xp`` is the namespace that computes the numbers.
    """

    def __init__(self, seed: np.random.SeedSequence) -> None:
        self._seed = int(seed.generate_state(1, np.uint64)[0])
        self._offset = 0

    def get_state(self) -> dict[str, Any]:
        """Return the state as a dict that JSON can hold."""
        return {"seed": self._seed, "offset": self._offset}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state. Raises KeyError, TypeError or ValueError for anything else, and then changes nothing."""
        self._seed, self._offset = require_word("seed", state["seed"], 64), require_word("offset", state["offset"], 63)

    def _words(self, xp: XP, n: int) -> Array:
        with _drawing:
            start = self._offset
            self._offset += -(-n // 4)
        return xp.philox(self._seed, start, n)

    def uniform(self, xp: XP, shape: Sequence[int], dtype: DType) -> Array:
        """Return an array of numbers from [0, 1)."""
        n = math.prod(shape)
        if dtype == np.float64:
            words = self._words(xp, 2 * n)
            high, low = words[:n] >> 5, words[n:] >> 6
            return ((high * 67108864 + low).astype(dtype) * 2.0**-53).reshape(shape)
        bits = DIGITS[dtype.char]
        drawn = (self._words(xp, n) >> (32 - bits)).astype(np.float32) * 2.0**-bits
        return drawn.astype(dtype, copy=False).reshape(shape)

    def normal(self, xp: XP, shape: Sequence[int], dtype: DType) -> Array:
        """Return an array of numbers from the standard normal distribution (Box-Muller transform)."""
        wide = dtype if dtype == np.float64 else np.dtype(np.float32)
        u = self.uniform(xp, (2, math.prod(shape)), wide)
        drawn = xp.sqrt(-2.0 * xp.log(1.0 - u[0])) * xp.cos(2.0 * math.pi * u[1])
        return drawn.astype(dtype, copy=False).reshape(shape)

    def integers(self, xp: XP, low: int, high: int, shape: Sequence[int], dtype: DType) -> Array:
        """Return an array of integers from ``low`` to ``high - 1``."""
        n = math.prod(shape)
        words = self._words(xp, 2 * n)
        span = high - low  # 63 bits are mapped to at most 2**63 integers, so the bias is below span / 2**63
        wide = ((words[:n] << 31) ^ words[n:]) & (2**63 - 1)
        return (low + (wide % span).astype(np.int64)).astype(dtype, copy=False).reshape(shape)

    def permutation(self, xp: XP, n: int) -> Array:
        """Return an array of the integers below ``n`` in random order."""
        return xp.argsort(self.uniform(xp, (n,), np.dtype(np.float64)))
