"""The routes under /api/ that only the page uses: tokens as they are written, attention, the logit lens, options."""

import asyncio
import base64
import dataclasses
import json
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gpt.config import SamplingConfig
from gpt.config.fields import Field as OptionField
from gpt.config.fields import value_type
from gpt.errors import UserError, short
from gpt.generation.chat import Conversation
from gpt.generation.continuous import TextRequest
from gpt.generation.logprobs import TokenLogProb
from gpt.generation.sampling import check_finite
from gpt.inspect import attention_weights, logit_lens
from gpt.serve.bodies import JsonRoute
from gpt.serve.errors import ApiError
from gpt.serve.events import EventStream
from gpt.serve.failures import as_api_error
from gpt.serve.page_runs import router as runs_router
from gpt.serve.served import Served, ServedModel
from gpt.serve.texts import SEND_SECONDS, Choice, begin_texts, time_limit
from gpt.tokenizer import Ids, Tokenizer, check_token_ids, prompt_ids, start_ids

router = APIRouter(prefix="/api", include_in_schema=False, route_class=JsonRoute)
router.include_router(runs_router)

ALTERNATIVES = 10  # of each token
DEFAULT_TOKENS, MOST_TOKENS = 100, 4096  # of a new text
READ = 256  # tokens that the model reads for a picture; the weights of all heads take memory by its square
MOST_PLACES = 128  # tokens in a picture of the attention
MOST_COLUMNS = 64  # tokens in a table of the logit lens
MOST_CELLS = 2**22  # of all heat maps of an answer, one byte each
MOST_SHOWN = 2**14  # tokens of a prompt that the page shows; of a longer one it shows the last
WAITING_INTERVAL = 1.0  # seconds between two events of a text that waits

logger = logging.getLogger("uvicorn.error")

# The ends of sliders for options without an upper limit.
SLIDERS = {"temperature": 2.0, "repetition_penalty": 2.0}


