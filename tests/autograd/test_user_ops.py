"""Mistakes in ops that users define: shared memory, writes into arguments, missing rules, errors in rules."""
import numpy as np
import pytest

import tensorlite as tl
from tensorlite.errors import DTypeError, GraphError
from tensorlite.testing import strict  # noqa: F401  registers the device


def leaf(*values, dtype=None, device=None):
    return tl.tensor(list(values), dtype=dtype, device=device, requires_grad=True)


def make(function, *rules, name="mine", **options):
    function.__name__ = name
    return tl.op(*rules, **options)(function)


# ---- memory ---------------------------------------------------------------------------------

SHARING = {
    "the argument": lambda xp, x: x,
    "a slice": lambda xp, x: x[...],
    "a part": lambda xp, x: x[:2],
    "the transpose": lambda xp, x: x.T,
    "another shape": lambda xp, x: x.reshape(3, 1),
    "broadcast": lambda xp, x: xp.broadcast_to(x, (2, 3)),
}


@pytest.mark.parametrize("device", ["cpu", "strict"])
@pytest.mark.parametrize("case", SHARING)
def test_a_result_that_shows_its_argument_is_copied(case, device):
    own = make(SHARING[case], lambda g: g.sum() * tl.ones(3, device=device).array)
    x = leaf(1.0, 2.0, 3.0, device=device)
    y = own(x)
    y.mul_(0.0)
    with tl.no_grad():
        own(x).add_(1.0)
    assert x.tolist() == [1.0, 2.0, 3.0]
    assert y.sum().item() == 0.0


def test_views_that_numpy_hides_are_copied():
    for show in (lambda xp, x: np.lib.stride_tricks.sliding_window_view(x, 2), lambda xp, x: np.asarray(memoryview(x))):
        x = tl.tensor([1.0, 2.0, 3.0])
        assert not np.shares_memory(make(show)(x).array, x.array)


def test_results_that_share_memory_with_each_other_are_copied():
    def halves(xp, x):
        y = x * 2.0
        return y, y[1:], x

    first, second, third = make(halves, lambda g: g[0] * 2.0, multi_output=True)(x := leaf(1.0, 2.0, 3.0))
    second.mul_(0.0)
    third.mul_(0.0)
    assert first.tolist() == [2.0, 4.0, 6.0]
    assert x.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("part", [slice(None), slice(2), None], ids=["array", "view", "one of two"])
def test_a_result_that_the_function_keeps_is_copied(part):
    kept = np.zeros(3)

    def double(xp, x):
        xp.multiply(x, 2.0, out=kept)
        return (x + 1.0, kept) if part is None else kept[part]

    f = tl.op(lambda g: (g[1] if part is None else g) * 2.0, multi_output=part is None)(double)
    if part is None:
        first, second = (f(tl.tensor([a, a, a], dtype=tl.float64))[1] for a in (1.0, 5.0))
    else:
        first, second = (f(tl.tensor([a, a, a], dtype=tl.float64)) for a in (1.0, 5.0))
    assert set(first.tolist()) == {2.0}
    assert set(second.tolist()) == {10.0}
    kept[:] = 7.0
    assert set(second.tolist()) == {10.0}


def test_a_new_result_is_not_copied():
    made = []

    def double(xp, x):
        y = x * 2.0
        made.append(y.ctypes.data)
        return y

    assert tl.op(lambda g: g * 2.0)(double)(tl.ones(3)).array.ctypes.data == made[0]


def test_a_declared_view_of_the_first_argument_is_not_copied():
    own = make(lambda xp, x, y: x, lambda g: -g, lambda g: g * 0.0, view=True)
    x = leaf(1.0, 2.0)
    y = x * 3.0
    view = own(y, x)
    view.mul_(2.0)
    assert y.tolist() == [6.0, 12.0]
    with pytest.raises(GraphError, match=r"^mul_: this leaf requires gradients"):
        own(x, y).mul_(2.0)
    second = make(lambda xp, x, y: y, lambda g: g * 0.0, lambda g: g, view=True)(y, x)
    assert not np.shares_memory(second.array, x.array)


