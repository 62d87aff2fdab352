"""Test that the compiled reader computes the forward pass of the model."""

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.generation import Engine, SampleError, SamplingConfig, generate, generate_batch
from gpt.generation.batch_engine import BatchEngine
from gpt.generation.reader import Reader
from gpt.model import GPT, MLP, Block, CausalSelfAttention, KVCache, eval_mode
from gpt.model.quantized import quantize_model
from tensorlite.backends.cpu import blas, thread_pool

module = pytest.importorskip("gpt.model.compiled_reader", exc_type=ImportError)
CompiledReader = module.CompiledReader

LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu", "n_inner": 40}
FAMILIES = [
    {}, {"bias": True, "gelu": "tanh"}, {"position": "sinusoidal", "mlp": "relu2"}, {"n_head": 1, "n_layer": 1},
    {"position": "rope", "bias": True, "tied": False},
    LLAMA, {**LLAMA, "n_head": 4, "n_kv_head": 2, "qk_norm": True, "head_dim": 10}, {**LLAMA, "qkv_bias": True},
    {**LLAMA, "sliding_window": 5}, {**LLAMA, "sliding_window": 5, "full_layers": 1, "n_kv_head": 1},
    {**LLAMA, "rope_scaling": "yarn", "rope_factor": 4.0, "rope_original_context": 32},
    {"n_embd": 192, "n_head": 2, "bias": True, "n_layer": 1},
    {"position": "rope", "previous_tokens": 2, "tied": False, "norm": "rms", "mlp": "relu2", "qk_norm": True},
]  # fmt: skip


def made(factor=6, **options):
    """Return a small model with logits that are far from equal. A larger factor of the weights amplifies rounding."""
    shape = {"vocab_size": 31, "block_size": 12, "n_layer": 2, "n_head": 3, "n_embd": 24, "dropout": 0.2}
    tl.manual_seed(5)
    model = GPT(ModelConfig(**shape | options))
    for parameter in model.parameters():
        parameter.array *= factor
        if parameter.ndim == 1:
            parameter.array += np.random.default_rng(1).standard_normal(parameter.shape).astype(np.float32) / 4
    return model


def plain(model, ids, cache=None):
    """Return the logits (B, T, V) after each of ids, (B, T), by the forward pass of the model."""
    with eval_mode(model):
        return model.head(model.hidden_states(tl.tensor(np.asarray(ids)), cache)).numpy()


def agree(found, expected):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1.0, abs(expected).max()))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("options", FAMILIES, ids=str)
def test_logits_agree_with_the_model(options, threads, monkeypatch):
    """Read texts in parts of many lengths, alone and three at once, two of which begin with padding."""
    monkeypatch.setattr(thread_pool, "_num_threads", threads)
    monkeypatch.setattr(thread_pool, "_pool", None)
    monkeypatch.setattr(module, "LARGE", 0)
    model = made(factor=3, **{"block_size": 200} | options)
    rng = np.random.default_rng(0)
    for padding in (None, [0, 3, 7]):
        B = 1 if padding is None else 3
        cache, theirs = KVCache(model, B, padding), KVCache(model, B, padding)
        reader = CompiledReader.for_model(model, cache)
        for T in (9, 1, 1, 4, 70, 2, 12, 100):
            ids = rng.integers(0, 31, (B, T))
            count = 1 if T == 9 else T  # What the model says of padding means nothing.
            found = reader.logits(ids, count)
            agree(found, plain(model, ids, theirs)[:, -count:])
            assert cache.length == theirs.length


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q4_1"])
@pytest.mark.parametrize("options", [{"bias": True}, {**LLAMA, "n_kv_head": 1, "tied": False}], ids=["gpt2", "llama"])
def test_logits_of_quantized_models_agree(kind, options):
    """A row of a text is read alone, so that a last bit does not decide how an activation is rounded."""
    model = quantize_model(made(**{"block_size": 40} | options), kind)
    cache = KVCache(model)
    reader = CompiledReader.for_model(model, cache)
    for token in range(0, 31, 3):
        cache.length = 0
        agree(reader.logits(np.array([[token]])), plain(model, [[token]]))
    cache.length = 0
    ids = np.random.default_rng(0).integers(0, 31, (1, 33))
    found, expected = reader.logits(ids, 33), plain(model, ids)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("T", [1, 5])
