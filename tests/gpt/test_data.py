"""Test reading texts, and the batches and windows cut from them."""

import math

import numpy as np
import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("pooch")
from hypothesis import given
from hypothesis import strategies as st

from gpt import data
from gpt.config import DataConfig
from gpt.download import DownloadError
from gpt.tokenizer import BPETokenizer, CharTokenizer, TokenizerError

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
def test_invalid_texts_are_errors(tmp_path, content, message):
    with pytest.raises(data.DataError, match=message):
        data.load_text(write(tmp_path, content))


def test_missing_texts_are_errors(tmp_path):
    with pytest.raises(data.DataError, match=r"cannot read the text '.*none\.txt': No such file"):
        data.load_text(DataConfig(dataset=str(tmp_path / "none.txt")))
    with pytest.raises(data.DataError, match=r"Is a directory\n--data takes a UTF-8 text file, or a data set: tiny"):
        data.load_text(DataConfig(dataset=str(tmp_path)))
    with pytest.raises(data.DataError, match="did you mean the data set 'tinyshakespeare'"):
        data.load_text(DataConfig(dataset="tiny-shakespeare"))


# --- splitting


def test_the_split_counts_characters(tmp_path):
    text = "ab🙂d" * 25 + "é"
    dataset = data.load_dataset(write(tmp_path, text.encode()), 5)
    assert dataset.chars == {"train": 90, "val": 11}
    assert dataset.tokenizer.decode(dataset.train) == text[:90]
    assert dataset.tokenizer.decode(dataset.val) == text[90:]
    # The vocabulary includes characters that only the validation text contains.
    assert dataset.tokenizer.vocab == "abdé🙂"
    assert dataset.train.dtype == np.uint8


def test_a_text_too_short_for_the_context_is_an_error(tmp_path):
    config = write(tmp_path, b"0123456789" * 10)
    assert len(data.load_dataset(config, 9).val) == 10
    with pytest.raises(data.DataError, match=r"val split has 10 tokens, and a context of 10 tokens needs 11"):
        data.load_dataset(config, 10)
    with pytest.raises(data.DataError, match="train split has 0 tokens"):
        data.load_dataset(write(tmp_path, b"x"), 1)


def test_an_existing_tokenizer_is_used(tmp_path):
    config = write(tmp_path, b"0123456789" * 10)
    tokenizer = CharTokenizer("9876543210")
    dataset = data.load_dataset(config, 4, tokenizer)
    assert dataset.tokenizer is tokenizer
    assert dataset.train[:3].tolist() == [9, 8, 7]
    with pytest.raises(TokenizerError, match="character '0'"):
        data.load_dataset(config, 4, CharTokenizer("123456789"))


def test_a_tokenizer_learns_from_the_training_split_only(tmp_path):
    pytest.importorskip("tokenizers")
    text = "abab " * 180 + "xyxy " * 20
    config = DataConfig(dataset=write(tmp_path, text.encode()).dataset, tokenizer="bpe", bpe_vocab_size=260)
    dataset = data.load_dataset(config, 4)
    assert b"ab" in dataset.tokenizer.tokens
    assert b"xy" not in dataset.tokenizer.tokens
    assert dataset.train.dtype == np.uint16


# --- batches and windows


def numbers(n):
    """Return a data set with the tokens 0, 1, 2, ..., so that a token is its own position."""
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


def test_batches_cover_the_whole_split():
    starts = numbers(7).batch(np.random.default_rng(0), "val", 500, 4)[0][:, 0]
    assert set(starts.tolist()) == {0, 1, 2}


@given(n=st.integers(2, 400), batch_size=st.integers(1, 9), block_size=st.integers(1, 70))
def test_windows_predict_each_token_except_the_first_once(n, batch_size, block_size):
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
    # A character has two tokens, and the first token is half of one, so three tokens predict two characters.
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
        # The loss of a model that gives each remaining character ln 2 nats, with any tokens.
        loss = math.log(2) * (loaded.chars["val"] - given) / (len(loaded.val) - 1)
        bits.append(loaded.bits_per_char(loss))
    assert bits == pytest.approx([1, 1], rel=1e-12)


# --- tiny Shakespeare


@pytest.fixture(scope="module")
def shakespeare(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORLITE_CACHE", str(tmp_path_factory.mktemp("cache")))
        try:
            return data.load_dataset(DataConfig(dataset="tinyshakespeare"), 64)
        except DownloadError as error:
            pytest.skip(f"tiny Shakespeare cannot be downloaded: {error}")


def test_tiny_shakespeare(shakespeare):
    assert len(shakespeare.train) == 1_003_854
    assert len(shakespeare.val) == 111_540
    assert shakespeare.tokenizer.vocab_size == 65
    assert shakespeare.tokenizer.decode(shakespeare.train[:15]) == "First Citizen:\n"
    # The windows predict the whole validation set except its first character.
    assert sum(y.size for _, y in shakespeare.windows("val", 64, 64)) == 111_539
    assert shakespeare.bits_per_char(1.0) == pytest.approx(1 / math.log(2), rel=1e-15)
