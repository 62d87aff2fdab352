"""Test the model against an independent one in PyTorch, and properties of any GPT."""

import gc
import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import Config, ModelConfig, OptimConfig
from gpt.model import GPT, KVCache, eval_mode, sinusoids
from gpt.model.size import parameter_count
from gpt.train import configure_optimizer
from tensorlite import nn
from tensorlite.testing import check_adjoint, check_grad

TINY = {"vocab_size": 13, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 12}
VARIANTS = {
    "plain": {},
    "bias": {"bias": True},
    "tanh": {"gelu": "tanh", "bias": True},
    "sinusoidal": {"position": "sinusoidal"},
    "one head": {"n_head": 1, "n_layer": 1},
}


@pytest.fixture(params=VARIANTS)
def config(request):
    return ModelConfig(**{**TINY, **VARIANTS[request.param]})


def make(config, seed=0, scatter=True, dtype=tl.float64):
    """Return a model whose weights are far from their initial values, so that every term matters."""
    tl.manual_seed(seed)
    model = GPT(config).to(dtype)
    if scatter:
        rng = np.random.default_rng(seed)
        state = {n: p.numpy() + rng.normal(0, 0.3, p.shape) for n, p in model.state_dict().items()}
        model.load_state_dict({n: tl.tensor(value.astype(dtype)) for n, value in state.items()})
    return model


def arrays(model):
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def ids(*shape, seed=0, V=13):
    return np.random.default_rng(seed).integers(0, V, shape)


# --- against PyTorch


@pytest.mark.parametrize("T", [8, 5, 1])
def test_logits_loss_and_gradients_agree_with_torch(config, T):
    pytest.importorskip("torch")
    from tests.support.torch_reference_gpt import TorchGPT

    model = make(config)
    oracle = TorchGPT(config, arrays(model))
    x, y = ids(3, T, seed=1), ids(3, T, seed=2)
    logits, loss = model(tl.tensor(x), tl.tensor(y))
    loss.backward()
    assert logits.shape == (3, T, 13)
    np.testing.assert_allclose(logits.detach().numpy(), oracle.logits(x).detach().numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(loss.item(), oracle.loss(x, y).item(), rtol=0, atol=1e-12)
    gradients = oracle.gradients(x, y)
    assert set(gradients) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        expected = gradients[name].numpy()
        np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=0, atol=1e-12, err_msg=name)


# --- structure


def test_gpt2_has_its_parameter_count_and_names():
    config = Config.load("gpt2").model
    assert parameter_count(config) == 124_439_808
    small = ModelConfig(**TINY, bias=True)
    model = GPT(small)
    assert model.num_params() == parameter_count(small) == sum(p.numel() for p in model.parameters())
    block = [
        "ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight",
        "attn.c_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias",
        "mlp.c_proj.weight", "mlp.c_proj.bias",
    ]  # fmt: skip
    names = ["wte.weight", "wpe.weight", *(f"h.{i}.{n}" for i in (0, 1) for n in block), "ln_f.weight", "ln_f.bias"]
    assert list(model.state_dict()) == names


def test_a_gpt2_model_has_its_parameter_count(monkeypatch):
    monkeypatch.setattr(GPT, "init_weights", lambda self: None)
    assert GPT(Config.load("gpt2").model).num_params() == 124_439_808


def test_parameter_count_of_every_variant(config):
    assert GPT(config).num_params() == parameter_count(config)


def test_initial_weights_follow_gpt2():
    tl.manual_seed(0)
    config = ModelConfig(vocab_size=100, block_size=50, n_layer=3, n_head=4, n_embd=64, bias=True)
    for name, p in GPT(config).named_parameters():
        value = p.detach().numpy()
        if name.endswith("bias"):
            assert not value.any(), name
        elif ".ln_" in name or name.startswith("ln_"):
            assert (value == 1).all(), name
        else:
            std = 0.02 / math.sqrt(6) if name.endswith("c_proj.weight") else 0.02
            assert abs(value.std() / std - 1) < 4 / math.sqrt(2 * value.size), name
            assert abs(value.mean()) < 4 * std / math.sqrt(value.size), name


def test_a_seed_determines_the_weights():
    a, b, c = (arrays(make(ModelConfig(**TINY), seed, scatter=False)) for seed in (1, 1, 2))
    assert all((a[name] == b[name]).all() for name in a)
    assert not (a["wte.weight"] == c["wte.weight"]).any()