def test_the_comparison_with_the_model_leaves_the_cache_as_it_was(T):
    """Otherwise the first text of a quantized model, which is compared, is another one than the second."""
    model = made(n_head=4, n_embd=32)
    quantize_model(model, "int4")
    ids, alone, compared = np.array([[3, 1, 4, 1, 5]])[:, :T], KVCache(model), KVCache(model)
    CompiledReader.for_model(model, alone).logits(ids)
    Reader(model).logits(ids, compared)
    assert compared.length == T
    for a, b in zip((*alone.keys, *alone.values), (*compared.keys, *compared.values), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("options", [*FAMILIES, {"n_embd": 28, "n_head": 4}, {**LLAMA, "head_dim": 20}], ids=str)
@pytest.mark.parametrize("kind", [None, "int4"])
def test_up_to_16_tokens_have_the_bits_of_one_at_a_time(kind, options):
    model = made(**options | {"block_size": 40})
    if kind:
        quantize_model(model, kind)
    ids = np.random.default_rng(0).integers(0, 31, 40).tolist()
    for start in (1, 3, 20):
        engine = Engine(model)
        engine.prefill(ids[:start])
        alone = np.stack([engine.step(token) for token in ids[start : start + 16]])
        for T in (2, 5, 16):
            engine.truncate(start)
            np.testing.assert_array_equal(engine.extend(ids[start : start + T]), alone[:T])


def test_without_a_blas_of_ours(monkeypatch):
    monkeypatch.setattr(blas, "find_openblas", lambda: None)
    monkeypatch.setattr("tensorlite.compiled.gemm_pointer", lambda dtype: 0)
    model = made(block_size=100)
    ids = np.random.default_rng(0).integers(0, 31, (1, 90))
    agree(CompiledReader.for_model(model, KVCache(model)).logits(ids, 90), plain(model, ids))


def test_reader_and_model_share_a_cache():
    model = made()
    ids = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])
    cache = KVCache(model)
    reader = CompiledReader.for_model(model, cache)
    expected = plain(model, ids)
    plain(model, ids[:, :3], cache)
    reader.logits(ids[:, 3:4])
    agree(plain(model, ids[:, 4:6], cache), expected[:, 4:6])
    agree(reader.logits(ids[:, 6:], 2), expected[:, 6:])
    cache.length = 2  # Forget the others.
    agree(reader.logits(np.array([[7]])), plain(model, [[3, 1, 7]])[:, -1:])


def test_a_cache_that_grows_is_found_again(monkeypatch):
    monkeypatch.setattr("gpt.model.cache.FIRST_PLACES", 4)
    model = made()
    ids = np.random.default_rng(0).integers(0, 31, (1, 12))
    cache = KVCache(model)
    reader = CompiledReader.for_model(model, cache)
    found = [reader.logits(ids[:, i : i + 1])[:, 0] for i in range(12)]
    agree(np.stack(found, axis=1), plain(model, ids))


def test_there_is_no_reader_for_other_models():
    model = made()
    assert CompiledReader.for_model(model, KVCache(model, batch_size=2)) is not None

    class OtherMLP(MLP):
        pass

    other = made()
    other.h[1].mlp = OtherMLP(other.config)
    assert CompiledReader.for_model(other, KVCache(other)) is None
    wide = made().to(tl.float64)
    assert CompiledReader.for_model(wide, KVCache(wide)) is None
    turned = made()
    turned.h[0].mlp.c_fc.weight.array = np.asfortranarray(turned.h[0].mlp.c_fc.weight.array)
    assert CompiledReader.for_model(turned, KVCache(turned)) is None
    dynamic = made(**LLAMA, rope_scaling="dynamic", rope_factor=2.0, rope_original_context=6)
    assert CompiledReader.for_model(dynamic, KVCache(dynamic)) is None


def short_bias(model):
    model.h[0].mlp.c_fc.bias = tl.nn.Parameter(tl.ones(1))


def short_bias_of_a_norm(model):
    model.ln_f.bias = tl.nn.Parameter(tl.ones(1))


def half_precision(model):
    model.to(tl.float16)


def weight_that_is_no_parameter(model):
    layer = model.h[0].attn.c_proj
    weight = layer.weight.detach()
    del layer.weight
    layer.weight = weight.double()


def weight_in_another_order(model):
    weight_that_is_no_parameter(model)
    layer = model.h[0].attn.c_proj
    layer.weight = layer.weight.float().t()


@pytest.mark.parametrize("change", [
    short_bias, short_bias_of_a_norm, half_precision, weight_that_is_no_parameter, weight_in_another_order,
])  # fmt: skip
def test_numbers_beyond_an_array_are_not_read(change):
    """The compiled functions check no array, so there is no reader for those with other sizes or numbers."""
    model = made(bias=True)
    assert CompiledReader.for_model(model, KVCache(model)) is not None
    cache = KVCache(model)
    change(model)
    assert CompiledReader.for_model(model, cache) is None


def test_a_tensor_in_the_place_of_a_parameter_is_watched():
    model = made()
    layer = model.h[0].attn.c_proj
    weight = layer.weight.detach()
    del layer.weight
    layer.weight = weight
    reader = CompiledReader.for_model(model, KVCache(model))
    agree(reader.logits(np.array([[3]])), plain(model, [[3]]))
    weight.array = weight.array * 2
    assert not reader.is_current()


