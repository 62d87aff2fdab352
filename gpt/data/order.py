"""The order in which a run reads the sequences of its training split."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from gpt.data.dataset import Batch, Dataset
from gpt.data.mixture import assemble
from gpt.data.permutation import permuted


class Order(Protocol):
    """What gives a run its batches, and continues where a checkpoint was written."""

    def batch(self, batch_size: int, block_size: int) -> Batch:
        """Return the next batch."""
        ...

    def epoch(self, block_size: int) -> float | None:
        """Return how often the data was read, None if that is not defined. Of several data sets it is the most."""
        ...

    def get_state(self) -> dict[str, Any] | None:
        """Return where the order is, in types that JSON has, None for an order without a state of its own."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that `get_state` returned. Raises KeyError, TypeError or ValueError."""
        ...


class RandomOrder:
    """Sequences at random places. Its state is that of the generator `rng`."""

    def __init__(self, dataset: Dataset, rng: np.random.Generator) -> None:
        self.dataset, self.rng = dataset, rng

    def batch(self, batch_size: int, block_size: int) -> Batch:
        """Return the next batch."""
        return self.dataset.batch(self.rng, "train", batch_size, block_size)

    def epoch(self, block_size: int) -> float | None:
        """Return None: some places may be read often, and others never."""
        return None

    def get_state(self) -> dict[str, Any] | None:
        """Return None."""
        return None

    def set_state(self, state: dict[str, Any]) -> None:
        """Leave the order as it is."""


class EpochOrder:
    """Epochs without replacement: each sequence once, in a random order, then again in another one.

    Several data sets take turns so that their shares are those of their weights at any time, and each has epochs of its
    own. drawn: the number of sequences that were read of each.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.parts, self.seed = dataset.parts, seed
        self.drawn = [0] * len(self.parts)

    def batch(self, batch_size: int, block_size: int) -> Batch:
        """Return the next batch."""
        chosen = self.next_sources(batch_size)
        parts = []
        for i, (source, _) in enumerate(self.parts):
            rows = np.flatnonzero(chosen == i)
            if len(rows):
                numbers = self.numbers(i, len(rows), source.count("train", block_size))
                parts.append((rows, source.sequences("train", numbers, block_size)))
        return assemble(parts, batch_size)

    def next_sources(self, batch_size: int) -> np.ndarray:
        """Return the data set of each row of the next batch: the one that is most behind its share."""
        if len(self.parts) == 1:
            return np.zeros(batch_size, np.int64)
        drawn, total = list(self.drawn), sum(self.drawn)
        chosen = np.empty(batch_size, np.int64)
        for row in range(batch_size):
            behind = [weight * (total + row + 1) - number for (_, weight), number in zip(self.parts, drawn)]
            chosen[row] = i = max(range(len(behind)), key=behind.__getitem__)
            drawn[i] += 1
        return chosen

    def numbers(self, i: int, count: int, sequences: int) -> np.ndarray:
        """Return the numbers of the next sequences of a data set, which has `sequences` in an epoch."""
        places = np.arange(self.drawn[i], self.drawn[i] + count)
        self.drawn[i] += count
        epochs = places // sequences
        result = np.empty(count, np.int64)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            result[inside] = permuted(places[inside] % sequences, sequences, self.seed, i, int(epoch))
        return result

    def epoch(self, block_size: int) -> float | None:
        """Return how often the data was read. Of several data sets it is the most."""
        return max(n / source.count("train", block_size) for n, (source, _) in zip(self.drawn, self.parts))

    def get_state(self) -> dict[str, Any] | None:
        """Return the number of sequences that were read of each data set."""
        return {"drawn": list(self.drawn)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that `get_state` returned. Raises KeyError, TypeError or ValueError."""
        drawn = state["drawn"]
        if not isinstance(drawn, Sequence) or len(drawn) != len(self.parts):
            raise ValueError(f"order.drawn: expected {len(self.parts)} numbers, got {drawn!r:.80}")
        if any(type(number) is not int or number < 0 for number in drawn):
            raise ValueError(f"order.drawn: expected numbers from 0, got {drawn!r:.80}")
        self.drawn = list(drawn)


def make_order(sampling: str, dataset: Dataset, rng: np.random.Generator, seed: int) -> Order:
    """Return the order that `data.sampling` names. rng: draws random places; seed: chooses the orders of epochs."""
    return EpochOrder(dataset, seed) if sampling == "epochs" else RandomOrder(dataset, rng)
