"""Test tokenizers: round trips, errors and serialization."""

import base64
import hashlib
import json
import os
import re

import numpy as np
import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("tiktoken")
pytest.importorskip("tokenizers")
from hypothesis import example, given
from hypothesis import strategies as st

from gpt import tokenizer as t
from gpt.config import TOKENIZERS, DataConfig
from gpt.download import DownloadError
from gpt.tokenizer import bpe as bpe_module
from gpt.tokenizer import openai as openai_module
from gpt.tokenizer.kinds import tokenizer_class

TEXT = (
    "It was a bright cold day, and the clocks didn't strike 13.\n\n"
    "    Là-bas, un garçon naïf rêve;  今日は世界 — 🙂🙃.\tThe rest is silence, the rest is noise.\r\n"
) * 4

any_text = st.text(st.characters(codec="utf-8"))


@pytest.fixture(scope="module")
def bpe():
    return t.BPETokenizer.train(TEXT, 340)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
        patch.setenv("TENSORLITE_CACHE", str(tmp_path_factory.mktemp("cache")))
        try:
            return t.GPT2Tokenizer.load()
        except DownloadError as error:
            pytest.skip(f"GPT-2's vocabulary cannot be downloaded: {error}")


def through_json(tokenizer):
    """Return the tokenizer after a round trip through JSON."""
    return t.from_dict(json.loads(json.dumps(tokenizer.to_dict())))


# --- characters


def test_char_ids_follow_code_points():
    char = t.CharTokenizer.train("hello, Zoë")
    assert char.vocab == " ,Zehloë"
    assert char.vocab_size == 8
    ids = char.encode("hole")
    assert ids.dtype == np.int64
    assert ids.tolist() == [4, 6, 5, 3]
    assert char.decode(ids) == "hole"
    assert char.decode_bytes([7]) == "ë".encode()
    assert char.encode("").shape == (0,)


def test_a_char_vocabulary_keeps_its_order():
    char = t.CharTokenizer("zab")
    assert char.encode("abz").tolist() == [1, 2, 0]


@given(any_text.filter(bool), st.data())
def test_char_round_trip(text, data):
    char = through_json(t.CharTokenizer.train(text))
    other = data.draw(st.text(st.sampled_from(text)))
    assert char.decode(char.encode(other)) == other
    assert char.decode_bytes(char.encode(other)) == other.encode()


@pytest.mark.parametrize("unknown", ["x", "é", "🙂", "\U0010ffff", "\x00"])
def test_the_error_names_an_unknown_character(unknown):
    char = t.CharTokenizer.train("no\nyes")
    with pytest.raises(t.TokenizerError) as caught:
        char.encode("no" + unknown)
    message = str(caught.value)
    assert repr(unknown) in message
    assert "position 2" in message
    assert "enosy" not in message
    assert isinstance(caught.value, ValueError)


def test_no_error_prints_the_vocabulary():
    vocab = "".join(map(chr, range(0x4E00, 0x4E00 + 1000)))
    with pytest.raises(t.TokenizerError, match=r"of 1000 characters\. Leave it out") as caught:
        t.CharTokenizer(vocab).encode("a")
    assert not set(vocab) & set(str(caught.value))


def test_what_is_not_a_text_or_an_id_is_an_error(bpe):
    for tokenizer in (bpe, t.CharTokenizer("ab")):
        for wrong in (b"a", [0], None):
            with pytest.raises(t.TokenizerError, match=r"expected a text \(str\)"):
                tokenizer.encode(wrong)
        for wrong in ("a", [0.7], [True], None):
            with pytest.raises(t.TokenError, match="expected token ids"):
                tokenizer.decode(wrong)


@pytest.mark.parametrize(
    ("vocab", "message"), [("", "at least one"), ("aba", "once"), ("a\ud800", "not a character")]
)
def test_an_invalid_char_vocabulary_is_an_error(vocab, message):
    with pytest.raises(t.TokenizerError, match=message):
        t.CharTokenizer(vocab)


# --- byte-pair encoding


@given(any_text)
@example("🙂")
@example("<|endoftext|>")
def test_bpe_round_trip(bpe, text):
    ids = bpe.encode(text)
    assert ids.dtype == np.int64
    assert bpe.decode(ids) == text
    assert through_json(bpe).encode(text).tolist() == ids.tolist()


