"""Autocast next to torch.autocast on the CPU: values, gradients, nesting, the scaler's history, bfloat16 values."""

import math

import numpy as np
import pytest

import tensorlite as tl

torch = pytest.importorskip("torch")
pytest.importorskip("ml_dtypes")

# Functions of a library and of its Tensors, and the shapes of those.
FUNCTIONS = {
    "matmul": (lambda L, x, w: x @ w, (8, 9), (9, 7)),
    "mv": (lambda L, x, w: x @ w, (8, 9), (9,)),
    "linear": (lambda L, *args: L.nn.functional.linear(*args), (8, 9), (7, 9), (7,)),
    "conv2d": (lambda L, *args: L.nn.functional.conv2d(*args, padding=1, stride=2), (2, 3, 9, 9), (4, 3, 3, 3), (4,)),
    "conv1d": (lambda L, *args: L.nn.functional.conv1d(*args, dilation=2, groups=2), (2, 4, 12), (6, 2, 3)),
    "conv1d of one example": (lambda L, *args: L.nn.functional.conv1d(*args, padding="same"), (4, 12), (6, 4, 3), (6,)),
    "conv_transpose2d": (
        lambda L, *args: L.nn.functional.conv_transpose2d(*args, stride=2, output_padding=1),
        (2, 3, 5, 5), (3, 4, 3, 3), (4,),
    ),
    "attention": (
        lambda L, *args: L.nn.functional.scaled_dot_product_attention(*args, is_causal=True), *[(2, 4, 16, 16)] * 3
    ),
    "einsum": (lambda L, *args: L.einsum("ij,jk,kl->il", *args), (4, 5), (5, 6), (6, 7)),
    "einsum of a diagonal": (lambda L, *args: L.einsum("ii,ij->j", *args), (5, 5), (5, 6)),
    "addmm": (lambda L, *args: L.addmm(*args, beta=0.5, alpha=2), (7,), (8, 9), (9, 7)),
    "multi_dot": (lambda L, *args: L.linalg.multi_dot(args), (4, 5), (5, 6), (6, 7)),
    "vecdot": (lambda L, *args: L.linalg.vecdot(*args), (4, 50), (4, 50)),
    "layer_norm": (lambda L, x, w: L.nn.functional.layer_norm(x @ w, (7,)), (8, 9), (9, 7)),
    "group_norm": (lambda L, x: L.nn.functional.group_norm(x, 2), (2, 4, 6)),
    "batch_norm": (lambda L, x: L.nn.functional.batch_norm(x, None, None, training=True), (8, 4, 6)),
    "softmax": (lambda L, x, w: L.softmax(x @ w, -1), (8, 9), (9, 7)),
    "tied weights": (lambda L, w: L.nn.functional.embedding(L.tensor([1, 2, 1]), w) @ w.T, (5, 6)),
    "cat": (lambda L, x, w: L.cat([x @ w, x[:, :7]], 0), (8, 9), (9, 7)),
    "std": (lambda L, x, w: (x @ w).std(0), (8, 9), (9, 7)),
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.02), ("float16", 0.005)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients(name, dtype, tolerance):
    f, *shapes = FUNCTIONS[name]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    found = []
    for library in (tl, torch):
        inputs = [library.tensor(a, requires_grad=True) for a in arrays]
        with library.autocast("cpu", dtype=getattr(library, dtype)):
            y = f(library, *inputs).float()
        g = np.random.default_rng(1).standard_normal(tuple(y.shape)).astype(np.float32)
        (y * library.tensor(g)).sum().backward()
        found.append([y.detach().numpy(), *(x.grad.numpy() for x in inputs)])
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def test_nested_contexts():
    found = []
    for library in (tl, torch):
        x = library.ones(4, 4)
        dtypes = []
        with library.autocast("cpu", dtype=library.bfloat16):
            dtypes.append((x @ x).dtype)
            with library.autocast("cpu", dtype=library.float16):
                dtypes.append((x @ x).dtype)
                with library.autocast("cpu", enabled=False):
                    dtypes.append((x @ x).dtype)
                dtypes.append((x @ x).dtype)
            dtypes.append((x @ x).dtype)
        found.append([str(dtype).removeprefix("torch.") for dtype in dtypes])
    assert found[0] == found[1] == ["bfloat16", "float16", "float32", "float16", "bfloat16"]


