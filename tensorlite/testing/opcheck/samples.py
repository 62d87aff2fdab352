"""The arguments of tests: which arrays a function takes, and from which numbers they are drawn.

    s(real(2, 3), positive(3), dim=-1)

is a call with an array of shape (2, 3), one of shape (3,), and ``dim=-1``. Each sample draws new arrays, but always the
same for the same random generator. The domains keep away from the kinks and poles of common functions, so that they are
smooth there. Arguments that are not Inputs are passed on unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dtypes import is_floating, kind_of
from ...pytree import tree_leaves, tree_map

__all__ = [
    "Input", "Sample", "bools", "distinct", "fixed", "given", "ints", "positive", "real", "s", "unit", "values",
    "whole",
]  # fmt: skip

Draw = Callable[[np.random.Generator, tuple[int, ...]], Any]

# ---- inputs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    """A placeholder for an array in a sample.

    shape: the shape of the array. draw: ``draw(rng, shape)`` returns the array, of float64, int64 or bool.
    grad: whether it is differentiated.
    A domain of your own: ``Input((2, 3), lambda rng, shape: rng.gamma(2.0, size=shape))``.
    """

    shape: tuple[int, ...]
    draw: Draw
    grad: bool = True

    def array(self, rng: np.random.Generator) -> np.ndarray:
        """Return a new array. Raise ValueError if ``draw`` returns another shape."""
        array = np.asarray(self.draw(rng, self.shape))
        if array.shape != self.shape:
            raise ValueError(f"Input: expected draw(rng, {self.shape}) to return that shape, got {array.shape}")
        return array


def _away_from_halves(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> Any:
    """Return numbers from ``low`` to ``high``, at least 0.1 away from each multiple of 1/2."""
    return rng.integers(2 * low, 2 * high, shape) / 2 + rng.uniform(0.1, 0.4, shape)


def real(*shape: int) -> Input:
    """Return an Input from -3 to 3, at least 0.1 away from multiples of 1/2: never 0, and rounding is smooth."""
    return Input(shape, lambda rng, n: _away_from_halves(rng, n, -3, 3))


def positive(*shape: int) -> Input:
    """Return an Input from 0.6 to 2.4, at least 0.1 away from 1, 1.5 and 2."""
    return Input(shape, lambda rng, n: 0.5 + _away_from_halves(rng, n, 0, 2))


def unit(*shape: int) -> Input:
    """Return an Input from -0.9 to 0.9, at least 0.1 away from 0 and ±1/2, for asin, atanh and similar functions."""
    return Input(shape, lambda rng, n: _away_from_halves(rng, n, -1, 1))


def whole(*shape: int) -> Input:
    """Return an Input near 2, 3, -2 and -3. It never equals a ``real`` number, and their quotients are no integers."""
    return Input(shape, lambda rng, n: rng.choice([-3, -2, 2, 3], n) + rng.uniform(-0.02, 0.02, n))


def distinct(*shape: int) -> Input:
    """Return an Input of numbers around 0, exactly 1/4 apart, in random order, for max, sort and similar functions."""
    return Input(shape, lambda rng, n: (rng.permutation(math.prod(n)).reshape(n) - math.prod(n) / 2 + 0.3) / 4)


def ints(below: int, *shape: int) -> Input:
    """Return an Input of integers from 0 to below - 1. It is not differentiated."""
    return Input(shape, lambda rng, n: rng.integers(0, below, n), grad=False)


def bools(*shape: int) -> Input:
    """Return an Input of True and False. It is not differentiated."""
    return Input(shape, lambda rng, n: rng.integers(0, 2, n) > 0, grad=False)


def values(entries: Any) -> Input:
    """Return an Input with these entries, an array or nested lists. It is differentiated if they are floats."""
    array = np.array(entries)
    if kind_of(array.dtype) not in "fiub":
        raise TypeError(f"values: expected numbers or booleans, got {entries!r:.60}")
    return Input(array.shape, lambda rng, n: array.copy(), grad=is_floating(array.dtype))


def given(*entries: Any, **strategies: Any) -> Any:
    """Return ``values(entries)``. This is the former name of :func:`values`.

    ``from tensorlite.testing import *`` does not import it, because hypothesis has a ``given``, too. For strategies it
    is that one.
    """
    if len(entries) == 1 and not strategies and not hasattr(entries[0], "flatmap"):
        return values(entries[0])
    if not entries and not strategies:
        raise TypeError("given: expected the entries of an array, got nothing")
    from hypothesis import given as of_hypothesis

    return of_hypothesis(*entries, **strategies)


def fixed(like: Input) -> Input:
    """Return the same Input without differentiation, for a mask or a target."""
    return Input(like.shape, like.draw, grad=False)


# ---- samples --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """The arguments of one call, with an Input for each array, also inside lists, tuples and dicts."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def inputs(self) -> list[Input]:
        """Return all Inputs in order."""
        return [leaf for leaf in tree_leaves([self.args, self.kwargs]) if isinstance(leaf, Input)]

    def arrays(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Return a new array for each Input."""
        return [i.array(rng) for i in self.inputs()]

    def fill(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return args and kwargs with these arrays or tensors instead of the Inputs."""
        rest = iter(arrays)
        args, kwargs = tree_map(lambda x: next(rest) if isinstance(x, Input) else x, [self.args, self.kwargs])
        return args, kwargs


def s(*args: Any, **kwargs: Any) -> Sample:
    """Return the Sample with these arguments."""
    return Sample(args, kwargs)