def test_a_new_model_predicts_uniformly():
    model = make(ModelConfig(**TINY), scatter=False)
    loss = model(tl.tensor(ids(20, 8)), tl.tensor(ids(20, 8, seed=1)))[1]
    assert abs(loss.item() - math.log(13)) < 0.02


def test_the_head_is_the_token_embedding(config):
    model = make(config)
    unused = 12  # an id that is neither an input nor a target gets its gradient through the head alone
    model(tl.tensor(ids(2, 8, V=12)), tl.tensor(ids(2, 8, V=12)))[1].backward()
    assert model.wte.weight.grad.numpy()[unused].any()


def test_sinusoids():
    table = sinusoids(7, 6)
    assert table.shape == (7, 6)
    assert (table[0] == [0, 1, 0, 1, 0, 1]).all()
    np.testing.assert_allclose(table[3, 4:], [math.sin(3 / 10000 ** (4 / 6)), math.cos(3 / 10000 ** (4 / 6))])


# --- behaviour


def test_no_position_attends_to_later_ones(config):
    model = make(config)
    x = ids(1, 8)
    before = model(tl.tensor(x))[0].detach().numpy()
    for t in range(8):
        changed = x.copy()
        changed[0, t] = (changed[0, t] + 1) % 13
        after = model(tl.tensor(changed))[0].detach().numpy()
        assert (after[0, :t] == before[0, :t]).all()
        assert (after[0, t:] != before[0, t:]).any(axis=-1).all()


def test_a_shorter_context_gives_the_same_logits(config):
    model = make(config)
    x = ids(2, 8)
    whole = model(tl.tensor(x))[0].detach().numpy()
    part = model(tl.tensor(x[:, :5]))[0].detach().numpy()
    np.testing.assert_allclose(part, whole[:, :5], rtol=0, atol=1e-12)


def test_a_target_of_minus_one_is_ignored():
    model = make(ModelConfig(**TINY))
    x, y = ids(1, 8), ids(1, 8, seed=1)
    y[0, 3:] = -1
    some = model(tl.tensor(x), tl.tensor(y))[1].item()
    first = model(tl.tensor(x[:, :3]), tl.tensor(y[:, :3]))[1].item()
    assert abs(some - first) < 1e-12


def test_dropout_is_only_used_in_training():
    model = make(ModelConfig(**TINY, dropout=0.5))
    x = tl.tensor(ids(2, 8))
    assert (model(x)[0].detach().numpy() != model(x)[0].detach().numpy()).any()
    tl.manual_seed(5)
    first = model(x)[0].detach().numpy()
    tl.manual_seed(5)
    assert (model(x)[0].detach().numpy() == first).all()
    model.eval()
    same = make(ModelConfig(**TINY))
    assert (model(x)[0].detach().numpy() == same(x)[0].detach().numpy()).all()


@pytest.mark.parametrize("used", [True, False])
def test_dropout_of_attention_weights_is_an_option(used):
    model = make(ModelConfig(**TINY, dropout=0.5, attention_dropout=used))
    attention = model.h[0].attn
    attention.resid_dropout = nn.Identity()
    x = tl.tensor(np.random.default_rng(0).standard_normal((2, 8, 12)))
    in_training = attention(x).detach().numpy()
    assert (in_training != attention.eval()(x).detach().numpy()).any() == used


def test_eval_mode_restores_each_mode():
    model = make(ModelConfig(**TINY))
    model.h[1].eval()
    modes = [m.training for m in model.modules()]
    with pytest.raises(KeyError), eval_mode(model):
        assert not any(m.training for m in model.modules())
        assert not tl.is_grad_enabled()
        assert not model(tl.tensor(ids(1, 2)))[0].requires_grad
        raise KeyError
    assert [m.training for m in model.modules()] == modes
    assert len(set(modes)) == 2
    assert tl.is_grad_enabled()


def test_eval_mode_can_be_entered_again():
    model = make(ModelConfig(**TINY))
    evaluating = eval_mode(model)
    for mode in (True, False, True):
        model.train(mode)
        model.h[0].train(not mode)
        with evaluating:
            assert not any(m.training for m in model.modules())
            assert not tl.is_grad_enabled()
            model.h[1].train()  # after any change inside the block
        assert (model.training, model.h[0].attn.training, model.h[1].attn.training) == (mode, not mode, mode)
        assert tl.is_grad_enabled()


