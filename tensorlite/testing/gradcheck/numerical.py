"""Numerical derivatives of functions of arrays, with an estimate of their errors.

The derivative of F(t) at 0 is computed by central differences of order 4 (Fornberg 1988, table 1), at steps h from
7e-4 to 4e-8:

    D(h) = (8 (F(h) - F(-h)) - (F(2h) - F(-2h))) / 12h        error: h^4 F'''''/30 + rounding / h

Large steps have a truncation error, small ones a rounding error. Neither is known, but the change of D from one step to
the next is about their sum. So the step with the least change is used, separately for each entry of F. Steps have
twenty binary digits, so that x + h is exact where x is a multiple of 1/8, as the numbers of ``elements`` are.

Where F(0) is infinity or NaN, F has no derivative, not even where the differences are 0.

One-sided differences of order 2 use the same values of F. Where they converge to two different numbers there is a kink.

The complex step is F'(0) = Im F(ih)/h with h = 1e-20 (Squire and Trapp 1998). It has no rounding error if F is
analytic and its code is, too. It is silently wrong for abs, sign or max. So it is only used where it agrees with the
differences to their precision, and then adds the digits that they lack.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["COMPLEX_STEP", "STEPS", "Slope", "complex_slope", "slope"]

# Twenty binary digits: few enough that x + h is exact, and enough that floor(x) and round(128 x) / 128 do not look
# like straight lines.
STEPS = tuple(767041 / 2**20 * 2.0**-k for k in (10, 11, 14, 17, 20, 24))
COMPLEX_STEP = 1e-20

_EPS = float(np.finfo(np.float64).eps)
_SMOOTH = 2e-9  # two steps that agree to this relative difference need no third one
_KINK = 1e-3  # one-sided derivatives with this relative difference, or a larger one, show a kink


@dataclass
class Slope:
    """The derivative of each entry of F along one direction. All arrays have the shape of F, flattened.

    value, error: the derivative and its estimated error, which is inf where nothing is known.
    step: the step used, 0 for the complex step.
    kink: whether there is a kink. left, right: the one-sided derivatives there.
    lowest, highest: the range over all steps. The error can be underestimated where two steps agree by accident, but
    the derivative is hardly ever outside of this range.
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
    """Return the derivative of F at 0.

    F: a function from a float to a 1-D array of float64. at_zero: F(0). scale: a factor of all steps.
    The error is inf for an entry of F that is not finite at 0, or at some point of every stencil.
    """
    known = np.isfinite(at_zero)
    if not known.all():
        # Other entries are differentiated alone, so that these do not make them take all steps.
        return _with_unknown(slope(lambda t: F(t)[known], at_zero[known], scale), known)
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
            # An entry that is constant at this step and all larger ones has the derivative 0.
            still = (a == at_zero) & (b == at_zero) & (c == at_zero) & (d == at_zero)
            if still.any():
                still = np.logical_and.accumulate(still, axis=0)
                for array in (central, left, right):
                    array[still] = 0.0
                # It may also change by less than its last digit.
                rounding[still] = np.broadcast_to(_EPS * abs(at_zero) / (2 * scale * STEPS[0]), still.shape)[still]
            if count in (1, len(STEPS)):
                break
            bend = (b[-1] + c[-1] - 2 * at_zero) / steps[-1] ** 2
            if _all_smooth(central, left, right, rounding, (near - at_zero) / h - bend * h / 2):
                break
        return _best(central, left, right, rounding, scale)


_COLUMN = np.array(STEPS)[:, None]


_FINER = STEPS[2] * 107 / 128


def _with_unknown(found: Slope, known: np.ndarray) -> Slope:
    """Return the slopes of all entries of F, where ``found`` has those of the ``known`` ones. No others have one."""

    def filled(values: np.ndarray, other: float | bool) -> np.ndarray:
        every = np.full(known.shape, other, values.dtype)
        every[known] = values
        return every

    nan = math.nan
    return Slope(
        filled(found.value, nan), filled(found.error, math.inf), filled(found.step, STEPS[0]),
        filled(found.kink, False), filled(found.left, nan), filled(found.right, nan), filled(found.lowest, nan),
        filled(found.highest, nan),
    )  # fmt: skip


