"""Sums keep their digits: float16 is added in float32, and float32 along any axis of any memory layout."""

import itertools

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import optim
from tensorlite.backends import reference, registry
from tensorlite.backends.cpu import sums
from tensorlite.dtypes import accumulate_dtype

XP = registry.namespace(registry.device("cpu"))

# ---- float16 --------------------------------------------------------------------------------


def half(values):
    return tl.tensor(np.asarray(values, np.float64), dtype=tl.float16, requires_grad=True)


ONES, MANY = np.ones(3000), np.ones(70_000)
SPREAD = np.linspace(-12.0, 12.0, 25)
HALF = {
    "mean": (lambda x: x.mean(), [ONES]),
    "mean beyond the largest float16": (lambda x: x.mean(), [MANY]),
    "mean of rows": (lambda x: x.mean(0), [np.ones((3000, 2))]),
    "sum": (lambda x: x.sum(), [ONES]),
    "sum of rows": (lambda x: x.sum(0), [np.ones((3000, 2))]),
    "sum of squares": (lambda x: (x * x).mean(), [np.full(3000, 1.5)]),
    "cumsum": (lambda x: x.cumsum(0)[-1], [ONES]),
    "var": (lambda x: x.var(), [np.tile([300.0, -300.0], 50) / 10]),
    "std": (lambda x: x.std(), [np.tile([300.0, -300.0], 50)]),
    "norm": (lambda x: tl.norm(x), [[300.0, 400.0]]),
    "norm of order 3": (lambda x: tl.norm(x, 3), [[300.0, 400.0]]),
    "prod": (lambda x: x.prod(), [[300.0, 300.0, 0.01, 0.01]]),
    "amax of equal entries": (lambda x: x.amax(), [MANY]),
    "logsumexp": (lambda x: tl.logsumexp(x, 0), [MANY]),
    "softmax": (lambda x: F.softmax(x, 0)[:9] * 3000, [np.zeros(3000)]),
    "log_softmax": (lambda x: F.log_softmax(x, 0)[:9], [np.zeros(3000)]),
    "mse_loss": (lambda x: F.mse_loss(x, 0 * x), [[300.0, *np.zeros(9)]]),
    "l1_loss": (lambda x: F.l1_loss(x, 0 * x), [MANY]),
    "huber_loss": (lambda x: F.huber_loss(x, 0 * x), [MANY * 3]),
    "cross_entropy": (lambda x: F.cross_entropy(x, tl.zeros(x.shape[0], dtype=tl.int64)), [np.zeros((70_000, 3))]),
    "rms_norm": (lambda x: F.rms_norm(x, 2), [[[300.0, 400.0]]]),
    "layer_norm": (lambda x: F.layer_norm(x, (2,)), [[[3000.0, 4000.0]]]),
    "normalize": (lambda x: F.normalize(x, dim=0), [[300.0, 400.0]]),
    "cosine_similarity": (lambda x, y: F.cosine_similarity(x, y, 0), [[300.0, 400.0], [400.0, 300.0]]),
    "silu": (lambda x: F.silu(x), [SPREAD]),
    "sigmoid": (lambda x: tl.sigmoid(x), [SPREAD[:13]]),
    "gelu": (lambda x: F.gelu(x), [SPREAD[8:]]),
    "softplus": (lambda x: F.softplus(x), [SPREAD]),
    "rsqrt": (lambda x: tl.rsqrt(x), [[1e-3, 7.0, 6e4]]),
    "pow": (lambda x: (x**3) / 100, [[15.3, 0.1]]),
    "matmul": (lambda x, y: x @ y, [np.full((2, 3000), 0.1), np.full((3000, 3), 0.1)]),
    "einsum": (lambda x, y: tl.einsum("i,i->", x, y), [np.full(300, 100.0), np.full(300, 0.01)]),
    "linear": (lambda x, w, b: F.linear(x, w, b), [np.full((1, 3000), 0.1), np.full((2, 3000), 0.1), [0.01, -20.0]]),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), [np.full((1, 2, 64), 40.0)]),
    "a row that broadcasts": (lambda x, y: (x + y).sum() * 0.01, [[0.0, 0.0], np.ones((3000, 2))]),
    "a factor that broadcasts": (lambda x, y: (x * y).mean(), [[300.0, 300.0], np.full((3000, 2), 100.0)]),
    "index_add": (lambda x: tl.zeros(2, dtype=x.dtype).index_add(0, tl.ones(3000, dtype=tl.int64), x), [ONES]),
    "scatter_add": (lambda x: tl.zeros(2, dtype=x.dtype).scatter_add(0, tl.ones(3000, dtype=tl.int64), x), [ONES]),
    "embedding": (lambda w: F.embedding(tl.ones(3000, dtype=tl.int64), w).mean(), [np.ones((3, 2))]),
}  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", "strict"])
@pytest.mark.parametrize("number", [1e-8, 1e-3, 0.1, 1 / 3, 2.0, -7, 70_000, 1e10, -1e300])
def test_float16_and_a_number_that_it_would_round(number, device):
    """Compare products and quotients with those in float32, rounded once. So 0 * 1e10 is 0."""
    values = [0.0, 6e-8, 1e-4, 0.1, -3.0, 1000.0, 65504.0, np.inf]
    x = tl.tensor(values, dtype=tl.float16, device=device, requires_grad=True)
    wide, floats = x.detach().float(), number if isinstance(number, float) else float(number)
    forms = [number, tl.tensor(number, device=device), tl.tensor(floats, dtype=tl.float64, device=device)]
    for f in (tl.mul, tl.true_divide, tl.floor_divide, lambda a, b: tl.div(a, b, rounding_mode="trunc")):
        expected = f(wide, number).half()
        for n in forms:
            out = f(x, n)
            assert out.dtype == tl.float16
            np.testing.assert_array_equal(out.numpy(force=True), expected.numpy(force=True))
    for n in forms:
        (g,) = tl.autograd.grad((x * n).sum(), x)
        np.testing.assert_array_equal(g.numpy(force=True), np.full(8, tl.tensor(floats).half().item(), np.float16))


