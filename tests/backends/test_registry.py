"""Devices: their names, the default one, a GPU that is not there, and what never moves by itself.

What a GPU would run, runs here on the device of tensorlite.testing.strict, whose arrays are as strict as CuPy's.
"""
import copy
import gc
import os
import re
import subprocess
import sys
import types
import weakref
from pathlib import Path

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.nn.functional as F
from tensorlite import nn, optim
from tensorlite.autograd import version_counter
from tensorlite.backends import reference, registry
from tensorlite.backends.cuda import devices, find_cupy
from tensorlite.testing import strict
from tensorlite.testing.strict.array import StrictArray

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def default_device():
    before = registry._default
    yield
    registry._default = before


def on(*shape, seed=0, dtype=tl.float64, device="strict", **kwargs):
    """Normal numbers, the same on every device."""
    return tl.tensor(np.random.default_rng(seed).standard_normal(shape), dtype, device, **kwargs)


# ---- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "kind", "index", "shown"),
    [
        ("cpu", "cpu", None, "cpu"),
        ("cuda", "cuda", 0, "cuda:0"),
        ("cuda:1", "cuda", 1, "cuda:1"),
        ("strict", "strict", None, "strict"),
    ],
)
def test_device(spec, kind, index, shown):
    device = tl.device(spec)
    assert (device.type, device.index) == (kind, index)
    assert str(device) == shown
    assert repr(device) == f"device('{shown}')"
    assert tl.device(device) is device
    assert device == tl.device(spec)
    assert len({device, tl.device(spec)}) == 1


def test_device_with_an_index():
    assert tl.device("cuda", 2) == tl.device("cuda:2")
    assert tl.device("cuda:1") != tl.device("cuda:0")


@pytest.mark.parametrize("spec", ["gpu", "cuda:x", "cuda:-1", "cuda:1:2", "", "CPU", 0])
def test_unknown_devices(spec):
    with pytest.raises(tl.DeviceError, match=r"^device: unknown device .*; known devices are cpu, cuda"):
        tl.device(spec)


def test_every_way_to_name_a_device_takes_the_same():
    x, layer = tl.ones(2), nn.Linear(1, 1)
    for f in (lambda d: tl.zeros(2, device=d), lambda d: x.to(d), lambda d: x.to(device=d), lambda d: layer.to(d)):
        with pytest.raises(tl.DeviceError, match="unknown device 'tpu'"):
            f("tpu")


# ---- the default device ---------------------------------------------------------------------


def test_default_device():
    assert tl.get_default_device() == tl.device() == tl.device("cpu")
    tl.set_default_device("strict")
    assert tl.get_default_device() == tl.device("strict")
    weight = nn.Linear(2, 2).weight
    for x in (tl.zeros(2), tl.tensor([1.0]), tl.randn(2), tl.arange(3), tl.eye(2), tl.as_tensor(2.0), weight):
        assert x.device.type == "strict"
    assert tl.from_numpy(np.zeros(2)).device.type == "cpu"
    assert tl.zeros(2, device="cpu").device.type == "cpu"
    tl.set_default_device(None)
    assert tl.get_default_device() == tl.device("cpu")


def test_a_tensor_of_a_tensor_stays_where_it_is():
    """An array that comes without a device goes to none."""
    x = on(2)
    assert tl.tensor(x).device.type == tl.as_tensor(x).device.type == tl.zeros_like(x).device.type == "strict"


def test_a_default_device_that_is_not_there_is_not_set():
    if tl.cuda_is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(tl.DeviceError, match="'cuda' cannot be used"):
        tl.set_default_device("cuda")
    assert tl.zeros(1).device.type == "cpu"


def python(script, **environment):
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_the_environment_names_the_default_device():
    script = (
        "import tensorlite as tl; print(tl.get_default_device())\n"
        "try: print(tl.zeros(1).device)\n"
        "except tl.DeviceError as e: print(e)\n"
        "tl.set_default_device('cpu'); print(tl.zeros(1).device)"
    )
    lines = python(script, TENSORLITE_DEVICE="cuda:0").stdout.splitlines()
    assert lines[0] == "cuda:0"
    assert lines[1] == "cuda:0" if tl.cuda_is_available() else lines[1].startswith("device 'cuda' cannot be used: CuPy")
    assert lines[2] == "cpu"


