"""Processors of logits: small functions that change what the next token may be.

A processor is a callable (ids, logits) -> logits. `ids` is the list of the tokens so far, those of the prompt included.
`logits`, (V,), float64, may hold -inf for a token that cannot follow. A processor may change the array that it gets, or
return another one. Three rules make one of your own:

- It returns logits of the same shape, of which one at least is finite.
- It may raise `EndOfText` where the text is complete.
- Where it needs to know which tokens are new, it has a method `after_prompt(length)`. That returns the processor for a
  text with a prompt of `length` tokens. Without that call, all tokens count as new.

The order is that of transformers: logit bias, repetition penalty, presence and frequency penalty, banned tokens, forced
tokens, the processors of the caller, temperature, top-k, top-p, min-p, typical. Each class has the values of the class
of transformers that its docstring names.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpt.config import SamplingConfig
from gpt.errors import UserError
from gpt.tokenizer import TokenError

Logits = NDArray[np.float64]
Processor = Callable[[list[int], Logits], Logits]

BLOCK = 64  # logits whose maximum is taken to find the largest of all
FEW = 1000  # Fewer logits than this are sorted faster than the largest are found (measured on a Zen 4 processor).


class EndOfText(Exception):
    """A processor raises it where the text is complete. The tokens up to there are the text."""


class SampleError(UserError, ValueError):
    """Logits that no token can be sampled from."""


class BrokenModelError(SampleError):
    """Logits that are not finite, whatever the options are."""


@dataclass(frozen=True)
class LogitBias:
    """A number for some tokens that is added to their logits (SequenceBiasLogitsProcessor)."""

    bias: Mapping[int, float]

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        check_tokens("logit_bias", self.bias, logits)
        return add_to(logits, list(self.bias), np.array(list(self.bias.values()), np.float64))


@dataclass(frozen=True)
class RepetitionPenalty:
    """A divisor of positive logits, and factor of negative ones, of each token so far (Keskar et al. 2019, "CTRL").

    The tokens of the prompt count (RepetitionPenaltyLogitsProcessor).
    """

    penalty: float

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        seen, result = distinct(ids), logits.copy()
        values = logits[seen]
        result[seen] = np.where(values < 0, values * self.penalty, values / self.penalty)
        return result


@dataclass(frozen=True)
class PresencePenalty:
    """A number that is subtracted from the logit of each token that the new text has (the rule of OpenAI's API)."""

    penalty: float
    prompt_length: int = 0

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        return add_to(logits, distinct(ids[self.prompt_length :]), -self.penalty)

    def after_prompt(self, length: int) -> Self:
        """Return the penalty of a text whose prompt has this length."""
        return replace(self, prompt_length=length)


@dataclass(frozen=True)
class FrequencyPenalty:
    """A number that is subtracted from a logit for each time that the new text has the token (OpenAI's API)."""

    penalty: float
    prompt_length: int = 0

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        tokens, counts = np.unique(np.asarray(ids[self.prompt_length :], np.int64), return_counts=True)
        return add_to(logits, tokens, -self.penalty * counts)

    def after_prompt(self, length: int) -> Self:
        """Return the penalty of a text whose prompt has this length."""
        return replace(self, prompt_length=length)


@dataclass(frozen=True)
class BannedTokens:
    """Tokens, or sequences of tokens, that the text never has (NoBadWordsLogitsProcessor).

    The last token of a sequence is banned where the text ends with the others.
    """

    banned: Sequence[int | Sequence[int]]

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        result = logits.copy()
        for entry in self.banned:
            sequence = [entry] if isinstance(entry, int | np.integer) else list(entry)
            check_tokens("banned_tokens", sequence[-1:], logits)
            before = sequence[:-1]
            if not before or list(ids[-len(before) :]) == before:
                result[sequence[-1]] = -np.inf
        return result


@dataclass(frozen=True)
class ForcedTokens:
    """The tokens at some places of the new text; place 0 follows the prompt (ForcedBOSTokenLogitsProcessor)."""

    forced: Mapping[int, int]
    prompt_length: int = 0

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        token = self.forced.get(len(ids) - self.prompt_length)
        if token is None:
            return logits
        check_tokens("forced_tokens", [token], logits)
        result = np.full_like(logits, -np.inf)
        result[token] = 0.0
        return result

    def after_prompt(self, length: int) -> Self:
        """Return the processor of a text whose prompt has this length."""
        return replace(self, prompt_length=length)


@dataclass(frozen=True)
class Temperature:
    """A positive divisor of the logits (TemperatureLogitsWarper)."""

    temperature: float

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        with np.errstate(over="ignore"):
            result = logits / self.temperature
            if np.count_nonzero(np.isfinite(result)) == np.count_nonzero(np.isfinite(logits)):
                return result
            return (logits - logits.max()) / self.temperature  # This has the same softmax, and no overflow upwards.


@dataclass(frozen=True)
class TopK:
    """The k largest logits; the others become -inf (TopKLogitsWarper).

    ties: keep all tokens that have the k-th logit, as transformers does. Otherwise the lower ids among them are kept.
    """

    k: int
    ties: bool = True

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        k = min(self.k, len(logits))
        if self.ties:
            return np.where(logits < np.partition(logits, -k)[-k], -np.inf, logits)
        return keep_only(logits, largest(logits, k))


@dataclass(frozen=True)
class TopP:
    """The smallest set of the likeliest tokens that has the probability p (Holtzman et al. 2020, nucleus sampling).

    The likeliest token is always kept (TopPLogitsWarper).
    """

    p: float

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        probabilities = softmax(logits)
        if len(logits) < FEW:
            order, below = np.argsort(logits, kind="stable"), 0.0
        else:
            likely, below = without_tail(probabilities, 1 - self.p)
            order = likely[np.argsort(logits[likely], kind="stable")]
        removed = below + probabilities[order].cumsum() <= 1 - self.p
        removed[-1] = False
        return keep_only(logits, order[~removed])


@dataclass(frozen=True)
class MinP:
    """The tokens whose probability is at least p times the largest (Nguyen et al. 2024; MinPLogitsWarper)."""

    p: float

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        probabilities = softmax(logits)
        return np.where(probabilities < self.p * probabilities.max(), -np.inf, logits)


@dataclass(frozen=True)
class Typical:
    """The tokens whose surprise is nearest to the entropy, up to the probability p (Meister et al. 2023).

    A token as near as the last one that is kept is kept as well (TypicalLogitsWarper).
    """

    p: float

    def __call__(self, ids: Sequence[int], logits: Logits) -> Logits:
        logs = log_softmax(logits)
        probabilities = np.exp(logs)
        entropy = -(probabilities[probabilities > 0] * logs[probabilities > 0]).sum()
        distance = np.abs(-logs - entropy)
        order = np.argsort(distance)
        last = min(int((softmax(logits[order]).cumsum() < self.p).sum()), len(logits) - 1)
        removed = distance > distance[order[last]]
        removed[order[0]] = False
        return np.where(removed, -np.inf, logits)


def penalties(sampling: SamplingConfig) -> list[Processor]:
    """Return the processors that come before those of the caller, without those that change nothing."""
    rows: list[tuple[Any, Processor]] = [
        (sampling.logit_bias, LogitBias(sampling.logit_bias)),
        (sampling.repetition_penalty != 1, RepetitionPenalty(sampling.repetition_penalty)),
        (sampling.presence_penalty, PresencePenalty(sampling.presence_penalty)),
        (sampling.frequency_penalty, FrequencyPenalty(sampling.frequency_penalty)),
        (sampling.banned_tokens, BannedTokens(sampling.banned_tokens)),
        (sampling.forced_tokens, ForcedTokens(sampling.forced_tokens)),
    ]
    return [processor for used, processor in rows if used]


def cuts(sampling: SamplingConfig) -> list[Processor]:
    """Return the processors that come after top-k, without those that change nothing."""
    rows: list[tuple[bool, Processor]] = [
        (sampling.top_p < 1, TopP(sampling.top_p)),
        (sampling.min_p > 0, MinP(sampling.min_p)),
        (sampling.typical_p < 1, Typical(sampling.typical_p)),
    ]
    return [processor for used, processor in rows if used]


def after_prompt(processors: Iterable[Processor], length: int) -> list[Processor]:
    """Return the processors for a text whose first `length` tokens are the prompt."""
    return [p.after_prompt(length) if hasattr(p, "after_prompt") else p for p in processors]


def apply(processors: Iterable[Processor], ids: list[int], logits: Logits) -> Logits:
    """Return what the processors, one after the other, make of logits (V,), which are left as they are.

    Raises SampleError if one returns something else than logits (V,), or no token is left, and what they raise.
    """
    result = logits.copy()
    for processor in processors:
        result = processor(ids, result)
        if not isinstance(result, np.ndarray) or result.shape != logits.shape:
            raise SampleError(
                f"{processor!r:.80}: expected a processor to return logits of the shape {logits.shape}, got "
                f"{getattr(result, 'shape', result)!r:.80}. End it with: return logits"
            )
    highest = result.max()
    if not np.isfinite(highest):
        if highest == -np.inf:
            raise SampleError("the sampling options leave no token: each is banned. Ban fewer tokens")
        raise SampleError("the processors return logits that are NaN or infinite. Use finite numbers, and -inf to ban")
    return result


def softmax(logits: Logits) -> Logits:
    """Return the probabilities of logits (V,)."""
    powers: Logits = np.exp(logits - logits.max())
    return powers / powers.sum()


def log_softmax(logits: Logits) -> Logits:
    """Return the logarithms of the probabilities of logits (V,), in nats; no power overflows."""
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def distinct(ids: Sequence[int]) -> NDArray[np.int64]:
    """Return each token of a text once."""
    return np.unique(np.asarray(ids, np.int64))


def add_to(logits: Logits, tokens: Any, values: Any) -> Logits:
    """Return logits with values added to those of some tokens, each of which is named once."""
    result = logits.copy()
    result[tokens] += values
    return result


def without_tail(probabilities: Logits, rest: float) -> tuple[NDArray[np.intp], float]:
    """Return tokens so likely that all others have less than `rest` together, and the probability of the others."""
    for limit in (1e-3, 1e-5, rest / (2 * len(probabilities))):
        (likely,) = (probabilities >= limit).nonzero()
        below = float(probabilities.sum() - probabilities[likely].sum())
        if likely.size and below < rest:
            break
    return likely, below


def largest(logits: Logits, k: int) -> NDArray[np.intp]:
    """Return the tokens of the k largest logits, the largest first, and the lower ids first among equal ones.

    Among many logits, those that are -inf may be left out.
    """
    if len(logits) < FEW or k >= len(logits):
        return np.argsort(-logits, kind="stable")[:k]
    # The k-th largest of the maxima of blocks is at most the k-th largest logit, and is found in less time.
    blocks = len(logits) // BLOCK
    bound = np.partition(logits[: blocks * BLOCK].reshape(blocks, BLOCK).max(1), -k)[-k] if k <= blocks else -np.inf
    possible = logits >= bound if bound > -np.inf else logits > -np.inf
    if np.count_nonzero(possible) > max(k, FEW):  # Partitioning takes long where most values are equal.
        possible = logits >= np.partition(logits, -k)[-k]
    (places,) = possible.nonzero()
    return places[np.argsort(-logits[places], kind="stable")[:k]]


def keep_only(logits: Logits, tokens: NDArray[np.intp]) -> Logits:
    """Return logits in which all tokens except these have -inf."""
    result = np.full_like(logits, -np.inf)
    result[tokens] = logits[tokens]
    return result


def check_tokens(option: str, tokens: Iterable[int], logits: Logits) -> None:
    """Raise TokenError if a token is outside the vocabulary, because a negative one would mean another."""
    for token in tokens:
        if not 0 <= token < len(logits):
            raise TokenError(f"{option}: token id {token} is outside the vocabulary of {len(logits)} tokens")