def test_products_of_float16_tensors_keep_a_factor_that_float16_would_lose():
    x, scale = tl.tensor([60000.0, 30000.0], dtype=tl.float16), tl.tensor(1e-8, requires_grad=True)
    (x * scale).sum().backward()
    assert scale.grad.dtype == tl.float32
    assert scale.grad.item() == 90000.0


@pytest.mark.parametrize("name", HALF)
def test_float16_is_rounded_once(name):
    """Values and gradients are those of float64, rounded to float16."""
    f, arrays = HALF[name]
    tensors = [half(a) for a in arrays]
    exact = [tl.tensor(t.detach().numpy().astype(np.float64), requires_grad=True) for t in tensors]
    y, z = f(*tensors), f(*exact)
    assert y.dtype == tl.float16
    limit = np.finfo(np.float16)
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1.5 * limit.eps, atol=1e-7)
    found, expected = (tl.autograd.grad(out.sum(), given) for out, given in ((y, tensors), (z, exact)))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == tl.float16
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=4 * limit.eps, atol=1e-6 + 2e-3 * abs(b.numpy()).max())


def test_gradients_of_gradients_keep_the_dtype():
    x = half(np.linspace(-2, 2, 12).reshape(3, 4))
    (first,) = tl.autograd.grad((F.softmax(x, 1) ** 2).sum(), x, create_graph=True)
    (second,) = tl.autograd.grad((first * first).sum(), x)
    assert first.dtype == second.dtype == tl.float16


def test_ops_of_ones_own_are_widened_on_request():
    seen = []

    def squares(xp, x):
        seen.append(x.dtype)
        return (x * x).sum() / x.size

    def rule(g, x):
        seen.append(g.dtype)
        return g * 2.0 * x / x.size

    x = half([256.0, 0.0])
    y = tl.op(rule, widen=True)(squares)(x)
    y.backward()
    assert y.item() == 32_768.0
    assert y.dtype == x.grad.dtype == tl.float16
    assert x.grad.tolist() == [256.0, 0.0]
    assert seen == [tl.float32, tl.float32] == [accumulate_dtype(tl.float16)] * 2
    with pytest.raises(ValueError, match="widen must be False, True, 'backward' or 'numbers'"):
        tl.op(rule, widen="forward")


