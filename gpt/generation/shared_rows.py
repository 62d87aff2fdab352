"""The caches of texts that a model reads together, a token of each at a time.

`SharedRows` keeps them in one cache. All rows end at the same place of it, as the model expects, and begin with
padding. A row that joins or leaves is copied alone; the others stay where they are, unless the new one is longer. The
places before the shortest padding are freed once the cache is full.
"""

import copy
from collections.abc import Sequence

import numpy as np

import tensorlite as tl
from gpt.generation.engine import BatchLogits
from gpt.generation.reader import Reader
from gpt.model import GPT, KVCache
from tensorlite import Tensor

SavedCache = list[Tensor]  # keys (1, K, T, D) of each layer, then values, and tokens if the model needs them


class SharedRows:
    """The rows of a batch in one cache, with room for `max_rows` of them."""

    def __init__(self, model: GPT, max_rows: int) -> None:
        self.model, self.max_rows = model, max_rows
        self.reader = Reader(model)
        self.whole = KVCache(model, max_rows)
        self.lengths: list[int] = []
        self.used: KVCache | None = None  # the rows in use; None after a change of rows or places
        self.has_new = False

    @property
    def places(self) -> int:
        """Return the number of tokens that each row has memory for."""
        return int(self.whole.keys[0].shape[2])

    def join(self, cache: KVCache) -> None:
        """Append a row with the tokens of a cache of one sequence."""
        if not self.lengths:
            self.whole.length = 0
        if cache.length > (end := self.whole.length):
            self._reserve(cache.length)
            if self.lengths:
                self._move(0, end, cache.length - end)
            self.whole.length = end = cache.length
        row = len(self.lengths)
        with tl.no_grad():
            for target, source in zip(tensors(self.whole), tensors(cache), strict=True):
                target[row : row + 1, :, end - cache.length : end] = source[:, :, : cache.length]
        self.lengths.append(cache.length)
        self.used, self.has_new = None, True

    def leave(self, row: int) -> None:
        """Remove a row. The last one takes its place."""
        last, end = len(self.lengths) - 1, self.whole.length
        if row != last:
            start = end - self.lengths[last]
            with tl.no_grad():
                for tensor in tensors(self.whole):
                    tensor[row, :, start:end] = tensor[last, :, start:end]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        if self.lengths and end > 2 * (longest := max(self.lengths)):
            self._move(end - longest, end, longest - end)
        self.used = None

    def clear(self) -> None:
        """Remove all rows."""
        self.lengths.clear()
        self.whole.length, self.used = 0, None

    def step(self, tokens: Sequence[int]) -> BatchLogits:
        """Append a token to each row, none of which is full; return the logits (B, V) of the next ones."""
        if self.whole.length == self.places:
            self._make_room()
        if self.has_new:
            self.reader.begin_text()
            self.has_new = False
        if (used := self.used) is None:
            used = self.used = self._rows_in_use()
        logits = self.reader.logits(np.array(tokens, np.int64)[:, None], used)
        self.whole.length = used.length
        self.lengths = [length + 1 for length in self.lengths]
        return logits[:, 0]

    def copy(self, row: int, length: int) -> SavedCache:
        """Return a copy of the first tokens of a row."""
        start = self.whole.length - self.lengths[row]
        with tl.no_grad():
            return [tensor[row : row + 1, :, start : start + length].clone() for tensor in tensors(self.whole)]

    def _make_room(self) -> None:
        """Make room for a token after the last place."""
        end, longest = self.whole.length, max(self.lengths)
        if self.places == self.whole.block_size or end - longest >= self.places // 4:
            self._move(end - longest, end, longest - end)
        else:
            self._reserve(end + 1)
        self.used = None

    def _move(self, start: int, stop: int, by: int) -> None:
        """Move the tokens of all rows from places `start` to `stop` by some places."""
        rows = len(self.lengths)
        with tl.no_grad():
            for tensor in tensors(self.whole):  # The copy is needed because the places overlap.
                tensor[:rows, :, start + by : stop + by] = tensor[:rows, :, start:stop].clone()
        self.whole.length = stop + by

    def _reserve(self, places: int) -> None:
        """Make room for this number of places. The memory of rows that are not in use stays untouched."""
        if places <= self.places:
            return
        places = min(max(places, 2 * self.places), self.whole.block_size)
        rows, end = len(self.lengths), self.whole.length
        with tl.no_grad():
            for held in (self.whole.keys, self.whole.values, self.whole.tokens):
                for layer, old in enumerate(held):
                    shape = (*old.shape[:2], places, old.shape[3])
                    held[layer] = tl.zeros(shape, dtype=old.dtype, device=old.device)
                    held[layer][:rows, :, :end] = old[:rows, :, :end]

    def _rows_in_use(self) -> KVCache:
        """Return a cache of the rows in use, which has no memory of its own."""
        rows, used = len(self.lengths), copy.copy(self.whole)
        padding = np.array([used.length - length for length in self.lengths], np.int64)
        used.batch_size, used.padding = rows, padding if padding.any() else None
        with tl.no_grad():
            used.keys, used.values, used.tokens = (
                [t[:rows] for t in held] for held in (used.keys, used.values, used.tokens)
            )
        return used


