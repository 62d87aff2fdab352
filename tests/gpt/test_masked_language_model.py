"""Test the masked language model: what its positions see, its loss, and how tokens are hidden."""

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import ConfigError, ModelConfig
from gpt.model import MaskedLanguageModel, mask_tokens, pad_sequences

CONFIG = {"vocab_size": 7, "block_size": 9, "n_layer": 2, "n_head": 2, "n_embd": 8}
VARIANTS = {
    "plain": {},
    "bert": {"bias": True, "gelu": "erf", "tied": False},
    "rope": {"position": "rope", "norm": "rms", "mlp": "swiglu", "n_kv_head": 1},
}


@pytest.fixture(params=VARIANTS)
def model(request):
    return make(**VARIANTS[request.param])


def make(**options):
    """Return a model in float64 with weights far from their initial values."""
    tl.manual_seed(3)
    rng = np.random.default_rng(0)
    model = MaskedLanguageModel(ModelConfig(**CONFIG | options)).to(tl.float64).eval()
    for parameter in model.parameters():
        parameter.array += rng.normal(0, 0.4, parameter.shape)
    return model


def ids(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 7, shape)


# --- the model


def torch_logits(torch, weights, idx, padding):
    """Return the logits of PyTorch's own encoder layers with these weights."""
    C = weights["encoder.wte.weight"].shape[1]
    x = weights["encoder.wte.weight"][idx] + weights["encoder.wpe.weight"][: idx.shape[1]]
    for number in range(2):
        layer = torch.nn.TransformerEncoderLayer(C, 2, 4 * C, 0.0, "gelu", batch_first=True, norm_first=True)
        names = {
            "self_attn.in_proj_": "attn.c_attn.", "self_attn.out_proj.": "attn.c_proj.", "linear1.": "mlp.c_fc.",
            "linear2.": "mlp.c_proj.", "norm1.": "ln_1.", "norm2.": "ln_2.",
        }  # fmt: skip
        values = {
            theirs + kind: weights[f"encoder.h.{number}.{ours}{kind}"]
            for theirs, ours in names.items() for kind in ("weight", "bias")
        }  # fmt: skip
        x = torch.func.functional_call(layer.double(), values, (x,), {"src_key_padding_mask": padding})
    gain, bias = (weights[f"encoder.ln_f.{kind}"] for kind in ("weight", "bias"))
    return torch.nn.functional.layer_norm(x, (C,), gain, bias) @ weights["encoder.wte.weight"].T


def test_logits_loss_and_gradients_agree_with_layers_of_torch():
    torch = pytest.importorskip("torch")
    model = make(bias=True).train()
    idx, labels = ids(3, 6, seed=1), ids(3, 6, seed=2)
    labels[:, 1:3] = -1
    padding = np.arange(6) >= np.array([[6], [4], [1]])
    weights = {name: torch.tensor(p.numpy(), requires_grad=True) for name, p in model.state_dict().items()}
    theirs = torch_logits(torch, weights, torch.tensor(idx), torch.tensor(padding))
    counted = torch.tensor(np.where(padding, -1, labels))
    their_loss = torch.nn.functional.cross_entropy(theirs.reshape(-1, 7), counted.reshape(-1), ignore_index=-1)
    their_loss.backward()
    logits, loss = model(*map(tl.tensor, (idx, labels, padding)))
    loss.backward()
    np.testing.assert_allclose(logits.detach().numpy(), theirs.detach().numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(loss.item(), their_loss.item(), rtol=0, atol=1e-12)
    for name, parameter in model.named_parameters():
        expected = weights[name].grad.numpy()
        np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=0, atol=1e-12, err_msg=name)


def test_each_position_sees_all(model):
    idx = ids(1, 6)
    with tl.no_grad():
        before = model(tl.tensor(idx))[0].numpy()
        for place in range(6):
            changed = idx.copy()
            changed[0, place] = (idx[0, place] + 1) % 7
            assert (model(tl.tensor(changed))[0].numpy() != before).any(-1).all()


