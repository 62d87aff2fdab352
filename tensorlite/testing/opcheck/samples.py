"""A small language for the arguments of a test: which arrays a function takes, and from which numbers they are drawn.

    s(real(2, 3), positive(3), dim=-1)

is a call with an array of shape (2, 3), one of shape (3,), and ``dim=-1``. An array is drawn anew for each sample, but
always the same for the same random generator. The domains keep away from the kinks and poles of common functions, so
that differences see a smooth function there. Whatever is not an array is passed on as it is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...pytree import tree_leaves, tree_map

__all__ = ["Input", "Sample", "bools", "distinct", "fixed", "given", "ints", "positive", "real", "s", "unit", "whole"]

Draw = Callable[[np.random.Generator, tuple[int, ...]], Any]

# ---- inputs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    """The place of an array in a sample.

    shape: of the array. draw: ``draw(rng, shape)`` makes it, of float64, int64 or bool. grad: whether it is
    differentiated. A domain of one's own: ``Input((2, 3), lambda rng, shape: rng.gamma(2.0, size=shape))``.
    """

    shape: tuple[int, ...]
    draw: Draw
    grad: bool = True

    def array(self, rng: np.random.Generator) -> np.ndarray:
        """A new array. Raises ValueError if ``draw`` does not keep to the shape."""
        array = np.asarray(self.draw(rng, self.shape))
        if array.shape != self.shape:
            raise ValueError(f"Input: draw(rng, {self.shape}) made an array of shape {array.shape}")
        return array


def _off_the_halves(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> Any:
    """From ``low`` to ``high``, and 0.1 or more from each multiple of 1/2."""
    return rng.integers(2 * low, 2 * high, shape) / 2 + rng.uniform(0.1, 0.4, shape)


def real(*shape: int) -> Input:
    """From -3 to 3, at least 0.1 from the multiples of 1/2: no zeros, and rounding is smooth there."""
    return Input(shape, lambda rng, n: _off_the_halves(rng, n, -3, 3))


def positive(*shape: int) -> Input:
    """From 0.6 to 2.4, off 1, 1.5 and 2."""
    return Input(shape, lambda rng, n: 0.5 + _off_the_halves(rng, n, 0, 2))


def unit(*shape: int) -> Input:
    """From -0.9 to 0.9, off 0 and 1/2: for asin, atanh and their like."""
    return Input(shape, lambda rng, n: _off_the_halves(rng, n, -1, 1))


def whole(*shape: int) -> Input:
    """Near 2, 3, -2 and -3: never equal to ``real`` numbers, which divided by them are not near an integer."""
    return Input(shape, lambda rng, n: rng.choice([-3, -2, 2, 3], n) + rng.uniform(-0.02, 0.02, n))


def distinct(*shape: int) -> Input:
    """Numbers around 0 in random order, exactly 1/4 apart: for what depends on the order, such as max and sort."""
    return Input(shape, lambda rng, n: (rng.permutation(math.prod(n)).reshape(n) - math.prod(n) / 2 + 0.3) / 4)


def ints(below: int, *shape: int) -> Input:
    """Integers from 0 up to, not including, ``below``. Not differentiated."""
    return Input(shape, lambda rng, n: rng.integers(0, below, n), grad=False)


def bools(*shape: int) -> Input:
    """True or False. Not differentiated."""
    return Input(shape, lambda rng, n: rng.integers(0, 2, n) > 0, grad=False)


def given(values: Any) -> Input:
    """These very values, an array or nested lists. They are differentiated if they are floats."""
    array = np.array(values)
    return Input(array.shape, lambda rng, n: array.copy(), grad=array.dtype.kind == "f")


def fixed(like: Input) -> Input:
    """The same input, but not differentiated: a mask, say, or a target."""
    return Input(like.shape, like.draw, grad=False)


# ---- samples --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """The arguments of one call, with an Input in the place of each array, in lists, tuples and dicts too."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def inputs(self) -> list[Input]:
        """All arrays that it takes, in order."""
        return [leaf for leaf in tree_leaves([self.args, self.kwargs]) if isinstance(leaf, Input)]

    def arrays(self, rng: np.random.Generator) -> list[np.ndarray]:
        """An array for each input."""
        return [i.array(rng) for i in self.inputs()]

    def fill(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with these, arrays or tensors, in the places of its inputs."""
        rest = iter(arrays)
        args, kwargs = tree_map(lambda x: next(rest) if isinstance(x, Input) else x, [self.args, self.kwargs])
        return args, kwargs


def s(*args: Any, **kwargs: Any) -> Sample:
    """The sample with these arguments."""
    return Sample(args, kwargs)
