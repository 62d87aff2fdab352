"""Forward hooks on modules: what they see and change, and copies of them, in the same scenarios as in PyTorch."""

import copy
import gc
import pickle
import weakref

import pytest

import tensorlite as tl
from tensorlite import nn
from tests.nn.hook_scenarios import LIBRARIES, compare, inputs, linear, make_pair_module

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