def test_padding_changes_nothing(model):
    texts, labels = [ids(n, seed=n) for n in (2, 9, 5)], [ids(n, seed=10 + n) for n in (2, 9, 5)]
    idx, padding = pad_sequences(texts, 3)
    with tl.no_grad():
        logits, loss = model(idx, pad_sequences(labels, 5)[0], padding)
        total = 0.0
        for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
            alone, its_loss = model(tl.tensor(text[None]), tl.tensor(label[None]))
            np.testing.assert_allclose(logits[row, : len(text)].numpy(), alone[0].numpy(), rtol=0, atol=1e-12)
            total += its_loss.item() * len(text) / 16
    np.testing.assert_allclose(loss.item(), total, rtol=1e-12)


def test_the_loss_ignores_tokens_that_were_not_chosen(model):
    idx, labels = tl.tensor(ids(2, 6)), np.full((2, 6), -1)
    labels[0, 2], labels[1, 5] = 4, 0
    with tl.no_grad():
        logits, loss = model(idx, tl.tensor(labels))
        expected = -(logits.log_softmax(-1)[0, 2, 4] + logits.log_softmax(-1)[1, 5, 0]) / 2
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-12)


def test_the_state_is_saved_and_loaded(tmp_path):
    model, other = make(tied=False), make(tied=False, init_std=0.5)
    tl.save(model.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(tl.load(tmp_path / "model.safetensors"))
    idx = tl.tensor(ids(2, 5))
    np.testing.assert_array_equal(model(idx)[0].detach().numpy(), other(idx)[0].detach().numpy())
    assert {"encoder.wte.weight", "encoder.h.1.attn.c_attn.weight", "lm_head.weight"} <= set(model.state_dict())
    assert model.num_params() == sum(p.numel() for p in model.parameters())


def test_it_learns_a_token_from_both_neighbours():
    """The middle token is the larger one of its neighbours, which one of them alone says in 17 of 25 cases at most."""
    tl.manual_seed(0)
    model = MaskedLanguageModel(ModelConfig(vocab_size=6, block_size=3, n_layer=1, n_head=2, n_embd=32))
    optimizer, rng = tl.optim.AdamW(model.parameters(), lr=1e-2), np.random.default_rng(0)
    for _ in range(150):
        ends = rng.integers(0, 5, (32, 2))
        idx, labels = np.full((32, 3), 5), np.full((32, 3), -1)
        idx[:, ::2], labels[:, 1] = ends, ends.max(1)
        loss = model(tl.tensor(idx), tl.tensor(labels))[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pairs = np.array([(a, 5, b) for a in range(5) for b in range(5)])
    with tl.no_grad():
        found = model(tl.tensor(pairs))[0][:, 1].argmax(-1).numpy()
    assert (found == pairs[:, ::2].max(1)).mean() > 0.9


IDX = tl.tensor([[1, 2, 3]])


@pytest.mark.parametrize(("args", "error", "message"), [
    (([[1]],), TypeError, "MaskedLanguageModel: expected a Tensor of token ids, got list"),
    ((IDX[0],), ValueError, r"expected token ids of shape \(B, T\) with at least one token, got \(3,\)"),
    ((tl.zeros((1, 10), dtype=tl.int64),), ValueError, "at most block_size = 9 token ids, got 10"),
    ((tl.tensor([[7]]),), IndexError, "id 7 at position"),
    ((IDX, IDX[:, :2]), ValueError, r"labels of the shape of the tokens, \(1, 3\), got \(1, 2\)"),
    ((IDX, None, IDX), TypeError, "expected a Tensor of booleans as key_padding_mask, got int64"),
])  # fmt: skip
def test_a_wrong_argument_is_one_clear_error(args, error, message):
    with pytest.raises(error, match=message):
        make()(*args)


def test_an_option_of_gpt_alone_is_refused():
    with pytest.raises(ConfigError, match=r"MaskedLanguageModel: expected model.sliding_window = 0, got 3"):
        MaskedLanguageModel(ModelConfig(**CONFIG, sliding_window=3))
    with pytest.raises(TypeError, match=r"Write MaskedLanguageModel\(config.model\)|ModelConfig\(\*\*values\)"):
        MaskedLanguageModel(CONFIG)


# --- hidden tokens


@pytest.mark.parametrize(("length", "probability", "count"), [(100, 0.15, 15), (7, 0.15, 1), (1, 0.01, 1), (4, 1, 4)])
def test_a_share_of_each_sequence_is_chosen(length, probability, count):
    idx = tl.tensor(ids(50, length))
    tl.manual_seed(0)
    hidden, labels = mask_tokens(idx, 7, 7, probability)
    assert hidden.shape == labels.shape == (50, length)
    chosen = labels.numpy() != -1
    assert (chosen.sum(1) == count).all()
    assert (labels.numpy()[chosen] == idx.numpy()[chosen]).all()
    assert (hidden.numpy()[~chosen] == idx.numpy()[~chosen]).all()


def test_chosen_tokens_are_hidden_replaced_or_kept():
    """Of n tokens with probability p, the standard deviation is sqrt(p (1 - p) / n)."""
    V, n = 50, 40_000
    idx = np.random.default_rng(1).integers(0, V, (400, 100))
    hidden, labels = mask_tokens(tl.tensor(idx), V, V, 1.0, generator=tl.Generator().manual_seed(1))
    assert (labels.numpy() == idx).all()
    kinds = hidden.numpy()
    assert abs((kinds == V).mean() - 0.8) < 5 * (0.8 * 0.2 / n) ** 0.5
    # A random token is the one that was there once in V times.
    assert abs((kinds == idx).mean() - (0.1 + 0.1 / V)) < 5 * (0.1 * 0.9 / n) ** 0.5
    replaced = kinds[(kinds != V) & (kinds != idx)]
    assert set(replaced.tolist()) == set(range(V))
    # Each place is chosen as often as another one.
    tl.manual_seed(2)
    _, labels = mask_tokens(tl.tensor(ids(4000, 10)), 7, 7, 0.2)
    assert np.abs((labels.numpy() != -1).mean(0) - 0.2).max() < 5 * (0.2 * 0.8 / 4000) ** 0.5


def test_padding_is_never_chosen_and_does_not_count():
    idx, padding = pad_sequences([ids(n, seed=n) for n in (3, 40, 20)])
    for seed in range(20):
        hidden, labels = mask_tokens(idx, 7, 7, 0.5, padding, tl.Generator().manual_seed(seed))
        chosen = labels.numpy() != -1
        assert chosen.sum(1).tolist() == [2, 20, 10]
        assert not (chosen & padding.numpy()).any()
        assert (hidden.numpy()[padding.numpy()] == 0).all()


def test_a_generator_repeats_its_choice():
    draws = [mask_tokens(tl.tensor(ids(3, 9)), 7, 7, 0.5, None, tl.Generator().manual_seed(s)) for s in (1, 1, 2)]
    same, other = ([np.array_equal(a.numpy(), b.numpy()) for a, b in zip(draws[0], draw)] for draw in draws[1:])
    assert same == [True, True]
    assert not all(other)


@pytest.mark.parametrize("value", [0, 1.5, -0.1, float("nan"), True, "0.15"])
def test_a_probability_out_of_range_is_one_clear_error(value):
    with pytest.raises(ValueError, match="mask_tokens: expected a probability above 0 and at most 1, got"):
        mask_tokens(IDX, 7, 7, value)


def test_tokens_of_another_shape_are_one_clear_error():
    with pytest.raises(ValueError, match=r"mask_tokens: expected token ids of shape \(B, T\)"):
        mask_tokens(IDX[0], 7, 7)
