"""Layers and losses, compared with PyTorch's."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn


@pytest.fixture(autouse=True)
def seeded():
    tl.manual_seed(0)


# ---- layers against torch -----------------------------------------------------------------------

LAYERS = {
    "Linear": (lambda nn: nn.Linear(3, 4), (2, 5, 3)),
    "Linear without bias": (lambda nn: nn.Linear(3, 4, bias=False), (2, 3)),
    "LayerNorm": (lambda nn: nn.LayerNorm(3), (2, 5, 3)),
    "LayerNorm of two": (lambda nn: nn.LayerNorm((5, 3), eps=1e-3), (2, 5, 3)),
    "LayerNorm without bias": (lambda nn: nn.LayerNorm(3, bias=False), (2, 3)),
    "LayerNorm without affine": (lambda nn: nn.LayerNorm(3, elementwise_affine=False), (2, 3)),
    "RMSNorm": (lambda nn: nn.RMSNorm(3), (2, 3)),
    "RMSNorm with eps": (lambda nn: nn.RMSNorm((5, 3), eps=1e-3), (2, 5, 3)),
    "Identity": (lambda nn: nn.Identity(), (2, 3)),
    "Flatten": (lambda nn: nn.Flatten(), (2, 3, 4)),
    "Flatten some": (lambda nn: nn.Flatten(0, 1), (2, 3, 4)),
    "ReLU": (lambda nn: nn.ReLU(), (2, 3)),
    "GELU": (lambda nn: nn.GELU(), (2, 3)),
    "GELU tanh": (lambda nn: nn.GELU("tanh"), (2, 3)),
    "SiLU": (lambda nn: nn.SiLU(), (2, 3)),
    "Sigmoid": (lambda nn: nn.Sigmoid(), (2, 3)),
    "Tanh": (lambda nn: nn.Tanh(), (2, 3)),
    "Softplus": (lambda nn: nn.Softplus(2.0, 1.0), (2, 3)),
    "LeakyReLU": (lambda nn: nn.LeakyReLU(0.3), (2, 3)),
    "ELU": (lambda nn: nn.ELU(0.3), (2, 3)),
    "Softmax": (lambda nn: nn.Softmax(1), (2, 3)),
    "LogSoftmax": (lambda nn: nn.LogSoftmax(-1), (2, 3)),
    "Dropout in evaluation": (lambda nn: nn.Dropout(0.5).eval(), (2, 3)),
    "Sequential": (lambda nn: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), (2, 3)),
}


def copied(module, theirs):
    """Copy the weights of the torch module into ours, which must have the same names."""
    assert list(module.state_dict()) == list(theirs.state_dict())
    module.load_state_dict({name: tl.tensor(value.numpy()) for name, value in theirs.state_dict().items()})


@pytest.mark.parametrize("name", LAYERS)
def test_layer_agrees_with_torch(name):
    torch = pytest.importorskip("torch")
    make, shape = LAYERS[name]
    module, theirs = make(nn).double(), make(torch.nn).double()
    copied(module, theirs)
    array = np.random.default_rng(1).standard_normal(shape)
    x, y = tl.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    out, expected = module(x), theirs(y)
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    cotangent = np.random.default_rng(2).standard_normal(out.shape)
    out.backward(tl.tensor(cotangent))
    expected.backward(torch.tensor(cotangent))
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-11, atol=1e-12)
    for (_, p), (_, q) in zip(module.named_parameters(), theirs.named_parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-11, atol=1e-12)


def test_embedding_layer():
    torch = pytest.importorskip("torch")
    module, theirs = nn.Embedding(5, 3, padding_idx=1).double(), torch.nn.Embedding(5, 3, padding_idx=1).double()
    assert (module.weight[1] == 0).all()
    copied(module, theirs)
    ids = np.array([[0, 1, 1], [4, 0, 4]])
    out, expected = module(tl.tensor(ids)), theirs(torch.tensor(ids))
    np.testing.assert_array_equal(out.detach().numpy(), expected.detach().numpy())
    (out * out).sum().backward()
    (expected * expected).sum().backward()
    np.testing.assert_allclose(module.weight.grad.numpy(), theirs.weight.grad.numpy(), rtol=1e-12)
    with pytest.raises(ValueError, match="padding_idx 5 is out of range for 5 rows"):
        nn.Embedding(5, 3, padding_idx=5)


LOSSES = {
    "MSELoss": (lambda nn, t: nn.MSELoss(), "same"),
    "L1Loss": (lambda nn, t: nn.L1Loss(reduction="sum"), "same"),
    "BCEWithLogitsLoss": (lambda nn, t: nn.BCEWithLogitsLoss(pos_weight=t([0.5, 2.0, 3.0])), "same"),
    "HuberLoss": (lambda nn, t: nn.HuberLoss(delta=0.5), "same"),
    "SmoothL1Loss": (lambda nn, t: nn.SmoothL1Loss(reduction="sum", beta=2.0), "same"),
    "KLDivLoss": (lambda nn, t: nn.KLDivLoss(reduction="batchmean", log_target=True), "same"),
    "HingeEmbeddingLoss": (lambda nn, t: nn.HingeEmbeddingLoss(2.0), "signs"),
    "SoftMarginLoss": (lambda nn, t: nn.SoftMarginLoss(), "signs"),
    "MultiMarginLoss": (lambda nn, t: nn.MultiMarginLoss(2, 0.5, weight=t([0.5, 2.0, 3.0])), "classes"),
    "PairwiseDistance": (lambda nn, t: nn.PairwiseDistance(3.0), "same"),
    "CosineSimilarity": (lambda nn, t: nn.CosineSimilarity(dim=0), "same"),
    "NLLLoss": (lambda nn, t: nn.NLLLoss(weight=t([0.5, 2.0, 3.0]), ignore_index=1), "classes"),
    "CrossEntropyLoss": (lambda nn, t: nn.CrossEntropyLoss(ignore_index=1, label_smoothing=0.1), "classes"),
    "CrossEntropyLoss of probabilities": (lambda nn, t: nn.CrossEntropyLoss(reduction="sum"), "same"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_module_agrees_with_torch(name):
    torch = pytest.importorskip("torch")
    make, kind = LOSSES[name]
    module = make(nn, lambda v: tl.tensor(v, dtype=tl.float64))
    theirs = make(torch.nn, lambda v: torch.tensor(v, dtype=torch.float64))
    assert list(module.state_dict()) == list(theirs.state_dict())
    rng = np.random.default_rng(1)
    array = rng.standard_normal((4, 3))
    targets = {"same": rng.random((4, 3)), "classes": np.array([0, 1, 2, 2]), "signs": np.where(array > 0.3, -1.0, 1.0)}
    target = targets[kind]
    out, expected = module(tl.tensor(array), tl.tensor(target)), theirs(torch.tensor(array), torch.tensor(target))
    np.testing.assert_allclose(out.numpy(), expected.numpy(), rtol=1e-12)


TRIPLES = {
    "MarginRankingLoss": (lambda nn: nn.MarginRankingLoss(margin=0.5), (4,)),
    "CosineEmbeddingLoss": (lambda nn: nn.CosineEmbeddingLoss(margin=0.1), (4, 3)),
    "TripletMarginLoss": (lambda nn: nn.TripletMarginLoss(margin=2.0, p=3.0, swap=True), (4, 3)),
    "BCELoss": (lambda nn: nn.BCELoss(reduction="sum"), (4,)),
}


@pytest.mark.parametrize("name", TRIPLES)
def test_loss_module_of_several_inputs_agrees_with_torch(name):
    torch = pytest.importorskip("torch")
    make, shape = TRIPLES[name]
    rng = np.random.default_rng(1)
    signs = rng.choice([-1.0, 1.0], 4)
    arrays = [rng.random(shape), rng.random(shape), rng.random(shape) if "Triplet" in name else signs]
    arrays = arrays[:2] if name == "BCELoss" else arrays
    found = make(nn)(*map(tl.tensor, arrays)), make(torch.nn)(*map(torch.tensor, arrays))
    np.testing.assert_allclose(found[0].numpy(), found[1].numpy(), rtol=1e-12)


def test_options_are_checked_when_the_layer_is_made():
    for make in (nn.MSELoss, nn.CrossEntropyLoss):
        with pytest.raises(ValueError, match="reduction must be 'none', 'mean' or 'sum', got 'avg'"):
            make(reduction="avg")
    with pytest.raises(ValueError, match=r"Dropout: p must be a number from 0 to 1, got 1\.5"):
        nn.Dropout(1.5)
    with pytest.raises(ValueError, match="GELU: approximate"):
        nn.GELU("sine")
    with pytest.raises(ValueError, match="label_smoothing"):
        nn.CrossEntropyLoss(label_smoothing=-1)


def test_relu_in_place():
    x = tl.tensor([-1.0, 2.0], requires_grad=True)
    y = x * 3
    assert nn.ReLU(inplace=True)(y) is y
    assert y.tolist() == [0.0, 6.0]
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 3.0]
    assert nn.ReLU()(x).tolist() == [0.0, 2.0]
    assert x.tolist() == [-1.0, 2.0]


# ---- multi-head attention against torch -----------------------------------------------------------

T, S, N, E, H = 4, 5, 3, 6, 2


def attention_pair(**options):
    torch = pytest.importorskip("torch")
    module, theirs = nn.MultiheadAttention(E, H, **options), torch.nn.MultiheadAttention(E, H, **options)
    module.double(), theirs.double()
    rng = np.random.default_rng(0)
    with torch.no_grad():  # the initial biases are zeros, which would hide an error
        for p in theirs.parameters():
            p.copy_(torch.tensor(rng.standard_normal(tuple(p.shape))))
    copied(module, theirs)
    return torch, module, theirs


def run_both(torch, module, theirs, inputs, options, tol=1e-11):
    mine = [tl.tensor(a, requires_grad=True) for a in inputs]
    other = [torch.tensor(a, requires_grad=True) for a in inputs]
    if len(inputs) == 1:  # self-attention, which has its own code path
        mine, other = mine * 3, other * 3
    out, weights = module(*mine, **{k: tl.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()})
    options = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    expected, their_weights = theirs(*other, **options)
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=tol, atol=tol)
    assert (weights is None) == (their_weights is None)
    if weights is not None:
        np.testing.assert_allclose(weights.detach().numpy(), their_weights.detach().numpy(), rtol=tol, atol=tol)
    cotangent = np.random.default_rng(2).standard_normal(out.shape)
    out.backward(tl.tensor(cotangent))
    expected.backward(torch.tensor(cotangent))
    for x, y in zip(mine, other, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=tol, atol=tol)
    for p, q in zip(module.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=tol, atol=tol)


def inputs(*shapes):
    rng = np.random.default_rng(1)
    return [rng.standard_normal(s) for s in shapes]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_self_attention(need_weights, bias):
    run_both(*attention_pair(bias=bias), inputs((T, N, E)), {"need_weights": need_weights})


@pytest.mark.parametrize("need_weights", [True, False])
def test_cross_attention_batch_first(need_weights):
    pair = attention_pair(batch_first=True)
    run_both(*pair, inputs((N, T, E), (N, S, E), (N, S, E)), {"need_weights": need_weights})


@pytest.mark.parametrize("average", [True, False])
def test_cross_attention_of_other_widths(average):
    pair = attention_pair(kdim=7, vdim=8)
    run_both(*pair, inputs((T, N, E), (S, N, 7), (S, N, 8)), {"average_attn_weights": average})


def test_attention_without_a_batch():
    run_both(*attention_pair(), inputs((T, E), (S, E), (S, E)), {})
    padding = np.array([False, True, False, False, True])
    run_both(*attention_pair(), inputs((T, E), (S, E), (S, E)), {"key_padding_mask": padding})


PADDING = np.arange(S) >= np.array([[5], [3], [1]])
BOOLEAN = np.triu(np.ones((T, S), bool), 2)
NUMBERS = np.random.default_rng(4).standard_normal((T, S))
PER_HEAD = np.random.default_rng(5).random((N * H, T, S)) > 0.7
PER_HEAD[..., 0] = False


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    "masks",
    [
        {"key_padding_mask": PADDING},
        {"attn_mask": BOOLEAN},
        {"attn_mask": NUMBERS},
        {"attn_mask": PER_HEAD},
        {"key_padding_mask": PADDING, "attn_mask": BOOLEAN},
        {"key_padding_mask": np.where(PADDING, -3.0, 0.0), "attn_mask": NUMBERS},
    ],
    ids=lambda m: "+".join(f"{k}:{v.dtype}{v.ndim}" for k, v in m.items()),
)
def test_masked_attention(masks, need_weights):
    pair = attention_pair(batch_first=True)
    run_both(*pair, inputs((N, T, E), (N, S, E), (N, S, E)), {**masks, "need_weights": need_weights})


@pytest.mark.parametrize("need_weights", [True, False])
def test_causal_attention(need_weights):
    torch, module, theirs = attention_pair(batch_first=True)
    x = tl.tensor(inputs((N, T, E))[0])
    hidden = ~np.tri(T, dtype=bool)
    out, _ = module(x, x, x, is_causal=True, need_weights=need_weights)
    y = torch.tensor(x.numpy())
    expected, _ = theirs(y, y, y, attn_mask=torch.tensor(hidden), is_causal=True, need_weights=need_weights)
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_to_padding_only_is_the_bias_without_nan(need_weights):
    module = nn.MultiheadAttention(E, H, batch_first=True)
    nn.init.normal_(module.out_proj.bias)
    x = tl.randn(1, T, E, requires_grad=True)
    out, weights = module(x, x, x, key_padding_mask=tl.ones(1, T).bool(), need_weights=need_weights)
    np.testing.assert_allclose(out[0, 0].detach().numpy(), module.out_proj.bias.detach().numpy())
    out.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()
    if weights is not None:
        assert (weights == 0).all()


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_drops_weights_in_training_only(need_weights):
    module = nn.MultiheadAttention(E, H, dropout=0.5)
    x = tl.randn(T, N, E)
    outs = [module(x, x, x, need_weights=need_weights)[0].detach().numpy() for _ in range(2)]
    assert not np.array_equal(*outs)
    module.eval()
    outs = [module(x, x, x, need_weights=need_weights)[0].detach().numpy() for _ in range(2)]
    np.testing.assert_array_equal(*outs)


def test_wrong_arguments_of_attention_are_errors():
    with pytest.raises(ValueError, match="num_heads 4 must divide embed_dim 6"):
        nn.MultiheadAttention(6, 4)
    m = nn.MultiheadAttention(E, H, batch_first=True)
    x, y = tl.zeros(N, T, E), tl.zeros(N, S, E)
    with pytest.raises(tl.ShapeError, match=r"got query \(3, 4, 6\), key \(3, 5, 6\), value \(3, 4, 6\)"):
        m(x, y, x)
    with pytest.raises(tl.ShapeError, match="query"):
        m(x[:2], y, y)
    with pytest.raises(tl.ShapeError, match="query"):
        m(x[0], y, y)
    with pytest.raises(tl.ShapeError, match=r"key_padding_mask must be \(N, S\) = \(3, 5\)"):
        m(x, y, y, key_padding_mask=tl.zeros(5, 3).bool())
    with pytest.raises(tl.ShapeError, match=r"attn_mask must be \(T, S\) = \(4, 5\) or"):
        m(x, y, y, attn_mask=tl.zeros(5, 4).bool())
    with pytest.raises(tl.DTypeError, match=r"attn_mask must be bool .* or float32, got int64"):
        m(x, y, y, attn_mask=tl.zeros(4, 5, dtype=tl.int64))
