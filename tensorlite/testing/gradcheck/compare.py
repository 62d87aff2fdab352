"""Compare analytic derivatives with numerical ones.

Each derivative is right, wrong or inconclusive. It is inconclusive where the numerical value is not known well enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..report import GradReport
from .numerical import STEPS, Slope, complex_slope, slope

__all__ = ["MAX_RELATIVE_ERROR", "Comparison", "Derivative", "Problem", "finite_part"]

Arrays = list[np.ndarray]

MAX_RELATIVE_ERROR = 1e-5
"""The largest relative error of a numerical derivative that can still tell right from wrong."""

_EPS = float(np.finfo(np.float64).eps)

_SMALL = 2.0**-3  # entries of a smaller absolute value may need smaller steps
_TINY = 2.0**-10  # entries of a smaller absolute value move by their own size along a direction
_TOO_LARGE = 2.0**36  # entries of a larger absolute value are not compared unless they are right
_EXTREME = 1e75  # a number whose fourth power is almost the largest one
_MAX_EXPONENT = 1000  # the scale of a step is at most 2 to this power, so that x + 2h is finite

_TOO_FAR = 1e3  # the steps along a direction do not suit terms that exceed the measured ones by this factor
_FINER = (2.0**-7, 2.0**-14, 2.0**-28, 2.0**-42)  # factors of finer steps

# Points on a short line, and an orthonormal basis of the parabolas on them. A smooth function is such a parabola there,
# so what remains after subtracting the fit is roughness.
_LINE = np.linspace(-1.0, 1.0, 16)
_PARABOLAS = np.linalg.qr(np.vander(_LINE, 3))[0]


@dataclass
class Derivative:
    """A derivative of <cotangents, f>, along one entry of a leaf or along a direction.

    position: leaf and index, or None for a direction.
    analytic, numeric: the two values that are compared.
    low, high: the range that the numerical side allows; it is wider than a point at a kink only.
    terms: the sum of the absolute values of the terms of ``numeric``. analytic_terms: the same for ``analytic``.
    error: the estimated error of ``numeric``.
    step: the largest step used, or 0 for the complex step. finest: the smallest step used.
    lowest, highest: the range of ``numeric`` over all steps.
    bounds: the contribution of each entry of f to ``low`` and to ``high``.
    direction: the direction, or None for an entry.
    """

    position: tuple[int, tuple[int, ...]] | None
    analytic: float
    numeric: float
    low: float
    high: float
    terms: float
    error: float
    step: float
    finest: float
    on_kink: bool
    lowest: float
    highest: float
    bounds: tuple[np.ndarray, np.ndarray]
    direction: Arrays | None = None
    analytic_terms: float = 0.0

    @property
    def difference(self) -> float:
        """Return the distance of the analytic value from the range that the numerical side allows."""
        if not math.isfinite(self.analytic):
            return math.inf
        return max(0.0, self.low - self.analytic, self.analytic - self.high)

    @property
    def relative(self) -> float:
        """Return ``difference`` divided by the larger of the two values."""
        size = max(abs(self.analytic), abs(self.low), abs(self.high))
        return self.difference / size if size and math.isfinite(self.difference) else self.difference


@dataclass
class Comparison:
    """The result for all derivatives of one function at one point."""

    right: list[Derivative] = field(default_factory=list)
    wrong: list[Derivative] = field(default_factory=list)
    inconclusive: int = 0
    kinks: int = 0

    def report(self) -> GradReport:
        """Return the counts as a GradReport."""
        methods = {"complex step" if e.step == 0 else "differences" for e in [*self.right, *self.wrong]}
        worst = max([e.relative for e in self.right], default=0.0)
        return GradReport(len(self.right), self.inconclusive, self.kinks, worst, " and ".join(sorted(methods)))


Function = Callable[[Arrays], Arrays]


@dataclass
class Problem:
    """A function at a point, with cotangents and the analytic gradient to be checked.

    F: the function, from arrays to arrays. at: the point.
    cotangents: one for each result of F, with 0 where F is not finite, because it has no derivative there.
    analytic: the gradient of <cotangents, F> at the point. gradient_at: computes it at another point.
    rtol: the tolerance, relative to the terms of a derivative.
    strict: whether derivatives at a kink are compared with the one-sided ones. complex_step: whether it may be used.
    terms: if F is itself a gradient, the size of the terms of its function, which bounds the rounding errors in F.
    overflows: whether F overflows on the way to its results, so that the chain rule may give NaN.
    broken: whether some results, of F or of the function whose gradient F is, are not finite.
    """

    F: Function
    at: Arrays
    cotangents: Arrays
    analytic: Arrays
    gradient_at: Callable[[Arrays], Arrays]
    rtol: float
    strict: bool
    complex_step: bool
    rng: np.random.Generator
    terms: float = 0.0
    overflows: bool = False
    broken: bool = False

    def __post_init__(self) -> None:
        self.c = flat(self.cotangents)
        self.zero = flat(self.F(self.at))
        self.broken = self.broken or not np.isfinite(self.zero).all()

    # ---- one derivative

    def entry(self, leaf: int, index: tuple[int, ...]) -> Derivative:
        """Return the derivative along one entry of one array."""
        F, scale = self._line_through(leaf, index)
        analytic = float(self.analytic[leaf][index])
        e = self._entry(self._slope(F, scale), analytic, (leaf, index))
        x = abs(float(self.at[leaf][index]))
        if not 0 < x < _SMALL or self._is_settled(e):
            return e
        # Steps of the size of x see what is between 0 and 2x: the pole of log(x), a branch for |x| < 1e-6.
        fine = self._entry(self._slope(F, 2.0 ** math.ceil(math.log2(x))), analytic, (leaf, index))
        rounding = 64 * _EPS * (self.size() + self.terms) / fine.finest if fine.finest else 0.0
        is_known = 4 * fine.error + rounding <= 0.01 * max(fine.terms, abs(analytic))
        return fine if is_known and not fine.on_kink else e

    def _is_settled(self, e: Derivative) -> bool:
        """Return whether the numerical value is known well, and the analytic one agrees."""
        if e.on_kink or not math.isfinite(e.error) or 4 * e.error > MAX_RELATIVE_ERROR * e.terms + 1e-10:
            return False
        return e.difference <= self.rtol * e.terms + 4 * e.error

    def _line_through(self, leaf: int, index: tuple[int, ...]) -> tuple[Callable[[Any], np.ndarray], float]:
        """Return F as a function of the shift of one entry, and the scale of its steps."""
        arrays = [np.array(a, order="C") for a in self.at]  # C-ordered copies, because they are changed in place
        x = float(arrays[leaf][index])

        def F(t: Any) -> np.ndarray:
            if isinstance(t, complex):
                shifted = [a.astype(np.complex128) for a in arrays]
                shifted[leaf][index] = x + t
                return flat(self.F(shifted))
            arrays[leaf][index] = x + t
            return flat(self.F(arrays))

        return F, 2.0 ** min(_MAX_EXPONENT, math.ceil(math.log2(max(1.0, abs(x))))) if math.isfinite(x) else 1.0

    def along_direction(self, v: Arrays) -> Derivative:
        """Return the derivative along v, which moves all arrays at once."""
        with np.errstate(all="ignore"):
            analytic = [np.where(d == 0, 0.0, g * d) for g, d in zip(self.analytic, v)]
            total = float(sum(a.sum() for a in analytic))
            terms = float(sum(np.abs(a).sum() for a in analytic))
        entry = self._entry(self._slope(self._line(v), 1.0), total, None)
        entry.direction = v
        if math.isfinite(terms):
            entry.analytic_terms = terms
        return entry

    def _line(self, v: Arrays) -> Callable[[Any], np.ndarray]:
        return lambda t: flat(self.F([a + t * d for a, d in zip(self.at, v)]))

    def _slope(self, F: Callable[[Any], np.ndarray], scale: float) -> Slope:
        found = slope(F, self.zero, scale)
        if self.complex_step and np.isfinite(found.error).any():
            try:
                with np.errstate(all="ignore"):
                    found = complex_slope(F, self.zero, found)
            except Exception:  # f does not accept complex numbers; the type of its error is not known
                self.complex_step = False
        return found

    def _entry(self, s: Slope, analytic: float, position: Any) -> Derivative:
        used = self.c != 0
        c, value, error = self.c[used], s.value[used], s.error[used]
        with np.errstate(all="ignore"):
            kink = s.kink[used]
            parts, sides = c * value, (c * s.left[used], c * s.right[used])
            lows = np.where(kink, np.minimum(*sides), parts)
            highs = np.where(kink, np.maximum(*sides), parts)
            low, high = lows.sum(), highs.sum()
            terms = np.where(kink, np.maximum(*map(abs, sides)), abs(parts)).sum()
            error_sum = float((abs(c) * error).sum())
        steps = s.step[used][abs(parts) > 0] if parts.size else s.step[:0]
        step = float(steps.max()) if steps.size else STEPS[0]
        finest = float(s.step[used].min()) if c.size else 0.0
        middle = float((low + high) / 2)
        with np.errstate(all="ignore"):
            bounds = c * s.lowest[used], c * s.highest[used]
            lowest, highest = float(np.minimum(*bounds).sum()), float(np.maximum(*bounds).sum())
        return Derivative(
            position, analytic, middle, float(low), float(high), float(terms), error_sum, step, finest,
            bool(kink.any()), lowest, highest, (lows, highs),
        )  # fmt: skip

    def same_derivative(self, e: Derivative) -> Derivative:
        """Return the derivative along the same entry or direction, at the point of this problem."""
        if e.position is None:
            return self.along_direction(e.direction or [])
        return self.entry(*e.position)

    # ---- classification

    def classify(self, e: Derivative, atol: float, found: Comparison) -> None:
        """Add a derivative to the right, wrong, inconclusive or kinked ones. atol: the absolute tolerance."""
        known = math.isfinite(e.low) and math.isfinite(e.high) and math.isfinite(e.error)
        tolerance = self.rtol * max(e.terms, e.analytic_terms) + 4 * e.error + atol
        uncertain = not known or 4 * e.error > MAX_RELATIVE_ERROR * e.terms + atol + 1e-10 + self.least_error()
        if uncertain and not (known and not self.is_too_large(e) and self.is_clearly_wrong(e)):
            found.inconclusive += 1
        elif e.difference <= tolerance:
            if self.shows_nothing(e):
                found.inconclusive += 1
            elif e.on_kink and not self.strict:
                found.kinks += 1
            else:
                found.right.append(e)
        elif self.is_too_large(e):
            found.inconclusive += 1
        elif not math.isfinite(e.analytic):
            if self.broken or self.overflows:
                found.inconclusive += 1  # 0 * inf is NaN where another result, or one on the way, is not finite
            else:
                found.wrong.append(e)
        elif e.on_kink and not self.strict:
            found.kinks += 1
        elif self.is_rounding(e) or self.holds_at_finer_steps(e):
            found.inconclusive += 1
        elif self.is_subgradient(e) if self.strict else self.holds_nearby(e):
            found.kinks += 1
        else:
            found.wrong.append(e)

    def shows_nothing(self, e: Derivative) -> bool:
        """Return whether no finite result changes, while others have no derivative because they are not finite."""
        return self.broken and not e.terms and self.zero.size > 0 and any(a.size for a in self.at)

    def is_too_large(self, e: Derivative) -> bool:
        """Return whether the numbers next to x are so far from it that they do not show how f changes.

        The neighbours of 2^36 are 1e-5 apart, a part of a period of sin(1e5 x). Infinity has none.
        """
        arrays = [self.at[e.position[0]][e.position[1]]] if e.position else self.at
        return self.is_extreme() or not all(bool((abs(a) <= _TOO_LARGE).all()) for a in map(np.asarray, arrays))

    def is_extreme(self) -> bool:
        """Return whether powers of some entries overflow or vanish, or some entries are not finite."""
        sizes = [abs(a[a != 0]) for a in self.at]
        return not all(bool(((a >= 1 / _EXTREME) & (a <= _EXTREME)).all()) for a in sizes)

    def is_clearly_wrong(self, e: Derivative) -> bool:
        """Return whether the analytic value is wrong although the numerical one is not known well.

        It is if it lies far outside of the range that all steps gave.
        """
        far = e.difference > 1e3 * e.error + 0.1 * (e.terms + abs(e.analytic)) + 1e-6
        margin = e.error + (e.highest - e.lowest) / 2
        if not far or e.position is None or e.lowest - margin <= e.analytic <= e.highest + margin:
            return False
        for close in self._at_finer_steps(e):
            if close.difference <= 0.1 * abs(e.analytic):
                return False
            # Next to a pole the numerical value grows as the step shrinks, beyond the analytic one.
            is_noise = 8 * _EPS * self.size() / (close.finest or 1.0) > 0.01 * e.difference
            if not is_noise and close.lowest <= e.analytic <= close.highest:
                return False
        return not self.jumps_beside(e)

    def _at_finer_steps(self, e: Derivative) -> Iterator[Derivative]:
        """Yield the same derivative, measured with finer and finer steps.

        sin(1e4 x) has many periods in a step that suits a large x, and the slope of sqrt(x^2 + 1e-30) changes within
        1e-15.
        """
        F, scale = self._line_through(*e.position) if e.position else (self._line(e.direction or []), 1.0)
        for finer in _FINER:
            yield self._entry(slope(F, self.zero, scale * finer), e.analytic, e.position)

    def holds_at_finer_steps(self, e: Derivative) -> bool:
        """Return whether finer steps contradict the numerical value and confirm the analytic one.

        The usual steps may cross a kink that is close to x.
        """
        for close in self._at_finer_steps(e):
            size = max(close.terms, abs(e.analytic), e.difference)
            known = math.isfinite(close.error) and 4 * close.error <= 0.01 * size
            agrees = close.difference <= 10 * close.error + 1e-6 * close.terms
            if known and agrees and (self.strict or not close.on_kink):
                return close.error < 0.01 * e.difference
        return self.jumps_beside(e)

    def jumps_beside(self, e: Derivative) -> bool:
        """Return whether f jumps at x, and the analytic value is the derivative on one side of it."""
        F, scale = self._line_through(*e.position) if e.position else (self._line(e.direction or []), 1.0)
        used = (self.c != 0) & np.isfinite(self.zero)
        c = self.c[used]
        x = abs(float(self.at[e.position[0]][e.position[1]])) if e.position else 1.0
        for finer in (1.0, *_FINER):
            h = scale * finer * STEPS[-1]
            with np.errstate(all="ignore"):
                a, b, y, p, q = (np.asarray(F(k * h))[used] for k in (-2.0, -1.0, 0.0, 1.0, 2.0))
                rounding = 8 * _EPS * float((abs(c) * (abs(b) + abs(p))).sum()) / h
                sides = [float(c @ (y - b)) / h, float(c @ (b - a)) / h, float(c @ (p - y)) / h, float(c @ (q - p)) / h]
            tolerance = (1e-3 + 4 * _EPS * x / h) * abs(e.analytic) + 2 * rounding  # x + h is rounded, too
            if not math.isfinite(rounding) or tolerance > 0.1 * e.difference:
                continue
            left, right = ([abs(side - e.analytic) <= tolerance for side in pair] for pair in (sides[:2], sides[2:]))
            if all(left) != all(right):
                return True
        return False

    def size(self) -> float:
        """Return the sum of the absolute values of the terms of <c, F>."""
        with np.errstate(all="ignore"):
            values = abs(self.c * self.zero)
        return float(values[np.isfinite(values)].sum())

    def least_error(self) -> float:
        """Return the error of the derivative of a constant, which may change by less than its last digit."""
        return 1e-12 * self.size()

    def typical_size(self) -> float:
        """Return the size of <c, F> at points of the size of this one: its reflection, and half of it.

        gelu(-7) is the small difference of numbers of the size of gelu(7), and has their rounding errors. A size of
        more than 100 times that of the point is not typical.
        """
        largest = max([1.0, *(float(abs(a[np.isfinite(a)]).max(initial=0.0)) for a in self.at)])
        size = 0.0
        for factor in (-1.0, 0.5, -0.5):
            with suppress(Exception), np.errstate(all="ignore"):  # F may be undefined there
                values = abs(self.c * flat(self.F([factor * a for a in self.at])))
                size = max(size, min(float(values[np.isfinite(values)].sum()), 100 * largest))
        return size

    def is_rounding(self, e: Derivative) -> bool:
        """Return whether rounding explains the difference, because it changes one of the two values as much."""
        # A derivative is about as large as f / x. One that cancels to much less has the rounding errors of its terms.
        largest = 1.0 if e.position is None else max(1.0, abs(float(self.at[e.position[0]][e.position[1]])))
        magnitude = (self.size() + self.terms) / largest
        # A softmax within rounding of 1 has a gradient of 0, multiplied by the inverse of the temperature.
        if e.difference <= max(64 * _EPS * (self.size() + self.terms), 4 * _EPS * abs(self.c).max(initial=0.0)):
            return True
        if e.difference <= 4096 * _EPS * self.typical_size() or e.difference <= self.resolution(e, magnitude):
            return True
        largest_c = abs(self.c).max(initial=0.0)
        if e.difference > max(1e-6 * max(e.terms, e.analytic_terms), 1e-12 * magnitude, 1e-12 * largest_c):
            return False

        def analytic_at(at: Arrays) -> float:
            gradient = self.gradient_at(at)
            if e.position is not None:
                return float(gradient[e.position[0]][e.position[1]])
            return float(sum((g * d).sum() for g, d in zip(gradient, e.direction or [])))

        def moved(size: float) -> float:
            return analytic_at([a * (1 + size * self.rng.choice([-1.0, 1.0], a.shape)) for a in self.at])

        if e.difference <= 30 * max(abs(moved(size) - e.analytic) for size in 4 * [2.0**-50, 2.0**-48]):
            return True
        # (x + 1000) - 1000 changes in steps, not with the last bits of x, so look along longer lines as well.
        v = [self.scaled_direction(a, 1) for a in self.at]
        for length in (2.0**-40, 2.0**-28):
            seen = np.array([analytic_at([a + length * t * d for a, d in zip(self.at, v)]) for t in _LINE])
            if e.difference <= 30 * float(abs(seen - _PARABOLAS @ (_PARABOLAS.T @ seen)).max()):
                return True
        return False

    def resolution(self, e: Derivative, magnitude: float) -> float:
        """Return the error of the numerical derivative that the roughness of f causes.

        Where large terms cancel, f has steps as high as a rounding of those terms. At a small h it moves by one step or
        not at all.
        """
        if not e.finest or e.on_kink:
            return 0.0
        F, scale = self._line_through(*e.position) if e.position else (self._line(e.direction or []), 1.0)
        used = self.c != 0
        residuals: list[float] = []
        radius = e.finest
        while radius <= scale * STEPS[0] and len(residuals) < 3:
            seen = np.array([F(float(radius * t)) for t in _LINE])[:, used]
            if not np.isfinite(seen).all():
                break
            if residuals or (seen != seen[0]).any():
                residuals.append(float(abs(self.c[used]) @ abs(seen - _PARABOLAS @ (_PARABOLAS.T @ seen)).max(axis=0)))
            radius *= 8
        return 4 * max([0.0, *(h for h in residuals if h <= 1e-9 + 1e-4 * magnitude)]) / e.finest

    def _moved_to(self, at: Arrays, analytic: Arrays) -> Problem:
        """Return the same problem at another point, without the complex step."""
        return Problem(self.F, at, self.cotangents, analytic, self.gradient_at, self.rtol, True, False, self.rng)

    def holds_nearby(self, e: Derivative) -> bool:
        """Return whether the gradient is right at nearby points and jumps at this one.

        Where f consists of several ops, their kinks may cancel, as in relu(x) - relu(-x) at 0.
        """
        for at in self.nearby_points(2.0**-9, 3):
            there = self._moved_to(at, self.gradient_at(at)).same_derivative(e)
            agree = there.difference <= 1e-6 * max(there.terms, there.analytic_terms) + 4 * there.error + 1e-12
            if not agree or abs(there.analytic - e.analytic) < 0.1 * e.difference:
                return False
        return True

    def is_subgradient(self, e: Derivative) -> bool:
        """Return whether this is a kink with a valid analytic value outside of the one-sided derivatives.

        None of three equal entries moves the median alone, but the gradient of the median goes to one of them. A value
        is valid if it lies between the derivatives at arbitrarily close points: it is in Clarke's generalised gradient.
        """
        bounds: list[list[Any]] = [[], []]
        for shifts in self.tie_breaking_shifts(24):
            pair = []
            for size in (2.0**-9, 2.0**-13):
                at = [a + size * shift for a, shift in zip(self.at, shifts)]
                near = self._moved_to(at, self.analytic).same_derivative(e)
                size_of_terms = near.terms + near.analytic_terms + abs(e.analytic)
                if math.isfinite(near.error) and 4 * near.error <= 1e-4 * size_of_terms:
                    pair.append(near.bounds)
            if len(pair) < 2:
                continue
            for some, one in zip(bounds, pair):
                some.append(one)
            # Take the range for each entry of f by itself, because a few points do not show all combinations.
            (low, high), (lower, higher) = (
                (float(np.min([o[0] for o in some], axis=0).sum()), float(np.max([o[1] for o in some], axis=0).sum()))
                for some in bounds
            )
            margin = (abs(low - lower) + abs(high - higher)) / 8 + 1e-6 * max(e.terms, e.analytic_terms)
            if lower - margin <= e.analytic <= higher + margin and higher - lower > 0.5 * (high - low):
                return True
            if len(bounds[0]) == 6 and 0 < higher - lower <= 0.5 * (high - low):
                return False  # the range shrinks with the distance, so f is smooth here
        return False

    def nearby_points(self, size: float, count: int) -> list[Arrays]:
        """Return points nearby in which no two entries are equal."""
        return [
            [a + size * shift for a, shift in zip(self.at, shifts)] for shifts in self.tie_breaking_shifts(count)
        ]  # fmt: skip

    def tie_breaking_shifts(self, count: int) -> list[Arrays]:
        """Return shifts that make all entries of all arrays unequal: first ascending, then descending, then random."""
        total, found = sum(a.size for a in self.at), []
        for number in range(count):
            ranks = np.arange(1, total + 1) / max(1, total) * (-1.0 if number == 1 else 1.0)
            if number > 1:
                ranks = self.rng.permutation(2 * ranks - 1 - 0.5 / max(1, total))
            parts = np.split(ranks, np.cumsum([a.size for a in self.at])[:-1])
            found.append([self.scaled_direction(a, 0) * part.reshape(a.shape) for a, part in zip(self.at, parts)])
        return found

    def compare(self, max_elements: int) -> Comparison:
        """Compare the derivatives along all entries, or along random entries and directions if there are many."""
        found = Comparison()
        positions = [(k, i) for k, a in enumerate(self.at) for i in np.ndindex(a.shape)]
        many = len(positions) > max_elements
        if many:
            # The last entry of each array is among them, because a loop over blocks may treat it differently.
            ends = np.cumsum([a.size for a in self.at])[:4] - 1
            chosen = [*ends.tolist(), *self.rng.permutation(len(positions)).tolist()]
            entries = [self.entry(*positions[i]) for i in list(dict.fromkeys(chosen))[: max_elements // 4]]
        else:
            entries = [self.entry(*position) for position in positions]
        sizes = [[0.0] for _ in self.at]  # the terms of each array's derivatives
        for e in entries:
            if e.position and math.isfinite(e.terms):
                sizes[e.position[0]].append(e.terms)
        tolerances = [64 * _EPS * max(some) for some in sizes]
        for e in entries:
            self.classify(e, tolerances[e.position[0]] if e.position else 0.0, found)
        # Directions move equal entries together, which shows mistakes at ties that single entries hide.
        if many or (self.strict and (found.kinks or any(e.on_kink for e in entries))):
            self._along_directions(positions, found, 4 if many else 2)
        return found

    def _along_directions(self, positions: list[tuple[int, tuple[int, ...]]], found: Comparison, count: int) -> None:
        for number in range(count):
            e = self.along_direction(self.direction(number))
            before = len(found.wrong)
            atol = 64 * _EPS * max(e.terms, e.analytic_terms)
            self.classify(e, atol, found)
            if len(found.wrong) == before or len(positions) > 4096:
                continue
            classified = {e.position for e in (*found.right, *found.wrong)}
            for position in positions:  # find the entry that is wrong
                if position in classified:
                    continue
                self.classify(self.entry(*position), atol, found)
                if len(found.wrong) > before + 1:
                    return
            if all(one.position is None for one in found.wrong) and e.analytic_terms > _TOO_FAR * e.terms:
                # Each entry by itself is right or unknown, and the direction moves one of them past what is near it:
                # the second derivative of atan2(1e-12, 0) is 1e24.
                found.wrong.remove(e)
                found.inconclusive += 1

    def direction(self, number: int) -> Arrays:
        """Return a direction that moves every entry, except those whose derivative cannot be finite.

        They are the entries with a gradient of NaN, where results of F or numbers on the way to them are not finite.
        """
        v = [self.scaled_direction(a, number) for a in self.at]
        if self.broken or self.overflows:
            v = [np.where(np.isfinite(g), d, 0.0) for g, d in zip(self.analytic, v)]
        return v

    def scaled_direction(self, a: np.ndarray, number: int) -> np.ndarray:
        """Return the scale of each entry's steps if ``number`` is 0, else a random direction of that scale.

        The scale is about |x|, but 1 for small and moderate x. Along a direction tiny entries move by their own size.
        """
        sizes = abs(np.where(np.isfinite(a) & (a != 0), a, 1.0))
        exponents = np.ceil(np.log2(np.where((sizes < _TINY) & (number > 0), sizes, np.maximum(1.0, sizes))))
        size = 2.0 ** np.minimum(exponents, _MAX_EXPONENT)
        if number == 0:
            return np.asarray(size)
        return np.asarray(size * self.rng.choice([-1.0, -0.5, 0.5, 1.0], a.shape))


def finite_part(cotangents: Arrays, results: Arrays) -> Arrays:
    """Return the cotangents with 0 for each entry of the results that is not finite. It has no derivative."""
    return [np.where(np.isfinite(y), c, 0.0) for c, y in zip(cotangents, results, strict=True)]


def flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the entries of all arrays in one 1-D array."""
    if len(arrays) == 1:
        return arrays[0].reshape(-1)
    return np.concatenate([np.zeros(0), *(a.reshape(-1) for a in arrays)])