def test_there_is_no_reader_for_the_cache_of_another_model():
    model = made()
    wide = made().to(tl.float64)
    for other in (made(n_layer=1), made(n_head=2), made(n_embd=48), made(block_size=20), wide):
        assert CompiledReader.for_model(model, KVCache(other)) is None
    cache = KVCache(model)
    reader = CompiledReader.for_model(model, cache)
    cache.keys[0] = cache.keys[0][:, :, :6]
    with pytest.raises(ValueError, match="expected a cache of this model"):
        reader.logits(np.array([[3]]))


def test_as_many_logits_as_tokens_at_most():
    model = made()
    for count, T in ((1, 0), (0, 2), (3, 2)):
        with pytest.raises(ValueError, match=f"at least 1 and at most all of {T} tokens, got {count}"):
            CompiledReader.for_model(model, KVCache(model)).logits(np.zeros((1, T), np.int64), count)
    for read in (Engine(model).prefill, Engine(model).resume, lambda ids: BatchEngine(model).prefill([ids])):
        with pytest.raises(ValueError, match="at least one token"):
            read([])


@pytest.mark.parametrize("padding", [[1], [1, 2, 3], [0, -1]])
def test_padding_of_a_cache_is_checked(padding):
    with pytest.raises(ValueError, match="KVCache: expected padding of 2 numbers from 0"):
        KVCache(made(), 2, padding)


@pytest.mark.parametrize("with_blas", [True, False])
def test_a_part_of_a_text_that_is_padding_alone(with_blas, monkeypatch):
    """Attention reads no key for it: all tokens of the padding have the same logits, and none changes the others."""
    if not with_blas:
        monkeypatch.setattr(blas, "find_openblas", lambda: None)
        monkeypatch.setattr("tensorlite.compiled.gemm_pointer", lambda dtype: 0)
    model = made(factor=2, block_size=200)
    ids = np.random.default_rng(0).integers(0, 31, (2, 150))
    ids[1, :120] = 5
    reader = CompiledReader.for_model(model, KVCache(model, 2, [0, 120]))
    reader.workspace = np.full(10**6, np.nan, np.float32)
    found = reader.logits(ids, 150)
    agree(found[:1], plain(model, ids[:1]))
    agree(found[1:, 120:], plain(model, ids[1:, 120:]))
    np.testing.assert_allclose(found[1, :120], np.tile(found[1, 0], (120, 1)), rtol=1e-4, atol=1e-4)


def quantize_to_int4(model):
    quantize_model(model, "int4")


def wider_mlp(model):
    for b in model.h:
        b.mlp.c_fc, b.mlp.c_proj = tl.nn.Linear(24, 128), tl.nn.Linear(128, 24)


def fewer_layers(model):
    model.h = tl.nn.ModuleList(list(model.h)[:1])


def other_eps(model):
    model.h[1].ln_1.eps = 0.5


def other_gelu(model):
    model.h[0].mlp.approximate = "tanh"


def a_window(model):
    model.h[0].attn.window = 3


def no_gains(model):
    model.h[0].ln_2 = tl.nn.LayerNorm(24, elementwise_affine=False)


def no_norm(model):
    model.h[0].ln_2 = tl.nn.Dropout(0.0)


def replaced_forward(model):
    mlp = model.h[0].mlp
    mlp.forward = lambda x: MLP.forward(mlp, x) * 0


def hook_on_a_layer(model):
    model.h[1].mlp.register_forward_hook(lambda module, args, output: output * 0)


@pytest.mark.parametrize("change", [
    hook_on_a_layer, wider_mlp, fewer_layers, other_eps, other_gelu, a_window, no_gains, no_norm, replaced_forward,
])  # fmt: skip
def test_a_changed_model_is_not_read(change, monkeypatch):
    model = made()
    change(model)
    fast, slow, count = texts(model, monkeypatch, temperature=0)
    assert fast == slow
    assert count == 0


@pytest.mark.parametrize("layer", [MLP, CausalSelfAttention, Block, GPT])
def test_an_edited_class_is_noticed(layer, monkeypatch):
    name = "hidden_states" if layer is GPT else "forward"
    before = getattr(layer, name)
    monkeypatch.setattr(layer, name, lambda self, x, *args: before(self, x, *args) * 1.5)
    fast, slow, count = texts(made(), monkeypatch, temperature=0)
    assert (fast, count) == (slow, 0)


def test_another_function_falls_back_to_the_model(monkeypatch):
    """The first token of each text is compared with the model, whatever the reader did not notice."""
    model = made()
    usual = list(generate(model, [3, 1], 5, SamplingConfig(temperature=0)))
    before = tl.nn.functional.gelu
    monkeypatch.setattr("tensorlite.nn.functional.gelu", lambda x, approximate: before(x, approximate) * 0)
    fast, slow, count = texts(made(), monkeypatch, temperature=0)
    assert (fast, count) == (slow, 1)
    assert fast[:5] != usual


