"""Gradients of float32 inputs of products inside autocast: the float32 sums of the products, not rounded."""

import numpy as np
import pytest

pytest.importorskip("ml_dtypes")
import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn
from tensorlite.backends.cpu import bfloat16_kernels, kernels, products

PRODUCTS = {
    "matrices": (lambda x, w: x @ w, (128, 64), (64, 32)),
    "a stack and a matrix": (lambda x, w: x @ w, (4, 32, 64), (64, 32)),
    "small matrices": (lambda x, w: x @ w, (3, 4), (4, 5)),
    "a matrix and a vector": (lambda x, w: x @ w, (30, 64), (64,)),
    "a vector and a matrix": (lambda x, w: x @ w, (30,), (30, 64)),
    "vectors": (lambda x, w: x @ w, (30,), (30,)),
    "stacks": (tl.bmm, (2, 96, 80), (2, 80, 72)),
    "stacks that broadcast": (lambda x, w: x @ w, (2, 1, 96, 80), (3, 80, 72)),
    "a matrix and a stack": (lambda x, w: x @ w, (6, 8), (3, 8, 7)),
    "addmm": (lambda b, x, w: tl.addmm(b, x, w, beta=2, alpha=0.5), (72,), (64, 80), (80, 72)),
    "linear": (F.linear, (64, 80), (72, 80), (72,)),
    "linear of a vector": (F.linear, (8,), (7, 8), (7,)),
    "einsum": (lambda x, w: tl.einsum("bhid,bhjd->bhij", x, w), (2, 3, 64, 80), (2, 3, 70, 80)),
    "einsum of vectors": (lambda x, w: tl.einsum("i,i->", x, w), (64,), (64,)),
    "conv1d": (lambda x, w: F.conv1d(x, w, stride=2, dilation=2), (4, 8, 40), (16, 8, 3)),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=2), (2, 8, 9, 9), (16, 4, 3, 3), (16,)),
    "conv_transpose2d": (lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2), (4, 8, 5, 5), (8, 6, 3, 3), (6,)),
    "attention with a mask": (
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m), *[(2, 9, 8)] * 3, (9, 9)
    ),
}  # fmt: skip


def rounded(rng, shape, dtype):
    """Return a Tensor of numbers of a dtype, in float32."""
    return tl.tensor(rng.standard_normal(shape).astype(np.float32)).to(dtype).float()


@pytest.mark.parametrize("dtype", [tl.bfloat16, tl.float16], ids=str)
@pytest.mark.parametrize("name", PRODUCTS)
def test_gradients_of_float32_inputs_are_not_rounded(name, dtype):
    """The inputs and the gradient of the result are numbers of the lower dtype, so float64 gives the exact sums."""
    f, *shapes = PRODUCTS[name]
    rng = np.random.default_rng(0)
    inputs = [rounded(rng, shape, dtype).requires_grad_() for shape in shapes]
    with tl.autocast("cpu", dtype=dtype):
        y = f(*inputs)
    g = rounded(rng, y.shape, dtype)
    y.backward(g.to(dtype))
    exact = [x.detach().double().requires_grad_() for x in inputs]
    f(*exact).backward(g.double())
    assert y.dtype == dtype
    for x, wide in zip(inputs, exact, strict=True):
        assert x.grad.dtype == tl.float32
        assert abs(x.grad.double() - wide.grad).max() < 2e-6 * abs(wide.grad).max()


@pytest.mark.parametrize("cell", [nn.RNN, nn.GRU, nn.LSTM])
def test_weight_gradients_of_recurrent_layers_have_more_digits_than_bfloat16(cell):
    tl.manual_seed(0)
    layer = cell(16, 16)
    with tl.autocast("cpu", dtype=tl.bfloat16):
        out, _ = layer(tl.randn(4, 5, 16))
    out.float().square().sum().backward()
    for p in layer.parameters():
        assert p.grad.dtype == tl.float32
        assert (p.grad.to(tl.bfloat16).float() != p.grad).sum() > 0.9 * p.numel()


def test_inputs_of_the_lower_dtype_have_gradients_of_it():
    x = tl.ones(3, 4, dtype=tl.bfloat16).requires_grad_()
    w = tl.ones(4, 4).requires_grad_()
    with tl.autocast("cpu", dtype=tl.bfloat16):
        y = x @ w
        z = F.conv1d(x[None], tl.ones(2, 3, 1)[:, :3], tl.ones(2))
    (y.sum() + z.sum()).backward()
    assert (x.grad.dtype, w.grad.dtype) == (tl.bfloat16, tl.float32)


@pytest.mark.parametrize("name", ["matrices", "a vector and a matrix", "stacks", "addmm", "einsum", "conv2d"])
def test_second_derivatives_are_those_of_float32(name):
    f, *shapes = PRODUCTS[name]
    rng = np.random.default_rng(0)
    inputs = [rounded(rng, shape, tl.bfloat16).requires_grad_() for shape in shapes]

    def penalty(enabled):
        with tl.autocast("cpu", dtype=tl.bfloat16, enabled=enabled):
            loss = (f(*inputs).float() ** 2).sum()
        grads = tl.autograd.grad(loss, inputs, create_graph=True)
        return tl.autograd.grad(sum((g**2).sum() for g in grads), inputs)

    for found, expected in zip(penalty(True), penalty(False), strict=True):
        assert found.dtype == tl.float32
        assert tl.linalg.norm(found - expected) < 0.02 * tl.linalg.norm(expected)


@pytest.mark.skipif(not products.has_bfloat16_products(), reason="the processor has no bfloat16 arithmetic")
@pytest.mark.parametrize("name", ["matrices", "stacks", "addmm", "linear", "einsum", "conv1d", "conv_transpose2d"])
def test_products_multiply_in_bfloat16(monkeypatch, name):
    """The convolutions do so too, in the forward and in the backward pass."""
    f, *shapes = PRODUCTS[name]
    rng = np.random.default_rng(0)
    calls, multiply = [], kernels.multiply
    monkeypatch.setattr(kernels, "_MIN_OF_STACK", 1)
    monkeypatch.setattr(bfloat16_kernels, "_MANY", 1)
    monkeypatch.setattr(
        kernels, "multiply", lambda x, y, *rest: calls.append({x.dtype, y.dtype}) or multiply(x, y, *rest)
    )
    inputs = [rounded(rng, shape, tl.bfloat16).requires_grad_() for shape in shapes]
    with tl.autocast("cpu", dtype=tl.bfloat16):
        y = f(*inputs)
    forward = len(calls)
    y.backward(tl.ones_like(y))
    assert forward >= 1
    assert len(calls) >= 3 * forward
    assert all(dtypes == {tl.bfloat16} for dtypes in calls)


def test_a_rule_may_name_the_dtype_that_its_input_had():
    @tl.op(lambda g, given_dtype: seen.append(given_dtype) or g * 2, autocast="lower")
    def double(xp, x):
        return x * 2

    seen = []
    x = tl.ones(3).requires_grad_()
    with tl.autocast("cpu", dtype=tl.bfloat16):
        y = double(x)
    y.float().sum().backward()
    double(x).sum().backward()
    assert seen == [tl.float32, tl.float32]
    assert x.grad.tolist() == [4.0] * 3
