"""The exercises of chapter 8: testing gradients."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from .exercises import Chapter, Exercise, Mistake

__all__ = ["CHAPTER"]

Array = np.ndarray
ArrayFunction = Callable[[Array], Array]
Function = Callable[[float], float]
Numbers = tuple[int, ...]
Fails = Callable[[Numbers], bool]


def directional_slope(f: ArrayFunction, x: Array, g: Array, v: Array, step: float = 1e-6) -> float:
    """Return the slope of the sum of g * f(x) along the direction v, by a finite difference.

    Call f twice: at x + step * v, and at x - step * v. This one number checks a whole gradient d of x: it must be the
    sum of d * v. f takes and returns an array. v has the shape of x, and g that of f(x).

    >>> directional_slope(lambda x: x * x, np.array([1.0, 2.0]), np.array([1.0, 10.0]), np.array([1.0, -1.0]), 0.5)
    -38.0
    """
    return float((g * (f(x + step * v) - f(x - step * v))).sum() / (2 * step))


def slope_range(f: Function, x: float, step: float = 1e-6) -> tuple[float, float]:
    """Return the smallest and the largest slope that a gradient of f may have at x.

    f may have a kink at x. Compute the slope on the right of x, between x and x + step, and that on the left, between
    x - step and x. Return a tuple: the smaller of the two first.

    >>> slope_range(lambda x: max(x, 0.0), 0.0, 0.5)
    (0.0, 1.0)
    """
    right, left = (f(x + step) - f(x)) / step, (f(x) - f(x - step)) / step
    return min(left, right), max(left, right)


def shrink(fails: Fails, numbers: Numbers) -> Numbers:
    """Return the numbers, made as few and as simple as possible, so that the test still fails.

    fails is a function of a tuple of numbers: True if the test fails. `numbers` is a tuple that fails. A trial leaves
    out one number. If no such trial fails, a trial replaces one number by 0, if it is not 0 already. Keep the numbers
    of a trial that fails, and begin again with them. Return a tuple of which no trial fails.

    >>> shrink(lambda numbers: 9 in numbers, (3, 9, 4))
    (9,)
    >>> shrink(lambda numbers: len(numbers) > 1, (3, 9, 4))
    (0, 0)
    """
    for trial in _trials(numbers):
        if trial != numbers and fails(trial):
            return shrink(fails, trial)
    return numbers


def _trials(numbers: Numbers) -> list[Numbers]:
    """Return what `shrink` tries: one number less, then one number replaced by 0."""
    places = range(len(numbers))
    fewer = [numbers[:i] + numbers[i + 1 :] for i in places]
    return fewer + [(*numbers[:i], 0, *numbers[i + 1 :]) for i in places]


# ---- calls ----------------------------------------------------------------------------------------------------------


def _squares(x: Array) -> Array:
    """f, where f(x) = x * x"""
    return x * x


def _sines(x: Array) -> Array:
    """f, where f(x) = np.sin(x)"""
    return np.sin(x)


def _product(x: Array) -> Array:
    """f, where f(x) = x @ [[1, 2, 3], [0, -1, 4]]"""
    return x @ np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 4.0]])


def _absolute(x: float) -> float:
    """f, where f(x) = abs(x)"""
    return abs(x)


def _hat(x: float) -> float:
    """f, where f(x) = min(x, 2 - x)"""
    return min(x, 2 - x)


def _steep(x: float) -> float:
    """f, where f(x) = max(x, 3 * x)"""
    return max(x, 3 * x)


def _parabola(x: float) -> float:
    """f, where f(x) = x * x"""
    return x * x


def _has_nine(numbers: Numbers) -> bool:
    """fails if a number is above 8"""
    return any(n > 8 for n in numbers)


def _is_long(numbers: Numbers) -> bool:
    """fails for 3 numbers or more"""
    return len(numbers) >= 3


def _has_pair(numbers: Numbers) -> bool:
    """fails if two neighbours are the same number, which is not 0"""
    return any(a == b != 0 for a, b in pairwise(numbers))


def _has_seven(numbers: Numbers) -> bool:
    """fails if there is a 7, and no 2 without a 3"""
    return 7 in numbers and (2 not in numbers or 3 in numbers)


def _one_zero(numbers: Numbers) -> bool:
    """fails for exactly one 0, and for 2 numbers without a 0"""
    return numbers.count(0) == 1 or (len(numbers) == 2 and 0 not in numbers)


_X, _G, _V = np.array([1.0, 2.0]), np.array([1.0, 10.0]), np.array([0.5, -1.0])


# ---- mistakes -------------------------------------------------------------------------------------------------------


def _without_g(f: ArrayFunction, x: Array, g: Array, v: Array, step: float = 1e-6) -> float:
    return directional_slope(f, x, np.ones(np.shape(g)), v, step)


def _without_v(f: ArrayFunction, x: Array, g: Array, v: Array, step: float = 1e-6) -> float:
    return float((g * (f(x + step) - f(x - step))).sum() / (2 * step))


def _whole_v(f: ArrayFunction, x: Array, g: Array, v: Array, step: float = 1e-6) -> float:
    return float((g * (f(x + v) - f(x - v))).sum() / 2)


def _unit_v(f: ArrayFunction, x: Array, g: Array, v: Array, step: float = 1e-6) -> float:
    return directional_slope(f, x, g, v / np.linalg.norm(v), step)


def _one_side(f: ArrayFunction, x: Array, g: Array, v: Array, step: float = 1e-6) -> float:
    return float((g * (f(x + step * v) - f(x))).sum() / step)


def _half_distance(f: ArrayFunction, x: Array, g: Array, v: Array, step: float = 1e-6) -> float:
    return 2 * directional_slope(f, x, g, v, step)


def _divided_and_multiplied(f: ArrayFunction, x: Array, g: Array, v: Array, step: float = 1e-6) -> float:
    return float((g * (f(x + step * v) - f(x - step * v))).sum() / 2 * step)


def _v_afterwards(f: ArrayFunction, x: Array, g: Array, v: Array, step: float = 1e-6) -> float:
    return float((g * (f(x + step) - f(x - step)) * v).sum() / (2 * step))


def _not_summed(f: ArrayFunction, x: Array, g: Array, v: Array, step: float = 1e-6) -> Array:
    return g * (f(x + step * v) - f(x - step * v)) / (2 * step)


def _mean(f: ArrayFunction, x: Array, g: Array, v: Array, step: float = 1e-6) -> float:
    return float((g * (f(x + step * v) - f(x - step * v))).mean() / (2 * step))


def _left_right(f: Function, x: float, step: float = 1e-6) -> tuple[float, float]:
    return (f(x) - f(x - step)) / step, (f(x + step) - f(x)) / step


def _right_left(f: Function, x: float, step: float = 1e-6) -> tuple[float, float]:
    low, high = slope_range(f, x, step)
    return high, low


def _central(f: Function, x: float, step: float = 1e-6) -> tuple[float, float]:
    slope = (f(x + step) - f(x - step)) / (2 * step)
    return slope, slope


def _undivided(f: Function, x: float, step: float = 1e-6) -> tuple[float, float]:
    low, high = slope_range(f, x, step)
    return low * step, high * step


def _left_sign(f: Function, x: float, step: float = 1e-6) -> tuple[float, float]:
    right, left = (f(x + step) - f(x)) / step, (f(x - step) - f(x)) / step
    return min(left, right), max(left, right)


def _not_shrunk(fails: Fails, numbers: Numbers) -> Numbers:
    return numbers


def _only_fewer(fails: Fails, numbers: Numbers) -> Numbers:
    for i in range(len(numbers)):
        trial = numbers[:i] + numbers[i + 1 :]
        if trial and fails(trial):
            return _only_fewer(fails, trial)
    return numbers


def _only_zeros(fails: Fails, numbers: Numbers) -> Numbers:
    for i in range(len(numbers)):
        trial = (*numbers[:i], 0, *numbers[i + 1 :])
        if fails(trial):
            numbers = trial
    return numbers


def _one_pass(fails: Fails, numbers: Numbers) -> Numbers:
    i = 0
    while i < len(numbers):
        trial = numbers[:i] + numbers[i + 1 :]
        if trial and fails(trial):
            numbers = trial
        else:
            i += 1
    return _only_zeros(fails, numbers)


def _one_trial(fails: Fails, numbers: Numbers) -> Numbers:
    return next((trial for trial in _trials(numbers) if trial != numbers and fails(trial)), numbers)


def _zeros_last(fails: Fails, numbers: Numbers) -> Numbers:
    """Leave out numbers until none can be left out, then replace numbers by 0, and never leave out any again."""
    return _only_zeros(fails, _only_fewer(fails, numbers))


def _each_zero_alone(fails: Fails, numbers: Numbers) -> Numbers:
    numbers = _only_fewer(fails, numbers)
    return tuple(0 if fails((*numbers[:i], 0, *numbers[i + 1 :])) else n for i, n in enumerate(numbers))


def _shortest(fails: Fails, numbers: Numbers) -> Numbers:
    return (0,)


CHAPTER = Chapter(
    8,
    "testing gradients",
    "docs/learn/8-testing-gradients.md",
    (
        Exercise(
            directional_slope,
            (
                (_squares, _X, _G, _V, 0.5), (_squares, _X, _G, _V), (_sines, _X, _G, _V),
                (_product, _X, np.array([1.0, 0.0, -2.0]), _V), (_squares, np.array([[3.0]]), np.array([[2.0]]),
                                                                 np.array([[-1.0]])),
            ),
            "Move all of x at once: by step * v to one side and to the other. Weight the difference with g, and sum.",
            (
                Mistake(_without_g, "Multiply the difference of the results by g before you sum: g weights them."),
                Mistake(_without_v, "This moves each entry by the same step. Move x by step * v."),
                Mistake(_whole_v, "This moves x by the whole of v. Move it by step * v, and divide by 2 * step."),
                Mistake(_unit_v, "Do not divide v by its length: the sum of d * v has the whole v."),
                Mistake(_one_side, "This looks at one side of x only. Use x + step * v and x - step * v."),
                Mistake(_half_distance, "The two points are 2 * step apart, not step."),
                Mistake(_divided_and_multiplied, "`/ 2 * step` divides by 2 and multiplies by step. "
                                                 "Write `/ (2 * step)`."),
                Mistake(_v_afterwards, "v belongs to x, not to the result: move x by step * v. Do not multiply later."),
                Mistake(_mean, "This is a mean over the entries. The slope of the sum is the sum."),
                Mistake(_not_summed, "The result is one number: sum over the entries."),
            ),
            tolerance=1e-6,
        ),
        Exercise(
            slope_range,
            ((_absolute, 0.0, 0.5), (_absolute, 0.0), (_hat, 1.0), (_steep, 0.0), (_parabola, 3.0), (_absolute, -2.0)),
            "Compute (f(x + step) - f(x)) / step and (f(x) - f(x - step)) / step, and put the smaller one first.",
            (
                Mistake(_left_right, "This is the left slope, then the right one. The smaller one must come first."),
                Mistake(_right_left, "The smaller slope comes first, then the larger one."),
                Mistake(_central, "A difference with a point on each side is the mean of both slopes. "
                                  "Compute each side by itself."),
                Mistake(_undivided, "These are differences. Divide each of them by step."),
                Mistake(_left_sign, "The left slope is (f(x) - f(x - step)) / step. Yours has the other sign."),
            ),
            parts=("the smallest slope", "the largest slope"),
            tolerance=1e-4,
        ),
        Exercise(
            shrink,
            (
                (_has_nine, (3, 9, 4)), (_is_long, (5, 1, 4, 2, 8)), (_has_pair, (3, 1, 4, 4, 1)),
                (_has_seven, (3, 2, 7)), (_has_seven, (7,)), (_one_zero, (3, 5)),
            ),
            "Write a loop: look for a trial that fails. If there is one, go on with it. If there is none, return.",
            (
                Mistake(_not_shrunk, "These are the numbers that were given. Try to leave out one of them."),
                Mistake(_only_fewer, "No number can be left out any more. Now try to replace each of them by 0."),
                Mistake(_only_zeros, "This replaces numbers by 0. First try to leave numbers out."),
                Mistake(_one_pass, "A number that could not be left out may become useless later. "
                                   "Begin again after each trial that fails."),
                Mistake(_each_zero_alone, "Two numbers may each become 0, but not both. Keep the first trial that "
                                          "fails, and begin again with it."),
                Mistake(_zeros_last, "After a number has become 0, another one may be left out. "
                                     "Begin again after each trial that fails."),
                Mistake(_one_trial, "This is the first trial that fails. Go on with it until no trial fails."),
                Mistake(_shortest, "These numbers do not fail. Keep a trial only if fails(trial) is True."),
            ),
        ),
    ),
)
