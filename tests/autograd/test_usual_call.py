"""The usual call of an op does what the general call does, which runs if there is a hook."""

import contextlib

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.autograd.graph import topological_order
from tensorlite.autograd.op_hooks import OpHooks, set_op_hooks
from tensorlite.pytree import tree_leaves
from tests.ops.op_table import SPECS


@contextlib.contextmanager
def general_call():
    """Make ops run through a hook that changes nothing."""
    before = set_op_hooks(OpHooks(forward=lambda run, f, *args: run(f, *args)))
    try:
        yield
    finally:
        set_op_hooks(before)


def recorded(y, leaves):
    """Return all that the graph of some results has, in an order that does not depend on ticks."""
    places = {id(leaf): k for k, leaf in enumerate(leaves)}
    nodes = topological_order([one.node for one in y if one.node is not None])
    places |= {id(node): len(leaves) + k for k, node in enumerate(nodes)}
    return [
        (node.name, node.plan.needs, [places[id(e)] for e in node.edges], [tuple(s) for s in node.shapes],
         [bits(v) for v in node.saved], node.dtypes, node.outputs)
        for node in nodes
    ]  # fmt: skip


def bits(value):
    return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)


def steps_of(result):
    """Return the names and the arguments of the view ops that lead to a result."""
    found, steps = [], result.view_info and result.view_info[1]
    while steps:
        steps, view, arguments = steps
        found.append((view.__name__, repr(arguments)))
    return found


@pytest.mark.parametrize("name", SPECS)
def test_results_and_graph_are_those_of_the_general_call(name):
    spec = SPECS[name]
    for k, sample in enumerate(spec.samples[:6]):
        for dtype, choice in ((tl.float32, (0, 1, 2)), (tl.float64, (0,)), (tl.float32, (1,))):
            outcomes = []
            for context in (contextlib.nullcontext, general_call):
                leaves = spec.tensors(k, dtype)
                for i, x in enumerate(leaves):
                    x.requires_grad_(x.requires_grad and i in choice)
                args, kwargs = sample.fill(leaves)
                tl.manual_seed(0)
                with context():
                    results = [y for y in tree_leaves(spec.f(*args, **kwargs)) if isinstance(y, tl.Tensor)]
                outcomes.append(
                    ([(bits(y.array), y.array.strides, y.requires_grad, steps_of(y)) for y in results],
                     recorded(results, leaves))
                )  # fmt: skip
            assert outcomes[0] == outcomes[1], (sample, dtype, choice)


def outcome(f):
    """Return the type, the dtype and the bits of a result, or the error."""
    try:
        y = f()
    except Exception as error:
        return type(error), str(error)
    return type(y), bits(y.array), y.requires_grad


X = tl.tensor([[1.0, -2.0], [3.0, 0.5]], requires_grad=True)
ZERO_D = tl.tensor(2.0, dtype=tl.float64)
CALLS = {
    "no argument": lambda: tl.add(),
    "one missing": lambda: tl.add(X),
    "one too many": lambda: tl.sin(X, X),
    "a number too many": lambda: tl.sin(X, 2.0),
    "two too many": lambda: tl.sin(X, X, X),
    "keywords": lambda: tl.add(input=X, other=X, alpha=2),
    "an unknown keyword": lambda: tl.add(X, X, beta=2),
    "twice the same": lambda: tl.add(X, X, other=X),
    "shapes that do not broadcast": lambda: tl.add(X, tl.ones(3)),
    "number first": lambda: 2 / X,
    "two numbers": lambda: tl.add(1.0, 2.0),
    "a large int": lambda: X * 10**400,
    "a large int first": lambda: 10**400 - X,
    "a bool": lambda: X + True,
    "a list": lambda: tl.add(X, [1.0, 2.0]),
    "a string": lambda: tl.mul(X, "a"),
    "None": lambda: tl.mul(X, None),
    "complex": lambda: tl.mul(X, 1j),
    "NumPy's scalar": lambda: X * np.float64(2.0),
    "an array": lambda: tl.add(X.detach(), np.ones((2, 2), np.float32)),
    "two dtypes": lambda: tl.mul(X, tl.ones(2, 2, dtype=tl.float64)),
    "0-d of another dtype": lambda: tl.mul(X, ZERO_D),
    "integers": lambda: tl.mul(X, tl.ones(2, 2, dtype=tl.int64)),
    "float16": lambda: tl.mul(X.half(), X.half()),
    "a scalar result": lambda: tl.tensor(2.0, requires_grad=True) * tl.tensor(3.0),
    "a flag": lambda: tl.ops.mean(X, None, True),
    "a number as a flag": lambda: tl.triu(X, 1),
    "an error of the op": lambda: tl.reshape(X, (3, 5)),
    "a list of sizes": lambda: tl.reshape(X, [4]),
    "detached": lambda: tl.sin(X.detach()),
    "log of 0": lambda: tl.log(X * 0),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("error")
def test_unusual_arguments(name):
    usual = outcome(CALLS[name])
    with general_call():
        assert usual == outcome(CALLS[name])


def test_names_without_a_place_among_the_first_two_arguments():
    """A keyword may have the name of a parameter of the function that Python calls."""
    assert tl.add(x=X, y=X).tolist() == (X + X).tolist()
    assert tl.outer(tl.ones(2), vec2=tl.ones(3)).shape == (2, 3)


@pytest.mark.parametrize("context", [tl.no_grad, tl.inference_mode])
def test_nothing_is_recorded_without_gradients(context):
    with context():
        y = tl.mul(X, X)
        view = X.T
    assert y.node is None
    assert not y.requires_grad
    assert view.view_info is None


def test_subclasses_and_parameters_are_as_usual():
    class Mine(tl.Tensor):
        pass

    mine = Mine([1.0, 2.0], requires_grad=True)
    y = mine * tl.nn.Parameter(tl.ones(2))
    assert type(y) is tl.Tensor
    assert y.grad_fn.edges[0] is mine
    y.sum().backward()
    assert mine.grad.tolist() == [1.0, 1.0]


def test_a_change_in_place_of_a_base_is_seen():
    base = tl.ones(4, requires_grad=True) * 1
    view = base[:2]
    base.mul_(3)
    (view * view).sum().backward()
    assert view.tolist() == [3.0, 3.0]


def test_a_debugger_may_call_an_op_inside_an_op():
    """The thread is inside its context then, which cannot be entered twice."""
    from tensorlite.autograd.thread_state import threads

    assert threads.state.run(lambda: tl.add(X, X).tolist()) == (X + X).tolist()
