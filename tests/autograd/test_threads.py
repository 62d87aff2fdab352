"""Several threads that change one tensor, one graph or one context manager at the same time."""
import sys
import threading
import time

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite.autograd import gradients
from tensorlite.autograd.graph import wrap

LARGE = 300_000  # entries: NumPy releases the interpreter's lock while it adds them


@pytest.fixture(autouse=True)
def frequent_switches():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(f, count=4):
    """Call ``f(k)`` in threads that start together. Raise the first error."""
    barrier, errors = threading.Barrier(count), []

    def work(k):
        try:
            barrier.wait()
            f(k)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_of_one_parameter_add_up(create_graph):
    w, rounds = tl.ones(LARGE, requires_grad=True), 15

    def work(k):
        for _ in range(rounds):
            (w * 2.0).backward(tl.ones(LARGE), create_graph=create_graph)

    in_threads(work)
    assert w.grad.min().item() == w.grad.max().item() == 4 * rounds * 2.0
    w.grad = None


def test_the_first_gradients_are_not_lost():
    for _ in range(20):
        w = tl.ones(LARGE, requires_grad=True)
        losses = [(w * float(k + 1)).sum() for k in range(4)]
        in_threads(lambda k, losses=losses: losses[k].backward())
        assert w.grad[0].item() == 10.0


def test_a_first_gradient_is_not_lost_if_threads_switch_inside(monkeypatch):
    def slow_wrap(array):
        time.sleep(0.02)
        return wrap(array)

    monkeypatch.setattr(gradients, "wrap", slow_wrap)
    w = tl.ones(1, requires_grad=True)
    losses = [(w * float(k + 1)).sum() for k in range(2)]
    in_threads(lambda k: losses[k].backward(), count=2)
    assert w.grad.item() == 3.0


def test_backward_next_to_a_thread_that_clears_the_gradient():
    w = tl.ones(100, requires_grad=True)

    def work(k):
        for _ in range(100):
            if k == 0:
                w.grad = None
            else:
                (w * 1.0).sum().backward()

    in_threads(work)
    w.grad = None
    (w * 3.0).sum().backward()
    assert w.grad[0].item() == 3.0


def test_every_hook_is_registered_and_removed():
    for _ in range(30):
        w, calls = tl.ones(1, requires_grad=True), []
        handles = [None] * 4

        def work(k, w=w, calls=calls, handles=handles):
            handles[k] = w.register_hook(lambda g: calls.append(k))

        in_threads(work)
        (w * 1.0).sum().backward()
        assert sorted(calls) == [0, 1, 2, 3]
        in_threads(lambda k, handles=handles: handles[k].remove())
        (w * 1.0).sum().backward()
        assert len(calls) == 4


def test_versions_count_every_change():
    x = tl.zeros(3)
    in_threads(lambda k: [x.add_(1.0) for _ in range(100)])
    assert x._version == 400


def test_one_graph_may_be_used_by_several_threads():
    x = tl.ones(100, requires_grad=True)
    loss = tl.checkpoint(lambda x: (x * 2.0).exp().sum(), x)
    in_threads(lambda k: loss.backward(retain_graph=True))
    np.testing.assert_allclose(x.grad.numpy(), np.full(100, 4 * 2 * np.exp(2.0)), rtol=1e-5)


def test_a_replay_of_random_numbers_is_not_seen_by_other_threads():
    def draws(replay):
        tl.manual_seed(0)
        x = tl.ones(50, requires_grad=True)
        inside, go_on, calls = threading.Event(), threading.Event(), []

        def f(x):
            calls.append(x)
            if len(calls) == 2:
                inside.set()
                go_on.wait(10)
            return F.dropout(x, 0.5).square()

        loss = tl.checkpoint(f, x).sum()
        if not replay:
            return tl.rand(3).tolist()
        thread = threading.Thread(target=loss.backward)
        thread.start()
        inside.wait(10)
        found = tl.rand(3).tolist()
        go_on.set()
        thread.join()
        return found

    assert draws(True) == draws(False)


def test_one_context_manager_in_several_threads():
    shared = tl.no_grad()

    def work(k):
        for _ in range(200):
            with shared:
                with shared:
                    pass
                assert not tl.is_grad_enabled()
            assert tl.is_grad_enabled()

    in_threads(work)


def test_anomaly_blocks_in_several_threads():
    def work(k):
        for _ in range(300):
            with tl.detect_anomaly():
                pass

    in_threads(work)
    assert tl.autograd.anomaly_mode.enabled == 0
