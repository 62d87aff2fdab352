"""Numbers that share a large offset: results and gradients depend on their differences alone."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.backends.cpu import kernels as cpu

OFFSETS = [0.0, 2.0**14, -(2.0**20), 2.0**30, -1e8, 1e30]
"""Whole numbers of at most 24 bits after a division by a power of 2, or beyond any difference: the sums are exact."""


@pytest.fixture(params=["compiled", "plain"])
def kernels(request: Any, monkeypatch: Any) -> None:
    """Run a test with compiled loops over arrays of any size, and without."""
    if request.param == "plain":
        monkeypatch.setattr(cpu, "_compiled_kernels", lambda: None)
    monkeypatch.setattr(cpu, "_MIN_COMPILED", 1)


def value_and_gradients(f: Any, *arrays: Any, order: int = 1) -> list[np.ndarray]:
    """Return f of the arrays and the gradients of its sum; at order 2 also those of the sum of their squares."""
    xs = [tl.tensor(a, requires_grad=True) for a in arrays]
    y = f(*xs)
    found = list(tl.autograd.grad(y.sum(), xs, create_graph=order == 2))
    if order == 2:
        found += tl.autograd.grad(tl.stack([(g * g).sum() for g in found]).sum(), xs)
    return [t.detach().numpy() for t in (y, *found)]


WEIGHT = [0.5, 1.0, 2.0, 0.25, 1.0]
Q = np.array([[0.1, 0.2, 0.3, 0.0, 0.4], [1.0, 0.0, 0.0, 0.0, 0.0]])
LOSSES = {
    "class indices": lambda x: F.cross_entropy(x, tl.tensor([1, 4])),
    "smoothing": lambda x: F.cross_entropy(x, tl.tensor([1, 4]), label_smoothing=0.1),
    "ignored": lambda x: F.cross_entropy(x, tl.tensor([-100, 4])),
    "weights": lambda x: F.cross_entropy(x, tl.tensor([1, 4]), tl.tensor(WEIGHT, dtype=x.dtype), label_smoothing=0.1),
    "probabilities": lambda x: F.cross_entropy(x, tl.tensor(Q, dtype=x.dtype)),
    "nll_loss": lambda x: F.nll_loss(F.log_softmax(x, 1), tl.tensor([1, 4])),
    "log_softmax": lambda x: F.log_softmax(x, 1)[:, 2],
    "softmax": lambda x: F.softmax(x, 1)[:, 2],
    "logsumexp": lambda x: tl.logsumexp(x, 1) - x[:, 3],
}
"""Functions of logits (2, 5) that a number added to all of them does not change."""


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_an_offset_of_all_logits_changes_nothing(name: str, dtype: Any) -> None:
    x = np.array([[0.0, 64.0, 64.0, 64.0, -64.0], [0.0, 0.0, 0.0, 0.0, 0.0]], dtype)
    for offset in OFFSETS:
        shifted = x + dtype(offset)
        alone = value_and_gradients(LOSSES[name], shifted - shifted[0, 0], order=2)  # what rounding leaves of x
        found = value_and_gradients(LOSSES[name], shifted, order=2)
        first = 1 if name == "logsumexp" else 0  # its value has the offset, so it is rounded
        for a, b in zip(found[first:], alone[first:], strict=True):
            np.testing.assert_allclose(a, b, rtol=3e-6 if dtype == np.float32 else 1e-13, atol=1e-7)
        np.testing.assert_allclose(found[1].sum(-1), 0, atol=1e-6)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [3, 8, 33, 1000])
def test_cross_entropy_of_equal_logits_is_the_log_of_their_number(size: int, dtype: Any) -> None:
    for offset in (0.0, 1e4, -6e4, *([] if dtype == np.float16 else [1e6, -1e8, 3e38])):
        x = np.full((2, size), offset, dtype)
        loss, gradient = value_and_gradients(lambda x: F.cross_entropy(x, tl.tensor([0, 2]), reduction="none"), x)
        expected = np.full((2, size), 1 / size)
        expected[0, 0] -= 1
        expected[1, 2] -= 1
        np.testing.assert_allclose(loss, math.log(size), rtol=2e-3 if dtype == np.float16 else 1e-6)
        np.testing.assert_allclose(gradient, expected, rtol=2e-3 if dtype == np.float16 else 1e-6, atol=1e-7)
        shares = value_and_gradients(lambda x: tl.logsumexp(x, 1), x)[1]
        np.testing.assert_allclose(shares, 1 / size, rtol=2e-3 if dtype == np.float16 else 1e-6)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", ["none", "-1e8", "smallest", "-inf", "bool", "rows"])
def test_attention_of_scores_that_are_equal(mask: str, causal: bool, dropout: float, dtype: Any) -> None:
    """Each query averages the values, so that only they, and the scores' differences, have a gradient."""
    T = S = 5
    rng = np.random.default_rng(0)
    q, k = np.ones((1, 2, T, 4), dtype), np.ones((1, 2, S, 4), dtype)
    v = rng.standard_normal((1, 2, S, 3)).astype(dtype)
    lowest = float(np.finfo(dtype).min)
    masks: dict[str, Any] = {
        "none": None, "-1e8": np.full((T, S), max(-1e8, lowest), dtype), "smallest": np.full((T, S), lowest, dtype),
        "-inf": np.where(np.eye(T, S) > 0, 0, -np.inf).astype(dtype), "bool": np.eye(T, S) > 0,
        "rows": np.where(np.arange(T)[:, None] == 2, -np.inf, -7.0).astype(dtype) * np.ones(S, dtype),
    }  # fmt: skip
    added = masks[mask]
    seen = np.ones((T, S), bool) if added is None else added if added.dtype == bool else added != -np.inf
    seen = seen & np.tri(T, S, dtype=bool) if causal else seen
    p = seen / np.maximum(seen.sum(-1, keepdims=True), 1)
    given = None if added is None else tl.tensor(added)
    tl.manual_seed(3)
    out = F.scaled_dot_product_attention(tl.tensor(q), tl.tensor(k), tl.eye(S, dtype=dtype).expand(1, 2, S, S), given,
                                         dropout, causal)  # fmt: skip
    weights = out.numpy().astype(float)  # the softmax after dropout
    kept = np.where(weights != 0, 1 / (1 - dropout), 0)
    np.testing.assert_allclose(weights, p * kept, rtol=2e-3 if dtype == np.float16 else 1e-6)

    def f(*qkv: Any) -> Any:
        tl.manual_seed(3)
        return F.scaled_dot_product_attention(*qkv, given, dropout, causal)

    y, dq, dk, dv = value_and_gradients(f, q, k, v)
    dp = kept * v.astype(float).sum(-1)[..., None, :]
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / 2
    expected = [p * kept @ v, ds @ k, ds.swapaxes(-1, -2) @ q, (p * kept).swapaxes(-1, -2) @ np.ones_like(y)]
    for a, b in zip((y, dq, dk, dv), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=(1e-2 if dtype == np.float16 else 3e-6) * max(1, abs(b).max()))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("size", [-1e7, 1e9, 3e30])
