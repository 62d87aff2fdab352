"""The graph: what can be read from it, and the memory that it holds."""

import gc
import weakref

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.errors import GraphError


def leaf(*values, dtype=None):
    return tl.tensor(list(values), dtype=dtype, requires_grad=True)


def test_detach_and_detach_in_place():
    x = leaf(1.0, 2.0)
    y = x * 2
    z = y.detach()
    assert z.is_leaf
    assert not z.requires_grad
    assert np.shares_memory(y.array, z.array)
    assert y.detach_() is y
    assert y.is_leaf
    assert y.grad_fn is None
    with pytest.raises(GraphError, match=r"Use detach"):
        (x * 2).requires_grad = False


def test_nodes_show_their_op_and_edges():
    x = leaf(1.0)
    y = (x * 2).exp()
    assert [n.name for n in tl.autograd.topological_order([y.grad_fn])] == ["exp", "mul"]
    assert repr(y.grad_fn) == "<exp>"
    assert y.grad_fn.edges[0].edges == [x]


# ---- memory ---------------------------------------------------------------------------------


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_chain_of_a_hundred_thousand_ops(no_collector):
    x = tl.ones((), dtype=tl.float64, requires_grad=True)
    y = x
    for _ in range(100_000):
        y = y * 1.00001
    middle = weakref.ref(y.grad_fn)
    y.backward()
    assert x.grad.item() == pytest.approx(1.00001**100_000)
    del y
    assert middle() is None


def test_a_long_graph_is_freed_without_a_deep_recursion(no_collector):
    x = tl.ones((), requires_grad=True)
    y = x.exp()
    first = weakref.ref(y.grad_fn)
    for _ in range(100_000):
        y = y * 1.0
    del y
    assert first() is None


def test_saved_values_are_freed_during_the_backward_pass(no_collector):
    alive = []

    @tl.op(lambda g, x, k: (alive.append([r() is not None for r in refs]), g * x)[1])
    def watched(xp, x, k):
        return x * 1

    x, refs = tl.ones(10, requires_grad=True), []
    y = x
    for k in range(3):
        y = y * 2.0
        refs.append(weakref.ref(y.array))
        y = watched(y, k)
    y.sum().backward()
    assert alive[0] == [True] * 3
    assert alive[2] == [True, False, False]


@pytest.mark.parametrize("create_graph", [False, True])
def test_no_reference_cycles(no_collector, create_graph):
    x = tl.ones(4, 4, requires_grad=True)
    h = (x @ x).softmax(-1).gelu() if hasattr(tl.Tensor, "gelu") else (x @ x).softmax(-1).tanh()
    a, b = h.split(2)
    loss = (a * b).logsumexp(-1).sum()
    refs = [weakref.ref(v) for v in (h.array, a.array, h.grad_fn, loss.grad_fn, loss, h)]
    (g,) = tl.autograd.grad(loss, x, create_graph=create_graph)
    refs += [weakref.ref(g), weakref.ref(g.array)]
    del h, a, b, loss, g
    assert [r() for r in refs] == [None] * len(refs)
    assert gc.collect() == 0 or not any(isinstance(o, tl.autograd.Node) for o in gc.garbage)


def test_backward_keeps_only_the_gradients(no_collector):
    x = tl.ones(4, requires_grad=True)
    y = x.exp()
    data = weakref.ref(y.array)
    loss = (y * y).sum()
    del y
    assert data() is not None
    loss.backward()
    assert data() is None


def test_hooks_and_retain_grad_make_no_cycles(no_collector):
    x = leaf(1.0)
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: g * 2)
    refs = [weakref.ref(y), weakref.ref(y.grad_fn)]
    y.sum().backward()
    assert y.grad.tolist() == [2.0]  # what the other hook returned, as in PyTorch
    del y
    assert [r() for r in refs] == [None, None]


def test_an_error_in_backward_frees_the_graph(no_collector):
    x = leaf(1.0)
    y = x.exp()
    data = weakref.ref(y.array)
    with pytest.raises(GraphError):
        (y * tl.ones(2)).backward()
    del y
    assert data() is None


def test_nothing_is_saved_under_no_grad(no_collector):
    x = tl.ones(3, requires_grad=True)
    with tl.no_grad():
        y = x.exp()
        data = weakref.ref(y.array)
        y = y * 2
    assert data() is None
    assert y.grad_fn is None


def test_next_functions_lead_from_a_result_to_its_leaves():
    """The pairs are those of PyTorch, but that inputs without a gradient are left out."""
    x, w = tl.ones(3, requires_grad=True), tl.ones(3, requires_grad=True)
    product = x * w
    loss = (product + product * 2.0).sum()
    (add, zero), *rest = loss.grad_fn.next_functions
    assert (add.name, zero, rest) == ("add", 0, [])
    (first, _), (second, _) = add.next_functions
    assert first is product.grad_fn
    assert second.next_functions == ((product.grad_fn, 0),)
    (leaf_x, _), (leaf_w, _) = product.grad_fn.next_functions
    assert leaf_x.variable is x
    assert leaf_w.variable is w
    assert (leaf_x.name, leaf_x.next_functions) == ("AccumulateGrad", ())
    assert leaf_x == (x + 1).grad_fn.next_functions[0][0] != leaf_w
    assert len({leaf_x, leaf_w, (x + 1).grad_fn.next_functions[0][0]}) == 2


def test_next_functions_of_one_of_several_results():
    x = tl.eye(2, requires_grad=True)
    _, vectors = tl.linalg.eigh(x * 2)
    ((node, index),) = (vectors * 3).grad_fn.next_functions
    assert (node.name, index) == ("eigh", 1)
    assert node.next_functions[0][0].name == "mul"
    assert vectors.grad_fn.next_functions == node.next_functions
