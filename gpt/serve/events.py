"""Responses to clients that may go away: streams of server-sent events, and answers that take time."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from gpt.errors import UserError
from gpt.serve.errors import ApiError, error_body
from gpt.serve.failures import as_api_error
from gpt.serve.texts import Choice, cancel

T = TypeVar("T")

STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "An object, or a stream of events.", "content": {"text/event-stream": {}}}
}
DONE = "data: [DONE]\n\n"
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

logger = logging.getLogger("uvicorn.error")


def event(data: dict[str, Any]) -> str:
    """Return JSON as a server-sent event (WHATWG HTML, "Server-sent events")."""
    return f"data: {to_json(data)}\n\n"


class Job(Protocol):
    """The texts that one request asks for."""

    choices: list[Choice]

    async def begin(self, request: Request) -> None:
        """Let the texts begin. Raises ApiError."""

    def answer(self) -> Coroutine[Any, Any, dict[str, Any]]:
        """Return the answer, once all texts are written."""

    def events(self) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the parts of the answer as they are written, those together that are ready."""


async def respond(request: Request, job: Job, as_stream: bool | None) -> Response:
    """Let the texts of a request begin, and return them as one answer or as a stream. Raises ApiError."""
    await job.begin(request)
    if as_stream:
        return EventStream(lines(job.events()), job.choices)
    return JSONResponse(await unless_gone(request, job.answer(), job.choices))


class EventStream(StreamingResponse):
    """A stream of events about texts, which end when the client goes away, also before the first event."""

    def __init__(self, events: AsyncIterator[str], choices: Iterable[Choice]) -> None:
        # Proxies would otherwise collect the events.
        super().__init__(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self.choices = choices

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            cancel(self.choices)


async def lines(events: AsyncIterator[list[dict[str, Any]]]) -> AsyncIterator[str]:
    """Yield the text of a stream: the events that are ready together, and [DONE] or an error at the end."""
    try:
        async for ready in events:
            yield "".join(map(event, ready))
        yield DONE
    except ApiError as error:
        yield event(error.body())
    except UserError as error:
        yield event(as_api_error(error).body())
    except Exception as error:
        logger.error("a stream has failed", exc_info=error)
        yield event(error_body(500, "The server has failed. Its output has the reason."))


async def unless_gone(request: Request, work: Coroutine[Any, Any, T], choices: Iterable[Choice]) -> T:
    """Return the result of work for a client, which ends when the client goes away; the texts end with it.

    Raises ApiError 499, which nobody reads, if the client has gone, and what the work raises.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(until_gone(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "The client has closed the connection.")
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        cancel(choices)


async def until_gone(receive: Receive) -> None:
    """Return when the client of a request has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
