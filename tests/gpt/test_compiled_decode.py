"""Test that the compiled decoder computes the forward pass of the model."""

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.generation import SampleError, SamplingConfig, generate, next_logits
from gpt.model import GPT, MLP, Block, CausalSelfAttention, KVCache, eval_mode
from tensorlite.backends.cpu import thread_pool

decoder = pytest.importorskip("gpt.model.compiled_decode", exc_type=ImportError)
CompiledDecoder = decoder.CompiledDecoder


def made(**options):
    """Return a small model with logits that are far from equal."""
    shape = {"vocab_size": 31, "block_size": 12, "n_layer": 2, "n_head": 3, "n_embd": 24, "dropout": 0.2}
    tl.manual_seed(5)
    model = GPT(ModelConfig(**shape | options))
    for parameter in model.parameters():
        parameter.array *= 6
        if parameter.ndim == 1:
            parameter.array += np.random.default_rng(1).standard_normal(parameter.shape).astype(np.float32) / 4
    return model


def plain(model, ids):
    """Return the logits after all of ids, by the forward pass of the model."""
    with eval_mode(model):
        return model(tl.tensor(np.asarray(ids)[None]))[0].numpy()[0, -1]


def agree(found, expected):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1.0, abs(expected).max()))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("options", [
    {}, {"bias": True}, {"gelu": "tanh"}, {"position": "sinusoidal"}, {"n_head": 1, "n_layer": 1},
    {"n_embd": 192, "n_head": 6, "block_size": 400, "bias": True, "n_layer": 1},  # large enough for several threads
], ids=str)  # fmt: skip
def test_logits_agree_with_the_model(options, count, monkeypatch):
    monkeypatch.setattr(thread_pool, "_num_threads", count)
    monkeypatch.setattr(thread_pool, "_pool", None)
    monkeypatch.setattr(decoder, "LARGE", 0)
    model = made(**options)
    size, V = model.config.block_size, model.config.vocab_size
    ids = np.random.default_rng(0).integers(0, V, size)
    cache = KVCache(model)
    reader = CompiledDecoder.for_model(model, cache)
    checked = range(size) if size < 20 else (0, 1, 100, size - 1)
    for i, token in enumerate(ids.tolist()):
        found = reader.next_logits(token)
        assert cache.length == i + 1
        if i in checked:
            agree(found, plain(model, ids[: i + 1]))


def test_decoder_and_model_share_a_cache():
    model = made()
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    cache = KVCache(model)
    reader = CompiledDecoder.for_model(model, cache)
    with eval_mode(model):
        next_logits(model, ids[:3], cache)
        reader.next_logits(ids[3])
        agree(next_logits(model, ids[4:6], cache).astype(np.float32), plain(model, ids[:6]))
        reader.next_logits(ids[6])
        agree(reader.next_logits(ids[7]), plain(model, ids))
        cache.length = 2  # Forget the others.
        agree(reader.next_logits(7), plain(model, [*ids[:2], 7]))


def test_there_is_no_decoder_for_other_models():
    model = made()
    assert CompiledDecoder.for_model(model, KVCache(model)) is not None
    assert CompiledDecoder.for_model(model, KVCache(model, batch_size=2)) is None

    class OtherMLP(MLP):
        pass

    other = made()
    other.h[1].mlp = OtherMLP(other.config)
    assert CompiledDecoder.for_model(other, KVCache(other)) is None
    wide = made().to(tl.float64)
    assert CompiledDecoder.for_model(wide, KVCache(wide)) is None
    turned = made()
    turned.h[0].mlp.c_fc.weight.array = np.asfortranarray(turned.h[0].mlp.c_fc.weight.array)
    assert CompiledDecoder.for_model(turned, KVCache(turned)) is None


def wider_mlp(model):
    for b in model.h:
        b.mlp.c_fc, b.mlp.c_proj = tl.nn.Linear(24, 128), tl.nn.Linear(128, 24)


def fewer_layers(model):
    model.h = tl.nn.ModuleList(list(model.h)[:1])


def other_eps(model):
    model.h[1].ln_1.eps = 0.5


def other_gelu(model):
    model.h[0].mlp.approximate = "tanh"