@pytest.mark.parametrize("make", [
    lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.Adam(p, lr=0.1), lambda p: optim.AdamW(p, lr=0.1),
    lambda p: optim.RMSprop(p, lr=0.1), lambda p: optim.Muon(p, lr=0.1),
])  # fmt: skip
def test_optimizers_of_float16(make):
    """The square of a gradient of 1e-4 is below the smallest float16."""
    exact = tl.tensor([[1.0, 2.0]], requires_grad=True)
    parameter = half([[1.0, 2.0]])
    steps = []
    for p in (exact, parameter):
        optimizer = make([p])
        for _ in range(3):
            p.grad = tl.tensor([[1e-4, -2e-4]], dtype=p.dtype)
            optimizer.step()
        steps.append(optimizer)
    assert parameter.dtype == tl.float16
    np.testing.assert_allclose(parameter.detach().numpy(), exact.detach().numpy(), rtol=3e-3)
    state = [v for v in steps[1].state[parameter].values() if isinstance(v, tl.Tensor)]
    assert state
    assert all(v.dtype == tl.float32 for v in state)
    again = make([parameter])
    again.load_state_dict(steps[1].state_dict())
    assert all(v.dtype == tl.float32 for v in again.state[parameter].values() if isinstance(v, tl.Tensor))


# ---- float32 along any axis -----------------------------------------------------------------

N = 300_000


def layouts(x):
    """Yield x with other strides."""
    yield x
    yield np.asfortranarray(x)
    yield np.ascontiguousarray(x.swapaxes(0, -1)).swapaxes(0, -1)
    yield np.repeat(x, 2, axis=0)[::2]
    yield np.concatenate([x, x], axis=-1)[..., : x.shape[-1]]
    yield np.ascontiguousarray(x[::-1])[::-1]
    yield np.broadcast_to(x[:1], x.shape)


