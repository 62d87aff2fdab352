"""Activation checkpointing: the backward pass calls the function again, and results do not change."""
import functools
import gc
import random
import weakref

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.errors import GraphError, VersionError


def leaf(*values):
    return tl.tensor(list(values), dtype=tl.float64, requires_grad=True)


def block(x, w):
    return (x * w).exp().tanh() * x


@pytest.mark.parametrize("create_graph", [False, True])
def test_values_and_gradients_do_not_change(create_graph):
    x, w = leaf(0.1, -0.2), leaf(0.5, 2.0)
    plain, kept = block(x, w), tl.checkpoint(block, x, w)
    assert kept.tolist() == plain.tolist()
    expected = tl.autograd.grad(plain.sum(), [x, w])
    found = tl.autograd.grad(kept.sum(), [x, w], create_graph=create_graph)
    assert [g.tolist() for g in found] == [g.tolist() for g in expected]


def test_double_backward():
    x, w = leaf(0.1, -0.2), leaf(0.5, 2.0)

    def second(f):
        gx, gw = tl.autograd.grad((f(x, w) ** 2).sum(), [x, w], create_graph=True)
        return [g.tolist() for g in tl.autograd.grad((gx * gw).sum(), [x, w])]

    assert second(lambda x, w: tl.checkpoint(block, x, w)) == second(block)


def test_keyword_arguments_and_parameters_that_the_function_closes_over():
    w = leaf(3.0, 4.0)

    def f(x, *, scale):
        return (x * w).square() * scale

    x = leaf(1.0, 2.0)
    tl.checkpoint(f, x, scale=2.0).sum().backward()
    assert x.grad.tolist() == [2 * 2 * 9.0, 2 * 2 * 2 * 16.0]
    assert w.grad.tolist() == [2 * 2 * 3.0, 2 * 2 * 4 * 4.0]


def test_parameters_get_gradients_when_the_argument_needs_none():
    layer = tl.nn.Linear(3, 2)
    x = tl.randn(5, 3)
    tl.checkpoint(lambda x: layer(x).tanh(), x).sum().backward()
    found = layer.weight.grad.tolist()
    layer.zero_grad()
    layer(x).tanh().sum().backward()
    assert found == layer.weight.grad.tolist()


def test_dropout_drops_the_same_entries_in_the_second_call():
    tl.manual_seed(0)
    x = tl.ones(1000, requires_grad=True)
    y = tl.checkpoint(lambda x: F.dropout(x, 0.5).square(), x)
    after = tl.rand(3)
    y.sum().backward()
    # x is 1, and dropout doubles the entries that it keeps. So y is 4, and its slope is 8.
    assert x.grad.tolist() == (2 * y).tolist()
    assert 0 < int((y == 0).sum()) < 1000
    tl.manual_seed(0)
    F.dropout(tl.ones(1000), 0.5)
    assert tl.rand(3).tolist() == after.tolist()


def test_the_backward_pass_restores_the_state_of_the_random_numbers():
    x = tl.ones(10, requires_grad=True)

    def draws(backward):
        tl.manual_seed(1)
        loss = tl.checkpoint(lambda x: F.dropout(x, 0.5).square(), x).sum()
        if backward:
            loss.backward()
        return tl.rand(4).tolist()

    assert draws(True) == draws(False)


def test_the_function_runs_twice_and_only_once_under_no_grad():
    calls = []

    def f(x):
        calls.append(tl.is_grad_enabled())
        return x.exp()

    x = leaf(1.0)
    y = tl.checkpoint(f, x)
    assert calls == [True]
    y.sum().backward()
    assert calls == [True, True]
    with tl.no_grad():
        assert tl.checkpoint(f, x).is_leaf
    assert calls == [True, True, False]


