"""Gradient hooks and retain_grad."""

import pytest

import tensorlite as tl
from tensorlite.errors import DTypeError, GraphError, ShapeError


def times_ten(g):
    g.mul_(10)


def leaf(*values, dtype=None):
    return tl.tensor(list(values), dtype=dtype, requires_grad=True)


def test_hooks_see_the_complete_gradient_once():
    x, seen = leaf(1.0, 2.0), []
    y = x * 3
    x.register_hook(lambda g: seen.append(("x", g.tolist())))
    y.register_hook(lambda g: seen.append(("y", g.tolist())))
    (y * y + y).sum().backward()
    assert seen == [("y", [7.0, 13.0]), ("x", [21.0, 39.0])]


def test_the_result_of_a_hook_replaces_the_gradient():
    x = leaf(1.0, 2.0)
    y = x * 3
    y.register_hook(lambda g: g * 10)
    y.register_hook(lambda g: g + 1)
    x.register_hook(lambda g: -g)
    y.sum().backward()
    assert x.grad.tolist() == [-33.0, -33.0]


def test_a_gradient_that_a_hook_keeps_does_not_change():
    """The second backward pass adds to x.grad in place."""
    x, kept = leaf(1.0, 2.0), []
    x.register_hook(kept.append)
    (x * 3).sum().backward()
    (x * 5).sum().backward()
    assert x.grad.tolist() == [8.0, 8.0]
    assert [g.tolist() for g in kept] == [[3.0, 3.0], [5.0, 5.0]]


def test_a_tensor_that_a_hook_returns_does_not_change():
    x, constant = leaf(1.0, 2.0), tl.ones(2)
    x.register_hook(lambda g: constant)
    for _ in range(2):
        (x * 3).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
    assert constant.tolist() == [1.0, 1.0]


def test_a_hook_that_changes_its_argument_changes_this_gradient_alone():
    """The gradients of both terms of a sum are one array until a hook gets its copy."""
    x, y = leaf(1.0, 2.0), leaf(1.0, 2.0)
    x.register_hook(times_ten)
    (x + y).backward(tl.ones(2))
    assert (x.grad.tolist(), y.grad.tolist()) == ([10.0, 10.0], [1.0, 1.0])


def test_a_hook_can_be_removed():
    x, calls = leaf(1.0), []
    handle = x.register_hook(calls.append)
    (x * 2).sum().backward()
    handle.remove()
    handle.remove()
    (x * 2).sum().backward()
    with x.register_hook(calls.append):
        (x * 2).sum().backward()
    (x * 2).sum().backward()
    assert len(calls) == 2


def test_a_hook_that_removes_itself_does_not_skip_the_next():
    x, calls = leaf(1.0), []

    def once(g):
        calls.append("once")
        handle.remove()

    handle = x.register_hook(once)
    x.register_hook(lambda g: calls.append("always"))
    for _ in range(2):
        (x * 2).sum().backward()
    assert calls == ["once", "always", "always"]


def test_hooks_run_for_autograd_grad_too():
    x = leaf(2.0)
    y = x * x
    y.register_hook(lambda g: g * 5)
    gy, gx = tl.autograd.grad(y.sum(), [y, x])
    assert gy.tolist() == [5.0]
    assert gx.tolist() == [20.0]


def test_ops_in_a_hook_are_recorded_only_under_create_graph():
    x = leaf(2.0)
    recorded = []

    def cube(g):
        recorded.append((g * g).requires_grad)
        return g * g * g

    y = x * x
    handle = y.register_hook(cube)
    (gx,) = tl.autograd.grad((y * y).sum(), x, create_graph=True)  # (2 x^2)^3 2 x = 16 x^7
    handle.remove()
    assert gx.tolist() == [16 * 2.0**7]
    assert tl.autograd.grad(gx.sum(), x)[0].tolist() == [112 * 2.0**6]
    assert recorded == [True]
    z = x * x
    z.register_hook(cube)
    z.sum().backward()
    assert recorded == [True, False]


def test_a_backward_inside_a_hook():
    x, w = leaf(2.0), leaf(3.0)

    def hook(g):
        with tl.enable_grad():
            (w * w).sum().backward()

    x.register_hook(hook)
    (x * x).sum().backward()
    assert x.grad.tolist() == [4.0]
    assert w.grad.tolist() == [6.0]


