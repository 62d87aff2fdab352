"""Choose a token from the predicted distribution."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt.config import SamplingConfig
from gpt.generation.processors import (
    BrokenModelError,
    Logits,
    Processor,
    Temperature,
    TopK,
    after_prompt,
    apply,
    cuts,
    largest,
    penalties,
)

Tokens = Sequence[int] | NDArray[np.intp]
Weights = NDArray[np.float64]

CERTAIN = np.ones(1)


class Proposal(NamedTuple):
    """A token that a draft proposes, and the distribution (V,) that it was drawn from; None if it was certain."""

    token: int
    probabilities: Weights | None = None


def sample_token(
    logits: Logits,
    sampling: SamplingConfig,
    rng: np.random.Generator,
    ids: Sequence[int] = (),
    *,
    prompt_length: int = 0,
    processors: Iterable[Processor] = (),
) -> int:
    """Return one token id, sampled from the softmax of the logits after all options of `sampling`.

    logits: (V,). ids: the tokens so far, of which the first `prompt_length` are the prompt; the penalties need them.
    processors: see `gpt.generation.processors`.

    `top_k` keeps K tokens, the lower ids among equal logits. A temperature of 0 takes the largest logit after the
    penalties, the lowest id among equal ones. Raises SampleError if a logit is not finite or no token is left.
    """
    before = after_prompt([*penalties(sampling), *processors], prompt_length)
    tokens, weights = candidates(logits, sampling, list(ids), before, cuts(sampling))
    return int(tokens[draw(weights, rng)])


def candidates(
    logits: Logits,
    sampling: SamplingConfig,
    ids: list[int],
    before: Sequence[Processor],
    after: Sequence[Processor],
) -> tuple[Tokens, Weights]:
    """Return the tokens that `sample_token` chooses from, (N,), and their weights, which are proportional to p.

    before, after: the processors before the temperature and after top-k. A temperature of 0 leaves one token.
    """
    temperature, top_k = sampling.temperature, sampling.top_k
    tokens: Any = range(len(logits))
    check_finite(logits)
    if before:
        logits = apply(before, ids, logits)
    if temperature == 0:
        return (int(logits.argmax()),), CERTAIN
    if after:
        first: list[Processor] = [Temperature(temperature)]
        if top_k is not None:
            first.append(TopK(top_k, ties=False))
        logits, temperature = apply([*first, *after], ids, logits), 1.0
        (possible,) = (logits > -np.inf).nonzero()  # Most tokens of a large vocabulary are cut.
        logits, tokens = logits[possible], possible
    if top_k is not None:
        kept = largest(logits, top_k)
        logits, tokens = logits[kept], tokens[kept] if after else kept
    with np.errstate(over="ignore"):  # With a tiny temperature a low logit becomes -inf, and its probability 0.
        return tokens, np.exp((logits - logits.max()) / temperature)


def check_finite(values: NDArray[np.floating[Any]]) -> None:
    """Raise BrokenModelError for values that a model has computed, such as logits, and that are NaN or infinite."""
    if not np.isfinite(values).all():
        raise BrokenModelError(
            "the logits of the model are not finite: its weights are broken. Use an earlier checkpoint"
        )


def draw(weights: Weights, rng: np.random.Generator) -> int:
    """Return a random place in weights (N,), each with a probability proportional to its weight."""
    if len(weights) == 1:
        return 0
    cumulative = weights.cumsum()
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


class Sampler:
    """A function that chooses the next token of one text, with its random numbers and its tokens so far.

    prompt: the tokens before the first. It has the text of `sample_token` with one generator of the seed.
    """

    def __init__(self, sampling: SamplingConfig, prompt: Iterable[int], processors: Iterable[Processor] = ()) -> None:
        self.sampling = sampling
        self.ids = [int(token) for token in prompt]
        self.before = after_prompt([*penalties(sampling), *processors], len(self.ids))
        self.after = cuts(sampling)

    @cached_property
    def rng(self) -> np.random.Generator:
        """Return the random numbers of this text. A text without chance needs none, and they take time to seed."""
        return np.random.default_rng(self.sampling.seed)

    def __call__(self, logits: Logits) -> int:
        """Return the next token for logits (V,), and append it to `ids`. Raises SampleError and EndOfText."""
        tokens, weights = self.candidates(logits)
        token = int(tokens[self.draw(weights)])
        self.ids.append(token)
        return token

    def candidates(self, logits: Logits) -> tuple[Tokens, Weights]:
        """Return the tokens that can come next, (N,), and their weights. Raises SampleError and EndOfText."""
        return candidates(logits, self.sampling, self.ids, self.before, self.after)

    def draw(self, weights: Weights) -> int:
        """Return a place in weights (N,), by the next random number of this text."""
        return draw(weights, self.rng)

    def follow(self, logits: Logits, proposal: Proposal) -> int:
        """Return the next token as `__call__` does, where a draft proposes one: that token, or another.

        The token has the distribution p of `__call__` whatever the proposal is, if that was drawn from its q. It is the
        proposal with the probability min(1, p / q), and otherwise drawn from max(0, p - q) (Leviathan et al. 2023,
        "Fast Inference from Transformers via Speculative Decoding", algorithm 1; Chen et al. 2023, "Accelerating Large
        Language Model Decoding with Speculative Sampling", theorem 1).
        """
        if proposal.probabilities is None:  # q = 1. A draw from p is the proposal with the probability p already.
            return self(logits)
        token, q = proposal.token, proposal.probabilities
        p = probabilities(*self.candidates(logits), len(logits))
        accepted = min(1.0, p[token] / q[token])
        if self.draw(np.array([accepted, 1 - accepted])) == 1:
            rest = np.maximum(p - q, 0)
            token = self.draw(rest if rest.any() else p)  # All are 0 where rounding alone separates p and q.
        self.ids.append(token)
        return token


def probabilities(tokens: Tokens, weights: Weights, size: int) -> Weights:
    """Return the probability of each of `size` tokens, (V,), for what `candidates` returns."""
    if len(tokens) == size and isinstance(tokens, range):
        return weights / weights.sum()
    result = np.zeros(size)
    result[np.asarray(tokens)] = weights / weights.sum()
    return result
