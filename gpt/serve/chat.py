"""The route /v1/chat/completions: the next message of a conversation."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import APIRouter, Request, Response

from gpt.errors import UserError
from gpt.generation.chat import encode_chat
from gpt.generation.continuous import TextRequest
from gpt.serve.bodies import JsonRoute
from gpt.serve.completions import usage
from gpt.serve.errors import ApiError
from gpt.serve.events import STREAM, respond
from gpt.serve.json_answers import grammar_of
from gpt.serve.logprob_forms import chat_logprobs
from gpt.serve.sampling import check_stream, new_tokens, sampling_configs
from gpt.serve.schemas import ChatRequest, Message
from gpt.serve.served import Served, ServedModel
from gpt.serve.texts import Choice, Piece, begin_texts, gathered, merged
from gpt.tokenizer import Ids

ROLES = {"developer": "system"}  # OpenAI's newer name; templates know the older one.

router = APIRouter(route_class=JsonRoute)


@router.post("/v1/chat/completions", responses=STREAM)
async def chat_completions(body: ChatRequest, request: Request) -> Response:
    """Answer the last message of a conversation, as one answer or as a stream."""
    server = request.app.state.served
    return await respond(request, ChatJob(body, server.find(body.model), server), body.stream)


class ChatJob:
    """The answers that one request asks for."""

    def __init__(self, body: ChatRequest, served: ServedModel, server: Served) -> None:
        self.body, self.served, self.server = body, served, server
        self.n = body.n or 1
        self.end = asyncio.get_running_loop().time() + server.options.request_seconds
        self.choices: list[Choice] = []
        self.prompt: Ids
        self.head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": served.id,
            "system_fingerprint": served.fingerprint,
        }  # fmt: skip

    def check(self) -> None:
        """Raise ApiError 400 for options that do not fit each other."""
        check_stream(self.body)
        one, other = self.body.max_tokens, self.body.max_completion_tokens
        if one is not None and other is not None and one != other:
            raise ApiError(
                400, f"max_tokens: expected max_completion_tokens, which is {other}, or nothing, got {one}.",
                param="max_tokens",
            )  # fmt: skip
        if self.body.top_logprobs and not self.body.logprobs:
            raise ApiError(
                400, "top_logprobs: expected none without logprobs, got some. Set logprobs to true.",
                param="top_logprobs",
            )  # fmt: skip

    async def begin(self, request: Request) -> None:
        """Let the answers begin. Raises ApiError."""
        self.check()
        try:
            self.prompt = await asyncio.to_thread(encode_chat, self.served.tokenizer, conversation(self.body.messages))
        except UserError as error:
            raise ApiError(400, f"messages: {error}.", param="messages") from None
        grammar = await asyncio.to_thread(grammar_of, self.served, self.body.response_format)
        asked = self.body.max_tokens if self.body.max_completion_tokens is None else self.body.max_completion_tokens
        length = new_tokens(self.served, self.server.options.max_tokens, len(self.prompt), asked, None)
        requests = [
            TextRequest(
                self.prompt, length, sampling, self.served.tokenizer.stop_ids,
                processors=() if grammar is None else (grammar,),
                alternatives=(self.body.top_logprobs or 0) if self.body.logprobs else None, ends_with_context=True,
            )
            for sampling in sampling_configs(self.body, self.served, self.n)
        ]  # fmt: skip
        self.choices = begin_texts(self.served, requests, self.body.stop, request.app.state.metrics)

    async def answer(self) -> dict[str, Any]:
        """Return the answer, once all texts are written."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": "".join(piece.text for piece in pieces), "refusal": None},
                "logprobs": self.logprobs([token for piece in pieces for token in piece.tokens]),
                "finish_reason": pieces[-1].finish_reason,
            }
            for index, pieces in enumerate(await gathered(self.choices, self.end))
        ]
        return {**self.head, "object": "chat.completion", "choices": choices, "usage": self.usage()}

    async def events(self) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the parts of the answer as they are written, those together that are ready."""
        head: dict[str, Any] = {**self.head, "object": "chat.completion.chunk"}
        more = {"usage": None} if self.body.stream_options and self.body.stream_options.include_usage else {}

        def chunk(index: int, delta: dict[str, Any], tokens: Any = None, reason: str | None = None) -> dict[str, Any]:
            logprobs = None if tokens is None else self.logprobs(tokens)
            choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
            return {**head, "choices": [choice], **more}

        def chunks(piece: Piece) -> Iterator[dict[str, Any]]:
            if piece.text or piece.tokens:
                yield chunk(piece.index, {"content": piece.text}, piece.tokens)
            if piece.finish_reason is not None:
                yield chunk(piece.index, {}, None, piece.finish_reason)

        yield [chunk(index, {"role": "assistant", "content": "", "refusal": None}) for index in range(self.n)]
        async for pieces in merged(self.choices, self.end):
            yield [one for piece in pieces for one in chunks(piece)]
        if more:
            yield [{**head, "choices": [], "usage": self.usage()}]

    def logprobs(self, tokens: Any) -> dict[str, Any] | None:
        """Return the form of tokens with log-probabilities, if the request wants them."""
        return chat_logprobs(self.served.tokenizer, tokens) if self.body.logprobs else None

    def usage(self) -> dict[str, Any]:
        """Return the numbers of tokens of the request."""
        tokens = sum(choice.tokens for choice in self.choices)
        return usage(len(self.prompt), tokens, self.choices[0].stream.cached_tokens)


def conversation(messages: list[Message]) -> list[dict[str, str]]:
    """Return messages as templates take them: with a role and a text. A line break joins the parts of a content."""
    found = []
    for message in messages:
        content = message.content
        text = content if isinstance(content, str) else "\n".join(part.text for part in content)
        found.append({"role": ROLES.get(message.role, message.role), "content": text})
    return found
