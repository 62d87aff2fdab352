"""Generate several texts at once: for several prompts, or several samples of one."""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gpt.config import SamplingConfig
from gpt.errors import short
from gpt.generation.batch_engine import batch_engine
from gpt.generation.logprobs import TokenLogProb, check_alternatives, token_logprob
from gpt.generation.processors import EndOfText, Logits, Processor
from gpt.generation.request import (
    check_length,
    check_model,
    checked_processors,
    checked_prompt,
    checked_sampling,
    checked_stops,
    is_integer,
)
from gpt.generation.sampling import Sampler
from gpt.model import GPT
from gpt.tokenizer import Ids, TokenError

Prompts = Sequence[Sequence[int] | Ids]


def generate_batch(
    model: GPT,
    prompts: Prompts,
    max_new_tokens: int,
    sampling: SamplingConfig | None = None,
    *,
    num_samples: int = 1,
    seeds: Sequence[int | None] | None = None,
    stop_tokens: Collection[int] = (),
    processors: Iterable[Processor] = (),
    **options: Any,
) -> list[list[int]]:
    """Return the new tokens of several texts; the model reads all of them in one batch.

    prompts: the ids of each prompt, of any lengths.
    num_samples: the number of texts of each prompt, which follow each other. A prompt is read once for all of them.
    seeds: one for each text. Without it, text i has the seed of `sampling` plus i, if it has one. A text is the same
        as `generate` yields with its seed, except where rounding decides between tokens.

    The other arguments and the errors are those of `generate`.
    """
    tokens = stream_batch(
        model, prompts, max_new_tokens, sampling, num_samples=num_samples, seeds=seeds, stop_tokens=stop_tokens,
        processors=processors, **options,
    )  # fmt: skip
    texts: list[list[int]] = [[] for _ in range(len(prompts) * num_samples)]
    for row, token in tokens:
        texts[row].append(token)
    return texts


def stream_batch(
    model: GPT,
    prompts: Prompts,
    max_new_tokens: int | None = None,
    sampling: SamplingConfig | None = None,
    *,
    num_samples: int = 1,
    seeds: Sequence[int | None] | None = None,
    stop_tokens: Collection[int] = (),
    processors: Iterable[Processor] = (),
    **options: Any,
) -> Iterator[tuple[int, int]]:
    """Yield (number of the text, token) as the tokens of `generate_batch` are sampled, one for each text in turn."""
    rows = start(
        model, prompts, max_new_tokens, sampling, num_samples, seeds, stop_tokens, processors, options
    )
    return ((row, token) for row, token, _ in rows)


def stream_batch_with_logprobs(
    model: GPT,
    prompts: Prompts,
    max_new_tokens: int | None = None,
    sampling: SamplingConfig | None = None,
    *,
    alternatives: int = 5,
    num_samples: int = 1,
    seeds: Sequence[int | None] | None = None,
    stop_tokens: Collection[int] = (),
    processors: Iterable[Processor] = (),
    **options: Any,
) -> Iterator[tuple[int, TokenLogProb]]:
    """Yield (number of the text, token with log-probabilities); see `stream_batch`, `generate_with_logprobs`."""
    check_alternatives(alternatives)
    rows = start(
        model, prompts, max_new_tokens, sampling, num_samples, seeds, stop_tokens, processors, options
    )
    return ((row, token_logprob(token, logits, alternatives)) for row, token, logits in rows)


def start(
    model: GPT,
    prompts: Prompts,
    max_new_tokens: int | None,
    sampling: SamplingConfig | None,
    num_samples: int,
    seeds: Sequence[int | None] | None,
    stop_tokens: Collection[int],
    processors: Iterable[Processor],
    options: dict[str, Any],
) -> Iterator[tuple[int, int, Logits]]:
    """Check the arguments of `generate_batch` at once; return an iterator of (text, token, logits (V,))."""
    check_model(model)
    check_prompts(prompts)
    if not is_integer(num_samples, least=1):
        raise ValueError(f"generate_batch: expected num_samples >= 1, got {num_samples!r:.80}")
    texts = [checked_prompt(model, ids) for ids in prompts for _ in range(num_samples)]
    check_length(max_new_tokens)
    chosen, stops = checked_sampling(sampling, options), checked_stops(stop_tokens)
    if seeds is None:
        seeds = [None if chosen.seed is None else chosen.seed + row for row in range(len(texts))]
    if len(seeds) != len(texts):
        raise ValueError(f"generate_batch: expected {len(texts)} seeds, one for each text, got {len(seeds)}")
    own = [dataclasses.replace(chosen, seed=seed) for seed in seeds]
    return steps(model, texts, max_new_tokens, own, stops, checked_processors(processors))


def check_prompts(prompts: object) -> None:
    """Raise TokenError unless `prompts` is a sequence of sequences, one at least."""
    if not isinstance(prompts, Collection | np.ndarray) or any(np.ndim(ids) < 1 for ids in prompts):
        raise TokenError(
            f"generate_batch: expected a list with the ids of each prompt, such as [[1, 2], [3]], got {short(prompts)}"
        )
    if not len(prompts):
        raise TokenError("generate_batch: expected one prompt at least, got none")


def steps(
    model: GPT,
    prompts: Sequence[Ids],
    max_new_tokens: int | None,
    samplings: Sequence[SamplingConfig],
    stops: Collection[int],
    processors: Sequence[Processor],
) -> Iterator[tuple[int, int, Logits]]:
    """Yield (text, token, the logits (V,) that it was sampled from). A text that has ended leaves the batch."""
    engine = batch_engine(model)
    samplers = [Sampler(s, prompt.tolist(), processors) for s, prompt in zip(samplings, prompts, strict=True)]
    open_rows, tokens = list(range(len(prompts))), list[int]()
    for step in itertools.count() if max_new_tokens is None else range(max_new_tokens):
        logits = engine.step(tokens) if step else engine.prefill(prompts)
        places: list[int] = []
        tokens = []
        for place, row in enumerate(open_rows):
            try:
                token = samplers[row](logits[place])
            except EndOfText:
                continue
            if token not in stops:
                places.append(place)
                tokens.append(token)
                yield row, token, logits[place]
        if not places:
            return
        engine.select(places)
        open_rows = [open_rows[place] for place in places]
