"""A model that reads several sequences at once, with one cache for all of them."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from gpt.generation.cache_rows import join_rows, row_lengths, select_rows
from gpt.generation.engine import BatchLogits, Engine
from gpt.generation.reader import Reader
from gpt.model import GPT, KVCache
from gpt.tokenizer import Ids, check_token_ids


class BatchEngine:
    """A model that reads a batch of B sequences, prompts of any lengths and then a token for each.

    Each row predicts what an `Engine` predicts that reads it alone: a row whose context is full starts again from its
    last block_size // 2 tokens, while the others go on. Equal prompts are read once, and their cache is copied.
    """

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.reader = Reader(model)
        self.cache = KVCache(model)
        self.recent: list[deque[int]] = []

    def prefill(self, prompts: Sequence[Sequence[int] | Ids]) -> BatchLogits:
        """Start new sequences with the last block_size of each prompt; return the logits (B, V) of the next tokens."""
        size = self.model.config.block_size
        texts = [tuple(check_token_ids(ids, self.model.config.vocab_size)[-size:].tolist()) for ids in prompts]
        self.recent = [deque(text, maxlen=max(1, size // 2)) for text in texts]
        distinct = list(dict.fromkeys(texts))
        self.cache, logits = self._read_new(distinct)
        if len(distinct) == len(texts):
            return logits
        rows = [distinct.index(text) for text in texts]
        self.cache = select_rows(self.model, self.cache, rows)
        return logits[rows]

    def step(self, tokens: Sequence[int]) -> BatchLogits:
        """Append a token to each sequence, in the order of the rows; return the logits (B, V) of the next ones."""
        if len(tokens) != len(self.recent):
            raise ValueError(f"BatchEngine.step: expected a token for each row, {len(self.recent)}, got {len(tokens)}")
        for recent, token in zip(self.recent, tokens, strict=True):
            recent.append(int(token))
        lengths = row_lengths(self.cache)
        full = [row for row, length in enumerate(lengths) if length == self.cache.block_size]
        if not full:
            return self._read(self.cache, [[token] for token in tokens])
        again, logits = self._read_new([tuple(self.recent[row]) for row in full])
        rest = [row for row in range(len(lengths)) if row not in full]
        if not rest:
            self.cache = again
            return logits
        going_on = select_rows(self.model, self.cache, rest)
        others = self._read(going_on, [[tokens[row]] for row in rest])
        new = range(len(full)), range(len(rest))
        self.cache = join_rows(self.model, [(again, new[0], full), (going_on, new[1], rest)])
        result = np.empty((len(lengths), logits.shape[1]))
        result[full], result[rest] = logits, others
        return result

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, each as often as it is named, in this order."""
        if list(rows) != list(range(len(self.recent))):
            self.cache = select_rows(self.model, self.cache, rows)
            self.recent = [self.recent[row].copy() for row in rows]

    def _read_new(self, texts: Sequence[Sequence[int]]) -> tuple[KVCache, BatchLogits]:
        """Return a cache that holds these texts, and the logits of the tokens after them."""
        longest = max(map(len, texts))
        cache = KVCache(self.model, len(texts), [longest - len(text) for text in texts])
        return cache, self._read(cache, [[0] * (longest - len(text)) + list(text) for text in texts])

    def _read(self, cache: KVCache, ids: Sequence[Sequence[int]]) -> BatchLogits:
        """Return the logits (B, V) after ids, (B, T), which follow the tokens of a cache."""
        logits: BatchLogits = self.reader.logits(np.array(ids, np.int64), cache)[:, 0]
        return logits


class SeparateEngines:
    """Engines with one sequence each, with the methods of `BatchEngine`.

    Models need it whose rotary positions depend on the length of a sequence (`rope_scaling` = "dynamic").
    """

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.engines: list[Engine] = []

    def prefill(self, prompts: Sequence[Sequence[int] | Ids]) -> BatchLogits:
        """See `BatchEngine.prefill`."""
        self.engines = [Engine(self.model) for _ in prompts]
        return np.stack([engine.prefill(ids) for engine, ids in zip(self.engines, prompts, strict=True)])

    def step(self, tokens: Sequence[int]) -> BatchLogits:
        """See `BatchEngine.step`."""
        return np.stack([engine.step(int(token)) for engine, token in zip(self.engines, tokens, strict=True)])

    def select(self, rows: Sequence[int]) -> None:
        """See `BatchEngine.select`."""
        used: set[int] = set()
        chosen: list[Engine] = []
        for row in rows:
            chosen.append(self._copy(self.engines[row]) if row in used else self.engines[row])
            used.add(row)
        self.engines = chosen

    def _copy(self, engine: Engine) -> Engine:
        copy = Engine(self.model)
        copy.cache = select_rows(self.model, engine.cache, [0])
        copy.cached = engine.cached.copy()
        return copy


def batch_engine(model: GPT) -> BatchEngine | SeparateEngines:
    """Return an engine for a batch of sequences of a model."""
    return SeparateEngines(model) if model.config.rope_scaling == "dynamic" else BatchEngine(model)
