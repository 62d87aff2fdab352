"""Backward hooks on modules: what they see and change, in the same scenarios as in PyTorch."""

import gc
import weakref

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn
from tests.nn.hook_scenarios import LIBRARIES, compare, inputs, linear, make_pair_module, plain


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
def test_backward_hooks_ignore_keyword_arguments():
    def scenario(library):
        layer, seen, x = linear(library), [], inputs(library)
        layer.register_full_backward_pre_hook(lambda module, go: seen.append(go))
        layer(input=x).sum().backward()
        return seen, x.grad

    compare(scenario)


def test_backward_hooks_change_nothing_without_gradients():
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
def test_a_list_as_output_is_a_warning(library):
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


def test_a_change_in_place_inside_a_module_with_backward_hooks():
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


def test_backward_hooks_leave_no_reference_cycle():
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
