"""A model that reads one sequence token by token, with a cache."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
from gpt.generation.reader import Reader
from gpt.model import GPT, KVCache
from gpt.tokenizer import Ids, check_token_ids

Logits = NDArray[np.float64]  # (V,)
BatchLogits = NDArray[np.float64]  # (B, V) or (T, V)


class Engine:
    """A model that reads one sequence, a prompt and then single tokens, and predicts the token after it.

    It keeps the keys and values of the tokens in a cache. `reader` reads them, compiled if possible. Once the cache
    holds block_size tokens, it starts again from the last block_size // 2. It cannot drop the oldest tokens alone,
    because a cached value depends on the position of its token in the context.
    """

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.vocab_size = model.config.vocab_size
        self.cache = KVCache(model)
        self.reader = Reader(model)
        self.cached: list[int] = []  # the tokens in the cache

    def prefill(self, ids: Sequence[int] | Ids) -> Logits:
        """Start a new sequence with the last block_size of `ids`; return the logits (V,) of the next token."""
        tokens = check_token_ids(ids, self.model.config.vocab_size)[-self.model.config.block_size :].tolist()
        return self._continue(tokens, 0)

    def resume(self, ids: Sequence[int] | Ids) -> Logits:
        """Do what `prefill` does, but read only the tokens after the beginning that the cache holds already.

        The weights must be those that the cache was computed with.
        """
        tokens = check_token_ids(ids, self.vocab_size)[-self.model.config.block_size :].tolist()
        # The scaling that depends on the length of the text makes other keys out of a longer one.
        if self.model.config.rope_scaling == "dynamic":
            return self._continue(tokens, 0)
        limit = min(len(self.cached), len(tokens) - 1)
        if self.cached[:limit] == tokens[:limit]:  # the usual case, in one comparison
            return self._continue(tokens, limit)
        return self._continue(tokens, next(i for i in range(limit) if self.cached[i] != tokens[i]))

    def _continue(self, tokens: list[int], kept: int) -> Logits:
        """Read tokens, of which the cache keeps the first ones."""
        self.reader.begin_text()
        self.cache.length = kept
        self.cached = tokens[:kept]
        return self._read(tokens[kept:])

    def step(self, token: int) -> Logits:
        """Append a token to the sequence; return the logits (V,) of the next one. Raises TokenError."""
        if type(token) is not int or not 0 <= token < self.vocab_size:
            token = int(check_token_ids([token], self.vocab_size)[0])
        if self.cache.length == self.cache.block_size:
            recent = [*self.cached, token][-max(1, self.cache.block_size // 2) :]
            self.cache.length = 0
            self.cached.clear()
            return self._read(recent)
        return self._read([token])

    @property
    def room(self) -> int:
        """Return how many tokens `extend` can append before the context is full."""
        return self.cache.block_size - self.cache.length

    def extend(self, tokens: Sequence[int]) -> BatchLogits:
        """Append tokens, (T,), that the context has room for; return the logits (T, V) after each of them.

        They are those of T calls of `step`. Raises ValueError if there is no token or no room, and TokenError.
        """
        new = check_token_ids(tokens, self.vocab_size).tolist()
        if not 0 < len(new) <= self.room:
            raise ValueError(f"Engine.extend: expected 1 to {self.room} tokens, which fit the context, got {len(new)}")
        if len(new) == 1 or self.model.config.rope_scaling == "dynamic":  # Its keys depend on the length of the text.
            return np.stack([self._read([token]) for token in new])
        logits = self._logits_of(new, len(new))
        self.cached += new
        return logits

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens of the context only, as if the engine had read no others.

        Raises ValueError for a length below 1, or above that of the context.
        """
        if not 0 < length <= self.cache.length:
            raise ValueError(f"Engine.truncate: expected a length of 1 to {self.cache.length} tokens, got {length}")
        self.cache.length = length
        del self.cached[length:]

    def _read(self, tokens: list[int]) -> Logits:
        """Return the logits (V,) of the token after these, which follow the cached ones."""
        logits: Logits = self._logits_of(tokens, 1)[0]
        self.cached += tokens  # After the model, because an interrupt leaves a part of the tokens unread.
        return logits

    def _logits_of(self, tokens: list[int], count: int) -> BatchLogits:
        """Return the logits (count, V) after each of the last `count` of these tokens, which follow the cached ones."""
        return self.reader.logits(np.array([tokens], np.int64), self.cache, count)[0]


def next_logits(model: GPT, ids: Sequence[int] | Ids, cache: KVCache | None = None) -> Logits:
    """Return the logits (V,) of the token after `ids`, (T,), which follow the cached tokens; on the host.

    Call it in `eval_mode(model)`. T and the cached tokens are at most block_size together.
    """
    x = model.hidden_states(tl.tensor(np.asarray(ids)[None], device=model.device), cache)  # (1, T, C)
    logits: Logits = model.head(x[0, -1]).cpu().numpy().astype(np.float64)  # The head reads the last position only.
    return logits
