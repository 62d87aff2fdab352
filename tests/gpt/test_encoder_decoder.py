"""Test the encoder-decoder: against PyTorch's layers, what each position sees, padding, and its targets."""

import itertools

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import ConfigError, ModelConfig
from gpt.generation import beam_search, translate
from gpt.generation.beam import search
from gpt.generation.translation import DecoderRows, log_probabilities
from gpt.inspect import cross_attention_weights
from gpt.model import GPT, Encoder, EncoderDecoder, KVCache, pad_sequences
from gpt.tokenizer import TokenError

TARGET = {"vocab_size": 7, "block_size": 6, "n_layer": 2, "n_head": 2, "n_embd": 8}
SOURCE = {"vocab_size": 11, "block_size": 9, "n_layer": 1, "n_head": 3, "n_embd": 12}
VARIANTS = {
    "plain": {},
    "bias": {"bias": True, "position": "sinusoidal"},
    "llama": {"position": "rope", "norm": "rms", "mlp": "swiglu", "tied": False, "qk_norm": True, "n_kv_head": 1},
}


def scattered(model, seed=0):
    """Return a model in float64 with weights far from their initial values, so that every term matters."""
    rng = np.random.default_rng(seed)
    model = model.to(tl.float64).eval()
    for parameter in model.parameters():
        parameter.array += rng.normal(0, 0.4, parameter.shape)
    return model


def make(encoder=SOURCE, **options):
    tl.manual_seed(3)
    return scattered(EncoderDecoder(ModelConfig(**TARGET | options), encoder and ModelConfig(**encoder)))


def ids(*shape, V=7, seed=0):
    return np.random.default_rng(seed).integers(0, V, shape)


# --- against PyTorch


def torch_model(torch, weights, heads, source, target, padding):
    """Return the logits of PyTorch's own layers, and their parameters, for these weights."""
    from torch import nn

    def linear(module, name):
        module.weight, module.bias = nn.Parameter(weights[f"{name}.weight"]), nn.Parameter(weights[f"{name}.bias"])
        used.update({f"{name}.weight": module.weight, f"{name}.bias": module.bias})

    def attention(module, name):
        module.in_proj_weight = nn.Parameter(weights[f"{name}.c_attn.weight"])
        module.in_proj_bias = nn.Parameter(weights[f"{name}.c_attn.bias"])
        used.update({f"{name}.c_attn.weight": module.in_proj_weight, f"{name}.c_attn.bias": module.in_proj_bias})
        linear(module.out_proj, f"{name}.c_proj")

    def cross(module, name):
        q, kv = (f"{name}.{part}" for part in ("q_attn", "c_attn"))
        rows = {kind: torch.cat([weights[f"{q}.{kind}"], weights[f"{kv}.{kind}"]]) for kind in ("weight", "bias")}
        module.in_proj_weight, module.in_proj_bias = nn.Parameter(rows["weight"]), nn.Parameter(rows["bias"])
        joined.update({name: (module.in_proj_weight, module.in_proj_bias)})
        linear(module.out_proj, f"{name}.c_proj")

    def layer(kind, side, number):
        built = kind(C, heads, 4 * C, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64)
        name = f"{side}.h.{number}"
        attention(built.self_attn, f"{name}.attn")
        linear(built.norm1, f"{name}.ln_1")
        linear(built.linear1, f"{name}.mlp.c_fc")
        linear(built.linear2, f"{name}.mlp.c_proj")
        if side == "decoder":
            cross(built.multihead_attn, f"{name}.crossattention")
            linear(built.norm2, f"{name}.ln_cross_attn")
        linear(built.norm3 if side == "decoder" else built.norm2, f"{name}.ln_2")
        return built

    def embed(side, idx):
        for name in (f"{side}.wte.weight", f"{side}.wpe.weight"):
            used[name] = used.get(name, nn.Parameter(weights[name]))
        return used[f"{side}.wte.weight"][idx] + used[f"{side}.wpe.weight"][: idx.shape[1]]

    def norm(side, x):
        module = nn.LayerNorm(C, dtype=torch.float64)
        linear(module, f"{side}.ln_f")
        return module(x)

    used, joined = {}, {}
    C = weights["decoder.wte.weight"].shape[1]
    x = embed("encoder", torch.as_tensor(source))
    for number in range(2):
        x = layer(nn.TransformerEncoderLayer, "encoder", number)(x, src_key_padding_mask=torch.as_tensor(padding))
    memory = norm("encoder", x)
    y = embed("decoder", torch.as_tensor(target))
    later = torch.triu(torch.ones(target.shape[1], target.shape[1], dtype=torch.bool), 1)
    for number in range(2):
        decode = layer(nn.TransformerDecoderLayer, "decoder", number)
        y = decode(y, memory, tgt_mask=later, memory_key_padding_mask=torch.as_tensor(padding))
    return norm("decoder", y) @ used["decoder.wte.weight"].T, used, joined


