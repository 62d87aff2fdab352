"""Test that long runs without spaces are encoded in parts, with the same ids."""

import random

import numpy as np
import pytest

pytest.importorskip("tiktoken")
pytest.importorskip("tokenizers")

from gpt.tokenizer import BPETokenizer, long_runs

RUNS = ("ACGT", "ab", "a", "abcdefghij", " ", "  \n", " \t")


@pytest.fixture(scope="module")
def vocabularies():
    """Return tokenizers that have learned from runs, so that their tokens cross every cut."""
    rng = random.Random(0)
    texts = ["".join(rng.choices(letters, k=2000)) + letters[:2] * 300 for letters in RUNS]
    return [BPETokenizer.train(text, size) for text in texts for size in (270, 500)]


def test_the_parts_of_a_run_have_the_ids_of_the_whole(vocabularies):
    rng = random.Random(1)
    joined = 0
    for tokenizer in vocabularies:
        for _ in range(25):
            letters, length = rng.choice(RUNS), rng.randint(300, 1500)
            run = "".join(rng.choices(letters, k=length)) if rng.random() < 0.7 else (letters[:3] * length)[:length]
            text = rng.choice(["", " ", "x 12 "]) + run + rng.choice(["", " ", "1", " y", "yy z"])
            places = long_runs.cut_places(text, rng.choice([100, 150, 257]), 80)
            if not places:
                continue
            ids = long_runs.encode_parts(text, places, tokenizer.encode, tokenizer.decode_bytes, 80)
            if ids is not None:
                joined += 1
                assert ids.tolist() == tokenizer.encode(text).tolist(), text
    assert joined > 150


@pytest.mark.parametrize("run", ["ACGGT", " ", "\n", "abcdefghijklmnopqrstuvwxyzQ"])
def test_no_long_word_reaches_the_library(run, monkeypatch, vocabularies):
    """The time of the library grows faster than a word, so four times the text means four times the words."""
    rng = random.Random(2)
    text = "A word, then " + "".join(rng.choices(run, k=150_000)) + " and 12 more."
    whole = BPETokenizer._encode_word
    longest = []

    def counted(self, part):
        longest.append(len(part))
        return whole(self, part)

    monkeypatch.setattr(BPETokenizer, "_encode_word", counted)
    for tokenizer in vocabularies[:4] + vocabularies[-4:]:
        expected = whole(tokenizer, text)
        longest.clear()
        ids = tokenizer.encode(text)
        assert np.array_equal(ids, expected)
        assert max(longest) <= 2 * long_runs.PART
        assert tokenizer.decode(ids) == text


def test_only_runs_are_cut():
    words = "the quick brown fox " * 5000
    assert long_runs.cut_places(words) == []
    assert long_runs.cut_places("é" * 50_000) == []
    assert long_runs.cut_places("a1" * 50_000) == []
    assert long_runs.cut_places("a" * 50_000) == [2**14, 2**15]
