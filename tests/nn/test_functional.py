"""nn.functional: values and gradients of first and second order compared with PyTorch's, and every error."""

import math
import re

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.backends.registry import describe_array

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def seeded():
    tl.manual_seed(0)


def randn(*shape):
    return RNG.standard_normal(shape)


def agree(f, *arrays, tol=1e-12, second=True):
    """Check that `f(library, F, *tensors)`, its gradients and their gradients are the same in both libraries."""
    torch = pytest.importorskip("torch")
    mine = [tl.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    theirs = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    out, expected = f(tl, F, *mine), f(torch, torch.nn.functional, *theirs)
    assert out.shape == tuple(expected.shape)
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=tol, atol=tol)
    if not expected.requires_grad:
        assert not out.requires_grad
        return
    cotangent = randn(*out.shape)
    leaves = [k for k, x in enumerate(theirs) if x.requires_grad]
    got = tl.autograd.grad(out, [mine[k] for k in leaves], tl.tensor(cotangent), create_graph=True, allow_unused=True)
    wanted = torch.autograd.grad(
        expected, [theirs[k] for k in leaves], torch.tensor(cotangent), create_graph=True, allow_unused=True
    )
    for g, w in zip(got, wanted, strict=True):
        assert (g is None) == (w is None)
        if w is not None:
            np.testing.assert_allclose(g.detach().numpy(), w.detach().numpy(), rtol=tol, atol=tol)
    if not second:
        return
    weights = [None if w is None else randn(*w.shape) for w in wanted]
    a = sum((g * tl.tensor(w)).sum() for g, w in zip(got, weights, strict=True) if g is not None)
    b = sum((g * torch.tensor(w)).sum() for g, w in zip(wanted, weights, strict=True) if g is not None)
    # If a gradient is constant, one library returns zeros and the other None; both are right.
    none = [None] * len(leaves)
    got = tl.autograd.grad(a, [mine[k] for k in leaves], allow_unused=True) if a.requires_grad else none
    wanted = torch.autograd.grad(b, [theirs[k] for k in leaves], allow_unused=True) if b.requires_grad else none
    for g, w in zip(got, wanted, strict=True):
        g, w = 0.0 if g is None else g.numpy(), 0.0 if w is None else w.numpy(force=True)
        np.testing.assert_allclose(g, w, rtol=10 * tol, atol=10 * tol)


# ---- affine maps, normalisation, dropout ------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3), (0, 3), (2, 0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, bias):
    arrays = [randn(*shape), randn(5, 3), *([randn(5)] if bias else [])]
    agree(lambda _, F, *a: F.linear(*a), *arrays)


@pytest.mark.parametrize(
    ("input", "weight", "bias"),
    [((2, 3), (5, 4), None), ((2, 3), (5, 3), (4,)), ((), (5, 3), None), ((3,), (3,), None)],
)
def test_linear_error_shows_the_shapes_that_do_not_fit(input, weight, bias):
    args = [tl.zeros(s) for s in (input, weight, bias) if s is not None]
    with pytest.raises(tl.ShapeError, match=re.escape(f"linear({describe_array(args[0].array)}, ")):
        F.linear(*args)


def test_linear_of_two_dtypes_is_an_error():
    with pytest.raises(tl.DTypeError, match=r"linear.*float64"):
        F.linear(tl.zeros(2, 3), tl.zeros(5, 3, dtype=tl.float64))


@pytest.mark.parametrize(
    ("shape", "normalized"), [((4, 3), 3), ((2, 4, 3), (3,)), ((2, 4, 3), (4, 3)), ((3,), 3), ((0, 3), 3)]
)
@pytest.mark.parametrize("affine", ["none", "weight", "both"])
def test_layer_norm(shape, normalized, affine):
    size = normalized if isinstance(normalized, tuple) else (normalized,)
    extra = [randn(*size) for _ in range({"none": 0, "weight": 1, "both": 2}[affine])]
    agree(lambda _, F, x, *wb: F.layer_norm(x, size, *wb, eps=1e-3), randn(*shape), *extra, tol=1e-11)


@pytest.mark.parametrize(("shape", "normalized"), [((4, 3), (3,)), ((2, 4, 3), (4, 3))])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("eps", [None, 1e-3])
def test_rms_norm(shape, normalized, affine, eps):
    extra = [randn(*normalized)] if affine else []
    agree(lambda _, F, x, *w: F.rms_norm(x, normalized, *w, eps=eps), randn(*shape), *extra, tol=1e-11)