def test_logits_loss_and_gradients_agree_with_layers_of_torch():
    torch = pytest.importorskip("torch")
    model = make(encoder=None, bias=True).train()
    source, target, labels = ids(3, 5, seed=1), ids(3, 6, seed=2), ids(3, 6, seed=3)
    labels[0, 4:] = -1
    padding = np.arange(5) >= np.array([[5], [3], [1]])
    weights = {name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()}
    theirs, used, joined = torch_model(torch, weights, 2, source, target, padding)
    their_loss = torch.nn.functional.cross_entropy(theirs.reshape(-1, 7), torch.tensor(labels).reshape(-1),
                                                   ignore_index=-1)  # fmt: skip
    their_loss.backward()
    logits, loss = model(*map(tl.tensor, (source, target, labels, padding)))
    loss.backward()
    np.testing.assert_allclose(logits.detach().numpy(), theirs.detach().numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(loss.item(), their_loss.item(), rtol=0, atol=1e-12)
    expected = {name: parameter.grad.numpy() for name, parameter in used.items()}
    for name, pair in joined.items():
        for kind, parameter in zip(("weight", "bias"), pair, strict=True):
            gradient = parameter.grad.numpy()
            expected[f"{name}.q_attn.{kind}"], expected[f"{name}.c_attn.{kind}"] = gradient[:8], gradient[8:]
    assert set(expected) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.grad.numpy(), expected[name], rtol=0, atol=1e-12, err_msg=name)


# --- what a position sees


@pytest.fixture(params=VARIANTS)
def model(request):
    options = VARIANTS[request.param]
    shared = {name: value for name, value in options.items() if name not in ("tied", "n_kv_head")}
    return make(SOURCE | shared, **options)


def test_a_decoder_position_sees_the_whole_source_and_no_later_target(model):
    source, target = ids(1, 5, V=11, seed=1), ids(1, 6, seed=2)
    with tl.no_grad():
        before = model(tl.tensor(source), tl.tensor(target))[0].numpy()
        for place in range(6):
            changed = target.copy()
            changed[0, place] = (target[0, place] + 1) % 7
            after = model(tl.tensor(source), tl.tensor(changed))[0].numpy()
            assert [bool(np.any(row)) for row in (after != before)[0]] == [t >= place for t in range(6)]
        for place in range(5):
            changed = source.copy()
            changed[0, place] = (source[0, place] + 1) % 11
            assert (model(tl.tensor(changed), tl.tensor(target))[0].numpy() != before).any(-1).all()


def test_each_position_of_the_encoder_sees_all(model):
    source = ids(1, 5, V=11, seed=1)
    with tl.no_grad():
        before = model.encoder(tl.tensor(source)).numpy()
        for place in range(5):
            changed = source.copy()
            changed[0, place] = (source[0, place] + 1) % 11
            assert (model.encoder(tl.tensor(changed)).numpy() != before).any(-1).all()


def test_padding_changes_nothing(model):
    sources, targets = [ids(n, V=11, seed=n) for n in (2, 9, 5)], [ids(n, seed=n) for n in (6, 1, 4)]
    labels = [ids(n, seed=10 + n) for n in (6, 1, 4)]
    (source, source_padding), (target, target_padding) = pad_sequences(sources, 3), pad_sequences(targets, 2)
    parameters = list(model.parameters())
    logits, loss = model(source, target, pad_sequences(labels, 5)[0], source_padding, target_padding)
    gradients = tl.autograd.grad(loss, parameters)
    total = 0.0
    for row, (s, t, y) in enumerate(zip(sources, targets, labels, strict=True)):
        alone, its_loss = model(*(tl.tensor(a[None]) for a in (s, t, y)))
        np.testing.assert_allclose(logits[row, : len(t)].detach().numpy(), alone[0].detach().numpy(), atol=1e-12)
        total = total + its_loss * (len(t) / 11)
    np.testing.assert_allclose(loss.item(), total.item(), rtol=1e-12)
    for one, other in zip(gradients, tl.autograd.grad(total, parameters), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-12)


