"""Log-probabilities of generated tokens, and of the tokens that could have come instead."""

from dataclasses import dataclass

from gpt.generation.processors import Logits, largest, log_softmax
from gpt.generation.request import is_integer


@dataclass(frozen=True)
class TokenLogProb:
    """A generated token with its log-probability under the model, in nats, whatever the sampling options are."""

    token: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...]
    """The likeliest tokens with their log-probabilities, the likeliest first, equal ones by their id."""


def token_logprob(token: int, logits: Logits, alternatives: int) -> TokenLogProb:
    """Return a token with its log-probability and those of the likeliest tokens, for logits (V,) of the model."""
    logs = log_softmax(logits)
    likeliest = largest(logs, alternatives) if alternatives else ()
    return TokenLogProb(token, float(logs[token]), tuple((int(i), float(logs[i])) for i in likeliest))


def check_alternatives(count: object) -> None:
    """Raise ValueError unless a number of alternatives is an integer from 0 on."""
    if not is_integer(count, least=0):
        raise ValueError(f"alternatives: expected a number of tokens >= 0, got {count!r:.80}")