def test_wrong_arguments_of_normalisation_are_errors():
    with pytest.raises(tl.ShapeError, match=r"layer_norm\(float32\(2, 3\)\).*\(4,\)"):
        F.layer_norm(tl.zeros(2, 3), 4)
    with pytest.raises(tl.ShapeError, match=r"rms_norm.*weight"):
        F.rms_norm(tl.zeros(2, 3), 3, tl.zeros(2))
    with pytest.raises(tl.DTypeError, match="layer_norm"):
        F.layer_norm(tl.zeros(2, 3, dtype=tl.int64), 3)
    with pytest.raises(tl.DTypeError, match="rms_norm"):
        F.rms_norm(tl.zeros(2, 3, dtype=tl.int64), 3)


def test_dropout_drops_a_fraction_and_scales_the_rest():
    x = tl.ones(100, 1000, requires_grad=True)
    y = F.dropout(x, 0.3)
    kept = y.detach().numpy() != 0
    assert abs(kept.mean() - 0.7) < 0.01  # 0.01 is more than 6 standard deviations
    np.testing.assert_allclose(y.detach().numpy()[kept], 1 / 0.7, rtol=1e-6)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())


def test_dropout_with_probability_0_and_1():
    x = tl.randn(4, 5)
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert (F.dropout(x, 1.0) == 0).all()


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan, "half", True])
def test_dropout_of_a_wrong_probability_is_an_error(p):
    with pytest.raises(ValueError, match="dropout: p must be a number from 0 to 1"):
        F.dropout(tl.ones(3), p)


def test_dropout_of_integers_is_an_error():
    with pytest.raises(tl.DTypeError, match="dropout"):
        F.dropout(tl.ones(3, dtype=tl.int64))


# ---- ids --------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding_idx", [None, 1, -3])
@pytest.mark.parametrize("shape", [(), (4,), (2, 5), (0,)])
def test_embedding(padding_idx, shape):
    ids = RNG.integers(0, 4, shape)
    agree(lambda _, F, ids, w: F.embedding(ids, w, padding_idx), np.asarray(ids), randn(4, 3))


def test_embedding_error_shows_the_index_out_of_range():
    with pytest.raises(IndexError, match=r"embedding.*\b9\b.*\b4\b"):
        F.embedding(tl.tensor([0, 9]), tl.zeros(4, 3))
    with pytest.raises(IndexError, match=r"embedding.*-1\b"):
        F.embedding(tl.tensor([0, -1]), tl.zeros(4, 3))
    with pytest.raises(tl.DTypeError, match="embedding"):
        F.embedding(tl.tensor([0.0]), tl.zeros(4, 3))
    with pytest.raises(TypeError, match="embedding: input must be a Tensor"):
        F.embedding([0], tl.zeros(4, 3))


def test_one_hot():
    agree(lambda _, F, x: F.one_hot(x, 4), RNG.integers(0, 4, (2, 3)))
    agree(lambda _, F, x: F.one_hot(x), RNG.integers(0, 4, (2, 3)))
    with pytest.raises(IndexError, match="one_hot"):
        F.one_hot(tl.tensor([4]), 4)


# ---- activations ------------------------------------------------------------------------------

ACTIVATIONS = {
    "relu": lambda F, x: F.relu(x),
    "gelu": lambda F, x: F.gelu(x),
    "gelu_tanh": lambda F, x: F.gelu(x, approximate="tanh"),
    "silu": lambda F, x: F.silu(x),
    "sigmoid": lambda F, x: F.sigmoid(x),
    "tanh": lambda F, x: F.tanh(x),
    "softplus": lambda F, x: F.softplus(x, beta=2.0, threshold=3.0),
    "leaky_relu": lambda F, x: F.leaky_relu(x, negative_slope=0.2),
    "elu": lambda F, x: F.elu(x, alpha=0.7),
    "softmax": lambda F, x: F.softmax(x, dim=-1),
    "softmax_0": lambda F, x: F.softmax(x, dim=0),
    "log_softmax": lambda F, x: F.log_softmax(x, dim=1),
    "normalize": lambda F, x: F.normalize(x),
    "normalize_1": lambda F, x: F.normalize(x, p=1.0, dim=0),
}


