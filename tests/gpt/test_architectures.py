"""Test the options that make other families out of the GPT: rotary positions, RMSNorm, SwiGLU, shared keys, windows."""

import copy
import math

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import ConfigError, ModelConfig
from gpt.generation import next_logits
from gpt.model import GPT, KVCache, eval_mode, parameter_shapes, size
from gpt.model.rotary import RotaryTable, inverse_wavelengths, rotate

TINY = {"vocab_size": 23, "block_size": 12, "n_layer": 2, "n_head": 4, "n_embd": 16}
LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu"}
SCALED = {**LLAMA, "rope_factor": 3.0, "rope_original_context": 4, "rope_theta": 50.0}

OPTIONS = {
    "rope": {"position": "rope"},
    "rms": {"norm": "rms", "bias": True, "norm_eps": 1e-3},
    "relu2": {"mlp": "relu2", "n_inner": 20},
    "untied": {"tied": False},
    "shared keys": {"n_kv_head": 2, "bias": True},
    "one key head": {"n_kv_head": 1, "head_dim": 6},
    "qkv bias and norm": {"qkv_bias": True, "qk_norm": True, "position": "sinusoidal"},
    "window": {"sliding_window": 3},
    "late window": {"sliding_window": 3, "full_layers": 2, "n_layer": 3, "position": "rope"},
    "previous tokens": {"previous_tokens": 3, "zero_init": True, "tied": False},
    "previous tokens, turned": {"previous_tokens": 2, "position": "rope", "init_std": 0.5},
    "llama": {**LLAMA, "n_kv_head": 2},
    "linear": {**SCALED, "rope_scaling": "linear"},
    "dynamic": {**SCALED, "rope_scaling": "dynamic"},
    "yarn": {**SCALED, "rope_scaling": "yarn"},
    "llama3": {**SCALED, "rope_scaling": "llama3"},
}


def make(options, dtype=tl.float64):
    tl.manual_seed(3)
    model = GPT(ModelConfig(**{**TINY, **options})).to(dtype)
    rng = np.random.default_rng(1)
    for parameter in model.parameters():
        parameter.array[...] += rng.standard_normal(parameter.shape) / 4
    return model.eval()


def some_ids(*shape):
    return np.random.default_rng(2).integers(0, TINY["vocab_size"], shape)


def logits(model, length):
    with eval_mode(model):
        return model(tl.tensor(some_ids(1, length)))[0].numpy()


@pytest.fixture(params=OPTIONS.values(), ids=OPTIONS.keys())
def model(request):
    return make(request.param)


def test_shapes_and_counts_are_computed_without_a_model(model):
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == parameter_shapes(model.config)
    assert list(shapes) == list(parameter_shapes(model.config))
    assert size.parameter_count(model.config) == sum(size.parameters(model.config).values()) == model.num_params()


def test_cached_logits_are_those_of_the_whole_text(model):
    ids = some_ids(12)
    if model.config.rope_scaling == "dynamic":
        model = make({**OPTIONS["dynamic"], "n_layer": 1})  # Deeper keys depend on what earlier positions have read.
    with eval_mode(model):
        whole = [model(tl.tensor(ids[None, :n]))[0].numpy()[0, -1] for n in range(1, 13)]
        cache = KVCache(model)
        found = [next_logits(model, ids[:5], cache), next_logits(model, ids[5:7], cache)]
        found += [next_logits(model, [i], cache) for i in ids[7:]]
    for logits, expected in zip(found, [whole[4], whole[6], *whole[7:]], strict=True):
        np.testing.assert_allclose(logits, expected, atol=1e-10)


def test_padded_texts_have_the_logits_that_they_have_alone(model):
    texts = [some_ids(9), some_ids(4)[::-1], some_ids(1)]
    longest = max(map(len, texts))
    padding = [longest - len(text) for text in texts]
    padded = np.stack([np.pad(text, (n, 0)) for text, n in zip(texts, padding, strict=True)])
    following = some_ids(3, 2)
    # A text that is scaled by its length is scaled by that of the longest in its batch.
    if model.config.rope_scaling == "dynamic":
        pytest.skip("dynamic scaling depends on the length of the batch")
    with eval_mode(model):
        cache = KVCache(model, 3, padding)
        x = model.hidden_states(tl.tensor(padded), cache)
        first = model.head(x[:, -1]).numpy()
        later = model.head(model.hidden_states(tl.tensor(following), cache)).numpy()
        for row, text in enumerate(texts):
            np.testing.assert_allclose(first[row], next_logits(model, text), atol=1e-10)
            ids = np.concatenate([text, following[row]])
            expected = model(tl.tensor(ids[None]))[0].numpy()[0, -2:]
            np.testing.assert_allclose(later[row], expected, atol=1e-10)


