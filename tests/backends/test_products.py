"""Check the matrix products of our own against NumPy's in float64."""

import subprocess
import sys
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.backends import registry
from tensorlite.backends.cpu import kernels as cpu
from tensorlite.backends.cpu import products, thread_pool
from tensorlite.backends.cpu.products import multiply
from tensorlite.nn import functional as F

XP = registry.namespace(registry.device("cpu"))
FLOAT32 = np.dtype(np.float32)

# Rows, sum, columns: below, at and above the sizes of tiles, vectors, lines and parts.
SIZES = [
    (1, 1, 1), (1, 40, 3), (5, 7, 1), (8, 16, 48), (17, 33, 49), (16, 512, 16), (100, 513, 97), (65, 130, 66),
    (24, 1100, 200), (9, 2100, 50), (40, 4500, 20), (3, 20, 1500), (400, 70, 100),
]  # fmt: skip

# The ways in which a matrix lies in memory.
LAYOUTS = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "view of longer rows": lambda x: np.pad(x, ((0, 0), (0, 5)))[:, : x.shape[1]],
    "reversed rows": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "reversed columns": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "every other column": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "unaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
}  # fmt: skip


# The instructions that products are made of.
KINDS = ["float32", "bfloat16", "bfloat16 with AMX"]


def needs(dtype):
    """Skip a test where the processor, or numba, has no instructions for a dtype."""
    if not (products.has_float32_products() if dtype == FLOAT32 else products.has_bfloat16_products()):
        pytest.skip(f"no products of our own for {dtype}")


@pytest.fixture
def dtype(request, monkeypatch):
    """Return the dtype of a kind; products of bfloat16 are made of its instructions."""
    found = FLOAT32 if request.param == "float32" else bfloat16()
    needs(found)
    with_amx = request.param.endswith("AMX")
    if with_amx and not products.has_amx_products():
        pytest.skip("no AMX, or the system does not allow it")
    monkeypatch.setattr(products, "has_amx_products", lambda: with_amx)
    monkeypatch.setattr(products, "_plan", products._plan.__wrapped__)
    return found


def bfloat16():
    pytest.importorskip("ml_dtypes")
    return tl.bfloat16


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(x, y, found, bias=None, out_dtype=FLOAT32):
    """Compare a product with that of the same numbers in float64.

    An entry's error is at most that of each addition, times their number, here of the 512 of a partial sum and of the
    partial sums. Random errors are far smaller, so an eighth of it is asked for.
    """
    wide = [a.astype(np.float64) for a in (x, y)]
    expected, size = wide[0] @ wide[1], np.abs(wide[0]) @ np.abs(wide[1])
    if bias is not None:
        expected, size = expected + bias.astype(np.float64), size + np.abs(bias.astype(np.float64))
    additions = min(x.shape[1], 512) + x.shape[1] // 512 + 4
    limit = size * 2.0**-24 * max(4, additions / 8) + (np.abs(expected) * 2.0**-8 if out_dtype != FLOAT32 else 0)
    error = np.abs(found.astype(np.float64) - expected)
    assert found.shape == expected.shape
    assert found.dtype == out_dtype
    assert (error <= limit).all(), f"{(error / (limit + 1e-300)).max()} times the limit"


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", KINDS, indirect=True)
def test_sizes_dtypes_and_layouts(dtype, threads, monkeypatch):
    lower = dtype
    monkeypatch.setattr(thread_pool, "_num_threads", threads)
    monkeypatch.setattr(products, "_MIN_SHARED", 1)
    dtypes = [(FLOAT32, FLOAT32, FLOAT32)] if lower == FLOAT32 else list(product((FLOAT32, lower), repeat=3))[1:]
    layouts = list(product(LAYOUTS, repeat=2))
    for i, (m, k, n) in enumerate(SIZES):
        for j, (x_dtype, y_dtype, out_dtype) in enumerate(dtypes):
            for number in range(4 if lower == FLOAT32 else 1):
                left, right = layouts[(5 * i + 11 * j + 13 * number) % len(layouts)]
                x = LAYOUTS[left](numbers(m, k).astype(lower).astype(x_dtype))
                y = LAYOUTS[right](numbers(k, n, seed=1).astype(lower).astype(y_dtype))
                bias = numbers(n, seed=2) if (i + j) % 2 else None
                check(x, y, multiply(x, y, out_dtype, bias), bias, out_dtype)


