"""A server from its start to its end: the socket, the signals, and the texts that are finished."""

import asyncio
import errno
import logging
import os
import signal
import socket
import time
from contextlib import suppress
from types import FrameType

import uvicorn
from fastapi import FastAPI

from gpt.serve.options import ServeError, ServeOptions
from gpt.serve.protocol import TimedProtocol
from gpt.serve.served import Served


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises ServeError for an address that this machine does not have, and for a port in use, with another one.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ServeError(f"--host {host}: expected an address of this machine, got {error}. Give 127.0.0.1") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ServeError(why_not(host, port, error)) from None
    return listener


def address(listener: socket.socket) -> str:
    """Return the address of a server for clients of this machine, such as http://127.0.0.1:8000."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def why_not(host: str, port: int, error: OSError) -> str:
    """Return the message for an address that cannot be used."""
    if error.errno == errno.EADDRINUSE:
        with listen(host, 0) as other:
            free = other.getsockname()[1]
        return f"--port {port}: another program uses it. Give --port {free}, which is free, or --port 0"
    if error.errno == errno.EACCES:
        return f"--port {port}: ports below 1024 need special rights. Give --port 8000"
    return f"--host {host}: expected an address of this machine, got {error.strerror}. Give --host 127.0.0.1"


class Server(uvicorn.Server):
    """A server whose first signal lets it finish its texts, and whose second one ends it at once.

    exit_status: 0, or what a shell gives a process that a signal has ended.
    """

    def __init__(self, config: uvicorn.Config, served: Served) -> None:
        super().__init__(config)
        self.served = served
        self.exit_status = 0
        self.drain_end = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGINT or SIGTERM."""
        if self.served.draining:
            self.force_exit = self.should_exit = self.served.abandoned = True
            self.exit_status = 128 + sig
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # It would print each request that is lost.
            return
        self.drain_end = time.monotonic() + self.served.options.drain_seconds
        self.served.draining = True
        if self.served.active:
            # print() could fail here, because the signal may have interrupted another print().
            with suppress(OSError):
                name = signal.Signals(sig).name
                os.write(2, f"\n{name}: finishing the texts that have begun; {name} again ends at once.\n".encode())

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does ten times a second, and end once no request is left, or their time is over."""
        if self.served.draining and not self.should_exit:
            late = time.monotonic() > self.drain_end
            if late:  # The texts end, each with an error.
                await asyncio.to_thread(self.served.close)
            self.should_exit = late or not self.served.active
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Do what uvicorn does at the end; after a second signal, cut the connections first."""
        if self.force_exit:
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        await super().shutdown(sockets)


def make_server(app: FastAPI, options: ServeOptions) -> Server:
    """Return a server of the application, which `run(sockets=[listen(host, port)])` runs."""
    config = uvicorn.Config(
        app, http=TimedProtocol, ws="none", loop="asyncio", lifespan="on", log_level="warning", access_log=False,
        server_header=False, proxy_headers=False, timeout_graceful_shutdown=2,
        timeout_keep_alive=options.client_seconds,  # type: ignore[arg-type]  # The event loop takes any number.
    )  # fmt: skip
    return Server(config, app.state.served)
