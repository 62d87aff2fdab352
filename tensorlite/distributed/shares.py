"""The parameters of an optimizer as shares of the ranks, and the transfer of each share to the other ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from ..backends.registry import BACKENDS, Array
from .communicator import Engine, Steps

__all__ = ["assign_ranks", "broadcast_shares"]

# Bytes of a share that a rank sends at once. Small arrays are copied into one flat array of at most this size.
PACK = 1 << 22


def assign_ranks(sizes: Sequence[int], loads: list[int]) -> list[int]:
    """Return a rank for each size: from the largest size on, the rank with the smallest load, and add the sizes to it.

    sizes: numbers of entries, in the order of the result. loads: the sum of the sizes of each rank so far; it is
        changed in place. Equal sizes keep their order, and of equal loads the first one is chosen.

    The largest load is at most 4/3 of the best one possible (Graham, "Bounds on Multiprocessing Timing Anomalies",
    1969).
    """
    ranks = [0] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        ranks[i] = loads.index(min(loads))
        loads[ranks[i]] += sizes[i]
    return ranks


def broadcast_shares(engine: Engine, shares: Sequence[Sequence[Array]]) -> Steps:
    """Fill the arrays of each share with those of its rank. The arrays have the same shapes and dtypes on every rank.

    shares: the arrays of each rank. In each round all ranks send at once, so that no link between them is idle.
    """
    flats = [[flat_view(array) for array in share] for share in shares]
    for packs in zip_longest(*(make_packs(share) for share in flats)):
        started = []
        for source, pack in enumerate(packs):
            if pack is not None:
                flat = flat_pack(pack, engine.rank == source)
                started.append((source, pack, flat, engine.spread(flat, source)))
        for source, pack, flat, request in started:
            yield request
            if len(pack) > 1 and engine.rank != source:
                start = 0
                for part in pack:
                    part[...] = flat[start : start + part.size]
                    start += part.size
    for source, share in enumerate(shares):
        for array, flat in zip(share, flats[source], strict=True):
            if engine.rank != source and not array.flags.c_contiguous:
                array[...] = flat.reshape(array.shape)


def flat_view(array: Array) -> Array:
    """Return the entries of an array in C order, in one dimension: a view of it if it is C-contiguous, else a copy."""
    return BACKENDS[type(array)].ascontiguousarray(array).reshape(-1)


def make_packs(flats: Sequence[Array]) -> Iterator[list[Array]]:
    """Yield lists of slices of flat arrays, in their order, of one dtype and at most `PACK` bytes together."""
    pack: list[Array] = []
    room = 0
    for flat in flats:
        entries = max(1, PACK // flat.dtype.itemsize)
        for start in range(0, flat.size, entries):
            part = flat[start : start + entries]
            if pack and (part.nbytes > room or type(part) is not type(pack[0]) or part.dtype != pack[0].dtype):
                yield pack
                pack = []
            room = (room if pack else PACK) - part.nbytes
            pack.append(part)
    if pack:
        yield pack


def flat_pack(pack: Sequence[Array], filled: bool) -> Array:
    """Return one flat array for a pack, with its entries if it is to be filled. A single slice is returned itself."""
    if len(pack) == 1:
        return pack[0]
    xp = BACKENDS[type(pack[0])]
    return xp.concatenate(pack) if filled else xp.empty(sum(part.size for part in pack), pack[0].dtype)
