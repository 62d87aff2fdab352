"""Devices: their names, the default device, errors without a GPU, and the namespaces of the registry."""
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn
from tensorlite.backends import reference, registry
from tensorlite.backends.cuda import devices, find_cupy
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
    with pytest.raises(tl.DeviceError, match=r"^device: expected one of cpu, cuda"):
        tl.device(spec)


def test_every_function_with_a_device_refuses_unknown_names():
    x, layer = tl.ones(2), nn.Linear(1, 1)
    for f in (lambda d: tl.zeros(2, device=d), lambda d: x.to(d), lambda d: x.to(device=d), lambda d: layer.to(d)):
        with pytest.raises(tl.DeviceError, match=r"expected one of .*, got 'tpu'"):
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


def test_a_tensor_made_from_a_tensor_stays_on_its_device():
    """The default device does not move existing data."""
    x = on(2)
    assert tl.tensor(x).device.type == tl.as_tensor(x).device.type == tl.zeros_like(x).device.type == "strict"


def test_an_unusable_default_device_is_not_set():
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


def test_an_unknown_device_in_the_environment_is_an_error():
    done = python("import tensorlite as tl; tl.zeros(1)", TENSORLITE_DEVICE="tpu")
    assert done.stderr.splitlines()[-1].endswith(
        "DeviceError: TENSORLITE_DEVICE: device: expected one of cpu, cuda, got 'tpu'"
    )


# ---- errors without a GPU -------------------------------------------------------------------


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
    """Return a stand-in for CuPy. count: of devices. product: what it computes. An Exception is raised instead."""

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
    with pytest.raises(tl.DeviceError, match="expected one of 2 GPUs, cuda:0 to cuda:1, got cuda:2"):
        select(2)
    assert current == [1]


# ---- the registry ---------------------------------------------------------------------------


def test_a_backend_is_loaded_on_first_use(monkeypatch):
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
    for name in reference.__all__:  # a kernel replaces the module's function of the same name
        assert getattr(there, name).args == (there,)
    assert cpu.gelu.func.__module__ == "tensorlite.backends.cpu.kernels"
    assert there.gelu.func.__module__ == "tensorlite.backends.reference"
