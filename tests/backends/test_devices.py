"""Ops and layers give on every device what they give on the CPU, and wait for the device only where documented.

tests/conftest.py says which devices.
"""

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn
from tensorlite.testing import strict
from tests.ops.op_table import SPECS
from tests.support.devices import LIMITS, computed, difference, evaluated, numpy, on

SAMPLES = [
    pytest.param(row, sample, arrays, dtype, id=f"{row.name}-{k}-{dtype.name}")
    for row in SPECS.values() for k, (sample, arrays) in enumerate(zip(row.samples, row.arrays, strict=True))
    for dtype in LIMITS if dtype != tl.float16 or (row.half and row.order)
]  # fmt: skip

SYNCS = {
    "repeat_interleave": {"to_numpy"}, "masked_select": {"mask"}, "index_put": {"mask"}, "getitem": {"mask", "int"},
    "bincount": {"nonzero", "int"}, "histc": {"nonzero", "mask", "float"}, "unique": {"nonzero"},
    "nonzero": {"nonzero", "int"}, "one_hot": {"int"}, "F.one_hot": {"int"},
    "scatter": {"mask", "nonzero"},  # of reduce="multiply": which entries are selected twice
    "matrix_exp": {"int"}, "linalg.matrix_exp": {"int"},  # the number of squarings
}  # fmt: skip
"""The ops that read values on the host: a size or an index that only the device knows. docs/gpu.md lists them."""


# ---- ops ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "sample", "arrays", "dtype"), SAMPLES)
def test_an_op_agrees_with_the_cpu(row, sample, arrays, dtype, other_device):
    """Values and gradients (second ones in float64). It waits for the device only if SYNCS lists it."""
    with strict.count_syncs() as log:
        found = computed(row, sample, arrays, dtype, other_device)
    assert set(log.kinds) <= SYNCS.get(row.name, set()), str(log)
    expected = evaluated(row, sample, arrays, dtype, tl.device("cpu"))
    assert difference([numpy(t) for t in found], expected) <= LIMITS[dtype]


@pytest.mark.parametrize("name", SYNCS)
def test_every_op_in_the_list_of_syncs_waits(name):
    with strict.count_syncs() as log:
        for sample, arrays in zip(SPECS[name].samples, SPECS[name].arrays, strict=True):
            computed(SPECS[name], sample, arrays, tl.float64, tl.device("strict"))
    assert set(log.kinds) == SYNCS[name]


def test_tensors_with_one_gradient_get_a_copy_each(other_device):
    x, y, g = (on(300, 300, device=other_device) for _ in range(3))
    x.requires_grad_()
    y.requires_grad_()
    (x + y).backward(g)
    expected = numpy(g)
    x.grad.mul_(2)
    assert np.array_equal(numpy(x.grad), 2 * expected)
    assert np.array_equal(numpy(y.grad), expected)
    assert np.array_equal(numpy(g), expected)


def test_changing_a_view_does_not_wait(other_device):
    def change(device):
        x = on(3, 4, device=device, requires_grad=True)
        y = tl.zeros(3, 4, dtype=tl.float64, device=device)
        for k in range(3):
            y[k] += x[k] * x[0]
        y.T[1:].mul_(y.T[:-1].exp())
        y.view(-1)[::2].add_(1)
        (y * y).sum().backward()
        return y.detach(), x.grad

    with strict.forbid_syncs():
        found = change(other_device)
    assert difference([numpy(t) for t in found], [numpy(t) for t in change("cpu")]) <= LIMITS[tl.float64]


@pytest.mark.parametrize("name", "linear mse_loss cross_entropy embedding binary_cross_entropy_with_logits".split())
def test_tensors_on_two_devices_are_an_error_that_names_the_function(name):
    with pytest.raises(tl.DeviceError, match=rf"^{name}\(.*\): tensors on different devices"):
        getattr(F, name)(tl.ones(2, 3), tl.ones(2, 3, device="strict"))


# ---- layers ---------------------------------------------------------------------------------

IDS = np.array([[1, 0, 3, 3], [2, 2, 1, 0]])

