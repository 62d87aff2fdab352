"""Running products and sums of exponentials, medians and quantiles, at zeros, ties, NaN and infinities."""
import math
import tracemalloc

import numpy as np
import pytest

import tensorlite as tl
from tests.support.oracle import assert_same_as_torch

rng = np.random.default_rng(5)


@pytest.mark.parametrize("zeros", [[], [0], [2], [4], [1, 3], [0, 1, 2, 3, 4]])
def test_gradients_of_cumprod_at_zeros(zeros):
    x = rng.standard_normal((2, 5))
    x[0, zeros] = 0.0
    assert_same_as_torch(lambda lib, x: lib.cumprod(x, 1), x)
    assert_same_as_torch(lambda lib, x: lib.cumprod(x, 0), x.T.copy())


def test_cumprod_of_integers_and_its_overflow():
    assert tl.cumprod(tl.tensor([2, 3], dtype=tl.uint8), 0).dtype == tl.int64
    assert tl.cumprod(tl.tensor([2, 3]), 0, dtype=tl.float64).tolist() == [2.0, 6.0]
    x = tl.tensor([0.0, 1e200, 1e200, 0.0], dtype=tl.float64, requires_grad=True)
    tl.cumprod(x, 0)[0].backward()
    assert x.grad.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_a_product_beyond_float16_leaves_the_gradient_finite():
    x = tl.tensor([1e3, 1e3, 1e-3, 1e-3, 0.5], dtype=tl.float16, requires_grad=True)
    tl.cumprod(x, 0)[-1].backward()
    np.testing.assert_allclose(x.grad.numpy(), [5e-4, 5e-4, 500.0, 500.0, 1.0], rtol=3e-3)


def test_the_gradient_of_cumprod_takes_little_memory():
    x = tl.tensor(rng.standard_normal(100_000), requires_grad=True)
    with tl.no_grad():
        x[500] = 0.0
    y = x.cumprod(0).sum()
    tracemalloc.start()
    y.backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * x.array.nbytes


@pytest.mark.parametrize("row", [[0.0, -math.inf, 2.0], [800.0, -800.0, 0.0]])
def test_logcumsumexp_at_the_edges(row):
    assert_same_as_torch(lambda lib, x: lib.logcumsumexp(x, 0), np.array(row))


def test_a_large_offset_does_not_change_the_gradient_of_logcumsumexp():
    """PyTorch adds the logarithm of the cotangent to the offset, and it is lost there."""
    found = []
    for offset in (0.0, 1e15):
        x = tl.tensor(np.array([1.0, 3.0, 2.0, 2.5]) + offset, requires_grad=True)
        tl.logcumsumexp(x, 0).backward(tl.tensor([1.0, -0.5, 2.0, 0.25], dtype=tl.float64))
        found.append(x.grad.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_logcumsumexp_of_infinities_is_not_nan():
    x = tl.tensor([-math.inf, math.inf, 0.0], requires_grad=True)
    y = tl.logcumsumexp(x, 0)
    assert y.tolist() == [-math.inf, math.inf, math.inf]
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 2.0, 0.0]


# ---- medians and quantiles ------------------------------------------------------------------

ROWS = [[3.0, 1.0, 2.0, 4.0], [1.0, math.nan, 2.0, 0.0], [math.nan] * 4, [math.inf, -math.inf, 0.0, 5.0]]


@pytest.mark.parametrize("name", ["median", "nanmedian"])
def test_medians_as_torch(name):
    torch = pytest.importorskip("torch")
    found = getattr(tl, name)(tl.tensor(ROWS), 1)
    expected = getattr(torch, name)(torch.tensor(ROWS), 1)
    np.testing.assert_array_equal(found.values.numpy(), expected.values.numpy())
    np.testing.assert_array_equal(found.indices.numpy()[[0, 1, 3]], expected.indices.numpy()[[0, 1, 3]])
    assert found._fields == ("values", "indices")
    whole = getattr(torch, name)(torch.tensor(ROWS))
    np.testing.assert_array_equal(getattr(tl, name)(tl.tensor(ROWS)).numpy(), whole.numpy())


