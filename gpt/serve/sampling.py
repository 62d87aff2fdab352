"""What a request asks of a text: the sampling options, and how long it may be."""

import secrets

from gpt.config import SamplingConfig
from gpt.serve.errors import ApiError
from gpt.serve.schemas import SamplingFields
from gpt.serve.served import ServedModel

NAMES = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "min_p", "typical_p", "repetition_penalty")


def check_stream(body: SamplingFields) -> None:
    """Raise ApiError 400 for options of a stream without one."""
    if body.stream_options is not None and not body.stream:
        raise ApiError(
            400, "stream_options: expected none without a stream, got some. Set stream to true.", param="stream_options"
        )


def sampling_configs(body: SamplingFields, served: ServedModel, count: int) -> list[SamplingConfig]:
    """Return the sampling options of `count` texts; text k has the seed plus k. Raises ApiError 400."""
    options = {name: value for name in NAMES if (value := getattr(body, name)) is not None}
    if body.top_k is not None and body.top_k > 0:
        options["top_k"] = body.top_k
    if body.logit_bias:
        options["logit_bias"] = bias(body.logit_bias, served.tokenizer.vocab_size)
    seed = secrets.randbits(32) if body.seed is None else body.seed % 2**64
    return [SamplingConfig(**options, seed=seed + k) for k in range(count)]


def bias(given: dict[str, float], vocab_size: int) -> dict[int, float]:
    """Return the numbers of `logit_bias` by token. Raises ApiError 400 for a key that is not the id of a token."""
    for key in given:
        # int() refuses numbers of thousands of digits with an error of its own.
        if not (key.isascii() and key.isdigit() and len(key) <= 20 and int(key) < vocab_size):
            raise ApiError(
                400, f"logit_bias: expected token ids from 0 to {vocab_size - 1}, got {key[:80]!r}.", param="logit_bias"
            )
    return {int(key): value for key, value in given.items()}


def new_tokens(served: ServedModel, limit: int | None, prompt: int, asked: int | None, default: int | None) -> int:
    """Return how many tokens a text may have.

    limit: the largest number that the server allows. prompt: the tokens before the text. asked: the number in the
    request. default: the number without one; None for all that fit.
    Raises ApiError 400 if prompt and text are longer than the context of the model.
    """
    context = served.context
    room = context - prompt
    if limit is not None and asked is not None and asked > limit:
        raise ApiError(
            400, f"max_tokens: expected {limit} at most, the limit of this server, got {asked}.", param="max_tokens"
        )
    if room < (asked if asked is not None else 1):
        text = "" if asked is None else f" and {asked} for the text"
        raise ApiError(
            400,
            f"The context of this model has {context} tokens. The request asks for {prompt} in the prompt{text}. "
            "Shorten one of them.",
            param="max_tokens" if prompt < context and asked else "prompt",
            code="context_length_exceeded",
        )
    if asked is not None:
        return asked
    return min(room, *(bound for bound in (default, limit) if bound is not None), room)
