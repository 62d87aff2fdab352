"""Test the n-gram model of the examples against counts of its definition."""

import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

NGram = runpy.run_path(str(Path(__file__).resolve().parents[2] / "examples" / "ngrams.py"))["NGram"]
V = 4
IDS = np.random.default_rng(0).choice(V - 1, p=[0.6, 0.3, 0.1], size=60)  # The last token does not occur.


def by_definition(context: list[int], token: int) -> float:
    """Return the probability of a token after a context, from the definition and by counting."""
    shorter = by_definition(context[1:], token) if context else 1 / V
    n = len(context) + 1
    followers = Counter(int(IDS[i + n - 1]) for i in range(len(IDS) - n + 1) if IDS[i : i + n - 1].tolist() == context)
    if not followers:
        return shorter
    return (followers[token] + len(followers) * shorter) / (followers.total() + len(followers))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_probabilities_are_those_of_the_definition(n):
    model = NGram(IDS, n, V)
    text = np.random.default_rng(1).integers(0, V, size=50)  # It has contexts that the counted text does not have.
    expected = [by_definition(text[max(0, i - n + 1) : i].tolist(), int(text[i])) for i in range(len(text))]
    np.testing.assert_allclose(model.log_probs(text), np.log(expected[1:]), rtol=1e-12)
    given = [model.probs(text[:i])[text[i]] for i in range(len(text))]
    np.testing.assert_allclose(given, expected, rtol=1e-12)


def test_probabilities_sum_to_1():
    model = NGram(IDS, 4, V)
    for context in ([], [0], [0, 0, 0], [3, 3, 3], [1, 0, 2, 1, 0]):
        assert model.probs(np.array(context, np.int64)).sum() == pytest.approx(1, abs=1e-12)


def test_generated_tokens_follow_the_counts():
    cycle = np.tile([0, 1, 2], 200)
    model = NGram(cycle, 3, V)
    assert model.generate(np.array([0, 1]), 6, np.random.default_rng(0), temperature=0.2) == [2, 0, 1, 2, 0, 1]
    unigrams = NGram(np.array([0, 0, 0, 1]), 1, 2)
    tokens = unigrams.generate(np.array([], np.int64), 2000, np.random.default_rng(0))
    assert np.mean(tokens) == pytest.approx(unigrams.probs(np.array([], np.int64))[1], abs=0.03)


def test_a_vocabulary_that_is_too_large():
    with pytest.raises(ValueError, match=r"NGram: expected vocab_size\^n below 2\^63, got 50257\^5"):
        NGram(IDS, 5, 50257)