@pytest.mark.filterwarnings("ignore:nn.functional.(tanh|sigmoid) is deprecated")
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    agree(lambda _, F, x: ACTIVATIONS[name](F, x), 3 * randn(4, 5), tol=1e-11)


def test_softmax_dtype_and_dims():
    x = tl.tensor([[1, 2], [3, 4]])
    assert F.softmax(x, 1, dtype=tl.float64).dtype == tl.float64
    with pytest.raises(IndexError, match="softmax"):
        F.softmax(tl.zeros(2, 3), 2)
    with pytest.raises(tl.DTypeError, match=r"softmax.*int64"):
        F.softmax(x, 0)
    with pytest.raises(TypeError, match="dim"):
        F.softmax(x)


def test_another_approximation_of_gelu_is_an_error():
    with pytest.raises(ValueError, match="approximate"):
        F.gelu(tl.zeros(2), "sine")


# ---- losses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("loss", ["mse_loss", "l1_loss", "binary_cross_entropy_with_logits"])
def test_loss_of_equal_shapes(loss, reduction):
    agree(lambda _, F, x, y: getattr(F, loss)(x, y, reduction=reduction), randn(3, 4), randn(3, 4))


def test_binary_cross_entropy_with_weights_and_large_logits():
    x = np.array([[-800.0, 0.0, 800.0], [-1.0, 1.0, 30.0]])
    arrays = [x, RNG.random((2, 3)), RNG.random((2, 1)), RNG.random(3)]

    def f(lib, F, x, t, w, p):
        return F.binary_cross_entropy_with_logits(x, t, weight=w.detach(), pos_weight=p.detach())

    agree(f, *arrays)


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.binary_cross_entropy_with_logits])
def test_losses_do_not_broadcast_their_target(loss):
    with pytest.raises(tl.ShapeError, match=r"float32\(3, 1\), float32\(3,\)"):
        loss(tl.zeros(3, 1), tl.zeros(3))
    with pytest.raises(ValueError, match=r"reduction must be .* got 'average'"):
        loss(tl.zeros(3), tl.zeros(3), reduction="average")


CLASS_SHAPES = [((7, 5), (7,)), ((5,), ()), ((2, 5, 3), (2, 3)), ((2, 5, 3, 4), (2, 3, 4)), ((1, 5), (1,))]


def targets(shape, classes=5, ignored=True):
    t = np.asarray(RNG.integers(0, classes, shape))
    if ignored and t.size > 1:
        t.reshape(-1)[1] = -100
    return t