class Body(BaseModel):
    """The JSON of a request. Other types, and names that do not exist, are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = Field(None, description="the name of a model, or null for the first one")


class MessageBody(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: str = Field(pattern="^(system|user|assistant)$", description="system, user or assistant")
    content: str = Field(description="a text")


class GenerateBody(Body):
    """A text to continue: as text, as token ids, or as a conversation, and tokens that come after it."""

    prompt: str | None = Field(None, description="a text")
    ids: list[int] | None = Field(None, min_length=1, description="a list of token ids, one at least")
    messages: list[MessageBody] | None = Field(None, min_length=1, description="a list of messages, one at least")
    continuation: list[int] = Field([], description="a list of token ids")
    max_tokens: int = Field(DEFAULT_TOKENS, ge=1, le=MOST_TOKENS, description=f"a number from 1 to {MOST_TOKENS}")
    sampling: dict[str, int | float | None] = Field({}, description="numbers by the names of sampling options")


class TokenizeBody(Body):
    """A text to encode."""

    text: str = Field(description="a text")
    only_count: bool = Field(False, description="true or false")


class AttentionBody(Body):
    """A text as token ids, and how many of its last tokens a picture has."""

    ids: list[int] = Field(min_length=1, description="a list of token ids, one at least")
    last: int = Field(32, ge=1, le=MOST_PLACES, description=f"a number from 1 to {MOST_PLACES}")


class LensBody(Body):
    """A text as token ids, and how many of its last tokens a table has."""

    ids: list[int] = Field(min_length=1, description="a list of token ids, one at least")
    last: int = Field(16, ge=1, le=MOST_COLUMNS, description=f"a number from 1 to {MOST_COLUMNS}")


@router.get("/options")
async def options(request: Request) -> dict[str, Any]:
    """Return the models, the sampling options with their help, limits and defaults, and the limits of the server."""
    served = served_by(request)
    return {
        "models": [describe_model(model) for model in served.models.values()],
        "sampling": [describe_option(key, field) for key, field, _ in SamplingConfig().options()],
        "length": {"default": min(DEFAULT_TOKENS, most_tokens(served)), "most": most_tokens(served)},
        "places": MOST_PLACES,
        "columns": MOST_COLUMNS,
    }


@router.post("/tokenize")
async def tokenize(request: Request, body: TokenizeBody) -> dict[str, Any]:
    """Return the tokens of a text, with the one that the model wants before it."""
    model = served_by(request).find(body.model)
    ids = await encode(model, body.text)
    shown = [] if body.only_count else ids[-MOST_SHOWN:].tolist()
    return {"count": len(ids), "tokens": [describe_token(model.tokenizer, token) for token in shown]}


@router.post("/generate")
async def generate(request: Request, body: GenerateBody) -> Response:
    """Return a text as server-sent events while it is written.

    `prompt` has the tokens of the prompt, `waiting` how many texts wait, `token` a token with its log-probability and
    its likeliest alternatives, `done` why the text ends, and `error` a message.
    """
    served = served_by(request)
    model = served.find(body.model)
    sampling = sampling_of({key: value for key, value in body.sampling.items() if value is not None})
    if body.max_tokens > most_tokens(served):
        raise ApiError(
            400, f"max_tokens: expected at most {most_tokens(served)}, got {body.max_tokens}.", param="max_tokens"
        )
    prompt, forgotten = await read_prompt(model, body)
    wanted = TextRequest(
        prompt, body.max_tokens, sampling, frozenset(model.tokenizer.stop_ids), alternatives=ALTERNATIVES
    )
    (choice,) = begin_texts(model, [wanted], None, request.app.state.metrics)
    shown = prompt[: len(prompt) - len(body.continuation)][-MOST_SHOWN:].tolist()
    first = {
        "tokens": [describe_token(model.tokenizer, token) for token in shown],
        "count": len(prompt),
        "forgotten": forgotten,
        "seed": sampling.seed,
    }
    end = time.monotonic() + served.options.request_seconds
    return EventStream(write_events(choice, first, end), [choice])


@router.post("/attention")
async def attention(request: Request, body: AttentionBody) -> dict[str, Any]:
    """Return the attention weights of every layer and head between the last tokens of a text.

    weights: (layers, heads, T, T) bytes in base64; a weight is (byte / 255)^2. read: the number of tokens that the
    model has read for them, which may be fewer than the text has.
    """
    model = served_by(request).find(body.model)
    config = model.model.config
    maps = config.n_layer * config.n_head
    ids, last = tail(model, body.ids, min(body.last, max(1, math.isqrt(MOST_CELLS // maps))))
    weights = await run(request, model, last_weights, model.model, ids, last)
    return {
        "layers": weights.shape[0],
        "heads": weights.shape[1],
        "read": len(ids),
        "first": len(body.ids) - last,
        "tokens": [describe_token(model.tokenizer, token) for token in ids[-last:].tolist()],
        "weights": base64.b64encode(weights.tobytes()).decode(),
    }


@router.post("/lens")
async def lens(request: Request, body: LensBody) -> dict[str, Any]:
    """Return the likeliest next tokens after each layer at the last tokens of a text.

    cells: a list for each layer, of a list for each token, of [id, log-probability], the likeliest first. The first row
    is the embedding. names: the tokens of the ids.
    """
    model = served_by(request).find(body.model)
    ids, last = tail(model, body.ids, body.last)
    found = await run(request, model, logit_lens, model.model, ids, ALTERNATIVES, last)
    check_finite(found.probabilities)
    logs = np.log(np.maximum(found.probabilities.astype(np.float64), 1e-30))
    cells = [
        [[[int(i), round(float(p), 4)] for i, p in zip(*place)] for place in zip(*layer)]
        for layer in zip(found.ids, logs)
    ]
    return {
        "read": len(ids),
        "first": len(body.ids) - last,
        "tokens": [describe_token(model.tokenizer, token) for token in ids[-last:].tolist()],
        "cells": cells,
        "names": {int(token): describe_token(model.tokenizer, int(token)) for token in np.unique(found.ids)},
    }


def served_by(request: Request) -> Served:
    """Return the models of the server."""
    served: Served = request.app.state.served
    return served


async def run(request: Request, model: ServedModel, function: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a function that uses a model. Raises ApiError 408 if it takes too long."""
    end = asyncio.get_running_loop().time() + served_by(request).options.request_seconds
    async with time_limit(end, time.perf_counter()):
        return await model.scheduler.run(function, *args)


def most_tokens(served: Served) -> int:
    """Return the most new tokens of a text."""
    return min(served.options.max_tokens or MOST_TOKENS, MOST_TOKENS)


def sampling_of(given: dict[str, Any]) -> SamplingConfig:
    """Return sampling options; without a seed, with a new one, so that the page can name it. Raises ApiError."""
    known = [field.name for _, field, _ in SamplingConfig().options()]
    for name in given:
        if name not in known:
            raise ApiError(400, f"sampling: expected {', '.join(known)}, got {short(name)}.", param="sampling")
    sampling = SamplingConfig(**given)
    return sampling if sampling.seed is not None else dataclasses.replace(sampling, seed=secrets.randbits(32))


async def read_prompt(model: ServedModel, body: GenerateBody) -> tuple[Ids, int]:
    """Return the token ids of a prompt with its continuation, and how many messages were forgotten to make room.

    Raises ApiError for another number of prompts than one, and UserError for a prompt that cannot be used.
    """
    given = [name for name in ("prompt", "ids", "messages") if getattr(body, name) is not None]
    if len(given) != 1:
        raise ApiError(400, f"The body: expected one of prompt, ids and messages, got {' and '.join(given) or 'none'}.")
    after = check_token_ids(body.continuation, model.model.config.vocab_size) if body.continuation else None
    forgotten = 0
    if body.messages is not None:
        ids, forgotten = await asyncio.to_thread(encode_messages, model, body.messages, body.max_tokens)
    elif body.ids is not None:
        ids = check_token_ids(body.ids, model.model.config.vocab_size)
    else:
        ids = await encode(model, body.prompt or "")
        if not len(ids):
            ids = start_ids(model.tokenizer)
    return (ids if after is None else np.concatenate([ids, after])), forgotten


