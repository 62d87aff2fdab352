"""The protocol of a connection: that of uvicorn, with limits of time for clients that send or read slowly."""

import asyncio
import json

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpt.serve.errors import ApiError, error_body
from gpt.serve.failures import RETRY_SECONDS

MAX_CONNECTIONS = 512  # fewer than the files that most systems let a process open


class TimedProtocol(H11Protocol):
    """A connection that ends if a request does not arrive in time, or nobody reads a response.

    uvicorn itself limits only the time between two requests. The time is `timeout_keep_alive` of its configuration.
    """

    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a connection."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > MAX_CONNECTIONS:
            self.app = too_many_connections
        self.start_timer()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request. The time of a request begins with its first byte."""
        super().data_received(data)
        if self.flow.write_paused:  # Then it is the time in which the client reads.
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.stop_timer()
        elif self.timer is None:
            self.start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self.stop_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait until the client has read what was sent, for some time."""
        super().pause_writing()
        self.start_timer()

    def resume_writing(self) -> None:
        """Send again."""
        super().resume_writing()
        self.stop_timer()

    def start_timer(self) -> None:
        """Let the connection end after some time."""
        self.stop_timer()
        self.timer = self.loop.call_later(self.timeout_keep_alive, self.end_slow_connection)

    def stop_timer(self) -> None:
        """Let the connection live."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def end_slow_connection(self) -> None:
        """End a connection whose time is over; tell it a client that has sent a part of a request."""
        self.timer = None
        if self.flow.write_paused:
            self.transport.abort()  # A client that reads nothing would not read an error.
        elif self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self.send_error(408, "The request did not arrive in time. Send it faster.")
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in the form of the other errors."""
        self.send_error(400, f"{msg} Send HTTP/1.1.")

    def send_error(self, status: int, message: str) -> None:
        """Send an error and close the connection."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # A response has begun already.
            return
        body = json.dumps(error_body(status, message)).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


async def too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer each request of a connection that is one too many; an application."""
    message = f"{MAX_CONNECTIONS} connections are open, the most of this server. Try again later."
    headers = {"Retry-After": RETRY_SECONDS, "Connection": "close"}
    await ApiError(429, message, code="too_many_connections", headers=headers).response()(scope, receive, send)