@pytest.mark.parametrize(("shape", "target"), CLASS_SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_of_indices(shape, target, reduction, smoothing, weighted):
    def f(lib, F, x, t, *w):
        weight = w[0].detach() if w else None
        return F.cross_entropy(x, t, weight=weight, reduction=reduction, label_smoothing=smoothing)

    agree(f, randn(*shape), targets(target), *([RNG.random(5)] if weighted else []))


@pytest.mark.parametrize("shape", [(7, 5), (5,), (2, 5, 3)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_of_probabilities(shape, reduction, smoothing, weighted):
    probabilities = RNG.dirichlet(np.ones(5), shape[:1] * (len(shape) > 1) + shape[2:])
    if len(shape) > 2:
        probabilities = np.moveaxis(probabilities, -1, 1)
    extra = [RNG.random(5)] if weighted else []

    def f(lib, F, x, t, *w):
        weight = w[0].detach() if w else None
        return F.cross_entropy(x, t, weight=weight, reduction=reduction, label_smoothing=smoothing)

    agree(f, randn(*shape), np.ascontiguousarray(probabilities), *extra)


def test_cross_entropy_with_another_ignore_index_and_with_all_ignored():
    agree(lambda _, F, x, t: F.cross_entropy(x, t, ignore_index=2), randn(6, 5), np.array([0, 2, 2, 4, 1, 3]))
    agree(lambda _, F, x, t: F.cross_entropy(x, t, ignore_index=2, reduction="sum"), randn(2, 5), np.array([2, 2]))
    x = tl.randn(2, 5, requires_grad=True)
    assert math.isnan(F.cross_entropy(x, tl.tensor([-100, -100])).item())


def test_cross_entropy_of_large_logits_is_finite():
    x = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    agree(lambda _, F, x, t: F.cross_entropy(x, t, reduction="none"), x, np.array([0, 2]))


@pytest.mark.parametrize(("shape", "target"), CLASS_SHAPES[:4])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_nll_loss(shape, target, reduction, weighted):
    extra = [RNG.random(5)] if weighted else []

    def f(lib, F, x, t, *w):
        return F.nll_loss(x, t, weight=w[0].detach() if w else None, reduction=reduction)

    agree(f, randn(*shape), targets(target), *extra)


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
def test_wrong_arguments_of_class_losses_are_errors(loss):
    x, t = tl.zeros(4, 5), tl.tensor([0, 1, 2, 3])
    with pytest.raises(IndexError, match=r"target 5 is out of range: expected class indices from 0 to 4"):
        loss(x, tl.tensor([0, 5, 1, 1]))
    with pytest.raises(IndexError, match=r"target -1 is out of range"):
        loss(x, tl.tensor([0, -1, -100, 1]))
    with pytest.raises(tl.DTypeError, match=r"float32\(4, 5\), float32\(4,\).*integers"):
        loss(x, t.float())
    with pytest.raises(tl.ShapeError, match=r"int64\(3,\).*\(N, C\)"):
        loss(x, t[:3])
    with pytest.raises(tl.ShapeError, match=r"weight must have one entry for each class, \(5,\)"):
        loss(x, t, weight=tl.ones(4))
    with pytest.raises(tl.DTypeError, match="int64"):
        loss(x.long(), t)
    with pytest.raises(ValueError, match="reduction"):
        loss(x, t, reduction="batchmean")
    with pytest.raises(TypeError, match="target must be a Tensor, got list"):
        loss(x, [0, 1, 2, 3])


def test_wrong_label_smoothing_is_an_error():
    with pytest.raises(ValueError, match=r"label_smoothing must be a number from 0 to 1, got 1.5"):
        F.cross_entropy(tl.zeros(4, 5), tl.tensor([0, 1, 2, 3]), label_smoothing=1.5)


# ---- attention --------------------------------------------------------------------------------


def qkv(*batch, t=3, s=4, d=5, e=6):
    return randn(*batch, t, d), randn(*batch, s, d), randn(*batch, s, e)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention(batch, scale):
    agree(lambda _, F, q, k, v: F.scaled_dot_product_attention(q, k, v, scale=scale), *qkv(*batch), tol=1e-11)


@pytest.mark.parametrize("t", [1, 4, 6])
def test_causal_attention(t):
    agree(lambda _, F, q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), *qkv(2, t=t), tol=1e-11)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (1, 4)])
def test_masked_attention(shape):
    mask = RNG.random(shape) > 0.4
    mask[..., 0] = True
    sdpa = "scaled_dot_product_attention"
    agree(lambda _, F, q, k, v, m: getattr(F, sdpa)(q, k, v, attn_mask=m), *qkv(2), mask, tol=1e-11)
    agree(lambda _, F, q, k, v, m: getattr(F, sdpa)(q, k, v, attn_mask=m), *qkv(2), randn(*shape), tol=1e-11)


def test_attention_of_a_query_that_sees_nothing_is_zero():
    q, k, v = (tl.tensor(a, requires_grad=True) for a in qkv(2))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=tl.zeros(3, 4, dtype=tl.bool_))
    out.sum().backward()
    assert (out == 0).all()
    assert all((x.grad == 0).all() for x in (q, k, v))


def test_causal_and_mask_together():
    q, k, v = map(tl.tensor, qkv(t=4))
    padding = tl.tensor([True, True, False, True])
    both = F.scaled_dot_product_attention(q, k, v, attn_mask=padding, is_causal=True)
    one = F.scaled_dot_product_attention(q, k, v, attn_mask=padding & tl.ones(4, 4).tril().bool())
    np.testing.assert_allclose(both.numpy(), one.numpy(), rtol=1e-12)


