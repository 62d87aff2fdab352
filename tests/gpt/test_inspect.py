"""Test the attention weights, the logit lens, and the pictures of them."""

import threading

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.inspect import (
    PictureError,
    attention_weights,
    logit_lens,
    plot_attention,
    plot_embeddings,
    plot_lens,
    save_figure,
)
from gpt.inspect.embedding_map import principal_components
from gpt.inspect.figures import label
from gpt.model import GPT, eval_mode
from gpt.model.lora import LoraLinear, Part, add_lora
from gpt.model.quantized import quantize_model
from gpt.tokenizer import CharTokenizer, TokenError
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


# --- pictures

TOKENS = "\n ab$_7\u6771E\x1b\u202e"  # 11 characters, of which the font does not have one


@pytest.fixture
def matplotlib():
    return pytest.importorskip("matplotlib")


def ticks(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_labels_show_what_cannot_be_seen(matplotlib):
    assert label(" a\n\t") == "\u2423a\u21b5\u21e5"
    assert label("\x1b\u202e\u6771\u0301\xa0") == r"\x1b\u202e\u6771\u0301\xa0"
    assert label("x" * 40) == "x" * 15 + "\u2026"
    assert label("\u00e9$\\") == "\u00e9$\\"


def test_a_picture_of_attention(matplotlib, tmp_path):
    model, tokenizer = small_model(), CharTokenizer(TOKENS)
    figure = plot_attention(model, tokenizer, "ab $", layers=[-1], heads=[0, 2])
    *maps, _ = figure.axes
    assert [axes.get_title() for axes in maps] == ["layer 1, head 0", "layer 1, head 2"]
    weights = attention_weights(model, tokenizer.encode("ab $"))
    for axes, head in zip(maps, (0, 2), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), weights[1, head])
        assert ticks(axes.xaxis) == ticks(axes.yaxis) == ["a", "b", "\u2423", "$"]
    assert maps[0].get_ylabel() == "token that attends"
    many = plot_attention(small_model(n_head=8), tokenizer, "ab", layers=[0]).axes[:-1]
    assert [axes.get_title()[-1] for axes in many] == list("01234567")
    assert [axes.get_subplotspec().rowspan.start for axes in many] == [0] * 4 + [1] * 4
    for name in ("one.svg", "two.svg", "one.png"):
        save_figure(plot_attention(model, tokenizer, "ab"), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [1, 12])
def test_many_maps_are_tiles(matplotlib, tmp_path, count):
    model, tokenizer = small_model(n_layer=5), CharTokenizer(TOKENS)
    figure = plot_attention(model, tokenizer, list(range(11))[:count])
    axes, _ = figure.axes
    assert (ticks(axes.xaxis), ticks(axes.yaxis)) == (["0", "1", "2", "3"], ["0", "1", "2", "3", "4"])
    picture = np.asarray(axes.images[0].get_array().filled(np.nan))
    count = min(count, 11)
    step = picture.shape[0] // 5
    weights = attention_weights(model, list(range(11))[:count])
    np.testing.assert_array_equal(picture[3 * step :, step:][:count, :count], weights[3, 1])
    save_figure(figure, tmp_path / "tiles.png")


def test_a_picture_of_the_lens(matplotlib, tmp_path):
    model, tokenizer = small_model(block_size=60), CharTokenizer(TOKENS)
    prompt = "ab$_7\u6771E\x1b\u202e \n" * 4
    lens = logit_lens(model, tokenizer.encode(prompt), 2)
    figure = plot_lens(model, tokenizer, prompt, top=2)
    *parts, _ = figure.axes
    assert [len(axes.texts) for axes in parts] == [3 * 22, 3 * 22]
    assert ticks(parts[0].yaxis) == ["embedding", "layer 0", "layer 1"]
    assert ticks(parts[1].xaxis)[:2] == ["a", "b"]  # Token 22 of a prompt that repeats each 11.
    first = parts[1].texts[2 * 22]
    assert first.get_text().split("\n") == [label(tokenizer.decode([token])) for token in lens.ids[2, 22]]
    assert not first.get_parse_math()
    save_figure(figure, tmp_path / "lens.svg")
    assert ticks(plot_lens(model, tokenizer, "a", layers=[1]).axes[0].yaxis) == ["layer 1"]


