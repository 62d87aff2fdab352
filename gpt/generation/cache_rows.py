"""The rows of a KVCache: choose some, or put those of two caches together.

The value of a cached token depends on its position in the context, and not on its place in the cache. So a row can be
moved along the places if its padding changes as well.
"""

from collections.abc import Sequence

import numpy as np

import tensorlite as tl
from gpt.model import KVCache
from gpt.model.cache import CachedModel


def row_lengths(cache: KVCache) -> list[int]:
    """Return the number of tokens in each row, without the padding."""
    padding = [0] * cache.batch_size if cache.padding is None else cache.padding.tolist()
    return [cache.length - p for p in padding]


def select_rows(model: CachedModel, cache: KVCache, rows: Sequence[int]) -> KVCache:
    """Return a cache with these rows, each as often as it is named, and no more padding than needed."""
    return join_rows(model, [(cache, rows, range(len(rows)))])


def join_rows(model: CachedModel, parts: Sequence[tuple[KVCache, Sequence[int], Sequence[int]]]) -> KVCache:
    """Return a cache with rows of several caches: (cache, its rows, the rows that they become) for each of them.

    All rows end at the last place of the new cache.
    """
    lengths = {to: row_lengths(cache)[row] for cache, rows, new in parts for row, to in zip(rows, new, strict=True)}
    longest = max(lengths.values())
    joined = KVCache(model, len(lengths), [longest - lengths[row] for row in range(len(lengths))])
    joined.reserve(longest)
    with tl.no_grad():
        for cache, rows, new in parts:
            take, put = (tl.tensor(np.array(r, np.int64), device=model.device) for r in (rows, new))
            first = max(0, cache.length - longest)  # The places before are padding of each of these rows.
            to = longest - (cache.length - first)
            held = (cache.keys, joined.keys), (cache.values, joined.values), (cache.tokens, joined.tokens)
            for old, fresh in held:
                for source, target in zip(old, fresh, strict=True):
                    target[put, :, to:longest] = source[take, :, first : cache.length]
    joined.length = longest
    return joined