def test_the_environment_names_no_device():
    done = python("import tensorlite as tl; tl.zeros(1)", TENSORLITE_DEVICE="tpu")
    assert done.stderr.splitlines()[-1].endswith(
        "DeviceError: TENSORLITE_DEVICE: device: unknown device 'tpu'; known devices are cpu, cuda"
    )


# ---- a GPU that is not there ----------------------------------------------------------------


@pytest.mark.skipif(tl.cuda_is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "f",
    [
        lambda: tl.zeros(2, device="cuda"),
        lambda: tl.tensor([1.0], device="cuda:1"),
        lambda: tl.randn(2, device=tl.device("cuda")),
        lambda: tl.ones(2).cuda(),
        lambda: tl.ones(2).to("cuda"),
        lambda: nn.Linear(2, 2).to("cuda"),
        lambda: tl.set_default_device("cuda"),
    ],
)
def test_asking_for_cuda_is_one_error_with_the_reason(f):
    with pytest.raises(tl.DeviceError, match=r"^device 'cuda' cannot be used: CuPy .*$") as caught:
        f()
    assert caught.value.__cause__ is None
    assert "\n" not in str(caught.value)


def cupy_with(count=1, product=26.0):
    """A module that may be taken for CuPy: how many devices it finds, and what it computes; an Exception is raised."""

    def given(value):
        if isinstance(value, Exception):
            raise value
        return value

    class Array:
        def reshape(self, *shape): return self
        def __matmul__(self, other): return self
        def __add__(self, other): return self
        def sum(self): return given(product)

    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=lambda: given(count)))
    cupy.arange = lambda n: Array()
    return cupy


@pytest.mark.parametrize(
    ("cupy", "reason"),
    [
        (None, r"^CuPy is not installed \(.*\); pip install 'tensorlite\[cuda12\]' or 'tensorlite\[cuda13\]'"),
        (cupy_with(RuntimeError("no driver")), r"^CuPy finds no CUDA driver or device \(no driver\)$"),
        (cupy_with(0), r"^CuPy finds no CUDA device$"),
        (cupy_with(1, 25.0), r"^a small product on the GPU gave a wrong result$"),
        (cupy_with(1, OSError("no nvrtc")), r"^CuPy cannot compute on the GPU \(OSError: no nvrtc\); is it the right"),
        (cupy_with(), r"^$"),
    ],
)
def test_the_reason_why_there_is_no_gpu(monkeypatch, cupy, reason):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    find_cupy.find_cupy.cache_clear()
    try:
        found, why = find_cupy.find_cupy()
    finally:
        find_cupy.find_cupy.cache_clear()
    assert found is (None if why else cupy)
    assert re.search(reason, why)


def test_one_of_several_gpus_is_made_current():
    current = [0]

    class Device:
        def __init__(self, index):
            self.index = index

        def use(self):
            current[0] = self.index

    cupy = cupy_with(2)
    cupy.ndarray, cupy.asnumpy, cupy.cuda.Device = object, None, Device
    select = devices.namespace_attributes(cupy)["select"]
    select(1)
    assert current == [1]
    with pytest.raises(tl.DeviceError, match="'cuda:2' is not there: CuPy finds 2, the first is cuda:0"):
        select(2)
    assert current == [1]


# ---- the registry ---------------------------------------------------------------------------