def test_gradients(model):
    ids, rng, h = tl.tensor(some_ids(2, 6)), np.random.default_rng(5), 1e-6
    directions = {name: rng.standard_normal(p.shape) for name, p in model.named_parameters()}
    model(ids, ids)[1].backward()
    slope = sum((p.grad.numpy() * directions[name]).sum() for name, p in model.named_parameters())

    def loss(step):
        for name, p in model.named_parameters():
            p.array[...] += step * directions[name]
        return model(ids, ids)[1].item()

    upper = loss(h)
    lower = loss(-2 * h)
    assert slope == pytest.approx((upper - lower) / (2 * h), rel=1e-6)
    assert all(p.grad.numpy().any() for p in model.parameters())


# ---- previous tokens and first values -----------------------------------------------------------


def test_embeddings_of_previous_tokens_are_added():
    """Each position has the embeddings of the tokens before it, and those of a place before the text at its start."""
    model, ids, V = make({"previous_tokens": 3, "position": "rope"}), some_ids(2, 7), TINY["vocab_size"]
    tables = [model.wte.weight.numpy(force=True), *(table.weight.numpy(force=True) for table in model.previous)]
    expected = np.zeros((2, 7, TINY["n_embd"]))
    for row in range(2):
        for place in range(7):
            for distance, table in enumerate(tables):
                token = ids[row, place - distance] if place >= distance else V
                expected[row, place] += table[token]
    np.testing.assert_allclose(model.embed(tl.tensor(ids)).numpy(force=True), expected, atol=1e-14)


def test_the_gradient_of_a_previous_token_is_that_of_the_places_after_it():
    model, ids = make({"previous_tokens": 2, "position": "rope"}), np.array([[4, 4, 9]])
    weights = np.random.default_rng(4).standard_normal((1, 3, TINY["n_embd"]))
    (model.embed(tl.tensor(ids)) * tl.tensor(weights)).sum().backward()
    first, second = (table.weight.grad.numpy() for table in model.previous)
    np.testing.assert_allclose(first[4], weights[0, 1] + weights[0, 2], atol=1e-14)
    np.testing.assert_allclose(second[4], weights[0, 2], atol=1e-14)
    np.testing.assert_allclose(first[-1], weights[0, 0], atol=1e-14)
    np.testing.assert_allclose(second[-1], weights[0, 0] + weights[0, 1], atol=1e-14)
    assert not first[9].any()


def test_a_context_of_one_token_after_another():
    """A cache that is cut, and filled again with other tokens, forgets the tokens after the cut."""
    model, ids, other = make(OPTIONS["previous tokens"]), some_ids(9), some_ids(9)[::-1].copy()
    with eval_mode(model):
        cache = KVCache(model)
        next_logits(model, ids, cache)
        cache.length = 2
        found = next_logits(model, other[:3], cache)
        np.testing.assert_allclose(found, next_logits(model, [*ids[:2], *other[:3]]), atol=1e-10)


def test_first_values():
    config = ModelConfig(**{**TINY, "n_embd": 64, "tied": False, "previous_tokens": 1})
    tl.manual_seed(0)
    plain = {name: p.numpy(force=True).std() for name, p in GPT(config).named_parameters() if p.ndim == 2}
    assert min(plain.values()) > 0.008
    tl.manual_seed(0)
    model = GPT(ModelConfig(**{**vars(config), "zero_init": True, "init_std": 0.5}))
    for name, p in model.named_parameters():
        if name.endswith("c_proj.weight") or name == "lm_head.weight":
            assert not p.numpy(force=True).any()
        elif p.ndim == 2:
            assert p.numpy(force=True).std() == pytest.approx(0.5, rel=0.1)
    ids = tl.tensor(some_ids(2, 5))
    assert model(ids, ids)[1].item() == pytest.approx(math.log(TINY["vocab_size"]), abs=1e-6)


# ---- rotary positions ---------------------------------------------------------------------------