SHAPES = [
    (3000,), (2000, 3), (3, 2000), (50, 60, 3), (2, 1000, 2), (1000, 2, 2), (300, 2, 300), (1, 3000, 1), (7, 5, 3),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_over_any_axes(shape):
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    for array in layouts(x):
        for count in range(len(shape) + 1):
            for axes in itertools.permutations(range(len(shape)), count):
                wide = array.astype(np.float64)
                for keepdims in (False, True):
                    found = np.asarray(sums.sum_over(XP, array, axes, keepdims))
                    expected = wide.sum(axis=axes, keepdims=keepdims)
                    assert found.dtype == np.float32
                    assert found.shape == expected.shape
                    np.testing.assert_allclose(found, expected, rtol=1e-5)  # the limit for sums of any length
                    plain = np.asarray(reference.sum_over(XP, array, axes, keepdims))
                    np.testing.assert_allclose(plain, expected, rtol=2e-5)


def rows(value):
    return np.full((N, 2), value, np.float32)


ROWS = {
    "sum": lambda x: x.sum(0),
    "mean": lambda x: x.mean(0) * N,
    "sum of both": lambda x: x.sum() / 2,
    "cumsum": lambda x: x.cumsum(0)[-1],
    "cumsum of columns": lambda x: x.T.cumsum(1)[:, -1],
    "einsum": lambda x: tl.einsum("ij->j", x),
    "einsum with a vector": lambda x: tl.einsum("ij,i->j", x, tl.ones(N)),
    "a vector times rows": lambda x: tl.ones(N) @ x,
    "rows times rows": lambda x: (x.T @ tl.ones(N, 3))[:, 0],
    "a scalar product": lambda x: x[:, 0] @ tl.ones(N),
    "norm": lambda x: tl.norm(x, 2, 0) ** 2 / x[0],
    "norm of order 1": lambda x: tl.norm(x, 1, 0),
    "mse_loss": lambda x: F.mse_loss(x, tl.zeros_like(x)) * N / x[0],
    "l1_loss": lambda x: F.l1_loss(x, tl.zeros_like(x)) * N,
    "softmax": lambda x: x.sum(0) / (F.softmax(x, 0)[0] * N),
    "logsumexp": lambda x: tl.logsumexp(x - x[0], 0).exp() * x[0],
    "index_add": lambda x: tl.zeros(3, 2).index_add(0, tl.ones(N, dtype=tl.int64), x)[1],
    "index_add of numbers": lambda x: tl.zeros(3).index_add(0, tl.ones(N, dtype=tl.int64), x[:, 0])[1],
    "scatter_add": lambda x: tl.zeros(3).scatter_add(0, tl.ones(N, dtype=tl.int64), x[:, 0])[1],
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("value", [0.1, 0.7])
def test_sums_of_many_rows(name, value):
    """The rounding errors of equal entries do not cancel."""
    exact = np.float64(np.float32(value)) * N
    for array in (rows(value), np.asfortranarray(rows(value))):
        np.testing.assert_allclose(ROWS[name](tl.Tensor(array)).numpy(), exact, rtol=1e-5)


GRADIENTS = {
    "a row that broadcasts": lambda w, g: (w[:2] + tl.zeros_like(g)) * g,
    "a factor that broadcasts": lambda w, g: w[:2] * g,
    "a bias": lambda w, g: F.linear(tl.zeros(N, 1), tl.zeros(2, 1), w[:2]) * g,
    "a weight": lambda w, g: F.linear(tl.ones(N, 1), w[:2].reshape(2, 1)) * g,
    "the bias of layer_norm": lambda w, g: F.layer_norm(tl.Tensor(rows(0.5)), (2,), tl.ones(2), w[:2]) * g,
    "a row of a small table": lambda w, g: F.embedding(tl.zeros(N, dtype=tl.int64), w.reshape(-1, 2)[:5]) * g,
    "a row of a large table": lambda w, g: F.embedding(tl.zeros(N, dtype=tl.int64), w.reshape(-1, 2)) * g,
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_of_what_many_rows_share(name):
    g = tl.Tensor(rows(0.1))
    w = tl.zeros(1000, requires_grad=True)
    GRADIENTS[name](w, g).sum().backward()
    np.testing.assert_allclose(w.grad.numpy()[:2], np.float64(np.float32(0.1)) * N, rtol=1e-5)


@pytest.mark.parametrize("width", [3000, 100_000])
def test_long_rows(width):
    """The compiled kernels and the reference add long rows up in parts."""
    x = np.full((2, width), 0.1, np.float32)
    x[:, ::2] = 0.3
    target = np.zeros(2, np.int64)
    t = tl.Tensor(x)
    wide = x.astype(np.float64)
    e = np.exp(wide - wide.max(1, keepdims=True))
    np.testing.assert_allclose(F.softmax(t, 1).numpy(), e / e.sum(1, keepdims=True), rtol=1e-6)
    loss = np.log(e.sum(1)).mean()
    np.testing.assert_allclose(F.cross_entropy(t, tl.Tensor(target)).item(), loss, rtol=1e-6)
    expected = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(F.layer_norm(t, (width,)).numpy(), expected, rtol=2e-5)


RUNNING = [(300,), (5000,), (70_001,), (2000, 40), (40, 2000), (3, 3000, 2), (100_000, 3), (0, 3)]


@pytest.mark.parametrize("shape", RUNNING)
def test_running_sums(shape):
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    for array, axis in itertools.product((x, np.asfortranarray(x)), range(len(shape))):
        expected = np.cumsum(array, axis=axis, dtype=np.float64)
        np.testing.assert_allclose(sums.running_sum(XP, array, axis), expected, rtol=2e-6)
        np.testing.assert_allclose(reference.running_sum(XP, array, axis), expected, rtol=2e-6)


@pytest.mark.parametrize(("n", "k", "m"), [(1, 5000, 3), (3, 5000, 1), (2, 9001, 2), (1, 40_000, 1), (70, 20_000, 80)])
def test_long_products(n, k, m):
    x, y = np.full((k, n), 0.1, np.float32), np.full((k, m), 0.7, np.float32)
    exact = np.float64(x[0, 0]) * np.float64(y[0, 0]) * k
    for left in (x.T, np.ascontiguousarray(x.T)):
        product = XP.matmul(left, y)
        assert product.shape == (n, m)
        assert product.dtype == np.float32
        np.testing.assert_allclose(product, exact, rtol=1e-5)
        np.testing.assert_allclose(XP.matmul(left[None], np.stack([y, y])), exact, rtol=1e-5)
    np.testing.assert_allclose(XP.matmul(x[:, 0], y), exact, rtol=1e-5)
    np.testing.assert_allclose(XP.matmul(x[:, 0], y[:, 0]), exact, rtol=1e-5)