def test_a_cache_and_the_memory_of_one_source_give_the_same_logits(model):
    source, target = tl.tensor(ids(1, 5, V=11, seed=1)), tl.tensor(ids(3, 6, seed=2))
    with tl.no_grad():
        whole = model(source.expand(3, 5), target)[0].numpy()
        memory, cache = model.encode(source), KVCache(model, 3)
        parts = [model.decode(target[:, a:b], memory, cache).numpy() for a, b in [(0, 1), (1, 4), (4, 5), (5, 6)]]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=0, atol=1e-12)


def test_attention_weights_show_where_a_target_looks():
    model = make()
    source, target = ids(5, V=11), ids(4)
    weights = cross_attention_weights(model, source, target)
    assert weights.shape == (2, 2, 4, 5)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    with tl.no_grad():
        block = model.decoder.h[0]
        layer = block.crossattention
        x = model.decoder.embed(tl.tensor(target[None]))
        q = layer.q_attn(block.ln_cross_attn(x + block.attn(block.ln_1(x))))[0, :, 4:].numpy()  # of head 1
        k = layer.c_attn(model.encoder(tl.tensor(source[None])))[0, :, 4:8].numpy()
    scores = np.exp(q @ k.T / 2)
    np.testing.assert_allclose(weights[0, 1], scores / scores.sum(1, keepdims=True), atol=1e-6)
    with pytest.raises(TypeError, match="expected an EncoderDecoder, got GPT"):
        cross_attention_weights(GPT(ModelConfig(**TARGET)), [1], [1])
    with pytest.raises(TokenError, match="expected 1 to block_size = 9 tokens as the source, got 0"):
        cross_attention_weights(model, [], [1])


# --- targets


SOURCES = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 0, 1, 2], [3, 3]]


def by_hand(model, source, stops, length):
    """Return the greedy target of a source, by the whole target each time."""
    text = [0]
    with tl.no_grad():
        while len(text) <= length:
            text.append(int(model(tl.tensor([source]), tl.tensor([text]))[0][0, -1].argmax()))
            if text[-1] in stops:
                return text[1:-1], True
    return text[1:], False


@pytest.mark.parametrize("stops", [(), (3,), (1, 5)])
def test_greedy_targets_of_a_batch_are_those_by_hand_and_of_one_beam(model, stops):
    found = translate(model, SOURCES, 0, stops)
    for source, beam in zip(SOURCES, found, strict=True):
        assert (beam.tokens, beam.complete) == by_hand(model, source, stops, 6)
        rows = DecoderRows(model, [np.array(source)])
        one = search(rows, rows.step([0]), [0], (), stops, num_beams=1, max_new_tokens=6, length_penalty=1.0)
        assert (one[0].tokens, one[0].complete) == (beam.tokens, beam.complete)
        np.testing.assert_allclose([one[0].logprob, one[0].score], [beam.logprob, beam.score], rtol=1e-12)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_targets(penalty):
    model, stop, length = make(vocab_size=4), 3, 4
    texts = [t for n in range(length) for t in itertools.product(range(3), repeat=n)]
    texts = [(*t, stop) for t in texts] + list(itertools.product(range(3), repeat=length))
    scores = {}
    with tl.no_grad():
        for text in texts:
            logits = model(tl.tensor([[1, 2, 3]]), tl.tensor([[0, *text[:-1]]]))[0][0].numpy()
            logprob = log_probabilities(logits)[np.arange(len(text)), list(text)].sum()
            scores[text] = logprob / len(text) ** penalty
    best = max(scores, key=scores.get)
    (found,) = translate(model, [[1, 2, 3]], 0, [stop], length, num_beams=100, length_penalty=penalty)
    assert tuple(found.tokens) + (stop,) * found.complete == best
    np.testing.assert_allclose(found.score, scores[best], rtol=1e-12)