@pytest.mark.parametrize("change", [hook_on_a_layer, other_eps, replaced_forward, quantize_to_int4])
def test_a_model_changed_between_two_texts_is_noticed(change):
    model = made()
    engine = Engine(model)
    engine.prefill([3, 1])
    engine.step(7)
    before = engine.prefill([3, 1, 4])
    change(model)
    now = engine.prefill([3, 1, 4])
    expected = plain(model, [[3, 1, 4]])[0, -1]
    assert abs(now - before).max() > 0.01
    np.testing.assert_allclose(now, expected, rtol=0, atol=0.03 * abs(expected).max())


def test_a_layer_that_is_new_between_two_texts_is_in_evaluation_mode():
    model = made()
    hook_on_a_layer(model)  # so that no text is read compiled
    engine = Engine(model)
    engine.prefill([3, 1])
    model.h[0] = made(dropout=0.9).h[1]
    found = engine.prefill([3, 1, 4])
    np.testing.assert_allclose(found, plain(model, [[3, 1, 4]])[0, -1], rtol=1e-4)


def test_weights_changed_in_place_are_used():
    model = made()
    reader = CompiledReader.for_model(model, KVCache(model))
    with tl.no_grad():
        model.wte.weight.mul_(-0.5)
    assert reader.is_current()
    agree(reader.logits(np.array([[3]])), plain(model, [[3]]))


def texts(model, monkeypatch, **options):
    """Return a text that was read compiled, the same text without, and how often the compiled reader read."""
    read = []
    logits_of = CompiledReader.logits
    monkeypatch.setattr(CompiledReader, "logits", lambda self, *args: read.append(args) or logits_of(self, *args))
    fast = list(generate(model, [3, 1], 40, SamplingConfig(**options)))
    count = len(read)
    monkeypatch.setattr(CompiledReader, "for_model", lambda model, cache: None)
    slow = list(generate(model, [3, 1], 40, SamplingConfig(**options)))
    assert len(read) == count
    return fast, slow, count


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 3}, {"seed": 4, "top_k": 5, "temperature": 0.7}])
def test_generate_gives_the_same_text_compiled(options, monkeypatch):
    fast, slow, count = texts(made(), monkeypatch, **options)
    assert fast == slow
    assert count == 40


def test_a_batch_gives_the_same_texts_compiled(monkeypatch):
    model = made()
    prompts = [[3, 1], [4], [1, 5, 9, 2, 6]]
    fast = generate_batch(model, prompts, 30, seed=1)
    monkeypatch.setattr(CompiledReader, "for_model", lambda model, cache: None)
    assert fast == generate_batch(model, prompts, 30, seed=1)


def test_each_text_is_compared_with_the_model(monkeypatch):
    """A model that has agreed is compared on the first token after the prompt, another one on the prompt's last."""
    model = made()
    compared = []
    by_model = Reader._by_model
    monkeypatch.setattr(
        Reader, "_by_model", lambda self, ids, *args: compared.append(ids.tolist()) or by_model(self, ids, *args)
    )
    for expected in ([[[1]]], [[[7]]]):
        compared.clear()
        engine = Engine(model)
        engine.prefill([3, 1])
        engine.step(7)
        engine.step(8)
        assert compared == expected


def test_an_array_replaced_between_tokens_is_noticed():
    model = made()
    text = generate(model, [3, 1], 8, SamplingConfig(temperature=0))
    next(text), next(text)
    weight = model.h[0].mlp.c_fc.weight
    weight.array = np.asfortranarray(weight.array)  # The same numbers, in an order that the reader cannot read.
    rest = list(text)
    weight.array = np.ascontiguousarray(weight.array)
    assert rest == list(generate(model, [3, 1], 8, SamplingConfig(temperature=0)))[2:]


def test_a_full_cache_and_an_invalid_token_are_errors():
    model = made()
    cache = KVCache(model)
    reader = CompiledReader.for_model(model, cache)
    for token in (-1, 31, 10**9):
        with pytest.raises(IndexError, match=f"token {token} is not in the vocabulary of 31"):
            reader.logits(np.array([[1, token]]))
    assert cache.length == 0
    cache.length = 12
    with pytest.raises(ValueError, match="the cache holds 12 of block_size = 12 positions"):
        reader.logits(np.array([[1]]))


def test_broken_weights_are_reported():
    model = made()
    model.h[1].ln_2.weight.array[3] = np.nan
    with pytest.raises(SampleError, match="logits of the model are not finite"):
        list(generate(model, [1], 3))