def _is_linear(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, zero: np.ndarray, size: np.ndarray, near: np.ndarray
) -> bool:  # fmt: skip
    """Return whether all points lie on a line, so that a smaller step tells nothing new.

    ``near`` belongs to a step unrelated to the others. It is off the line if the others happen to lie on the treads of
    a fine staircase.
    """
    margin = 4 * _EPS * np.maximum(size, abs(zero))
    on_line = (abs(b + c - 2 * zero) <= margin) & (abs(a + d - 2 * zero) <= margin)
    on_line &= abs(d - a - 2 * (c - b)) <= 2 * margin
    on_line &= abs(near - zero - (d - a) * (_FINER / (4 * STEPS[0]))) <= 2 * margin
    on_line |= (a == zero) & (b == zero) & (c == zero) & (d == zero) & (near == zero)
    return bool(on_line.all())


def _all_smooth(
    central: np.ndarray, left: np.ndarray, right: np.ndarray, rounding: np.ndarray, finer: np.ndarray
) -> bool:  # fmt: skip
    """Return whether F is smooth at the last two steps, so that no smaller one is needed.

    They must agree with each other and roughly with ``finer``, the slope at an unrelated step. The one-sided
    derivatives must converge as those of a smooth function do.
    """
    size = np.maximum(abs(left[-1]), abs(right[-1]))
    gaps = abs(right - left)
    meet = gaps[-1] <= np.maximum(gaps[-2] / 3, 1e-6 * size) + 20 * rounding[-1]
    agree = abs(central[-2] - central[-1]) <= _SMOOTH * size + 4 * rounding[-1]
    confirmed = abs(finer - central[-1]) <= 1e-6 * size + gaps[-1] + 100 * rounding[-1]
    return bool((meet & agree & confirmed).all())


def _best(
    central: np.ndarray, left: np.ndarray, right: np.ndarray, rounding: np.ndarray, scale: float
) -> Slope:  # fmt: skip
    """Choose the best step for each entry. The arrays have shape (steps, entries)."""
    entries = np.arange(central.shape[1])
    kink = np.zeros(central.shape[1], bool)
    l, r, lowest, highest = left[-1], right[-1], central.min(axis=0), central.max(axis=0)
    if len(central) == 1:  # F is linear
        return Slope(central[0], rounding[0], np.full(kink.shape, scale * STEPS[0]), kink, l, r, lowest, highest)
    if len(central) < len(STEPS):  # F is smooth, so the last step has the smaller error, by a factor of 16 or more
        error, step = abs(central[-2] - central[-1]) / 8 + rounding[-1], scale * STEPS[len(central) - 1]
        return Slope(central[-1], error, np.full(kink.shape, step), kink, l, r, lowest, highest)
    change = abs(central[:-1] - central[1:]) + rounding[:-1]
    change[~np.isfinite(change)] = np.inf
    gaps, size = abs(right - left), np.maximum(abs(left), abs(right))
    # One-sided derivatives that diverge as the step shrinks have skipped a feature that only smaller steps resolve.
    apart = (gaps[1:4] > 1.5 * gaps[:3]) & (gaps[1:4] > _KINK * size[1:4] + 100 * rounding[1:4])
    change[:3][np.logical_or.accumulate(apart[::-1], axis=0)[::-1]] = np.inf
    best = change.argmin(axis=0)
    value, error = central[best, entries], change[best, entries]
    # Two steps may agree by accident, as those of a fine saw do. Then the steps next to them do not.
    inner = (best > 0) & (best < len(change) - 1)
    neighbours = np.minimum(change[np.maximum(best - 1, 0), entries], change[(best + 1) % len(change), entries])
    error = np.where(inner & np.isfinite(neighbours), np.maximum(error, 0.01 * neighbours), error)
    value = np.where(np.isfinite(error), value, np.nan)
    a, b = 3, 4
    l, r = left[b], right[b]
    gap = abs(r - l)
    settled = np.maximum(abs(left[a] - l), abs(right[a] - r)) <= 0.02 * gap + 20 * rounding[b]
    kink = np.isfinite(gap) & (gap > _KINK * np.maximum(abs(l), abs(r)) + 100 * rounding[b]) & settled
    error = np.where(kink, np.maximum(abs(left[a] - l), abs(right[a] - r)) + 4 * rounding[b], error)
    return Slope(value, error, scale * np.array(STEPS)[best], kink, l, r, lowest, highest)


def complex_slope(F: Callable[[complex], np.ndarray], at_zero: np.ndarray, found: Slope) -> Slope:
    """Return ``found`` with the value of the complex step wherever the two agree. F takes an imaginary number."""
    z = F(1j * COMPLEX_STEP)
    if z.dtype.kind != "c":
        return found
    with np.errstate(all="ignore"):
        value = z.imag / COMPLEX_STEP
        same = abs(z.real - at_zero) <= 1e-12 * abs(at_zero)
        size = np.maximum(abs(value), abs(found.value))
        # Differences that do not know the first digit confirm nothing: x |x| at 0 has an imaginary part of h.
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
