"""Keep the right values of ops on tensors that are empty or 0-d, and refuse what has no meaning there."""

import math

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F


def test_sizes_of_an_empty_batch_are_found():
    assert tl.zeros(0, 6).unflatten(1, (-1, 3)).shape == (0, 2, 3)
    assert tl.zeros(0, 6).unflatten(0, (0, -1, 1)[::2]).shape == (0, 1, 6)
    with pytest.raises(tl.ShapeError, match="unflatten: sizes"):
        tl.zeros(0, 6).unflatten(1, (-1, 4))


def test_a_zero_dimensional_tensor_keeps_its_shape():
    x = tl.tensor(2.0)
    for y in (x.movedim(0, 0), x.movedim((0,), (-1,)), x.mT, x.transpose(0, -1), x.flip(0), x.roll(1), x.squeeze(-1)):
        assert y.shape == ()
        assert y.item() == 2.0
    for wrong in (lambda: x.roll(1, 0), lambda: x.unflatten(0, (1,)), lambda: x.squeeze(1), lambda: x.cumsum(1)):
        with pytest.raises(IndexError):
            wrong()


@pytest.mark.parametrize("value", [2.0, 0.0])
def test_the_product_of_one_number_has_the_gradient_1(value):
    for args in ((), (0,), (-1,)):
        x = tl.tensor(value, requires_grad=True)
        x.prod(*args).backward()
        assert x.grad.item() == 1.0


def test_heads_of_width_zero_average_the_values():
    q, k = tl.zeros(2, 3, 0), tl.zeros(2, 4, 0)
    v = tl.arange(8.0).reshape(2, 4, 1).requires_grad_(True)
    y = F.scaled_dot_product_attention(q, k, v)
    assert y.flatten().tolist() == [1.5, 1.5, 1.5, 5.5, 5.5, 5.5]
    y.sum().backward()
    assert v.grad.flatten().tolist() == [0.75] * 8
    assert F.scaled_dot_product_attention(q, k, k).shape == (2, 3, 0)


def test_an_empty_part_of_cat_has_an_empty_gradient():
    a, b, c = (tl.zeros(*shape, requires_grad=True) for shape in ((2, 0), (2, 3), (0,)))
    tl.cat([a, b, c], 1).sum().backward()
    assert a.grad.shape == (2, 0)
    assert b.grad.shape == (2, 3)
    assert c.grad is None or c.grad.shape == (0,)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3, 1)])
def test_an_empty_index_selects_nothing_whatever_its_dimensions(shape):
    x = tl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    ids = tl.zeros(*shape).long()
    y = x.gather(0, ids)
    assert y.shape == shape
    assert tl.autograd.grad(y.sum(), x)[0].tolist() == [0.0, 0.0, 0.0]
    for z in (x.scatter(0, ids, tl.zeros(5)), x.scatter_add(0, ids, tl.zeros(2)), x.scatter(0, ids, value=1.0)):
        assert z.tolist() == [1.0, 2.0, 3.0]
        assert tl.autograd.grad(z.sum(), x)[0].tolist() == [1.0, 1.0, 1.0]


def test_a_zero_dimensional_tensor_is_scattered_into():
    x, s = tl.tensor(1.0, requires_grad=True), tl.tensor(3.0, requires_grad=True)
    y = x.scatter(0, tl.tensor(0), s)
    gx, gs = tl.autograd.grad(y, [x, s])
    assert (y.item(), gx.item(), gs.item()) == (3.0, 0.0, 1.0)
    y = x.scatter_add(0, tl.tensor(0), s)
    gx, gs = tl.autograd.grad(y, [x, s])
    assert (y.item(), gx.item(), gs.item()) == (4.0, 1.0, 1.0)


def test_the_mean_of_nothing_has_a_gradient_without_nan():
    x, c = tl.zeros(2, 0, dtype=tl.float64, requires_grad=True), tl.ones(2, dtype=tl.float64, requires_grad=True)
    y = x.mean(1)
    assert np.isnan(y.numpy(force=True)).all()
    (g,) = tl.autograd.grad(y, x, c, create_graph=True)
    assert tl.autograd.grad(g.sum(), c)[0].tolist() == [0.0, 0.0]


def test_a_variance_without_degrees_of_freedom():
    """The value is that of PyTorch. Its gradient is the limit: infinite, away from the mean."""
    x = tl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    for correction in (3, 5):
        y = x.var(correction=correction)
        assert y.item() == math.inf
        g = tl.autograd.grad(y, x)[0].tolist()
        assert g[0] == -math.inf
        assert math.isnan(g[1])
        assert g[2] == math.inf
        assert x.std(correction=correction).item() == math.inf
    assert math.isnan(tl.ones(1).var().item())
    assert math.isnan(tl.zeros(0).var().item())


def test_a_size_of_minus_one_keeps_the_size():
    assert tl.broadcast_to(tl.zeros(2, 1), (4, -1, 3)).shape == (4, 2, 3)
    with pytest.raises(tl.ShapeError):
        tl.broadcast_to(tl.zeros(2), (-1, 2))


def test_all_and_any_of_no_dimensions_reduce_nothing():
    x = tl.tensor([[0.0, 2.0]])
    assert x.all(()).tolist() == x.any(()).tolist() == [[False, True]]
    assert x.all().item() is False
    assert x.sum(()).item() == 2.0


def test_what_has_no_meaning_is_refused():
    x = tl.ones(2, 3)
    for wrong, error in (
        (lambda: x.squeeze((0, 0)), ValueError), (lambda: x.squeeze((0, -2)), ValueError),
        (lambda: x.logsumexp(None), TypeError), (lambda: x.logsumexp((0, 0)), ValueError),
        (lambda: x.roll(()), ValueError), (lambda: x.roll((1, 2)), ValueError), (lambda: x.roll(1.0), TypeError),
        (lambda: x.clamp(), ValueError), (lambda: x.clamp("a"), TypeError), (lambda: x.prod((0, 1)), TypeError),
        (lambda: x.argmax((0,)), TypeError), (lambda: x.scatter(0, tl.zeros(2).long(), x), tl.ShapeError),
        (lambda: x.gather(2, tl.zeros(0).long()), IndexError), (lambda: tl.searchsorted(x, x[0]), tl.ShapeError),
    ):  # fmt: skip
        with pytest.raises(error):
            wrong()


def test_positional_flags_of_to_and_devices_of_new_tensors():
    x = tl.ones(2, requires_grad=True)
    assert x.to(tl.float64, False, True).dtype == tl.float64
    assert x.to("cpu", tl.float32, True) is x
    assert x.to(tl.float32, False, True) is not x
    y = x.new_zeros(3, dtype=tl.float64, device="cpu", requires_grad=True)
    assert (y.dtype, y.requires_grad, y.shape) == (tl.float64, True, (3,))
    with pytest.raises(TypeError, match="to: expected at most two booleans"):
        x.to(tl.float64, True, True, True)
