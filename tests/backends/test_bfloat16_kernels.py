"""The compiled loops of bfloat16 arrays."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.backends import registry
from tensorlite.backends.cpu import bfloat16_kernels, casts, find_compiled, thread_pool
from tensorlite.nn import functional as F

ml_dtypes = pytest.importorskip("ml_dtypes")
BF16, F32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)

needs_numba = pytest.mark.skipif(find_compiled.find_compiled() is None, reason="needs numba")


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    monkeypatch.setattr(thread_pool, "_num_threads", 3)


def bits(x):
    return x.view(f"u{x.itemsize}")


# ---- conversion -----------------------------------------------------------------------------


def float32_sample():
    """Return float32 numbers of every sign and exponent, with ties, NaN of every kind, infinities and subnormals."""
    rng = np.random.default_rng(0)
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return np.concatenate(
        [(upper[:, None] | lower).reshape(-1), rng.integers(0, 1 << 32, 200_003, np.uint32)]
    ).view(F32)


def test_bfloat16_numbers_become_the_same_float32_numbers():
    x = np.arange(1 << 16, dtype=np.uint16).view(BF16)
    found = casts.cast_array(x, F32)
    np.testing.assert_array_equal(bits(found), np.arange(1 << 16, dtype=np.uint32) << 16)
    np.testing.assert_array_equal(bits(casts.cast_array(found, BF16))[~np.isnan(found)], bits(x)[~np.isnan(found)])


@pytest.mark.filterwarnings("ignore:invalid value")
def test_float32_numbers_are_rounded_as_ml_dtypes_does():
    x = float32_sample()
    np.testing.assert_array_equal(bits(casts.cast_array(x, BF16)), bits(x.astype(BF16)))


LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(2, 0, 1),
    "every other row": lambda x: x[:, ::2],
    "reversed": lambda x: x[::-1, :, ::-1],
    "columns": lambda x: x[..., 3:17],
    "broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "every third column, transposed": lambda x: x[..., ::3].swapaxes(0, 2),
    "odd address": lambda x: np.frombuffer(b"." + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("source", "target"), [(F32, BF16), (BF16, F32)])
def test_arrays_of_every_layout_are_converted(layout, source, target):
    x = LAYOUTS[layout](np.random.default_rng(0).standard_normal((30, 40, 50)).astype(source))
    found, expected = casts.cast_array(x, target), x.astype(target)
    np.testing.assert_array_equal(bits(found), bits(expected))
    assert (found.dtype, found.strides) == (target, expected.strides)


# ---- ops ------------------------------------------------------------------------------------


def calls(rng):
    """Yield the name of an op, a function of bfloat16 tensors, and their arrays."""
    x = rng.standard_normal((48, 103)).astype(BF16)
    yield "gelu", F.gelu, [x]
    yield "gelu", lambda x: F.gelu(x, approximate="tanh"), [x]
    yield "gelu", lambda x: F.gelu(x.T).T, [x]  # x and the gradient are not contiguous
    yield "silu", lambda x: F.silu(x[:, ::2]), [x]
    yield "gelu", F.gelu, [np.tile(np.arange(1 << 16, dtype=np.uint16), 2).view(BF16)]
    yield "silu", F.silu, [x]
    yield "silu", F.silu, [np.arange(1 << 16, dtype=np.uint16).view(BF16)]


def run(f, arrays, dtype, g):
    """Return the result of f on tensors of a dtype, and the gradients of its inputs."""
    inputs = [tl.tensor(a, requires_grad=True) for a in arrays]
    y = f(*(x.to(dtype) for x in inputs)).to(BF16)
    y.backward(tl.tensor(g))
    return [y.array, *(x.grad.array for x in inputs)]


@needs_numba
@pytest.mark.parametrize("case", range(7))
def test_results_are_those_of_float32_rounded_once(case, monkeypatch):
    """So are the gradients, to the bit."""
    covered = []
    covers = bfloat16_kernels.covers
    xp = registry.namespace(registry.device("cpu")).bfloat16
    monkeypatch.setattr(xp, "covers", lambda op, args: covers(op, args) and (covered.append(op) or True))
    rng = np.random.default_rng(case)
    name, f, arrays = list(calls(rng))[case]
    with np.errstate(all="ignore"):
        g = rng.standard_normal(f(*map(tl.tensor, arrays)).shape).astype(BF16)
        assert covered == [name]
        found, expected = run(f, arrays, BF16, g), run(f, arrays, F32, g)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype == BF16
        np.testing.assert_array_equal(bits(a), bits(b))


@needs_numba
@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_number_of_threads_does_not_change_the_bits(count, monkeypatch):
    x = np.random.default_rng(0).standard_normal((300, 301)).astype(BF16)
    g = x[::-1].copy()
    for f in (F.gelu, F.silu):
        expected = run(f, [x], BF16, g)
        with monkeypatch.context() as patch:
            patch.setattr(thread_pool, "_num_threads", count)
            for a, b in zip(run(f, [x], BF16, g), expected, strict=True):
                np.testing.assert_array_equal(bits(a), bits(b))


@needs_numba
def test_an_op_of_a_user_does_not_get_the_kernels_of_one_of_its_name():
    @tl.op(lambda g: g, dtypes="floating", widen=True)
    def gelu(xp, x):
        assert x.dtype == F32
        return x + 1

    x = tl.tensor(np.ones(5000, F32).astype(BF16), requires_grad=True)
    gelu(x).sum().backward()
    assert (x.grad == 1).all()