@pytest.mark.parametrize("dtype", KINDS[1:], indirect=True)
def test_float32_matrices_are_rounded_to_bfloat16(dtype):
    lower = dtype
    x, y = numbers(30, 65), numbers(65, 50, seed=1)
    for layout in (np.ascontiguousarray, np.asfortranarray):
        whole = multiply(layout(x), layout(y), lower)
        rounded = multiply(layout(x.astype(lower)), layout(y.astype(lower)), lower)
        assert whole.tobytes() == rounded.tobytes()
        assert whole.tobytes() == multiply(layout(x), layout(y.astype(lower)), lower).tobytes()


@pytest.mark.parametrize("dtype", KINDS, indirect=True)
def test_bits_depend_on_no_other_row_or_column_nor_on_threads(dtype, monkeypatch):
    monkeypatch.setattr(products, "_MIN_SHARED", 1)
    for k in (65, 1300, 2500):
        x, y = numbers(200, k).astype(dtype), numbers(k, 330, seed=1).astype(dtype)
        monkeypatch.setattr(thread_pool, "_num_threads", 1)
        whole = multiply(x, y, FLOAT32)
        for threads in (2, 3, 5):
            monkeypatch.setattr(thread_pool, "_num_threads", threads)
            assert (multiply(x, y, FLOAT32) == whole).all()
            for rows, columns in ((1, 330), (7, 100), (200, 17), (33, 1)):
                assert (multiply(x[:rows], y[:, :columns], FLOAT32) == whole[:rows, :columns]).all()
                assert (multiply(x[-rows:], y[:, -columns:], FLOAT32) == whole[-rows:, -columns:]).all()
        assert (multiply(np.asfortranarray(x), np.asfortranarray(y), FLOAT32) == whole).all()


@pytest.mark.parametrize("dtype", KINDS, indirect=True)
def test_nan_and_infinity_reach_exactly_their_row_and_column(dtype):
    for m, k, n in ((21, 33, 50), (9, 64, 16)):
        for value in (np.nan, np.inf, -np.inf):
            x, y = numbers(m, k), numbers(k, n, seed=1)
            x[m - 1, k - 1], y[0, n - 1] = value, value
            with np.errstate(invalid="ignore"):
                expected = x.astype(np.float64) @ y.astype(np.float64)
            found = multiply(x.astype(dtype), y.astype(dtype), FLOAT32)
            assert (np.isnan(found) == np.isnan(expected)).all()
            assert (np.isposinf(found) == np.isposinf(expected)).all()
            assert (np.isneginf(found) == np.isneginf(expected)).all()
            zeros = np.zeros((k, n), dtype)  # no product with 0 is skipped
            assert np.isnan(multiply(x.astype(dtype), zeros, FLOAT32)[-1]).all()


def test_empty_broadcast_and_read_only_matrices():
    needs(FLOAT32)
    bias = numbers(7)
    for m, k, n in ((0, 5, 7), (5, 0, 7), (5, 3, 0), (0, 0, 0)):
        found = multiply(np.ones((m, k), FLOAT32), np.ones((k, n), FLOAT32), FLOAT32, bias[:n])
        assert (found == np.broadcast_to(bias[:n], (m, n))).all()
    x, y = numbers(1, 40), numbers(40, 1, seed=1)
    for left, right in product((np.broadcast_to(x, (33, 40)), numbers(33, 40)), (np.broadcast_to(y, (40, 50)), y)):
        assert left.flags.writeable is False or right.flags.writeable is False or right is y
        check(left, right, multiply(left, right, FLOAT32))


