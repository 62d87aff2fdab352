"""Numerical derivatives of functions of arrays, each with an estimate of its error, and with what is seen at a kink.

The derivative of F(t) at 0 by central differences of order 4 (Fornberg 1988, table 1), at steps h from 7e-4 to 4e-8:

    D(h) = (8 (F(h) - F(-h)) - (F(2h) - F(-2h))) / 12h        error: h^4 F'''''/30 + rounding / h

Large steps err by truncation, small ones by rounding. Neither is known, but their sum shows in how much D changes from
one step to the next, so the step is taken at which that is least, separately for each entry of F. Steps have twenty
binary digits: x + h is exact where x is a multiple of 1/8, as the numbers of ``elements`` are.

One-sided differences of order 2 use the same values of F. Where they converge to two different numbers there is a kink.

The complex step F'(0) = Im F(ih)/h with h = 1e-20 (Squire and Trapp 1998) has no rounding error at all, if F is
analytic and its code is too: it is silently wrong for abs, sign or max. So it is believed only where it agrees
with the differences to their precision, and then gives the digits that they cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["COMPLEX_STEP", "STEPS", "Slope", "complex_slope", "slope"]

# Few binary digits, so that x + h is exact; but not too few, or floor(x), or round(128 x) / 128, would be a line.
STEPS = tuple(767041 / 2**20 * 2.0**-k for k in (10, 11, 14, 17, 20, 24))
COMPLEX_STEP = 1e-20

_EPS = float(np.finfo(np.float64).eps)
_SMOOTH = 2e-9  # two steps that agree so well need no other
_KINK = 1e-3  # a part of the one-sided derivatives by which they must differ at a kink


@dataclass
class Slope:
    """The derivative of each entry of F along one direction; all arrays have the shape of F, flattened.

    value, error: the derivative and how far it may be off (inf: not known). step: the step that gave it, 0 for the
    complex step. kink: where there is one; left, right: the one-sided derivatives there. lowest, highest: of what all
    steps gave; where they disagree by accident as little as garbage may, the truth is hardly outside of these.
    """

    value: np.ndarray
    error: np.ndarray
    step: np.ndarray
    kink: np.ndarray
    left: np.ndarray
    right: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray


def slope(F: Callable[[float], np.ndarray], at_zero: np.ndarray, scale: float = 1.0) -> Slope:
    """The derivative at 0 of F, which gives for a t a flat array of float64. at_zero: F(0); scale: of the steps.

    An entry of F that is not finite in every stencil has an error of inf.
    """
    seen: dict[float, np.ndarray] = {}

    def at(t: float) -> np.ndarray:
        if t not in seen:
            seen[t] = F(t)
        return seen[t]

    with np.errstate(all="ignore"):
        for count in (1, 2, 3, len(STEPS)):
            steps = scale * _COLUMN[:count]
            a, b, c, d = (np.array([at(float(k * h)) for h in steps[:, 0]]) for k in (-2, -1, 1, 2))
            size = np.maximum(np.maximum(abs(a), abs(b)), np.maximum(abs(c), abs(d)))
            h = float(_FINER * scale)
            near = at(h)
            if count == 1 and not _is_linear(a, b, c, d, at_zero, size, near):
                continue
            central = (8 * (c - b) - (d - a)) / (12 * steps)
            right = (4 * (c - at_zero) - (d - at_zero)) / (2 * steps)
            left = (4 * (at_zero - b) - (at_zero - a)) / (2 * steps)
            rounding = 2 * _EPS * size / steps
            # What does not move at all, at this step and all larger ones, has no derivative, and if it is infinite too.
            still = (a == at_zero) & (b == at_zero) & (c == at_zero) & (d == at_zero)
            if still.any():
                still = np.logical_and.accumulate(still, axis=0)
                for array in (central, left, right, rounding):
                    array[still] = 0.0
            if count in (1, len(STEPS)):
                break
            bend = (b[-1] + c[-1] - 2 * at_zero) / steps[-1] ** 2
            if _all_smooth(central, left, right, rounding, (near - at_zero) / h - bend * h / 2):
                break
        return _best(central, left, right, rounding, scale)


_COLUMN = np.array(STEPS)[:, None]


_FINER = STEPS[2] * 107 / 128


def _is_linear(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, zero: np.ndarray, size: np.ndarray, near: np.ndarray
) -> bool:  # fmt: skip
    """Whether all points lie on a line, so that there is nothing that a smaller step could tell. ``near``, at a step
    that is no part of the others, is beside it if these are on the treads of a fine staircase."""
    room = 4 * _EPS * np.maximum(size, abs(zero))
    on_line = (abs(b + c - 2 * zero) <= room) & (abs(a + d - 2 * zero) <= room)
    on_line &= abs(d - a - 2 * (c - b)) <= 2 * room
    on_line &= abs(near - zero - (d - a) * (_FINER / (4 * STEPS[0]))) <= 2 * room
    on_line |= (a == zero) & (b == zero) & (c == zero) & (d == zero) & (near == zero)
    return bool(on_line.all())


def _all_smooth(
    central: np.ndarray, left: np.ndarray, right: np.ndarray, rounding: np.ndarray, finer: np.ndarray
) -> bool:  # fmt: skip
    """Whether the last two steps say all: they agree with each other and roughly with ``finer``, of a step that has
    nothing to do with them, and one-sided derivatives meet as smooth functions' do."""
    size = np.maximum(abs(left[-1]), abs(right[-1]))
    gaps = abs(right - left)
    meet = gaps[-1] <= np.maximum(gaps[-2] / 3, 1e-6 * size) + 20 * rounding[-1]
    agree = abs(central[-2] - central[-1]) <= _SMOOTH * size + 4 * rounding[-1]
    beside = abs(finer - central[-1]) <= 1e-6 * size + gaps[-1] + 100 * rounding[-1]
    return bool((meet & agree & beside).all())


