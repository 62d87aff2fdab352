"""Integers at the ends of their range: values by Python's own integers, dtypes, numbers that do not fit."""

import math
import operator
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import DTypeError

INTEGERS = [np.dtype(name) for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")]
WIDE = [2**31, 2**53 + 1, 2**63 - 1, -(2**63)]


def extremes(dtype):
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return sorted({low, low + 1, high, high - 1, high // 3, 0, 1, 2, 7} | ({-1, -5} if low else set()))


def wrapped(number, dtype):
    """Return the number that the dtype has for an integer out of its range, as two's complement."""
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return (number - low) % (high - low + 1) + low


def truncated(x, y):
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


ARITHMETIC = {
    "add": (tl.add, operator.add), "sub": (tl.sub, operator.sub), "mul": (tl.mul, operator.mul),
    "floor": (lambda x, y: tl.div(x, y, rounding_mode="floor"), operator.floordiv),
    "trunc": (lambda x, y: tl.div(x, y, rounding_mode="trunc"), truncated),
    "floor_divide": (tl.floor_divide, operator.floordiv), "remainder": (tl.remainder, operator.mod),
    "fmod": (tl.fmod, lambda x, y: x - y * truncated(x, y)),
    "maximum": (tl.maximum, max), "minimum": (tl.minimum, min),
    "and": (operator.and_, operator.and_), "or": (operator.or_, operator.or_), "xor": (operator.xor, operator.xor),
}  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", "strict"])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_is_exact(name, dtype, device):
    f, exact = ARITHMETIC[name]
    divides = name in ("floor", "trunc", "floor_divide", "remainder", "fmod")
    pairs = [(x, y) for x, y in product(extremes(dtype), repeat=2) if y or not divides]
    x, y = (tl.tensor(column, dtype=dtype, device=device) for column in zip(*pairs, strict=True))
    expected = [wrapped(exact(a, b), dtype) for a, b in pairs]
    out = f(x, y)
    assert out.dtype == dtype
    assert out.tolist() == expected
    for k in (0, len(pairs) // 2, -1):  # a number, and a 0-d tensor of another width
        a, b = pairs[k]
        zero_d = tl.tensor(b, dtype=dtype if dtype == np.uint64 else tl.int64, device=device)
        for other in (b, zero_d):
            out = f(tl.tensor([a], dtype=dtype, device=device), other)
            assert (out.dtype, out.tolist()) == (dtype, [expected[k]])


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_shifts_beyond_the_width(dtype):
    bits = 8 * dtype.itemsize
    for x, n in product(extremes(dtype), (0, 1, bits - 1, bits, bits + 3)):
        left = tl.tensor([x], dtype=dtype) << n
        right = tl.tensor([x], dtype=dtype) >> tl.tensor(n, dtype=tl.uint8)
        assert (left.dtype, right.dtype) == (dtype, dtype)
        assert left.tolist() == [wrapped(x << n, dtype) if n < bits else 0]
        assert right.tolist() == [x >> n]


COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("f", COMPARISONS, ids=lambda f: f.__name__)
def test_comparisons_are_exact(f, dtype):
    values = extremes(dtype)
    x = tl.tensor(values, dtype=dtype)
    for n in (*WIDE, 2**64, -1, 255, 300, 0.5, 127.0625, math.inf):
        assert f(x, n).tolist() == [f(v, n) for v in values], n
    for other in INTEGERS:
        for n in extremes(other):
            assert f(x, tl.tensor(n, dtype=other)).tolist() == [f(v, n) for v in values]
            assert f(x, tl.tensor([n], dtype=other)).tolist() == [f(v, n) for v in values]


def test_among_floats_a_0_d_tensor_does_not_decide_the_width_of_a_comparison():
    x = tl.tensor([0.1])
    assert (x == tl.tensor(0.1, dtype=tl.float64)).item()
    assert not (x == tl.tensor([0.1], dtype=tl.float64)).item()


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize(("rtol", "atol"), [(0.0, 0.0), (0.0, 0.5), (0.0, 1.0), (0.25, 0.0), (1e-5, 1e-8), (2.0, 3.0)])
def test_isclose_of_integers(dtype, rtol, atol):
    pairs = list(product(extremes(dtype), repeat=2))
    x, y = (tl.tensor(column, dtype=dtype) for column in zip(*pairs, strict=True))
    exact = [abs(a - b) <= Fraction(atol) + Fraction(rtol) * abs(b) for a, b in pairs]
    assert tl.isclose(x, y, rtol, atol).tolist() == exact
    assert tl.allclose(x, y, rtol, atol) == all(exact)


def test_isclose_of_different_dtypes():
    wide = tl.tensor([2**53 + 1, 16777217])
    assert tl.isclose(wide, tl.tensor([2**53, 16777216]), 0.0, 0.0).tolist() == [False, False]
    assert tl.isclose(wide, tl.tensor([2.0**53, 16777216.0]), 0.0, 0.5).tolist() == [True, False]
    assert not tl.isclose(tl.tensor([1], dtype=tl.int8), tl.tensor(257)).item()
    half = tl.tensor([60000.0, -60000.0], dtype=tl.float16)
    assert tl.isclose(half, -half, 1.9, 0.0).tolist() == [False, False]  # 120,000 would be infinite, as 114,000
    for bad in ({"rtol": -1.0}, {"atol": -1.0}, {"atol": math.nan}):
        with pytest.raises(ValueError, match=r"^isclose: rtol and atol must not be negative"):
            tl.isclose(half, half, **bad)


REDUCTIONS = {"sum": (tl.sum, sum), "prod": (tl.prod, math.prod)}


@pytest.mark.parametrize("target", INTEGERS[:5], ids=str)
@pytest.mark.parametrize("dtype", [np.dtype(bool), *INTEGERS[:5]], ids=str)
def test_a_reduction_returns_its_dtype(dtype, target):
    values = [True, False, True] if dtype.kind == "b" else extremes(dtype)
    x = tl.tensor(values, dtype=dtype)
    for f, exact in REDUCTIONS.values():
        out = f(x, dtype=target)
        assert (out.dtype, out.item()) == (target, wrapped(exact(map(int, values)), target))
        assert f(x).dtype == tl.int64
    running = tl.cumsum(x, 0, dtype=target)
    assert running.dtype == target
    assert running.tolist() == [wrapped(sum(map(int, values[: k + 1])), target) for k in range(len(values))]
    assert tl.cumsum(tl.tensor(values[0], dtype=dtype), 0).dtype == tl.int64
    assert (tl.sum(x, dtype=tl.float32).dtype, tl.sum(x, dtype=bool).item()) == (tl.float32, True)


I8, HALF, MASK = tl.ones(2, dtype=tl.int8), tl.ones(2, dtype=tl.float16), tl.tensor([True, False])

UNFIT = [
    lambda: I8 + 300, lambda: 300 * I8, lambda: I8 // -129, lambda: I8 & 128, lambda: I8 << 200,
    lambda: I8.clamp(0, 300),
    lambda: tl.div(I8, 300, rounding_mode="trunc"), lambda: tl.maximum(I8, 300), lambda: tl.where(MASK, I8, 300),
    lambda: tl.where(MASK, 2**63, I8), lambda: tl.where(MASK, 2**63, 1), lambda: I8.masked_fill(MASK, 300),
    lambda: I8.masked_fill(MASK, tl.tensor(300)), lambda: HALF.masked_fill(MASK, -1e9), lambda: I8.add_(300),
    lambda: tl.full((2,), math.nan, dtype=tl.int64), lambda: tl.full((2,), math.inf, dtype=tl.int8),
    lambda: tl.full((2,), 300, dtype=tl.int8), lambda: tl.full((2,), 1e10, dtype=tl.float16),
    lambda: tl.full((2,), 2**63), lambda: tl.full((2,), 1j, dtype=tl.float32), lambda: tl.full_like(I8, 300),
    lambda: tl.full((2,), tl.tensor(300), dtype=tl.int8), lambda: tl.full((2,), np.float64(1e30), dtype=tl.int64),
    lambda: I8.new_full((2,), -129), lambda: tl.tensor(2**63), lambda: tl.tensor([2**63, -1]),
    lambda: tl.tensor([[1], [2**64]]), lambda: tl.tensor(2.0**63, dtype=tl.int64),
    lambda: tl.tensor(1j, dtype=tl.float32),
    lambda: tl.tensor([300.5], dtype=tl.uint8), lambda: tl.tensor(-1, dtype=tl.uint8), lambda: I8.new_tensor([1, 300]),
    lambda: tl.tensor([2**64], dtype="uint64"), lambda: tl.tensor([10**400], dtype=tl.float64),
    lambda: tl.tensor([np.uint64(1), -1]), lambda: tl.arange(0, 300, 100, dtype=tl.int8),
    lambda: tl.arange(2**63, 2**63 + 2),
    lambda: tl.arange(3, dtype=bool), lambda: tl.linspace(0, 300, 4, dtype=tl.int8),
    lambda: tl.linspace(0, 1, 3, dtype=bool),
    lambda: tl.ones(2, dtype=bool) ** True, lambda: MASK << MASK, lambda: MASK // MASK, lambda: MASK % MASK,
    lambda: I8 & 1.5, lambda: I8 | HALF,
]  # fmt: skip


@pytest.mark.parametrize("call", UNFIT)
def test_a_number_that_does_not_fit_is_an_error(call):
    with pytest.raises(DTypeError):
        call()


@pytest.mark.parametrize("value", [math.nan, -math.inf, 1e30, 2**63, 128, -129, np.float64("nan"), np.int64(300)])
@pytest.mark.parametrize("write", ["setitem", "fill_"])
def test_a_number_that_does_not_fit_is_not_written(write, value):
    x = tl.zeros(3, dtype=tl.int8)
    with pytest.raises(DTypeError, match=rf"^{write}: .* does not fit into a tensor of int8"):
        x.__setitem__(0, value) if write == "setitem" else x.fill_(value)
    with pytest.raises(DTypeError, match=r"^setitem: the numbers from .* do not fit into int8"):
        x[:2] = np.full(2, value) if write == "setitem" else [value, value]
    assert x.tolist() == [0, 0, 0]


def test_numbers_that_fit():
    """PyTorch's values."""
    assert (HALF + 1e10).tolist() == [math.inf, math.inf]
    assert tl.where(MASK, HALF, -1e10).tolist() == [1.0, -math.inf]
    assert tl.full((1,), 2.7, dtype=tl.int64).tolist() == tl.tensor([2.7], dtype=tl.int64).tolist() == [2]
    assert tl.full((1,), math.nan, dtype=bool).tolist() == tl.tensor([math.nan], dtype=bool).tolist() == [True]
    assert tl.tensor([1e10, -1e300], dtype=tl.float16).tolist() == [math.inf, -math.inf]
    assert tl.tensor(2**63, dtype="uint64").item() == tl.tensor([2**63], dtype=tl.float64).item() == 2**63
    assert tl.tensor([2**63, 1.0]).tolist() == [2.0**63, 1.0]
    assert tl.tensor([-0.5], dtype=tl.uint8).tolist() == [0]
    assert tl.arange(2**63 - 3, 2**63 - 1).tolist() == [2**63 - 3, 2**63 - 2]
    assert tl.arange(0, 2**60 + 1, 2**58).tolist() == [k * 2**58 for k in range(5)]
    assert tl.arange(120, 128, 3, dtype=tl.int8).tolist() == [120, 123, 126]
    assert tl.arange(5, 0, -2).tolist() == [5, 3, 1]
    assert tl.linspace(-2.5, 2.5, 4, dtype=tl.int64).tolist() == [-2, 0, 0, 2]
    assert tl.square(MASK).dtype == tl.int64
    assert tl.round(MASK).dtype == bool


@pytest.mark.parametrize("target", ["int8", "int16", "int32", "int64", "uint8", "float16", "float32", "bool"])
def test_conversions_are_those_of_pytorch(target):
    torch = pytest.importorskip("torch")
    values = [0.0, -0.5, 2.7, -2.7, 127.9, 128.0, 300.0, -300.0, 65504.0, 1e10, -1e10, math.nan]
    for source in (np.float64, np.float32):
        array = np.array(values, source)
        out = tl.tensor(array).to(target)
        np.testing.assert_array_equal(out.numpy(), torch.tensor(array).to(getattr(torch, target)).numpy())