def scaled(xp, x):
    x *= 2
    return x


def filled(xp, x):
    x[0] = 7.0
    return x + 1.0


def added(xp, x):
    xp.add.at(x, [0], 1.0)  # which NumPy does also to read-only arrays
    return x * 1.0


@pytest.mark.parametrize(
    "function", [scaled, filled, added, lambda xp, x: np.multiply(x, 2, out=x), lambda xp, x: (x.sort(), x * 1.0)[1]]
)
@pytest.mark.parametrize("recorded", [True, False])
def test_a_function_that_writes_into_its_argument_is_an_error(function, recorded):
    own, x = make(function, lambda g, x: g * x), leaf(3.0, 2.0, 1.0)
    message = r"^mine: expected a function that leaves its arguments unchanged, got one that writes into an argument"
    with tl.set_grad_enabled(recorded), pytest.raises(GraphError, match=message):
        own(x)
    assert x.tolist() == [3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    "rule", [lambda g, x: np.multiply(g, 2, out=g), lambda g, x: g * np.multiply(x, 2, out=x)]
)
def test_a_rule_that_writes_is_an_error(rule):
    x, other = leaf(1.0, 2.0), leaf(1.0, 2.0)
    loss = (make(lambda xp, x: x * 1.0, rule)(x) + other).sum()
    with pytest.raises(ValueError, match=r"^mine: its gradient rule of argument 'x' raised"):
        loss.backward()
    assert x.tolist() == [1.0, 2.0]


def test_a_backward_function_that_writes_is_an_error():
    def backward(xp, g, x):
        g *= 2
        return (g,)

    own = make(lambda xp, x: x * 1.0, backward=backward, composite=lambda x: x * 1.0)
    with pytest.raises(ValueError, match=r"^mine: its backward function raised .* must not change g"):
        own(leaf(1.0)).sum().backward()


# ---- gradients that would be lost -----------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"multi_output": True}])
def test_an_op_without_rules_refuses_arguments_that_require_gradients(options):
    own = make(lambda xp, x: (x * 2.0, x) if options else x * 2.0, **options)
    with pytest.raises(GraphError, match=r"^mine: no gradient is defined for its argument 'x', .* Give op\(\)"):
        own(leaf(1.0))
    with tl.no_grad():
        own(leaf(1.0))
    own(leaf(1.0).detach())


def test_an_op_without_rules_may_return_integers():
    assert make(lambda xp, x: x > 1)(leaf(1.0, 2.0)).tolist() == [False, True]
    assert make(lambda xp, x: xp.argmax(x))(leaf(1.0, 2.0)).tolist() == 1


@pytest.mark.parametrize("form", ["rules", "backward"])
def test_mixed_dtypes_are_an_error_in_the_forward_pass(form):
    options = (
        {"backward": lambda xp, g, x, y: (g * y, g * x), "composite": lambda x, y: x * y} if form == "backward" else {}
    )
    rules = [] if options else [lambda g, y: g * y, lambda g, x: g * x]
    own = make(lambda xp, x, y: x * y, *rules, **options)
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0, dtype=tl.float64)
    for args in ((x, y), (x, y.detach()), (x.detach(), y)):
        with pytest.raises(DTypeError, match=r"^mine: expected arguments of one .* float32\(2,\), float64\(2,\)"):
            own(*args)
    own(x, y.float()).sum().backward()
    assert x.grad.tolist() == [3.0, 4.0]


def test_mixed_dtypes_that_the_op_promotes():
    own = make(lambda xp, x, y: x * y, lambda g, y: g * y, lambda g, x: g * x, dtypes="promote")
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0, dtype=tl.float64)
    own(x, y).sum().backward()
    assert (x.grad.dtype, x.grad.tolist(), y.grad.tolist()) == (tl.float32, [3.0, 4.0], [1.0, 2.0])