def test_values_of_the_first_call_are_freed():
    gc.collect()
    gc.disable()
    try:
        refs = []

        def f(x):
            y = x.exp()
            refs.append(weakref.ref(y.array))
            z = y * y
            refs.append(weakref.ref(z.array))
            return z.sin()

        x = leaf(0.1, 0.2)
        out = tl.checkpoint(f, x)
        assert [r() for r in refs] == [None, None]
        out.sum().backward()
        assert [r() for r in refs] == [None] * 4
        node = weakref.ref(out.grad_fn)
        del out
        assert node() is None
    finally:
        gc.enable()


def test_a_checkpoint_inside_a_checkpoint():
    def inner(x):
        return x.exp() * x

    def outer(x):
        return tl.checkpoint(inner, x.sin()) * tl.checkpoint(inner, x)

    x = leaf(0.3, 0.7)
    found = tl.autograd.grad(tl.checkpoint(outer, x).sum(), x)[0]
    expected = tl.autograd.grad((inner(x.sin()) * inner(x)).sum(), x)[0]
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-15)
    (once,) = tl.autograd.grad(tl.checkpoint(outer, x).sum(), x, create_graph=True)
    (plain,) = tl.autograd.grad((inner(x.sin()) * inner(x)).sum(), x, create_graph=True)
    np.testing.assert_allclose(
        tl.autograd.grad(once.sum(), x)[0].numpy(), tl.autograd.grad(plain.sum(), x)[0].numpy(), rtol=1e-14
    )


def test_a_chain_of_checkpoints():
    x = leaf(0.3, 0.7)
    y = z = x
    for _ in range(20):
        y, z = tl.checkpoint(lambda v: v.sin() * v, y), z.sin() * z
    assert tl.autograd.grad(y.sum(), x)[0].tolist() == tl.autograd.grad(z.sum(), x)[0].tolist()


def test_several_results_in_a_structure():
    def f(x):
        a, b = x.exp().unbind()
        return {"a": a, "rest": [b, (a * b,)], "none": None}

    x = leaf(0.5, 1.5)
    out = tl.checkpoint(f, x)
    assert out["none"] is None
    (out["a"] + 2 * out["rest"][0] + 3 * out["rest"][1][0]).backward()
    ea, eb = np.exp([0.5, 1.5])
    np.testing.assert_allclose(x.grad.numpy(), [ea + 3 * ea * eb, 2 * eb + 3 * ea * eb], rtol=1e-15)


def test_results_used_in_separate_backward_passes():
    x = leaf(0.5)
    a, b = tl.checkpoint(lambda x: (x.exp(), x.sin()), x)
    a.sum().backward()
    b.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [np.exp(0.5) + np.cos(0.5)], rtol=1e-15)


def test_retain_graph_and_a_freed_graph():
    x = leaf(2.0)
    loss = tl.checkpoint(lambda x: x.exp() * x, x).sum()
    loss.backward(retain_graph=True)
    first = x.grad.tolist()
    loss.backward()
    assert x.grad.tolist() == [2 * v for v in first]
    with pytest.raises(GraphError, match=r"freed. Pass retain_graph=True"):
        loss.backward()


def test_a_result_that_is_an_argument_or_needs_no_gradient():
    x = leaf(1.0)
    same, constant = tl.checkpoint(lambda x: (x, tl.ones(2)), x)
    assert same is x
    assert not constant.requires_grad


@pytest.mark.parametrize(
    ("then", "difference"),
    [
        (lambda x: x.exp() * 2, r"to do nothing, got mul of \[\(1,\)\]"),
        (lambda x: x.cos(), r"to do exp of \[\(1,\)\], got cos of \[\(1,\)\]"),
        (lambda x: x, r"to do exp of \[\(1,\)\], got nothing"),
    ],
)
def test_other_ops_in_the_second_call_are_an_error(then, difference):
    calls = []

    def f(x):
        calls.append(x)
        return x.exp() if len(calls) == 1 else then(x)

    loss = tl.checkpoint(f, leaf(1.0)).sum()
    with pytest.raises(GraphError, match=rf"^checkpoint: expected the second call of f {difference}"):
        loss.backward()
    assert tl.is_grad_enabled()