def _best(
    central: np.ndarray, left: np.ndarray, right: np.ndarray, rounding: np.ndarray, scale: float
) -> Slope:  # fmt: skip
    """From (steps, entries) to entries."""
    entries = np.arange(central.shape[1])
    kink = np.zeros(central.shape[1], bool)
    l, r, lowest, highest = left[-1], right[-1], central.min(axis=0), central.max(axis=0)
    if len(central) == 1:  # a line
        return Slope(central[0], rounding[0], np.full(kink.shape, scale * STEPS[0]), kink, l, r, lowest, highest)
    if len(central) < len(STEPS):  # all is smooth, so the error of the last step is the smaller one, by 16 or more
        error, step = abs(central[-2] - central[-1]) / 8 + rounding[-1], scale * STEPS[len(central) - 1]
        return Slope(central[-1], error, np.full(kink.shape, step), kink, l, r, lowest, highest)
    change = abs(central[:-1] - central[1:]) + rounding[:-1]
    change[~np.isfinite(change)] = np.inf
    gaps, size = abs(right - left), np.maximum(abs(left), abs(right))
    # One-sided derivatives that come apart as the step shrinks pass over something that only finer steps see.
    apart = (gaps[1:4] > 1.5 * gaps[:3]) & (gaps[1:4] > _KINK * size[1:4] + 100 * rounding[1:4])
    change[:3][np.logical_or.accumulate(apart[::-1], axis=0)[::-1]] = np.inf
    best = change.argmin(axis=0)
    value, error = central[best, entries], change[best, entries]
    value = np.where(np.isfinite(error), value, np.nan)
    a, b = 3, 4
    l, r = left[b], right[b]
    gap = abs(r - l)
    settled = np.maximum(abs(left[a] - l), abs(right[a] - r)) <= 0.02 * gap + 20 * rounding[b]
    kink = np.isfinite(gap) & (gap > _KINK * np.maximum(abs(l), abs(r)) + 100 * rounding[b]) & settled
    error = np.where(kink, np.maximum(abs(left[a] - l), abs(right[a] - r)) + 4 * rounding[b], error)
    return Slope(value, error, scale * np.array(STEPS)[best], kink, l, r, lowest, highest)


def complex_slope(F: Callable[[complex], np.ndarray], at_zero: np.ndarray, found: Slope) -> Slope:
    """``found``, with the derivative by the complex step where the two agree. F takes an imaginary t."""
    z = F(1j * COMPLEX_STEP)
    if z.dtype.kind != "c":
        return found
    with np.errstate(all="ignore"):
        value = z.imag / COMPLEX_STEP
        same = abs(z.real - at_zero) <= 1e-12 * abs(at_zero)
        size = np.maximum(abs(value), abs(found.value))
        # Where differences do not know the first digit, they confirm nothing: x |x| at 0 has an imaginary part of h.
        known = found.error <= 0.1 * size
        agree = known & (abs(value - found.value) <= 10 * found.error + 1e-9 * size)
    take = same & agree & ~found.kink & np.isfinite(value) & np.isfinite(found.error)
    return Slope(
        np.where(take, value, found.value),
        np.where(take, 64 * _EPS * abs(value), found.error),
        np.where(take, 0.0, found.step),
        found.kink,
        found.left,
        found.right,
        found.lowest,
        found.highest,
    )
