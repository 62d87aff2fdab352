"""Check attention by our own products against attention in float64."""

import os
import subprocess
import sys

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.backends import reference, registry
from tensorlite.backends.cpu import attention, products, thread_pool
from tensorlite.backends.cpu import kernels as cpu
from tensorlite.nn import functional as F

XP = registry.namespace(registry.device("cpu"))
ml_dtypes = pytest.importorskip("ml_dtypes")
BF16, F32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)

# A rounded number has an error of 2^-9 of itself. The scores' gradients, and a result, are sums of rounded numbers.
BOUNDS = {F32: 2e-6, BF16: 6e-3}

# Queries, keys, width of the keys, width of the values: around the sizes of blocks, tiles, vectors and pairs.
SIZES = [
    (64, 64, 32, 32), (32, 32, 16, 16), (100, 37, 20, 12), (17, 300, 48, 33), (65, 131, 1, 1), (129, 129, 3, 100),
    (31, 31, 1030, 10), (8, 520, 64, 64), (40, 1, 70, 70), (150, 95, 7, 5),
]  # fmt: skip


@pytest.fixture(params=["float32", "bfloat16", "bfloat16 with AMX"])
def dtype(request, monkeypatch):
    """Run a test in a dtype that the processor multiplies, with our own products for all sizes, on three threads."""
    found, with_amx = F32 if request.param == "float32" else BF16, request.param.endswith("AMX")
    if not (products.has_float32_products() if found == F32 else products.has_bfloat16_products()):
        pytest.skip("no products of our own")
    if with_amx and not products.has_amx_products():
        pytest.skip("no AMX, or the system does not allow it")
    monkeypatch.setattr(attention, "has_amx_products", lambda: with_amx)
    for name in ("_MIN_COMPILED", "_MIN_OWN_QUERIES", "_MIN_OWN_QUERIES_BFLOAT16", "_MIN_OWN_SCORES"):
        monkeypatch.setattr(cpu, name, 1)
    monkeypatch.setattr(attention, "_MIN_SHARED", 1)
    monkeypatch.setattr(thread_pool, "_num_threads", 3)
    return found


def numbers(dtype, *shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(F32).astype(dtype) for shape in shapes]


def both(q, k, v, g, causal, scale=0.3):
    """Return the result and the gradients of q, k and v."""
    out, top, total = cpu.attention(XP, q, k, v, None, None, causal, scale)
    return out, *cpu.attention_backward(XP, g, q, k, v, None, None, top, total, causal, scale)[:3]


def expected(q, k, v, g, causal, scale=0.3):
    """Return the same, computed in float64."""
    q, k, v, g = (x.astype(np.float64) for x in (q, k, v, g))
    out, top, total = reference.attention(XP, q, k, v, None, None, causal, scale)
    return out, *reference.attention_backward(XP, g, q, k, v, None, None, top, total, causal, scale)[:3]


def close(found, wanted, dtype):
    for a, b in zip(found, wanted, strict=True):
        assert (a.dtype, a.shape) == (dtype, b.shape)
        np.testing.assert_allclose(a.astype(np.float64), b, rtol=0, atol=BOUNDS[dtype] * max(1, abs(b).max()))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("T", "S", "D", "E"), SIZES)
def test_sizes_around_those_of_tiles(T, S, D, E, causal, dtype, monkeypatch):
    monkeypatch.setattr(cpu, "_run_on_heads", None)  # nothing calls BLAS
    q, k, v, g = numbers(dtype, (2, 2, T, D), (2, 2, S, D), (2, 2, S, E), (2, 2, T, E))
    scale = min(0.3, 1 / np.sqrt(D))
    close(both(q, k, v, g, causal, scale), expected(q, k, v, g, causal, scale), dtype)


