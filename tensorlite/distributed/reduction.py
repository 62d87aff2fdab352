"""Collectives on flat arrays, whose sums are added in the order of the ranks.

An all-reduce sends each rank the same slice of every rank's array, adds the slices up from rank 0 to the last one, and
gathers the results (Thakur, Rabenseifner and Gropp 2005, section 4.5, with an exchange in place of its reduce-scatter).
So the bits depend neither on the algorithm of the MPI library, nor on how arrays are packed into buckets.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from ..backends.registry import BACKENDS, Array
from ..dtypes import accumulate_dtype
from .communicator import Engine, Request, Steps

__all__ = ["OPERATIONS", "all_gather", "all_reduce", "broadcast", "combine", "reduce_scatter"]

# Bytes of an array up to which every rank gets the arrays of all ranks: one message instead of two.
SMALL = 1 << 13
# Bytes of an array that are sent at once. MPI counts in 32 bits, and buffers are a few times as large.
PIECE = 1 << 26

OPERATIONS = {"sum": "add", "mean": "add", "max": "maximum", "min": "minimum"}
"""The reductions, each with the ufunc that combines two arrays. NaN goes through all of them."""


def combine(parts: Array, operation: str) -> Array:
    """Return the reduction of ``parts`` (size, k) over the ranks, (k,), in the order of the ranks.

    float16 and bfloat16 are added in float32, and the result is rounded once.
    """
    xp = BACKENDS[type(parts)]
    function = getattr(xp, OPERATIONS[operation])
    total = parts[0].astype(accumulate_dtype(parts.dtype))  # a copy
    for rank in range(1, len(parts)):
        function(total, parts[rank], out=total)
    if operation == "mean":
        total /= len(parts)
    return total.astype(parts.dtype, copy=False)


def pieces(x: Array, ranks: int) -> Iterator[Array]:
    """Yield slices of a flat array that are small enough to be sent by each rank at once."""
    entries = max(ranks, PIECE // x.dtype.itemsize // ranks * ranks)
    for start in range(0, x.size, entries):
        yield x[start : start + entries]


def all_reduce(engine: Engine, x: Array, operation: str) -> Steps:
    """Return the reduction of the flat arrays of all ranks, a new array of this one's shape."""
    xp = BACKENDS[type(x)]
    out = xp.empty_like(x)
    for part, result in zip(pieces(x, engine.size), pieces(out, engine.size), strict=True):
        if part.nbytes <= SMALL:
            every = xp.empty((engine.size, part.size), x.dtype)
            yield engine.gather(part, every)
            result[...] = combine(every, operation)
            continue
        mine, width = yield from _reduce_slices(engine, part, operation)
        if width * engine.size == part.size:
            yield engine.gather(mine, result.reshape(engine.size, width))
            continue
        every = xp.empty((engine.size, width), x.dtype)
        yield engine.gather(mine, every)
        result[...] = every.reshape(-1)[: part.size]
    return out


def _reduce_slices(engine: Engine, x: Array, operation: str) -> Generator[Request, None, tuple[Array, int]]:
    """Return this rank's slice of the reduction of a flat array, and its width. The last slice has zeros at its end."""
    xp, size = BACKENDS[type(x)], engine.size
    width = -(-x.size // size)
    if width * size == x.size:
        sent = x.reshape(size, width)
    else:
        sent = xp.zeros((size, width), x.dtype)
        sent.reshape(-1)[: x.size] = x
    received = xp.empty_like(sent)
    yield engine.exchange(sent, received)
    return combine(received, operation), width


def reduce_scatter(engine: Engine, x: Array, operation: str) -> Steps:
    """Return row ``rank`` of the reduction of the arrays (size, k) of all ranks, (k,)."""
    xp = BACKENDS[type(x)]
    out = xp.empty(x.shape[1], x.dtype)
    entries = max(1, PIECE // x.dtype.itemsize // engine.size)
    for start in range(0, x.shape[1], entries):
        sent = xp.ascontiguousarray(x[:, start : start + entries])
        received = xp.empty_like(sent)
        yield engine.exchange(sent, received)
        out[start : start + entries] = combine(received, operation)
    return out


def all_gather(engine: Engine, x: Array) -> Steps:
    """Return the flat arrays of all ranks, (size, k)."""
    xp = BACKENDS[type(x)]
    out = xp.empty((engine.size, x.size), x.dtype)
    entries = max(1, PIECE // x.dtype.itemsize // engine.size)
    for start in range(0, x.size, entries):
        part = x[start : start + entries]
        received = out if part.size == x.size else xp.empty((engine.size, part.size), x.dtype)
        yield engine.gather(part, received)
        if received is not out:
            out[:, start : start + entries] = received
    return out


def broadcast(engine: Engine, x: Array, source: int) -> Steps:
    """Return the flat array of the rank ``source``, a new array."""
    out = x.copy()
    for part in pieces(out, 1):
        yield engine.spread(part, source)
    return out