def no_gains(model):
    model.h[0].ln_2 = tl.nn.LayerNorm(24, elementwise_affine=False)


def no_norm(model):
    model.h[0].ln_2 = tl.nn.Dropout(0.0)


def replaced_forward(model):
    mlp = model.h[0].mlp
    mlp.forward = lambda x: MLP.forward(mlp, x) * 0


def read_only(model):
    model.wte.weight.array.flags.writeable = False


def hook_on_a_layer(model):
    model.h[1].mlp.register_forward_hook(lambda module, args, output: output * 0)


@pytest.mark.parametrize("change", [
    hook_on_a_layer, wider_mlp, fewer_layers, other_eps, other_gelu, no_gains, no_norm, replaced_forward, read_only,
])  # fmt: skip
def test_a_changed_model_is_not_decoded(change, monkeypatch):
    model = made()
    change(model)
    fast, slow, count = texts(model, monkeypatch, temperature=0)
    assert fast == slow
    assert count == (1 if change is replaced_forward else 0)


@pytest.mark.parametrize("layer", [MLP, CausalSelfAttention, Block, GPT])
def test_an_edited_layer_falls_back_to_the_model(layer, monkeypatch):
    """The decoder computes the unmodified layer; comparing its first token with the model detects that."""
    name = "hidden_states" if layer is GPT else "forward"
    before = getattr(layer, name)
    monkeypatch.setattr(layer, name, lambda self, x, *args: before(self, x, *args) * 1.5)
    fast, slow, count = texts(made(), monkeypatch, temperature=0)
    assert (fast, count) == (slow, 1)


def test_weights_changed_in_place_are_used():
    model = made()
    reader = CompiledDecoder.for_model(model, KVCache(model))
    with tl.no_grad():
        model.wte.weight.mul_(-0.5)
    assert reader.is_current()
    agree(reader.next_logits(3), plain(model, [3]))


def texts(model, monkeypatch, **options):
    """Return a text that the decoder read, the same text without it, and how many tokens the decoder read."""
    read = []
    next_of = CompiledDecoder.next_logits
    monkeypatch.setattr(CompiledDecoder, "next_logits", lambda self, token: read.append(token) or next_of(self, token))
    fast = list(generate(model, [3, 1], 40, SamplingConfig(**options)))
    count = len(read)
    monkeypatch.setattr(CompiledDecoder, "for_model", lambda model, cache: None)
    slow = list(generate(model, [3, 1], 40, SamplingConfig(**options)))
    assert len(read) == count
    return fast, slow, count


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 3}, {"seed": 4, "top_k": 5, "temperature": 0.7}])
def test_generate_gives_the_same_text_with_the_decoder(options, monkeypatch):
    fast, slow, count = texts(made(), monkeypatch, **options)
    assert fast == slow
    assert count == 35  # Of 40 tokens one is read twice; the prompt and each restart from half a context use the model.


def test_an_array_replaced_between_tokens_is_noticed(monkeypatch):
    model = made()
    text = generate(model, [3, 1], 8, SamplingConfig(temperature=0))
    next(text), next(text)
    weight = model.h[0].mlp.c_fc.weight
    weight.array = np.asfortranarray(weight.array)  # The same numbers, in an order that the decoder cannot read.
    rest = list(text)
    weight.array = np.ascontiguousarray(weight.array)
    assert rest == list(generate(model, [3, 1], 8, SamplingConfig(temperature=0)))[2:]


def test_a_full_cache_and_an_invalid_token_are_errors():
    model = made()
    cache = KVCache(model)
    reader = CompiledDecoder.for_model(model, cache)
    for token in (-1, 31, 10**9):
        with pytest.raises(IndexError, match=f"token {token} is not in the vocabulary of 31"):
            reader.next_logits(token)
    assert cache.length == 0
    cache.length = 12
    with pytest.raises(ValueError, match="the cache holds 12 of block_size = 12 positions"):
        reader.next_logits(1)


def test_broken_weights_are_reported():
    model = made()
    model.h[1].ln_2.weight.array[3] = np.nan
    with pytest.raises(SampleError, match="logits of the model are not finite"):
        list(generate(model, [1], 3))
