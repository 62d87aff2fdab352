"""The n-gram model that the experiments compare a GPT with: it counts which tokens follow the n - 1 before them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class NGram:
    """An n-gram model with Witten-Bell smoothing, interpolated with all shorter contexts.

    For the context h, with C occurrences and T different tokens after it, and h' without the first token of h:

        p(w | h) = (count(h w) + T p(w | h')) / (C + T)

    Without any context, h' is the uniform distribution. A context that the text does not have gives p(w | h').

    ids: the text to count, (N,). n: the length of the longest n-grams. vocab_size: V, where V^n < 2^63.
    Source: Witten and Bell 1991; Chen and Goodman 1998, "An Empirical Study of Smoothing Techniques", section 2.4.
    """

    def __init__(self, ids: Ids, n: int, vocab_size: int) -> None:
        if vocab_size**n >= 2**63:
            raise ValueError(f"NGram: expected vocab_size^n below 2^63, got {vocab_size}^{n}. Choose a smaller n.")
        self.n, self.vocab_size = n, vocab_size
        # For each length: its n-grams as sorted numbers in base V, and how often each occurs; the same for contexts,
        # and how many different tokens follow each of them.
        self.tables: list[tuple[Ids, Ids, Ids, Ids, Ids]] = []
        codes = np.zeros(len(ids) + 1, np.int64)
        for length in range(1, n + 1):
            codes = codes[:-1] * vocab_size + ids[length - 1 :]
            ngrams, counts = np.unique(codes, return_counts=True)
            contexts, first, distinct = np.unique(ngrams // vocab_size, return_index=True, return_counts=True)
            self.tables.append((ngrams, counts, contexts, np.add.reduceat(counts, first), distinct))

    def log_probs(self, ids: Ids) -> NDArray[np.float64]:
        """Return ln p(ids[i] | the tokens before it) for i = 1 .. N - 1, in nats: shape (N - 1,)."""
        p = np.full(len(ids), 1 / self.vocab_size)
        codes = np.zeros(len(ids) + 1, np.int64)
        for length, (ngrams, counts, contexts, total, distinct) in enumerate(self.tables, 1):
            codes = codes[:-1] * self.vocab_size + ids[length - 1 :]
            count = found(ngrams, counts, codes)
            C, T = (found(contexts, column, codes // self.vocab_size) for column in (total, distinct))
            here = p[length - 1 :]  # The first tokens have shorter contexts.
            here[C > 0] = ((count + T * here) / np.maximum(1, C + T))[C > 0]
        return np.log(p[1:])

    def probs(self, context: Ids) -> NDArray[np.float64]:
        """Return the probability of each token, (V,), after a context of any length, of which n - 1 tokens count."""
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for length, (ngrams, counts, _, _, _) in enumerate(self.tables, 1):
            if length - 1 > len(context):
                break
            code = 0
            for token in context[len(context) - length + 1 :]:
                code = code * self.vocab_size + int(token)
            first, last = np.searchsorted(ngrams, [code * self.vocab_size, (code + 1) * self.vocab_size])
            if first == last:  # A context that is not there has no longer one either.
                break
            C, T = counts[first:last].sum(), last - first
            p *= T / (C + T)
            p[ngrams[first:last] % self.vocab_size] += counts[first:last] / (C + T)
        return p

    def generate(
        self, context: Ids, max_new_tokens: int, rng: np.random.Generator, temperature: float = 1.0
    ) -> list[int]:
        """Return new tokens after a context, each sampled from p^(1 / temperature)."""
        tokens = [int(token) for token in context]
        for _ in range(max_new_tokens):
            p = self.probs(np.array(tokens[max(0, len(tokens) - self.n + 1) :], np.int64)) ** (1 / temperature)
            tokens.append(int(rng.choice(self.vocab_size, p=p / p.sum())))
        return tokens[len(context) :]


def found(keys: Ids, values: Ids, wanted: Ids) -> Ids:
    """Return the value of each wanted number in sorted keys, 0 for one that is not there."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