def test_other_shapes_in_the_second_call_are_an_error():
    calls = []

    def f(x):
        calls.append(x)
        return (x * x)[: len(calls)].sum()

    with pytest.raises(GraphError, match=r"^checkpoint: .* call of f to do sum of \[\(1,\)\], got sum of \[\(2,\)\]"):
        tl.checkpoint(f, leaf(1.0, 2.0)).backward()


def test_an_argument_that_was_changed_in_place_is_an_error():
    x = leaf(1.0, 2.0)
    y = x * 1
    loss = tl.checkpoint(lambda v: v.exp(), y).sum()
    with tl.no_grad():
        y.add_(1)
    with pytest.raises(VersionError, match=r"^checkpoint: .* argument 'args\[0\]', .* at version 0 .* at version 1"):
        loss.backward()


def test_the_function_may_change_its_own_values_in_place():
    def f(v):
        y = v * 2.0
        y.add_(1.0)
        z = y * y  # saves y, which the second call changes again
        return z.sin()

    x, other = leaf(1.0, 2.0), leaf(1.0, 2.0)
    tl.checkpoint(f, x).sum().backward()
    f(other).sum().backward()
    assert x.grad.tolist() == other.grad.tolist()


def test_an_exception_in_the_second_call_restores_the_state():
    calls = []

    def f(x):
        calls.append(x)
        if len(calls) == 2:
            tl.rand(3)
            raise KeyError("second")
        return x.exp()

    loss = tl.checkpoint(f, leaf(1.0)).sum()
    state = tl.get_rng_state()
    with pytest.raises(KeyError, match=r"second"):
        loss.backward()
    assert tl.is_grad_enabled()
    assert str(tl.get_rng_state()) == str(state)


def test_hooks_inside_the_function_run_once():
    calls = []

    def f(x):
        y = x.exp()
        y.register_hook(lambda g: calls.append(g.tolist()))
        return y * 3

    tl.checkpoint(f, leaf(1.0)).sum().backward()
    assert calls == [[3.0]]


def test_it_works_under_detect_anomaly():
    x = leaf(0.1, -0.2)
    with tl.detect_anomaly():
        tl.checkpoint(block, x, leaf(0.5, 2.0)).sum().backward()
    assert x.grad.isfinite().all()


def test_utils_checkpoint_accepts_pytorchs_options():
    x = tl.tensor([0.5, 1.0], requires_grad=True)
    y = tl.utils.checkpoint.checkpoint(lambda a, scale: (a.sin() * scale).exp(), x, scale=2.0, use_reentrant=False)
    (found,) = tl.autograd.grad(y.sum(), x)
    (expected,) = tl.autograd.grad((x.sin() * 2.0).exp().sum(), x)
    assert found.tolist() == expected.tolist()


# ---- random numbers, and results that differ ------------------------------------------------

N = 200


def drop(x, kept):
    """Return x where ``kept``, NumPy's or Python's booleans, is true, and 0 elsewhere."""
    return x * tl.tensor(np.asarray(kept, dtype=np.float64))


class Dropping(tl.nn.Module):
    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(3)

    def forward(self, x):
        return drop(x, self.rng.random(N) > 0.5)


class Slots:
    __slots__ = ("rng",)

    def __init__(self):
        self.rng = tl.Generator(3)

    def __call__(self, x):
        return x * (tl.rand(N, generator=self.rng) > 0.5).double()


GLOBAL_RNG = np.random.default_rng(3)


def drop_by_a_global_generator(x):
    return drop(x, GLOBAL_RNG.random(N) > 0.5)


def closes_over(generator):
    return lambda x: x * (tl.rand(N, generator=generator) > 0.5).double()


def by_default(x, rng=np.random.RandomState(3)):  # noqa: B008
    return drop(x, rng.rand(N) > 0.5)


