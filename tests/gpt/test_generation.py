"""Test generation: the tokens, the distribution that they are sampled from, and errors."""

import itertools
import math

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import ConfigError, ModelConfig
from gpt.generation import Engine, SampleError, SamplingConfig, generate, next_logits, sample_token
from gpt.model import GPT, KVCache, eval_mode
from gpt.tokenizer import TokenError

V, T = 11, 6


@pytest.fixture(scope="module")
def model():
    tl.manual_seed(3)
    model = GPT(ModelConfig(vocab_size=V, block_size=T, n_layer=1, n_head=2, n_embd=8, dropout=0.3)).to(tl.float64)
    for parameter in model.parameters():  # Make the predictions far from uniform.
        parameter.array *= 8
    return model


def last_logits(model, context):
    """Return the logits after the last T tokens of `context`, by forward() without a cache."""
    model.eval()
    logits = model(tl.tensor(np.asarray(context)[None, -T:]))[0].detach().numpy()[0, -1]
    model.train()
    return logits


def test_a_seed_determines_the_text(model):
    one = list(generate(model, [1, 2], 40, SamplingConfig(seed=7)))
    assert one == list(generate(model, [1, 2], 40, SamplingConfig(seed=7)))
    assert one != list(generate(model, [1, 2], 40, SamplingConfig(seed=8)))
    assert len(one) == 40
    assert set(one) <= set(range(V))
    assert all(type(token) is int for token in one)


def test_without_a_seed_texts_differ(model):
    assert len({tuple(generate(model, [1], 30)) for _ in range(4)}) > 1


def test_tokens_come_one_at_a_time_without_a_limit(model):
    stream = generate(model, [1], sampling=SamplingConfig(seed=0))
    first = list(itertools.islice(stream, 3 * T))
    assert [*first, next(stream)] == list(generate(model, [1], 3 * T + 1, SamplingConfig(seed=0)))