def test_attention_of_huge_equal_scores(size: float, order: int) -> None:
    """The gradients equal those of float64, in which these scores are exact."""
    rng = np.random.default_rng(0)
    root = np.float32(2.0 ** round(math.log2(abs(size)) / 2))
    q, k = np.full((1, 1, 70, 2), root), np.full((1, 1, 90, 2), math.copysign(root, size), np.float32)
    v = rng.standard_normal((1, 1, 90, 3)).astype(np.float32)
    k[..., ::3, 0] *= 2 if size < 0 else 0.5  # these keys have no weight

    def f(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True) ** 2

    found = value_and_gradients(f, q, k, v, order=order)
    expected = value_and_gradients(f, *(a.astype(np.float64) for a in (q, k, v)), order=order)
    for a, b in zip(found[:4:3] + found[4 + 2 :], expected[:4:3] + expected[4 + 2 :], strict=True):  # value, dv
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * abs(b).max())
    for a, b in zip(found[1:3], expected[1:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * root * abs(found[3]).max() * 90)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logaddexp_of_large_equal_numbers(dtype: Any) -> None:
    for size in (0.0, 1e4, -1e8, 1e30):
        x = np.full(3, size, dtype)
        found = value_and_gradients(tl.logaddexp, x, x)
        np.testing.assert_allclose(found[1:], 0.5)


def test_attention_of_one_decoded_token() -> None:
    compiled = pytest.importorskip("tensorlite.backends.cpu.compiled.row_kernels", exc_type=ImportError)
    for size in (1e2, 1e4, 1e15):
        q, keys = np.full((2, 4), size, np.float32), np.full((2, 8, 4), -size, np.float32)
        values, y = np.arange(64, dtype=np.float32).reshape(2, 8, 4), np.empty((2, 4), np.float32)
        compiled.decode_attention(0, q, keys, values, 6, np.empty((2, 8), np.float32), y)
        np.testing.assert_allclose(y, values[:, :6].mean(1), rtol=1e-6)


@pytest.mark.parametrize("f", [tl.var, tl.std])
@pytest.mark.parametrize(("offset", "noise"), [
    (1e4, 1.0), (1e4, 1e-2), (-3e6, 1.0), (1e30, 1e24), (0.1, 0.0), (3e38, 0.0),
])  # fmt: skip
def test_the_spread_of_numbers_next_to_which_it_is_small(f: Any, offset: float, noise: float) -> None:
    """Value and gradient are those of the same numbers in float64."""
    x = (offset + noise * np.random.default_rng(0).standard_normal((3, 1001))).astype(np.float32)
    for dim in (1, None):
        found = value_and_gradients(lambda x, dim=dim: f(x, dim), x)
        expected = value_and_gradients(lambda x, dim=dim: f(x - offset, dim), x.astype(np.float64))
        if noise == 0:
            assert not found[0].any()
            assert not found[1].any()
            continue
        with np.errstate(over="ignore"):
            expected[0] = expected[0].astype(np.float32)  # the variance of the largest ones is infinite
        np.testing.assert_allclose(found[0], expected[0], rtol=2e-6)
        np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=2e-6 * abs(expected[1]).max())


