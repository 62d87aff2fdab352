"""The keys and values of the tokens that a model has read."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

import tensorlite as tl
from gpt.config import ModelConfig
from tensorlite import Tensor

# Positions that a cache has room for at first. It grows, because the context of some models is longer than memory.
FIRST_PLACES = 256


class CachedModel(Protocol):
    """What a cache needs to know of a model."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def device(self) -> tl.Device: ...

    @property
    def dtype(self) -> "np.dtype[Any]": ...


class KVCache:
    """The keys and values of the tokens that a model has read, so that later tokens need not compute them again.

    model: the model that reads with it, under no_grad; dtype and device are those of the model. Set `length` to 0 after
        changing its weights, because the cache was computed with the old ones.
    batch_size: the number of sequences, all of one length. Shorter ones begin with padding.
    padding: the number of tokens at the start of each sequence that nothing sees, (B,); None for none.

    Raises ValueError for a padding of another length, or a negative one.
    """

    length: int
    """The number of positions that are filled. Setting it to 0 forgets all, to a smaller number the last ones."""

    def __init__(self, model: CachedModel, batch_size: int = 1, padding: Sequence[int] | None = None) -> None:
        config, device, dtype = model.config, model.device, model.dtype
        places = min(config.block_size, FIRST_PLACES)
        shape = (batch_size, config.kv_heads, places, config.head_size)  # (B, K, places, D)
        layers = range(config.n_layer)
        self.batch_size, self.block_size, self.length = batch_size, config.block_size, 0
        if padding is not None and (len(padding) != batch_size or any(number < 0 for number in padding)):
            raise ValueError(f"KVCache: expected padding of {batch_size} numbers from 0, got {list(padding)!r:.80}")
        self.padding = None if padding is None or not any(padding) else np.asarray(padding, np.int64)
        self.keys = [tl.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [tl.zeros(shape, dtype=dtype, device=device) for _ in layers]
        # Of a model with embeddings of previous tokens, the tokens, as one tensor with the axes of the keys.
        shape = (batch_size, 1, places, 1)
        self.tokens = [tl.zeros(shape, dtype=tl.int64, device=device)] if config.previous_tokens else []

    def check_capacity(self, B: int, T: int) -> None:
        """Raise ValueError unless (B, T) new tokens fit after the cached ones."""
        if B != self.batch_size:
            raise ValueError(
                f"GPT: expected a batch of {self.batch_size} sequences, as in the cache, got {B}. "
                f"Make a KVCache with batch_size={B}"
            )
        if self.length < 0:
            raise ValueError(f"GPT: expected a cache with a length from 0, got {self.length}")
        if self.length + T > self.block_size:
            raise ValueError(
                f"GPT: the cache holds {self.length} of block_size = {self.block_size} positions, and {T} more do not "
                "fit. Set its length to 0 and read fewer of the last tokens again"
            )

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, K, T, D) of T new tokens to a layer; return all of them, (B, K, length + T, D)."""
        stop = self.length + k.shape[2]  # `length` itself changes after the last layer.
        if stop > self.keys[layer].shape[2]:
            self.reserve(max(stop, 2 * self.keys[layer].shape[2]), layer)
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.length : stop] = k
        values[:, :, self.length : stop] = v
        return keys[:, :, :stop], values[:, :, :stop]

    def append_tokens(self, ids: Tensor) -> None:
        """Append the ids (B, T) of new tokens, for a model with embeddings of previous tokens."""
        stop = self.length + ids.shape[1]  # `length` itself changes after the last layer.
        if stop > self.tokens[0].shape[2]:
            self.reserve(max(stop, 2 * self.tokens[0].shape[2]))
        self.tokens[0][:, 0, self.length : stop, 0] = ids

    def tokens_between(self, start: int, stop: int, none: int) -> Tensor:
        """Return the tokens at the places from `start` to `stop`, (B, stop - start), and `none` where a text has none.

        A text has none before the first place, which is 0, and in its padding.
        """
        tokens = self.tokens[0][:, 0, max(start, 0) : stop, 0]
        if start < 0:
            missing = tl.full((self.batch_size, -start), none, dtype=tokens.dtype, device=tokens.device)
            tokens = tl.cat([missing, tokens], dim=1)
        if self.padding is None:
            return tokens
        seen = np.arange(start, stop) >= self.padding[:, None]
        return tl.where(tl.tensor(seen, device=tokens.device), tokens, none)

    def reserve(self, places: int, layer: int | None = None) -> None:
        """Make room for this number of positions, at most block_size, in a layer or in all of them."""
        places = min(places, self.block_size)
        for tensors in (self.keys, self.values) if layer is not None else (self.keys, self.values, self.tokens):
            for i in range(len(tensors)) if layer is None else [layer]:
                if (old := tensors[i]).shape[2] < places:
                    tensors[i] = tl.zeros((*old.shape[:2], places, old.shape[3]), dtype=old.dtype, device=old.device)
                    tensors[i][:, :, : self.length] = old[:, :, : self.length]

    def positions(self, start: int, stop: int) -> Tensor:
        """Return the positions of the places from `start` to `stop` in each sequence, (B, T), int64; 0 in padding."""
        assert self.padding is not None
        return tl.tensor(np.maximum(np.arange(start, stop) - self.padding[:, None], 0))
