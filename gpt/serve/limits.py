"""Limits of a request: its size, the time that it takes to arrive, and that none begins while the server ends."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt.serve.errors import ApiError
from gpt.serve.served import Served

CLOSE = {"Connection": "close"}  # What the client still sends is not read.


class RequestLimits:
    """A layer around an application that counts its requests, and limits their bodies and the time of those."""

    def __init__(self, app: ASGIApp, served: Served) -> None:
        self.app, self.served = app, served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        try:
            self.check(Headers(scope=scope))
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        self.served.active += 1
        try:
            await self.app(scope, Body(receive, self.served), send)
        finally:
            self.served.active -= 1

    def check(self, headers: Headers) -> None:
        """Raise ApiError 503 while the server ends, and 413 for a body whose header says that it is too large."""
        if self.served.draining:
            raise ApiError(503, "The server ends, and takes no more requests.", headers={"Retry-After": "5", **CLOSE})
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self.served.options.max_body:
            raise too_large(self.served.options.max_body)


class Body:
    """The function `receive` of a request, which raises ApiError 413 for a large body and 408 for a slow one."""

    def __init__(self, receive: Receive, served: Served) -> None:
        self.receive, self.options = receive, served.options
        self.end = asyncio.get_running_loop().time() + self.options.client_seconds
        self.size = 0
        self.complete = False

    async def __call__(self) -> Message:
        if self.complete:
            return await self.receive()
        try:
            async with asyncio.timeout_at(self.end):
                message = await self.receive()
        except TimeoutError:
            seconds = f"{self.options.client_seconds:g} seconds"
            raise ApiError(408, f"The body did not arrive in {seconds}. Send it faster.", headers=CLOSE) from None
        if message["type"] == "http.request":
            self.size += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
            if self.size > self.options.max_body:
                raise too_large(self.options.max_body)
        return message


def too_large(limit: int) -> ApiError:
    """Return the error of a body that is too large."""
    return ApiError(
        413, f"The body has more than {limit:,} bytes, the limit of this server. Send a shorter one.", headers=CLOSE
    )
