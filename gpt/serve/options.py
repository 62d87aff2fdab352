"""The options of a server: who may use it, and how much."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from gpt.errors import UserError


class ServeError(UserError, ValueError):
    """Options that a server cannot start with, or an address that it cannot use."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Who may use a server, and the limits of a request. Raises ServeError for options that do not fit each other."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    token: str | None = None
    """What a client sends in `Authorization: Bearer TOKEN`; None lets every client in, on loopback only."""
    allow_origins: tuple[str, ...] = ()
    """Origins of other pages that may use the server from a browser, such as https://example.com; * for all."""
    allow_hosts: tuple[str, ...] = ()
    """Names of this machine that clients may use in addition to its addresses and localhost."""
    max_batch: int = 8
    """Texts that a model writes at the same time."""
    queue: int = 64
    """Texts that may wait for their turn."""
    max_body: int = 2**21
    """The largest body of a request, in bytes."""
    max_tokens: int | None = None
    """The most new tokens of a text; None leaves it to the context of the model."""
    request_seconds: float = 600.0
    """The longest time of a request, the time in the queue included."""
    client_seconds: float = 20.0
    """The longest time in which a client sends a request, or leaves a connection without one."""
    drain_seconds: float = 30.0
    """The time after SIGTERM in which texts are finished."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "allow_origins", tuple(map(checked_origin, self.allow_origins)))
        for name in self.allow_hosts:
            if host_name(name) is None:
                raise ServeError(f"--allow-host {name}: expected a name such as box.local. Leave http:// out")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise ServeError("--token: expected printable ASCII characters, and one at least. Choose another token")
        if self.token is not None and self.token != self.token.strip():
            raise ServeError("--token: expected no space at the start or the end. Remove it")
        if self.token is None and not is_loopback(self.host):
            raise ServeError(
                f"--host {self.host}: expected a token for use beyond this machine, got none. Give --token TEXT, or "
                "set TENSORLITE_SERVE_TOKEN; `python -c 'import secrets; print(secrets.token_urlsafe())'` makes one"
            )
        if self.token is None and "*" in self.allow_origins:
            raise ServeError(
                "--allow-origin '*': expected a token, because every page on the web could use the model. Give --token "
                "TEXT, or name the origins"
            )


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_name(host: str) -> str | None:
    """Return the name in a Host header, without the port, in lower case; None if it is not a name."""
    try:
        parts = urlsplit(f"//[{host}]" if host.count(":") > 1 and not host.startswith("[") else f"//{host}")
        parts.port  # noqa: B018  # It raises ValueError for what is not a number.
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or parts.username is not None or not parts.hostname:
        return None
    return parts.hostname.removesuffix(".")


def checked_origin(origin: str) -> str:
    """Return an origin as browsers write it, in lower case without a slash at the end; * for all. Raises ServeError."""
    scheme, separator, host = origin.lower().rstrip("/").partition("://")
    if origin == "*":
        return origin
    if not (separator and re.fullmatch("[a-z][a-z0-9+.-]*", scheme) and host_name(host)):
        raise ServeError(f"--allow-origin {origin}: expected an origin such as https://example.com. Leave the path out")
    return f"{scheme}://{host}"
