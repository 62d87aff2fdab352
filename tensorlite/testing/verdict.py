"""Analytic derivatives against numerical ones: right, wrong, or not known well enough to say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .numerical import STEPS, Slope, complex_slope, slope
from .report import GradReport

__all__ = ["TRUSTED", "Comparison", "Entry", "Problem"]

Arrays = list[np.ndarray]

_EPS = float(np.finfo(np.float64).eps)
TRUSTED = 1e-5  # a numerical derivative that is not known to this part says nothing


@dataclass
class Entry:
    """One derivative: of <cotangents, f> along one entry of a leaf, or along a direction."""

    where: tuple[int, tuple[int, ...]] | None  # leaf and index, None for a direction
    analytic: float
    numeric: float
    low: float
    high: float
    terms: float  # the sum of the absolute values of the terms of ``numeric``
    error: float
    step: float
    on_kink: bool

    @property
    def difference(self) -> float:
        """How far the analytic value is outside of what the numerical one allows."""
        if not math.isfinite(self.analytic):
            return math.inf
        return max(0.0, self.low - self.analytic, self.analytic - self.high)

    @property
    def relative(self) -> float:
        size = max(abs(self.analytic), abs(self.low), abs(self.high))
        return self.difference / size if size and math.isfinite(self.difference) else self.difference


@dataclass
class Comparison:
    """The verdicts on all derivatives of one function at one point."""

    right: list[Entry] = field(default_factory=list)
    wrong: list[Entry] = field(default_factory=list)
    inconclusive: int = 0
    kinks: int = 0

    def report(self) -> GradReport:
        methods = {"complex step" if e.step == 0 else "differences" for e in [*self.right, *self.wrong]}
        worst = max([e.relative for e in self.right], default=0.0)
        return GradReport(len(self.right), self.inconclusive, self.kinks, worst, " and ".join(sorted(methods)))


Function = Callable[[Arrays], Arrays]


@dataclass
class Problem:
    """A function, a point, cotangents, and the gradient that is claimed."""

    F: Function
    at: Arrays
    cotangents: Arrays
    analytic: Arrays
    again: Callable[[Arrays], Arrays]  # the claimed gradient at another point
    rtol: float
    strict: bool
    complex_step: bool
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.c = flat(self.cotangents)
        self.zero = flat(self.F(self.at))
        self.broken = not np.isfinite(self.zero).all()

    # ---- one derivative

    def entry(self, leaf: int, index: tuple[int, ...]) -> Entry:
        """The derivative along one entry of one array."""
        arrays = [a.copy() for a in self.at]  # C-ordered, and nobody else's
        x = float(arrays[leaf][index])

        def F(t: Any) -> np.ndarray:
            if isinstance(t, complex):
                shifted = [a.astype(np.complex128) for a in arrays]
                shifted[leaf][index] = x + t
                return flat(self.F(shifted))
            arrays[leaf][index] = x + t
            return flat(self.F(arrays))

        scale = 2.0 ** math.ceil(math.log2(max(1.0, abs(x)))) if math.isfinite(x) else 1.0
        return self._entry(self._slope(F, scale), float(self.analytic[leaf][index]), (leaf, index))

    def direction(self, v: Arrays) -> Entry:
        """The derivative along v, for all arrays at once."""

        def F(t: Any) -> np.ndarray:
            return flat(self.F([a + t * d for a, d in zip(self.at, v)]))

        analytic = [g * d for g, d in zip(self.analytic, v)]
        with np.errstate(all="ignore"):
            total = float(sum(a.sum() for a in analytic))
            terms = float(sum(np.abs(a).sum() for a in analytic))
        entry = self._entry(self._slope(F, 1.0), total, None)
        if math.isfinite(terms):
            entry.terms = max(entry.terms, terms)
        return entry

    def _slope(self, F: Callable[[Any], np.ndarray], scale: float) -> Slope:
        found = slope(F, self.zero, scale)
        if self.complex_step and np.isfinite(found.error).any():
            try:
                with np.errstate(all="ignore"):
                    found = complex_slope(F, self.zero, found)
            except Exception:  # f does not take complex numbers, in whatever way it says so
                self.complex_step = False
        return found

    def _entry(self, s: Slope, analytic: float, where: Any) -> Entry:
        used = self.c != 0
        c, value, error = self.c[used], s.value[used], s.error[used]
        with np.errstate(all="ignore"):
            kink = s.kink[used]
            parts, sides = c * value, (c * s.left[used], c * s.right[used])
            low = np.where(kink, np.minimum(*sides), parts).sum()
            high = np.where(kink, np.maximum(*sides), parts).sum()
            terms = np.where(kink, np.maximum(*map(abs, sides)), abs(parts)).sum()
            doubt = float((abs(c) * error).sum())
        steps = s.step[used][abs(parts) > 0] if parts.size else s.step[:0]
        step = float(steps.max()) if steps.size else STEPS[0]
        middle = float((low + high) / 2)
        return Entry(where, analytic, middle, float(low), float(high), float(terms), doubt, step, bool(kink.any()))

    # ---- the verdict

    def judge(self, e: Entry, floor: float, found: Comparison) -> None:
        """Put a derivative where it belongs."""
        known = math.isfinite(e.low) and math.isfinite(e.high) and math.isfinite(e.error)
        tolerance = self.rtol * e.terms + 4 * e.error + floor
        if not known or 4 * e.error > TRUSTED * e.terms + floor + 1e-10:
            # The claim may still be so far off that what is known is enough. If not: no verdict.
            hopeless = known and e.difference > 1e3 * e.error + 0.1 * (e.terms + abs(e.analytic)) + 1e-6
            if not (hopeless and e.where is not None and not self.excused(e)):
                found.inconclusive += 1
                return
        if e.difference <= tolerance:
            if e.on_kink and not self.strict:
                found.kinks += 1
            else:
                found.right.append(e)
        elif not math.isfinite(e.analytic) and self.broken:
            found.inconclusive += 1  # 0 * inf, where another result is not finite
        elif e.on_kink and not self.strict and math.isfinite(e.analytic):
            found.kinks += 1
        elif self.excused(e):
            if self.strict:
                found.inconclusive += 1
            else:
                found.kinks += 1
        else:
            found.wrong.append(e)

    def excused(self, e: Entry) -> bool:
        """A second look at what seems wrong: the gradient may be badly conditioned, or a convention at one point."""
        if e.where is None or not math.isfinite(e.analytic):
            return False
        leaf, index = e.where

        def moved(size: float) -> tuple[Arrays, float]:
            at = [a * (1 + size * self.rng.choice([-1.0, 1.0], a.shape)) for a in self.at]
            return at, float(self.again(at)[leaf][index])

        if e.difference <= 1e-6 * e.terms:
            noise = max(abs(moved(2.0**-50)[1] - e.analytic) for _ in range(4))
            if e.difference <= 30 * noise:
                return True
        if self.strict:
            return False
        # f is made of several ops, which may have kinks that cancel: relu(x) - relu(-x) at 0. Nearby, all must be well.
        for _ in range(3):
            jitter = [self.rng.integers(1, 8, a.shape) * self.rng.choice([-1, 1], a.shape) * 2.0**-9 for a in self.at]
            at = [a + j for a, j in zip(self.at, jitter)]
            claimed = self.again(at)
            near = Problem(self.F, at, self.cotangents, claimed, self.again, self.rtol, True, False, self.rng)
            there = near.entry(leaf, index)
            agree = there.difference <= 1e-6 * there.terms + 4 * there.error + 1e-12
            if not agree or abs(there.analytic - e.analytic) < 0.1 * e.difference:
                return False
        return True

    def compare(self, max_elements: int) -> Comparison:
        """Every entry if there are few; else random directions that touch them all, and a random choice of entries."""
        found = Comparison()
        places = [(k, i) for k, a in enumerate(self.at) for i in np.ndindex(a.shape)]
        many = len(places) > max_elements
        if many:
            chosen = self.rng.permutation(len(places))[: max_elements // 4]
            entries = [self.entry(*places[i]) for i in chosen]
        else:
            entries = [self.entry(*place) for place in places]
        sizes = [[0.0] for _ in self.at]  # of the terms, by array
        for e in entries:
            if e.where and math.isfinite(e.terms):
                sizes[e.where[0]].append(e.terms)
        floors = [64 * _EPS * max(some) for some in sizes]
        for e in entries:
            self.judge(e, floors[e.where[0]] if e.where else 0.0, found)
        # Ties and kinks are seen along directions too: both of two equal entries move, or all of them.
        if many or (self.strict and any(e.on_kink for e in entries)):
            self._along_directions(places, found, 4 if many else 2)
        return found

    def _along_directions(self, places: list[tuple[int, tuple[int, ...]]], found: Comparison, count: int) -> None:
        for number in range(count):
            v = [self.spread(a, number) for a in self.at]
            e = self.direction(v)
            before = len(found.wrong)
            self.judge(e, 64 * _EPS * e.terms, found)
            if len(found.wrong) == before or len(places) > 4096:
                continue
            for place in places:  # which entry is it?
                self.judge(self.entry(*place), 64 * _EPS * e.terms, found)
                if len(found.wrong) > before + 1:
                    return

    def spread(self, a: np.ndarray, number: int) -> np.ndarray:
        size = 2.0 ** np.ceil(np.log2(np.maximum(1.0, abs(np.where(np.isfinite(a), a, 1.0)))))
        if number == 0:
            return np.asarray(size)
        return np.asarray(size * self.rng.choice([-1.0, -0.5, 0.5, 1.0], a.shape))


def flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    if len(arrays) == 1:
        return arrays[0].reshape(-1)
    return np.concatenate([np.zeros(0), *(a.reshape(-1) for a in arrays)])
