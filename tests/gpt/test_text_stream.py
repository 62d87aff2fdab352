"""Test the stream of text: whole characters, limits and stop texts."""

import itertools
import unicodedata

import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("tiktoken")
pytest.importorskip("tokenizers")
from hypothesis import example, given
from hypothesis import strategies as st

from gpt import tokenizer as t
from gpt.generation import ControlEscaper, EndOfText, TextEnd, stream

any_text = st.text(st.characters(codec="utf-8"))


@pytest.fixture(scope="module")
def bpe():
    return t.BPETokenizer.train("It was a bright cold day in April, and the clocks were striking thirteen. " * 9, 340)


def streamed(tokenizer, ids, **limits):
    return list(stream(tokenizer, ids, **limits))


@given(any_text)
@example("naïve 🙂🙃 世界")
def test_stream_yields_whole_characters(bpe, text):
    pieces = streamed(bpe, bpe.encode(text))
    assert "".join(pieces) == text
    assert all(pieces)


def test_stream_replaces_incomplete_characters(bpe):
    smile = [bpe.tokens.index(bytes([byte])) for byte in "🙂".encode()]
    a = bpe.tokens.index(b"a")
    assert streamed(bpe, smile) == ["🙂"]
    assert streamed(bpe, smile[:3]) == ["\ufffd"]
    assert streamed(bpe, [*smile[:2], a]) == ["\ufffda"]


@given(st.text("ab"), st.text("ab", min_size=1, max_size=4), st.integers(1, 12))
def test_stream_limits(text, stop, chars):
    char = t.CharTokenizer("ab")
    ids = char.encode(text)
    assert "".join(streamed(char, ids, max_chars=chars)) == text[:chars]
    assert "".join(streamed(char, ids, max_tokens=chars)) == text[:chars]
    assert "".join(streamed(char, ids, stop=stop)) == text.partition(stop)[0]


def test_stream_cuts_inside_a_token():
    bpe = t.BPETokenizer([*(bytes([b]) for b in range(256)), b"ab", b"abc"], r"\p{L}+")
    assert bpe.encode("abcabc").tolist() == [257, 257]
    assert streamed(bpe, [257, 257], max_chars=4) == ["abc", "a"]
    assert streamed(bpe, [257, 257], stop="ca") == ["ab"]


def first_complete(text, stops):
    """Return a text up to the stop text that is complete first when it is read character by character."""
    for end in range(len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)]
    return text


@given(st.text("ab"), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
@example("xabcd".replace("x", "b"), ["abcd", "bc"])
def test_the_first_of_several_stop_texts_ends_the_stream(text, stops):
    """The tokens decide nothing: compare one per character with longer ones."""
    tokens = [*(bytes([b]) for b in range(256)), b"ab", b"ba", b"aab", b"abba"]
    bpe = t.BPETokenizer(tokens, r"\p{L}+")
    for tokenizer, ids in ((bpe, bpe.encode(text)), (bpe, list(text.encode()))):
        pieces = streamed(tokenizer, ids, stop=stops)
        assert "".join(pieces) == first_complete(text, stops)
        assert all(pieces)


def test_stop_texts_across_tokens_and_characters():
    tokens = [*(bytes([b]) for b in range(256)), "é🙂".encode()[:4], b"x\n\n"]
    bpe = t.BPETokenizer(tokens, r"\p{L}+")
    ids = [97, 256, *"é🙂".encode()[4:], 257, 98]
    assert streamed(bpe, ids) == ["a", "é", "🙂", "x\n\n", "b"]
    assert streamed(bpe, ids, stop=["🙂x", "never"]) == ["a", "é"]
    assert streamed(bpe, ids, stop=("\n\nb", "\n")) == ["a", "é", "🙂", "x"]
    assert streamed(bpe, ids, stop=["", "b"]) == ["a", "é", "🙂", "x\n\n"]


@given(st.text("ab", max_size=8), st.integers(1, 5), st.lists(st.text("ab", min_size=1, max_size=3), max_size=2))
def test_a_text_ends_where_its_stream_ends(text, chars, stops):
    char = t.CharTokenizer("ab")
    end, ids = TextEnd(char, max_chars=chars, stop=stops).after_prompt(2), [0, 1, *char.encode(text)]
    count = 0
    try:
        while count < len(text):
            end(ids[: 2 + count], None)
            count += 1
    except EndOfText:
        pass
    limits = {"max_chars": chars, "stop": stops}
    assert streamed(char, ids[2 : 2 + count], **limits) == streamed(char, ids[2:], **limits)
    assert count <= chars


def test_stream_is_lazy():
    char = t.CharTokenizer("ab")
    endless = itertools.cycle([0, 1])
    pieces = stream(char, endless, max_chars=3, stop="bb")
    assert next(pieces) == "a"
    assert next(endless) == 1
    assert "".join(pieces) == "ab"
    assert next(endless) == 0


# --- control characters


def test_control_characters_are_escaped_across_pieces():
    escaper = ControlEscaper()
    assert "".join(escaper(["a\tb\n", "c\r", "\nd", "é", "\N{ROCKET}"])) == "a\tb\nc\r\ndé\N{ROCKET}"
    assert not escaper.used
    hostile = ["\x1b]0;t\x07", "x\r", "y\x7f\x9b2J", "\x00\x08\x0b", "end\r"]
    assert "".join(escaper(hostile)) == r"\x1b]0;t\x07x\ry\x7f\x9b2J\x00\x08\x0bend\r"
    assert escaper.used
    controls = "".join(map(chr, [*range(32), *range(127, 160)]))
    left = "".join(ControlEscaper()(controls))
    assert [c for c in left if unicodedata.category(c) == "Cc"] == ["\t", "\n"]
