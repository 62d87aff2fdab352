"""Choose a token from the predicted distribution."""

import numpy as np
from numpy.typing import NDArray

from gpt.config import SamplingConfig
from gpt.errors import UserError


class SampleError(UserError, ValueError):
    """Logits that no token can be sampled from."""


def sample_token(logits: NDArray[np.float64], sampling: SamplingConfig, rng: np.random.Generator) -> int:
    """Return one token id, sampled from softmax(logits / temperature) over the `top_k` largest logits.

    logits: (V,). Among equal logits the lower ids count as larger. Raises SampleError if a logit is not finite.
    """
    temperature, top_k = sampling.temperature, sampling.top_k
    if not np.isfinite(logits).all():
        raise SampleError("the logits of the model are not finite: its weights are broken. Use an earlier checkpoint")
    if temperature == 0:
        return int(logits.argmax())
    order = np.arange(len(logits)) if top_k is None else np.argsort(-logits, kind="stable")[:top_k]
    with np.errstate(over="ignore"):  # With a tiny temperature a low logit becomes -inf, and its probability 0.
        p = np.exp((logits[order] - logits[order].max()) / temperature)
    cumulative = p.cumsum()
    place = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return int(order[place])
