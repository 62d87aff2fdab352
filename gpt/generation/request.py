"""The arguments that all ways to generate share, checked once."""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from gpt.config import SamplingConfig
from gpt.config.fields import suggestion
from gpt.generation.processors import Processor
from gpt.model import GPT
from gpt.tokenizer import Ids, TokenError, check_token_ids

MAKE_GPT = "Load one: gpt.checkpoint.load(path).model, or make one: GPT(Config.load('gpt-nano').model)"


def check_model(model: object) -> None:
    """Raise TypeError, with what to write, unless `model` is a GPT."""
    if not isinstance(model, GPT):
        raise TypeError(f"generate: expected a GPT as the model, got {model!r:.80}. {MAKE_GPT}")


def checked_prompt(model: GPT, ids: Sequence[int] | Ids) -> Ids:
    """Return the ids of a prompt, (T,), int64. Raises TokenError if there are none, or one is not a token."""
    prompt = check_token_ids(ids, model.config.vocab_size)
    if not prompt.size:
        raise TokenError("a prompt needs at least one token; gpt.tokenizer.start_ids(tokenizer) gives a start")
    return prompt


def check_length(max_new_tokens: object) -> None:
    """Raise ValueError unless a length is an integer from 0 on, or None."""
    if max_new_tokens is not None and not is_integer(max_new_tokens, least=0):
        raise ValueError(f"generate: expected max_new_tokens >= 0, or None for no limit, got {max_new_tokens!r:.80}")


def checked_sampling(sampling: SamplingConfig | None, options: dict[str, Any]) -> SamplingConfig:
    """Return the sampling options, those given by name in place of those of `sampling`.

    Raises TypeError for a sampling of another type and for an unknown name, and ConfigError for a wrong value.
    """
    if sampling is not None and not isinstance(sampling, SamplingConfig):
        raise TypeError(
            f"generate: expected a SamplingConfig, got {sampling!r:.80}. Write "
            "gpt.generation.SamplingConfig(temperature=0.8, top_k=40, seed=1)"
        )
    names = [field.name for field in dataclasses.fields(SamplingConfig)]
    for name in options:
        if name == "draft":
            raise TypeError("generate: a draft is for one text at a time. Call generate, or leave draft= out")
        if name not in names:
            raise TypeError(f"generate: no option {name!r:.80}{suggestion(name, names)}")
    chosen = sampling or SamplingConfig()
    return dataclasses.replace(chosen, **options) if options else chosen


def checked_stops(stop_tokens: Collection[int]) -> frozenset[int]:
    """Return the tokens that end a text. Raises TokenError unless all are integers."""
    if not isinstance(stop_tokens, Iterable) or not all(map(is_integer, stop_tokens)):
        raise TokenError(f"stop_tokens: expected token ids, which are integers, got {stop_tokens!r:.80}")
    return frozenset(int(token) for token in stop_tokens)


def checked_processors(processors: Iterable[Processor]) -> list[Processor]:
    """Return the processors as a list. Raises TypeError if one cannot be called."""
    found: list[Any] = [*processors] if isinstance(processors, Iterable) else [None]
    for processor in found:
        if not callable(processor):
            raise TypeError(
                f"processors: expected a list of callables (ids, logits) -> logits, got {processors!r:.80}. "
                "See gpt.generation.processors"
            )
    return found


def is_integer(value: object, least: int | None = None) -> bool:
    """Return whether a value is an integer of Python or NumPy, and at least `least`; a boolean is not."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        return False
    return least is None or int(value) >= least
