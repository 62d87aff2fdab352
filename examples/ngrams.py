"""The n-gram model that the experiments compare a GPT with: it counts which tokens follow the n - 1 before them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Numbers = NDArray[np.int64] | NDArray[np.float64]


class NGram:
    """An n-gram model, where each context is interpolated with the one that is a token shorter.

    For the context h, and h' without the first token of h:

        p(w | h) = (kept(h w) + lower(h) p(w | h')) / whole(h)

    The empty context is interpolated with the uniform distribution. A context that the text does not have gives
    p(w | h').

    witten-bell: kept is the count of h w, lower the number of different tokens after h, whole the sum of both. (Witten
    and Bell 1991; Chen and Goodman 1998, "An Empirical Study of Smoothing Techniques", section 2.4.)

    kneser-ney: kept is the count less a discount for counts of 1, of 2, and of 3 or more. lower is the sum of the
    discounts, whole that of the counts. For contexts that are shorter than n - 1, the count is the number of different
    tokens before h w. (Kneser and Ney 1995; modified by Chen and Goodman, section 3.)

    ids: the text to count, (N,). n: the length of the longest n-grams. vocab_size: V, where V^n < 2^63.
    """

    def __init__(self, ids: Ids, n: int, vocab_size: int, smoothing: str = "witten-bell") -> None:
        if smoothing not in ("witten-bell", "kneser-ney"):
            raise ValueError(f"NGram: expected smoothing 'witten-bell' or 'kneser-ney', got {smoothing!r}. Choose one.")
        if vocab_size**n >= 2**63:
            raise ValueError(f"NGram: expected vocab_size^n below 2^63, got {vocab_size}^{n}. Choose a smaller n.")
        self.n, self.vocab_size = n, vocab_size
        # For each length: its n-grams as sorted numbers in base V, and kept; their contexts, lower and whole.
        self.tables: list[tuple[Ids, Numbers, Ids, Numbers, Ids]] = []
        occurrences = []  # for each length: its n-grams, and how often each occurs
        codes = np.zeros(len(ids) + 1, np.int64)
        for length in range(1, n + 1):
            codes = codes[:-1] * vocab_size + ids[length - 1 :]
            occurrences.append(np.unique(codes, return_counts=True))
        for length in range(1, n + 1):
            ngrams, counts = occurrences[length - 1]
            if smoothing == "kneser-ney" and length < n:
                ngrams, counts = np.unique(occurrences[length][0] % vocab_size**length, return_counts=True)
            contexts, first, distinct = np.unique(ngrams // vocab_size, return_index=True, return_counts=True)
            total = np.add.reduceat(counts, first)
            if smoothing == "kneser-ney":
                discount = discounts(counts)[np.minimum(counts, 3)]
                self.tables.append((ngrams, counts - discount, contexts, np.add.reduceat(discount, first), total))
            else:
                self.tables.append((ngrams, counts, contexts, distinct, total + distinct))

    @property
    def size(self) -> int:
        """Return how many n-grams are counted, of all lengths."""
        return sum(len(ngrams) for ngrams, *_ in self.tables)

    def log_probs(self, ids: Ids) -> NDArray[np.float64]:
        """Return ln p(ids[i] | the tokens before it) for i = 1 .. N - 1, in nats: shape (N - 1,)."""
        p = np.full(len(ids), 1 / self.vocab_size)
        codes = np.zeros(len(ids) + 1, np.int64)
        for length, (ngrams, kept, contexts, lower, whole) in enumerate(self.tables, 1):
            codes = codes[:-1] * self.vocab_size + ids[length - 1 :]
            below, all_ = (found(contexts, column, codes // self.vocab_size) for column in (lower, whole))
            here = p[length - 1 :]  # The first tokens have shorter contexts.
            mixed = (found(ngrams, kept, codes) + below * here) / np.maximum(1, all_)
            here[all_ > 0] = mixed[all_ > 0]
        return np.log(p[1:])

    def probs(self, context: Ids) -> NDArray[np.float64]:
        """Return the probability of each token, (V,), after a context of any length, of which n - 1 tokens count."""
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for length, (ngrams, kept, contexts, lower, whole) in enumerate(self.tables, 1):
            if length - 1 > len(context):
                break
            code = 0
            for token in context[len(context) - length + 1 :]:
                code = code * self.vocab_size + int(token)
            first, last = np.searchsorted(ngrams, [code * self.vocab_size, (code + 1) * self.vocab_size])
            if first == last:  # A context that is not there has no longer one either.
                break
            i = np.searchsorted(contexts, code)
            p *= lower[i] / whole[i]
            p[ngrams[first:last] % self.vocab_size] += kept[first:last] / whole[i]
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


def discounts(counts: Ids) -> NDArray[np.float64]:
    """Return what to subtract from counts of 0, of 1, of 2, and of 3 or more (Chen and Goodman 1998, equation 26).

    A discount is at least 0.1, so that no token has the probability 0.
    """
    n1, n2, n3, n4 = (max(1, int(np.sum(counts == c))) for c in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    estimate = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    return np.concatenate([[0], np.clip(estimate, 0.1, [1, 2, 3])])


def found(keys: Ids, values: Numbers, wanted: Ids) -> Numbers:
    """Return the value of each wanted number in sorted keys, 0 for one that is not there."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
