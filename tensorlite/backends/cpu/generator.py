"""Random numbers for NumPy arrays, by NumPy's PCG64."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...dtypes import DIGITS, DType
from ..words import require_word

__all__ = ["Pcg64Generator"]

Array = Any
XP = Any


class Pcg64Generator:
    """A random number generator for NumPy arrays, with the methods of :class:`PhiloxGenerator`."""

    def __init__(self, seed: np.random.SeedSequence) -> None:
        self._numpy = np.random.Generator(np.random.PCG64(seed))

    def get_state(self) -> dict[str, Any]:
        """Return the state as a dict that JSON can hold."""
        return {"cpu": json.loads(json.dumps(self._numpy.bit_generator.state))}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state. Raises KeyError, TypeError or ValueError for anything else, and then changes nothing."""
        words, numbers = state["cpu"], state["cpu"]["state"]
        if words["bit_generator"] != "PCG64":
            raise ValueError(f"expected the state of a PCG64, got one of {words['bit_generator']!r:.80}")
        # NumPy raises OverflowError for some numbers out of range, and takes others modulo a power of 2.
        require_word("state", numbers["state"], 128)
        require_word("inc", numbers["inc"], 128)
        require_word("has_uint32", words["has_uint32"], 1)
        require_word("uinteger", words["uinteger"], 32)
        self._numpy.bit_generator.state = words

    def uniform(self, xp: XP, shape: Sequence[int], dtype: DType) -> Array:
        """Return an array of numbers from [0, 1)."""
        drawn = self._numpy.random(tuple(shape), np.float64 if dtype == np.float64 else np.float32)
        if (bits := DIGITS[dtype.char]) < 24:
            drawn = np.floor(drawn * 2.0**bits) * 2.0**-bits  # because rounding to the nearest would sometimes give 1
        return np.asarray(drawn).astype(dtype, copy=False)

    def normal(self, xp: XP, shape: Sequence[int], dtype: DType) -> Array:
        """Return an array of numbers from the standard normal distribution."""
        drawn = self._numpy.standard_normal(tuple(shape), np.float64 if dtype == np.float64 else np.float32)
        return np.asarray(drawn).astype(dtype, copy=False)

    def integers(self, xp: XP, low: int, high: int, shape: Sequence[int], dtype: DType) -> Array:
        """Return an array of integers from ``low`` to ``high - 1``."""
        return np.asarray(self._numpy.integers(low, high, tuple(shape), np.int64)).astype(dtype, copy=False)

    def permutation(self, xp: XP, n: int) -> Array:
        """Return an array of the integers below ``n`` in random order."""
        return self._numpy.permutation(n)
