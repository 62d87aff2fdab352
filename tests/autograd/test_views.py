"""Views: changes in place reach the base and its other views, in memory and in the graph."""

import copy
import pickle

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import func
from tensorlite.errors import GraphError, VersionError


def test_a_view_taken_before_the_change_has_its_gradient():
    x = tl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 2
    before = y[:2]
    y.mul_(x)
    (before * before).sum().backward()
    assert before.tolist() == [2.0, 8.0]
    assert x.grad.tolist() == [16.0, 128.0, 0.0]


def test_a_view_of_a_base_that_is_tracked_later():
    x = tl.ones(3, requires_grad=True)
    y = tl.zeros(3)
    before = y[:2]
    y.add_(x)
    assert (before * 2).requires_grad
    before.fill_(5)  # changes y, so that only its last entry keeps its gradient
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 1.0]


def test_a_part_of_a_split_before_the_change_is_an_error():
    """Check that a part of a split is not regenerated, because it is not a view of one tensor; so in PyTorch."""
    y = tl.ones(3, requires_grad=True) * 2
    before = y.split(2)[0]
    y.mul_(y)
    message = r"a view of shape \(2,\) was taken before its base was changed in place.*clone\(\)"
    with pytest.raises(VersionError, match=rf"^exp: {message}"):
        before.exp()
    with pytest.raises(VersionError, match=rf"^backward: {message}"):
        before.backward(tl.ones(2))


VIEWS = {
    "x[0]": lambda x: x[0],
    "x[:, 1:]": lambda x: x[:, 1:],
    "x[1][0]": lambda x: x[1][0],
    "x.T[2]": lambda x: x.T[2],
    "x.T": lambda x: x.T,
    "x.view(-1)[1:4]": lambda x: x.view(-1)[1:4],
    "x.reshape(3, 2)[0]": lambda x: x.reshape(3, 2)[0],
    "x.narrow(1, 0, 2)": lambda x: x.narrow(1, 0, 2),
    "x.unsqueeze(0).movedim(0, 2)": lambda x: x.unsqueeze(0).movedim(0, 2),
    "x[None, ..., ::2]": lambda x: x[None, ..., ::2],
    "x.select(1, -1)": lambda x: x.select(1, -1),
}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("take", VIEWS.values(), ids=VIEWS.keys())
def test_a_change_of_a_view_changes_its_base(take, order):
    """Compare with the same computation without a change in place: the base with the new value of the view."""

    def changed(x, w):
        y = x * 1 if order == "C" else (x.T * 1).T
        take(y).mul_(take(w).exp())
        before = y[0]
        take(y).add_(take(w))
        return (y**2).sum() + (before**3).sum()

    def computed(x, w):
        inside = take(tl.arange(6).reshape(2, 3)).reshape(-1)
        mask = tl.zeros(6).index_add(0, inside, tl.ones(len(inside))).bool().reshape(2, 3)
        y = tl.where(mask, x * w.exp() + w, x)
        return (y**2).sum() + (y[0] ** 3).sum()

    if order == "F" and "view" in next(k for k, v in VIEWS.items() if v is take):
        return  # reshape cannot make a view of this memory
    x, w = (tl.tensor(np.sin(np.arange(6) * k + 1).reshape(2, 3)) for k in (1, 2))
    both = {"argnums": (0, 1)}
    for found, expected in zip(func.grad(changed, **both)(x, w), func.grad(computed, **both)(x, w), strict=True):
        assert np.allclose(found.numpy(), expected.numpy(), rtol=1e-12, atol=1e-12)
    found, expected = (func.hvp(lambda x, f=f: f(x, w), (x,), (w,))[1].numpy() for f in (changed, computed))
    assert np.allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_an_untracked_base_becomes_tracked():
    x = tl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    total = tl.zeros(3)
    for k in range(3):
        total[k] += x[k] ** 2
        total[:k] *= 2
    total.sum().backward()
    assert total.tolist() == [4.0, 8.0, 9.0]
    assert x.grad.tolist() == [8.0, 8.0, 6.0]


def test_overwritten_entries_get_no_gradient_even_if_infinite():
    x = tl.tensor([0.0, 4.0], requires_grad=True)
    y = x * 1
    y[:1].fill_(0.0)
    y.sqrt().sum().backward()
    assert x.grad.tolist() == [0.0, 0.25]


def test_views_that_cannot_be_changed_in_place():
    leaf = tl.ones(3, requires_grad=True)
    y = leaf * 2
    with pytest.raises(GraphError, match=r"^add_: this leaf requires gradients"):
        leaf[:2].add_(1)
    with pytest.raises(GraphError, match=r"^add_: this tensor is a view.*base\[\.\.\.\] = value"):
        y.unbind()[0].add_(1)
    with tl.no_grad():
        unseen = tl.zeros(3)[:2]
    with pytest.raises(GraphError, match=r"^add_: this tensor is a view"):
        unseen.add_(y[:2])
    with pytest.raises(GraphError, match=r"^setitem: this tensor is a view"):
        unseen[:1][0] = y[0]
    assert y.tolist() == [2.0, 2.0, 2.0]


def test_a_copied_result_of_a_view_op_is_not_a_view():
    x = tl.ones(2, 3, requires_grad=True)
    y = x * 1
    flat = y.T.reshape(-1)
    flat.mul_(3)
    (flat.sum() + y.sum()).backward()
    assert x.grad.tolist() == [[4.0] * 3] * 2


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301
def test_a_copy_of_a_view_is_not_a_view(copied):
    x = tl.arange(4)
    assert copied(x[1:]).tolist() == [1, 2, 3]


def test_random_numbers_in_place_stop_the_gradient():
    x = tl.ones(4, requires_grad=True)
    y = x * 1
    y[:1].uniform_()
    y[1:2].normal_()
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 1.0, 1.0]


def test_a_view_of_untracked_memory_can_be_changed_in_place():
    x = tl.zeros(2, 3)
    x[0].add_(1)
    x.T[2].fill_(9)
    assert x.tolist() == [[1.0, 1.0, 9.0], [0.0, 0.0, 9.0]]
    for number in x[1]:
        number.add_(1)
    assert x.tolist() == [[1.0, 1.0, 9.0], [1.0, 1.0, 10.0]]


def test_an_argument_that_shares_memory_with_the_target():
    x = tl.tensor([1.0, 2.0, 3.0])
    x[1:] = x[:-1]
    assert x.tolist() == [1.0, 1.0, 2.0]
    leaf = tl.tensor([1.0, 2.0], requires_grad=True)
    y = leaf * 1
    y.mul_(y)
    y.mul_(y)
    y.sum().backward()
    assert leaf.grad.tolist() == [4.0, 32.0]
