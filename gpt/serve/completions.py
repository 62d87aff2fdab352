"""The route /v1/completions: texts that continue prompts."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from gpt.errors import UserError
from gpt.generation.continuous import TextRequest
from gpt.serve.bodies import JsonRoute
from gpt.serve.errors import ApiError
from gpt.serve.events import STREAM, respond
from gpt.serve.logprob_forms import completion_logprobs
from gpt.serve.prompt_logprobs import prompt_logprobs
from gpt.serve.sampling import check_stream, new_tokens, sampling_configs
from gpt.serve.schemas import MAX_CHOICES, CompletionRequest
from gpt.serve.served import Served, ServedModel
from gpt.serve.texts import Choice, Piece, PlacedToken, begin_texts, gathered, merged, time_limit
from gpt.tokenizer import Ids, check_token_ids, prompt_ids, start_ids

DEFAULT_TOKENS = 16  # of OpenAI's API

router = APIRouter(route_class=JsonRoute)


@dataclass
class Prompt:
    """A prompt as a text and as tokens. echoed: its tokens with log-probabilities, where the request wants them."""

    text: str
    ids: Ids
    echoed: list[PlacedToken]


@router.post("/v1/completions", responses=STREAM)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Continue prompts, as one answer or as a stream."""
    server = request.app.state.served
    return await respond(request, CompletionJob(body, server.find(body.model), server), body.stream)