NORMALIZED = {
    "layer_norm": lambda x: F.layer_norm(x, (37,)),
    "layer_norm with weights": lambda x: F.layer_norm(x, (37,), x[0].detach() * 0 + 2.0, x[0].detach() * 0 + 1.0),
    "group_norm": lambda x: F.group_norm(x.reshape(2, 2, 37), 2).reshape(4, 37),
    "batch_norm": lambda x: F.batch_norm(x.T, None, None, training=True).T,
}


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", NORMALIZED)
@pytest.mark.parametrize(("offset", "noise"), [(0.0, 1.0), (1e4, 0.05), (-3e6, 1.0)])
def test_layers_normalise_numbers_next_to_which_their_spread_is_small(name: str, offset: float, noise: float) -> None:
    """Values and gradients of both orders are those of the same numbers in float64 without the offset."""
    x = (offset + noise * np.random.default_rng(0).standard_normal((4, 37))).astype(np.float32)
    x[3] = np.random.default_rng(1).standard_normal(37)  # a row without an offset stays as it is

    def f(x: Any) -> Any:
        return NORMALIZED[name](x) * tl.arange(37, dtype=x.dtype)

    exact = x.astype(np.float64)
    exact[:3] -= offset
    found, expected = value_and_gradients(f, x, order=2), value_and_gradients(f, exact, order=2)
    for a, b in zip(found, expected, strict=True):
        for i in range(4):
            np.testing.assert_allclose(a[i], b[i], rtol=0, atol=5e-6 * abs(b[i]).max())


def test_hinge_losses_keep_the_margin_next_to_large_scores() -> None:
    x = np.array([[0.5, 0.25, 0.0], [0.0, 0.0, 0.0]], np.float32)
    for offset in (0.0, 2.0**20, -(2.0**20)):
        found = value_and_gradients(lambda x: F.multi_margin_loss(x, tl.tensor([0, 2])), x + np.float32(offset))
        np.testing.assert_allclose(found[0], (0.75 + 0.5 + 2) / 6)
    same = np.full((1, 3), 1e8, np.float32)
    assert F.multi_margin_loss(tl.tensor(same), tl.tensor([0])).item() == pytest.approx(2 / 3)


def test_norms_of_rows_whose_squares_overflow_or_vanish() -> None:
    x = np.array([[3.0, 4.0, 0.0], [3e30, 4e30, 0.0], [3e-30, -4e-30, 0.0], [0.0, 0.0, 0.0]], np.float32)
    unit = np.array([[0.6, 0.8, 0.0], [0.6, 0.8, 0.0], [0.6, -0.8, 0.0], [0.0, 0.0, 0.0]])
    value, gradient = value_and_gradients(lambda x: tl.norm(x, dim=1), x)
    np.testing.assert_allclose(value, [5.0, 5e30, 5e-30, 0.0], rtol=1e-6)
    np.testing.assert_allclose(gradient, unit, rtol=1e-6)
    for size in (1e30, 1e-30):
        changes = value_and_gradients(lambda x: F.normalize(x, dim=0, eps=0.0), np.array([size, 0.0], np.float32))[1]
        np.testing.assert_allclose(changes, [0.0, 1 / size], rtol=1e-6)
    np.testing.assert_allclose(F.normalize(tl.tensor(x), eps=0.0).numpy()[:3], unit[:3], rtol=1e-6)
    same = F.cosine_similarity(tl.tensor(x[:2]), tl.tensor(x[1:2]))
    np.testing.assert_allclose(same.numpy(), 1, rtol=1e-6)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("affine", [False, True])
def test_layers_of_rows_whose_squares_overflow(affine: bool) -> None:
    rows = np.random.default_rng(0).standard_normal((4, 37))
    factors = np.linspace(1, 2, 37)
    assert not F.layer_norm(tl.full((2, 37), 1e30), (37,)).numpy().any()
    for layer in (F.rms_norm, F.layer_norm):

        def f(x: Any, layer: Any = layer) -> Any:
            weight = tl.tensor(factors, dtype=x.dtype)
            return layer(x, (37,), weight) if affine else layer(x, (37,)) * weight

        found = value_and_gradients(f, (rows * 1e30).astype(np.float32))
        expected = value_and_gradients(f, rows * 1e30)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-4 * abs(expected[1]).max())
