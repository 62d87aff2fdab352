"""The fast kernels of the CPU against their reference: numba's loops, blocked NumPy, and threads that share them."""

import itertools
from typing import Any

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import optim
from tensorlite.backends import reference, registry
from tensorlite.backends.cpu import attention as cpu_attention
from tensorlite.backends.cpu import compiled_loops, compiled_sums, elementwise, moments, softmaxes, sums, thread_pool
from tensorlite.backends.cpu import kernels as cpu
from tensorlite.nn import functional as F
from tests.support.array_layouts import LAYOUTS

XP = registry.namespace(registry.device("cpu"))
EXACT = {"float32": 3e-6, "float64": 1e-12, "float16": 4e-3}


@pytest.fixture(params=["numba", "numpy"])
def compiled(request, monkeypatch):
    """Run a test with compiled loops and without."""
    if request.param == "numba":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(cpu, "_compiled_kernels", lambda: None)
        monkeypatch.setattr(compiled_sums, "load_sums", lambda: None)
        monkeypatch.setattr(compiled_loops, "load_loops", lambda module: None)
    return request.param == "numba"


@pytest.fixture(params=[1, 3])
def shared(request, monkeypatch):
    """Run a test on one thread, and with threads that share every loop, even over small arrays."""
    monkeypatch.setattr(thread_pool, "_num_threads", request.param)
    monkeypatch.setattr(cpu, "MIN_SHARED", 1)
    monkeypatch.setattr(cpu, "_MIN_COMPILED", 1)
    monkeypatch.setattr(compiled_loops, "MIN_SHARED", 1)
    monkeypatch.setattr(compiled_loops, "MIN_COMPILED", 1)
    monkeypatch.setattr(cpu, "MIN_FLOPS", 0)
    for name in ("_MIN_OWN_QUERIES", "_MIN_OWN_QUERIES_BFLOAT16", "_MIN_OWN_SCORES"):
        monkeypatch.setattr(cpu, name, 1)
    monkeypatch.setattr(cpu_attention, "_MIN_SHARED", 1)
    monkeypatch.setattr(cpu, "MIN_FLOPS_PYTHON_THREADS", 1)


def arrays(shape, dtype, layout, count=2):
    rng = np.random.default_rng(0)
    for _ in range(count):
        a = rng.standard_normal(shape).astype(dtype)
        yield LAYOUTS[layout](a)


SHAPES = [(1, 1), (3, 5), (7, 64), (2, 3, 33), (5, 300)]
CASES = [*itertools.product(SHAPES, ["float32", "float64"], LAYOUTS), ((4, 6), "float16", "contiguous")]


def agree(found, expected, dtype, scale=1.0):
    for a, b in zip(found, expected, strict=True):
        if b is None:
            assert a is None
            continue
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        size = scale * max(1.0, abs(b).max(initial=0.0))
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=0, atol=EXACT[dtype] * size)