def test_layouts(dtype):
    """q, k and v are parts of one array, as in a model; or one key has several queries; or strides are negative."""
    whole, g = numbers(dtype, (2, 70, 9, 24), (2, 70, 3, 24))
    parts = [whole.swapaxes(1, 2)[:, i : i + 3] for i in (0, 3, 6)]
    close(both(*parts, g.swapaxes(1, 2), True), expected(*parts, g.swapaxes(1, 2), True), dtype)
    shared = [parts[0], *(np.broadcast_to(x[:, :1], x.shape) for x in parts[1:]), g.swapaxes(1, 2)]
    found = both(parts[0], parts[1][:, :1], parts[2][:, :1], shared[3], False)
    close(found, expected(*shared, False), dtype)
    turned = [x[:, :, ::-1, ::-1] for x in (*parts, shared[3])]
    close(both(*turned, True), expected(*turned, True), dtype)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_number_of_threads_does_not_change_the_bits(count, dtype, monkeypatch):
    arrays = numbers(dtype, *[(3, 5, 77, 40)] * 4)
    first = both(*arrays, True)
    monkeypatch.setattr(thread_pool, "_num_threads", count)
    for a, b in zip(first, both(*arrays, True), strict=True):
        np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_not_finite_changes_only_its_row(value, dtype):
    q, k, v, g = numbers(dtype, *[(1, 1, 70, 16)] * 4)
    q[0, 0, 20, 3] = value
    with np.errstate(all="ignore"):
        found, wanted = both(q, k, v, g, True), expected(q, k, v, g, True)
    for a, b in zip(found[:2], wanted[:2], strict=True):
        np.testing.assert_array_equal(np.isnan(a.astype(F32)), np.isnan(b))
    assert np.isnan(found[2][:, :, :21].astype(F32)).all()  # the gradients of the keys that it sees


def test_scores_far_below_the_largest_have_no_probability(dtype):
    q, k, v, g = numbers(dtype, *[(1, 2, 70, 16)] * 4)
    q, k = q * 100, k * 100
    found, wanted = both(q, k, v, g, True), expected(q, k, v, g, True)
    np.testing.assert_allclose(found[0].astype(F32), wanted[0], atol=BOUNDS[dtype] * 10)
    assert all(np.isfinite(x.astype(F32)).all() for x in found)


def test_ops_compute_in_bfloat16(dtype):
    """An op gives bfloat16 arrays to the kernel as they are, but not with a mask, which the reference takes."""
    arrays = numbers(dtype, *[(2, 3, 70, 32)] * 4)
    q, k, v = (tl.tensor(x, requires_grad=True) for x in arrays[:3])
    F.scaled_dot_product_attention(q, k, v, is_causal=True).backward(tl.tensor(arrays[3]))
    found = [F.scaled_dot_product_attention(q, k, v, is_causal=True), q.grad, k.grad, v.grad]
    wanted = both(*arrays, True, 32**-0.5)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a.array.view(f"u{b.itemsize}"), b.view(f"u{b.itemsize}"))
    masked = F.scaled_dot_product_attention(q, k, v, attn_mask=tl.tensor(np.tri(70, dtype=bool)))
    close([masked.array], [expected(*arrays, True, 32**-0.5)[0]], dtype)


SHARED_MEMORY = """
import numpy as np, tensorlite as tl
from tensorlite.nn import functional as F
tl.set_num_threads(11)
x = tl.tensor(np.random.default_rng(0).standard_normal((3, 4, 3, 100, 32), np.float32), requires_grad=True)
found = set()
for _ in range(60):
    y = F.scaled_dot_product_attention(*x, is_causal=True)
    (slope,) = tl.autograd.grad(y.sum(), x)
    found.add(y.array.tobytes() + slope.array.tobytes())
print(len(found))
"""


def test_threads_that_share_the_memory_of_malloc_do_not_share_workspaces():
    # With one arena of glibc, memory that is freed too early goes to another thread at once.
    done = subprocess.run(
        [sys.executable, "-c", SHARED_MEMORY], env={**os.environ, "MALLOC_ARENA_MAX": "1"}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "1"
