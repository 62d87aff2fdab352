"""The grad mode: no_grad, enable_grad, set_grad_enabled and inference_mode."""

import threading

import pytest

import tensorlite as tl


def leaf(*values, dtype=None):
    return tl.tensor(list(values), dtype=dtype, requires_grad=True)


def test_no_grad_and_enable_grad_as_context_and_decorator():
    x = leaf(1.0)

    @tl.no_grad()
    def quiet():
        """Keep the name and the docstring."""
        return (x * 2).requires_grad

    @tl.enable_grad()
    def loud():
        return (x * 2).requires_grad

    assert not quiet()
    assert quiet.__name__ == "quiet"
    assert quiet.__doc__
    with tl.no_grad():
        assert not tl.is_grad_enabled()
        assert not (x * 2).requires_grad
        assert loud()
        with tl.enable_grad():
            assert (x * 2).requires_grad
        assert not tl.is_grad_enabled()
    assert tl.is_grad_enabled()


def test_a_no_grad_object_can_be_nested_and_used_again():
    mode = tl.no_grad()
    with mode, mode:
        assert not tl.is_grad_enabled()
    assert tl.is_grad_enabled()
    with mode:
        assert not tl.is_grad_enabled()
    assert tl.is_grad_enabled()


def test_set_grad_enabled_at_once_or_for_a_block():
    with tl.set_grad_enabled(False):
        assert not tl.is_grad_enabled()
        with tl.set_grad_enabled(True):
            assert tl.is_grad_enabled()
    assert tl.is_grad_enabled()
    tl.set_grad_enabled(False)
    assert not tl.is_grad_enabled()
    tl.set_grad_enabled(True)
    assert tl.is_grad_enabled()


def test_set_grad_enabled_as_a_decorator():
    @tl.set_grad_enabled(False)
    def quiet():
        return tl.is_grad_enabled()

    assert tl.is_grad_enabled()
    assert not quiet()
    assert tl.is_grad_enabled()


def test_a_generator_cannot_be_decorated():
    def numbers():
        yield 1

    with pytest.raises(TypeError, match=r"^numbers: .* Use a with block inside"):
        tl.no_grad()(numbers)


def test_the_mode_is_restored_after_an_exception():
    with pytest.raises(KeyError), tl.no_grad():
        raise KeyError
    assert tl.is_grad_enabled()


def test_each_thread_has_its_own_mode():
    seen = []
    with tl.no_grad():
        thread = threading.Thread(target=lambda: seen.append((tl.is_grad_enabled(), (leaf(1.0) * 2).requires_grad)))
        thread.start()
        thread.join()
    assert seen == [(True, True)]


def test_threads_differentiate_at_the_same_time():
    results = {}

    def work(k):
        x = tl.full((50,), float(k), dtype=tl.float64, requires_grad=True)
        for _ in range(30):
            x.grad = None
            (x * x).sum().backward()
        results[k] = x.grad.tolist()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {k: [2.0 * k] * 50 for k in range(4)}


def test_backward_under_no_grad_still_works():
    x = leaf(3.0)
    y = (x * x).sum()
    with tl.no_grad():
        y.backward()
        assert not tl.is_grad_enabled()
    assert x.grad.tolist() == [6.0]


@pytest.mark.parametrize("create_graph", [False, True])
def test_an_exception_in_a_rule_or_a_hook_restores_the_mode(create_graph):
    def boom(g):
        raise KeyError("boom")

    @tl.op(boom)
    def broken(xp, x):
        return x * 1

    x = leaf(1.0)
    y = x * 2
    y.register_hook(boom)
    for loss in (broken(x).sum(), y.sum()):
        for mode in (tl.enable_grad, tl.no_grad):
            with mode():
                before = tl.is_grad_enabled()
                with pytest.raises(KeyError, match=r"boom"):
                    loss.backward(create_graph=create_graph, retain_graph=True)
                assert tl.is_grad_enabled() is before
    assert x.grad is None


def test_inference_mode():
    x = tl.ones(2, requires_grad=True)
    with tl.inference_mode():
        assert tl.is_inference_mode_enabled()
        assert not tl.is_grad_enabled()
        y = x * 2
        with tl.enable_grad():
            assert (x * 2).requires_grad
        with tl.inference_mode(False):
            assert not tl.is_inference_mode_enabled()
            assert (x * 2).requires_grad
        assert tl.is_inference_mode_enabled()
    assert not tl.is_inference_mode_enabled()
    assert tl.is_grad_enabled()
    assert not y.requires_grad
    y.add_(1.0)
    (x * y).sum().backward()  # y is an ordinary tensor
    assert x.grad.tolist() == [3.0, 3.0]


def test_inference_mode_as_a_decorator_and_after_errors():
    def f(x):
        return tl.is_inference_mode_enabled(), (x * 2).requires_grad

    x = tl.ones(2, requires_grad=True)
    assert tl.inference_mode(f)(x) == tl.inference_mode()(f)(x) == (True, False)
    assert tl.inference_mode(False)(f)(x) == f(x) == (False, True)
    with pytest.raises(KeyError), tl.inference_mode():
        raise KeyError
    assert tl.is_grad_enabled()
    assert not tl.is_inference_mode_enabled()
