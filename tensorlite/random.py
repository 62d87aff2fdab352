"""Random numbers for tensors: generators, seeds, states.

The CPU uses NumPy's PCG64. Every other device uses the counter-based Philox generator. A device's namespace names its
generator, ``xp.generator``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .backends.cpu.generator import Pcg64Generator
from .backends.philox import PhiloxGenerator
from .backends.registry import BACKENDS, Array, Namespace
from .dtypes import DType
from .scalars import int_in

__all__ = ["Generator", "default_generator", "dropout_mask", "get_rng_state", "manual_seed", "set_rng_state"]

_DEVICE_GENERATORS = (Pcg64Generator, PhiloxGenerator)


class _Replay(threading.local):
    """The generators that this thread replays: their own streams of numbers, by the id of the Generator, or None."""

    streams: dict[int, dict[type, Any]] | None = None


_replay = _Replay()


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
        self._set_streams({kind: kind(sequence) for kind in _DEVICE_GENERATORS})
        return self

    def _streams(self) -> dict[type, Any]:
        """Return the generator of each kind of device: this thread's own ones inside :func:`replayed`."""
        mine = _replay.streams
        return self._by_kind if mine is None else mine.get(id(self), self._by_kind)

    def _set_streams(self, streams: dict[type, Any]) -> None:
        if _replay.streams is not None and id(self) in _replay.streams:
            _replay.streams[id(self)] = streams
        else:
            self._by_kind = streams

    def get_state(self) -> dict[str, Any]:
        """Return the state, which determines all further numbers, as a dict that JSON can hold."""
        return {name: value for kind in self._streams().values() for name, value in kind.get_state().items()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state that :meth:`get_state` returned. Raises ValueError for anything else."""
        self._set_streams(_streams_of(state))

    def uniform(self, xp: Namespace, shape: Sequence[int], dtype: DType) -> Array:
        """Return a raw array of numbers from [0, 1)."""
        return self._streams()[xp.generator].uniform(xp, shape, dtype)

    def normal(self, xp: Namespace, shape: Sequence[int], dtype: DType) -> Array:
        """Return a raw array of numbers from the standard normal distribution."""
        return self._streams()[xp.generator].normal(xp, shape, dtype)

    def integers(self, xp: Namespace, low: int, high: int, shape: Sequence[int], dtype: DType) -> Array:
        """Return a raw array of integers from ``low`` to ``high - 1``."""
        return self._streams()[xp.generator].integers(xp, low, high, shape, dtype)

    def permutation(self, xp: Namespace, n: int) -> Array:
        """Return a raw array of the integers below ``n`` in random order."""
        return self._streams()[xp.generator].permutation(xp, n)


def _streams_of(state: dict[str, Any]) -> dict[type, Any]:
    """Return the generators of a state that ``get_state`` returned. Raises ValueError for anything else."""
    streams: dict[type, Any] = {kind: kind(np.random.SeedSequence(0)) for kind in _DEVICE_GENERATORS}
    try:
        for stream in streams.values():
            stream.set_state(state)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"set_state: this is not a generator state from get_state(): {error}") from None
    return streams


@contextmanager
def replayed(states: Iterable[tuple[Generator, dict[str, Any]]]) -> Iterator[None]:
    """Context manager in which generators start from the given states again, in this thread alone.

    Afterwards they go on where they were.
    """
    before, streams = _replay.streams, dict(_replay.streams or {})
    for generator, state in states:
        streams[id(generator)] = _streams_of(state)
    _replay.streams = streams
    try:
        yield
    finally:
        _replay.streams = before


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
    return kept.astype(like.dtype) * like.dtype.type(1.0 / (1.0 - p))  # ml_dtypes makes float32 of a Python float
