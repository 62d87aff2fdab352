"""Random numbers: one generator a device, seeded together, whose state can be saved and restored.

The CPU draws from NumPy's PCG64. Every other device draws from the counter-based Philox kernel, whose whole state is a
seed and how many blocks have been used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .backends.registry import BACKENDS, Array, Namespace
from .dtypes import DType

__all__ = ["Generator", "default_generator", "dropout_mask", "get_rng_state", "manual_seed", "set_rng_state"]


class Generator:
    """A source of random numbers for tensors on every device.

    seed: any int; None takes one from the operating system.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.manual_seed(np.random.SeedSequence().entropy if seed is None else seed)  # type: ignore[arg-type]

    def manual_seed(self, seed: int) -> Generator:
        """Start again from this seed. Returns the generator. Raises TypeError if it is not an int."""
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise TypeError(f"manual_seed: expected an int, got {type(seed).__name__}")
        sequence = np.random.SeedSequence(abs(int(seed)), spawn_key=(int(seed < 0),))
        self._cpu = np.random.Generator(np.random.PCG64(sequence))
        self._seed = int(sequence.generate_state(1, np.uint64)[0])
        self._offset = 0
        return self

    def get_state(self) -> dict[str, Any]:
        """All that decides the numbers to come, as a dict that JSON can hold."""
        return {
            "cpu": json.loads(json.dumps(self._cpu.bit_generator.state)),
            "seed": self._seed,
            "offset": self._offset,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that :meth:`get_state` gave. Raises ValueError for anything else."""
        try:
            seed, offset = int(state["seed"]), int(state["offset"])
            self._cpu.bit_generator.state = state["cpu"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"set_state: this is not a generator state from get_state(): {error}") from None
        self._seed, self._offset = seed, offset

    def _words(self, xp: Namespace, n: int) -> Array:
        words = xp.philox(self._seed, self._offset, n)
        self._offset += -(-n // 4)
        return words

    def uniform(self, xp: Namespace, shape: Sequence[int], dtype: DType) -> Array:
        """A raw array of numbers from [0, 1)."""
        if xp.device_type == "cpu":
            drawn = self._cpu.random(tuple(shape), np.float64 if dtype == np.float64 else np.float32)
            if dtype == np.float16:
                drawn = np.floor(drawn * 2048) / 2048  # to the nearest, it would be 1 now and then
            return np.asarray(drawn).astype(dtype, copy=False)
        n = math.prod(shape)
        if dtype == np.float64:
            words = self._words(xp, 2 * n)
            high, low = words[:n] >> 5, words[n:] >> 6
            return ((high * 67108864 + low).astype(dtype) * 2.0**-53).reshape(shape)
        bits = 24 if dtype == np.float32 else 11
        return ((self._words(xp, n) >> (32 - bits)).astype(dtype) * 2.0**-bits).reshape(shape)

    def normal(self, xp: Namespace, shape: Sequence[int], dtype: DType) -> Array:
        """A raw array of numbers from the standard normal distribution."""
        if xp.device_type == "cpu":
            drawn = self._cpu.standard_normal(tuple(shape), np.float64 if dtype == np.float64 else np.float32)
            return np.asarray(drawn).astype(dtype, copy=False)
        wide = dtype if dtype == np.float64 else np.dtype(np.float32)
        n = math.prod(shape)
        u = self.uniform(xp, (2, n), wide)  # Box-Muller
        drawn = xp.sqrt(-2.0 * xp.log(1.0 - u[0])) * xp.cos(2.0 * math.pi * u[1])
        return drawn.astype(dtype, copy=False).reshape(shape)

    def integers(self, xp: Namespace, low: int, high: int, shape: Sequence[int], dtype: DType) -> Array:
        """A raw array of integers from ``low`` to ``high - 1``."""
        if xp.device_type == "cpu":
            return np.asarray(self._cpu.integers(low, high, tuple(shape), np.int64)).astype(dtype, copy=False)
        n = math.prod(shape)
        words = self._words(xp, 2 * n)
        span = high - low  # 63 bits into at most 2**63 bins: the bias is below span / 2**63
        wide = ((words[:n] << 31) ^ words[n:]) & (2**63 - 1)
        return (low + (wide % span).astype(np.int64)).astype(dtype, copy=False).reshape(shape)

    def permutation(self, xp: Namespace, n: int) -> Array:
        """A raw array of the integers below n in random order."""
        return (
            self._cpu.permutation(n)
            if xp.device_type == "cpu"
            else xp.argsort(self.uniform(xp, (n,), np.dtype(np.float64)))
        )


default_generator = Generator()
"""What every function draws from that is not given a generator."""


def manual_seed(seed: int) -> Generator:
    """Seed the default generator, for all devices: the same seed gives the same numbers on the same kind of device."""
    return default_generator.manual_seed(seed)


def get_rng_state() -> dict[str, Any]:
    """The default generator's state, as a dict that JSON can hold."""
    return default_generator.get_state()


def set_rng_state(state: dict[str, Any]) -> None:
    """Put the default generator into a state that :func:`get_rng_state` gave."""
    default_generator.set_state(state)


def dropout_mask(like: Array, p: float, generator: Generator | None = None) -> Array:
    """Dropout's factors for an array: 0 with probability p, else ``1 / (1 - p)``, in its shape and dtype."""
    xp = BACKENDS[type(like)]
    if p >= 1:
        return xp.zeros_like(like)
    keep = (generator or default_generator).uniform(xp, like.shape, np.dtype(np.float32)) >= p
    return keep.astype(like.dtype) * (1.0 / (1.0 - p))