@pytest.mark.parametrize(("shape", "dtype", "layout"), CASES)
@pytest.mark.usefixtures("compiled", "shared")
class TestRows:
    @np.errstate(over="ignore")  # as ops run
    def test_gelu(self, shape, dtype, layout):
        x, g = arrays(shape, dtype, layout)
        for tanh in (False, True):
            agree([cpu.gelu(XP, 3 * x, tanh)], [reference.gelu(XP, 3 * x, tanh)], dtype)
            found, expected = (k.gelu_backward(XP, g, 3 * x, tanh) for k in (cpu, reference))
            agree([found], [expected], dtype)

    def test_silu(self, shape, dtype, layout):
        x, g = arrays(shape, dtype, layout)
        y = reference.silu(XP, 3 * x)
        agree([cpu.silu(XP, 3 * x)], [y], dtype)
        agree([cpu.silu_backward(XP, g, 3 * x, y)], [reference.silu_backward(XP, g, 3 * x, y)], dtype)

    def test_softmax(self, shape, dtype, layout):
        (x,) = arrays(shape, dtype, layout, 1)
        for axis in (-1, 0):
            agree([cpu.softmax(XP, 5 * x, axis)], [reference.softmax(XP, 5 * x, axis)], dtype)

    def test_elementwise_functions(self, shape, dtype, layout):
        x, y = arrays(shape, dtype, layout)
        if x.flags.writeable:
            x[..., 0] = np.nan
        for values in ((x, y), (x, 0.5), (2, y), (x, y[..., :1]), (x, np.float64(1)), (1.0, 2)):
            np.testing.assert_array_equal(elementwise.where(XP, y > 0, *values), np.where(y > 0, *values), strict=True)
        for low, high in ((0, None), (None, 0.5), (-0.5, 0.5), (0.5, -0.5), (np.nan, 1), (y, 1), (-np.inf, np.inf)):
            found = elementwise.clamp(XP, x, low, high)
            np.testing.assert_array_equal(found, reference.clamp(XP, x, low, high), strict=True)
        for other in (y, y[..., :1]):
            np.testing.assert_array_equal(elementwise.add_arrays(XP, x, other), x + other, strict=True)

    def test_log_softmax_and_gradients(self, shape, dtype, layout):
        x, g = arrays(shape, dtype, layout)
        for axis in (-1, 0):
            found, expected = (k.log_softmax(XP, 5 * x, axis) for k in (softmaxes, reference))
            agree([found], [expected], dtype, 10)
            y = np.exp(expected)
            agree([softmaxes.softmax_backward(XP, g, y, axis)], [reference.softmax_backward(XP, g, y, axis)], dtype)
            if dtype != "float16":  # the logarithm is not lost next to a large maximum
                near, far = x - x % x.dtype.type(1), x.dtype.type(2**20)
                agree([softmaxes.log_softmax(XP, near + far, axis)], [reference.log_softmax(XP, near, axis)], dtype, 10)
            back = [k.log_softmax_backward(XP, g, expected, axis) for k in (softmaxes, reference)]
            agree(back[:1], back[1:], dtype, 10)

    @pytest.mark.parametrize("affine", ["weight and bias", "weight", "neither"])
    def test_layer_norm(self, shape, dtype, layout, affine):
        x, g = arrays(shape, dtype, layout)
        x = x + x.dtype.type(2)
        weight, bias = arrays((shape[-1],), dtype, "contiguous")
        weight = None if affine == "neither" else weight
        bias = bias if affine == "weight and bias" else None
        found = cpu.layer_norm(XP, x, weight, bias, 1e-2)
        expected = reference.layer_norm(XP, x, weight, bias, 1e-2)
        agree(found, expected, dtype, 3)
        back = [k.layer_norm_backward(XP, g, x, weight, *expected[1:]) for k in (cpu, reference)]
        agree(*back, dtype, 10)

    def test_cross_entropy(self, shape, dtype, layout):
        (x,) = (a.reshape(-1, shape[-1]) for a in arrays(shape, dtype, layout, 1))
        rng = np.random.default_rng(1)
        target = rng.integers(0, x.shape[1], len(x))
        target[::3] = -1
        g = rng.standard_normal(len(x)).astype(dtype)
        for smoothing in (0.0, 0.1):
            found, expected = (k.cross_entropy(XP, x, target, -1, smoothing) for k in (cpu, reference))
            agree(found, expected, dtype)
            back = [k.cross_entropy_backward(XP, g, x, target, *expected[1:], -1, smoothing) for k in (cpu, reference)]
            agree([back[0]], [back[1]], dtype)

    def test_products_and_sums(self, shape, dtype, layout):
        (x,) = (a.reshape(-1, shape[-1]) for a in arrays(shape, dtype, layout, 1))
        (y,) = arrays((shape[-1], 6), dtype, layout, 1)
        scale = 2 * shape[-1]
        agree([cpu.matmul(XP, x, y)], [np.matmul(x, y)], dtype, scale)
        agree([cpu.matmul(XP, y.T, x.T)], [np.matmul(y.T, x.T)], dtype, scale)
        agree([sums.sum_to(XP, x, shape[-1:])], [reference.sum_to(XP, x, shape[-1:])], dtype, len(x))

    def test_adam(self, shape, dtype, layout):
        for options in [(0.0, True, False), (0.1, True, False), (0.1, False, True)]:
            mine = [np.array(a) if layout == "broadcast" else a.copy() for a in arrays(shape, dtype, layout, 4)]
            mine[3] = abs(mine[3])
            theirs = [a.copy() for a in mine]
            for k, some in ((cpu, mine), (reference, theirs)):
                k.adam_step(XP, *some, 3, 1e-2, 0.9, 0.99, 1e-8, *options)
            agree(mine, theirs, dtype)


