"""Tensors on another device: nothing moves implicitly, and the engine, modules and training work there."""
import copy
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn, optim
from tensorlite.autograd import version_counter
from tensorlite.backends import registry
from tensorlite.testing import strict
from tensorlite.testing.strict.array import StrictArray

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def default_device():
    before = registry._default
    yield
    registry._default = before


def on(*shape, seed=0, dtype=tl.float64, device="strict", **kwargs):
    """Return a tensor of normal numbers, the same on every device."""
    return tl.tensor(np.random.default_rng(seed).standard_normal(shape), dtype, device, **kwargs)


# ---- tensors do not move implicitly ---------------------------------------------------------

X, IDS = tl.ones(3, 4), tl.tensor([0, 1, 2])

MIXED = {
    "add": lambda x, y: x + y,
    "mul": lambda x, y: tl.tensor(2.0) * y,
    "matmul": lambda x, y: x @ y.T,
    "where": lambda x, y: tl.where(x > 0, y, 0.0),
    "cat": lambda x, y: tl.cat([x, y]),
    "maximum": lambda x, y: tl.maximum(x, y),
    "eq": lambda x, y: x == y,
    "clamp": lambda x, y: y.clamp(x, x),
    "linear": lambda x, y: F.linear(x, y),
    "layer_norm_rows": lambda x, y: F.layer_norm(x, (4,), y[0]),
    "scaled_dot_product_attention": lambda x, y: F.scaled_dot_product_attention(x, y, y),
    "cross_entropy": lambda x, y: F.cross_entropy(y, IDS),
    "embedding": lambda x, y: F.embedding(IDS, y),
    "gather": lambda x, y: y.gather(0, IDS.reshape(1, 3)),
    "index_add": lambda x, y: y.index_add(0, IDS, x),
    "index_add, index there": lambda x, y: y.index_add(0, IDS.to("strict"), x),
    "setitem": lambda x, y: y.__setitem__(0, x[0]),
    "backward": lambda x, y: (y.clone().requires_grad_() * 2).backward(x),
}


ONE_WAY = {"mul", "cross_entropy", "embedding", "gather", "index_add", "index_add, index there"}
"""Cases whose second operand is an index or a number on the CPU, which is allowed the other way round."""


@pytest.mark.parametrize(("name", "flip"), [(n, f) for n in MIXED for f in (False, True) if not (f and n in ONE_WAY)])
def test_mixed_devices_are_one_error(name, flip):
    pair = (X, X.to("strict"))
    with pytest.raises(tl.DeviceError, match=rf"^{name.split(',')[0]}\b.* on strict") as caught:
        MIXED[name](*(pair[::-1] if flip else pair))
    assert caught.value.__cause__ is None


def test_numpy_arrays_are_on_the_cpu():
    x, array = X.to("strict"), np.ones((3, 4), np.float32)
    for f in (lambda: x + array, lambda: array * x, lambda: x.__setitem__(0, array[0])):
        with pytest.raises(tl.DeviceError, match="on strict"):
            f()
    for f in (lambda: x.numpy(), lambda: np.asarray(x), lambda: np.linalg.norm(x), lambda: np.exp2(x)):
        with pytest.raises(tl.DeviceError):
            f()
    assert str(np.exp(x).device) == "strict:0"  # because it calls the op
    assert (np.float64(2) * x).dtype == tl.float32  # a NumPy number counts as a number, not as an array


def test_an_index_may_come_from_the_cpu():
    """PyTorch allows it too: an index is small, and the host knows it."""
    x = on(3, 4)
    for index in (IDS, [0, 2], np.array([1, 1]), tl.tensor([True, False, True])):
        expected = x.cpu()[index]
        assert x[index].device.type == "strict"
        np.testing.assert_array_equal(x[index].cpu().numpy(), expected.numpy())
    with pytest.raises(IndexError, match="out of range"):
        x[[0, 3]]


def test_moving_to_a_device_and_back():
    x = on(3, 4, device="cpu", requires_grad=True)
    there = x.to("strict")
    assert there.device == registry.Device("strict", 0)
    assert there.to("strict") is there
    assert there.to("strict:0") is there
    assert there.to(x).device == x.device
    assert there.to("cpu", tl.float32).dtype == tl.float32
    assert repr(there.detach()[0, :2]).endswith(", dtype=float64, device='strict:0')")
    (there * there).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.detach().numpy())
    back = there.detach().cpu()
    back.add_(1)
    np.testing.assert_array_equal(there.detach().cpu().numpy(), x.detach().numpy())
    assert there.tolist() == x.tolist()
    assert f"{there.sum():.3f}" == f"{x.sum():.3f}"


# ---- the engine on the device ---------------------------------------------------------------


def test_views_share_versions_with_their_base():
    x = on(4, requires_grad=True)
    y = x * 2
    z = y[1:] * y[1:]
    y.add_(1)
    with pytest.raises(tl.VersionError, match=r"mul: .*argument 'x', float64\(3,\)"):
        z.sum().backward()
    assert version_counter.base_array(x.array[1:][1:]) is x.array


def test_in_place_with_a_graph():
    def f(device):
        x = on(3, 4, device=device, requires_grad=True)
        y = x * 1
        y.mul_(x).add_(2.0)
        y[0] = x[1] * 3
        y[:, 1] = y[:, 1] * 2
        y.sum().backward()
        return x.grad.cpu().numpy()

    np.testing.assert_allclose(f("strict"), f("cpu"), rtol=1e-12)


def test_gradients_do_not_share_memory():
    x, y = on(3, requires_grad=True), on(3, requires_grad=True)
    (x + y).backward(tl.ones(3, dtype=tl.float64, device="strict"))
    x.grad.add_(1)
    assert y.grad.tolist() == [1, 1, 1]