def test_a_backend_is_loaded_when_it_is_asked_for(monkeypatch):
    class Another(StrictArray):
        __slots__ = ()

    monkeypatch.setattr(registry, "_LOADERS", dict(registry._LOADERS))
    monkeypatch.setattr(registry, "_LOADED", dict(registry._LOADED))
    loads = []

    def load():
        loads.append(1)
        return registry.build_namespace(types.ModuleType("late"), reference, device_type="late", array_type=Another)

    registry.register_backend("late", load)
    assert tl.device("late") == registry.Device("late")
    assert loads == []
    try:
        assert registry.namespace(tl.device("late")) is registry.namespace(tl.device("late"))
        assert loads == [1]
        assert registry.BACKENDS[Another].device_type == "late"
        registry.register_backend("late", load)
        registry.namespace(tl.device("late"))
        assert loads == [1, 1]
    finally:
        registry.BACKENDS.pop(Another, None)


def test_namespaces():
    cpu, there = registry.namespace(tl.device("cpu")), registry.namespace(tl.device("strict"))
    assert registry.backend_of([1, "x", np.ones(1)]) is cpu
    assert registry.backend_of([None, on(2).array]) is there
    assert registry.backend_of([1, np.float64(1)]) is None
    assert registry.device_of(np.ones(2)) == tl.device("cpu")
    assert registry.device_of(on(2).array) == registry.Device("strict", 0)
    for name in reference.__all__:  # a kernel lies over the module's function of the same name
        assert getattr(there, name).args == (there,)
    assert cpu.gelu.func.__module__ == "tensorlite.backends.cpu.kernels"
    assert there.gelu.func.__module__ == "tensorlite.backends.reference"


# ---- nothing moves by itself ----------------------------------------------------------------

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
    "index_put": lambda x, y: y.index_add(0, IDS.to("strict"), x),
    "setitem": lambda x, y: y.__setitem__(0, x[0]),
    "backward": lambda x, y: (y.clone().requires_grad_() * 2).backward(x),
}


ONE_WAY = {"mul", "cross_entropy", "embedding", "gather", "index_add", "index_put"}
"""Whose index, or number, is on the CPU already."""


@pytest.mark.parametrize(("name", "flip"), [(n, f) for n in MIXED for f in (False, True) if not (f and n in ONE_WAY)])
def test_mixed_devices_are_one_error(name, flip):
    pair = (X, X.to("strict"))
    with pytest.raises(tl.DeviceError, match=rf"^{name}\b.* on strict") as caught:
        MIXED[name](*(pair[::-1] if flip else pair))
    assert caught.value.__cause__ is None


def test_numpy_arrays_are_on_the_cpu():
    x, array = X.to("strict"), np.ones((3, 4), np.float32)
    for f in (lambda: x + array, lambda: array * x, lambda: x.__setitem__(0, array[0])):
        with pytest.raises(tl.DeviceError, match="on strict"):
            f()
    for f in (lambda: x.numpy(), lambda: np.asarray(x), lambda: np.exp(x)):
        with pytest.raises((tl.DeviceError, TypeError)):
            f()
    assert (np.float64(2) * x).dtype == tl.float32  # a number is not an array


def test_an_index_may_come_from_the_cpu():
    """As in PyTorch: it is small, and the host knows it."""
    x = on(3, 4)
    for index in (IDS, [0, 2], np.array([1, 1]), tl.tensor([True, False, True])):
        expected = x.cpu()[index]
        assert x[index].device.type == "strict"
        np.testing.assert_array_equal(x[index].cpu().numpy(), expected.numpy())
    with pytest.raises(IndexError, match="out of range"):
        x[[0, 3]]


def test_moving():
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


def test_memory_goes_back_without_the_collector():
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


def test_a_checkpoint_drops_the_same_entries_again():
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

    tl.set_default_device("strict")  # nothing is made where nobody asked for it
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
    tl.manual_seed(0)  # the state of the random numbers comes from the file
    path = tmp_path / "half" / LATEST
    resumed = resume(checkpoint.load_config(path), path)
    assert resumed.step == 3
    assert resumed.optimize()
    for name, value in weights(resumed).items():
        np.testing.assert_array_equal(value, weights(whole)[name])
    assert len(list(generate(resumed.model, [0], 10, SamplingConfig(seed=0)))) == 10