LAYERS = {
    "Linear": (lambda: nn.Linear(5, 3), lambda d: [on(2, 4, 5, device=d)]),
    "Linear of a row": (lambda: nn.Linear(5, 3, bias=False), lambda d: [on(5, device=d)]),
    "Flatten": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(20, 2)), lambda d: [on(2, 4, 5, device=d)]),
    "Embedding": (lambda: nn.Embedding(4, 3, padding_idx=1), lambda d: [tl.tensor(IDS, device=d)]),
    "LayerNorm": (lambda: nn.LayerNorm(5), lambda d: [on(2, 4, 5, device=d)]),
    "LayerNorm of two dims": (lambda: nn.LayerNorm((4, 5), bias=False), lambda d: [on(2, 4, 5, device=d)]),
    "RMSNorm": (lambda: nn.RMSNorm(5), lambda d: [on(2, 4, 5, device=d)]),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), lambda d: [on(2, 4, 5, device=d)]),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4), lambda d: [on(2, 4, 5, 3, device=d)]),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), lambda d: [on(2, 4, 5, device=d)]),
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3, 2, 1, groups=2), lambda d: [on(2, 4, 7, device=d)]),
    "Conv2d": (lambda: nn.Conv2d(3, 2, 3, padding="same"), lambda d: [on(2, 3, 5, 4, device=d)]),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 3, 2, 2), lambda d: [on(2, 4, 5, device=d)]),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(2, 3, 2, 2, 1), lambda d: [on(2, 2, 3, 4, device=d)]),
    **{f"{kind}Pool{dims}d": (lambda kind=kind, dims=dims: getattr(nn, f"{kind}Pool{dims}d")(2),
                              lambda d, dims=dims: [on(2, 3, *(4, 5)[:dims], device=d)])
       for kind in ("Max", "Avg", "AdaptiveAvg", "AdaptiveMax") for dims in (1, 2)},
    **{name: (lambda name=name: getattr(nn, name)(5, 3, 2, bidirectional=True), lambda d: [on(4, 2, 5, device=d)])
       for name in ("RNN", "LSTM", "GRU")},
    **{f"{name}Cell": (lambda name=name: getattr(nn, f"{name}Cell")(5, 3), lambda d: [on(2, 5, device=d)])
       for name in ("RNN", "LSTM", "GRU")},
    "MultiheadAttention": (
        lambda: nn.MultiheadAttention(6, 2, batch_first=True),
        lambda d: [on(2, 4, 6, seed=seed, device=d) for seed in range(3)],
    ),
    **{
        name: (lambda name=name: getattr(nn, name)(), lambda d: [on(3, 5, device=d)])
        for name in ("ELU", "GELU", "LeakyReLU", "ReLU", "SiLU", "Sigmoid", "Softplus", "Tanh")
    },
    "Softmax": (lambda: nn.Softmax(-1), lambda d: [on(3, 5, device=d)]),
    "LogSoftmax": (lambda: nn.LogSoftmax(0), lambda d: [on(3, 5, device=d)]),
    **{
        name: (lambda name=name: getattr(nn, name)(), lambda d: [on(3, 5, device=d), on(3, 5, seed=1, device=d)])
        for name in ("MSELoss", "L1Loss", "HuberLoss", "SmoothL1Loss", "KLDivLoss", "PairwiseDistance",
                     "CosineSimilarity", "HingeEmbeddingLoss", "SoftMarginLoss")
    },
    "BCELoss": (nn.BCELoss, lambda d: [on(3, 5, device=d).sigmoid(), on(3, 5, seed=1, device=d).sigmoid()]),
    "MultiMarginLoss": (nn.MultiMarginLoss, lambda d: [on(4, 5, device=d), tl.tensor(IDS[0], device=d)]),
    "MarginRankingLoss": (nn.MarginRankingLoss, lambda d: [on(3, seed=seed, device=d) for seed in range(3)]),
    "CosineEmbeddingLoss": (
        nn.CosineEmbeddingLoss, lambda d: [on(3, 5, device=d), on(3, 5, seed=1, device=d), on(3, seed=2, device=d)],
    ),
    "TripletMarginLoss": (nn.TripletMarginLoss, lambda d: [on(3, 5, seed=seed, device=d) for seed in range(3)]),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss, lambda d: [on(3, 5, device=d), on(3, 5, seed=1, device=d).sigmoid()]),
    "CrossEntropyLoss": (
        lambda: nn.CrossEntropyLoss(weight=on(5).abs(), ignore_index=1, label_smoothing=0.1),
        lambda d: [on(2, 5, 4, device=d), tl.tensor(IDS, device=d)],
    ),
    "NLLLoss": (nn.NLLLoss, lambda d: [on(4, 5, device=d), tl.tensor(IDS[0], device=d)]),
}  # fmt: skip
"""A layer, and its inputs on a device."""


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_agrees_with_the_cpu(name, other_device):
    """Results, and gradients of inputs and parameters. Nothing waits for the device."""
    make, inputs = LAYERS[name]
    tl.manual_seed(0)
    layer = make().double()

    def run(where):
        layer.to(where)
        xs = [x.requires_grad_() if x.is_floating_point() else x for x in inputs(where)]
        found = layer(*xs)
        y = found[0] if isinstance(found, tuple) else found
        leaves = [*layer.parameters(), *(x for x in xs if x.is_floating_point())]
        return [y, *tl.autograd.grad((y * y).sum(), leaves, allow_unused=True)]

    expected = [t if t is None else numpy(t) for t in run(tl.device("cpu"))]
    with strict.forbid_syncs() as log:
        found = run(other_device)
    assert log == []
    assert [t is None for t in found] == [t is None for t in expected]
    for a, b in zip(found, expected, strict=True):
        if a is not None:
            assert a.device.type == other_device.type
            np.testing.assert_allclose(numpy(a), b, rtol=1e-10, atol=1e-12)


def test_every_layer_is_in_the_table():
    known = {type(make()).__name__ for make, _ in LAYERS.values()}
    others = {"Module", "ModuleList", "ModuleDict", "ParameterList", "Identity", "Flatten", "Dropout"}
    found = {name: getattr(nn, name) for name in nn.__all__}
    layers = {name for name, value in found.items() if isinstance(value, type) and issubclass(value, nn.Module)}
    assert layers - known == others
