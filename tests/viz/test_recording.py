"""A recording: values, lines and modules of the ops of a block, and nothing that is left behind."""

import gc
import threading
import weakref

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn
from tensorlite.autograd.graph import topological_order
from tensorlite.autograd.thread_state import threads
from tensorlite.profiler import profile
from tensorlite.viz import recording


@pytest.fixture(autouse=True)
def no_hook_is_left():
    yield
    assert threads.state.hooks == (None, None)


def ops_of(y):
    return [node for node in reversed(topological_order([y.node])) if node.name]


def path_of(record):
    """Return the calls of modules around an op, outermost first."""
    paths, call = [], record.call
    while call is not None:
        paths.insert(0, f"{call.tree.name}:{call.path}")
        call = call.parent
    return paths


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.act = nn.Tanh()

    def forward(self, x):
        return self.act(self.inner(self.act(self.inner(x)))) * 2


def test_each_op_has_its_value_time_line_and_module():
    net, x = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), tl.randn(4, 3)
    with recording() as r:
        h = net(x)
        y = h.mean()
    linear, relu, mean = ops_of(y)
    assert r.value(mean).tolist() == y.tolist()
    assert r.value(relu).tolist() == h.tolist()
    assert r.of(mean).line == "test_recording.py:51: y = h.mean()"
    assert r.of(linear).line.endswith(": h = net(x)")
    assert path_of(r.of(linear)) == ["net:", "net:0"]
    assert path_of(r.of(relu)) == ["net:", "net:1"]
    assert path_of(r.of(mean)) == []
    assert 0 < r.of(linear).seconds < 10
    assert len(r) == 3
    assert r.notes == []


def test_calls_of_one_module_are_told_apart():
    net = Twice()
    with recording(net) as r:
        y = net(net(tl.ones(1, 3)))
    calls = [r.of(node).call for node in ops_of(y)]
    assert [c.path for c in calls] == ["inner", "act", "inner", "act", "", "inner", "act", "inner", "act", ""]
    assert len(set(map(id, calls))) == 10
    assert calls[0].parent is calls[3].parent is calls[4]
    assert calls[5].parent is calls[9] is not calls[4]
    assert calls[0].module == calls[2].module != calls[1].module


def test_later_changes_in_place_are_not_shown():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    with recording() as r:
        y = x * 3
        before = y.node
        y.add_(10)
        z = y[:1].exp()
    y.detach().zero_()
    assert r.value(before).tolist() == [3, 6]
    assert r.value(y.node).tolist() == [13, 16]
    assert np.allclose(r.value(z.node), np.exp([13]))


def test_views_that_an_op_takes_again():
    base = tl.zeros(2, 3, requires_grad=True) * 1
    with recording() as r:
        row = base[0]
        base.add_(1)
        y = row * 5
        row.mul_(2)
        total = base.sum()
    assert r.value(y.node).tolist() == [5, 5, 5]
    assert r.value(total.node).item() == 9
    assert [r.value(n) is not None for n in ops_of(total) if n.seq > base.node.seq] == [True]


def test_a_change_in_place_of_a_view():
    base = tl.ones(2, 3, requires_grad=True) * 1
    with recording() as r:
        base[0].mul_(2)
        base.T[1:].copy_(tl.full((2, 2), 7.0, requires_grad=True))
        y = base.sum()
    assert r.value(base.node).tolist() == base.tolist() == [[2, 7, 7], [1, 7, 7]]
    assert next(r.value(n).tolist() for n in ops_of(y) if n.name == "with_view") == [[2, 2, 2], [1, 1, 1]]
    z = base.exp().sum()  # the same without a recording
    data = tl.explore(z).data
    shown = [data["values"][node["value"]]["numbers"] for node in data["nodes"] if node["op"] == "with_view"]
    assert shown == [[[2, 2, 2], [1, 1, 1]], [[2, 7, 7], [1, 7, 7]]]


def test_several_results_and_half_precision():
    x = tl.arange(6.0).half().requires_grad_()
    with recording() as r:
        a, b = tl.split(x, 3)
        y = (a * b).softmax(0)
    assert r.value(a.node).tolist() == [0, 1, 2]
    assert r.value(b.node).tolist() == [3, 4, 5]
    assert r.value(y.node).dtype == tl.float16
    assert r.value(y.node).tolist() == y.tolist()


def test_nothing_is_kept_alive():
    net = nn.Linear(500, 500)
    with recording() as r:
        y = net(tl.randn(2, 500)).sum()
    node, weight = weakref.ref(y.node), weakref.ref(net.weight)
    del y, net
    gc.collect()
    assert node() is None
    assert weight() is None
    assert len(r) == 2


def test_memory_is_bounded_and_it_says_so():
    x = tl.ones(100, requires_grad=True)
    with recording(max_bytes=700) as r:
        y = (x * 2).exp().sum()
    first, second, total = ops_of(y)
    assert r.value(first) is not None
    assert r.value(second) is None
    assert r.of(second).why_no_value == "The recording keeps at most 700 bytes of results."
    assert r.value(total) is not None
    assert "The results of 1 recorded ops are left out" in r.notes[0]