def generate_without_cache(model, prompt, count, sampling, restart=True):
    """Return what generate() yields, computed without a cache.

    restart: start again from half a context when it is full, as generate() does; otherwise slide the window.
    """
    rng = np.random.default_rng(sampling.seed)
    text, size = list(prompt), model.config.block_size
    start = max(0, len(text) - size)
    for _ in range(count):
        if len(text) - start > size:
            start = len(text) - (max(1, size // 2) if restart else size)
        assert 1 <= len(text) - start <= size
        model.eval()
        logits = model(tl.tensor(np.asarray(text)[None, start:]))[0].detach().numpy()[0, -1]
        model.train()
        text.append(sample_token(logits, sampling, rng))
    return text[len(prompt) :]


OPTIONS = [{"temperature": 0}, {"temperature": 1.0}, {"temperature": 0.7, "top_k": 4}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("length", [1, 2, T - 1, T, T + 3])
def test_the_text_equals_the_one_without_a_cache(model, options, length):
    """Compare inside the context and beyond it, where the model starts again from the last half of a context."""
    for seed in range(5):
        prompt = np.random.default_rng(seed).integers(0, V, length).tolist()
        text = list(generate(model, prompt, 4 * T, SamplingConfig(seed=seed, **options)))
        assert text == generate_without_cache(model, prompt, 4 * T, SamplingConfig(seed=seed, **options))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_whole_context_is_used_until_it_is_full(model, options):
    """A sliding window gives the same text up to the token after block_size tokens, and a different one later."""
    others = 0
    for seed in range(20):
        prompt = np.random.default_rng(seed).integers(0, V, 2).tolist()
        text = list(generate(model, prompt, 4 * T, SamplingConfig(seed=seed, **options)))
        slid = generate_without_cache(model, prompt, 4 * T, SamplingConfig(seed=seed, **options), restart=False)
        assert text[: T - 1] == slid[: T - 1]
        others += text != slid
    assert others


@pytest.mark.parametrize("block_size", [1, 2, 3])
@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_the_smallest_contexts(block_size, position):
    tl.manual_seed(1)
    config = ModelConfig(vocab_size=V, block_size=block_size, n_layer=2, n_head=2, n_embd=8, position=position)
    model = GPT(config).to(tl.float64)
    for parameter in model.parameters():
        parameter.array *= 8
    for prompt in ([4], [4, 2, 9]):
        sampling = SamplingConfig(seed=5)
        assert list(generate(model, prompt, 12, sampling)) == generate_without_cache(model, prompt, 12, sampling)


def test_each_token_is_read_once(model, monkeypatch):
    """The prompt is read in one pass, each token in its own pass, and half a context when it is full."""
    sizes, features = [], GPT.hidden_states

    def counted(self, idx, cache):
        sizes.append(idx.shape[1])
        return features(self, idx, cache)

    monkeypatch.setattr(GPT, "hidden_states", counted)
    assert len(list(generate(model, [1, 2, 3], 10, SamplingConfig(seed=0)))) == 10
    assert sizes == [3, 1, 1, 1, T // 2, 1, 1, 1, T // 2, 1]


def test_top_k_of_one_is_greedy(model):
    greedy = list(generate(model, [1], 20, SamplingConfig(temperature=0)))
    assert list(generate(model, [1], 20, SamplingConfig(top_k=1, seed=1))) == greedy
    assert list(generate(model, [1], 20, SamplingConfig(temperature=1e-300, seed=1))) == greedy


def test_next_logits_belong_to_the_last_position(model):
    expected = last_logits(model, [3, 1, 4])
    cache = KVCache(model)
    with eval_mode(model):
        np.testing.assert_allclose(next_logits(model, np.array([3, 1, 4])), expected, rtol=0, atol=1e-12)
        next_logits(model, [3, 1], cache)
        np.testing.assert_allclose(next_logits(model, [4], cache), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [None, 3, 50])
def test_samples_follow_the_distribution(temperature, top_k):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, V)
    p = np.exp(logits / temperature)
    if top_k == 3:
        p[np.argsort(logits)[:-3]] = 0
    p /= p.sum()
    n, sampling = 20_000, SamplingConfig(temperature=temperature, top_k=top_k)
    counts = np.bincount([sample_token(logits, sampling, rng) for _ in range(n)], minlength=V)
    assert (counts[p == 0] == 0).all()
    assert (np.abs(counts - n * p) <= 5 * np.sqrt(n * p * (1 - p)) + 1e-9).all()


def test_top_k_prefers_lower_ids_among_equal_logits():
    logits = np.zeros(V)
    rng = np.random.default_rng(0)
    assert {sample_token(logits, SamplingConfig(top_k=3), rng) for _ in range(200)} == {0, 1, 2}
    assert sample_token(logits, SamplingConfig(temperature=0), rng) == 0


def test_a_stop_token_ends_the_text_and_is_left_out(model):
    text = list(generate(model, [1], 40, SamplingConfig(seed=7)))
    stop = text[10]
    assert list(generate(model, [1], 40, SamplingConfig(seed=7), stop_tokens=[stop, 99])) == text[: text.index(stop)]


def test_the_modes_of_the_caller_are_restored_between_tokens(model):
    model.train()
    assert tl.is_grad_enabled()
    stream = generate(model, [1], 5, SamplingConfig(temperature=0))
    first = next(stream)
    assert model.training
    assert model.h[0].attn.training
    assert tl.is_grad_enabled()
    assert first == last_logits(model, [1]).argmax()
    model.eval()
    next(stream)
    assert not model.training
    model.train()


def test_zero_tokens(model):
    assert list(generate(model, [1], 0)) == []


@pytest.mark.parametrize(
    ("ids", "options", "error", "message"),
    [
        ([], {}, TokenError, "at least one token; gpt.tokenizer.start_ids"),
        ([1, V], {}, TokenError, f"token id {V} at position 1 is outside the vocabulary of {V} tokens"),
        ([-1], {}, TokenError, "token id -1 at position 0"),
        ([1], {"max_new_tokens": -1}, ValueError, "expected max_new_tokens >= 0, or None for no limit, got -1"),
        ([1], {"max_new_tokens": 2.5}, ValueError, "expected max_new_tokens >= 0, or None for no limit, got 2.5"),
        ("text", {}, TokenError, "got the text 'text'. Encode it: tokenizer.encode(text)"),
        (0.7, {}, TokenError, "expected token ids, which are integers, got 0.7"),
        ([0.7], {}, TokenError, "expected token ids, which are integers, got [0.7]"),
        (np.ones(2), {}, TokenError, "(float64)"),
        ([1, True], {}, TokenError, "got the boolean in [1, True]"),
        (None, {}, TokenError, "expected token ids, which are integers, got None"),
        ([[1, 2], [3, 4]], {}, TokenError, "ids of one sequence, (T,), got the shape (2, 2)"),
        ([2**70], {}, TokenError, "is outside every vocabulary"),
        (np.ma.array([1, 2], mask=[0, 1]), {}, TokenError, "an array with a mask"),
        (tl.tensor([0.7]), {}, TokenError, "(float32)"),
        ([1], {"stop_tokens": "x"}, TokenError, "stop_tokens: expected token ids"),
        ([1], {"stop_tokens": [0.7]}, TokenError, "stop_tokens: expected token ids"),
        ([1], {"stop_tokens": 5}, TokenError, "stop_tokens: expected token ids, which are integers, got 5"),
        ([1], {"sampling": 0.8}, TypeError, "expected a SamplingConfig, got 0.8. Write"),
    ],
)
def test_bad_arguments_are_refused_at_once(model, ids, options, error, message):
    with pytest.raises(error) as caught:
        generate(model, ids, **options)
    assert message in str(caught.value)


def test_ids_of_every_integer_kind_are_the_same_prompt(model):
    same = [[1, 2], (1, 2), range(1, 3), np.array([1, 2], np.uint8), tl.tensor([1, 2]), [[1, 2]], [np.int64(1), 2]]
    assert len({tuple(generate(model, ids, 3, SamplingConfig(seed=0))) for ids in same}) == 1


def test_an_engine_reads_integers_only(model):
    engine = Engine(model)
    for ids in ("text", [0.7], [V]):
        with pytest.raises(TokenError):
            engine.prefill(ids)
    engine.prefill([1])
    for token in (0.7, True, V, -1):
        with pytest.raises(TokenError):
            engine.step(token)
    assert engine.step(np.int64(1)).shape == (V,)


def test_a_model_is_no_path():
    with pytest.raises(TypeError, match=r"expected a GPT as the model, got 'runs/x'. Load one: gpt.checkpoint.load"):
        generate("runs/x", [1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "sampling.temperature = -0.1: must be >= 0"),
        ({"temperature": math.nan}, "sampling.temperature = nan: expected a finite number"),
        ({"temperature": math.inf}, "sampling.temperature = inf: expected a finite number"),
        ({"top_k": 0}, "sampling.top_k = 0: must be >= 1"),
        ({"top_k": 1.5}, "sampling.top_k = 1.5: expected int, got float"),
        ({"seed": -1}, "sampling.seed = -1: must be >= 0"),
    ],
)
def test_bad_sampling_options_are_refused(options, message):
    with pytest.raises(ConfigError) as caught:
        SamplingConfig(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_not_finite_are_an_error(bad, temperature):
    with pytest.raises(SampleError, match="not finite"):
        sample_token(np.array([0.0, bad]), SamplingConfig(temperature=temperature), np.random.default_rng(0))
