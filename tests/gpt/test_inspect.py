"""Test the attention weights, the logit lens, and the pictures of them."""

import threading

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.inspect import attention_weights, logit_lens
from gpt.model import GPT, eval_mode
from gpt.model.lora import LoraLinear, Part, add_lora
from gpt.model.quantized import quantize_model
from gpt.tokenizer import TokenError
from tests.gpt.small_models import small_model

LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu", "n_inner": 40}
FAMILIES = {
    "gpt2": {"bias": True, "gelu": "tanh"},
    "sinusoidal": {"position": "sinusoidal", "mlp": "relu2"},
    "one head": {"n_head": 1, "n_layer": 1},
    "untied": {"position": "rope", "bias": True, "tied": False},
    "llama": LLAMA,
    "qwen3": {**LLAMA, "n_head": 4, "n_kv_head": 2, "qk_norm": True, "head_dim": 10},
    "window": {**LLAMA, "sliding_window": 3},
    "window of some": {**LLAMA, "sliding_window": 2, "full_layers": 1, "n_kv_head": 1},
    "yarn": {**LLAMA, "rope_scaling": "yarn", "rope_factor": 4.0, "rope_original_context": 32},
    "dynamic": {**LLAMA, "rope_scaling": "dynamic", "rope_factor": 2.0, "rope_original_context": 6},
}
IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5]
T = len(IDS)


