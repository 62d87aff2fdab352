"""Batch norm and group norm."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn, testing
from tensorlite.nn import functional as F

rng = np.random.default_rng(0)
LAYERS = {
    "BatchNorm1d": ((4,), {}, (5, 4)),
    "BatchNorm1d sequences": ((4,), {"momentum": 0.3, "eps": 1e-2}, (5, 4, 3)),
    "BatchNorm1d average": ((4,), {"momentum": None}, (5, 4)),
    "BatchNorm1d plain": ((4,), {"affine": False, "track_running_stats": False}, (5, 4)),
    "BatchNorm2d": ((4,), {}, (2, 4, 3, 5)),
    "GroupNorm": ((2, 4), {}, (3, 4, 5)),
    "GroupNorm of vectors": ((2, 4), {"affine": False}, (3, 4)),
    "GroupNorm of images": ((4, 4), {"eps": 1e-2}, (3, 4, 2, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_pytorchs(name):
    """Three batches of training, with gradients and running statistics, then evaluation."""
    torch = pytest.importorskip("torch")
    args, options, shape = LAYERS[name]
    cls = name.split()[0]
    layers = [getattr(library.nn, cls)(*args, **options).double() for library in (tl, torch)]
    for layer in layers:
        for i, p in enumerate(layer.parameters()):
            p.data.copy_((tl if layer is layers[0] else torch).tensor(np.arange(4.0) + i))
    for step in range(4):
        if step == 3:
            for layer in layers:
                layer.eval()
        x, g = rng.standard_normal((2, *shape)) * 3 + 1
        outs = []
        for library, layer in zip((tl, torch), layers, strict=True):
            t = library.tensor(x, requires_grad=True)
            y = layer(t)
            layer.zero_grad()
            y.backward(library.tensor(g))
            tensors = [y.detach(), t.grad, *(p.grad for p in layer.parameters()), *layer.buffers()]
            outs.append([np.asarray(a.numpy(), np.float64) for a in tensors])
        for a, b in zip(*outs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert list(layers[0].state_dict()) == list(layers[1].state_dict())
    assert cls in repr(layers[0])


def test_gradients_of_both_orders():
    x, w, b = rng.standard_normal((4, 3, 2)), rng.standard_normal(3), rng.standard_normal(3)
    testing.check_grad(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), x, w, b)
    testing.check_grad(lambda x, w, b: F.group_norm(x[:, :2], 1, w[:2], b[:2]), x, w, b)


@pytest.mark.parametrize("norm", [lambda x: F.batch_norm(x, None, None, training=True), lambda x: F.group_norm(x, 2)])
def test_float16_is_computed_in_float32(norm):
    x = tl.tensor(rng.standard_normal((300, 4, 5)) * 100 + 300)
    y = norm(x.half())
    assert y.dtype == tl.float16
    np.testing.assert_allclose(y.numpy(), norm(x.half().double()).numpy(), rtol=2e-3, atol=2e-3)


def test_statistics_are_reset():
    layer = nn.BatchNorm1d(3)
    layer(tl.randn(5, 3) + 2)
    assert layer.num_batches_tracked.item() == 1
    layer.reset_parameters()
    assert (layer.running_mean == 0).all()
    assert (layer.running_var == 1).all()
    assert layer.num_batches_tracked.item() == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.BatchNorm1d(3)(tl.ones(2, 4)), tl.ShapeError, r"BatchNorm1d.*expected \(N, 3, ...\) with 2 dim"),
        (lambda: nn.BatchNorm2d(3)(tl.ones(2, 3)), tl.ShapeError, "BatchNorm2d.*with 4 dimensions"),
        (lambda: nn.BatchNorm1d(3)(tl.ones(1, 3)), tl.ShapeError, "expected more than one number in each channel"),
        (lambda: F.batch_norm(tl.ones(2, 3), None, None), ValueError, "running_mean and running_var, or training=True"),
        (lambda: F.batch_norm(tl.ones(2, 3), tl.ones(2), tl.ones(3)), tl.ShapeError, r"of shape \(C,\), or None"),
        (lambda: F.group_norm(tl.ones(2, 3), 2), tl.ShapeError, "expected num_groups to divide C, got 2"),
        (lambda: F.group_norm(tl.ones(2, 3), 0), ValueError, "expected num_groups of 1 or more, got 0"),
        (lambda: F.group_norm(tl.ones(2, 3, dtype=tl.int64), 1), tl.DTypeError, "floating point"),
        (lambda: nn.GroupNorm(2, 3), ValueError, "expected num_groups that divide num_channels, got 2 for 3"),
    ],
)
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("make", [lambda nn: nn.BatchNorm1d(4, bias=False), lambda nn: nn.GroupNorm(2, 4, bias=False)])
def test_without_a_bias(make):
    layer, x = make(nn), np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    layer.reset_parameters()
    assert "bias" not in layer.state_dict()
    torch = pytest.importorskip("torch")
    expected = make(torch.nn)(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(layer(tl.tensor(x)).detach().numpy(), expected, atol=1e-6)