class CompletionJob:
    """The texts that one request asks for."""

    def __init__(self, body: CompletionRequest, served: ServedModel, server: Served) -> None:
        self.body, self.served, self.server = body, served, server
        self.n = body.n or 1
        self.best_of = body.best_of or self.n
        self.end = asyncio.get_running_loop().time() + server.options.request_seconds
        self.prompts: list[Prompt] = []
        self.choices: list[Choice] = []
        self.head = {
            "id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()),
            "model": served.id, "system_fingerprint": served.fingerprint,
        }  # fmt: skip

    def check(self) -> None:
        """Raise ApiError 400 for options that do not fit each other."""
        check_stream(self.body)
        if self.best_of < self.n:
            raise ApiError(
                400, f"best_of: expected n, which is {self.n}, or more, got {self.best_of}.", param="best_of"
            )
        if self.body.stream and self.best_of > self.n:
            raise ApiError(400, "best_of: expected n in a stream, got more. Set stream to false.", param="best_of")

    async def begin(self, request: Request) -> None:
        """Let the texts begin. Raises ApiError."""
        self.check()
        try:
            self.prompts = await asyncio.to_thread(read_prompts, self.served, self.body.prompt)
        except UserError as error:
            raise ApiError(400, f"prompt: {error}.", param="prompt") from None
        if len(self.prompts) * self.best_of > MAX_CHOICES:
            raise ApiError(
                400, f"prompt: expected {MAX_CHOICES} texts in all, got {len(self.prompts)} prompts with "
                f"{self.best_of} texts each.", param="prompt",
            )  # fmt: skip
        limit = self.server.options.max_tokens
        lengths = [
            new_tokens(self.served, limit, len(prompt.ids), self.body.max_tokens, DEFAULT_TOKENS)
            for prompt in self.prompts
        ]
        alternatives = 0 if self.body.logprobs is None and self.best_of > self.n else self.body.logprobs
        requests = [
            TextRequest(
                prompt.ids, length, sampling, self.served.tokenizer.stop_ids, alternatives=alternatives,
                ends_with_context=True,
            )
            for prompt, length in zip(self.prompts, lengths)
            for sampling in sampling_configs(self.body, self.served, self.best_of)
        ]  # fmt: skip
        self.choices = begin_texts(self.served, requests, self.body.stop, request.app.state.metrics)

    async def echo(self) -> None:
        """Compute the log-probabilities of the prompts, if the request wants them. Raises ApiError 408."""
        if not self.body.echo or self.body.logprobs is None:
            return
        async with time_limit(self.end, self.choices[0].begin):
            for prompt in self.prompts:
                prompt.echoed = await prompt_logprobs(self.served, prompt.ids, self.body.logprobs)

    async def answer(self) -> dict[str, Any]:
        """Return the answer, once all texts are written."""
        await self.echo()
        texts = await gathered(self.choices, self.end)
        found: list[dict[str, Any]] = []
        for place, prompt in enumerate(self.prompts):
            chosen = list(range(place * self.best_of, (place + 1) * self.best_of))
            if self.best_of > self.n:  # The likeliest per token; a stable order keeps equal ones in their order.
                chosen.sort(key=lambda k: -self.choices[k].logprob / max(1, self.choices[k].tokens))
            for number in chosen[: self.n]:
                text = "".join(piece.text for piece in texts[number])
                tokens = [token for piece in texts[number] for token in piece.tokens]
                found.append(self.choice(len(found), text, tokens, texts[number][-1].finish_reason, prompt))
        return {**self.head, "choices": found, "usage": self.usage()}

    async def events(self) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the parts of the answer as they are written, those together that are ready."""
        usage = {"usage": None} if self.body.stream_options and self.body.stream_options.include_usage else {}
        await self.echo()
        begun: set[int] = set()

        def event(piece: Piece) -> dict[str, Any]:
            prompt = self.prompts[piece.index // self.n]
            first = None if piece.index in begun else prompt
            begun.add(piece.index)
            shift = 0 if first is not None or not self.body.echo else len(prompt.text)
            choice = self.choice(piece.index, piece.text, piece.tokens, piece.finish_reason, first, shift)
            return {**self.head, "choices": [choice], **usage}

        async for pieces in merged(self.choices, self.end):
            yield list(map(event, pieces))
        if usage:
            yield [{**self.head, "choices": [], "usage": self.usage()}]

    def choice(
        self,
        index: int,
        text: str,
        tokens: Sequence[PlacedToken],
        finish_reason: str | None,
        prompt: Prompt | None,
        shift: int = 0,
    ) -> dict[str, Any]:
        """Return the form of a text, or of a part of one. prompt: what comes before it, if the request wants it."""
        if prompt is not None and self.body.echo:
            text, shift = prompt.text + text, len(prompt.text)
        placed = [PlacedToken(one.item, one.offset + shift) for one in tokens]
        if prompt is not None and self.body.echo:
            placed = prompt.echoed + placed
        logprobs = None if self.body.logprobs is None else completion_logprobs(self.served.tokenizer, placed)
        return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}

    def usage(self) -> dict[str, Any]:
        """Return the numbers of tokens of the request."""
        firsts = self.choices[:: self.best_of]
        return usage(
            sum(len(prompt.ids) for prompt in self.prompts),
            sum(choice.tokens for choice in self.choices),
            sum(choice.stream.cached_tokens for choice in firsts),
        )


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """Return the numbers of tokens in the form of OpenAI's API. cached: those of the prompt that were not read."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def read_prompts(served: ServedModel, given: Any) -> list[Prompt]:
    """Return the prompts of a request. Raises TokenizerError, and ApiError 400 for a list without prompts."""
    tokenizer = served.tokenizer
    if given is None:
        given = ""
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        given = [given]
    if not given:
        raise ApiError(400, "prompt: expected one prompt at least, got an empty list.", param="prompt")
    found = []
    for one in given:
        if isinstance(one, str):
            ids = prompt_ids(tokenizer, one)
            found.append(Prompt(one, ids if len(ids) else start_ids(tokenizer), []))
        else:
            ids = check_token_ids(one, tokenizer.vocab_size)
            if not len(ids):
                raise ApiError(400, "prompt: expected one token id at least, got an empty list.", param="prompt")
            found.append(Prompt(tokenizer.decode_bytes(ids).decode(errors="replace"), ids, []))
    return found
