"""Numerical derivatives of functions of arrays, each with an estimate of its error, and with what is seen at a kink.

The derivative of F(t) at 0 by central differences of order 4 (Fornberg 1988, table 1), at steps h from 2^-10 to 2^-24:

    D(h) = (8 (F(h) - F(-h)) - (F(2h) - F(-2h))) / 12h        error: h^4 F'''''/30 + rounding / h

Large steps err by truncation, small ones by rounding. Neither is known, but their sum shows in how much D changes from
one step to the next, so the step is taken at which that is least, separately for each entry of F. Steps are powers of
two: t + h is exact where t is a multiple of 1/8, as the numbers of ``elements`` are.

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

STEPS = tuple(2.0**-k for k in (10, 13, 17, 20, 24))
COMPLEX_STEP = 1e-20

_EPS = float(np.finfo(np.float64).eps)
_SMOOTH = 1e-10  # two steps that agree so well need no third
_KINK = 1e-3  # a part of the one-sided derivatives by which they must differ at a kink


@dataclass
class Slope:
    """The derivative of each entry of F along one direction; all arrays have the shape of F, flattened.

    value, error: the derivative and how far it may be off (inf: not known). step: the step that gave it, 0 for the
    complex step. kink: where there is one; left, right: the one-sided derivatives there.
    """

    value: np.ndarray
    error: np.ndarray
    step: np.ndarray
    kink: np.ndarray
    left: np.ndarray
    right: np.ndarray


def slope(F: Callable[[float], np.ndarray], at_zero: np.ndarray, scale: float = 1.0) -> Slope:
    """The derivative at 0 of F, which gives for a t a flat array of float64. at_zero: F(0); scale: of the steps.

    An entry of F that is not finite in every stencil has an error of inf.
    """
    with np.errstate(all="ignore"):
        central, left, right, rounding = [], [], [], []
        for h in (scale * step for step in STEPS):
            a, b, c, d = F(-2 * h), F(-h), F(h), F(2 * h)
            still = (a == at_zero) & (b == at_zero) & (c == at_zero) & (d == at_zero)  # infinite entries too
            central.append(np.where(still, 0.0, (8 * (c - b) - (d - a)) / (12 * h)))
            right.append(np.where(still, 0.0, (4 * (c - at_zero) - (d - at_zero)) / (2 * h)))
            left.append(np.where(still, 0.0, (4 * (at_zero - b) - (at_zero - a)) / (2 * h)))
            size = np.maximum(np.maximum(abs(a), abs(b)), np.maximum(abs(c), abs(d)))
            rounding.append(np.where(still, 0.0, 2 * _EPS * size / h))
            if len(central) == 2 and _all_smooth(central, left, right, rounding):
                break
        return _best(np.array(central), np.array(left), np.array(right), np.array(rounding), scale)


def _all_smooth(
    central: list[np.ndarray], left: list[np.ndarray], right: list[np.ndarray], rounding: list[np.ndarray]
) -> bool:
    """Whether the two largest steps say all: they agree, and one-sided derivatives meet as smooth functions' do."""
    size = np.maximum(abs(left[1]), abs(right[1]))
    gaps = [abs(r - l) for l, r in zip(left, right)]
    meet = gaps[1] <= np.maximum(gaps[0] / 16, 1e-6 * size) + 20 * rounding[1]
    agree = abs(central[0] - central[1]) <= _SMOOTH * size + 4 * rounding[1]
    return bool((meet & agree).all())


def _best(
    central: np.ndarray, left: np.ndarray, right: np.ndarray, rounding: np.ndarray, scale: float
) -> Slope:  # fmt: skip
    """From (steps, entries) to entries."""
    change = abs(central[:-1] - central[1:]) + rounding[:-1]
    change[~np.isfinite(change)] = np.inf
    best = change.argmin(axis=0)
    entries = np.arange(central.shape[1])
    value, error = central[best, entries], change[best, entries]
    value = np.where(np.isfinite(error), value, np.nan)
    kink = np.zeros(central.shape[1], bool)
    l, r = left[-1], right[-1]
    if len(central) > 2:  # else all is smooth
        a, b = 2, 3
        l, r = left[b], right[b]
        gap = abs(r - l)
        settled = np.maximum(abs(left[a] - l), abs(right[a] - r)) <= 0.02 * gap + 20 * rounding[b]
        kink = np.isfinite(gap) & (gap > _KINK * np.maximum(abs(l), abs(r)) + 100 * rounding[b]) & settled
        error = np.where(kink, np.maximum(abs(left[a] - l), abs(right[a] - r)) + 4 * rounding[b], error)
    return Slope(value, error, scale * np.array(STEPS)[best], kink, l, r)


def complex_slope(F: Callable[[complex], np.ndarray], at_zero: np.ndarray, found: Slope) -> Slope:
    """``found``, with the derivative by the complex step where the two agree. F takes an imaginary t."""
    z = F(1j * COMPLEX_STEP)
    if z.dtype.kind != "c":
        return found
    with np.errstate(all="ignore"):
        value = z.imag / COMPLEX_STEP
        same = abs(z.real - at_zero) <= 1e-12 * abs(at_zero)
        size = np.maximum(abs(value), abs(found.value))
        agree = abs(value - found.value) <= 10 * found.error + 1e-9 * size
    take = same & agree & ~found.kink & np.isfinite(value) & np.isfinite(found.error)
    return Slope(
        np.where(take, value, found.value),
        np.where(take, 64 * _EPS * abs(value), found.error),
        np.where(take, 0.0, found.step),
        found.kink,
        found.left,
        found.right,
    )
