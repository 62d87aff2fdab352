"""Random numbers for tensors: generators, seeds, states.

The CPU uses NumPy's PCG64. Every other device uses the counter-based Philox generator. A device's namespace names its
generator, ``xp.generator``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .backends.cpu.generator import Pcg64Generator
from .backends.philox import PhiloxGenerator
from .backends.registry import BACKENDS, Array, Namespace
from .dtypes import DType
from .scalars import int_in

__all__ = ["Generator", "default_generator", "dropout_mask", "get_rng_state", "manual_seed", "set_rng_state"]

_DEVICE_GENERATORS = (Pcg64Generator, PhiloxGenerator)


class Generator:
    """A source of random numbers for tensors on every device.

    seed: any int; None takes one from the operating system.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.manual_seed(np.random.SeedSequence().entropy if seed is None else seed)  # type: ignore[arg-type]

    def manual_seed(self, seed: int) -> Generator:
        """Restart the generator from a seed, any int. Return the generator. Raises TypeError for anything else."""
        seed = int_in("manual_seed", "the seed", seed)
        sequence = np.random.SeedSequence(abs(seed), spawn_key=(int(seed < 0),))
        self._by_kind: dict[type, Any] = {kind: kind(sequence) for kind in _DEVICE_GENERATORS}
        return self

    def get_state(self) -> dict[str, Any]:
        """Return the state, which determines all further numbers, as a dict that JSON can hold."""
        return {name: value for kind in self._by_kind.values() for name, value in kind.get_state().items()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state that :meth:`get_state` returned. Raises ValueError for anything else."""
        restored = Generator(0)
        try:
            for kind in restored._by_kind.values():
                kind.set_state(state)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"set_state: this is not a generator state from get_state(): {error}") from None
        self._by_kind = restored._by_kind

    def uniform(self, xp: Namespace, shape: Sequence[int], dtype: DType) -> Array:
        """Return a raw array of numbers from [0, 1)."""
        return self._by_kind[xp.generator].uniform(xp, shape, dtype)

    def normal(self, xp: Namespace, shape: Sequence[int], dtype: DType) -> Array:
        """Return a raw array of numbers from the standard normal distribution."""
        return self._by_kind[xp.generator].normal(xp, shape, dtype)

    def integers(self, xp: Namespace, low: int, high: int, shape: Sequence[int], dtype: DType) -> Array:
        """Return a raw array of integers from ``low`` to ``high - 1``."""
        return self._by_kind[xp.generator].integers(xp, low, high, shape, dtype)

    def permutation(self, xp: Namespace, n: int) -> Array:
        """Return a raw array of the integers below ``n`` in random order."""
        return self._by_kind[xp.generator].permutation(xp, n)


default_generator = Generator()
"""The generator of every function that is not given one."""


def manual_seed(seed: int) -> Generator:
    """Seed the default generator for all devices, and return it.

    The same seed gives the same numbers on the same kind of device. Raises TypeError if the seed is not an int.
    """
    return default_generator.manual_seed(seed)


def get_rng_state() -> dict[str, Any]:
    """Return the default generator's state as a dict that JSON can hold."""
    return default_generator.get_state()


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore a state of the default generator that :func:`get_rng_state` returned. Raises ValueError otherwise."""
    default_generator.set_state(state)


def dropout_mask(like: Array, p: float, generator: Generator | None = None) -> Array:
    """Return dropout's factors for an array: 0 with probability p, else ``1 / (1 - p)``, in its shape and dtype."""
    xp = BACKENDS[type(like)]
    if p >= 1:
        return xp.zeros_like(like)
    kept = (generator or default_generator).uniform(xp, like.shape, np.dtype(np.float32)) >= p
    return kept.astype(like.dtype) * (1.0 / (1.0 - p))