def test_it_learns_to_reverse_a_sequence():
    tl.manual_seed(0)
    config = ModelConfig(vocab_size=6, block_size=5, n_layer=1, n_head=2, n_embd=24)
    model, rng = EncoderDecoder(config), np.random.default_rng(0)
    optimizer = tl.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        source = rng.integers(1, 6, (32, 4))
        both = np.concatenate([np.zeros((32, 1), np.int64), source[:, ::-1]], 1)
        loss = model(tl.tensor(source), tl.tensor(both[:, :-1]), tl.tensor(both[:, 1:]))[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen = rng.integers(1, 6, (50, 4))
    found = translate(model, list(unseen), 0, max_new_tokens=4)
    assert np.mean([beam.tokens == source[::-1].tolist() for beam, source in zip(found, unseen)]) > 0.9


# --- structure and errors


def test_the_state_is_saved_and_loaded(tmp_path):
    model, other = make(tied=False), make(tied=False, init_std=0.5)
    tl.save(model.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(tl.load(tmp_path / "model.safetensors"))
    args = tl.tensor(ids(2, 5, V=11)), tl.tensor(ids(2, 4))
    np.testing.assert_array_equal(model(*args)[0].detach().numpy(), other(*args)[0].detach().numpy())
    assert {"encoder.wte.weight", "decoder.h.1.crossattention.q_attn.weight"} <= set(model.state_dict())
    assert model.num_params() == sum(value.size for value in map(np.asarray, (p.array for p in model.parameters())))


def test_projections_to_a_residual_stream_begin_small():
    tl.manual_seed(0)
    model = EncoderDecoder(ModelConfig(vocab_size=9, block_size=9, n_layer=3, n_head=2, n_embd=64))
    for side, projections in ((model.encoder, 6), (model.decoder, 9)):
        for name, parameter in side.named_parameters():
            if name.endswith("c_proj.weight"):
                np.testing.assert_allclose(parameter.std().item(), 0.02 / projections**0.5, rtol=0.1, err_msg=name)


def test_dropout_acts_in_training_alone():
    model = make(SOURCE | {"dropout": 0.5}, dropout=0.5)
    args = tl.tensor(ids(1, 5, V=11)), tl.tensor(ids(1, 4))
    with tl.no_grad():
        assert np.array_equal(model(*args)[0].numpy(), model(*args)[0].numpy())
        model.train()
        assert not np.array_equal(model(*args)[0].numpy(), model(*args)[0].numpy())
        translate(model, [[1]], 0)
    assert model.training


S, T = tl.tensor([[1, 2, 3]]), tl.tensor([[0, 4]])
FALSE, LATE, EARLY = (tl.tensor([row]) for row in ([False] * 3, [True] * 3, [False, True, False]))


@pytest.mark.parametrize(("args", "error", "message"), [
    (([[1]], T), TypeError, "expected a Tensor of source ids, got list. Write tl.tensor"),
    ((S.double(), T), TypeError, "expected source ids that are integers, got float64"),
    ((S[0], T), ValueError, r"expected source ids of shape \(B, T\) with at least one token, got \(3,\)"),
    ((S[:, :0], T), ValueError, r"with at least one token, got \(1, 0\)"),
    ((S, T[:, :0]), ValueError, r"expected target ids .* with at least one token, got \(1, 0\)"),
    ((tl.zeros((1, 10), dtype=tl.int64), T), ValueError, "at most block_size = 9 source ids, got 10. Crop"),
    ((S, tl.zeros((1, 7), dtype=tl.int64)), ValueError, "at most block_size = 6 target ids, got 7"),
    ((tl.tensor([[11]]), T), IndexError, "id 11 at position"),
    ((S, tl.tensor([[-1]])), IndexError, "id -1 at position"),
    ((S, tl.tensor([[0], [1]])), None, None),
    ((tl.tensor([[1], [2]]), tl.tensor([[0], [1], [2]])), ValueError, "a target for each of 2 sources, got 3"),
    ((S, T, [[1, 2]]), TypeError, "expected labels that are a Tensor of integers, got list"),
    ((S, T, T.double()), TypeError, "labels that are a Tensor of integers, got float64"),
    ((S, T, S), ValueError, r"labels of the shape of the tokens, \(1, 2\), got \(1, 3\)"),
    ((S, T, tl.tensor([[1, 7]])), IndexError, "target 7 is out of range"),
    ((S, T, None, S), TypeError, "expected a Tensor of booleans as source_key_padding_mask, got int64"),
    ((S, T, None, [[False] * 3]), TypeError, "as source_key_padding_mask, got list"),
    ((S, T, None, FALSE[:, :2]), ValueError, r"in the shape of its tokens, \(1, 3\), got \(1, 2\)"),
    ((S, T, None, LATE), ValueError, "a token at the start of each sequence, got padding in row 0 of source_key_"),
    ((S, T, None, EARLY), ValueError, "padding at the end of a sequence, got a token after it in source_key_"),
    ((S, T, None, None, FALSE), ValueError, r"target_key_padding_mask in the shape of its tokens, \(1, 2\)"),
])  # fmt: skip
def test_a_wrong_argument_is_one_clear_error(args, error, message):
    model = make()
    if error is None:
        assert model(*args)[0].shape == (2, 1, 7)
        return
    with pytest.raises(error, match=message):
        model(*args)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"sources": [[1], []]}, TokenError, "expected 1 to block_size = 9 tokens in each source, got 0 in source 1"),
    ({"sources": [[1] * 10]}, TokenError, "got 10 in source 0"),
    ({"sources": [[11]]}, TokenError, "token id 11 at position 0 is outside the vocabulary of 11 tokens"),
    ({"start_token": 7}, TokenError, "token id 7 at position 0 is outside the vocabulary of 7"),
    ({"stop_tokens": ["a"]}, TokenError, "expected token ids"),
    ({"num_beams": 0}, ValueError, "translate: expected num_beams >= 1, got 0"),
    ({"max_new_tokens": 7}, ValueError, "expected max_new_tokens <= block_size = 6, got 7"),
    ({"max_new_tokens": 0}, ValueError, "expected max_new_tokens >= 1, got 0"),
    ({"length_penalty": float("nan")}, ValueError, "translate: expected a finite length_penalty, got nan"),
    ({"model": GPT(ModelConfig(**TARGET))}, TypeError, "expected an EncoderDecoder, got GPT. GPT has `generate`"),
])  # fmt: skip
def test_a_wrong_option_of_translate_is_one_clear_error(options, error, message):
    with pytest.raises(error, match=message):
        translate(**{"model": make(), "sources": [[1]], "start_token": 0} | options)