def test_an_exception_ends_it():
    x = tl.ones(2, requires_grad=True)
    r = recording()
    with pytest.raises(ZeroDivisionError), r:
        y = x * 2
        1 / 0  # noqa: B018
    assert r.value(y.node).tolist() == [2, 2]
    x * 3
    assert len(r) == 1
    with r, pytest.raises(RuntimeError, match=r"expected one that is not running"), r:
        pass
    with r:  # entered again, it adds
        x * 4
    assert len(r) == 2
    with pytest.raises(TypeError, match="expected model to be a Module, got Tensor"):
        recording(x)


def test_blocks_nest_with_each_other_and_with_the_profiler():
    x = tl.ones(2, requires_grad=True)
    with profile() as outside, recording() as outer, recording() as inner, profile() as inside:
        y = x.exp()
        y.sum().backward()
    assert inner.value(y.node).tolist() == outer.value(y.node).tolist() == y.tolist()
    for prof in (outside, inside):
        assert prof.ops["exp"].calls == prof.ops["exp"].backward_calls == 1


def test_blocks_that_do_not_end_in_order():
    x = tl.ones(2, requires_grad=True)

    def generator():
        with recording() as r:
            yield r

    g = generator()
    outer = next(g)
    with recording() as inner:
        x * 1
        g.close()
        x * 2
    x * 3
    assert (len(outer), len(inner)) == (1, 2)


def test_other_threads_and_no_grad_are_left_out():
    x = tl.ones(2, requires_grad=True)
    with recording() as r:
        thread = threading.Thread(target=lambda: x * 2)
        thread.start()
        thread.join()
        with tl.no_grad():
            x * 3
        (x * 4).sum().backward()
    assert len(r) == 2  # mul and sum; the rules compute on raw arrays


def test_the_same_op_in_another_thread_is_not_taken_for_a_recorded_one():
    x, found = tl.ones(2, requires_grad=True), []
    with recording() as r:
        mine = x * 2
        thread = threading.Thread(target=lambda: found.append(x * 3))
        thread.start()
        thread.join()
        y = mine + found[0]
    for order in (ops_of(y), ops_of(y)[::-1]):
        assert {n.name: r.value(n) is not None for n in order if n is not found[0].node} == {"mul": True, "add": True}
    assert r.of(found[0].node) is None
    shown = tl.explore(y, recording=r).data
    numbers = [shown["values"][node["value"]]["numbers"] for node in shown["nodes"] if node["op"] == "mul"]
    assert numbers == [[2, 2], [3, 3]]


def test_the_rule_that_made_an_op():
    x = tl.tensor([0.5], requires_grad=True)
    with recording() as r:
        y = x.sin()
        (g,) = tl.autograd.grad(y.sum(), x, create_graph=True)
    made = [r.of(node) for node in ops_of(g) if r.of(node) is not None and r.of(node).of]
    assert made
    assert {record.of[-1] for record in made} >= {y.node.seq}
    assert r.of(y.node).of == ()


def test_a_module_that_no_variable_holds_and_one_that_is_not_called():
    with recording() as r:
        y = nn.Sequential(nn.Linear(2, 2), nn.Tanh())(tl.ones(1, 2))
        z = nn.Linear(2, 1).forward(y)
    assert [path_of(r.of(node)) for node in ops_of(z)] == [
        ["Sequential:", "Sequential:0"], ["Sequential:", "Sequential:1"], ["Linear:"],
    ]  # fmt: skip


def test_modules_of_an_object_and_of_a_closure():
    class Trainer:
        def __init__(self):
            self.model = nn.Linear(2, 2)

        def step(self):
            with recording() as r:
                y = self.model(tl.ones(1, 2))
            return path_of(r.of(y.node))

    assert Trainer().step() == ["self.model:"]


@pytest.mark.parametrize("failing", [True, False])
def test_a_module_that_raises_leaves_no_call_open(failing):
    class Fails(nn.Module):
        def forward(self, x):
            x = x * 2
            if failing:
                raise ValueError("no")
            return x

    bad, good, x = Fails(), nn.Tanh(), tl.ones(2, requires_grad=True)
    with recording() as r:
        try:
            bad(x)
        except ValueError:
            pass
        y = good(x)
        z = y * 2
    assert path_of(r.of(y.node)) == ["good:"]
    assert path_of(r.of(z.node)) == []


def test_checkpointed_regions_are_recorded_once():
    net, x = nn.Linear(2, 2), tl.ones(1, 2)
    with recording(net) as r:
        y = tl.checkpoint(net, x).sum()
    before = len(r)
    y.backward()
    assert len(r) == before == 2
    assert path_of(r.of(ops_of(y)[0])) == [":"]


def test_vmap_and_hooks_of_modules():
    net, x = nn.Linear(2, 1), tl.randn(3, 2)
    seen = []
    with recording() as r, net.register_forward_hook(lambda m, args, out: seen.append(out) or out * 2):
        y = tl.vmap(net)(x).sum()
    assert len(seen) == 3
    paths = [path_of(r.of(node)) for node in ops_of(y) if node.name in ("linear", "mul")]
    assert paths == [["net:"]] * 6
