"""Version counters: saved values that were changed in place are an error."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.errors import VersionError


def test_views_and_detached_tensors_share_the_version():
    x = tl.zeros(2, 3)
    view, cut, copy = x[0], x.detach(), x.clone()
    assert x._version == 0
    view.add_(1)
    assert [t._version for t in (x, view, cut, copy)] == [1, 1, 1, 0]
    cut.T.zero_()
    assert [t._version for t in (x, view, cut, copy)] == [2, 2, 2, 0]
    assert x.tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize(
    ("f", "op", "what"),
    [
        (lambda y: (y * y).sum(), "mul", "its argument 'x'"),
        (lambda y: y.sin().sum(), "sin", "its argument 'x'"),
        (lambda y: (tl.ones(3, 3) @ y).sum(), None, ""),
        (lambda y: (y - 1).sum(), None, ""),
        (lambda y: y.logsumexp(0), "logsumexp", "its argument 'x'"),
    ],
)
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_stale_argument_is_named_with_both_versions(f, op, what, create_graph):
    x = tl.ones(3, requires_grad=True)
    y = x * 2
    y.add_(1)
    loss = f(y)
    y.add_(1)
    y.add_(1)
    if op is None:  # the op saved nothing
        loss.backward()
        return
    message = rf"^{op}: .* {what}, float32\(3,\), which was saved at version 1 .* \(it is at version 3\)"
    with pytest.raises(VersionError, match=message):
        loss.backward(create_graph=create_graph)
    assert x.grad is None


def test_a_stale_result_is_named():
    x = tl.ones(3, requires_grad=True)
    y = x.exp()
    y.mul_(2)
    with pytest.raises(VersionError, match=r"^exp: .* its result, .* at version 0 .* \(it is at version 1\)"):
        y.sum().backward()


def test_many_changes_are_counted():
    x = tl.ones(2, requires_grad=True)
    y = x * 1
    loss = (y * y).sum()
    with tl.no_grad():
        for _ in range(100):
            y.add_(1)
    with pytest.raises(VersionError, match=r"or more versions earlier .* \(it is at version 100\)"):
        loss.backward()


def test_a_change_of_a_value_that_was_not_saved_is_allowed():
    x = tl.ones(3, requires_grad=True)
    y = x + 1
    z = (y * 2).sum()
    y.mul_(5)
    (z + y.sum()).backward()
    assert x.grad.tolist() == [7.0] * 3


@pytest.mark.parametrize("change", [lambda y: y[:1].zero_(), lambda y: y.detach().add_(1), lambda y: y.T.neg_()])
def test_changes_through_views_are_detected(change):
    x = tl.ones(2, 2, requires_grad=True)
    y = x * 2
    loss = (y * y).sum()
    with tl.no_grad():
        change(y)
    with pytest.raises(VersionError, match=r"^mul: "):
        loss.backward()


def test_a_parameter_that_an_optimizer_changed_before_backward():
    w, x = tl.ones(2, requires_grad=True), tl.ones(2, requires_grad=True)
    loss = (w * x).sum()
    loss.backward(retain_graph=True)
    with tl.no_grad():
        w -= 0.1 * w.grad
    with pytest.raises(VersionError, match=r"^mul: .* at version 0 .* \(it is at version 1\)"):
        loss.backward()


def test_overwritten_entries_get_no_gradient():
    x = tl.tensor([1.0, float("nan")], requires_grad=True)
    for overwrite in (tl.Tensor.zero_, lambda y: y.fill_(3.0), lambda y: y.copy_(tl.ones(2))):
        y = x * 2
        overwrite(y)
        (y * y).sum().backward()
        assert x.grad.tolist() == [0.0, 0.0]


def test_written_values_get_the_gradient():
    x, number = tl.ones(2, dtype=tl.float64, requires_grad=True), tl.tensor(3.0, requires_grad=True)
    y = tl.zeros(3, 2).copy_(x)
    y.sum().backward()
    assert y.dtype == tl.float32
    assert x.grad.tolist() == [3.0, 3.0]
    assert x.grad.dtype == tl.float64
    z = (x * 1).fill_(number)
    (z * z).sum().backward()
    assert number.grad.item() == 12.0
    assert x.grad.tolist() == [3.0, 3.0]


def test_training_by_hand():
    w = tl.tensor([1.0, -1.0], dtype=tl.float64, requires_grad=True)
    for _ in range(50):
        w.grad = None
        ((w - tl.tensor([3.0, 4.0], dtype=tl.float64)) ** 2).sum().backward()
        with tl.no_grad():
            w -= 0.2 * w.grad
    np.testing.assert_allclose(w.detach().numpy(), [3, 4], atol=1e-9)
    assert w._version == 50


def test_a_grad_set_to_zero_in_place_accumulates_again():
    w = tl.ones(2, requires_grad=True)
    (w * 3).sum().backward()
    w.grad.zero_()
    (w * 2).sum().backward()
    assert w.grad.tolist() == [2.0, 2.0]
