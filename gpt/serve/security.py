"""Checks of who asks: the name of the host, the origin of a page, and the token.

A page elsewhere on the web can make a browser send requests to this machine. It cannot change their Host and Origin.
"""

import hmac
import ipaddress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt.errors import short
from gpt.serve.errors import ApiError
from gpt.serve.options import ServeOptions, host_name, is_loopback

# What a browser may do with a response. The page loads its own files only, and no other page shows it in a frame.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

# Paths without a token. The page asks the user for it.
OPEN_PATHS = ("/", "/healthz", "/favicon.ico")
OPEN_FOLDER = "/page/"


class Guard:
    """A layer around an application that refuses wrong hosts and origins, and adds headers to all responses."""

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        self.app, self.options = app, options
        self.names = {host_name(name) for name in ("localhost", options.host, *options.allow_hosts)} - {None}
        self.any_address = not is_loopback(options.host)
        self.origins = set(options.allow_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        send = adding_headers(send)
        try:
            self.check_host(headers)
            self.check_origin(scope, headers)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def check_host(self, headers: Headers) -> None:
        """Raise ApiError 403 for a name that is not one of this server.

        The owner of a name can let it point to this machine (DNS rebinding). An address has no owner.
        """
        given = headers.get("host", "")
        name = host_name(given)
        if name is None or not (name in self.names or self.is_own_address(name)):
            raise ApiError(
                403,
                f"Host: expected a name of this server, got {short(given)}. Use its address, or start it with "
                "--allow-host NAME.",
                code="host_not_allowed",
            )

    def is_own_address(self, name: str) -> bool:
        """Return whether a name is an address that can be one of this server."""
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address or address.is_loopback

    def check_origin(self, scope: Scope, headers: Headers) -> None:
        """Raise ApiError 403 for a request from a page elsewhere, unless its origin is allowed."""
        given = headers.getlist("origin")
        origin = ", ".join(given)
        if given:
            own = f"{scope['scheme']}://{headers.get('host', '')}".lower()
            allowed = origin.lower() == own or origin.lower() in self.origins or "*" in self.origins
        else:  # Pictures and scripts of a page elsewhere have no origin. A link to this page is fine.
            site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode")
            allowed = site in ("none", "same-origin") or mode == "navigate"
        if not allowed:
            raise ApiError(
                403,
                f"Origin: pages of {short(origin or 'another site')} may not use this server. Start it with "
                "--allow-origin ORIGIN to let them.",
                code="origin_not_allowed",
            )


class TokenCheck:
    """A layer around an application that refuses requests without the token."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.token is not None and not is_open(scope["path"]):
            try:
                self.check(Headers(scope=scope).get("authorization"))
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def check(self, authorization: str | None) -> None:
        """Raise ApiError 401 for another token than that of the server."""
        scheme, _, given = (authorization or "").partition(" ")
        if self.token is None:
            return
        if scheme.lower() != "bearer" or not given:
            message, code = "Authorization: expected Bearer TOKEN, got none. Send the token of the server.", None
        # The time of the comparison says nothing about the token.
        elif not hmac.compare_digest(given.strip().encode("latin-1", "replace"), self.token):
            message, code = "Authorization: expected the token of the server, got another.", "invalid_api_key"
        else:
            return
        raise ApiError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})


def is_open(path: str) -> bool:
    """Return whether a path needs no token."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def adding_headers(send: Send) -> Send:
    """Return a function that sends what `send` does, with HEADERS."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-cache")
        await send(message)

    return wrapped