def test_large_products_and_their_gradients_use_it(monkeypatch):
    needs(FLOAT32)
    calls = []
    monkeypatch.setattr(cpu, "multiply", lambda x, *args: calls.append(x.shape) or multiply(x, *args))
    x, w, b = (tl.tensor(numbers(*shape), requires_grad=True) for shape in ((4, 64, 96), (192, 96), (192,)))
    y = F.linear(x, w, b)
    y.backward(tl.ones(4, 64, 192))
    assert calls == [(256, 96), (256, 192), (192, 256)]
    check(x.array.reshape(-1, 96), w.array.T, y.array.reshape(-1, 192), b.array)
    cpu.matmul(XP, numbers(64, 96), numbers(96, 192))
    assert calls[3:] == [(64, 96)]
    for shape in ((64, 96, 32), (4, 4000, 400), (400, 4000, 4)):  # small, few rows, few columns
        cpu.matmul(XP, numbers(*shape[:2]), numbers(*shape[1:]))
    assert len(calls) == 4


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_processors_without_the_instructions_use_blas(name, monkeypatch):
    dtype = FLOAT32 if name == "float32" else bfloat16()
    monkeypatch.setattr(products, "_load", lambda: None)
    for has in (products.has_float32_products, products.has_bfloat16_products):
        monkeypatch.setattr(products, has.__name__, has.__wrapped__)
    monkeypatch.setattr(products, "_plan", products._plan.__wrapped__)
    x, w = numbers(256, 96).astype(dtype), numbers(192, 96, seed=1).astype(dtype)
    assert multiply(x, w.T, dtype) is None
    for found in (cpu.matmul(XP, x, w.T), cpu.linear(XP, x, w, None)):
        check(x, w.T, found, out_dtype=dtype)


def test_the_instructions_that_a_product_needs(monkeypatch):
    instructions = pytest.importorskip("tensorlite.backends.cpu.compiled.instructions", exc_type=ImportError)
    avx512 = {"+avx512f", "+avx512bw", "+avx512dq", "+avx512vl"}
    for features, expected in (({"+avx2"}, []), (avx512, [0]), ({*avx512, "+avx512bf16"}, [0, 1])):
        monkeypatch.setattr(instructions, "cpu_features", lambda features=features: features)
        assert [k for k in (instructions.FLOAT32, instructions.BFLOAT16) if instructions.has_kernel(k)] == expected


# ---- AMX ----------------------------------------------------------------------------------------


def test_amx_needs_the_processor_the_system_and_the_variable(monkeypatch):
    amx = pytest.importorskip("tensorlite.backends.cpu.compiled.amx", exc_type=ImportError)
    features = {"+avx512f", "+avx512bw", "+avx512dq", "+avx512vl", "+avx512bf16", "+amx-tile", "+amx-bf16"}
    for missing in (None, "+avx512bf16", "+amx-tile", "+amx-bf16"):
        found = features - {missing}
        monkeypatch.setattr(amx, "cpu_features", lambda found=found: found)
        monkeypatch.setattr(amx, "has_kernel", lambda kind, found=found: "+avx512bf16" in found)
        assert amx.has_amx() == (missing is None)
    for processor, system, variable in product((True, False), (True, False), ("1", "0", "")):
        monkeypatch.setattr(products, "has_bfloat16_products", lambda processor=processor: processor)
        monkeypatch.setattr(products, "_load", lambda system=system: SimpleNamespace(is_amx_allowed=lambda: system))
        monkeypatch.setenv("TENSORLITE_AMX", variable)
        assert products.has_amx_products.__wrapped__() == (processor and system and variable != "0")


# A process whose stack for signals is too small for the registers: Linux then refuses them with the error ENOSPC.
REFUSED = """
import ctypes, numpy as np, tensorlite as tl
from tensorlite.backends.cpu import products

class Stack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

memory = ctypes.create_string_buffer(1 << 16)
stack = Stack(ctypes.addressof(memory), 0, 2048)
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0
assert not products.has_amx_products()
x = np.ones((64, 64), tl.bfloat16)
assert (products.multiply(x, x, np.dtype(np.float32)) == 64).all()
"""


def test_where_the_system_refuses_amx_products_use_avx512():
    bfloat16()
    needs(None)
    if not products.has_amx_products():
        pytest.skip("no AMX, or the system does not allow it")
    subprocess.run([sys.executable, "-c", REFUSED], check=True)