def test_rotation_is_a_product_of_complex_numbers():
    config = ModelConfig(**TINY, **LLAMA)
    D, x = 4, np.random.default_rng(0).standard_normal((2, 12, 4))
    table = RotaryTable(config)(12, tl.tensor(x))
    found = rotate(tl.tensor(x), *table).numpy()
    for p in (0, 1, 2, 11):
        for i in range(D // 2):
            turned = (x[:, p, i] + 1j * x[:, p, i + D // 2]) * np.exp(1j * p * 10000.0 ** (-2 * i / D))
            np.testing.assert_allclose(found[:, p, i] + 1j * found[:, p, i + D // 2], turned, atol=1e-12)


def test_products_depend_on_the_distance_alone():
    config = ModelConfig(**{**TINY, **LLAMA, "block_size": 3000})
    q, k = np.random.default_rng(0).standard_normal((2, 1, 4))
    cosines, sines = RotaryTable(config)(3000, tl.tensor(q))

    def product(i, j):
        return rotate(tl.tensor(q), cosines[i], sines[i]).numpy() @ rotate(tl.tensor(k), cosines[j], sines[j]).numpy().T

    np.testing.assert_allclose(product(7, 4), product(2903, 2900), atol=1e-11)
    assert abs(product(7, 4) - product(7, 5)) > 0.01


def test_the_table_grows_and_is_not_copied_into_the_parameters():
    model = make({**LLAMA, "block_size": 5000}, tl.float32)
    before = logits(model, 300)
    logits(model, 700)
    np.testing.assert_array_equal(logits(model, 300), before)
    twin = copy.deepcopy(model).double()
    np.testing.assert_allclose(logits(twin, 300), before, atol=1e-4)
    assert not any("rotary" in name for name in model.state_dict())


def frequencies(**options):
    return inverse_wavelengths(ModelConfig(**{**TINY, **LLAMA, "head_dim": 16, **options}), 0)


def test_scaled_frequencies():
    plain, factor = frequencies(rope_theta=100.0)
    np.testing.assert_allclose(plain, 100.0 ** (-np.arange(8) / 8))
    assert factor == 1.0
    scaled = {"rope_theta": 100.0, "rope_factor": 4.0, "rope_original_context": 40}
    np.testing.assert_allclose(frequencies(**scaled, rope_scaling="linear")[0], plain / 4)
    ratio = frequencies(**scaled, rope_scaling="llama3")[0] / plain
    wavelengths = 2 * math.pi / plain
    np.testing.assert_allclose(ratio[wavelengths < 10], 1)
    np.testing.assert_allclose(ratio[wavelengths > 40], 1 / 4)
    ratio, factor = frequencies(**scaled, rope_scaling="yarn")
    ratio = ratio / plain
    assert ratio[0] == 1
    np.testing.assert_allclose(ratio[-1], 1 / 4)
    assert (np.diff(ratio) <= 0).all()
    assert factor == 0.1 * math.log(4) + 1
    # The base of dynamic scaling grows with the length: the longest wavelength then fits the longer text.
    config = ModelConfig(**{**TINY, **LLAMA, "head_dim": 16, **scaled, "rope_scaling": "dynamic"})
    np.testing.assert_allclose(inverse_wavelengths(config, 40)[0], plain)
    np.testing.assert_allclose(inverse_wavelengths(config, 80)[0][-1], plain[-1] / (4 * 2 - 3))


def test_a_window_hides_what_is_before_it():
    model = make({"sliding_window": 3, "n_layer": 1})
    ids = some_ids(1, 8)
    changed = ids.copy()
    changed[0, 2] = (ids[0, 2] + 1) % TINY["vocab_size"]
    with eval_mode(model):
        difference = abs(model(tl.tensor(ids))[0].numpy() - model(tl.tensor(changed))[0].numpy()).max(-1)[0]
    assert (difference[[2, 3, 4]] > 1e-6).all()
    assert (difference[[0, 1, 5, 6, 7]] == 0).all()


def grown_cache(monkeypatch, options, ids):
    """Return a cache that had two places and got the ids one by one, after a comparison with the whole text."""
    monkeypatch.setattr("gpt.model.cache.FIRST_PLACES", 2)
    model = make(OPTIONS[options])
    with eval_mode(model):
        cache = KVCache(model)
        for i in ids[:-1]:
            next_logits(model, [i], cache)
        np.testing.assert_allclose(next_logits(model, ids[-1:], cache), next_logits(model, ids), atol=1e-10)
    return cache


def test_the_cache_grows(monkeypatch):
    assert grown_cache(monkeypatch, "llama", some_ids(12)).keys[0].shape == (1, 2, 12, 4)


def test_the_tokens_of_the_cache_grow(monkeypatch):
    ids = some_ids(12)
    cache = grown_cache(monkeypatch, "previous tokens", ids)
    np.testing.assert_array_equal(cache.tokens[0].numpy()[0, 0, :, 0], ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_kv_head": 3}, "model.n_head = 4 is not divisible by model.n_kv_head = 3"),
        ({"position": "rope", "head_dim": 5}, "a head is 5 wide, which is odd"),
        ({"rope_scaling": "yarn"}, "model.rope_scaling = 'yarn' has no effect with position = 'learned'. Leave it out"),
        ({**LLAMA, "rope_beta_fast": 2.0}, "has no effect with rope_scaling = 'none'. Leave it out, or .* to 'yarn'"),
        ({"previous_tokens": 12}, "model.previous_tokens = 12: must be below model.block_size = 12"),
        ({"full_layers": 1}, "has no effect with sliding_window = 0. Leave it out, or set sliding_window to 1 or more"),
        ({"full_layers": 3, "sliding_window": 2}, "model.full_layers = 3, and there are model.n_layer = 2"),
        ({**LLAMA, "rope_scaling": "yarn", "head_dim": 2}, "needs heads that are at least 4 wide, got 2"),
        ({**LLAMA, "rope_scaling": "llama3", "rope_low_freq_factor": 4.0}, "must be below rope_high_freq_factor"),
        ({"norm": "batch"}, "choose one of layer, rms"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        ModelConfig(**{**TINY, **options})