ATTENTION = {
    "one head": ((1, 4, 3), 4),
    "several blocks of queries": ((2, 3, 150, 8), 150),
    "more keys": ((2, 2, 70, 5), 133),
    "fewer keys": ((2, 2, 133, 5), 70),
    "one query": ((2, 2, 1, 4), 9),
    "more blocks than a sum has keys": ((1, 2, 330, 40), 330),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("case", ATTENTION)
@pytest.mark.usefixtures("compiled", "shared")
def test_attention(case, causal, dtype):
    shape, S = ATTENTION[case]
    rng = np.random.default_rng(0)
    q = rng.standard_normal(shape).astype(dtype)
    k, v = (rng.standard_normal((*shape[:-2], S, w)).astype(dtype) for w in (shape[-1], 7))
    if len(shape) == 4:  # adjacent heads, as a model has them
        q, k, v = (np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2) for a in (q, k, v))
    found, expected = (m.attention(XP, q, k, v, None, None, causal, 0.3) for m in (cpu, reference))
    agree(found, expected, dtype)
    g = rng.standard_normal(expected[0].shape).astype(dtype)
    back = [m.attention_backward(XP, g, q, k, v, None, None, *expected[1:], causal, 0.3) for m in (cpu, reference)]
    agree(back[0][:3], back[1][:3], dtype, 10)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.usefixtures("shared")
