"""Products and loops that threads share in compiled code."""

import pickle

import numpy as np
import pytest

from tensorlite.backends import registry
from tensorlite.backends.cpu import blas, find_compiled, thread_pool
from tensorlite.backends.cpu import kernels as cpu

XP = registry.namespace(registry.device("cpu"))


@pytest.fixture
def three_threads(monkeypatch):
    monkeypatch.setattr(thread_pool, "_num_threads", 3)


@pytest.fixture(params=["numba", "numpy"])
def compiled(request, monkeypatch):
    """Run a test with compiled loops and without."""
    if request.param == "numba":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(cpu, "_compiled_kernels", lambda: None)
    return request.param == "numba"


@pytest.fixture
def compiled_and_blas(three_threads):
    if find_compiled.find_compiled() is None or not blas.gemm_pointer(np.dtype(np.float32)):
        pytest.skip("needs numba, and an OpenBLAS of 64-bit sizes")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("compiled", "three_threads")
def test_a_single_row_or_column(dtype):
    """A decode step makes such products."""
    rng = np.random.default_rng(0)
    for k, n in ((700, 1000), (701, 1003), (700, 40_000), (10_003, 30)):
        row, matrix = rng.random((1, k), dtype), rng.random((n, k), dtype)
        for x, y in ((row, matrix.T), (matrix, row.T), (row, np.asfortranarray(matrix).T), (row[:, ::-1], matrix.T)):
            np.testing.assert_allclose(cpu.matmul(XP, x, y), x.astype(float) @ y.astype(float), rtol=1e-4)


@pytest.mark.usefixtures("compiled_and_blas")
def test_gemm_is_not_called_for_a_single_row_or_column(monkeypatch):
    """gemm takes several times as long as gemv, because it copies the matrix. NumPy's own gemv computes float64."""
    row, matrix = np.ones((1, 700), np.float32), np.ones((1000, 700), np.float32)
    monkeypatch.setattr(cpu, "gemm_pointer", lambda dtype: 1)  # a call of this address would end the process
    assert (cpu._shared_matmul(row, matrix.T) == 700).all()
    assert (cpu._shared_matmul(matrix, row.T) == 700).all()
    assert cpu._shared_matmul(row.astype(np.float64), matrix.T.astype(np.float64)) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("compiled_and_blas")
def test_shared_products_of_every_shape_and_layout(dtype):
    rng = np.random.default_rng(0)
    for trial in range(300):
        m, k, n = (int(2 ** rng.uniform(0, 8)) for _ in range(3))
        x, y = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        if trial % 2:
            x = np.asfortranarray(x)
        if trial % 3 == 1:
            y = np.asfortranarray(y)
        if trial % 5 == 1:
            x = np.repeat(x, 2, axis=1)[:, :k]  # a view of longer rows
        found = cpu._shared_matmul(x, y)
        if found is None:
            assert min(m, n) == 1
            continue
        np.testing.assert_allclose(found, x @ y, rtol=0, atol=(1e-5 if dtype == np.float32 else 1e-13) * k)
        assert (cpu._shared_matmul(x, y) == found).all()


@pytest.mark.usefixtures("compiled_and_blas")
def test_numpy_computes_products_that_cannot_be_shared():
    x = np.ones((64, 64), np.float32)
    for y in (x[:, ::2], x[::-1], np.broadcast_to(x[:1], x.shape), x.astype(np.float16)):
        assert cpu._shared_matmul(y if y.dtype == np.float16 else x[:, : len(y)], y) is None
        np.testing.assert_array_equal(cpu.matmul(XP, x.astype(y.dtype), y), x.astype(y.dtype) @ y)


@pytest.mark.parametrize("count", [2, 3, 7, 100])
@pytest.mark.usefixtures("compiled_and_blas")
def test_each_entry_is_processed_once_by_any_number_of_threads(count, monkeypatch):
    jit = pytest.importorskip("tensorlite.backends.cpu.compiled.kernels", exc_type=ImportError)
    monkeypatch.setattr(thread_pool, "_num_threads", count)
    monkeypatch.setattr(thread_pool, "_pool", None)
    rng = np.random.default_rng(0)
    for size in (0, 1, 1000, 1024, 1025, 50_000, 200_001):
        p, g = rng.standard_normal((2, size)).astype(np.float32)
        once = p - np.float32(0.5) * np.sign(g)  # Adam's first step; done twice, it would move twice as far
        m, v = np.zeros((2, size), np.float32)
        thread_pool.run_parallel(jit.adam_step, p, g, m, v, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.5)
        np.testing.assert_allclose(p, once, rtol=1e-6)
        assert (m == g).all()


@pytest.mark.usefixtures("compiled_and_blas")
def test_an_array_with_a_dtype_object_of_its_own_takes_the_same_kernel():
    """pickle makes such arrays, and so does machine code that numba loads from disk."""
    x = np.random.default_rng(0).standard_normal((100, 100), np.float32)
    copy = pickle.loads(pickle.dumps(x))  # noqa: S301
    assert copy.dtype is not x.dtype
    assert cpu.kernels_for(copy) is not None
    np.testing.assert_array_equal(cpu.gelu(XP, copy, True), cpu.gelu(XP, x, True))
