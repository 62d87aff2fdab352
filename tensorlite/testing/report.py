"""The outcomes of a check: a report, or an error."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GradReport", "GradientError"]


@dataclass(frozen=True)
class GradReport:
    """The counts of a check. Reports of several checks can be added.

    checked: the number of derivatives that were compared and are right.
    inconclusive: the number of derivatives without a reliable numerical value, because the function jumps, overflows,
        is not finite or is too noisy there.
    kinks: the number of derivatives at a kink that were not compared, because f consists of several ops.
    worst: the largest relative difference among those checked.
    method: the numerical method: "complex step", "differences" or both.
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
    """An error that reports a wrong gradient. The message has everything needed to reproduce it.

    report: the counts until the failure.
    order: the order of the derivative that is wrong, from 1 to 3; 0 for any other fault.
    """

    def __init__(self, message: str, report: GradReport | None = None, order: int = 0) -> None:
        super().__init__(message)
        self.report = report or GradReport()
        self.order = order
