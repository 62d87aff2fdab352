"""Check the compiled products with matrices in 4 and 8 bits against NumPy's."""

import numpy as np
import pytest

from tensorlite.backends.cpu import quantized
from tensorlite.quantized import KINDS, QuantizedMatrix, linear

pytest.importorskip("numba")
SHAPES = [(1, 32), (16, 64), (33, 96), (130, 33), (300, 576)]  # rows and columns


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("T", [1, 2, 3, 7, 8, 13, 31])
def test_products_are_numpys(monkeypatch, kind, T):
    for rows, columns in SHAPES:
        matrix, x = QuantizedMatrix.quantize(numbers(rows, columns), kind), numbers(T, columns, seed=1)
        found = linear(x, matrix)
        with monkeypatch.context() as patch:
            patch.setattr(quantized, "load_kernels", lambda: None)
            expected = linear(x, matrix)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_large_and_extreme_activations(kind):
    matrix = QuantizedMatrix.quantize(numbers(20, 64), kind)
    x = np.stack([np.zeros(64), np.full(64, 1e30), np.full(64, 1e-42), np.r_[np.zeros(63), 3e4]]).astype(np.float32)
    weight = matrix.dequantize().astype(np.float64)
    error = np.abs(linear(x, matrix) - x @ weight.T)
    # A number is rounded by at most a 254th of the largest of its block, and numbers below 1e-36 are 0.
    assert (error <= np.maximum(np.abs(x).max(-1, keepdims=True) / 253, 1e-36) * np.abs(weight).sum(-1)).all()
    assert (linear(x, matrix)[0] == 0).all()


def test_numbers_that_are_not_finite_stay_visible():
    matrix = QuantizedMatrix.quantize(numbers(20, 64), "q8_0")
    x = numbers(2, 64)
    for value in (np.nan, np.inf):
        x[0, 40] = value
        y = linear(x, matrix)
        assert np.isnan(y[0]).all()
        assert np.isfinite(y[1]).all()


def test_halves_without_an_instruction():
    """Every float16 is widened as NumPy does, with instructions that every processor has."""
    from numba import njit, types
    from numba.extending import intrinsic

    from tensorlite.backends.cpu.compiled import simd

    @intrinsic
    def widen(context, source, target):
        def generate(context, builder, signature, args):
            halves = simd.load(builder, args[0], simd.ir.VectorType(simd.I16, 16))
            wide = simd.widen_halves(builder, builder.zext(halves, simd.I32x16))
            simd.store(builder, wide, args[1])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    @njit
    def run(source, target, n):
        for i in range(0, n, 16):
            widen(source + 2 * i, target + 4 * i)

    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    found = np.empty(1 << 16, np.float32)
    run(halves.ctypes.data, found.ctypes.data, len(halves))
    np.testing.assert_array_equal(found, halves.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(found), np.signbit(halves))


@pytest.mark.parametrize(("setting", "value", "method"), [
    ("CPU_FEATURES", "", "any"), ("CPU_FEATURES", "+avx2,+f16c", "avx2"), ("ENABLE_AVX", 0, "any"),
])  # fmt: skip
def test_the_method_follows_the_settings_of_numba(monkeypatch, setting, value, method):
    """An instruction that numba may not use ends the process while it compiles."""
    from numba import config

    from tensorlite.backends.cpu.compiled import simd

    monkeypatch.setattr(config, setting, value)
    assert simd.dot_method.__wrapped__() == method
    if setting == "CPU_FEATURES":
        assert simd.has_halves.__wrapped__() == ("+f16c" in value)


def test_each_method_of_dot_products_gives_the_same():
    from numba import njit

    from tensorlite.backends.cpu.compiled import simd

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (16, 4)).astype(np.uint8), rng.integers(-128, 128, (16, 4)).astype(np.int8)
    x[0], y[0] = 255, -128  # the largest sums
    x[1], y[1] = 255, 127
    start, out = rng.integers(-1000, 1000, 16).astype(np.int32), np.empty(16, np.int32)
    expected = start + (x.astype(np.int32) * y).sum(-1, dtype=np.int32)
    methods = list(simd.DOT_METHODS)
    for name in methods[methods.index(simd.dot_method()) :]:  # A faster one needs another processor.
        apply = simd.call_of_vectors(simd.DOT_METHODS[name])

        @njit
        def run(a, b, c, d, apply=apply):
            apply(a, b, c, d)

        out[:] = 0
        run(*(array.ctypes.data for array in (start, x, y, out)))
        np.testing.assert_array_equal(out, expected, err_msg=name)
