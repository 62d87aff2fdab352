"""Test log-probabilities, perplexity and the loss of whole splits against their definitions."""

import math

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.data import Dataset
from gpt.evaluate import TokenError, evaluate, log_probs, mean_loss, perplexity
from gpt.model import GPT
from gpt.tokenizer import CharTokenizer

V, T = 11, 6


@pytest.fixture(scope="module")
def model():
    tl.manual_seed(3)
    model = GPT(ModelConfig(vocab_size=V, block_size=T, n_layer=1, n_head=2, n_embd=8, dropout=0.3)).to(tl.float64)
    for parameter in model.parameters():
        parameter.array *= 8
    return model


def ids(n, seed=0):
    return np.random.default_rng(seed).integers(0, V, n)


def log_prob(model, context, token):
    """Return ln p(token | context) from the definition."""
    model.eval()
    logits = model(tl.tensor(np.asarray(context)[None]))[0].detach().numpy()[0, -1]
    model.train()
    return logits[token] - math.log(np.exp(logits).sum())


@pytest.mark.parametrize("n", [2, T, T + 1, T + 2, 29])
@pytest.mark.parametrize("stride", [None, 1, 2, T])
def test_log_probs_of_any_length(model, n, stride):
    text = ids(n)
    result = log_probs(model, text, stride)
    assert result.shape == (n - 1,)
    step = T // 2 if stride is None else stride
    for i in range(1, n):
        # The window that scores token i ends at the first of T, T + step, T + 2 step, ... that reaches it.
        end = min(max(T, T + math.ceil((i - T) / step) * step), n - 1)
        start = max(0, end - T)
        assert i - start >= min(i, T - step + 1)
        assert abs(result[i - 1] - log_prob(model, text[start:i], text[i])) < 1e-12


def test_stride_one_uses_the_whole_context(model):
    text = ids(20)
    expected = [log_prob(model, text[max(0, i - T) : i], text[i]) for i in range(1, 20)]
    np.testing.assert_allclose(log_probs(model, text, stride=1), expected, rtol=0, atol=1e-12)


def test_perplexity(model):
    text = ids(20)
    assert perplexity(model, text) == pytest.approx(math.exp(-log_probs(model, text).mean()), rel=1e-15)


def test_perplexity_of_uniform_predictions():
    model = GPT(ModelConfig(vocab_size=V, block_size=T, n_layer=1, n_head=1, n_embd=4)).to(tl.float64)
    model.wte.weight.array[:] = 0
    assert perplexity(model, ids(20)) == pytest.approx(V, rel=1e-12)


def test_probabilities_of_all_continuations_add_up_to_one(model):
    total = sum(math.exp(log_probs(model, [3, 1, a]).sum() - log_probs(model, [3, 1]).sum()) for a in range(V))
    assert total == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("n", [T + 1, 2 * T, 2 * T + 1, 95])
def test_evaluate_counts_every_target_once(model, n):
    tokens = ids(n).astype(np.uint8)
    dataset = Dataset(CharTokenizer("abcdefghijk"), tokens[: T + 1], tokens, {"train": T + 1, "val": n})
    expected = [log_prob(model, tokens[(i - 1) // T * T : i].astype(np.int64), tokens[i]) for i in range(1, n)]
    assert evaluate(model, dataset, "val") == pytest.approx(-sum(expected) / (n - 1), abs=1e-12)


def test_mean_loss_weighs_tokens_not_batches(model):
    x, y = ids(8).reshape(2, 4), ids(8, 1).reshape(2, 4)
    whole = mean_loss(model, [(x, y)])
    parts = mean_loss(model, [(x[:, :3], y[:, :3]), (x, y)])
    first = mean_loss(model, [(x[:, :3], y[:, :3])])
    assert parts == pytest.approx((6 * first + 8 * whole) / 14, abs=1e-12)


def test_the_mode_of_the_model_is_restored(model):
    model.train()
    log_probs(model, ids(9))
    assert model.training
    assert tl.is_grad_enabled()


def test_invalid_arguments_are_errors(model):
    with pytest.raises(TokenError, match="at least 2 tokens, got 1"):
        log_probs(model, [1])
    with pytest.raises(TokenError, match=f"token id {V} at position 2 is outside the vocabulary of {V} tokens"):
        log_probs(model, [1, 2, V])
    with pytest.raises(ValueError, match=f"expected stride from 1 to block_size = {T}, got {T + 1}"):
        log_probs(model, [1, 2], stride=T + 1)
    with pytest.raises(ValueError, match=f"expected stride from 1 to block_size = {T}, got 1.5"):
        log_probs(model, [1, 2], stride=1.5)