def test_no_source_has_no_target():
    assert translate(make(), [], 0) == []


def test_a_search_of_a_gpt_refuses_an_encoder_decoder():
    with pytest.raises(TypeError, match="expected a GPT as the model"):
        beam_search(make(), [1])


@pytest.mark.parametrize(("options", "message"), [
    ({"previous_tokens": 2}, "expected model.previous_tokens = 0, got 2. GPT alone has it"),
    ({"sliding_window": 2}, "expected model.sliding_window = 0, got 2"),
    ({"position": "rope", "rope_scaling": "dynamic", "rope_factor": 2.0}, "got model.rope_scaling = 'dynamic'"),
])  # fmt: skip
def test_an_option_that_needs_a_text_from_left_to_right_is_refused(options, message):
    for build in (lambda c: EncoderDecoder(c), lambda c: EncoderDecoder(ModelConfig(**TARGET), c), Encoder):
        with pytest.raises(ConfigError, match=message):
            build(ModelConfig(**TARGET | options))


def test_an_option_without_effect_is_refused():
    with pytest.raises(ConfigError, match="an encoder has no head"):
        EncoderDecoder(ModelConfig(**TARGET), ModelConfig(**SOURCE, tied=False))
    with pytest.raises(TypeError, match=r"Write EncoderDecoder\(ModelConfig\(\*\*values\)\)"):
        EncoderDecoder(TARGET)


def test_a_cache_records_no_gradients():
    model = make()
    with pytest.raises(tl.GraphError, match="EncoderDecoder: a cache records no gradients"):
        model.decode(T, model.encode(S), KVCache(model))


def test_sequences_are_padded_to_a_multiple():
    idx, padding = pad_sequences([[1, 2, 3, 4, 5], [6]], 9, pad_to_multiple_of=4)
    assert idx.tolist() == [[1, 2, 3, 4, 5, 9, 9, 9], [6] + [9] * 7]
    assert padding.tolist() == [[False] * 5 + [True] * 3, [False] + [True] * 7]
    for value in (0, -1, 1.5):
        with pytest.raises(ValueError, match="pad_sequences: expected pad_to_multiple_of >= 1, got"):
            pad_sequences([[1]], pad_to_multiple_of=value)


@pytest.mark.parametrize(("sequences", "message"), [
    ([], "at least one id each, got none. Leave"), ([[1], []], "got none in sequence 1"),
    ([[1.5]], r"integers \(T,\) in sequence 0, got float64\(1,\)"), (["ab"], "in sequence 0, got <U2"),
])  # fmt: skip
def test_sequences_that_cannot_be_padded_are_one_clear_error(sequences, message):
    with pytest.raises(ValueError, match=message):
        pad_sequences(sequences)