def test_a_median_of_all_entries_shares_its_gradient():
    x = tl.tensor([2.0, 1.0, 2.0, 5.0], requires_grad=True)
    x.median().backward()
    assert x.grad.tolist() == [0.5, 0.0, 0.5, 0.0]
    assert math.isnan(tl.zeros(0).median().item())
    assert tl.tensor([3, 1, 2, 4]).median().item() == 2


@pytest.mark.parametrize("name", ["quantile", "nanquantile"])
@pytest.mark.parametrize("how", ["linear", "lower", "higher", "midpoint", "nearest"])
def test_quantiles_as_torch(name, how):
    torch = pytest.importorskip("torch")
    rows, q = ROWS[:3], [0.0, 0.1, 0.5, 0.9, 1.0]
    found = getattr(tl, name)(tl.tensor(rows), tl.tensor(q), 1, interpolation=how)
    expected = getattr(torch, name)(torch.tensor(rows), torch.tensor(q), 1, interpolation=how)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)


def test_the_gradient_of_a_quantile_reaches_q():
    assert_same_as_torch(lambda lib, x, q: lib.quantile(x, q, 1), rng.standard_normal((2, 5)), np.array([0.3, 0.6]))


# ---- distances and losses -------------------------------------------------------------------


def test_cdist_of_equal_and_of_near_vectors():
    x = tl.tensor([[1e4, 1.0], [1e4, 1.001]], dtype=tl.float32, requires_grad=True)
    d = tl.cdist(x, x)
    assert d[0, 1].item() == pytest.approx(1e-3, rel=1e-4)  # the expansion of the square would give 0
    d.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


def test_cdist_takes_little_memory():
    x, y = (tl.tensor(rng.standard_normal((n, 300)), requires_grad=True) for n in (200, 210))
    tracemalloc.start()
    tl.cdist(x, y).sum().backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000  # all differences would take 100 MB


@pytest.mark.parametrize("loss", ["huber_loss", "smooth_l1_loss"])
def test_the_parabola_of_huber_has_its_second_derivative_at_0(loss):
    x = tl.tensor([0.0, 0.5, 3.0, -3.0, 1e30], requires_grad=True)
    y = getattr(tl.nn.functional, loss)(x, tl.zeros(5), reduction="sum")
    (first,) = tl.autograd.grad(y, [x], create_graph=True)
    assert first.tolist() == [0.0, 0.5, 1.0, -1.0, 1.0]
    (second,) = tl.autograd.grad(first.sum(), [x])
    assert second.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_kl_div_of_a_zero_probability_is_finite():
    x, t = (tl.tensor(v, requires_grad=True) for v in ([[-1.0, -2.0]], [[0.0, 1.0]]))
    y = tl.nn.functional.kl_div(x, t, reduction="batchmean")
    y.backward()
    assert y.item() == 2.0
    assert x.grad.tolist() == [[0.0, -1.0]]
    assert np.isfinite(t.grad.numpy()).all()


@pytest.mark.parametrize("target", [[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]])
def test_binary_cross_entropy_of_certain_probabilities(target):
    def f(lib, x):
        t = lib.tensor(target, dtype=lib.float64)
        return lib.nn.functional.binary_cross_entropy(x, t, reduction="none")

    torch = pytest.importorskip("torch")
    found, expected = (lib.tensor([0.0, 1.0, 0.25], dtype=lib.float64, requires_grad=True) for lib in (tl, torch))
    for lib, x in ((tl, found), (torch, expected)):
        f(lib, x).sum().backward()
    np.testing.assert_allclose(found.grad.tolist(), expected.grad.tolist(), rtol=1e-8)


def test_lerp_ends_exactly():
    a, b = tl.tensor([1.0, 1e30]), tl.tensor([1e30, 1.0])
    assert tl.lerp(a, b, 1.0).tolist() == b.tolist()
    assert tl.lerp(a, b, tl.tensor([1.0, 0.0])).tolist() == [b[0].item(), a[1].item()]


@pytest.mark.parametrize("f", [tl.var, tl.std])
@pytest.mark.parametrize("unbiased", [True, False])
def test_unbiased_may_be_the_second_argument(f, unbiased):
    x = tl.tensor([1.0, 2.0, 4.0], dtype=tl.float64, requires_grad=True)
    found = f(x, unbiased)
    assert found.item() == f(x, correction=int(unbiased)).item()
    found.backward()
    assert x.grad.abs().sum().item() > 0
