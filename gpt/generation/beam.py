"""Beam search: the likeliest texts that a search with a limited number of them finds.

Each step extends each of the `num_beams` open texts by each token, and keeps the likeliest. A text is complete where a
stop token follows. Its score is its log-probability divided by length^length_penalty, where the length counts the new
tokens and the stop token (Wu et al. 2016, section 7, in the form of transformers).
"""

import math
import numbers
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from gpt.generation.batch_engine import batch_engine
from gpt.generation.processors import EndOfText, Logits, Processor, after_prompt, apply, log_softmax, penalties
from gpt.generation.request import (
    check_model,
    checked_processors,
    checked_prompt,
    checked_sampling,
    checked_stops,
    is_integer,
)
from gpt.model import GPT
from gpt.tokenizer import Ids

# These options choose among tokens at random, which a search does not.
RANDOM = ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed")


@dataclass(frozen=True)
class Beam:
    """A text that the search has found: its new tokens without the stop token, and how likely it is."""

    tokens: list[int]
    logprob: float
    """The sum of the log-probabilities of the tokens, and of the stop token, in nats."""
    score: float
    """logprob / length^length_penalty, by which the texts are compared."""
    complete: bool
    """Whether it ends where a stop token follows. Otherwise it was cut at max_new_tokens."""


class Rows(Protocol):
    """Sequences that a model reads at once, with the methods of `BatchEngine` for the next tokens."""

    def step(self, tokens: Sequence[int]) -> Logits: ...

    def select(self, rows: Sequence[int]) -> None: ...


@dataclass(frozen=True)
class Candidate:
    """An open text and the next token; None where a processor says that the text is complete."""

    logprob: float
    row: int
    token: int | None


def beam_search(
    model: GPT,
    ids: Sequence[int] | Ids,
    num_beams: int = 4,
    max_new_tokens: int = 100,
    length_penalty: float = 1.0,
    stop_tokens: Collection[int] = (),
    num_return: int = 1,
    *,
    early_stopping: bool | Literal["never"] = False,
    processors: Iterable[Processor] = (),
    **options: Any,
) -> list[Beam]:
    """Return the `num_return` texts with the best scores, the best first; fewer if the search finds fewer.

    length_penalty: 0 compares log-probabilities, 1 those of a token on average; a larger one prefers longer texts.
    early_stopping: whether to end as soon as num_beams texts are complete. False ends where the likeliest open text, at
        its present length, cannot become better than they are. "never" takes the length max_new_tokens for a positive
        length_penalty.
    processors, options: processors and penalties by name (`repetition_penalty=1.1`), which change log-probabilities
        here, without making them add up to 1 again, as in transformers.

    Raises ValueError for a number that is out of range, and TypeError for an option that samples, such as temperature;
    the other errors are those of `generate`.
    """
    check_model(model)
    prompt = checked_prompt(model, ids).tolist()
    check_numbers("beam_search", num_beams=num_beams, max_new_tokens=max_new_tokens, num_return=num_return)
    if not any(early_stopping is value for value in (True, False)) and early_stopping != "never":
        raise ValueError(f"beam_search: expected early_stopping True, False or 'never', got {early_stopping!r:.80}")
    check_penalty("beam_search", length_penalty)
    if num_return > num_beams:
        raise ValueError(f"beam_search: expected num_return <= num_beams = {num_beams}, got {num_return}")
    if random := sorted(options.keys() & set(RANDOM)):
        raise TypeError(f"beam_search: {random[0]} is an option of sampling, and a search draws nothing. Leave it out")
    rules = [*penalties(checked_sampling(None, options)), *checked_processors(processors)]
    stops = checked_stops(stop_tokens)
    rules = after_prompt(rules, len(prompt))
    engine = batch_engine(model)
    found = search(
        engine, engine.prefill([prompt]), prompt, rules, stops, num_beams=num_beams, max_new_tokens=max_new_tokens,
        length_penalty=length_penalty, early_stopping=early_stopping,
    )  # fmt: skip
    return found[:num_return]


def search(
    engine: Rows,
    logits: Logits,
    prompt: list[int],
    rules: Sequence[Processor],
    stops: Collection[int],
    *,
    num_beams: int,
    max_new_tokens: int,
    length_penalty: float,
    early_stopping: bool | Literal["never"] = False,
) -> list[Beam]:
    """Return the `num_beams` texts with the best scores, the best first. All arguments are checked; see `beam_search`.

    engine: it has read the prompt. logits: what it predicts then, (1, V).
    """
    texts: list[list[int]] = [[]]
    logprobs = [0.0]
    found: list[Beam] = []
    for length in range(1, max_new_tokens + 1):
        candidates = best_candidates(prompt, texts, logprobs, logits, rules, (max(1, len(stops)) + 1) * num_beams)
        going_on = []
        for rank, candidate in enumerate(candidates):
            complete = candidate.token is None or candidate.token in stops
            if (complete or length == max_new_tokens) and rank < num_beams:
                new = [] if candidate.token is None or complete else [candidate.token]
                counted = max(1, length - (candidate.token is None))
                score = candidate.logprob / counted**length_penalty
                found.append(Beam(texts[candidate.row] + new, candidate.logprob, score, complete))
            if not complete:
                going_on.append(candidate)
        found = sorted(found, key=lambda beam: -beam.score)[:num_beams]  # The sort is stable: earlier ones come first.
        going_on = going_on[:num_beams]
        if length == max_new_tokens or not going_on:
            break
        reached = max_new_tokens if early_stopping == "never" and length_penalty > 0 else length
        possible = going_on[0].logprob / reached**length_penalty
        if len(found) == num_beams and (early_stopping is True or possible <= found[-1].score):
            break
        engine.select([candidate.row for candidate in going_on])
        texts = [[*texts[c.row], c.token] for c in going_on if c.token is not None]
        logprobs = [candidate.logprob for candidate in going_on]
        logits = engine.step([text[-1] for text in texts])
    return found


def best_candidates(
    prompt: list[int],
    texts: Sequence[list[int]],
    logprobs: Sequence[float],
    logits: Logits,
    rules: Sequence[Processor],
    count: int,
) -> list[Candidate]:
    """Return the `count` likeliest continuations of the open texts, the likeliest first, for logits (B, V)."""
    totals = np.full(logits.shape, -np.inf)
    complete: list[Candidate] = []
    for row, (text, logprob) in enumerate(zip(texts, logprobs, strict=True)):
        try:
            totals[row] = logprob + apply(rules, prompt + text, log_softmax(logits[row]))
        except EndOfText:
            complete.append(Candidate(logprob, row, None))
    flat = totals.reshape(-1)
    # Sort only those that are not below the one of this rank; a vocabulary may have 100,000 tokens.
    least = np.partition(flat, -count)[-count] if count < flat.size else -np.inf
    places = np.flatnonzero((flat >= least) & (flat > -np.inf))
    places = places[np.argsort(-flat[places], kind="stable")]
    V = logits.shape[1]
    best = [Candidate(float(flat[place]), int(place) // V, int(place) % V) for place in places[:count]]
    return sorted(complete + best, key=lambda candidate: -candidate.logprob)[:count]


def check_penalty(op: str, value: object) -> None:
    """Raise ValueError unless a length penalty is a finite number."""
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{op}: expected a finite length_penalty, got {value!r:.80}")


def check_numbers(op: str, **values: object) -> None:
    """Raise ValueError unless each number is an integer from 1 on."""
    for name, number in values.items():
        if not is_integer(number, least=1):
            raise ValueError(f"{op}: expected {name} >= 1, got {number!r:.80}")
