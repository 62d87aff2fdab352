"""A group of ranks: what they send to each other, as raw arrays, bytes and words."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np

from ..backends.registry import BACKENDS, Array, describe_array
from . import reduction
from .communicator import Communicator, DistributedError, Steps, Work, name_ranks

__all__ = ["ArrayGroup"]


class ArrayGroup:
    """The part of a group that knows no tensors. Its arrays have the same shape and dtype on every rank."""

    rank: int
    size: int
    local_rank: int

    def __init__(self, communicator: Communicator | None = None) -> None:
        self.communicator = communicator
        self.rank, self.size = (0, 1) if communicator is None else (communicator.rank, communicator.size)
        self.local_rank = 0 if communicator is None else communicator.engine.local_rank

    def __repr__(self) -> str:
        return f"Group(rank={self.rank}, size={self.size})"

    def barrier(self) -> None:
        """Wait until every rank has called this. Raises DistributedError."""
        if (work := self.start_barrier()) is not None:
            work.wait()

    def start_barrier(self) -> Work | None:
        """Tell the other ranks that this one is here. ``wait()`` waits for all. None in a group of size 1."""
        return None if self.communicator is None else self.communicator.submit("barrier", iter_nothing())

    def abort(self, status: int = 1) -> None:
        """End the processes of all ranks at once, with this exit status. It returns only for ranks that are threads."""
        if self.communicator is not None:
            self.communicator.engine.abort(status)

    # ---- values -----------------------------------------------------------------------------

    def gather_bytes(self, value: bytes) -> list[bytes]:
        """Return the bytes of every rank, which may differ in length. Raises DistributedError."""
        if self.communicator is None:
            return [value]
        lengths = self.run_all_gather(np.array([len(value)], np.int64), "all_gather of a length")
        longest = max(1, int(lengths.max()))
        padded = np.frombuffer(value.ljust(longest, b"\0"), np.uint8)
        rows = self.run_all_gather(padded, f"all_gather of {longest} bytes")
        return [row.tobytes()[:length] for row, (length,) in zip(rows, lengths, strict=True)]

    def check_equal(self, what: str, value: str | bytes) -> None:
        """Raise DistributedError, which names the ranks, if ranks have different values.

        what: the name of the value in the error. A value of up to 64 characters is shown, else its SHA-256.
        """
        content = value.encode() if isinstance(value, str) else value
        if len(content) > 64:
            content = hashlib.sha256(content).hexdigest().encode()
        ranks: dict[bytes, list[int]] = {}
        for rank, each in enumerate(self.gather_bytes(content)):
            ranks.setdefault(each, []).append(rank)
        if len(ranks) > 1:
            parts = [f"{name_ranks(who)} got {each.decode(errors='replace')!r}" for each, who in ranks.items()]
            error = DistributedError(f"{what}: expected the same on all ranks, but {', '.join(parts)}")
            error.reporter = 0
            raise error

    @contextlib.contextmanager
    def activity(self, text: str) -> Iterator[None]:
        """Context manager that says what this rank is doing. Errors of other ranks name it, such as "step 12"."""
        communicator = self.communicator
        if communicator is None:
            yield
            return
        before, communicator.activity = communicator.activity, text
        try:
            yield
        finally:
            communicator.activity = before

    # ---- raw arrays -------------------------------------------------------------------------

    def start_all_reduce(self, flat: Array, op: str, name: str = "all_reduce") -> Work | None:
        """Start the reduction of flat arrays, which must not change until it is done. None in a group of size 1."""
        if self.communicator is None:
            return None
        steps = reduction.all_reduce(self.communicator.engine, flat, op)
        return self.communicator.submit(f"{name}({op}) of {describe_array(flat)}", steps)

    def run_all_reduce(self, x: Array, op: str) -> Array:
        """Return the reduction of the arrays of all ranks, a new array."""
        if self.communicator is None:
            return x.copy()
        flat = flatten(x)
        steps = reduction.all_reduce(self.communicator.engine, flat, op)
        result: Array = self.communicator.submit(f"all_reduce({op}) of {describe_array(x)}", steps).wait()
        return result.reshape(x.shape)

    def run_reduce_scatter(self, x: Array, op: str) -> Array:
        """Return this rank's row of the reduction of the arrays (size, ...) of all ranks."""
        if self.communicator is None:
            return x[0].copy()
        rows = flatten(x).reshape(self.size, -1)
        steps = reduction.reduce_scatter(self.communicator.engine, rows, op)
        result: Array = self.communicator.submit(f"reduce_scatter({op}) of {describe_array(x)}", steps).wait()
        return result.reshape(x.shape[1:])

    def run_all_gather(self, x: Array, call: str = "") -> Array:
        """Return the arrays of all ranks, (size, ...)."""
        if self.communicator is None:
            return x[None].copy()
        steps = reduction.all_gather(self.communicator.engine, flatten(x))
        result: Array = self.communicator.submit(call or f"all_gather of {describe_array(x)}", steps).wait()
        return result.reshape(self.size, *x.shape)

    def run_broadcast(self, x: Array, src: int) -> Array:
        """Return the array of the rank ``src``, a new array."""
        if self.communicator is None:
            return x.copy()
        steps = reduction.broadcast(self.communicator.engine, flatten(x), src)
        result: Array = self.communicator.submit(f"broadcast from rank {src} of {describe_array(x)}", steps).wait()
        return result.reshape(x.shape)


def iter_nothing() -> Steps:
    """Return the steps of a collective that sends nothing."""
    yield from ()


def flatten(x: Array) -> Array:
    """Return the entries of an array in C order, in one dimension. A C-contiguous array is not copied."""
    return BACKENDS[type(x)].ascontiguousarray(x).reshape(-1)
