"""Compare the times of two sides that alternate in short blocks."""

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Blocks = Sequence[Sequence[float]]
"""The times of one side, in seconds: one sequence a round."""


class Ratio(NamedTuple):
    """The time of one side, as a multiple of the other side's."""

    minimum: float  # of the shortest times: what the code costs when nothing disturbs it
    median: float  # of the medians: what a user sees
    low: float  # 10% of the rounds have a ratio below this
    high: float  # 10% of the rounds have a ratio above this

    def by_round(self) -> str:
        """Return the spread of the ratio between rounds as a line of a table."""
        return f"the ratio of medians in a round was from {self.low:.3f} to {self.high:.3f} in 80% of the rounds"


def flatten(blocks: Blocks) -> list[float]:
    """Return the times of all rounds in one list."""
    return [time for block in blocks for time in block]


def ratio(ours: Blocks, theirs: Blocks) -> Ratio:
    """Return the ratio of our times to their times. A round's ratio is that of the medians of its two blocks."""
    rounds = [statistics.median(a) / statistics.median(b) for a, b in zip(ours, theirs, strict=True)]
    a, b = flatten(ours), flatten(theirs)
    low, high = np.quantile(rounds, [0.1, 0.9])
    return Ratio(min(a) / min(b), statistics.median(a) / statistics.median(b), float(low), float(high))


def faster(sides: dict[str, Blocks], summary: Callable[[list[float]], float]) -> str:
    """Return the name of the side whose times have the smallest summary, such as the minimum or the median."""
    return min(sides, key=lambda name: summary(flatten(sides[name])))