def test_the_last_of_overlapping_blocks_restores_the_modes():
    """Two threads generate with one model, which is in training mode."""
    model = make(ModelConfig(**TINY))
    second = eval_mode(model)
    with ThreadPoolExecutor(1) as other:
        for _ in range(2):
            with eval_mode(model):
                other.submit(second.__enter__).result()
            assert not any(m.training for m in model.modules())
            assert tl.is_grad_enabled()
            other.submit(second.__exit__).result()
            assert all(m.training for m in model.modules())


def test_float32_stays_float32():
    model = make(ModelConfig(**TINY, position="sinusoidal"), dtype=tl.float32)
    logits, loss = model(tl.tensor(ids(2, 8)), tl.tensor(ids(2, 8)))
    loss.backward()
    assert logits.dtype == loss.dtype == tl.float32
    assert {p.grad.dtype for p in model.parameters()} == {tl.float32}


# --- a cache of keys and values


def read(model, x, stops, cache=None):
    """Return the logits of x (B, T), read with a cache up to each of the stops in turn."""
    cache = KVCache(model, len(x)) if cache is None else cache
    with tl.no_grad():
        parts = [model(tl.tensor(x[:, i:j]), cache=cache)[0] for i, j in itertools.pairwise([0, *stops])]
    return np.concatenate([part.numpy() for part in parts], axis=1)


def count_nodes():
    return sum(issubclass(type(o), tl.autograd.Node) for o in gc.get_objects())


def splits(T):
    """Return every division of T tokens into pieces, as the positions where the pieces end."""
    return [[*cuts, T] for n in range(T) for cuts in itertools.combinations(range(1, T), n)]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_logits_with_a_cache_equal_those_without(config, batch_size):
    """The logits do not depend on how a whole context is cut into pieces."""
    model = make(config)
    x = ids(batch_size, 8)
    whole = model(tl.tensor(x))[0].detach().numpy()
    assert len(splits(8)) == 2**7
    for stops in splits(8):
        np.testing.assert_allclose(read(model, x, stops), whole, rtol=0, atol=1e-12, err_msg=str(stops))


def test_reducing_the_length_of_a_cache_forgets_tokens(config):
    """The cache can then be used for another text, or for another end of the same text."""
    model = make(config)
    x, y = ids(2, 8, seed=1), ids(2, 8, seed=2)
    y[:, :3] = x[:, :3]
    cache = KVCache(model, 2)
    read(model, x, [5, 8], cache)
    assert cache.length == 8
    expected = model(tl.tensor(y))[0].detach().numpy()
    cache.length = 3
    with tl.no_grad():
        rest = model(tl.tensor(y[:, 3:]), cache=cache)[0].numpy()
    np.testing.assert_allclose(rest, expected[:, 3:], rtol=0, atol=1e-12)
    cache.length = 0
    np.testing.assert_allclose(read(model, y, [2, 7], cache), expected[:, :7], rtol=0, atol=1e-12)


def test_the_loss_with_a_cache_covers_the_new_tokens():
    model = make(ModelConfig(**TINY))
    x, y = ids(2, 8, seed=1), ids(2, 8, seed=2)
    cache = KVCache(model, 2)
    with tl.no_grad():
        first = model(tl.tensor(x[:, :6]), tl.tensor(y[:, :6]), cache)[1].item()
        second = model(tl.tensor(x[:, 6:]), tl.tensor(y[:, 6:]), cache)[1].item()
    assert abs((6 * first + 2 * second) / 8 - model(tl.tensor(x), tl.tensor(y))[1].item()) < 1e-12


@pytest.mark.parametrize("dtype", [tl.float32, tl.float64])
@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_a_cache_has_the_models_dtype(dtype, position):
    model = make(ModelConfig(**TINY, position=position), dtype=dtype)
    cache = KVCache(model, 2)
    assert {t.dtype for t in (*cache.keys, *cache.values)} == {np.dtype(dtype)}
    assert {t.shape for t in (*cache.keys, *cache.values)} == {(2, 2, 8, 6)}
    assert read(model, ids(2, 8), [3, 5, 6, 8], cache).dtype == dtype