async def encode(model: ServedModel, text: str) -> Ids:
    """Return the ids of a text. A long one takes time, so another thread does it. Raises TokenizerError."""
    return await asyncio.to_thread(prompt_ids, model.tokenizer, text)


def encode_messages(model: ServedModel, messages: Sequence[MessageBody], max_tokens: int) -> tuple[Ids, int]:
    """Return the ids of a conversation up to the next answer, and how many messages were forgotten."""
    every = [message.model_dump() for message in messages]
    talk = Conversation.of(model.tokenizer, every, model.context, max_tokens)
    return talk.prompt(), talk.forgotten


async def write_events(choice: Choice, first: dict[str, Any], end: float) -> AsyncIterator[str]:
    """Yield the events of a text. end: the time at which it has taken too long."""
    began = time.monotonic()
    stream, model = choice.stream, choice.served
    reason = None
    try:
        yield event("prompt", first)
        while reason is None:
            try:
                async with asyncio.timeout(WAITING_INTERVAL):
                    written, reason = await stream.ready()
            except TimeoutError:
                yield event("waiting", {"texts": model.scheduler.stats.waiting})
            else:
                choice.count(len(written))
                if written:
                    yield "".join(event("token", describe_written(model.tokenizer, one)) for one in written)
                await stream.wait_for_end(SEND_SECONDS)
            if reason is None and time.monotonic() > end:
                reason = "time"
        seconds = round(time.monotonic() - began, 3)
        yield event("done", {"reason": reason, "cached": stream.cached_tokens, "seconds": seconds})
    except UserError as error:
        failure = as_api_error(error)
        yield event("error", {"status": failure.status_code, "message": failure.message})
    except Exception as error:
        logger.error("a text of the page has failed", exc_info=error)
        yield event("error", {"status": 500, "message": "The server has failed. Its output has the reason."})


def describe_written(tokenizer: Tokenizer, written: TokenLogProb) -> dict[str, Any]:
    """Return a token with its log-probability, and the likeliest tokens with theirs."""
    likeliest = [
        {**describe_token(tokenizer, token), "logprob": finite(logprob)} for token, logprob in written.alternatives
    ]
    found = describe_token(tokenizer, written.token)
    return {**found, "logprob": finite(written.logprob), "alternatives": likeliest}


def finite(logprob: float) -> float:
    """Return a log-probability as JSON can have it: that of a token without any chance is -inf."""
    return round(max(logprob, -1e9), 5)


def event(name: str, values: dict[str, Any]) -> str:
    """Return a server-sent event. The Unicode of JSON is escaped, so that its data is one line."""
    return f"event: {name}\ndata: {json.dumps(values)}\n\n"


def describe_token(tokenizer: Tokenizer, token: int) -> dict[str, Any]:
    """Return what the page knows of a token.

    text: None if its bytes are no whole characters; `bytes` then has them, in base64. special: the name of a special
    token. stop: whether a text ends with it.
    """
    described: dict[str, Any] = {"id": token}
    data = tokenizer.decode_bytes([token])
    try:
        described["text"] = data.decode()
    except UnicodeDecodeError:
        described |= {"text": None, "bytes": base64.b64encode(data).decode()}
    if token in tokenizer.special_tokens.values():
        described["special"] = next(name for name, other in tokenizer.special_tokens.items() if other == token)
    if token in tokenizer.stop_ids:
        described["stop"] = True
    return described


def describe_model(served: ServedModel) -> dict[str, Any]:
    """Return what the page says about a model."""
    config = served.model.config
    return {
        "id": served.id,
        "chat": bool(served.tokenizer.chat_template),
        "context": served.context,
        "vocabulary": config.vocab_size,
        "layers": config.n_layer,
        "heads": config.n_head,
    }


def describe_option(key: str, field: OptionField) -> dict[str, Any]:
    """Return an option as the page's control needs it: type, default, help and limits."""
    text, limits = field.metadata["help"], field.metadata["limits"]
    names = {">=": "minimum", ">": "exclusive_minimum", "<=": "maximum", "<": "exclusive_maximum"}
    return {
        "name": field.name,
        "label": field.name.replace("_", " ").capitalize(),
        "help": f"{text[0].upper()}{text[1:]}.",
        "type": value_type(field).__name__,
        "default": field.default,
        **{names[sign]: bound for sign, bound in limits.items()},
        **({"slider": SLIDERS[field.name]} if field.name in SLIDERS else {}),
    }


def tail(model: ServedModel, ids: list[int], last: int) -> tuple[Ids, int]:
    """Return the last tokens of a text, which a model reads for a picture, and how many of them the picture has."""
    checked = check_token_ids(ids, model.model.config.vocab_size)[-min(READ, model.context) :]
    return checked, min(last, len(checked))


def last_weights(model: Any, ids: Ids, last: int) -> Any:
    """Return the attention weights (layers, heads, last, last) as bytes, of which a weight is (byte / 255)^2."""
    weights = attention_weights(model, ids)[:, :, -last:, -last:]
    check_finite(weights)
    return np.rint(255 * np.sqrt(np.clip(weights, 0, 1))).astype(np.uint8)
