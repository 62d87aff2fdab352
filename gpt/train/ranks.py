"""The processes that train a run together. Each is a rank: it trains on its rows of every batch, and rank 0 writes.

All ranks draw the same batches from the same random numbers, so N ranks see the data of one process. Dropout differs.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar, TypeVar

import numpy as np

import tensorlite as tl
import tensorlite.distributed as dist
from gpt.config import Config, ConfigError
from gpt.data import Batch, Dataset
from gpt.evaluate import batch_loss
from gpt.model import GPT, eval_mode
from gpt.train.interrupt import Interrupt, Stopped

R = TypeVar("R")

# The options that may differ between the ranks of a run: where each of them finds the texts, and where it would write.
OWN_OPTIONS = {"data.dataset", "train.out_dir"}


class Ranks:
    """The group of a run, and what its ranks agree on. Without a group it is one rank, which sends nothing.

    asked: whether a signal has asked this rank to stop. stopping: whether it has asked any. All ranks learn that from
        the same step.
    """

    tell: ClassVar[Callable[[str], None] | None] = None
    """What gets the activity of this process, too."""

    def __init__(self, group: dist.Group | None = None) -> None:
        self.group = dist.Group() if group is None else group
        self.rank, self.size = self.group.rank, self.group.size
        self.asked = self.stopping = False

    @property
    def is_first(self) -> bool:
        """Return whether this is rank 0, which writes and prints."""
        return self.rank == 0

    # ---- before the first step ----------------------------------------------------------------------------------

    def check_same(self, config: Config, dataset: Dataset) -> None:
        """Raise DistributedError, which names the ranks, unless all have the same options and the same tokens.

        Raises ConfigError unless they can share the rows of a batch.
        """
        if self.size == 1:
            return
        self.check_batch(config)
        own = {name: json.dumps(value) for name, value in config.flatten().items() if name not in OWN_OPTIONS}
        for other in map(json.loads, self.group.gather_bytes(json.dumps(own).encode())):
            for name in sorted(own.keys() & other.keys()):
                if own[name] != other[name]:
                    self.group.check_equal(name, own[name])
        self.group.check_equal("options", "\n".join(sorted(own)))
        self.group.check_equal("SHA-256 of the tokens of the text", dataset.digest)

    def check_batch(self, config: Config) -> None:
        """Raise ConfigError unless the ranks can share the rows of a batch."""
        B, N = config.train.batch_size, self.size
        if B % N:
            near = " or ".join(str(number) for number in (B // N * N, (B // N + 1) * N) if number)
            raise ConfigError(
                f"train.batch_size = {B}: {N} processes cannot share it equally. Use --batch-size {near}, or another "
                "number of processes"
            )

    def seed_dropout(self, *numbers: int) -> None:
        """Give each rank random numbers of its own for dropout. Rank 0 keeps those of one process."""
        if not self.is_first:
            seed = np.random.SeedSequence([*numbers, self.rank]).generate_state(1, np.uint64)[0]
            tl.manual_seed(int(seed >> 1))

    def restore_dropout(self, first: Any, every: list[Any], *numbers: int) -> None:
        """Continue with the random numbers of a checkpoint. A rank that it does not have gets others by `numbers`."""
        if self.rank == 0:
            tl.set_rng_state(first)
        elif self.rank < len(every):
            tl.set_rng_state(every[self.rank])
        else:
            self.seed_dropout(*numbers)

    # ---- steps --------------------------------------------------------------------------------------------------

    def share(self, batch: Batch) -> tuple[Batch, float | None]:
        """Return the rows of a batch that this rank trains on, and the weight of their mean loss.

        The weight is None if every target counts. Otherwise the mean over the ranks of the weighted losses is the mean
        over the targets of all ranks that count.
        """
        if self.size == 1:
            return batch, None
        rows = len(batch[0]) // self.size
        mine = tuple(part[self.rank * rows : (self.rank + 1) * rows] for part in batch)
        counts, all_counts = np.count_nonzero(mine[1] >= 0), np.count_nonzero(batch[1] >= 0)
        if all_counts == batch[1].size:
            return mine, None
        if not counts:  # The mean over no targets is NaN. That of any target is a number, and its weight is 0.
            mine[1][0, 0] = 0
        return mine, self.size * int(counts) / max(1, int(all_counts))

    def gather_random_states(self) -> list[Any]:
        """Return the states of the random numbers of dropout of all ranks."""
        return [json.loads(state) for state in self.group.gather_bytes(json.dumps(tl.get_rng_state()).encode())]

    @contextmanager
    def activity(self, text: str) -> Iterator[None]:
        """Context manager that says what this rank is doing, for the errors of other ranks."""
        if (tell := Ranks.tell) is not None:
            tell(text)
        with self.group.activity(text):
            yield

    def mean_loss(self, model: GPT, batches: Iterable[Batch], interrupt: Interrupt) -> float:
        """Return what `evaluate.mean_loss` does, with the same bits. The ranks share the batches.

        Raises Stopped on every rank, after the same batch, if a signal asks one of them to stop.
        """
        total = count = 0.0
        rest = iter(batches)
        with eval_mode(model):
            while batch_of_each := list(islice(rest, self.size)):
                mine = batch_of_each[self.rank] if self.rank < len(batch_of_each) else None
                loss, tokens = (0.0, 0) if mine is None else batch_loss(model, mine)
                row = np.array([loss, tokens, interrupt.requested], np.float64)
                every = self.group.all_gather(tl.tensor(row)).numpy()
                if every[:, 2].any():
                    self.stopping = True
                    raise Stopped
                for loss, tokens in every[: len(batch_of_each), :2].tolist():
                    total += loss * tokens
                    count += tokens
        return total / count

    # ---- the end ------------------------------------------------------------------------------------------------

    def alone(self, function: Callable[[], R]) -> R | None:
        """Return the result of a function on rank 0. The others wait until it is done, however long it takes."""
        result = function() if self.is_first else None
        barrier = self.group.start_barrier()
        if barrier is not None and not self.is_first:
            barrier.wait(math.inf)
        return result