def test_a_cache_is_filled_in_place_and_keeps_no_graph():
    model = make(ModelConfig(**TINY))
    cache = KVCache(model)
    memory = [t.numpy() for t in (*cache.keys, *cache.values)]
    gc.collect()
    before = count_nodes()
    read(model, ids(1, 8), [4, 5, 6, 8], cache)
    assert count_nodes() == before
    for tensor, array in zip((*cache.keys, *cache.values), memory, strict=True):
        assert np.shares_memory(tensor.numpy(), array)
        assert array.any(axis=(0, 1, 3)).all()
        assert tensor.grad_fn is None
        assert not tensor.requires_grad


def test_a_failed_pass_leaves_the_cache_unchanged():
    model = make(ModelConfig(**TINY))
    x = ids(1, 8)
    cache = KVCache(model)
    read(model, x, [4], cache)
    with tl.no_grad(), pytest.raises(IndexError, match="13"):
        model(tl.tensor([[1, 13]]), cache=cache)
    assert cache.length == 4
    with tl.no_grad():
        rest = model(tl.tensor(x[:, 4:]), cache=cache)[0].numpy()
    np.testing.assert_allclose(rest, model(tl.tensor(x))[0].detach().numpy()[:, 4:], rtol=0, atol=1e-12)


def test_invalid_uses_of_a_cache_are_errors():
    model = make(ModelConfig(**TINY))
    cache = KVCache(model, 2)
    x = tl.tensor(ids(2, 5))
    with pytest.raises(tl.GraphError, match=r"a cache records no gradients. Call .* under no_grad\(\)"):
        model(x, cache=cache)
    with tl.no_grad():
        with pytest.raises(ValueError, match=r"expected a batch of 2 sequences, .* got 3\. Make"):
            model(tl.tensor(ids(3, 5)), cache=cache)
        model(x, cache=cache)
        with pytest.raises(ValueError, match=r"holds 5 of block_size = 8 positions, and 4 more do not fit\. Set"):
            model(x[:, :4], cache=cache)
        with pytest.raises(ValueError, match="expected at most block_size = 8 tokens, got 9"):
            model(tl.tensor(ids(2, 9)), cache=cache)
        assert cache.length == 5
        model(x[:, :3], cache=cache)
        with pytest.raises(ValueError, match="holds 8 of block_size = 8 positions, and 1 more do not fit"):
            model(x[:, :1], cache=cache)


def test_a_frozen_model_can_use_a_cache_with_gradients_enabled():
    """No parameter requires a gradient, so no gradient is lost."""
    model = make(ModelConfig(**TINY)).requires_grad_(False)
    assert tl.is_grad_enabled()
    x = ids(1, 8)
    cache = KVCache(model)
    parts = [model(tl.tensor(x[:, i : i + 2]), cache=cache)[0].numpy() for i in range(0, 8, 2)]
    np.testing.assert_allclose(np.hstack(parts), model(tl.tensor(x))[0].numpy(), rtol=0, atol=1e-12)


# --- invalid arguments


def test_invalid_arguments_are_errors():
    model = make(ModelConfig(**TINY))
    with pytest.raises(ValueError, match="expected at most block_size = 8 tokens, got 9"):
        model(tl.tensor(ids(1, 9)))
    with pytest.raises(ValueError, match=r"shape \(B, T\), got \(8,\)"):
        model(tl.tensor(ids(8)))
    with pytest.raises(IndexError, match="13"):
        model(tl.tensor([[0, 13]]))


# --- the optimizer


def test_only_matrices_decay():
    model = make(ModelConfig(**TINY, bias=True))
    config = OptimConfig(lr=0.5, beta1=0.8, beta2=0.7, eps=1e-3, weight_decay=0.25)
    optimizer = configure_optimizer(model, config)
    decayed, kept = optimizer.param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.25, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in kept["params"]} == {1}
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))
    for group in optimizer.param_groups:
        assert (group["lr"], tuple(group["betas"]), group["eps"]) == (0.5, (0.8, 0.7), 1e-3)


# --- the gradient of the whole model


def test_every_parameters_gradient_passes_the_adjoint_test(config):
    """<c, J v> = <J^T c, v> holds for each parameter alone and for all at once."""
    model = make(config)
    x, y = tl.tensor(ids(2, 8, seed=1)), tl.tensor(ids(2, 8, seed=2))
    named = dict(model.named_parameters())
    for name, p in named.items():
        check_adjoint(lambda: model(x, y)[1], wrt=[p], name=name)
    check_adjoint(lambda: model(x, y)[0], wrt=list(named.values()), name="logits")