def test_attention_dropout_keeps_the_mean_and_has_its_gradient():
    q, k, v = (tl.tensor(a, requires_grad=True) for a in qkv(2))
    plain = F.scaled_dot_product_attention(q, k, v).detach().numpy()
    draws = np.stack([F.scaled_dot_product_attention(q, k, v, dropout_p=0.2).detach().numpy() for _ in range(2000)])
    assert draws.std(0).min() > 0
    assert (abs(draws.mean(0) - plain) < 6 * draws.std(0) / math.sqrt(2000)).all()
    tl.manual_seed(3)
    F.scaled_dot_product_attention(q, k, v, dropout_p=0.5).sum().backward()
    eps, got = 1e-6, v.grad.numpy()
    w = v.detach().clone()
    w[0, 1, 2] += eps
    values = []
    for value in (v, w):
        tl.manual_seed(3)
        values.append(F.scaled_dot_product_attention(q, k, value, dropout_p=0.5).sum().item())
    assert abs((values[1] - values[0]) / eps - got[0, 1, 2]) < 1e-6


def test_wrong_arguments_of_attention_are_errors():
    q, k, v = map(tl.tensor, qkv(2))
    f = F.scaled_dot_product_attention
    with pytest.raises(tl.ShapeError, match=r"float64\(2, 3, 5\), float64\(2, 4, 6\)"):
        f(q, v, k)
    with pytest.raises(tl.ShapeError, match="attn_mask"):
        f(q, k, v, attn_mask=tl.zeros(4, 3, dtype=tl.float64))
    with pytest.raises(tl.DTypeError, match="attn_mask must hold booleans"):
        f(q, k, v, attn_mask=tl.zeros(3, 4, dtype=tl.int64))
    with pytest.raises(tl.DTypeError, match="float32"):
        f(q.float(), k, v)
    with pytest.raises(ValueError, match="dropout_p"):
        f(q, k, v, dropout_p=2)


# ---- padding and distances --------------------------------------------------------------------

PADS = [
    ((3, 4), (1, 2), "constant"), ((3, 4), (1, 2, 0, 3), "constant"), ((3, 4), (-1, 2, 1, -2), "constant"),
    ((4,), (2, 2), "constant"), ((1, 3, 4), (3, 2), "reflect"), ((1, 3, 4), (5, 2), "replicate"),
    ((1, 3, 4), (4, 2), "circular"), ((1, 1, 3, 4), (1, 2, 2, 1), "reflect"), ((1, 1, 3, 4), (1, 2, 3, 1), "replicate"),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "pad", "mode"), PADS)
def test_pad(shape, pad, mode):
    agree(lambda _, F, x: F.pad(x, pad, mode=mode), randn(*shape))
    if mode == "constant":
        agree(lambda _, F, x: F.pad(x, pad, value=1.5), randn(*shape))


def test_wrong_arguments_of_pad_are_errors():
    x = tl.zeros(2, 3)
    for widths in [(1,), (1, 1, 1, 1, 1, 1)]:
        with pytest.raises(tl.ShapeError, match="expected two widths for each of at most 2 dimensions"):
            F.pad(x, widths)
    with pytest.raises(tl.ShapeError, match="cut off more"):
        F.pad(x, (-2, -2))
    with pytest.raises(tl.ShapeError, match="at most 2"):
        F.pad(x, (3, 0), mode="reflect")
    with pytest.raises(ValueError, match="mode"):
        F.pad(x, (1, 1), mode="mirror")
    with pytest.raises(ValueError, match="value"):
        F.pad(x, (1, 1), mode="reflect", value=1.0)


def test_cosine_similarity():
    agree(lambda _, F, a, b: F.cosine_similarity(a, b), randn(3, 4), randn(3, 4), tol=1e-11)
    agree(lambda _, F, a, b: F.cosine_similarity(a, b, dim=0), randn(3, 4), randn(3, 1), tol=1e-11)


def test_attention_with_fewer_heads_of_keys_than_of_queries():
    rng = np.random.default_rng(0)
    q, k, v = (tl.tensor(rng.standard_normal(s)) for s in ((2, 4, 3, 5), (2, 2, 6, 5), (2, 1, 6, 7)))
    found = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    keys, values = (t.numpy()[:, [0, 0, i, i]] for t, i in ((k, 1), (v, 0)))
    expected = F.scaled_dot_product_attention(q, tl.tensor(keys), tl.tensor(values))
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    with pytest.raises(tl.ShapeError, match="enable_gqa expects a number of heads"):
        F.scaled_dot_product_attention(q, tl.ones(2, 3, 6, 5, dtype=tl.float64), v, enable_gqa=True)
