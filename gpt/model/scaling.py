"""What to expect of training on several processes: bytes that each sends, and the time of a step.

In a step on N processes, each computes a Nth of the sequences of each batch, and `DataParallel` averages the gradients
in buckets. For a bucket of n bytes, every process

- announces the call to the others, in messages of 512 bytes each, while earlier buckets are sent;
- sends each process its slice, of w = ceil(n / N) bytes: (N - 1) w in all;
- adds up its own slice, and sends the sum to all others: (N - 1) w again.

So it sends 2 (N - 1) / N of the bytes of the gradients. Up to 8 KiB, it sends the whole bucket to all others instead:
(N - 1) n. The time of a message of n bytes is L + n / B, with the latency L and the bandwidth B of a link that sends
and receives at once (Hockney's model; Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication
Operations in MPICH", 2005, section 3.1). Messages to all others go out at once, so their latencies coincide. The sums
are gathered in ceil(log2 N) rounds (section 4.1).

A bucket is announced when the backward pass has its last gradient, and sent when the bucket before it is done. Of
several accumulated batches, that is the pass of the last one. So the step takes

    forward + backward + (end of the last transfer - end of the backward pass, if later) + sums + update

The backward pass reaches the parameters from the last layer to the first, and their shares of its time are those of
their products. A tied token embedding is complete at the end. Copies into buckets, sums and copies back take as long as
COPIES copies of the gradients, during which the link idles.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gpt.config import Config, ModelConfig
from gpt.model.shapes import parameter_shapes

BUCKET_BYTES = 4 << 20  # of gradients in a bucket of DataParallel, or one parameter
SMALL, PIECE = 1 << 13, 1 << 26  # bytes up to which an array is sent whole, and of a larger one that go out at once
ANNOUNCEMENT = 512  # bytes
COPIES = 3.5  # of the gradients: 1 into buckets, 1.5 for the sums of two processes, 1 back to the parameters
NOT_MULTIPLIED = ("wpe", "previous")  # embeddings that are added


class Link(NamedTuple):
    """What connects each process to the others. bandwidth: bytes a second each way. latency: seconds of a message."""

    bandwidth: float
    latency: float


class Passes(NamedTuple):
    """Seconds of the parts of a step on one process, without transfers.

    earlier: of the batches before the last one, whose gradients are only added up. forward, backward: of the last one.
    """

    earlier: float
    forward: float
    backward: float
    update: float

    @property
    def total(self) -> float:
        """Return the seconds of the step."""
        return sum(self)


class Bucket(NamedTuple):
    """Gradients that are sent together.

    numbers, parameters: how many there are. ready: the share of the backward pass after which all are complete.
    """

    numbers: int
    parameters: int
    ready: float


class Expectation(NamedTuple):
    """A step on a number of processes. sent: bytes of each process. Times are in seconds.

    transfer: of all messages. exposed: what of it the backward pass does not hide. sums: copies and sums of gradients.
    """

    processes: int
    sequences: int
    sent: int
    transfer: float
    exposed: float
    sums: float
    computation: float

    @property
    def step(self) -> float:
        """Return the seconds of the step."""
        return self.computation + self.exposed + self.sums


def buckets(model: ModelConfig, itemsize: int) -> list[Bucket]:
    """Return the buckets of the gradients of a model, in the order in which they start. itemsize: bytes of a number."""
    named = [(name, math.prod(shape)) for name, shape in parameter_shapes(model).items()]
    embedding = dict(named)["wte.weight"]
    work = {name: 0 if name.startswith(("wte", *NOT_MULTIPLIED)) else numbers for name, numbers in named}
    total = sum(work.values()) + (embedding if model.tied else 0)
    done = embedding if model.tied else 0  # The head comes first.
    found: list[Bucket] = []
    for name, numbers in reversed(named):
        done += work[name]
        ready = 1.0 if name.startswith("wte") else done / total
        if found and (found[-1].numbers + numbers) * itemsize <= BUCKET_BYTES:
            found[-1] = Bucket(found[-1].numbers + numbers, found[-1].parameters + 1, ready)
        else:
            found.append(Bucket(numbers, 1, ready))
    return found


def messages(bucket: Bucket, processes: int, itemsize: int) -> list[tuple[int, int]]:
    """Return (bytes that a process sends, latencies that follow one another) of each transfer of a bucket."""
    others, rounds = processes - 1, math.ceil(math.log2(processes)) if processes > 1 else 0
    entries = math.ceil((bucket.numbers + bucket.parameters) / processes) * processes
    piece = max(processes, PIECE // itemsize // processes * processes)
    found = [(others * ANNOUNCEMENT, 1)]
    for start in range(0, entries, piece):
        size = min(piece, entries - start) * itemsize
        if size <= SMALL:
            found.append((others * size, rounds))
        else:
            found += [(others * size // processes, 1), (others * size // processes, rounds)]
    return found if processes > 1 else []


def sent_bytes(parts: Iterable[Bucket], processes: int, itemsize: int) -> int:
    """Return the bytes that a process sends in a step."""
    return sum(size for part in parts for size, _ in messages(part, processes, itemsize))


def exposed_time(
    parts: Sequence[Bucket], processes: int, itemsize: int, passes: Passes, link: Link
) -> tuple[float, float]:
    """Return the seconds of all transfers, and how many of them come after the backward pass."""
    total = end = 0.0
    for part in parts:
        times = [size / link.bandwidth + n * link.latency for size, n in messages(part, processes, itemsize)]
        announced = part.ready * passes.backward + sum(times[:1])
        end = max(end, announced) + sum(times[1:])
        total += sum(times)
    return total, max(0.0, end - passes.backward)


def step_sequences(config: Config, processes: int = 1) -> int:
    """Return how many sequences of a step each process computes: its part of each batch."""
    return config.train.grad_accum * (config.train.batch_size // processes)


def expect(config: Config, processes: int, passes: Passes, link: Link, copy_rate: float) -> Expectation:
    """Return what to expect of a step on a number of processes.

    passes: of a process that computes its sequences alone. copy_rate: bytes a second at which a process copies.
    """
    itemsize = {"float32": 4, "float64": 8}[config.train.parameter_dtype]
    parts = buckets(config.model, itemsize)
    transfer, exposed = exposed_time(parts, processes, itemsize, passes, link)
    gradients = sum(part.numbers for part in parts) * itemsize
    return Expectation(
        processes, step_sequences(config, processes), sent_bytes(parts, processes, itemsize), transfer, exposed,
        COPIES * gradients / copy_rate if processes > 1 else 0.0, passes.total,
    )  # fmt: skip


def counts(processes: int, batch_size: int) -> list[int]:
    """Return 1, 2, 4 and so on up to a number of processes, and that number, if they share a batch equally."""
    found = {1 << k for k in range(processes.bit_length()) if 1 << k < processes} | {processes}
    return sorted(n for n in found if batch_size % n == 0)
