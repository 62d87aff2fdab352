"""A real headless Chromium for tests of pages.

A test asks for ``new_page``. Each call of it opens a page in a profile of its own, with playwright's context options:
``page = new_page(viewport={"width": 400, "height": 800}, color_scheme="dark")``. When the test ends, the fixture
asserts that no page had an error and that no request left the machine.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

# The first that exists is used. Debian and Ubuntu install the first.
EXECUTABLES = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# The resolver rule makes every name unknown except this machine's, so that no page can reach the network.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)  # fmt: skip

LOCAL = ("file:", "data:", "blob:", "about:", "http://127.0.0.1", "http://localhost", "ws://127.0.0.1")


def executable() -> str | None:
    """Return the path of a Chromium, or None where there is none."""
    return next((path for name in EXECUTABLES if (path := shutil.which(name))), None)


class Pages:
    """A function that opens pages of a browser, and what went wrong on them.

    ``errors`` has the errors of the console, exceptions, and requests that left the machine. ``requests`` has the
    addresses of all requests. A test that expects an error, for example a 404, asserts it and clears ``errors``.
    """

    def __init__(self, browser: "Browser") -> None:
        self.browser = browser
        self.errors: list[str] = []
        self.requests: list[str] = []

    def __call__(self, url: str | Path | None = None, **options: Any) -> "Page":
        """Return a new page that shows `url`: an address, or the path of a file. The options are of its context."""
        page = self.browser.new_context(**options).new_page()
        page.set_default_timeout(20_000)  # milliseconds; a page of 2,000 boxes needs seconds on a busy machine
        page.on("console", self.on_console)
        page.on("pageerror", lambda error: self.errors.append(f"exception: {error}"))
        page.on("request", self.on_request)
        page.on("websocket", lambda socket: self.check_address(socket.url))
        if url is not None:
            page.goto(url.resolve().as_uri() if isinstance(url, Path) else url)
        return page

    def on_console(self, message: "ConsoleMessage") -> None:
        if message.type in ("error", "assert"):
            self.errors.append(f"console: {message.text}")

    def on_request(self, request: "Request") -> None:
        self.requests.append(request.url)
        self.check_address(request.url)

    def check_address(self, url: str) -> None:
        if not url.startswith(LOCAL):
            self.errors.append(f"request: {url}")


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """Return a running Chromium, or skip the test.

    It runs for one file of tests, because playwright occupies asyncio in the thread of the tests: while the browser
    runs, ``asyncio.run`` raises there.
    """
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = executable()
    if path is None:
        pytest.skip("no Chromium is installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def new_page(chromium: "Browser") -> Iterator[Pages]:
    """Return a function that opens pages. At the end, assert that none had an error or used the network."""
    pages = Pages(chromium)
    yield pages
    for context in chromium.contexts:
        context.close()
    assert not pages.errors, "\n".join(pages.errors)