# ---- rules ----------------------------------------------------------------------------------

# The function, its rule, and a function of Tensors that computes the same.
METHODS = {
    "unsqueeze": (lambda xp, x: x.sum(-1), lambda g, in_shape: g.unsqueeze(-1).expand(in_shape), lambda x: x.sum(-1)),
    "transpose": (lambda xp, x: xp.transpose(x), lambda g: g.transpose(0, 1), lambda x: x.T),
    "a saved value": (
        lambda xp, x: x.sum(-1) ** 2,
        lambda g, x: (2 * g * x.sum(dim=-1)).unsqueeze(1).expand(x.shape),
        lambda x: x.sum(-1) ** 2,
    ),
    "std": (
        lambda xp, x: x / x.std(ddof=1),
        lambda g, x: g / x.std() - (g * x).sum() * (x - x.mean()) / (x.std() ** 3 * (x.numel() - 1)),
        lambda x: x / x.std(),
    ),
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("case", METHODS)
def test_rules_may_use_the_methods_of_tensors(case, create_graph):
    function, rule, same = METHODS[case]
    x = tl.tensor([[0.5, -1.0], [2.0, 3.0]], dtype=tl.float64, requires_grad=True)
    weight = tl.tensor([[1.0, 2.0], [-3.0, 0.5]], dtype=tl.float64)

    def gradient(f):
        y = f(x)
        return tl.autograd.grad(y, x, weight if y.ndim == 2 else weight[0], create_graph=create_graph)[0]

    found, expected = gradient(make(function, rule)), gradient(same)
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-13)
    if create_graph and expected.requires_grad:
        second = [tl.autograd.grad((g * g).sum(), x)[0].numpy() for g in (found, expected)]
        np.testing.assert_allclose(*second, rtol=1e-12)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (lambda g: g.no_such_method(), AttributeError),
        (lambda g: g * "a", TypeError),
        (lambda g: g[7], IndexError),
        (lambda g: {}["key"], KeyError),
        (lambda g: g.reshape(5), ValueError),
        (lambda g: 1 / 0, ArithmeticError),
    ],
)
def test_an_error_in_a_rule_names_the_op_and_the_argument(rule, error, create_graph):
    loss = make(lambda xp, x: x * 1.0, rule)(leaf(1.0, 2.0)).sum()
    with pytest.raises(error, match=r"^.?mine: its gradient rule of argument 'x' raised"):
        loss.backward(create_graph=create_graph)


def test_an_exception_of_the_users_own_keeps_its_type():
    class Special(Exception):
        def __init__(self, code, detail):
            super().__init__(code, detail)

    def rule(g):
        raise Special(1, 2)

    with pytest.raises(Special) as error:
        make(lambda xp, x: x * 1.0, rule)(leaf(1.0)).sum().backward()
    assert error.value.__notes__[0].startswith("mine: its gradient rule of argument 'x' raised Special")


def test_numpy_in_a_rule_of_a_second_derivative():
    x = leaf(0.5, dtype=tl.float64)
    loss = make(lambda xp, x: xp.sin(x), lambda g, x: g * np.linalg.norm(x))(x).sum()
    with pytest.raises((TypeError, GraphError), match=r"^mine: .* With create_graph=True a rule gets"):
        tl.autograd.grad(loss, x, create_graph=True)


def test_a_rule_that_ignores_the_graph_gives_a_tensor():
    x = leaf(0.5, 2.0)
    loss = make(lambda xp, x: x * 1.0, lambda g, x: np.full(2, 3.0, np.float32))(x).sum()
    (g,) = tl.autograd.grad(loss, x, create_graph=True)
    assert isinstance(g, tl.Tensor)
    assert g.tolist() == [3.0, 3.0]