def test_second_derivatives_of_a_model():
    """A gradient penalty differentiates the squared norm of the gradient."""
    model = make(ModelConfig(**{**TINY, "n_embd": 4, "vocab_size": 5}))
    x, y = tl.tensor(ids(1, 4, seed=1, V=5)), tl.tensor(ids(1, 4, seed=2, V=5))
    parameters = list(model.parameters())

    def penalty():
        with tl.enable_grad():  # values are computed under no_grad
            gradients = tl.autograd.grad(model(x, y)[1], parameters, create_graph=True)
        return tl.stack([g.square().sum() for g in gradients]).sum()

    check_grad(penalty, wrt=parameters, order=1, max_elements=16)


# --- invariances


def test_rows_of_a_batch_are_independent(config):
    model = make(config)
    x, y = ids(4, 8, seed=1), ids(4, 8, seed=2)
    order = np.array([2, 0, 3, 1])
    logits, loss = model(tl.tensor(x), tl.tensor(y))
    permuted, same = model(tl.tensor(x[order]), tl.tensor(y[order]))
    np.testing.assert_allclose(permuted.detach().numpy(), logits.detach().numpy()[order], rtol=0, atol=1e-12)
    assert abs(loss.item() - same.item()) < 1e-12
    alone = model(tl.tensor(x[2:3]))[0].detach().numpy()
    np.testing.assert_allclose(alone[0], logits.detach().numpy()[2], rtol=0, atol=1e-12)


def test_padding_after_the_text_changes_nothing(config):
    """The logits before it do not change, nor, with its targets ignored, the loss or any gradient."""
    model = make(config)
    x, y = ids(2, 5, seed=1), ids(2, 5, seed=2)
    padding = ids(2, 3, seed=3)
    outcome = []
    for tokens, targets in [(x, y), (np.hstack([x, padding]), np.hstack([y, np.full((2, 3), -1)]))]:
        model.zero_grad()
        logits, loss = model(tl.tensor(tokens), tl.tensor(targets))
        loss.backward()
        gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
        outcome.append((logits.detach().numpy()[:, :5], loss.item(), gradients))
    (short, loss, gradients), (padded, same, others) = outcome
    np.testing.assert_allclose(padded, short, rtol=0, atol=1e-12)
    assert abs(loss - same) < 1e-12
    for name, g in gradients.items():
        np.testing.assert_allclose(others[name], g, rtol=0, atol=1e-12, err_msg=name)


# --- arguments of a wrong kind


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("gpt2", r"got str 'gpt2'\. Write GPT\(Config.load\('gpt2'\)\.model\)"),
        (Config.load("gpt-nano"), r"Write GPT\(config\.model\)"),
        ({"n_layer": 1}, r"Write GPT\(ModelConfig\(\*\*values\)\)"),
        (None, r"gpt\.checkpoint\.load\(path\)\.model is a trained one"),
    ],
)
def test_what_is_not_a_model_config_says_what_to_write(config, message):
    with pytest.raises(TypeError, match=message):
        GPT(config)


@pytest.mark.parametrize(
    ("idx", "targets", "error", "message"),
    [
        (tl.zeros(1, 3, dtype=tl.int64), tl.zeros(1, 2, dtype=tl.int64), ValueError, r"\(1, 3\), got \(1, 2\)"),
        (tl.zeros(1, 3, dtype=tl.int64), tl.zeros(3, dtype=tl.int64), ValueError, r"got \(3,\)"),
        (tl.zeros(2, 3, dtype=tl.int64), tl.zeros(3, 2, dtype=tl.int64), ValueError, r"got \(3, 2\)"),
        (tl.zeros(2, 2, dtype=tl.int64), tl.zeros(1, 4, dtype=tl.int64), ValueError, r"got \(1, 4\)"),
        (tl.zeros(1, 3, dtype=tl.int64), tl.zeros(1, 3), TypeError, "integers, got float32. Use targets.long"),
        (tl.zeros(1, 3, dtype=tl.int64), [[0, 0, 0]], TypeError, "a Tensor of targets, got list"),
        ("text", None, TypeError, r"a Tensor of token ids, got str. Write tl.tensor\(tokenizer.encode"),
        (np.zeros((1, 3), np.int64), None, TypeError, "a Tensor of token ids, got ndarray"),
    ],
)
def test_targets_have_the_shape_of_the_tokens(idx, targets, error, message):
    with pytest.raises(error, match=message):
        make(ModelConfig(**TINY))(idx, targets)
