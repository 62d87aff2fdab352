"""Convolution and pooling."""

import itertools

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn, testing
from tensorlite.nn import functional as F
from tensorlite.ops import correlation

# Arguments as shapes and options, for one and two dimensions.
CONV = {
    "conv1d": [
        ([(2, 3, 9), (4, 3, 3), (4,)], {}),
        ([(3, 9), (4, 3, 2), None], {"stride": 2, "padding": 1}),
        ([(2, 4, 9), (6, 2, 3), (6,)], {"groups": 2, "dilation": 2, "padding": "same"}),
        ([(0, 3, 9), (4, 3, 3), (4,)], {"padding": "valid"}),
    ],
    "conv2d": [
        ([(2, 3, 7, 6), (4, 3, 3, 2), (4,)], {}),
        ([(2, 4, 7, 6), (4, 1, 3, 3), None], {"groups": 4, "stride": (2, 1), "padding": (1, 0)}),
        ([(2, 3, 7, 9), (2, 3, 3, 4), (2,)], {"padding": "same", "dilation": (1, 2)}),
        ([(3, 5, 5), (1, 3, 5, 5), (1,)], {"stride": 3}),
    ],
    "conv_transpose1d": [
        ([(2, 3, 5), (3, 4, 3), (4,)], {}),
        ([(2, 4, 5), (4, 2, 3), (4,)], {"stride": 3, "padding": 2, "output_padding": 2, "groups": 2}),
        ([(3, 5), (3, 2, 2), None], {"dilation": 3, "output_padding": 2}),
    ],
    "conv_transpose2d": [
        ([(2, 3, 4, 5), (3, 2, 3, 2), (2,)], {"stride": (2, 1), "padding": (1, 0), "output_padding": (1, 0)}),
        ([(2, 4, 3, 3), (4, 1, 2, 2), None], {"groups": 4, "stride": 2, "dilation": 2}),
    ],
}
POOL = {
    "max_pool1d": [
        ([(2, 3, 9)], {"kernel_size": 3}),
        ([(3, 9)], {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 2}),
        ([(2, 1, 8)], {"kernel_size": 3, "stride": 2, "ceil_mode": True, "padding": 1}),
    ],
    "max_pool2d": [
        ([(2, 3, 6, 7)], {"kernel_size": 2}),
        ([(2, 3, 6, 7)], {"kernel_size": (3, 2), "stride": (1, 2), "padding": 1, "ceil_mode": True}),
    ],
    "avg_pool1d": [
        ([(2, 3, 9)], {"kernel_size": 3, "stride": 2, "padding": 1}),
        ([(3, 8)], {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}),
    ],
    "avg_pool2d": [
        ([(2, 3, 6, 7)], {"kernel_size": 2}),
        ([(2, 3, 6, 7)], {"kernel_size": (3, 2), "stride": 2, "padding": 1, "ceil_mode": True}),
        ([(2, 3, 6, 7)], {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
        ([(2, 3, 6, 7)], {"kernel_size": 3, "divisor_override": 2}),
    ],
    "adaptive_avg_pool1d": [([(2, 3, 7)], {"output_size": 3}), ([(3, 3)], {"output_size": 5})],
    "adaptive_avg_pool2d": [([(2, 3, 7, 5)], {"output_size": (3, None)}), ([(3, 4, 5)], {"output_size": 1})],
    "adaptive_max_pool1d": [([(2, 3, 7)], {"output_size": 3})],
    "adaptive_max_pool2d": [([(2, 3, 7, 5)], {"output_size": (3, 2)})],
}
CASES = [
    pytest.param(name, shapes, options, id=f"{name} {i}")
    for name, cases in (CONV | POOL).items()
    for i, (shapes, options) in enumerate(cases)
]
LAYERS = {
    "Conv1d": ([(2, 4, 9)], (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}),
    "Conv1d circular": ([(2, 4, 9)], (4, 6, 3), {"padding": 2, "padding_mode": "circular"}),
    "Conv2d": ([(2, 3, 7, 6)], (3, 4, (3, 5)), {"padding": "same"}),
    "Conv2d reflect": ([(2, 3, 7, 6)], (3, 4, 3), {"padding": (2, 1), "padding_mode": "reflect", "bias": False}),
    "Conv2d replicate": ([(2, 3, 7, 6)], (3, 4, 3), {"padding": "same", "padding_mode": "replicate"}),
    "ConvTranspose1d": ([(2, 4, 5)], (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    "ConvTranspose2d": ([(2, 4, 5, 4)], (4, 6, 3), {"stride": 2, "dilation": 2}),
    "MaxPool1d": ([(2, 4, 9)], (3,), {"stride": 2, "ceil_mode": True}),
    "MaxPool2d": ([(2, 4, 9, 8)], (2, 1, 1), {}),
    "AvgPool1d": ([(2, 4, 9)], (3,), {"padding": 1}),
    "AvgPool2d": ([(2, 4, 9, 8)], (2, 1, 1, True, False, 3), {}),
    "AdaptiveAvgPool1d": ([(2, 4, 9)], (4,), {}),
    "AdaptiveAvgPool2d": ([(2, 4, 9, 8)], ((4, 3),), {}),
    "AdaptiveMaxPool1d": ([(2, 4, 9)], (4,), {}),
    "AdaptiveMaxPool2d": ([(2, 4, 9, 8)], ((4, 3),), {}),
}


def arrays(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [None if shape is None else rng.standard_normal(shape) for shape in shapes]


def results(library, functions, name, inputs, options, weight):
    """Return the results, and the gradients of the first and second order."""
    xs = [None if x is None else library.tensor(x, requires_grad=True) for x in inputs]
    given = [x for x in xs if x is not None]
    y = getattr(functions, name)(*xs, **options)
    first = y[0] if isinstance(y, tuple) else y
    loss = (first**2 * library.tensor(weight[: first.numel()]).reshape(first.shape)).sum()
    gradients = library.autograd.grad(loss, given, create_graph=True)
    second = library.autograd.grad(sum((g**2).sum() for g in gradients), given)
    outs = y if isinstance(y, tuple) else (y,)
    return [t.detach().numpy() for t in (*outs, *gradients, *second)]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize(("name", "shapes", "options"), CASES)
def test_values_and_gradients_are_pytorchs(name, shapes, options):
    torch = pytest.importorskip("torch")
    torch_functions = pytest.importorskip("torch.nn.functional")
    inputs, weight = arrays(shapes), np.random.default_rng(1).standard_normal(1000)
    if name.startswith(("max", "adaptive_max")):
        options = {**options, "return_indices": True}
    mine = results(tl, F, name, inputs, options, weight)
    theirs = results(torch, torch_functions, name, inputs, options, weight)
    for a, b in zip(mine, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv_transpose2d"])
def test_gradients_by_finite_differences(name):
    (shapes, options) = CONV[name][1]
    testing.check_grad(lambda *xs: getattr(F, name)(*xs, **options), *(x for x in arrays(shapes) if x is not None))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    shapes, args, options = LAYERS[name]
    cls = name.split()[0]
    theirs, mine = (getattr(library.nn, cls)(*args, **options).double() for library in (torch, tl))
    mine.load_state_dict({key: tl.tensor(value.numpy()) for key, value in theirs.state_dict().items()})
    (x,) = arrays(shapes)
    np.testing.assert_allclose(
        mine(tl.tensor(x)).detach().numpy(), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-9, atol=1e-12
    )
    assert cls in repr(mine)


def test_initial_weights_have_pytorchs_bounds():
    layer = nn.Conv2d(4, 500, 3)
    bound = 1 / 6  # 1 / sqrt(4 * 3 * 3)
    for parameter in layer.parameters():
        assert 0.9 * bound < parameter.abs().max().item() <= bound


@pytest.mark.parametrize("dtype", [tl.float16, tl.float32])
def test_other_dtypes(dtype):
    x, w = (tl.tensor(a).to(dtype) for a in arrays([(2, 40, 9, 9), (5, 40, 3, 3)]))
    y = F.conv2d(x, w)
    assert y.dtype == dtype
    exact = F.conv2d(x.double(), w.double())
    error = (y.double() - exact).abs().max() / exact.abs().max()
    assert error.item() < (1e-3 if dtype == tl.float16 else 1e-6)


def test_large_windows_are_processed_in_blocks(monkeypatch):
    """The blocks split the examples, then the positions, and the result is the same."""
    x, w = (tl.tensor(a, requires_grad=True) for a in arrays([(5, 3, 12, 7), (4, 3, 3, 2)]))

    def run():
        y = F.conv2d(x, w, stride=(2, 1))
        return [y, *tl.autograd.grad((y * y).sum(), [x, w])]

    whole = run()
    for size in (1, 300, 2000):
        monkeypatch.setattr(correlation, "_BLOCK", size)
        for a, b in zip(run(), whole, strict=True):
            np.testing.assert_allclose(a.detach().array, b.detach().array, rtol=1e-12)


@pytest.mark.parametrize("nan", [False, True])
def test_equal_and_missing_numbers_in_max_pool(nan):
    torch = pytest.importorskip("torch")
    torch_functions = pytest.importorskip("torch.nn.functional")
    x = np.zeros((1, 1, 6, 6))
    x[0, 0, 1, 1] = x[0, 0, 3, 4] = np.nan if nan else 1.0
    x[0, 0, 5] = -np.inf
    for options in ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}):
        mine = F.max_pool2d(tl.tensor(x), **options, return_indices=True)
        theirs = torch_functions.max_pool2d(torch.tensor(x), **options, return_indices=True)
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_convolution_is_the_sum_of_its_definition():
    """This needs no PyTorch."""
    x, w = arrays([(2, 2, 5, 4), (3, 2, 2, 2)])
    y = F.conv2d(tl.tensor(x), tl.tensor(w), padding=1).numpy()
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for n, o, i, j in itertools.product(range(2), range(3), range(6), range(5)):
        np.testing.assert_allclose(y[n, o, i, j], (padded[n, :, i : i + 2, j : j + 2] * w[o]).sum(), rtol=1e-12)


X2, W2 = tl.ones(2, 4, 5, 5), tl.ones(6, 4, 3, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.conv2d(tl.ones(5), W2), tl.ShapeError, r"conv2d\(float32\(5,\)\): expected an input with 4 dim"),
        (lambda: F.conv2d(X2, tl.ones(6, 4, 3)), tl.ShapeError, "expected a weight with 4 dimensions"),
        (lambda: F.conv2d(X2, tl.ones(6, 3, 3, 3)), tl.ShapeError, r"expected an input \(N, C, ...\), a weight"),
        (lambda: F.conv2d(X2, W2, tl.ones(5)), tl.ShapeError, r"and a bias \(O,\)"),
        (lambda: F.conv2d(X2, W2, groups=0), ValueError, "expected groups of 1 or more, got 0"),
        (lambda: F.conv2d(X2, W2, stride=0), ValueError, "expected stride to be 2 integers of at least 1, or one"),
        (lambda: F.conv2d(X2, W2, padding=(1, 1, 1)), ValueError, "expected padding to be 2 integers"),
        (lambda: F.conv2d(X2, W2, padding="full"), ValueError, "'valid', 'same' or integers, got 'full'"),
        (lambda: F.conv2d(X2, W2, 2, padding="same"), TypeError, "bias"),
        (lambda: F.conv2d(X2, W2, stride=2, padding="same"), ValueError, "expected a stride of 1 with padding='same'"),
        (lambda: F.conv2d(X2, tl.ones(6, 4, 6, 3)), tl.ShapeError, "not larger than the padded input"),
        (lambda: F.conv2d(X2, W2.double()), tl.DTypeError, "floating point tensors of one dtype"),
        (lambda: F.conv_transpose2d(X2, tl.ones(4, 2, 3, 3), output_padding=1), ValueError, "output_padding below"),
        (lambda: F.conv_transpose2d(X2, tl.ones(3, 2, 3, 3)), tl.ShapeError, r"a weight \(C, O / groups"),
        (lambda: F.max_pool2d(X2, 6), tl.ShapeError, "the kernel .* is larger than the padded input"),
        (lambda: F.max_pool2d(X2, 2, padding=2), ValueError, "a padding of at most half the kernel"),
        (lambda: F.avg_pool2d(X2.int(), 2), tl.DTypeError, "floating point"),
        (lambda: F.avg_pool2d(X2, 2, divisor_override=0), ValueError, "divisor_override other than 0"),
        (lambda: F.adaptive_avg_pool2d(X2, (1, 2, 3)), ValueError, "expected output_size to be 2 integers"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "expected groups that divide in_channels and out_channels"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), ValueError, "expected padding_mode among zeros, reflect"),
        (lambda: nn.Conv2d(3, 4, 0), ValueError, "Conv2d: expected kernel_size"),
    ],
)
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_output_size_of_a_transposed_convolution():
    layer, x = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1), tl.ones(1, 2, 4, 5)
    for size in [(7, 9), (8, 9), (7, 10), (8, 10)]:
        y = layer(x, output_size=size)
        assert y.shape[2:] == size
        expected = F.conv_transpose2d(x, layer.weight, layer.bias, 2, 1, (size[0] - 7, size[1] - 9))
        assert tl.equal(y, expected)
    assert layer(x, [1, 3, 8, 10]).shape == (1, 3, 8, 10)
    with pytest.raises(tl.ShapeError, match=r"expected output_size from \(7, 9\) to \(8, 10\), got \(9, 9\)"):
        layer(x, output_size=[9, 9])
