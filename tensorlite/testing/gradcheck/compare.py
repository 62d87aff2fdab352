"""Analytic derivatives against numerical ones: right, wrong, or not known well enough to say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..report import GradReport
from .numerical import STEPS, Slope, complex_slope, slope

__all__ = ["TRUSTED", "Comparison", "Entry", "Problem"]

Arrays = list[np.ndarray]

_EPS = float(np.finfo(np.float64).eps)
_PLACES = np.linspace(-1.0, 1.0, 16)
_SMOOTH = np.linalg.qr(np.vander(_PLACES, 3))[0]  # of what is smooth on a short line, nothing else is left
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
    finest: float  # the smallest step that had a part in it; 0 if none had
    on_kink: bool
    lowest: float  # of what all steps gave for ``numeric``
    highest: float
    ends: tuple[np.ndarray, np.ndarray]  # whose sums are ``low`` and ``high``: what each entry of f contributes
    along: Arrays | None = None  # the direction
    claimed: float = 0.0  # the sum of the absolute values of the terms of ``analytic``

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
    terms: float = 0.0  # of the function whose gradient F is; what is small beside these has the roundings of them

    def __post_init__(self) -> None:
        self.c = flat(self.cotangents)
        self.zero = flat(self.F(self.at))
        self.broken = not np.isfinite(self.zero).all()

    # ---- one derivative

    def entry(self, leaf: int, index: tuple[int, ...]) -> Entry:
        """The derivative along one entry of one array."""
        F, scale = self._along_entry(leaf, index)
        return self._entry(self._slope(F, scale), float(self.analytic[leaf][index]), (leaf, index))

    def _along_entry(self, leaf: int, index: tuple[int, ...]) -> tuple[Callable[[Any], np.ndarray], float]:
        """The function of how far that entry has moved, and the scale of steps."""
        arrays = [np.array(a, order="C") for a in self.at]  # C-ordered, and nobody else's
        x = float(arrays[leaf][index])

        def F(t: Any) -> np.ndarray:
            if isinstance(t, complex):
                shifted = [a.astype(np.complex128) for a in arrays]
                shifted[leaf][index] = x + t
                return flat(self.F(shifted))
            arrays[leaf][index] = x + t
            return flat(self.F(arrays))

        return F, 2.0 ** math.ceil(math.log2(max(1.0, abs(x)))) if math.isfinite(x) else 1.0

    def direction(self, v: Arrays) -> Entry:
        """The derivative along v, for all arrays at once."""
        analytic = [g * d for g, d in zip(self.analytic, v)]
        with np.errstate(all="ignore"):
            total = float(sum(a.sum() for a in analytic))
            terms = float(sum(np.abs(a).sum() for a in analytic))
        entry = self._entry(self._slope(self._along(v), 1.0), total, None)
        entry.along = v
        if math.isfinite(terms):
            entry.claimed = terms
        return entry

    def _along(self, v: Arrays) -> Callable[[Any], np.ndarray]:
        return lambda t: flat(self.F([a + t * d for a, d in zip(self.at, v)]))

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
            lows = np.where(kink, np.minimum(*sides), parts)
            highs = np.where(kink, np.maximum(*sides), parts)
            low, high = lows.sum(), highs.sum()
            terms = np.where(kink, np.maximum(*map(abs, sides)), abs(parts)).sum()
            doubt = float((abs(c) * error).sum())
        steps = s.step[used][abs(parts) > 0] if parts.size else s.step[:0]
        step = float(steps.max()) if steps.size else STEPS[0]
        finest = float(s.step[used].min()) if c.size else 0.0
        middle = float((low + high) / 2)
        with np.errstate(all="ignore"):
            ends = c * s.lowest[used], c * s.highest[used]
            lowest, highest = float(np.minimum(*ends).sum()), float(np.maximum(*ends).sum())
        return Entry(
            where, analytic, middle, float(low), float(high), float(terms), doubt, step, finest, bool(kink.any()),
            lowest, highest, (lows, highs),
        )  # fmt: skip

    def same(self, e: Entry) -> Entry:
        """The same derivative, at the point of this problem."""
        return self.direction(e.along) if e.where is None else self.entry(*e.where)  # type: ignore[arg-type]

    # ---- the verdict

    def judge(self, e: Entry, floor: float, found: Comparison) -> None:
        """Put a derivative where it belongs."""
        known = math.isfinite(e.low) and math.isfinite(e.high) and math.isfinite(e.error)
        tolerance = self.rtol * max(e.terms, e.claimed) + 4 * e.error + floor
        vague = not known or 4 * e.error > TRUSTED * e.terms + floor + 1e-10
        if vague and not (known and self.is_far(e)):
            found.inconclusive += 1
        elif e.difference <= tolerance:
            if e.on_kink and not self.strict:
                found.kinks += 1
            else:
                found.right.append(e)
        elif not math.isfinite(e.analytic):
            if self.broken:
                found.inconclusive += 1  # 0 * inf, where another result is not finite
            else:
                found.wrong.append(e)
        elif e.on_kink and not self.strict:
            found.kinks += 1
        elif self.is_noise(e):
            found.inconclusive += 1
        elif self.is_choice(e) if self.strict else self.is_convention(e):
            found.kinks += 1
        else:
            found.wrong.append(e)

    def is_far(self, e: Entry) -> bool:
        """Whether the claim is so far off that the little that is known is enough: far from what any step gave."""
        far = e.difference > 1e3 * e.error + 0.1 * (e.terms + abs(e.analytic)) + 1e-6
        room = e.error + (e.highest - e.lowest) / 2
        if not far or e.where is None or e.lowest - room <= e.analytic <= e.highest + room:
            return False
        # sin(1e4 x) has many periods in a step that suits a large x, and sqrt(x^2 + 1e-30) turns in 1e-15.
        F, scale = self._along_entry(*e.where)
        for finer in (2.0**-7, 2.0**-14, 2.0**-28, 2.0**-42):
            close = self._entry(slope(F, self.zero, scale * finer), e.analytic, e.where)
            if close.difference <= 0.1 * abs(e.analytic):
                return False
        return True

    def size(self) -> float:
        """The sum of the absolute values of the terms of <c, F>."""
        with np.errstate(all="ignore"):
            values = abs(self.c * self.zero)
        return float(values[np.isfinite(values)].sum())

    def is_noise(self, e: Entry) -> bool:
        """A second look at what seems wrong: whether roundings would change the claim, or what is measured, as much."""
        # A gradient of f / x is large, and what cancels to much less than that has the roundings of the terms.
        largest = 1.0 if e.where is None else max(1.0, abs(float(self.at[e.where[0]][e.where[1]])))
        natural = (self.size() + self.terms) / largest
        # A softmax that has come within rounding of 1 has a gradient of 0, times whatever it was divided by.
        if e.difference <= 64 * _EPS * (self.size() + self.terms):
            return True
        if e.difference <= self.grain(e, natural):
            return True
        if e.difference > max(1e-6 * max(e.terms, e.claimed), 1e-12 * natural, 1e-12 * abs(self.c).max(initial=0.0)):
            return False

        def claim(at: Arrays) -> float:
            claimed = self.again(at)
            if e.where is not None:
                return float(claimed[e.where[0]][e.where[1]])
            return float(sum((g * d).sum() for g, d in zip(claimed, e.along or [])))

        def moved(size: float) -> float:
            return claim([a * (1 + size * self.rng.choice([-1.0, 1.0], a.shape)) for a in self.at])

        if e.difference <= 30 * max(abs(moved(size) - e.analytic) for size in 4 * [2.0**-50, 2.0**-48]):
            return True
        # (x + 1000) - 1000 changes in steps, and not with the last bits of x.
        v = [self.spread(a, 1) for a in self.at]
        seen = np.array([claim([a + 2.0**-40 * t * d for a, d in zip(self.at, v)]) for t in _PLACES])
        return e.difference <= 30 * float(abs(seen - _SMOOTH @ (_SMOOTH.T @ seen)).max())

    def grain(self, e: Entry, natural: float) -> float:
        """How far the numerical derivative may be off because f is rough there, as the small rest of large terms that
        cancel is: at a small h it moves by one of their roundings, or not at all."""
        if not e.finest or e.on_kink:
            return 0.0
        F, scale = self._along_entry(*e.where) if e.where else (self._along(e.along or []), 1.0)
        used = self.c != 0
        heights: list[float] = []
        reach = e.finest
        while reach <= scale * STEPS[0] and len(heights) < 3:
            seen = np.array([F(float(reach * t)) for t in _PLACES])[:, used]
            if not np.isfinite(seen).all():
                break
            if heights or (seen != seen[0]).any():
                heights.append(float(abs(self.c[used]) @ abs(seen - _SMOOTH @ (_SMOOTH.T @ seen)).max(axis=0)))
            reach *= 8
        return 4 * max([0.0, *(h for h in heights if h <= 1e-9 + 1e-4 * natural)]) / e.finest

    def is_convention(self, e: Entry) -> bool:
        """Whether the claim holds nearby, and this point is where it jumps: f is made of several ops, and kinks of
        theirs may cancel, as in relu(x) - relu(-x) at 0."""
        for at in self.neighbours(2.0**-9, 3):
            near = Problem(self.F, at, self.cotangents, self.again(at), self.again, self.rtol, True, False, self.rng)
            there = near.same(e)
            agree = there.difference <= 1e-6 * max(there.terms, there.claimed) + 4 * there.error + 1e-12
            if not agree or abs(there.analytic - e.analytic) < 0.1 * e.difference:
                return False
        return True

    def is_choice(self, e: Entry) -> bool:
        """Whether this is a kink at which the claim is a fair choice, although outside of the one-sided derivatives.

        Of three equal entries, no one alone moves the median, but its gradient goes to one of them. It is fair if it
        lies between the derivatives (Clarke's generalised ones) at points nearby, however near they are.
        """
        ends: list[list[Any]] = [[], []]
        for shifts in self.shifts(24):
            pair = []
            for size in (2.0**-9, 2.0**-13):
                at = [a + size * shift for a, shift in zip(self.at, shifts)]
                near = Problem(
                    self.F, at, self.cotangents, self.analytic, self.again, self.rtol, True, False, self.rng
                ).same(e)  # fmt: skip
                if math.isfinite(near.error) and 4 * near.error <= 1e-4 * (near.terms + near.claimed + abs(e.analytic)):
                    pair.append(near.ends)
            if len(pair) < 2:
                continue
            for some, one in zip(ends, pair):
                some.append(one)
            # Of each entry of f for itself: a few points do not show all combinations of what they may do.
            (low, high), (lower, higher) = (
                (float(np.min([o[0] for o in some], axis=0).sum()), float(np.max([o[1] for o in some], axis=0).sum()))
                for some in ends
            )
            room = (abs(low - lower) + abs(high - higher)) / 8 + 1e-6 * max(e.terms, e.claimed)
            if lower - room <= e.analytic <= higher + room and higher - lower > 0.5 * (high - low):
                return True
            if len(ends[0]) == 6 and 0 < higher - lower <= 0.5 * (high - low):
                return False  # smooth
        return False

    def neighbours(self, size: float, count: int) -> list[Arrays]:
        """Points nearby with no two entries equal."""
        return [[a + size * shift for a, shift in zip(self.at, shifts)] for shifts in self.shifts(count)]

    def shifts(self, count: int) -> list[Arrays]:
        """Ways to make all entries of all arrays unequal: they grow in their order, or fall, or neither."""
        total, found = sum(a.size for a in self.at), []
        for number in range(count):
            ranks = np.arange(1, total + 1) / max(1, total) * (-1.0 if number == 1 else 1.0)
            if number > 1:
                ranks = self.rng.permutation(2 * ranks - 1 - 0.5 / max(1, total))
            parts = np.split(ranks, np.cumsum([a.size for a in self.at])[:-1])
            found.append([self.spread(a, 0) * part.reshape(a.shape) for a, part in zip(self.at, parts)])
        return found

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
        if many or (self.strict and (found.kinks or any(e.on_kink for e in entries))):
            self._along_directions(places, found, 4 if many else 2)
        return found

    def _along_directions(self, places: list[tuple[int, tuple[int, ...]]], found: Comparison, count: int) -> None:
        for number in range(count):
            v = [self.spread(a, number) for a in self.at]
            e = self.direction(v)
            before = len(found.wrong)
            floor = 64 * _EPS * max(e.terms, e.claimed)
            self.judge(e, floor, found)
            if len(found.wrong) == before or len(places) > 4096:
                continue
            judged = {e.where for e in (*found.right, *found.wrong)}
            for place in places:  # which entry is it?
                if place in judged:
                    continue
                self.judge(self.entry(*place), floor, found)
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
