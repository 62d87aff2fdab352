"""Check matrices in 4 and 8 bits against the package gguf, which has ggml's formats."""

import numpy as np
import pytest

pytest.importorskip("gguf")
import gguf.quants
from gguf import GGMLQuantizationType

from tensorlite.quantized import KINDS, QuantizedMatrix, linear

SHAPES = [(1, 32), (5, 64), (16, 32), (33, 96), (40, 160)]


def weights(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def ggml(kind):
    return GGMLQuantizationType[kind.upper()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_blocks_keep_their_bits(kind, rows, columns):
    blocks = gguf.quants.quantize(weights(rows, columns), ggml(kind))
    matrix = QuantizedMatrix.from_blocks(blocks, kind)
    expected = gguf.quants.dequantize(blocks, ggml(kind))
    assert matrix.shape == (rows, columns)
    np.testing.assert_array_equal(matrix.to_blocks(), blocks)
    np.testing.assert_allclose(matrix.dequantize(), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_quantize_is_as_close_as_ggml(kind):
    values = weights(64, 256)
    theirs = gguf.quants.dequantize(gguf.quants.quantize(values, ggml(kind)), ggml(kind))
    ours = QuantizedMatrix.quantize(values, kind).dequantize()
    assert np.abs(ours - values).mean() <= 1.001 * np.abs(theirs - values).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_filled_up_with_zeros(kind):
    values = weights(3, 33)
    matrix = QuantizedMatrix.quantize(values, kind)
    assert matrix.dequantize().shape == (3, 33)
    np.testing.assert_array_equal(matrix.dequantize([[2, 0]]), matrix.dequantize()[[[2, 0]]])
    x = weights(2, 33, seed=1)
    expected = x @ matrix.dequantize().T
    np.testing.assert_allclose(linear(x, matrix), expected, rtol=0, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_and_constant_rows(kind):
    values = np.repeat(np.array([[0.0], [1.5], [-2.0]], np.float32), 64, axis=1)
    np.testing.assert_allclose(QuantizedMatrix.quantize(values, kind).dequantize(), values, rtol=1e-3)


@pytest.mark.parametrize("first", [16, 5])
def test_concatenate_joins_rows(first):
    values = weights(40, 64)
    whole = QuantizedMatrix.quantize(values, "q4_1")
    parts = [QuantizedMatrix.quantize(part, "q4_1") for part in (values[:first], values[first:])]
    joined = QuantizedMatrix.concatenate(parts)
    assert joined.shape == whole.shape
    np.testing.assert_array_equal(joined.dequantize(), whole.dequantize())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, 64), (3, 0), (0, 0)])
def test_matrices_without_numbers(kind, shape):
    matrix = QuantizedMatrix.quantize(np.zeros(shape, np.float32), kind)
    again = QuantizedMatrix.from_blocks(matrix.to_blocks(), kind)
    assert matrix.dequantize().shape == again.dequantize().shape == shape
    np.testing.assert_array_equal(linear(np.ones((2, shape[1]), np.float32), matrix), np.zeros((2, shape[0])))
    full = QuantizedMatrix.quantize(weights(5, shape[1]), kind)
    joined = QuantizedMatrix.concatenate([matrix, full, matrix])
    assert joined.shape == (5 + 2 * shape[0], shape[1])
    np.testing.assert_array_equal(joined.dequantize()[shape[0] :][:5], full.dequantize())


def test_errors_name_what_was_expected():
    values = weights(2, 32)
    with pytest.raises(ValueError, match=r"^quantize: expected a kind of q8_0, q4_0, q4_1, got 'q5'"):
        QuantizedMatrix.quantize(values, "q5")
    with pytest.raises(ValueError, match=r"^quantize: expected a matrix of floats"):
        QuantizedMatrix.quantize(values[0], "q8_0")
    with pytest.raises(ValueError, match=r"^quantize: expected finite numbers up to"):
        QuantizedMatrix.quantize(values * np.float32(np.inf), "q8_0")
    matrix = QuantizedMatrix.quantize(values, "q8_0")
    with pytest.raises(ValueError, match=r"^from_blocks: expected uint8 \(rows, a multiple of 18 bytes\)"):
        QuantizedMatrix.from_blocks(np.zeros((2, 17), np.uint8), "q4_0")
    with pytest.raises(ValueError, match=r"^from_blocks: expected uint8"):
        QuantizedMatrix.from_blocks([[1.0]], "q4_0")
    with pytest.raises(ValueError, match=r"^from_blocks: expected a kind of .*, got \['q4_0'\]"):
        QuantizedMatrix.from_blocks(np.zeros((2, 18), np.uint8), ["q4_0"])
    with pytest.raises(TypeError, match=r"^linear: expected a QuantizedMatrix, got ndarray"):
        linear(values, values)
    with pytest.raises(TypeError, match=r"^concatenate: expected a QuantizedMatrix, got ndarray"):
        QuantizedMatrix.concatenate([values])
    with pytest.raises(TypeError, match=r"^dequantize: expected integers as rows, got float64"):
        matrix.dequantize([0.5])
    for arrays, name in (
        ((matrix.quants[:0], matrix.scales), "quants"), ((matrix.quants, matrix.scales.astype("f4")), "scales"),
        ((np.asfortranarray(matrix.quants), matrix.scales), "quants"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^QuantizedMatrix: expected contiguous {name}, "):
            QuantizedMatrix("q8_0", (2, 32), *arrays)
    with pytest.raises(ValueError, match=r"^linear: expected x, float32 \(\.\.\., 32\)"):
        linear(values[:, :16], matrix)
    with pytest.raises(IndexError, match=r"^dequantize: expected rows from 0 to 1, got 2 to 2"):
        matrix.dequantize([2])
    with pytest.raises(ValueError, match=r"^concatenate: expected matrices of one kind"):
        QuantizedMatrix.concatenate([matrix, QuantizedMatrix.quantize(values, "q4_0")])
