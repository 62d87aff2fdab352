"""Choose a token from the predicted distribution."""

from collections.abc import Iterable, Sequence

import numpy as np

from gpt.config import SamplingConfig
from gpt.generation.processors import (
    Logits,
    Processor,
    SampleError,
    Temperature,
    TopK,
    after_prompt,
    apply,
    cuts,
    penalties,
)


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
    return choose(logits, sampling, rng, list(ids), before, cuts(sampling))


def choose(
    logits: Logits,
    sampling: SamplingConfig,
    rng: np.random.Generator,
    ids: list[int],
    before: Sequence[Processor],
    after: Sequence[Processor],
) -> int:
    """Return the token that `sample_token` returns, for processors before the temperature and after top-k."""
    temperature, top_k = sampling.temperature, sampling.top_k
    if not np.isfinite(logits).all():
        raise SampleError("the logits of the model are not finite: its weights are broken. Use an earlier checkpoint")
    if before:
        logits = apply(before, ids, logits)
    if temperature == 0:
        return int(logits.argmax())
    if after:
        first: list[Processor] = [Temperature(temperature)]
        if top_k is not None:
            first.append(TopK(top_k, ties=False))
        logits, temperature = apply([*first, *after], ids, logits), 1.0
    order = np.arange(len(logits)) if top_k is None else np.argsort(-logits, kind="stable")[:top_k]
    with np.errstate(over="ignore"):  # With a tiny temperature a low logit becomes -inf, and its probability 0.
        p = np.exp((logits[order] - logits[order].max()) / temperature)
    cumulative = p.cumsum()
    place = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return int(order[place])


class Sampler:
    """A function that chooses the next token of one text, with its random numbers and its tokens so far.

    prompt: the tokens before the first. It has the text of `sample_token` with one generator of the seed.
    """

    def __init__(self, sampling: SamplingConfig, prompt: Iterable[int], processors: Iterable[Processor] = ()) -> None:
        self.sampling = sampling
        self.rng = np.random.default_rng(sampling.seed)
        self.ids = [int(token) for token in prompt]
        self.before = after_prompt([*penalties(sampling), *processors], len(self.ids))
        self.after = cuts(sampling)

    def __call__(self, logits: Logits) -> int:
        """Return the next token for logits (V,), and append it to `ids`. Raises SampleError and EndOfText."""
        token = choose(logits, self.sampling, self.rng, self.ids, self.before, self.after)
        self.ids.append(token)
        return token
