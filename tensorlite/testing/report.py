"""What a check gives back: a report if all is well, an error if not."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GradReport", "GradientError"]


@dataclass(frozen=True)
class GradReport:
    """What a check found. Reports of several checks can be added.

    checked: derivatives that were compared, and are right. inconclusive: derivatives whose numerical value is not known
    well enough (the function jumps, overflows, or is too noisy there). kinks: derivatives at a kink that were left
    out, because f is made of several ops. worst: the largest relative difference among those checked. method: what the
    numerical derivatives were: "complex step", "differences", or both.
    """

    checked: int = 0
    inconclusive: int = 0
    kinks: int = 0
    worst: float = 0.0
    method: str = ""

    def __add__(self, other: GradReport) -> GradReport:
        methods = dict.fromkeys(m for m in [*self.method.split(" and "), *other.method.split(" and ")] if m)
        return GradReport(
            self.checked + other.checked,
            self.inconclusive + other.inconclusive,
            self.kinks + other.kinks,
            max(self.worst, other.worst),
            " and ".join(methods),
        )

    def __str__(self) -> str:
        return (
            f"{self.checked:,} derivatives checked by {self.method or 'nothing'}, {self.inconclusive:,} inconclusive, "
            f"{self.kinks:,} on a kink; largest relative difference {self.worst:.1e}"
        )


class GradientError(AssertionError):
    """A gradient is wrong. The message is the whole report.

    report: what was found until then.
    """

    def __init__(self, message: str, report: GradReport | None = None) -> None:
        super().__init__(message)
        self.report = report or GradReport()
