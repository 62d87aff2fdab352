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


def kneser_ney(context: list[int], token: int, n: int, discounts: dict[int, list[float]]) -> float:
    """Return the same with Kneser-Ney smoothing. discounts: for each length of n-grams, those of counts 0, 1, 2, 3."""
    shorter = kneser_ney(context[1:], token, n, discounts) if context else 1 / V
    counts = kneser_ney_counts(len(context) + 1, n)
    after = {w: counts[(*context, w)] for w in range(V)}
    if not any(after.values()):
        return shorter
    subtracted = {w: discounts[len(context) + 1][min(3, count)] for w, count in after.items()}
    return (after[token] - subtracted[token] + sum(subtracted.values()) * shorter) / sum(after.values())


def kneser_ney_counts(length: int, n: int) -> Counter[tuple[int, ...]]:
    """Return how often the longest n-grams occur, or the number of different tokens before shorter ones."""
    longer = [tuple(IDS[i : i + length + 1].tolist()) for i in range(len(IDS) - length)]
    if length < n:
        return Counter(ngram[1:] for ngram in set(longer))
    return Counter(tuple(IDS[i : i + length].tolist()) for i in range(len(IDS) - length + 1))


def discounts_of(counts: Counter[tuple[int, ...]]) -> list[float]:
    times = Counter(counts.values())
    n1, n2, n3, n4 = (max(1, times[c]) for c in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    estimates = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    return [0.0, *(min(max(d, 0.1), i) for i, d in enumerate(estimates, 1))]


@pytest.mark.parametrize("smoothing", ["witten-bell", "kneser-ney"])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_probabilities_are_those_of_the_definition(n, smoothing):
    model = NGram(IDS, n, V, smoothing)
    text = np.random.default_rng(1).integers(0, V, size=50)  # It has contexts that the counted text does not have.
    discounts = {length: discounts_of(kneser_ney_counts(length, n)) for length in range(1, n + 1)}
    expected = []
    for i in range(len(text)):
        context, token = text[max(0, i - n + 1) : i].tolist(), int(text[i])
        expected.append(
            by_definition(context, token) if smoothing == "witten-bell" else kneser_ney(context, token, n, discounts)
        )
    np.testing.assert_allclose(model.log_probs(text), np.log(expected[1:]), rtol=1e-12)
    given = [model.probs(text[:i])[text[i]] for i in range(len(text))]
    np.testing.assert_allclose(given, expected, rtol=1e-12)


@pytest.mark.parametrize("smoothing", ["witten-bell", "kneser-ney"])
def test_probabilities_sum_to_1(smoothing):
    model = NGram(IDS, 4, V, smoothing)
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


def test_an_unknown_smoothing():
    with pytest.raises(ValueError, match="NGram: expected smoothing 'witten-bell' or 'kneser-ney', got 'none'"):
        NGram(IDS, 2, V, "none")


def test_the_size_counts_n_grams_of_all_lengths():
    assert NGram(np.array([0, 1, 0, 1, 2]), 2, 3).size == 3 + 3  # 0, 1, 2 and 01, 10, 12
