"""Direct convolutions against products of matrices, and against sums in float64."""

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.backends import registry
from tensorlite.backends.cpu import compiled_loops, convolutions, thread_pool
from tensorlite.nn import functional as F
from tests.support.array_layouts import LAYOUTS

pytest.importorskip("numba")

XP = registry.namespace(registry.device("cpu"))
DIRECT = convolutions.__all__

# (N, G, C, O), sizes, kernel, stride, dilation, padding
CASES = {
    "depthwise": ((3, 8, 1, 1), (11, 18), (3, 3), (1, 1), (1, 1), (1, 1)),
    "groups": ((2, 2, 3, 5), (9, 20), (3, 2), (1, 1), (2, 1), (2, 0)),
    "stride 2": ((2, 3, 1, 1), (12, 37), (3, 3), (2, 2), (1, 1), (1, 1)),
    "stride 2, odd padding": ((2, 1, 3, 9), (13, 35), (4, 5), (2, 2), (1, 1), (1, 2)),
    "stride 3": ((2, 1, 2, 4), (10, 17), (2, 3), (3, 2), (1, 2), (1, 4)),
    "stride over the kernel": ((1, 4, 2, 3), (9, 13), (1, 2), (2, 3), (1, 1), (0, 0)),
    "padding over the kernel": ((1, 2, 1, 1), (6, 9), (2, 1), (1, 1), (1, 1), (4, 3)),
    "a sequence": ((2, 4, 1, 2), (70,), (5,), (1,), (3,), (6,)),
    "one pixel": ((5, 6, 7, 2), (1, 1), (1, 1), (1, 1), (1, 1), (0, 0)),
}


@pytest.fixture
def direct(monkeypatch):
    """Use the loops for small arrays; return a function that counts their results since the last call."""
    monkeypatch.setattr(compiled_loops, "MIN_SHARED", 1)
    monkeypatch.setattr(convolutions, "MIN_COMPILED", 1)
    found = []
    for name in DIRECT:
        kernel = getattr(XP, name)
        monkeypatch.setattr(XP, name, lambda *args, kernel=kernel: found.append(kernel(*args)) or found[-1])

    def count():
        results = sum(a is not None for a in found)
        found.clear()
        return results

    return count


def run(x, w, b, groups, stride, dilation, padding):
    x, w, b = (tl.tensor(a, requires_grad=True) for a in (x, w, b))
    convolve = F.conv2d if x.ndim == 4 else F.conv1d
    y = convolve(x, w, b, stride, padding, dilation, groups)
    g = np.random.default_rng(1).standard_normal(y.shape)
    return [y, *tl.autograd.grad(y, [x, w, b], tl.tensor(g.astype(x.dtype)))]


def example(case):
    (n, groups, channels, outs), sizes, kernel, *options = CASES[case]
    shapes = (n, groups * channels, *sizes), (groups * outs, channels, *kernel), (groups * outs,)
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in shapes], [groups, *options]


def assert_close(found, exact):
    for a, b in zip(found, exact, strict=True):
        size = max(1.0, float(abs(b.detach()).max().item()))
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=0, atol=3e-6 * size)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [1 << 16, 80], ids=["whole", "bands"])
@pytest.mark.parametrize("case", CASES)
def test_loops_give_the_sums_of_float64(case, rows, threads, direct, monkeypatch):
    monkeypatch.setattr(thread_pool, "_num_threads", threads)
    monkeypatch.setattr(convolutions, "_IMAGES", rows)
    for plan in (convolutions._forward_plan, convolutions._input_plan):
        plan.cache_clear()
    data, options = example(case)
    exact = run(*data, *options)
    direct()
    found = run(*[a.astype(np.float32) for a in data], *options)
    assert direct() == 3
    assert_close(found, exact)
    for plan in (convolutions._forward_plan, convolutions._input_plan):
        plan.cache_clear()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_is_convolved(layout, direct):
    data, options = example("depthwise")
    data = [LAYOUTS[layout](a.astype(np.float32)) for a in data]
    found = run(*data, *options)
    assert direct() == 3
    assert_close(found, run(*[a.astype(np.float64) for a in data], *options))


@pytest.mark.parametrize("transposed", [False, True])
def test_second_derivatives(transposed, direct):
    """A gradient of the gradient convolves as well."""
    x, w = (tl.tensor(np.random.default_rng(0).standard_normal(shape)) for shape in [(2, 4, 9, 7), (4, 2, 3, 3)])
    convolve = F.conv_transpose2d if transposed else F.conv2d

    def gradients(x, w):
        x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
        y = convolve(x, w, stride=2, padding=1, groups=2)
        dx, dw = tl.autograd.grad((y * y * y).sum(), [x, w], create_graph=True)
        return tl.autograd.grad((dx * dx).sum() + (dw * dw).sum(), [x, w])

    exact = gradients(x, w)
    direct()
    found = gradients(x.float(), w.float())
    assert direct() > 6
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4 * float(abs(b).max().item()))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["x", "w"])
def test_an_infinite_number_changes_only_what_it_meets(place, value, direct):
    """Positions beyond the end of a row are computed, and must not reach the result."""
    data, options = example("depthwise")
    x, w, b = (a.astype(np.float32) for a in data)
    if place == "x":
        x[1, 2, 0, 17] = value
    else:
        w[2, 0, 0, 2] = value
    found = run(x, w, b, *options)
    for name in DIRECT:
        setattr(XP, name, lambda *args: None)  # the fixture restores them
    expected = run(x, w, b, *options)
    for a, c in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.isfinite(a.detach().numpy()), np.isfinite(c.detach().numpy()))


def test_bits_do_not_depend_on_the_number_of_threads(direct, monkeypatch):
    data, options = example("groups")
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(thread_pool, "_num_threads", threads)
        results.append(run(*[a.astype(np.float32) for a in data], *options)[:3])
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def test_an_output_padding_beyond_the_stride():
    """A window more would fit into the result, and has no input."""
    torch = pytest.importorskip("torch")
    x, w = (np.random.default_rng(0).standard_normal(shape) for shape in [(1, 2, 4, 5), (2, 3, 2, 2)])
    options = {"stride": 1, "dilation": 3, "padding": 1, "output_padding": 2}
    found, expected = [], []
    for library, out in ((tl, found), (torch, expected)):
        leaves = [library.tensor(a, requires_grad=True) for a in (x, w)]
        y = library.nn.functional.conv_transpose2d(*leaves, **options)
        out += [y, *library.autograd.grad((y * y).sum(), leaves)]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-12)