def test_attention_with_blas(causal, monkeypatch):
    """Processors without AVX-512 have no products of our own."""
    pytest.importorskip("numba")
    monkeypatch.setattr(cpu_attention, "takes", lambda q, k, v: False)
    rng = np.random.default_rng(0)
    q, k, v, g = (rng.standard_normal((2, 3, n, 8)).astype(np.float32) for n in (130, 70, 70, 130))
    expected = reference.attention(XP, q, k, v, None, None, causal, 0.3)
    agree(cpu.attention(XP, q, k, v, None, None, causal, 0.3), expected, "float32")
    found, back = (
        m.attention_backward(XP, g, q, k, v, None, None, *expected[1:], causal, 0.3)[:3] for m in (cpu, reference)
    )
    agree(found, back, "float32", 10)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("batch", "keys", "values"),
    [
        ((2, 3, 4), (2, 3, 1), (2, 3, 1)),
        ((1, 3, 2), (1, 1, 2), (1, 3, 1)),
        ((2, 4), (2, 1), (1, 4)),
        ((6,), (1,), (6,)),
    ],
)
@pytest.mark.usefixtures("compiled", "shared")
def test_attention_of_grouped_queries(batch, keys, values, causal, monkeypatch):
    """Keys and values that serve several heads of queries are shared, and need no other kernel."""
    rng = np.random.default_rng(0)
    q, g, k, v = (
        rng.standard_normal((*some, 70, width)).astype(np.float32)
        for some, width in ((batch, 8), (batch, 5), (keys, 8), (values, 5))
    )
    expected = reference.attention(XP, q, k, v, None, None, causal, 0.3)
    back = reference.attention_backward(XP, g, q, k, v, None, None, *expected[1:], causal, 0.3)
    if cpu._compiled_kernels() is not None and cpu.gemm_pointer(np.dtype("float32")):
        for name in ("attention", "attention_backward"):
            monkeypatch.setattr(reference, name, None)  # Nothing calls it.
    agree(cpu.attention(XP, q, k, v, None, None, causal, 0.3), expected, "float32")
    found = cpu.attention_backward(XP, g, q, k, v, None, None, *expected[1:], causal, 0.3)
    agree(found[:3], back[:3], "float32", 10)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_without_a_callable_blas(causal, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(cpu, "gemm_pointer", lambda dtype: 0)
    rng = np.random.default_rng(0)
    q, k, v, g = (rng.standard_normal((2, 3, 130, 8)).astype(np.float32) for _ in range(4))
    args = (None, None)
    out, top, total = cpu.attention(XP, q, k, v, *args, causal, 0.3)
    agree((out, top, total), reference.attention(XP, q, k, v, *args, causal, 0.3), "float32")
    found = cpu.attention_backward(XP, g, q, k, v, *args, top, total, causal, 0.3)
    expected = reference.attention_backward(XP, g, q, k, v, *args, top, total, causal, 0.3)
    agree(found[:3], expected[:3], "float32", 10)


def test_attention_of_large_scores():
    """The exponentials of these scores overflow unless the maximum is subtracted."""
    pytest.importorskip("numba")
    q = np.full((1, 2, 64, 32), 30.0, np.float32)
    k = np.random.default_rng(0).standard_normal((1, 2, 64, 32)).astype(np.float32)
    found, expected = (m.attention(XP, q, k, k, None, None, True, 1.0) for m in (cpu, reference))
    agree(found, expected, "float32", 1e2)


def test_masked_and_dropped_attention_goes_to_the_reference():
    q = np.random.default_rng(0).standard_normal((2, 2, 64, 32)).astype(np.float32)
    mask = np.tri(64, dtype=bool)
    found, expected = (m.attention(XP, q, q, q, mask, None, False, 0.2) for m in (cpu, reference))
    agree(found, expected, "float32")
    causal = cpu.attention(XP, q, q, q, None, None, True, 0.2)
    agree(causal, found, "float32")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_kept(value):
    """A compiled loop must not lose NaN in comparisons; -inf has probability 0."""
    if cpu._compiled_kernels() is None:
        pytest.skip("needs numba, and no TENSORLITE_JIT=0")
    x = np.random.default_rng(0).standard_normal((64, 100)).astype(np.float32)
    x[3, 5] = x[7, 0] = x[7, 99] = value
    with np.errstate(all="ignore"):
        for name, args in (("softmax", (-1,)), ("layer_norm", (None, None, 1e-5))):
            found, expected = (np.asarray(getattr(k, name)(XP, x, *args)[0]) for k in (cpu, reference))
            np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        found, expected = (k.softmax(XP, x, -1) for k in (cpu, reference))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        target = np.zeros(64, np.int64)
        losses = [k.cross_entropy(XP, x, target, -1, 0.0)[0] for k in (cpu, reference)]
        np.testing.assert_allclose(*losses, rtol=1e-5)
        expected = {np.inf: np.inf, -np.inf: 0.0}.get(value, np.nan)
        np.testing.assert_allclose(cpu.gelu(XP, x, False)[3, 5], expected, atol=1e-30)


EDGES = [
    -np.inf, np.inf, np.nan, -0.0, 0.0, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38, 1e20, -1e20, -1000, 1000, -100, 100, -20,
    -13, -9, -5, 5, 13, -1, 1,
]  # fmt: skip


@pytest.mark.parametrize("tanh", [False, True])
def test_gelu_of_edges_does_not_depend_on_the_size(tanh, monkeypatch):
    """A vector loop, the entries that it leaves over, and the kernels that are not compiled give the same values."""
    edges = np.array(EDGES, np.float32)
    ones = np.ones_like(edges)
    with np.errstate(all="ignore"):
        exact = reference.gelu(XP, edges, tanh), reference.gelu_backward(XP, ones, edges, tanh)
    assert exact[0][:2].tolist() == [0.0, np.inf]
    assert exact[1][:2].tolist() == [0.0, 1.0]
    for least in (1, 1 << 30):  # always compiled, never compiled
        monkeypatch.setattr(cpu, "_MIN_COMPILED", least)
        for size in (*range(1, 71), 2047, 2048, 16_384 + 7):
            x = np.resize(np.roll(edges, size), size)
            with np.errstate(all="ignore"):
                found = cpu.gelu(XP, x, tanh), cpu.gelu_backward(XP, np.ones_like(x), x, tanh)
            for a, b in zip(found, exact, strict=True):
                np.testing.assert_allclose(a, np.resize(np.roll(b, size), size), rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan, -3e38, 1e-45])