class SeparateRows:
    """Rows with a cache each, with the methods of `SharedRows`.

    Models need it whose rotary positions depend on the length of a sequence (`rope_scaling` = "dynamic").
    """

    def __init__(self, model: GPT, max_rows: int) -> None:
        self.model, self.max_rows = model, max_rows
        self.reader = Reader(model)
        self.caches: list[KVCache] = []

    def join(self, cache: KVCache) -> None:
        """See `SharedRows.join`."""
        self.caches.append(cache)
        self.reader.begin_text()

    def leave(self, row: int) -> None:
        """See `SharedRows.leave`."""
        self.caches[row] = self.caches[-1]
        self.caches.pop()

    def clear(self) -> None:
        """See `SharedRows.clear`."""
        self.caches.clear()

    def step(self, tokens: Sequence[int]) -> BatchLogits:
        """See `SharedRows.step`."""
        rows = zip(tokens, self.caches, strict=True)
        return np.concatenate([self.reader.logits(np.array([[token]], np.int64), cache)[:, 0] for token, cache in rows])

    def copy(self, row: int, length: int) -> SavedCache:
        """See `SharedRows.copy`."""
        return save(self.caches[row], length)


def tensors(cache: KVCache) -> list[Tensor]:
    """Return the keys of each layer, then the values, then the tokens if the model needs them."""
    return [*cache.keys, *cache.values, *cache.tokens]


def save(cache: KVCache, length: int) -> SavedCache:
    """Return a copy of the first tokens of a cache of one sequence."""
    with tl.no_grad():
        return [tensor[:, :, :length].clone() for tensor in tensors(cache)]


def load(cache: KVCache, saved: SavedCache, length: int) -> None:
    """Let a cache of one sequence hold the first tokens of a saved one, and nothing else."""
    with tl.no_grad():
        for target, source in zip(tensors(cache), saved, strict=True):
            target[:, :, :length] = source[:, :, :length]
    cache.length = length


def row_of(cache: KVCache, row: int, length: int) -> KVCache:
    """Return the last tokens of a row as a cache, which has no memory of its own."""
    part, start, stop = copy.copy(cache), cache.length - length, cache.length
    part.batch_size, part.length, part.padding = 1, length, None
    with tl.no_grad():
        part.keys, part.values, part.tokens = (
            [t[row : row + 1, :, start:stop] for t in held] for held in (cache.keys, cache.values, cache.tokens)
        )
    return part


def shared_rows(model: GPT, max_rows: int) -> SharedRows | SeparateRows:
    """Return the rows of a batch of a model."""
    return (SeparateRows if model.config.rope_scaling == "dynamic" else SharedRows)(model, max_rows)
