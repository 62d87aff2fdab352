"""The same on every device: ops, layers, optimizers, a GPT's training and its generation, and how often a GPU waits.

Here "every device" is the CPU, the strict one, and a GPU where there is one; see tests/conftest.py.
"""
import math

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.config import ModelConfig
from gpt.generation import generate
from gpt.model import GPT, KeyValueCache
from tensorlite import nn, optim
from tensorlite.testing import strict
from tests.backends import gpu_check
from tests.backends.gpu_check import computed, curve, difference, evaluated, numpy
from tests.ops.op_table import SPECS

SAMPLES = [
    pytest.param(row, sample, arrays, id=f"{row.name}-{k}")
    for row in SPECS.values() for k, (sample, arrays) in enumerate(zip(row.samples, row.arrays, strict=True))
]  # fmt: skip

SYNCS = {
    "prod": {"bool"},  # its gradient asks whether a factor is zero
    "repeat_interleave": {"to_numpy"}, "masked_select": {"mask"}, "index_put": {"mask"}, "getitem": {"mask", "int"},
    "nonzero": {"nonzero", "int"}, "one_hot": {"int"}, "F.one_hot": {"int"},
}  # fmt: skip
"""The ops that read values on the host, for a size or an index that only the device knows; docs/gpu.md names them."""


def on(*shape, seed=0, device="cpu", **kwargs):
    """Normal numbers, the same on every device."""
    return tl.tensor(np.random.default_rng(seed).standard_normal(shape), tl.float64, device, **kwargs)


# ---- ops ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "sample", "arrays"), SAMPLES)
def test_an_op_agrees_with_the_cpu(row, sample, arrays, other_device):
    """Values, first and second gradients; and it waits for nothing unless SYNCS says so."""
    with strict.count_syncs() as log:
        found = computed(row, sample, arrays, tl.float64, other_device)
    assert set(log.kinds) <= SYNCS.get(row.name, set()), str(log)
    expected = evaluated(row, sample, arrays, tl.float64, tl.device("cpu"))
    assert difference([numpy(t) for t in found], expected) <= gpu_check.LIMITS[tl.float64]


@pytest.mark.parametrize("name", SYNCS)
def test_what_is_said_to_wait_does(name):
    with strict.count_syncs() as log:
        for sample, arrays in zip(SPECS[name].samples, SPECS[name].arrays, strict=True):
            computed(SPECS[name], sample, arrays, tl.float64, tl.device("strict"))
    assert set(log.kinds) == SYNCS[name]


def test_a_change_of_a_view_waits_for_nothing(other_device):
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
    assert difference([numpy(t) for t in found], [numpy(t) for t in change("cpu")]) <= gpu_check.LIMITS[tl.float64]


@pytest.mark.parametrize("name", "linear mse_loss cross_entropy embedding binary_cross_entropy_with_logits".split())
def test_a_function_of_tensors_on_two_devices_says_its_name(name):
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
        for name in ("MSELoss", "L1Loss")
    },
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
    """Its results, and the gradients for its inputs and its parameters; nothing waits."""
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


# ---- optimizers -----------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, 0.1),
    "SGD, all options": lambda p: optim.SGD(p, 0.1, 0.9, 0.2, 0.1, maximize=True),
    "SGD, Nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, 0.01),
    "Adam, all options": lambda p: optim.Adam(p, 0.01, (0.8, 0.95), 1e-6, 0.1, maximize=True),
    "AdamW": lambda p: optim.AdamW(p, 0.01),
    "Muon": lambda p: optim.Muon([x for x in p if x.ndim == 2], 0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_agrees_with_the_cpu(name, other_device):
    """Ten steps, with every way to clip, a schedule, and a state that is saved and loaded half way."""

    def run(where):
        tl.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double().to(where)
        parameters = list(model.parameters())
        optimizer = OPTIMIZERS[name](parameters)
        schedule = optim.lr_scheduler.CosineWithWarmup(optimizer, 3, 10)
        norms = []
        for step in range(10):
            optimizer.zero_grad()
            F.mse_loss(model(on(5, 3, seed=step, device=where)), on(5, 2, seed=-step % 7, device=where)).backward()
            norms.append(nn.utils.clip_grad_norm_(parameters, 0.3, (1.0, 2.0, 3.0, math.inf)[step % 4]))
            nn.utils.clip_grad_value_(parameters, 0.2)
            optimizer.step()
            schedule.step()
            if step == 4:
                state, optimizer = optimizer.state_dict(), OPTIMIZERS[name](parameters)
                optimizer.load_state_dict(state)
                schedule = optim.lr_scheduler.CosineWithWarmup(optimizer, 3, 10, last_epoch=4)
        return [*parameters, *norms]

    with strict.forbid_syncs() as log:
        found = run(other_device)
    assert log == []
    for a, b in zip(found, run(tl.device("cpu")), strict=True):
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=1e-10, atol=1e-12)