def test_rows_with_edges_do_not_depend_on_their_length(value, monkeypatch):
    monkeypatch.setattr(cpu, "_MIN_COMPILED", 1)
    rng = np.random.default_rng(0)
    for n in (*range(2, 71), 5000):
        x = rng.standard_normal((3, n)).astype(np.float32)
        x[0, 0] = x[1, n // 2] = x[2, n - 1] = value
        target, g = np.array([0, n - 1, -1]), np.ones(3, np.float32)
        with np.errstate(all="ignore"):
            pairs = [(k.softmax(XP, x, -1), k.cross_entropy(XP, x, target, -1, 0.0),
                      k.cross_entropy_backward(XP, g, x, target, *k.cross_entropy(XP, x, target, -1, 0.0)[1:], -1, 0.0),
                      k.layer_norm(XP, y, None, None, 1e-5)[0])
                     for k, y in ((cpu, x), (reference, x.astype(np.float64)))]  # fmt: skip
        (mine, loss, gradient, normal), (expected, losses, gradients, normals) = pairs
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(loss[0], losses[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient, gradients, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(normal, normals, rtol=1e-4, atol=1e-5)


def test_exp_is_accurate_to_its_last_digits():
    jit = pytest.importorskip("tensorlite.backends.cpu.compiled.kernels", exc_type=ImportError)
    x = np.linspace(-87.0, 0.0, 100_001, dtype=np.float32)
    rows = np.stack([np.zeros_like(x), x], axis=1)
    y = np.empty_like(rows)
    jit.softmax(0, rows, y)
    ratio = y[:, 1].astype(np.float64) / y[:, 0]
    np.testing.assert_allclose(ratio, np.exp(x.astype(np.float64)), rtol=4e-7)


def test_exponentials_below_an_infinite_maximum():
    x = np.array([[1.0, 2.0], [np.inf, 2.0], [-np.inf, -np.inf], [np.nan, 0.0]])
    top = x.max(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        found, first = cpu.exp_below(XP, x, top), cpu.exp_below(XP, x[:1], top[:1])
    np.testing.assert_allclose(found, [[np.exp(-1), 1], [1, 0], [1, 1], [np.nan, np.nan]])
    np.testing.assert_array_equal(first, found[:1])


@pytest.mark.parametrize("name", [*cpu.__all__, *moments.__all__, *sums.__all__])
def test_every_kernel_replaces_a_function_of_the_reference_or_numpy(name):
    assert hasattr(reference, name) or hasattr(np, name)


@pytest.mark.parametrize("size", [8e4, 8e6, 8e9])
def test_attention_of_huge_scores(size):
    """The backward pass computes the same softmax again, from the same rounded scores."""
    rng = np.random.default_rng(0)
    q = (rng.standard_normal((1, 2, 64, 32)) * np.sqrt(size)).astype(np.float32)
    k = (rng.standard_normal((1, 2, 64, 32)) * np.sqrt(size)).astype(np.float32)
    v, g = rng.standard_normal((2, 1, 2, 64, 32)).astype(np.float32)
    out, top, total = cpu.attention(XP, q, k, v, None, None, True, 0.2)
    assert np.isfinite(out).all()
    _, _, dv, _ = cpu.attention_backward(XP, g, q, k, v, None, None, top, total, True, 0.2)
    _, _, expected, _ = reference.attention_backward(XP, g, q, k, v, None, None, top, total, True, 0.2)
    np.testing.assert_allclose(dv, expected, atol=1e-4 * abs(expected).max())


def test_an_infinite_gradient_changes_only_its_row():
    g = np.zeros((50, 4), np.float32)
    g[7, 2] = np.inf
    ids = np.arange(50) % 9
    with np.errstate(all="ignore"):
        out = sums.embedding_backward(XP, g, ids, 9)
    assert np.isposinf(out[7, 2])
    assert np.isfinite(np.delete(out.reshape(-1), 7 * 4 + 2)).all()


def test_a_target_outside_the_classes_is_an_error():
    x = np.zeros((64, 100), np.float32)
    for wrong in (100, -101):
        with pytest.raises(IndexError):
            cpu.cross_entropy(XP, x, np.full(64, wrong), -1, 0.0)
        with pytest.raises(IndexError):
            cpu.cross_entropy_backward(XP, x[:, 0], x, np.full(64, wrong), x[:, :1], x[:, :1] + 100, -1, 0.0)


def test_gelu_gradient_of_huge_inputs():
    x = np.array([1e13, -1e13, 1e14, -1e14, 1e20, np.nan] * 1000, np.float32)
    if cpu._compiled_kernels() is None:
        pytest.skip("needs numba, and no TENSORLITE_JIT=0")
    dx = cpu.gelu_backward(XP, np.ones_like(x), x, True)[:6]
    np.testing.assert_allclose(dx, [1, 0, 1, 0, 1, np.nan], atol=1e-6)


# ---- blocks, many rows, strides ---------------------------------------------------------------

MANY = 2 * cpu._BLOCK + 3


@pytest.mark.parametrize("ids", [
    [3, 4, 4, 5, 300, 299, 3, 0, 301], [7, 7, 7], [0, 1, 2, 3], [301, 0], list(range(300, 0, -7)) * 2,
])  # fmt: skip
def test_embedding_of_many_rows(ids: list[int]) -> None:
    g = np.random.default_rng(0).standard_normal((len(ids), 4))
    expected = np.zeros((302, 4))
    np.add.at(expected, ids, g)
    np.testing.assert_allclose(sums.embedding_backward(np, g, np.array(ids), 302), expected, rtol=1e-14)
    table = tl.zeros(302, 4, dtype=tl.float64, requires_grad=True)
    F.embedding(tl.tensor(ids), table).backward(tl.tensor(g))
    assert table.grad is not None
    np.testing.assert_allclose(table.grad.numpy(), expected, rtol=1e-14)


def _adam_step(step: Any, shape: tuple[int, ...], transposed: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    p, g, m, v = (abs(rng.standard_normal(shape)).astype(np.float32) for _ in range(4))
    if transposed:
        p, g, m, v = (a.T.copy().T for a in (p, g, m, v))
    step(np, p, g, m, v, 3, 1e-2, 0.9, 0.99, 1e-8, 0.1, True, False)
    return [p, m, v]


@pytest.mark.parametrize("transposed", [False, True])
def test_adam_of_several_blocks(transposed: bool) -> None:
    shape = (MANY // 2, 3)
    for a, b in zip(_adam_step(cpu.adam_step, shape, transposed), _adam_step(reference.adam_step, shape, transposed)):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)  # entries are about 1, and some results are near 0


def test_adam_of_a_large_transposed_parameter() -> None:
    p = tl.tensor(np.ones((MANY, 2), np.float32).T, requires_grad=True)
    p.array = np.ones((MANY, 2), np.float32).T
    p.grad = tl.ones(2, MANY)
    optim.Adam([p], lr=0.5).step()
    np.testing.assert_allclose(p.detach().numpy(), 0.5, rtol=1e-6)


def test_gelu_of_several_blocks() -> None:
    numbers = np.random.default_rng(2).standard_normal(MANY)
    found = []
    for dtype in (tl.float32, tl.float64):
        x = tl.tensor(numbers, dtype=dtype, requires_grad=True)
        y = F.gelu(x)
        y.sum().backward()
        assert x.grad is not None
        found.append((y.detach().numpy(), x.grad.numpy()))
    for narrow, wide in zip(*found):
        np.testing.assert_allclose(narrow, wide, atol=2e-6)


@pytest.mark.parametrize("change", [
    lambda x: x.mul_(2.0), lambda x: x.zero_(), lambda x: x.fill_(1.0), lambda x: x.copy_(tl.zeros(3)),
    lambda x: x.__setitem__(0, 1.0), lambda x: x.normal_(),
])  # fmt: skip
def test_read_only_memory_is_not_written(change: Any) -> None:
    array = np.ones(3, np.float32)
    array.flags.writeable = False
    x = tl.from_numpy(array)
    with pytest.raises(RuntimeError, match="its memory is read-only"):
        change(x)
    assert array.tolist() == [1.0, 1.0, 1.0]
