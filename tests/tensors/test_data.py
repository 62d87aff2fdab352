"""``Tensor.data``: a detached Tensor that shares memory, and its setter."""

import copy

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn


@pytest.fixture
def w():
    return tl.tensor([1.0, 2.0, 3.0], requires_grad=True)


def test_data_is_a_detached_tensor_on_the_same_memory(w):
    d = w.data
    assert isinstance(d, tl.Tensor)
    assert not d.requires_grad
    assert d.is_leaf
    assert d.array is w.array
    assert (w * 2).data.grad_fn is None


def test_a_parameter_gives_a_tensor():
    p = nn.Parameter(tl.ones(2))
    assert type(p.data) is tl.Tensor
    p.data -= tl.ones(2)
    assert type(p) is nn.Parameter
    assert p.tolist() == [0.0, 0.0]
    assert p.requires_grad


def test_gradient_descent_as_pytorchs_users_write_it(w):
    array = w.array
    (w * w).sum().backward()
    w.data -= 0.5 * w.grad
    assert w.tolist() == [0.0, 0.0, 0.0]
    assert w.array is array
    assert w.is_leaf
    assert w.requires_grad
    w.grad.data.zero_()
    assert w.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w: w.data.add_(tl.ones(3)), [2.0, 3.0, 4.0]),
        (lambda w: w.data.add_(tl.ones(3), alpha=-1), [0.0, 1.0, 2.0]),
        (lambda w: w.data.mul_(2), [2.0, 4.0, 6.0]),
        (lambda w: w.data.copy_(tl.zeros(3)), [0.0, 0.0, 0.0]),
        (lambda w: w.data.fill_(7), [7.0, 7.0, 7.0]),
        (lambda w: w.data.clamp_(max=2), [1.0, 2.0, 2.0]),
        (lambda w: w.data.__setitem__(..., 0), [0.0, 0.0, 0.0]),
        (lambda w: w.data[1:].zero_(), [1.0, 0.0, 0.0]),
    ],
)
def test_changes_through_data(w, change, expected):
    change(w)
    assert w.tolist() == expected
    assert w.is_leaf
    (w * w).sum().backward()
    assert w.grad.tolist() == [2 * x for x in expected]


def test_a_clone_of_data_shares_nothing(w):
    c = w.data.clone()
    c.zero_()
    assert w.tolist() == [1.0, 2.0, 3.0]
    assert not c.requires_grad


# ---- version counters -----------------------------------------------------------------------


def test_backward_detects_a_change_through_data(w):
    """PyTorch returns the wrong gradient 2 * (w + 1) without an error."""
    y = (w * w).sum()
    w.data.add_(1)
    with pytest.raises(tl.VersionError, match=r"^mul: .* changed in place"):
        y.backward()


def test_backward_detects_a_change_through_data_of_a_result(w):
    y = w.exp()
    y.data.mul_(2)
    with pytest.raises(tl.VersionError, match=r"^exp: .* its result"):
        y.sum().backward()


def test_a_change_that_no_gradient_depends_on_is_allowed(w):
    y = (w * 3).sum()
    w.data.add_(1)
    y.backward()
    assert w.grad.tolist() == [3.0, 3.0, 3.0]


def test_a_recorded_change_through_data_belongs_to_the_detached_tensor(w):
    v = tl.ones(3, requires_grad=True)
    d = w.data
    d.add_(v)
    assert w.is_leaf
    assert d.grad_fn is not None
    (w * d).sum().backward()
    assert w.grad.tolist() == v.grad.tolist() == [2.0, 3.0, 4.0]


def test_using_a_result_after_a_recorded_change_of_its_memory_is_detected(w):
    y = w * 2
    y.data.add_(tl.ones(3, requires_grad=True))
    with pytest.raises(tl.VersionError, match=r"^mul: "):
        y * 2


def test_the_versions_are_those_of_the_memory(w):
    before = w._version
    w.data.add_(1)
    w.data -= 1
    assert w._version == w.data._version == before + 2


# ---- setting data ---------------------------------------------------------------------------


def test_setting_data_shares_the_memory(w):
    other = tl.zeros(3)
    w.data = other
    other.add_(5)
    assert w.tolist() == [5.0, 5.0, 5.0]
    assert w.requires_grad
    assert w.is_leaf


def test_results_from_before_keep_the_old_value(w):
    y = (w * w).sum()
    w.data = tl.zeros(3)
    y.backward()
    assert w.grad.tolist() == [2.0, 4.0, 6.0]


def test_a_leaf_may_change_its_shape_and_dtype(w):
    w.data = tl.ones(2, 2, dtype=tl.float64)
    assert w.shape == (2, 2)
    (w * w).sum().backward()
    assert w.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert w.grad.dtype == tl.float64
    plain = tl.ones(2)
    plain.data = tl.tensor([1, 2])
    assert plain.dtype == tl.int64


def test_a_gradient_of_another_shape_is_an_error(w):
    y = (w * w).sum()
    w.data = tl.ones(1)
    with pytest.raises(tl.ShapeError, match=r"^backward: the gradient has shape \(3,\), .* \(1,\) since its data"):
        y.backward()


def test_a_result_keeps_its_shape_and_dtype(w):
    y = w * 2
    y.data = tl.zeros(3)
    (y * y + y).sum().backward()
    assert w.grad.tolist() == [2.0, 2.0, 2.0]
    for other in (tl.zeros(2), tl.zeros(3, dtype=tl.float64)):
        with pytest.raises(tl.GraphError, match=r"^data: this tensor is the result of mul, expected float32\(3,\)"):
            y.data = other


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (tl.tensor([1, 2, 3]), tl.DTypeError, r"^data: expected a floating point tensor, .* got int64"),
        (np.ones(3), TypeError, r"^data: expected a Tensor, got ndarray\. Make one with tl\.tensor\(\)"),
        (1.0, TypeError, r"^data: expected a Tensor, got float"),
    ],
)
def test_wrong_values_are_refused(w, value, error, message):
    with pytest.raises(error, match=message):
        w.data = value
    assert w.tolist() == [1.0, 2.0, 3.0]


def test_setting_data_to_a_result_of_an_op_takes_only_its_value(w):
    v = tl.ones(3, requires_grad=True)
    w.data = v * 2
    (w * w).sum().backward()
    assert w.grad.tolist() == [4.0, 4.0, 4.0]
    assert v.grad is None


def test_a_view_with_other_data_is_no_longer_a_view():
    base = tl.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True) * 1
    part = base[:2]
    part.data = base.data[2:]
    base.mul_(2)
    with pytest.raises(tl.VersionError):
        part.sum()
    free = tl.zeros(4)
    view = free[:2]
    view.data = tl.ones(2)
    view.add_(1)
    assert free.tolist() == [0.0] * 4


def test_device(w, device):
    w.data = w.data.to(device)
    assert w.device.type == tl.device(device).type
    (w * w).sum().backward()
    assert w.grad.device.type == w.device.type


def test_deepcopy_copies_data(w):
    w.data = tl.ones(3)
    twin = copy.deepcopy(w)
    twin.data.zero_()
    assert w.tolist() == [1.0, 1.0, 1.0]
