"""Pack pieces of texts into sequences of one length: best fit in the order of decreasing length.

Ding et al. 2024, "Fewer Truncations Improve Language Modeling", pack documents this way. Johnson 1974, "Fast Algorithms
for Bin Packing": best fit decreasing needs at most 11/9 of the fewest bins, and a constant more.
"""

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


def pack(lengths: Positions, size: int) -> tuple[Positions, Positions]:
    """Return pieces in the order of sequences, and where each sequence begins in that order, and the end.

    lengths: of each piece, from 1 to `size`. Each piece goes into the sequence with the least room that has enough of
    it, or into a new one. Pieces of one length are placed together, so the work grows with the number of different
    lengths and rooms, and not with that of pieces alone.
    """
    by_length = np.argsort(-lengths, kind="stable")
    borders = np.flatnonzero(np.diff(lengths[by_length])) + 1
    sequence = np.empty(len(lengths), np.int64)  # of each piece
    room: dict[int, list[Positions]] = {}  # Sequences by the room that is left.
    count = 0
    for group in np.split(by_length, borders):
        if not len(group):
            continue
        length = int(lengths[group[0]])
        while len(group):
            left = min((r for r in room if r >= length), default=size)
            each = left // length  # One sequence gets as many pieces as it has room for, then the next one.
            if left in room:
                chosen = np.concatenate(room.pop(left))
            else:
                chosen = np.arange(count, count - (-len(group) // each))
                count += len(chosen)
            placed = min(len(group), each * len(chosen))
            sequence[group[:placed]] = np.repeat(chosen, each)[:placed]
            group = group[placed:]
            full, last = divmod(placed, each)
            rest = full + (last > 0)
            for value, part in (
                (left - each * length, chosen[:full]), (left - last * length, chosen[full:rest]), (left, chosen[rest:]),
            ):  # fmt: skip
                if value and len(part):
                    room.setdefault(value, []).append(part)
    order = np.argsort(sequence, kind="stable")
    return order, np.searchsorted(sequence[order], np.arange(count + 1))