def values_and_outputs(model, ids):
    """Return for each layer the values (H, T, D), and the input of c_proj (H, T, D), from a pass of the model."""
    found = []

    def record(layer, args):
        _, _, v, _ = layer.inputs_of_attention(args[0])
        H, D = layer.n_head, layer.head_size
        v = np.broadcast_to(v.numpy(), (*v.shape[:2], H // layer.n_kv_head, T, D)) if v.ndim == 5 else v.numpy()
        found.append([v.reshape(H, T, D)])

    def record_output(projection, args):
        found[-1].append(args[0].numpy()[0].reshape(T, *found[-1][0].shape[::2]).transpose(1, 0, 2))

    handles = [block.attn.register_forward_pre_hook(record) for block in model.h]
    handles += [block.attn.c_proj.register_forward_pre_hook(record_output) for block in model.h]
    with eval_mode(model):
        model.hidden_states(tl.tensor([ids]))
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("options", FAMILIES.values(), ids=FAMILIES)
def test_weights_times_values_are_what_the_model_computes(options):
    model = small_model(**options)
    weights = attention_weights(model, IDS)
    assert weights.dtype == np.float32
    assert weights.shape == (model.config.n_layer, model.config.n_head, T, T)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=0, atol=1e-6)
    assert (np.triu(weights, 1) == 0).all()
    assert (weights >= 0).all()
    if window := model.config.sliding_window:
        assert (np.tril(weights[model.config.full_layers :], -window) == 0).all()
    for w, (values, outputs) in zip(weights, values_and_outputs(model, IDS), strict=True):
        np.testing.assert_allclose(w @ values, outputs, rtol=0, atol=1e-6 * abs(values).max())


@pytest.mark.parametrize("options", FAMILIES.values(), ids=FAMILIES)
def test_last_row_of_the_lens_is_the_model(options):
    model = small_model(**options)
    lens = logit_lens(model, IDS, 4)
    assert lens.ids.shape == lens.probabilities.shape == (model.config.n_layer + 1, T, 4)
    with tl.no_grad():
        expected = tl.softmax(model(tl.tensor([IDS]))[0], -1).numpy()[0]
        first = tl.softmax(model.head(model.ln_f(model.embed(tl.tensor([IDS])))), -1).numpy()[0]
    for row, probabilities in ((-1, expected), (0, first)):
        order = np.argsort(-probabilities, -1)[:, :4]
        np.testing.assert_array_equal(lens.ids[row], order)
        np.testing.assert_allclose(lens.probabilities[row], np.take_along_axis(probabilities, order, -1), rtol=1e-6)


def trained_with_lora():
    model = float32_model()
    add_lora(model, {"h.0.attn.c_attn": [Part("q", 0, 16)]}, rank=2, scale=2.0, dropout=0.5)
    layer = model.h[0].attn.c_attn
    assert isinstance(layer, LoraLinear)
    layer.parts[0].lora_B.array += 0.5
    return model


def float32_model(**options):
    tl.manual_seed(7)
    shape = {"vocab_size": 11, "block_size": 12, "n_layer": 2, "n_head": 4, "n_embd": 32}
    return GPT(ModelConfig(**shape | options))


@pytest.mark.parametrize("make", [
    lambda: float32_model(dropout=0.5), trained_with_lora, lambda: quantize_model(float32_model(), "int4"),
], ids=["dropout", "lora", "int4"])  # fmt: skip
def test_a_model_in_training_mode_stays_as_it_is(make):
    model = make()
    modes = [module.training for module in model.modules()]
    state = tl.get_rng_state()
    weights, lens = attention_weights(model, IDS), logit_lens(model, IDS)
    assert [module.training for module in model.modules()] == modes == [True] * len(modes)
    assert not any(module.has_hooks() for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    np.testing.assert_array_equal(tl.get_rng_state(), state)
    np.testing.assert_array_equal(attention_weights(model.eval(), np.array(IDS)), weights)
    np.testing.assert_array_equal(logit_lens(model, np.array(IDS)).probabilities, lens.probabilities)
    for w, (values, outputs) in zip(weights, values_and_outputs(model, IDS), strict=True):
        np.testing.assert_allclose(w @ values, outputs, rtol=0, atol=1e-5 * abs(values).max())


def test_another_thread_that_uses_the_model_is_not_recorded():
    model = small_model()
    expected, done = attention_weights(model, IDS), threading.Event()

    def other():
        while not done.is_set():
            with tl.no_grad():
                model(tl.tensor([[1, 2]]))

    thread = threading.Thread(target=other)
    thread.start()
    found = [attention_weights(model, IDS) for _ in range(20)]
    shapes = {logit_lens(model, IDS, 3).ids.shape for _ in range(20)}
    done.set()
    thread.join()
    assert shapes == {(3, T, 3)}
    for weights in found:
        np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("function", [attention_weights, logit_lens])
@pytest.mark.parametrize(("ids", "words"), [
    ([], "expected at least one token, got none"),
    ([[1, 2], [3, 4]], r"got the shape \(2, 2\)"),
    ([1.0], "expected token ids, which are integers"),
    ("abc", "which are integers, got the text"),
    ([0] * 13, "the model sees 12 tokens, and these are 13"),
    ([1, 11], "token id 11 at position 1 is outside the vocabulary of 11 tokens"),
    ([-1], "token id -1 at position 0 is outside"),
])  # fmt: skip
def test_wrong_ids_are_refused(function, ids, words):
    with pytest.raises(TokenError, match=words):
        function(small_model(), ids)


def test_a_lens_of_the_whole_vocabulary_sums_to_one():
    lens = logit_lens(small_model(), IDS, 100)
    assert lens.ids.shape == (3, T, 11)
    np.testing.assert_allclose(lens.probabilities.sum(-1), 1, rtol=1e-6)
    with pytest.raises(ValueError, match="expected top >= 1, got 0"):
        logit_lens(small_model(), IDS, 0)
    with pytest.raises(ValueError, match="last >= 1, got 0"):
        logit_lens(small_model(), IDS, 2, 0)


def test_the_lens_of_the_last_positions():
    model = small_model()
    whole, end = logit_lens(model, IDS, 3), logit_lens(model, IDS, 3, last=2)
    np.testing.assert_array_equal(end.ids, whole.ids[:, -2:])
    np.testing.assert_allclose(end.probabilities, whole.probabilities[:, -2:], rtol=1e-6)
    assert logit_lens(model, IDS, 3, last=100).ids.shape == whole.ids.shape


def test_attention_of_another_class_is_refused():
    model = float32_model()
    model.h[1].attn = tl.nn.Identity()
    with pytest.raises(TypeError, match="expected CausalSelfAttention in layer 1, got Identity"):
        attention_weights(model, IDS)
