"""Clipping of gradients: trajectories compared with PyTorch's, and every error."""

import math

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn, optim
from tests.optim.trajectories import OPTIMIZERS, same_trajectory


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3, math.inf, "inf"])
def test_clipped_trajectory(norm_type):
    same_trajectory(OPTIMIZERS["SGD"], clip=lambda u, p: u.clip_grad_norm_(p, 0.05, norm_type))


def test_value_clipped_trajectory():
    same_trajectory(OPTIMIZERS["SGD"], clip=lambda u, p: u.clip_grad_value_(p, 0.02))


def with_gradients(*arrays):
    tensors = [tl.zeros(a.shape, dtype=a.dtype, requires_grad=True) for a in arrays]
    for t, a in zip(tensors, arrays, strict=True):
        t.grad = tl.tensor(a)
    return tensors


def test_clip_grad_norm_scales_all_by_one_factor_and_returns_the_norm():
    a, b = with_gradients(np.array([3.0, 0.0]), np.array([[4.0]]))
    norm = nn.utils.clip_grad_norm_([a, b, tl.ones(1)], 1.0)
    assert isinstance(norm, tl.Tensor)
    assert norm.shape == ()
    assert norm.item() == 5
    np.testing.assert_allclose(a.grad.numpy(), [0.6, 0], rtol=1e-6)
    np.testing.assert_allclose(b.grad.numpy(), [[0.8]], rtol=1e-6)


def test_clip_grad_norm_leaves_small_gradients_alone():
    (a,) = with_gradients(np.array([3.0, 4.0]))
    assert optim.clip_grad_norm_(a, 5.1).item() == 5
    assert a.grad.tolist() == [3, 4]
    assert optim.clip_grad_norm_(a, math.inf).item() == 5
    assert a.grad.tolist() == [3, 4]
    assert optim.clip_grad_norm_([tl.ones(2)], 1.0).item() == 0


def test_a_tied_parameter_counts_once():
    (a,) = with_gradients(np.array([3.0, 4.0]))
    assert nn.utils.clip_grad_norm_([a, a], 1.0).item() == 5
    np.testing.assert_allclose(a.grad.numpy(), [0.6, 0.8], rtol=1e-6)


def test_clip_grad_norm_takes_a_generator_and_mixed_dtypes():
    tensors = with_gradients(np.full(100, 30.0, np.float16), np.array([40.0], np.float32), np.array([0.0]))
    norm = nn.utils.clip_grad_norm_((t for t in tensors), 1.0)
    assert norm.item() == pytest.approx(math.hypot(300, 40), rel=1e-6)  # its squares overflow float16
    assert [t.grad.dtype for t in tensors] == [tl.float16, tl.float32, tl.float64]
    assert tensors[0].grad.tolist()[0] == pytest.approx(30 / math.hypot(300, 40), rel=1e-3)


def test_clip_grad_norm_of_infinite_gradients():
    tensors = with_gradients(np.array([1.0, math.inf]))
    with pytest.raises(RuntimeError, match="the gradient norm is inf"):
        nn.utils.clip_grad_norm_(tensors, 1.0, error_if_nonfinite=True)
    assert tensors[0].grad.tolist() == [1.0, math.inf]
    assert math.isinf(nn.utils.clip_grad_norm_(tensors, 1.0).item())


def test_wrong_arguments_of_clipping_are_errors():
    x = tl.ones(1, requires_grad=True)
    for args in [(-1.0,), (math.nan,), (1.0, 0.0), (1.0, -2)]:
        with pytest.raises(ValueError, match="clip_grad_norm_: max_norm must not be negative"):
            nn.utils.clip_grad_norm_([x], *args)
    with pytest.raises(ValueError, match="clip_grad_value_"):
        nn.utils.clip_grad_value_([x], -1.0)
    with pytest.raises(TypeError, match="expected a Tensor or several, got str"):
        nn.utils.clip_grad_norm_(["x"], 1.0)


def test_clip_grad_value():
    (a,) = with_gradients(np.array([3.0, -4.0, 0.5]))
    assert nn.utils.clip_grad_value_(a, 1) is None
    assert a.grad.tolist() == [1, -1, 0.5]