def test_memory_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        x = on(3, requires_grad=True)
        y = (x * 2).exp()
        array = weakref.ref(y.array)
        loss = y.sum()
        loss.backward()
        del y, loss
        assert array() is None
    finally:
        gc.enable()


def test_anomalies():
    x = tl.tensor([-1.0], device="strict", requires_grad=True)
    with tl.detect_anomaly(), pytest.raises(tl.AnomalyError, match="log: the forward pass made the first NaN"):
        x.log()
    with tl.detect_anomaly():
        y = (x + 1).sqrt()
        with pytest.raises(tl.AnomalyError, match="sqrt: the backward pass made the first infinity"):
            y.backward()


def test_a_checkpoint_repeats_its_dropout_mask():
    x = on(50, requires_grad=True)
    tl.manual_seed(0)
    y = tl.checkpoint(lambda x: F.dropout(x * x, 0.5), x)
    y.sum().backward()
    kept = (y.detach() != 0).double()
    assert 0 < kept.sum().item() < 50
    np.testing.assert_allclose(x.grad.cpu().numpy(), (kept * 4 * x.detach()).cpu().numpy())


def test_functions_of_functions():
    def f(x):
        return (x.exp() * x).sum() ** 2

    def everything(device):
        x, v = on(3, device=device), on(3, seed=1, device=device)
        pull = tl.func.vjp(lambda x: x.sin(), x)[1]
        found = (
            tl.func.grad(f)(x), tl.func.hessian(f)(x), tl.func.jacobian(lambda x: x.outer(x))(x), pull(v)[0],
            *tl.func.jvp(f, (x,), (v,)), *tl.func.hvp(f, (x,), (v,)),
        )  # fmt: skip
        return [t.cpu().numpy() for t in found]

    tl.set_default_device("strict")  # so that each tensor made without a device would be noticed
    for a, b in zip(everything("strict"), everything("cpu"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_hooks_and_copies():
    x = on(3, requires_grad=True)
    x.register_hook(lambda g: g * 2)
    y = x * 3
    y.retain_grad()
    y.sum().backward()
    assert y.grad.tolist() == [1, 1, 1]
    assert x.grad.tolist() == [6, 6, 6]
    twin = copy.deepcopy(x.detach())
    twin.zero_()
    assert x.detach().abs().sum() > 0


def test_layers_and_initialisation():
    for name in ("trunc_normal_", "orthogonal_", "kaiming_uniform_", "xavier_normal_", "eye_"):
        w = nn.Parameter(tl.zeros(4, 3, device="strict"))
        getattr(nn.init, name)(w)
        assert type(w.array) is StrictArray
        assert 0 < w.detach().abs().max().item() < 4
    x, padding = on(2, 5, 8), tl.tensor([[False] * 5, [False] * 3 + [True] * 2])
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double()
    results = []
    for device in ("cpu", "strict"):
        attention.to(device)
        y, weights = attention(*[x.to(device)] * 3, key_padding_mask=padding.to(device), is_causal=True)
        y.sum().backward()
        results.append([t.detach().cpu().numpy() for t in (y, weights, *(p.grad for p in attention.parameters()))])
        attention.zero_grad()
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_module_moves_whole():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    model[1].weight = model[0].weight
    model.register_buffer("mask", tl.ones(2))
    assert model.to("strict") is model
    assert {p.device.type for p in model.parameters()} == {model.mask.device.type} == {"strict"}
    assert model[1].weight is model[0].weight
    model.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
    assert model[0].weight.device.type == "strict"
    optimizer = optim.AdamW(model.parameters())
    model(tl.tensor([0, 1], device="strict")).sum().backward()
    optimizer.step()
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    model(tl.tensor([0, 1], device="strict")).sum().backward()
    optimizer.step()


# ---- the training loop of gpt ---------------------------------------------------------------


def test_a_run_is_saved_and_resumed(tmp_path, capsys):
    for extra in ("platformdirs", "safetensors", "tqdm"):
        pytest.importorskip(extra)
    from gpt import checkpoint
    from gpt.config import Config
    from gpt.generation import SamplingConfig, generate
    from gpt.runs import LATEST
    from gpt.train import resume, start

    words = np.random.default_rng(0).choice(["the ", "cat ", "sat ", "on "], 300)
    (tmp_path / "text").write_text("".join(words))
    tiny = {
        "data.dataset": str(tmp_path / "text"), "model.block_size": 8, "model.n_layer": 1, "model.n_head": 2,
        "model.n_embd": 8, "model.dropout": 0.1, "train.batch_size": 2, "train.steps": 6, "train.eval_batches": 1,
    }  # fmt: skip

    tl.set_default_device("strict")

    def weights(run):
        assert run.model.wte.weight.device.type == "strict"
        return {name: value.cpu().numpy() for name, value in run.model.state_dict().items()}

    def started(folder):
        return start(Config.load("shakespeare-char-cpu", {**tiny, "train.out_dir": str(tmp_path / folder)}))

    whole = started("whole")
    assert whole.optimize()
    half = started("half")
    with strict.forbid_syncs():
        for _ in range(3):
            half.train_step()
    half.save(LATEST)
    tl.manual_seed(0)  # the checkpoint restores the state of the random numbers
    path = tmp_path / "half" / LATEST
    resumed = resume(checkpoint.load_config(path), path)
    assert resumed.step == 3
    assert resumed.optimize()
    for name, value in weights(resumed).items():
        np.testing.assert_array_equal(value, weights(whole)[name])
    assert len(list(generate(resumed.model, [0], 10, SamplingConfig(seed=0)))) == 10