@pytest.mark.parametrize("special", [math.inf, math.nan])
def test_products_of_infinities_and_nan(special):
    x, w = (np.random.default_rng(k).standard_normal((64, 64)).astype(np.float32) for k in range(2))
    x[3, 4] = special
    found = []
    for library in (tl, torch):
        with library.autocast("cpu", dtype=library.bfloat16):
            found.append((library.tensor(x) @ library.tensor(w)).float().numpy())
    assert np.array_equal(*map(np.isnan, found))
    assert np.array_equal(*map(np.isinf, found))


@pytest.mark.parametrize("f", [
    lambda L, e, w: e @ w, lambda L, e, w: L.nn.functional.linear(e, w.T, w[0]), lambda L, e, w: e.T @ e,
    lambda L, e, w: L.nn.functional.conv1d(e.unsqueeze(2), w.T.unsqueeze(2)), lambda L, e, w: L.einsum("ij,jk", e, w),
])  # fmt: skip
def test_empty_tensors(f):
    found = []
    for library in (tl, torch):
        e, w = library.ones(0, 3).requires_grad_(), library.ones(3, 4).requires_grad_()
        with library.autocast("cpu", dtype=library.bfloat16):
            y = f(library, e, w)
        y.float().sum().backward()
        grads = [None if x.grad is None else (tuple(x.grad.shape), float(x.grad.sum())) for x in (e, w)]
        found.append((tuple(y.shape), str(y.dtype).removeprefix("torch."), grads))
    assert found[0] == found[1]


def test_the_scaler_takes_the_same_steps():
    def history(library):
        p = library.nn.Parameter(library.tensor([1.0, 2.0]))
        optimizer = library.optim.Adam([p], lr=0.1)
        scaler = library.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        values = []
        for k in range(8):
            optimizer.zero_grad()
            scaler.scale((p * p).sum() * (math.inf if k in (2, 5) else 1.0)).backward()
            if k % 2:
                scaler.unscale_(optimizer)
                library.nn.utils.clip_grad_norm_([p], 1.0)
            scaler.step(optimizer)
            scaler.update()
            values += [scaler.get_scale(), *p.tolist()]
        return values, scaler.state_dict()

    (ours, state), (theirs, their_state) = history(tl), history(torch)
    assert np.allclose(ours, theirs, atol=1e-4)
    assert state == their_state


def test_a_gradient_beyond_float16_is_finite_in_float32():
    w = tl.ones(8, 8).requires_grad_()
    with tl.autocast("cpu", dtype=tl.float16):
        y = tl.full((64, 8), 60.0) @ w
    y.backward(tl.full((64, 8), 60.0, dtype=tl.float16))
    assert w.grad.tolist() == [[64 * 3600.0] * 8] * 8


def test_arrays_that_cannot_be_written():
    a = np.random.default_rng(0).standard_normal((96, 96)).astype(np.float32)
    x = tl.tensor(a).to(tl.bfloat16)
    expected = (x.double() @ x.double()).numpy()
    x.array.flags.writeable = False
    for y in (x @ x, tl.bmm(x.expand(2, 96, 96), x.expand(2, 96, 96))[1], tl.einsum("ij,jk->ik", x, x)):
        assert np.abs(y.double().numpy() - expected).max() < 0.01 * np.abs(expected).max()


def test_a_weight_that_was_converted_without_gradients_gets_one():
    """The conversion that is kept must not be the one without a graph."""
    w = tl.ones(8, 8).requires_grad_()
    with tl.autocast("cpu", dtype=tl.bfloat16):
        with tl.no_grad():
            tl.ones(2, 8) @ w
        y = tl.ones(2, 8) @ w
    y.float().sum().backward()
    assert w.grad.tolist() == [[2.0] * 8] * 8
