"""The profiler: which time it counts for which op, and that results do not change."""
import threading
import time

import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.autograd.thread_state import threads
from tensorlite.profiler import profile


def step(x, w):
    F.gelu(F.linear(x, w)).sum().backward()


@pytest.fixture
def x():
    return tl.randn(4, 3)


@pytest.fixture
def w():
    return tl.randn(5, 3, requires_grad=True)


def test_ops_are_counted_forward_and_backward(x, w):
    with profile() as prof:
        step(x, w)
        step(x, w)
    assert {name: (op.calls, op.backward_calls) for name, op in prof.ops.items()} == {
        "linear": (2, 2), "gelu": (2, 2), "sum": (2, 2),
    }  # fmt: skip
    assert all(op.forward > 0 and op.backward > 0 for op in prof.ops.values())
    assert sum(op.total for op in prof.ops.values()) <= prof.seconds


def test_the_results_are_the_same(x, w):
    step(x, w)
    plain, w.grad = w.grad, None
    with profile():
        step(x, w)
    assert w.grad.tolist() == plain.tolist()


def test_ops_inside_a_gradient_rule_count_for_the_rule():
    y = tl.ones(3, requires_grad=True)
    with profile() as prof:
        (y / (y + 1)).sum().backward()
    assert prof.ops["true_divide"].backward_calls == 1
    assert "neg" not in prof.ops


def test_the_profiler_measures_time():
    @tl.op(lambda g: slow(g))
    def snail(xp, x):
        time.sleep(0.02)
        return x * 1.0

    def slow(g):
        time.sleep(0.01)
        return g

    y = tl.ones(2, requires_grad=True)
    with profile() as prof:
        snail(y).sum().backward()
    assert prof.ops["snail"].forward >= 0.02
    assert prof.ops["snail"].backward >= 0.01
    assert prof.seconds >= 0.03


def test_second_derivatives(x, w):
    with profile() as prof:
        (g,) = tl.autograd.grad(F.gelu(F.linear(x, w)).sum(), w, create_graph=True)
        g.square().sum().backward()
    assert prof.ops["gelu"].backward_calls >= 1
    assert w.grad is not None


def test_only_ops_of_this_thread_inside_the_block_count(x, w):
    prof = profile()
    with prof:
        thread = threading.Thread(target=step, args=(x, w))
        thread.start()
        thread.join()
    step(x, w)
    assert prof.ops == {}
    with pytest.raises(ZeroDivisionError), prof:
        raise ZeroDivisionError
    step(x, w)
    assert prof.ops == {}
    assert threads.state.hooks == (None, None)


def test_blocks_nest_and_add_up(x, w):
    outer, inner = profile(), profile()
    with outer:
        step(x, w)
        with inner:
            step(x, w)
        step(x, w)
    assert outer.ops["linear"].calls == 2
    assert inner.ops["linear"].calls == 1
    with inner:
        step(x, w)
    assert inner.ops["linear"].calls == 2


def test_the_table(x, w):
    prof = profile()
    assert "between ops" in prof.table()
    with prof:
        step(x, w)
    lines = prof.table().splitlines()
    assert lines[0].split() == ["op", "calls", "forward", "calls", "backward", "ms", "share"]
    assert {line.split()[0] for line in lines[1:-2]} == {"linear", "gelu", "sum"}
    totals = [float(line.split()[-2]) for line in lines[1:-2]]
    assert totals == sorted(totals, reverse=True)
    assert lines[-2].startswith("between ops")
    assert lines[-1].startswith("total")
    assert abs(sum(float(line.split()[-2]) for line in lines[1:-1]) - float(lines[-1].split()[-1])) < 0.01
    assert [line.split()[:2] for line in prof.table(1).splitlines()[2:3]] == [["2", "more"]]
