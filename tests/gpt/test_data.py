"""Test reading texts, and the batches and windows cut from them."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("pooch")
from hypothesis import given
from hypothesis import strategies as st

from gpt import data
from gpt.config import Config, DataConfig
from gpt.data import DataError, open_text
from gpt.data import text as text_module
from gpt.download import DownloadError
from gpt.tokenizer import BPETokenizer, CharTokenizer, TokenizerError
from gpt.tokenizer import bpe as bpe_module
from gpt.tokenizer.pieces import between_words

# --- reading


def write(tmp_path, content):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    return DataConfig(dataset=str(path))


def test_own_text(tmp_path):
    text = "Là-bas\n今日は🙂\n"
    assert data.load_text(write(tmp_path, text.encode())) == text
    assert data.load_text(write(tmp_path, b"\xef\xbb\xbf" + text.encode())) == text


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_line_ends_of_all_systems_are_line_feeds(tmp_path, monkeypatch, size):
    """A text is the same whatever wrote it, and wherever its pieces are cut."""
    monkeypatch.setattr(text_module, "PIECE", size)
    config = write(tmp_path, "é\r\n🙂\rab\n\r\n\r\r\n.".encode())
    assert data.load_text(config) == data.read_text(config.dataset) == "é\n🙂\nab\n\n\n\n."
    dataset = data.load_dataset(DataConfig(dataset=config.dataset, val_fraction=0.0), 4)
    assert dataset.tokenizer.vocab == "\n.abé🙂"
    assert dataset.tokenizer.decode(dataset.train) == data.load_text(config)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_byte_is_named_by_its_place_in_the_file(tmp_path, monkeypatch, size):
    monkeypatch.setattr(text_module, "PIECE", size)
    with pytest.raises(data.DataError, match=r"byte 0xff at position 7 \(invalid start byte\)"):
        data.load_text(write(tmp_path, "é🙂\n".encode() + b"\xff rest"))
    with pytest.raises(data.DataError, match=r"byte 0xf0 at position 3 \(unexpected end of data\)"):
        data.load_text(write(tmp_path, b"abc\xf0\x9f"))


def test_a_section_of_a_text(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "PIECE", 3)
    text = data.open_text(write(tmp_path, b"0123456789"))
    for start in range(11):
        for stop in [*range(start, 11), None]:
            assert "".join(text.pieces(start, stop)) == "0123456789"[start:stop]


def test_what_is_not_a_data_config_says_what_to_write():
    for function in (data.load_text, data.open_text, lambda c: data.load_dataset(c, 8)):
        with pytest.raises(TypeError, match=r"got str. Write DataConfig\(dataset='x.txt'\)"):
            function("x.txt")
        with pytest.raises(TypeError, match=r"got Config. Write config.data"):
            function(Config.load())


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
    with pytest.raises(data.DataError, match=r"Is a directory\n--data takes a UTF-8 .* or a data set: tiny"):
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


@pytest.mark.parametrize("size", [4, 2**20])
@pytest.mark.parametrize(("position", "place"), [(0, "line 1, column 1"), (9, "line 1, column 10"),
                                                 (14, "line 2, column 5"), (97, "line 10, column 8")])  # fmt: skip
def test_an_unknown_character_is_named_by_its_place_in_the_file(tmp_path, monkeypatch, size, position, place):
    """The position counts from the start of the file, also in the validation split."""
    monkeypatch.setattr(text_module, "PIECE", size)
    text = list("012345678\n" * 10)
    text[position] = "?"
    config = write(tmp_path, "".join(text).encode())
    with pytest.raises(TokenizerError, match=rf"'\?' at position {position} \({place} of '.*text\.txt'\) is not in"):
        data.load_dataset(config, 4, CharTokenizer("\n012345678"))


def test_no_validation_split(tmp_path):
    config = DataConfig(dataset=write(tmp_path, b"0123456789").dataset, val_fraction=0.0)
    dataset = data.load_dataset(config, 9)
    assert (len(dataset.train), len(dataset.val), dataset.chars) == (10, 0, {"train": 10, "val": 0})
    with pytest.raises(data.DataError, match="its train split has 10 tokens"):
        data.load_dataset(config, 10)
    with pytest.raises(ValueError, match="expected the split 'train' or 'val', got 'valid'"):
        dataset.tokens("valid")


def test_pieces_have_the_tokens_of_the_whole_text(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    text = "She sells  sea-shells,\n\n  naïve 🙂\xa0sea\tshells; it's 12 o'clock . \n x" * 30
    path = write(tmp_path, text.encode()).dataset
    config = DataConfig(dataset=path, tokenizer="bpe", bpe_vocab_size=330, val_fraction=0.3)
    whole = data.load_dataset(config, 4)
    cut = int(len(text) * 0.7)
    assert whole.tokenizer.to_dict() == BPETokenizer.train(text[:cut], 330).to_dict()
    for size in (1, 5, 64):
        monkeypatch.setattr(text_module, "PIECE", size)
        monkeypatch.setattr(bpe_module, "TRAINING_PIECE", size)
        pieces = data.load_dataset(config, 4)
        assert pieces.tokenizer.to_dict() == whole.tokenizer.to_dict()
        assert pieces.train.tolist() == whole.tokenizer.encode(text[:cut]).tolist()
        assert pieces.val.tolist() == whole.tokenizer.encode(text[cut:]).tolist()


@given(st.lists(st.text("ab \n\t.\xa0", max_size=9), max_size=9))
def test_pieces_end_where_words_end(pieces):
    result = list(between_words(pieces))
    assert "".join(result) == "".join(pieces)
    for left, right in itertools.pairwise(result):
        assert not left[-1].isspace()
        assert right[0] in " \n"


def test_a_word_without_end_is_cut_for_the_trainer():
    """The time of the trainer is quadratic in the length of a word."""
    pieces = ["ab cd", "ef", "gh", "i" * 9, " j", "k"]
    assert list(between_words(pieces)) == ["ab", " cdefgh" + "i" * 9, " jk"]
    assert list(between_words(pieces, longest=6)) == ["ab", " cdefgh", "i" * 9, " jk"]


@pytest.mark.parametrize("name", ["x" * 300, "y" * 5000])
def test_the_error_of_a_long_name_is_short(name):
    with pytest.raises(DataError, match=r"^cannot read the text '(x|y)+'?: File name too long") as caught:
        open_text(DataConfig(dataset=name))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("tokenizer", ["char", "bpe"])
def test_the_memory_of_a_large_text_is_a_small_multiple_of_the_file(tmp_path, tokenizer):
    """NumPy and Python together take at most three bytes for a byte of the text."""
    pytest.importorskip("tokenizers")
    text = ("The quick brown fox jumps over the lazy dog; it's 12 o'clock.\n" * 16_000).encode()  # 1 MB
    config = DataConfig(dataset=write(tmp_path, text * 8).dataset, tokenizer=tokenizer, bpe_vocab_size=280)
    data.load_dataset(DataConfig(dataset=write(tmp_path, text).dataset, tokenizer=tokenizer, bpe_vocab_size=280), 8)
    write(tmp_path, text * 8)
    tracemalloc.start()
    try:
        dataset = data.load_dataset(config, 8, None if tokenizer == "char" else BPETokenizer.train("a b c d", 280))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert dataset.train.itemsize == (1 if tokenizer == "char" else 2)
    assert peak < 3 * len(text) * 8 + 20e6


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


@given(n=st.integers(2, 400), block_size=st.integers(1, 30), limit=st.integers(1, 500))
def test_a_limit_spreads_whole_windows_over_the_split(n, block_size, limit):
    batches = list(numbers(n).windows("val", 4, block_size, limit))
    count = sum(y.size for _, y in batches)
    assert numbers(n).predicted("val", block_size, limit) == count
    if limit >= n - 1 or n - 1 < block_size:
        assert count == n - 1
    else:
        assert count == max(1, limit // block_size) * block_size
        starts = np.concatenate([x[:, 0] for x, _ in batches])
        assert (starts % block_size == 0).all()
        gaps = np.diff(starts)
        assert len(gaps) == 0 or (gaps.min() > 0 and gaps.max() - gaps.min() <= block_size)
    for x, y in batches:
        np.testing.assert_array_equal(y, x + 1)


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