def test_a_map_of_embeddings(matplotlib, tmp_path):
    model, tokenizer = small_model(), CharTokenizer(TOKENS)
    figure = plot_embeddings(model, tokenizer, positions=True)
    tokens, positions, _ = figure.axes
    assert tokens.get_title() == "9 tokens"  # Two cannot be read.
    assert {text.get_text() for text in tokens.texts} >= {"a", "\u21b5", "\u2423", "$", r"\u6771"}
    assert {text.get_text() for text in tokens.get_legend().get_texts()} == {
        "white space", "digits", "lower case", "upper case", "other",
    }  # fmt: skip
    ids = tokenizer.encode("\n $7E_ab\u6771")
    rows = model.wte.weight.detach().numpy()[ids]
    covariance = np.linalg.eigvalsh(np.cov(rows.T))
    assert tokens.get_xlabel() == f"first component ({covariance[-1] / covariance.sum():.1%} of the variance)"
    assert positions.get_title() == "12 positions"
    save_figure(figure, tmp_path / "embeddings.png")
    assert plot_embeddings(model, tokenizer, [3]).axes[0].get_title() == "1 token"
    many = plot_embeddings(small_model(vocab_size=801), CharTokenizer("".join(map(chr, range(33, 834)))), range(800))
    assert (many.get_size_inches() == [2 * 7 + 1, 2 * 7]).all()
    assert plot_embeddings(quantize_model(float32_model(), "int8"), tokenizer, top=3).axes[0].get_title() == "3 tokens"
    assert len(plot_embeddings(small_model(position="sinusoidal"), tokenizer, positions=True).axes) == 3


def test_principal_components():
    rows = np.random.default_rng(0).standard_normal((7, 1)) * [[3.0, -4.0, 0.0]] + 5
    points, shares = principal_components(rows)
    np.testing.assert_allclose(shares, [1, 0], atol=1e-12)
    np.testing.assert_allclose(points[:, 0], -(rows - rows.mean(0))[:, 0] / 0.6)
    np.testing.assert_array_equal(principal_components(np.ones((1, 4)))[0], np.zeros((1, 2)))


@pytest.mark.parametrize(("draw", "options"), [
    (plot_lens, {"layers": [1]}),
    (plot_lens, {"top": 3}),
    (plot_attention, {"layers": [0], "heads": [1]}),
    (plot_attention, {}),
])  # fmt: skip
@pytest.mark.parametrize("prompt", ["a", "ab$_7\u6771E"])
def test_no_text_is_cut_off(matplotlib, draw, options, prompt):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    figure = draw(small_model(n_layer=5), CharTokenizer(TOKENS), prompt, **options)
    FigureCanvasAgg(figure).draw()
    width, height = figure.bbox.max
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert {text.get_text() for text in texts} & {"attention weight", "probability of the likeliest token"}
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text


def test_mistakes_of_pictures(matplotlib, tmp_path):
    model, tokenizer = small_model(), CharTokenizer(TOKENS)
    for call, words in (
        (lambda: plot_attention(model, tokenizer, "a", layers=[2]), "there is no layer 2: the model has 2, which are"),
        (lambda: plot_attention(model, tokenizer, "a", heads=[-5]), "there is no head -5: the model has 4"),
        (lambda: plot_attention(model, tokenizer, "a", heads=[]), "expected at least one head"),
        (lambda: plot_embeddings(model, tokenizer, []), "expected at least one token"),
        (lambda: plot_embeddings(small_model(**LLAMA), tokenizer, positions=True), "rotary positions"),
        (lambda: save_figure(None, tmp_path / "a.pdf"), r"expected a name that ends in \.png or \.svg"),
    ):
        with pytest.raises(PictureError, match=words):
            call()
