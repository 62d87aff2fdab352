"""Hooks on modules: what they see and change, in the same scenarios as in PyTorch."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn

torch = pytest.importorskip("torch")

LIBRARIES = pytest.mark.parametrize("library", [tl, torch], ids=["tensorlite", "torch"])


def plain(value):
    """Return tensors as arrays, inside tuples and dicts too."""
    if isinstance(value, (tl.Tensor, torch.Tensor)):
        return value.detach().numpy().copy()
    if isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return value


def assert_same(a, b):
    assert type(a) is type(b), (a, b)
    if isinstance(a, np.ndarray):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def linear(library):
    """Return the same small layer in either library."""
    layer = library.nn.Linear(3, 2).double()
    weight = np.arange(6.0).reshape(2, 3) / 10
    layer.load_state_dict({"weight": library.tensor(weight), "bias": library.tensor([0.5, -0.5])})
    return layer


def make_pair_module(library):
    """Return a module of two Tensors and an option that returns two Tensors."""

    class Pair(library.nn.Module):
        def forward(self, x, y, *, scale=1.0):
            return x * y * scale, x + 2 * y

    return Pair()


def inputs(library, requires_grad=True):
    x = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], dtype=np.float64)
    return library.tensor(x, requires_grad=requires_grad)


def compare(scenario):
    """Run the scenario, a function of the library, in both libraries, and compare what it returns."""
    assert_same(plain(scenario(tl)), plain(scenario(torch)))


# ---- forward hooks ------------------------------------------------------------------------------


def test_forward_hooks_see_arguments_and_output():
    def scenario(library):
        layer, seen, x = linear(library), [], inputs(library)
        layer.register_forward_pre_hook(lambda module, args: seen.append((module is layer, args)))
        layer.register_forward_hook(lambda module, args, output: seen.append((module is layer, args, output)))
        return layer(x), seen

    compare(scenario)


def test_forward_hooks_replace_arguments_and_output():
    def scenario(library):
        layer, x = linear(library), inputs(library)
        layer.register_forward_pre_hook(lambda module, args: args[0] * 2)
        layer.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        layer.register_forward_hook(lambda module, args, output: output * args[0].sum())
        out = layer(x)
        out.sum().backward()
        return out, x.grad, layer.weight.grad

    compare(scenario)


def test_hooks_with_kwargs():
    def scenario(library):
        pair, seen = make_pair_module(library), []
        x, y = inputs(library), inputs(library)

        def change(module, args, kwargs):
            seen.append((args, dict(kwargs)))
            return args[::-1], {"scale": kwargs["scale"] * 3}

        pair.register_forward_pre_hook(change, with_kwargs=True)
        pair.register_forward_pre_hook(lambda module, args, kwargs: None, with_kwargs=True)
        pair.register_forward_pre_hook(lambda module, args: seen.append(args))
        pair.register_forward_hook(lambda module, args, kwargs, out: seen.append((args, kwargs, out)), with_kwargs=True)
        return pair(x, y + 1, scale=2.0), seen

    compare(scenario)


def test_order_of_hooks():
    def scenario(library):
        layer, seen = linear(library), []

        def named(name):
            return lambda *args: seen.append(name)

        for kind in ("forward_pre", "forward", "full_backward_pre", "full_backward"):
            register = getattr(layer, f"register_{kind}_hook")
            register(named(f"{kind} 1"))
            register(named(f"{kind} 2"))
            register(named(f"{kind} 0"), prepend=True)
        layer(inputs(library)).sum().backward()
        return seen

    compare(scenario)


def test_hooks_of_nested_modules():
    def scenario(library):
        inner, seen = linear(library), []
        model = library.nn.Sequential(inner, library.nn.Tanh())
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda m, args, name=name: seen.append(("pre", name)))
            module.register_forward_hook(lambda m, args, out, name=name: seen.append(("post", name, out)))
        model(inputs(library))
        model.forward(inputs(library))  # runs the hooks of the layers, not its own
        return seen

    compare(scenario)


def test_a_removed_hook_is_not_called():
    def scenario(library):
        layer, seen, x = linear(library), [], inputs(library)
        first = layer.register_forward_hook(lambda *args: seen.append("first"))
        with layer.register_forward_pre_hook(lambda *args: seen.append("within")) as handle:
            layer(x)
        layer(x)
        first.remove()
        first.remove()
        handle.remove()
        layer(x)
        return seen

    compare(scenario)


def test_a_hook_may_remove_itself_and_add_others():
    def scenario(library):
        layer, seen = linear(library), []

        def once(module, args, output):
            seen.append("once")
            handle.remove()
            module.register_forward_hook(lambda *args: seen.append("added"))

        handle = layer.register_forward_hook(once)
        layer.register_forward_hook(lambda *args: seen.append("other"))
        for _ in range(2):
            layer(inputs(library))
        return seen

    compare(scenario)


def test_the_same_function_can_be_registered_twice():
    def scenario(library):
        layer, seen = linear(library), []
        hook = lambda *args: seen.append("called")
        first, second = layer.register_forward_hook(hook), layer.register_forward_hook(hook)
        layer(inputs(library))
        second.remove()
        layer(inputs(library))
        first.remove()
        layer(inputs(library))
        return seen

    compare(scenario)


@pytest.mark.filterwarnings("ignore:.*always_call=True")
def test_always_call():
    def scenario(library):
        class Failing(library.nn.Module):
            def forward(self, x):
                raise KeyError("forward")

        def fail(*args):
            raise ValueError("hook")

        found = []
        for options in ({}, {"always_call": True}, {"always_call": True, "with_kwargs": True}):
            for make in (Failing, lambda: linear(library)):
                module, seen = make(), []
                module.register_forward_hook(lambda *args, seen=seen: seen.append(args[1:]), **options)
                module.register_forward_hook(fail)
                module.register_forward_hook(fail, **options)
                module.register_forward_hook(lambda *args, seen=seen: seen.append("last"), **options)
                with pytest.raises((KeyError, ValueError)) as error:
                    module(inputs(library))
                found.append((type(error.value).__name__, seen))
        return found

    compare(scenario)


@LIBRARIES
def test_an_error_of_an_always_called_hook_is_a_warning(library):
    class Failing(library.nn.Module):
        def forward(self, x):
            raise KeyError("forward")

    def fail(*args):
        raise ValueError("in the hook")

    module = Failing()
    module.register_forward_hook(fail, always_call=True)
    with pytest.raises(KeyError), pytest.warns(UserWarning, match="in the hook"):
        module(1)


@LIBRARIES
def test_a_pre_hook_with_kwargs_must_return_a_pair(library):
    layer = linear(library)
    layer.register_forward_pre_hook(lambda module, args, kwargs: args, with_kwargs=True)
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        layer(inputs(library))


def test_a_hook_must_be_a_function():
    layer = nn.Linear(2, 2)
    for kind in ("forward_pre", "forward", "full_backward_pre", "full_backward"):
        with pytest.raises(TypeError, match=f"register_{kind}_hook: expected a function, got str"):
            getattr(layer, f"register_{kind}_hook")("hook")
    assert layer(tl.ones(1, 2)).shape == (1, 2)


def test_has_hooks():
    model = nn.Sequential(nn.ReLU())
    assert not model.has_hooks()
    handle = model.register_forward_hook(lambda *args: None)
    assert model.has_hooks()
    assert not model[0].has_hooks()
    handle.remove()
    assert not model.has_hooks()


# ---- copies -------------------------------------------------------------------------------------

CALLS = []


def note_call(module, args, output):
    CALLS.append(module)


class Noting:
    """Mixed into a module that registers one of its own methods, and keeps the handle."""

    def start(self):
        self.seen = []
        self.handle = self.register_forward_hook(self.note)
        return self

    def note(self, module, args, output):
        self.seen.append("note")


@LIBRARIES
def test_deepcopy_copies_hooks(library):
    class Layer(Noting, library.nn.Linear):
        pass

    layer = Layer(3, 2).double().start()
    twin = copy.deepcopy(layer)
    twin(inputs(library))
    assert (twin.seen, layer.seen) == (["note"], [])
    twin.handle.remove()
    twin(inputs(library))
    layer(inputs(library))
    assert (twin.seen, layer.seen) == (["note"], ["note"])


@LIBRARIES
def test_hooks_are_pickled_with_the_module(library):
    layer = linear(library)
    layer.handle = layer.register_forward_hook(note_call)
    twin = pickle.loads(pickle.dumps(layer))  # noqa: S301
    CALLS.clear()
    twin(inputs(library))
    assert CALLS == [twin]
    twin.handle.remove()
    twin(inputs(library))
    assert CALLS == [twin]


@LIBRARIES
def test_hooks_are_not_in_the_state_dict(library):
    layer = linear(library)
    before = list(layer.state_dict())
    layer.register_forward_hook(note_call)
    assert list(layer.state_dict()) == before
    fresh = linear(library)
    fresh.load_state_dict(layer.state_dict())
    CALLS.clear()
    fresh(inputs(library))
    assert CALLS == []


@LIBRARIES
def test_a_handle_does_not_keep_the_module(library):
    layer = linear(library)
    handle = layer.register_forward_hook(note_call)
    ref = weakref.ref(layer)
    del layer
    gc.collect()
    assert ref() is None
    handle.remove()


# ---- backward hooks -----------------------------------------------------------------------------


def test_a_backward_hook_sees_all_gradients():
    def scenario(library):
        pair, seen = make_pair_module(library), []
        x, y = inputs(library), inputs(library)
        pair.register_full_backward_hook(lambda module, gi, go: seen.append((module is pair, gi, go)))
        pair.register_full_backward_pre_hook(lambda module, go: seen.append((module is pair, go)))
        a, b = pair(x, y + 1, scale=2.0)
        ((a * a).sum() + b.sum()).backward()
        return seen, x.grad, y.grad

    compare(scenario)


@pytest.mark.parametrize("used", [0, 1])
def test_an_output_that_is_not_used_has_no_gradient(used):
    def scenario(library):
        pair, seen = make_pair_module(library), []
        x, y = inputs(library), inputs(library)
        pair.register_full_backward_hook(lambda module, gi, go: seen.append((gi, go)))
        pair(x, y)[used].sum().backward()
        return seen, x.grad, y.grad

    compare(scenario)


def test_values_without_gradients():
    def scenario(library):
        class Mixed(library.nn.Module):
            def forward(self, x, n, constant, y):
                return x * n + y * constant, constant * 2, "text"

        module, seen = Mixed(), []
        module.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
        out, _, text = module(inputs(library), 3, inputs(library, False), inputs(library))
        out.sum().backward()
        return seen, text

    compare(scenario)


def test_backward_hooks_replace_gradients():
    def scenario(library):
        layer, x = linear(library), inputs(library)
        layer.register_full_backward_pre_hook(lambda module, go: (go[0] * 2,))
        layer.register_full_backward_pre_hook(lambda module, go: [go[0] + 1])
        layer.register_full_backward_hook(lambda module, gi, go: (gi[0] * go[0].sum(),))
        layer.register_full_backward_hook(lambda module, gi, go: (gi[0] + 3,))
        layer(x * 1).sum().backward()
        return x.grad, layer.weight.grad, layer.bias.grad

    compare(scenario)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_without_inputs_that_require_gradients_the_outputs_call_the_hook():
    def scenario(library):
        layer, seen = linear(library), []
        layer.register_full_backward_hook(lambda module, gi, go: seen.append((gi, go)))
        layer(inputs(library, False)).sum().backward()
        return seen, layer.weight.grad

    compare(scenario)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_keyword_arguments_are_not_watched():
    def scenario(library):
        layer, seen, x = linear(library), [], inputs(library)
        layer.register_full_backward_pre_hook(lambda module, go: seen.append(go))
        layer(input=x).sum().backward()
        return seen, x.grad

    compare(scenario)


def test_nothing_is_watched_without_gradients():
    def scenario(library):
        layer, seen = linear(library), []
        layer.register_full_backward_hook(lambda *args: seen.append(args))
        with library.no_grad():
            out = layer(inputs(library))
        return out, out.requires_grad, seen

    compare(scenario)


def test_backward_twice_through_the_same_call():
    def scenario(library):
        pair, seen = make_pair_module(library), []
        x, y = inputs(library), inputs(library)
        pair.register_full_backward_hook(lambda module, gi, go: seen.append((gi, go)))
        a, b = pair(x, y)
        a.sum().backward(retain_graph=True)
        (b * b).sum().backward(retain_graph=True)
        (a + b).sum().backward()
        return seen, x.grad, y.grad

    compare(scenario)


def test_an_input_that_is_not_used_has_a_gradient_of_zeros():
    def scenario(library):
        class First(library.nn.Module):
            def forward(self, x, y):
                return x * 2

        module, seen = First(), []
        x, y = inputs(library), inputs(library)
        module.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
        module(x, y).sum().backward()
        return seen, x.grad

    compare(scenario)


def test_a_module_called_twice():
    def scenario(library):
        layer, seen = library.nn.Tanh(), []
        layer.register_full_backward_hook(lambda module, gi, go: seen.append((gi, go)))
        x = inputs(library)
        layer(layer(x) * 2).sum().backward()
        return seen, x.grad

    compare(scenario)


def test_second_derivatives_through_backward_hooks():
    def scenario(library):
        layer, seen, x = library.nn.Tanh(), [], inputs(library)
        layer.register_full_backward_hook(lambda module, gi, go: (gi[0] * 3,))
        layer.register_full_backward_hook(lambda module, gi, go: seen.append((gi, go)))
        (g,) = library.autograd.grad(layer(x).sum(), [x], create_graph=True)
        (h,) = library.autograd.grad((g * g).sum(), [x])
        return g, h, seen

    compare(scenario)


def test_gradients_of_the_weights_alone():
    def scenario(library):
        layer, seen = linear(library), []
        layer.register_full_backward_pre_hook(lambda module, go: seen.append(go))
        layer.register_full_backward_hook(lambda module, gi, go: seen.append("not reached"))
        return library.autograd.grad(layer(inputs(library)).sum(), [layer.weight]), seen

    compare(scenario)


def test_a_named_tuple_stays_one():
    def scenario(library):
        from collections import namedtuple

        Result = namedtuple("Result", ["a", "b"])

        class Named(library.nn.Module):
            def forward(self, x):
                return Result(x * 2, x + 1)

        module, seen = Named(), []
        module.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
        out = module(inputs(library))
        out.a.sum().backward()
        return type(out).__name__, seen

    compare(scenario)


@LIBRARIES
def test_other_outputs_are_a_warning(library):
    class Listing(library.nn.Module):
        def forward(self, x):
            return [x * 2]

    module = Listing()
    module.register_full_backward_hook(lambda *args: None)
    with pytest.warns(UserWarning, match="tuple of Tensors"):
        module(inputs(library))


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@LIBRARIES
def test_backward_hooks_that_return_the_wrong_number(library):
    for kind, x in [("full_backward", True), ("full_backward_pre", True), ("full_backward", False)]:
        layer = linear(library)
        getattr(layer, f"register_{kind}_hook")(lambda m, g, *_: (library.ones(2, 2),) * 2)
        with pytest.raises(RuntimeError):
            layer(inputs(library, x)).sum().backward()


def test_a_gradient_of_the_wrong_shape_is_an_error():
    layer = linear(tl)
    layer.register_full_backward_hook(lambda module, gi, go: (tl.ones(5).double(),))
    with pytest.raises(tl.ShapeError, match=r"hook: .* float64\(2, 3\), got float64\(5,\)"):
        layer(inputs(tl)).sum().backward()


def test_a_change_in_place_inside_a_watched_module():
    x = inputs(tl)
    module = nn.Sequential(nn.ReLU(inplace=True))
    seen = []
    module.register_full_backward_hook(lambda m, gi, go: seen.append((plain(gi), plain(go))))
    y = x * 2
    out = module(y)
    (out * out).sum().backward()
    np.testing.assert_array_equal(y.detach().numpy(), np.maximum(2 * x.detach().numpy(), 0))
    np.testing.assert_array_equal(x.grad.numpy(), 8 * np.maximum(x.detach().numpy(), 0))
    assert len(seen) == 1


def test_the_graph_of_a_watched_call_is_freed_at_once():
    layer = linear(tl)
    layer.register_full_backward_hook(lambda *args: None)
    gc.collect()
    gc.disable()
    try:
        x = inputs(tl) * 1
        ref = weakref.ref(x)
        layer(x).sum().backward()
        del x
        assert ref() is None
    finally:
        gc.enable()