# Functions that draw random numbers, and their further arguments.
DRAWS = {
    "a closure": (closes_over(tl.Generator(3)),),
    "an argument": (lambda x, g: x * (tl.rand(N, generator=g) > 0.5).double(), tl.Generator(3)),
    "an argument in a container": (lambda x, o: drop(x, o["g"][0].random(N) > 0.5), {"g": [np.random.default_rng(3)]}),
    "a default": (by_default,),
    "a global name": (lambda x: drop_by_a_global_generator(x),),
    "an attribute of a module": (tl.nn.Sequential(Dropping(), tl.nn.Tanh(), Dropping()),),
    "a bound method": (Dropping().forward,),
    "a partial": (functools.partial(lambda rng, x: drop(x, [rng.random() > 0.5 for _ in range(N)]), random.Random(3)),),
    "a method of a generator": (lambda x, draw: drop(x, [draw() > 0.5 for _ in range(N)]), random.Random(3).random),
    "a method of NumPy's": (lambda x, draw: drop(x, draw(N) > 0.5), np.random.default_rng(3).random),
    "slots": (Slots(),),
    "a bit generator": (lambda x, b: drop(x, np.random.Generator(b).random(N) > 0.5), np.random.PCG64(3)),
    "NumPy's global generator": (lambda x: drop(x, np.random.rand(N) > 0.5),),
    "Python's global generator": (lambda x: drop(x, [random.random() > 0.5 for _ in range(N)]),),
}


@pytest.mark.parametrize("case", DRAWS)
def test_every_generator_that_the_function_reaches_is_replayed(case):
    f, *args = DRAWS[case]
    x = tl.ones(N, dtype=tl.float64, requires_grad=True)
    twin = tl.ones(N, dtype=tl.float64, requires_grad=True)
    y = tl.checkpoint(f, x, *args)
    kept = (y != 0).double()
    np.random.rand()
    random.random()
    state = numpy_state(), random.getstate()
    y.sum().backward()
    assert (numpy_state(), random.getstate()) == state
    expected = twin.tanh().sum()
    expected.backward()
    slope = twin.grad[0].item() if case == "an attribute of a module" else 1.0
    assert x.grad.tolist() == (kept * slope).tolist()
    assert 0 < int(kept.sum()) < N


def numpy_state():
    return str(np.random.get_state())


def counting():
    calls = []

    def f(x):
        calls.append(x)
        return x * len(calls)

    return f


def swapping():
    calls = []

    def f(x):
        calls.append(x)
        return x * tl.tensor([1.0, 2.0] if len(calls) == 1 else [2.0, 1.0], dtype=tl.float64)

    return f


def changing_one_entry_of_many():
    calls = []

    def f(x):
        calls.append(x)
        scale = np.ones(100_000)
        scale[-1] = len(calls)
        return x[:1] * tl.tensor(scale)

    return f


@pytest.mark.parametrize("make", [counting, swapping, changing_one_entry_of_many])
def test_another_result_of_the_second_call_is_an_error(make):
    loss = tl.checkpoint(make(), leaf(1.0, 2.0)).sum()
    with pytest.raises(GraphError, match=r"^checkpoint: the second call of f gave another result than the first"):
        loss.backward()


def test_random_numbers_that_cannot_be_replayed_are_an_error():
    loss = tl.checkpoint(lambda x: drop(x, np.random.default_rng().random(N) > 0.5), tl.ones(N, dtype=tl.float64,
                         requires_grad=True)).sum()  # fmt: skip
    with pytest.raises(GraphError, match=r"random numbers that are not replayed"):
        loss.backward()


@pytest.mark.parametrize("dtype", [tl.float16, tl.float32, tl.int64])
def test_results_of_every_dtype_are_compared(dtype):
    x = tl.tensor([0.5, 1.5], requires_grad=True)
    _, y = tl.checkpoint(lambda x: ((x * 10).detach().to(dtype), x.exp()), x)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp([0.5, 1.5]), rtol=1e-6)