@pytest.mark.parametrize(
    ("hook", "error", "got"),
    [
        (lambda g: tl.ones(7), ShapeError, r"float32\(7,\)"),
        (lambda g: g.double(), DTypeError, r"float64\(2,\)"),
        (lambda g: 3, RuntimeError, "int"),
    ],
)
def test_the_result_of_a_hook_must_fit_the_tensor(hook, error, got):
    x = leaf(1.0, 2.0)
    x.register_hook(hook)
    with pytest.raises(error, match=rf"^hook: .* None or a Tensor float32\(2,\), got {got}"):
        x.sum().backward()
    assert x.grad is None


def test_a_hook_on_a_tensor_without_gradients_is_an_error():
    with pytest.raises(GraphError, match=r"^register_hook: "):
        tl.ones(2).register_hook(print)
    with pytest.raises(GraphError, match=r"^retain_grad: "):
        tl.ones(2).retain_grad()


def test_retain_grad_fills_and_accumulates_without_sharing_memory():
    x = leaf(1.0, 2.0)
    y = x * 3
    y.retain_grad()
    x.retain_grad()  # does nothing for a leaf
    loss = (y * y).sum()
    loss.backward(retain_graph=True)
    assert y.grad.tolist() == [6.0, 12.0]
    loss.backward()
    assert y.grad.tolist() == [12.0, 24.0]
    assert x.grad.tolist() == [36.0, 72.0]
    y.grad.zero_()
    assert x.grad.tolist() == [36.0, 72.0]


# ---- retain_grad and hooks around a change in place: PyTorch's values, with which these functions also run ----------


def change_itself(y):
    y.mul_(5)
    return y, y


def change_a_view(y):
    y[0].mul_(5)
    return y, y


def change_under_no_grad(y):
    with tl.no_grad():
        y.mul_(5)
    return y, y


def change_twice(y):
    y.mul_(5)
    y.retain_grad()
    y.add_(1)
    return y, y


def replace(y):
    y.copy_(tl.ones(2))
    return y, y


def assign(y):
    y[:1] = 4.0
    return y, y


def detach(y):
    z = y * 2
    y.detach_()
    return y, z


@pytest.mark.parametrize(
    ("change", "retained", "expected"),
    [
        (change_itself, [30.0, 60.0], [450.0, 900.0]),
        (change_a_view, [30.0, 12.0], [450.0, 36.0]),
        (change_under_no_grad, [30.0, 60.0], [90.0, 180.0]),
        (change_twice, [32.0, 62.0], [480.0, 930.0]),
        (replace, [2.0, 2.0], [0.0, 0.0]),
        (assign, [8.0, 12.0], [0.0, 36.0]),
        (detach, [24.0, 48.0], [72.0, 144.0]),
    ],
)
def test_retain_grad_is_that_of_the_tensor_as_it_is_now(change, retained, expected):
    x = leaf(1.0, 2.0)
    y = x * 3
    y.retain_grad()
    kept, z = change(y)
    (z * z).sum().backward()
    assert kept.grad.tolist() == retained
    assert x.grad.tolist() == expected


def test_retain_grad_of_a_buffer_that_is_filled_later():
    x, buffer = leaf(1.0, 2.0), tl.zeros(2)
    buffer[0] = x[0]
    buffer.retain_grad()
    buffer[1] = x[1] * 2
    (buffer * buffer).sum().backward()
    assert buffer.grad.tolist() == [2.0, 8.0]


@pytest.mark.parametrize(("use", "expected"), [("view", 30.0), ("base", None)])
def test_retain_grad_of_a_view_whose_base_is_changed(use, expected):
    y = leaf(1.0, 2.0) * 3
    view = y[0]
    view.retain_grad()
    y.mul_(5)
    used = view if use == "view" else y
    (used * used).sum().backward()
    assert (view.grad if expected is None else view.grad.item()) == expected


def test_retain_grad_of_a_view_that_is_changed():
    view = (leaf(1.0, 2.0) * 3)[0]
    view.retain_grad()
    view.mul_(5)
    (view * view).backward()
    assert view.grad.item() == 30.0


def test_retain_grad_gets_what_the_other_hooks_return():
    y = leaf(1.0, 2.0) * 3
    y.retain_grad()
    y.retain_grad()
    y.register_hook(lambda g: g * 10)
    assert y.retains_grad
    y.sum().backward()
    assert y.grad.tolist() == [10.0, 10.0]


def test_a_hook_stays_with_the_value_for_which_it_was_registered():
    y, seen = leaf(1.0, 2.0) * 3, []
    y.register_hook(lambda g: seen.append(("before", g.tolist())))
    y.mul_(5)
    y.register_hook(lambda g: seen.append(("after", g.tolist())))
    (y * y).sum().backward()
    assert seen == [("after", [30.0, 60.0]), ("before", [150.0, 300.0])]
