"""Generate one text: read a prompt, then one token after the other."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from gpt.config import SamplingConfig
from gpt.generation.engine import Engine
from gpt.generation.logprobs import TokenLogProb, check_alternatives, token_logprob
from gpt.generation.processors import EndOfText, Logits, Processor
from gpt.generation.request import (
    check_length,
    check_model,
    checked_processors,
    checked_prompt,
    checked_sampling,
    checked_stops,
)
from gpt.generation.sampling import Sampler
from gpt.generation.speculative import NGrams, Speculation, check_draft, speculative_steps
from gpt.model import GPT
from gpt.tokenizer import Ids


def generate(
    model: GPT,
    ids: Sequence[int] | Ids,
    max_new_tokens: int | None = None,
    sampling: SamplingConfig | None = None,
    *,
    stop_tokens: Collection[int] = (),
    processors: Iterable[Processor] = (),
    engine: Engine | None = None,
    draft: GPT | NGrams | Speculation | None = None,
    **options: Any,
) -> Iterator[int]:
    """Yield the tokens that follow `ids`, each as soon as it is sampled.

    ids: the prompt, at least one token (`gpt.tokenizer.start_ids` gives a neutral one). The model sees its last
        block_size tokens; see `Engine` for longer texts.
    max_new_tokens: the number of tokens to generate; None generates without end.
    sampling: temperature, seed and the other options; None takes the defaults of `SamplingConfig`. With the same seed
        the text is the same.
    stop_tokens: the first of these ends the text; it is not yielded.
    processors: functions (ids, logits) -> logits, after the penalties of `sampling` and before its temperature; see
        `gpt.generation.processors`.
    engine: an engine of this model. It does not read again the beginning of the prompt that it has read before.
    draft: what proposes tokens that the model then reads several at a time, which takes less time and leaves the
        distribution of the text as it is; see `gpt.generation.speculative`.
    options: fields of SamplingConfig by name, in place of those of `sampling`: generate(model, ids, temperature=0).

    Between two tokens, the model and the grad mode are in the mode of the caller. Do not change the weights meanwhile.
    The call itself raises TokenError for ids that cannot be used, and ValueError for a negative max_new_tokens. It
    raises TypeError for a model, a sampling or a draft of another type, and for an unknown option, and ValueError for a
    draft of another vocabulary. The iterator raises SampleError if the model predicts numbers that are not finite, or
    the options leave no token.
    """
    tokens = start(model, ids, max_new_tokens, sampling, stop_tokens, processors, options, engine, draft)
    return (token for token, _ in tokens)


def generate_with_logprobs(
    model: GPT,
    ids: Sequence[int] | Ids,
    max_new_tokens: int | None = None,
    sampling: SamplingConfig | None = None,
    *,
    alternatives: int = 5,
    stop_tokens: Collection[int] = (),
    processors: Iterable[Processor] = (),
    draft: GPT | NGrams | Speculation | None = None,
    **options: Any,
) -> Iterator[TokenLogProb]:
    """Yield the tokens of `generate`, each with its log-probability and those of the `alternatives` likeliest tokens.

    They are those of the softmax of the model, before all sampling options and processors. The other arguments and the
    errors are those of `generate`.
    """
    check_alternatives(alternatives)
    tokens = start(model, ids, max_new_tokens, sampling, stop_tokens, processors, options, None, draft)
    return (token_logprob(token, logits, alternatives) for token, logits in tokens)


def start(
    model: GPT,
    ids: Sequence[int] | Ids,
    max_new_tokens: int | None,
    sampling: SamplingConfig | None,
    stop_tokens: Collection[int],
    processors: Iterable[Processor],
    options: dict[str, Any],
    engine: Engine | None = None,
    draft: GPT | NGrams | Speculation | None = None,
) -> Iterator[tuple[int, Logits]]:
    """Check the arguments of `generate` at once; return an iterator of tokens, each with the model's logits (V,)."""
    check_model(model)
    prompt = checked_prompt(model, ids)
    check_length(max_new_tokens)
    chosen, stops = checked_sampling(sampling, options), checked_stops(stop_tokens)
    speculation = check_draft(draft, model)
    given, rules = check_engine(engine, model), checked_processors(processors)
    engine = given or Engine(model)
    if speculation is not None:
        if given is None:  # As the model does, the draft reads the whole prompt.
            speculation.forget()
        return speculative_steps(engine, prompt, max_new_tokens, chosen, stops, rules, speculation)
    return steps(engine, prompt, max_new_tokens, chosen, stops, rules)


def check_engine(engine: Engine | None, model: GPT) -> Engine | None:
    """Return the engine. Raises ValueError if it is that of another model."""
    if engine is not None and engine.model is not model:
        raise ValueError("generate: expected an engine of the same model. Write engine=Engine(model), or leave it out")
    return engine


def steps(
    engine: Engine,
    prompt: Ids,
    max_new_tokens: int | None,
    sampling: SamplingConfig,
    stops: Collection[int],
    processors: Sequence[Processor],
) -> Iterator[tuple[int, Logits]]:
    """Yield each token with the logits (V,) of the model that it was sampled from."""
    sampler, token = Sampler(sampling, prompt.tolist(), processors), None
    for _ in itertools.count() if max_new_tokens is None else range(max_new_tokens):
        logits = engine.resume(prompt) if token is None else engine.step(token)
        try:
            token = sampler(logits)
        except EndOfText:
            return
        if token in stops:
            return
        yield token, logits
