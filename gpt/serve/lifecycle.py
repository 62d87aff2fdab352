"""A server from its start to its end: the socket, the signals, and the texts that are finished."""

import errno
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from gpt.serve.options import ServeError, ServeOptions


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
    """A server whose first signal ends it in order, and whose second one ends it at once."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def make_server(app: FastAPI, options: ServeOptions) -> Server:
    """Return a server of the application, which `run(sockets=[listen(host, port)])` runs."""
    config = uvicorn.Config(
        app, http="h11", ws="none", loop="asyncio", lifespan="on", log_level="warning", access_log=False,
        server_header=False, proxy_headers=False,
        timeout_keep_alive=int(options.client_seconds), timeout_graceful_shutdown=2,
    )  # fmt: skip
    return Server(config)