# ---- a GPT ----------------------------------------------------------------------------------


def test_training_learns_the_same(device):
    found = curve(gpu_check.Run.start(device).train(gpu_check.batches(gpu_check.STEPS)))
    expected = curve(gpu_check.Run.start(tl.device("cpu")).train(gpu_check.batches(gpu_check.STEPS)))
    assert found[-1] < 0.6 * found[0]
    assert difference(found, expected) <= 1e-4


@pytest.mark.parametrize("options", [{}, {"dropout": 0.1, "gelu": "tanh"}, {"bias": True, "position": "sinusoidal"}])
def test_a_training_step_waits_for_nothing(options):
    """Forward, backward, clipping, AdamW and zero_grad, by the piece: 0 syncs each."""
    tl.manual_seed(0)
    config = {"vocab_size": 16, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 16}
    model = GPT(ModelConfig(**config, **options)).to("strict")
    optimizer = model.configure_optimizer(gpu_check.OPTIM)
    schedule = optim.lr_scheduler.CosineWithWarmup(optimizer, 2, 10)
    syncs = {}
    for x, y in gpu_check.batches(3):
        with strict.count_syncs() as syncs["batch"]:
            x, y = tl.tensor(x, device="strict"), tl.tensor(y, device="strict")
        with strict.count_syncs() as syncs["forward"]:
            _, loss = model(x, y)
        with strict.count_syncs() as syncs["backward"]:
            loss.backward()
        with strict.count_syncs() as syncs["clip"]:
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with strict.count_syncs() as syncs["step"]:
            optimizer.step()
            schedule.step()
        with strict.count_syncs() as syncs["zero_grad"]:
            optimizer.zero_grad(set_to_none=False)
            optimizer.zero_grad()
        assert {piece: log.kinds for piece, log in syncs.items()} == {piece: [] for piece in syncs}
        with strict.count_syncs() as log:
            assert math.isfinite(loss.item())
            assert norm.item() > 0
        assert log.kinds == ["item", "item"]


@pytest.mark.parametrize(("temperature", "top_k"), [(0.0, None), (1.0, None), (0.8, 3)])
def test_a_token_waits_once(temperature, top_k):
    """For its logits, on their way to the host; also beyond the block size."""
    tl.manual_seed(0)
    model = GPT(gpu_check.MODEL).to("strict")
    with strict.forbid_syncs(allow=["to_numpy"]) as log:
        tokens = list(generate(model, [1, 2], 12, temperature=temperature, top_k=top_k, seed=1))
    assert len(tokens) == 12
    assert len(log) == 12
    expected = list(generate(model.to("cpu"), [1, 2], 12, temperature=temperature, top_k=top_k, seed=1))
    assert tokens == expected


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_reading_with_a_cache_waits_for_nothing(position, other_device):
    """In pieces of several tokens and of one, with the logits of the CPU."""
    tl.manual_seed(0)
    config = ModelConfig(vocab_size=4, block_size=8, n_layer=2, n_head=2, n_embd=8, position=position)
    model = GPT(config).double()
    ids = np.array([[1, 0, 3, 3, 2, 0], [2, 2, 1, 0, 1, 3]])
    expected = numpy(model(tl.tensor(ids))[0])
    model.to(other_device)
    cache = KeyValueCache(model, 2)
    assert {t.device.type for t in (*cache.keys, *cache.values)} == {other_device.type}
    with strict.forbid_syncs() as log, tl.no_grad():
        pieces = [tl.tensor(part, device=other_device) for part in np.split(ids, [2, 3, 5], axis=1)]
        found = tl.cat([model(piece, cache=cache)[0] for piece in pieces], dim=1)
    assert log == []
    np.testing.assert_allclose(numpy(found), expected, rtol=0, atol=1e-12)