def test_bpe_learns_from_the_text(bpe):
    assert bpe.vocab_size == 340
    assert len(bpe.encode(TEXT)) < len(TEXT.encode()) / 2
    # Merges do not cross words, and whole frequent words are tokens.
    assert b" rest" in bpe.tokens
    assert not any(b" " in token.strip() for token in bpe.tokens)


def test_bpe_encodes_like_its_trainer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    oracle = Tokenizer(models.BPE())
    oracle.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    oracle.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    oracle.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=340, initial_alphabet=sorted(alphabet), show_progress=False)
    )
    bpe = t.BPETokenizer.train(TEXT, 340)
    assert bpe.encode(TEXT).tolist() == oracle.encode(TEXT).ids


@pytest.mark.parametrize("run", ["ACGTTGCAAC" * 900, " " * 30_000, "x1," * 9000])
def test_a_long_run_is_trained_on_as_short_words(run):
    """Each merge moves the rest of its word, so one word of the whole run would take a time that grows as a square."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    size, alphabet = bpe_module.TRAINING_WORD, bpe_module.byte_alphabet()
    oracle = Tokenizer(models.BPE())
    oracle.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex="," in run)
    oracle.train_from_iterator(
        (run[i : i + size] for i in range(0, len(run), size)) if "," not in run else [run],
        trainers.BpeTrainer(vocab_size=300, initial_alphabet=sorted(alphabet), show_progress=False),
    )
    bpe = t.BPETokenizer.train(run, 300)
    assert max(map(len, bpe.tokens)) <= size
    assert bpe.tokens == [
        bytes(alphabet[c] for c in token)
        for token, _ in sorted(oracle.get_vocab().items(), key=lambda item: item[1])
    ]
    assert bpe.decode(bpe.encode(run)) == run


def test_bpe_of_a_short_text_has_a_smaller_vocabulary():
    bpe = t.BPETokenizer.train("aaaa", 1000)
    assert 256 < bpe.vocab_size < 300
    assert bpe.decode(bpe.encode("b\xff")) == "b\xff"


def test_bpe_needs_all_bytes():
    with pytest.raises(t.TokenizerError, match="vocab_size = 255"):
        t.BPETokenizer.train(TEXT, 255)


def test_the_byte_alphabet_equals_the_trainers():
    from tokenizers import pre_tokenizers

    alphabet = bpe_module.byte_alphabet()
    assert set(alphabet) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(alphabet.values()) == list(range(256))
    assert alphabet["Ġ"] == ord(" ")


def test_gpt2(gpt2):
    assert gpt2.vocab_size == 50257
    assert gpt2.encode("Hello world").tolist() == [15496, 995]
    assert gpt2.decode([50256]) == bpe_module.END_OF_TEXT
    # encode() never makes a special token out of text.
    assert 50256 not in gpt2.encode(bpe_module.END_OF_TEXT)
    assert through_json(gpt2).encode(TEXT).tolist() == gpt2.encode(TEXT).tolist()


def test_gpt2_uses_tiktokens_cache(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(openai_module, "fetch", lambda file, folder: asked.append((file.name, folder)))
    constructors = {"gpt2": lambda: pytest.fail(os.environ["TIKTOKEN_CACHE_DIR"])}
    monkeypatch.setattr("tiktoken_ext.openai_public.ENCODING_CONSTRUCTORS", constructors)
    monkeypatch.setenv("TENSORLITE_CACHE", str(tmp_path / "ours"))
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    for folder in (tmp_path / "ours" / "tiktoken", tmp_path / "theirs"):
        with pytest.raises(pytest.fail.Exception, match=re.escape(str(folder))):
            t.GPT2Tokenizer.load()
        assert asked == [(file.name, folder) for file in openai_module.GPT2_FILES]
        asked.clear()
        assert os.environ.get("TIKTOKEN_CACHE_DIR") in (None, str(folder))
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "theirs"))


def test_the_files_have_the_names_that_tiktoken_expects():
    for file in (*openai_module.GPT2_FILES, *openai_module.CL100K_FILES, *openai_module.O200K_FILES):
        assert file.name == hashlib.sha1(file.url.encode()).hexdigest()


@given(any_text)
def test_gpt2_round_trip(gpt2, text):
    assert gpt2.decode(gpt2.encode(text)) == text


# --- all tokenizers


@pytest.mark.parametrize("bad", [[-1], [0, 340], [2**40]])
def test_the_error_names_a_bad_id(bpe, bad):
    for tokenizer in (bpe, t.CharTokenizer.train(TEXT)):
        where = rf"token id {bad[-1]} at position {len(bad) - 1} is outside the vocabulary of"
        with pytest.raises(t.TokenizerError, match=where):
            tokenizer.decode(bad)


def test_half_a_surrogate_pair_is_an_error(bpe):
    for tokenizer in (bpe, t.CharTokenizer.train(TEXT)):
        with pytest.raises(t.TokenizerError, match=r"'\\ud83d' at position 1 is not a character"):
            tokenizer.encode("I\ud83d")


def test_build():
    assert t.build("ab", "a", DataConfig(tokenizer="char")).vocab_size == 2
    assert t.build(TEXT, TEXT, DataConfig(tokenizer="bpe", bpe_vocab_size=300)).vocab_size == 300
    with pytest.raises(t.TokenizerError, match="no tokenizer 'word'"):
        t.from_dict({"kind": "word"})


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_each_tokenizer_has_the_name_of_its_kind(kind):
    assert tokenizer_class(kind).kind == kind


PATTERNS = bpe_module.PATTERNS
PATTERN = PATTERNS[0]
BYTES = " ".join(base64.b64encode(bytes([b])).decode() for b in range(256))


@pytest.mark.parametrize(
    "values",
    [
        {}, [], None, {"kind": "word"}, {"kind": "char"}, {"kind": "char", "vocab": 5},
        {"kind": "char", "vocab": "aa"},
        {"kind": "bpe", "tokens": BYTES},
        {"kind": "char", "vocab": ["a", "b"]}, {"kind": "char", "vocab": "a\ud800"},
        {"kind": "char", "vocab": "ab", "x": 1},
        {"kind": ["char"], "vocab": "ab"}, {"kind": "bpe", "tokens": 5, "pattern": PATTERN, "special_tokens": {}},
        {"kind": "bpe", "tokens": BYTES + " !", "pattern": PATTERN, "special_tokens": {}},
        {"kind": "bpe", "tokens": BYTES + "  YWI=", "pattern": PATTERN, "special_tokens": {}},
        {"kind": "bpe", "tokens": BYTES + " YQ==", "pattern": PATTERN, "special_tokens": {}},
        {"kind": "bpe", "tokens": "YQ==", "pattern": PATTERN, "special_tokens": {}},
        *({"kind": "bpe", "tokens": BYTES, "pattern": pattern, "special_tokens": {}}
          for pattern in ("(", ".", "", "(a*)*b", "(?:x+x+)+y", None, [PATTERN], PATTERN + " ")),
        {"kind": "bpe", "tokens": BYTES, "pattern": PATTERN, "special_tokens": {"<end>": 7}},
        {"kind": "bpe", "tokens": BYTES, "pattern": PATTERN, "special_tokens": {"<end>": 256.0}},
        {"kind": "bpe", "tokens": BYTES, "pattern": PATTERN, "special_tokens": {"": 256}},
        {"kind": "bpe", "tokens": BYTES, "pattern": PATTERN, "special_tokens": []},
    ],
)  # fmt: skip
def test_a_broken_description_is_an_error(values):
    with pytest.raises(t.TokenizerError):
        t.from_dict(values)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_patterns_that_were_written_load(pattern):
    text = "It's 12 o'clock,  isn't  it?\n\n  Yes!  "
    loaded = t.from_dict({"kind": "bpe", "tokens": BYTES + " IDEy", "pattern": pattern, "special_tokens": {}})
    assert loaded.decode(loaded.encode(text)) == text
    assert t.from_dict(loaded.to_dict()).pattern == pattern
    with pytest.raises(t.TokenizerError, match=r"^pattern: from_dict accepts"):
        t.BPETokenizer([bytes([b]) for b in range(256)], ".").to_dict()


def test_start_ids():
    assert t.start_ids(t.CharTokenizer("ab\n")).tolist() == [2]
    assert t.start_ids(t.CharTokenizer("ab")).tolist() == [0]
