"""Autocast on processors with and without bfloat16 arithmetic, and what a GPT block saves."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("ml_dtypes")
import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn
from tensorlite.amp import autocast_context
from tensorlite.backends import mixed_precision
from tensorlite.backends.cpu import products


@pytest.fixture
def without_products(monkeypatch):
    """Make the processor one without bfloat16 arithmetic, of which nothing was said yet."""
    monkeypatch.setattr(mixed_precision, "has_bfloat16_products", lambda: False)
    monkeypatch.setattr(autocast_context, "_warned", set())


def test_a_processor_without_bfloat16_says_so_once_and_computes_in_float32(without_products):
    x, w = tl.randn(3, 4), nn.Parameter(tl.randn(4, 4))

    def product():
        with tl.autocast("cpu"):
            assert tl.is_autocast_enabled("cpu")
            assert tl.get_autocast_dtype("cpu") == tl.bfloat16
            return x @ w

    with pytest.warns(RuntimeWarning, match="this processor has no bfloat16 arithmetic") as said:
        found = [product() for _ in range(3)]
    y = found[-1]
    assert len(said) == 1
    assert "\n" not in str(said[0].message)
    assert y.dtype == tl.float32
    assert np.array_equal(y.detach().numpy(), (x @ w).detach().numpy())
    assert y.grad_fn.saved[0] is x.array  # nothing was converted, so it takes as long as without autocast
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with tl.autocast("cpu"), tl.autocast("cpu", enabled=False):
            pass
        with tl.autocast("cpu", dtype=tl.float16):
            assert (x @ w).dtype == tl.float16
        with tl.autocast("strict", dtype=tl.bfloat16):
            assert tl.ones(2, device="strict").exp().dtype == tl.float32


def test_without_compiled_kernels_there_are_no_products(monkeypatch):
    decide = products.has_bfloat16_products.__wrapped__
    assert decide() is products.has_bfloat16_products()
    monkeypatch.setattr(products, "_load", lambda: None)
    assert decide() is False


@pytest.mark.skipif(not products.has_bfloat16_products(), reason="the processor has no bfloat16 arithmetic")
@pytest.mark.parametrize("inside", [True, False])
def test_weight_gradients_are_not_rounded_to_bfloat16(inside):
    """Inside autocast they are float32 sums. Weights that are bfloat16 themselves have gradients of their dtype."""
    rng = np.random.default_rng(0)
    x, w, b, g = (
        tl.tensor(rng.standard_normal(shape).astype(np.float32)).to(tl.bfloat16)
        for shape in ((512, 32), (64, 32), (64,), (512, 64))
    )
    w, b = (nn.Parameter(t.float() if inside else t) for t in (w, b))
    with tl.autocast("cpu", enabled=inside):
        y = F.linear(x.float() if inside else x, w, b)
    y.backward(g)
    exact = [g.double().numpy().T @ x.double().numpy(), g.double().numpy().sum(0)]
    for p, expected in zip((w, b), exact, strict=True):
        assert p.grad.dtype == p.dtype
        error = np.abs(p.grad.double().numpy() - expected).max() / np.abs(expected).max()
        assert error < 1e-6 if inside else 1e-4 < error < 4e-3


@pytest.mark.skipif(not products.has_bfloat16_products(), reason="the processor has no bfloat16 arithmetic")
@pytest.mark.parametrize(("x", "y"), [(2.0**-130, 1.0), (2.0**-130, 2.0**20), (2.0**-70, 2.0**-60)])
def test_products_in_bfloat16_take_subnormal_numbers_as_zero(x, y):
    """The instructions do so; docs/mixed-precision.md says it. The same product in float32 keeps them."""
    a, b = tl.full((64, 64), x), tl.eye(64) * y
    assert (a @ b)[0, 0].item() == x * y > 0
    assert not (a.to(tl.bfloat16) @ b.to(tl.bfloat16)).any()
    normal = tl.full((64, 64), 2.0**-126).to(tl.bfloat16)
    assert (normal @ tl.eye(64).to(tl.bfloat16)).float().eq(2.0**-126).all()


def test_importing_tensorlite_imports_neither_amp_nor_ml_dtypes():
    code = (
        "import sys, tensorlite as tl; tl.ones(2) @ tl.ones(2); assert 'ml_dtypes' not in sys.modules; "
        "assert 'tensorlite.amp' not in sys.modules; tl.autocast('cpu', enabled=False).__enter__(); "
        "assert 'ml_dtypes' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


class Block(nn.Module):
    """A block of GPT-2."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.c_attn(self.ln_1(x)).chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.c_proj(y)
        return x + self.proj(F.gelu(self.fc(self.ln_2(x))))


def saved_bytes(out, parameters):
    """Return the bytes of all arrays that the graph of a result saves, except for those of the parameters."""
    known = {id(p.array) for p in parameters}
    found, seen, stack = {}, set(), [out.grad_fn]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for value in node.saved or ():
            while isinstance(getattr(value, "base", None), np.ndarray):
                value = value.base
            if isinstance(value, np.ndarray) and id(value) not in known:
                found[id(value)] = value.nbytes
        stack += [n for n, _ in node.next_functions if hasattr(n, "saved")]
    return sum(found.values())


def test_a_gpt_block_saves_about_half_the_bytes(monkeypatch):
    monkeypatch.setattr(mixed_precision, "has_bfloat16_products", lambda: True)
    tl.manual_seed(0)
    block, x = Block(64, 4), tl.randn(8, 64, 64)
    wide = block(x)
    with tl.autocast("cpu", dtype=tl.bfloat16):
        low = block(x)
    parameters = list(block.parameters())
    sizes = [saved_bytes(out, parameters) for out in (low, wide)]
    assert sizes[1] > 16 * 64 * 8 * 64 * 4 * 0.9  # 16 rows of the width for each token, see gpt/model/size.py
    assert sizes[0] <= 0.65 * sizes[1], sizes
