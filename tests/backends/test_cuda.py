"""tensorlite.cuda, with a module that stands in for CuPy where there is no GPU."""
import sys
import types

import pytest

import tensorlite as tl
from tensorlite.backends.cuda import find_cupy


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    find_cupy.find_cupy.cache_clear()
    yield
    find_cupy.find_cupy.cache_clear()


@pytest.fixture
def two_gpus(monkeypatch):
    """Replace CuPy by a stand-in with two GPUs. The second GPU is current. Return it; `log` has its calls."""
    log, current = [], [1]

    class Device:
        def __init__(self, index=None):
            self.id = current[0] if index is None else index

        def __enter__(self):
            self.before, current[0] = current[0], self.id

        def __exit__(self, *exc):
            current[0] = self.before

        def synchronize(self):
            log.append(("synchronize", self.id))

        @property
        def mem_info(self):
            return 10 + self.id, 100

    pool = types.SimpleNamespace(
        used_bytes=lambda: 20 + current[0], total_bytes=lambda: 30 + current[0],
        free_all_blocks=lambda: log.append(("free_all_blocks", current[0])),
    )  # fmt: skip
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 2, getDevice=lambda: current[0])
    cupy = types.SimpleNamespace(
        cuda=types.SimpleNamespace(runtime=runtime, Device=Device), get_default_memory_pool=lambda: pool, log=log
    )
    monkeypatch.setattr("tensorlite.backends.cuda.devices.require_cupy", lambda: cupy)
    monkeypatch.setattr("tensorlite.cuda.cuda_is_available", lambda: True)
    return cupy


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu():
    assert not tl.cuda.is_available()
    assert not tl.cuda_is_available()
    assert tl.cuda.device_count() == 0
    for function in (
        tl.cuda.current_device, tl.cuda.synchronize, tl.cuda.mem_get_info, tl.cuda.memory_allocated,
        tl.cuda.memory_reserved, tl.cuda.empty_cache,
    ):  # fmt: skip
        with pytest.raises(tl.DeviceError, match=r"^device 'cuda' cannot be used: CuPy is not installed"):
            function()


def test_the_current_gpu(two_gpus):
    assert tl.cuda.is_available()
    assert tl.cuda.device_count() == 2
    assert tl.cuda.current_device() == 1
    assert tl.cuda.mem_get_info() == (11, 100)
    assert tl.cuda.memory_allocated() == 21
    assert tl.cuda.memory_reserved() == 31
    tl.cuda.synchronize()
    tl.cuda.empty_cache()
    assert two_gpus.log == [("synchronize", 1), ("free_all_blocks", 1)]


@pytest.mark.parametrize("device", [0, "cuda:0", "cuda", tl.device("cuda")])
def test_a_gpu_is_named_in_several_ways(two_gpus, device):
    assert tl.cuda.mem_get_info(device) == (10, 100)
    assert tl.cuda.memory_allocated(device) == 20
    assert tl.cuda.memory_reserved(device) == 30
    tl.cuda.synchronize(device)
    assert two_gpus.log == [("synchronize", 0)]
    assert tl.cuda.current_device() == 1


@pytest.mark.usefixtures("two_gpus")
def test_a_device_of_another_type_is_refused():
    with pytest.raises(ValueError, match=r"^synchronize: expected a device of type 'cuda', got 'cpu'"):
        tl.cuda.synchronize("cpu")
    with pytest.raises(tl.DeviceError, match=r"expected one of .*, got 'tpu'"):
        tl.cuda.mem_get_info("tpu")


@pytest.mark.skipif(not tl.cuda_is_available(), reason="there is no GPU")
def test_on_a_gpu():
    before = tl.cuda.memory_allocated(0)
    x = tl.ones(1 << 20, device="cuda:0")
    tl.cuda.synchronize()
    assert tl.cuda.memory_allocated(0) >= before + 4 * x.numel()
    assert tl.cuda.memory_reserved(0) >= tl.cuda.memory_allocated(0)
    free, total = tl.cuda.mem_get_info(0)
    assert 0 < free < total
    del x
    tl.cuda.empty_cache()
    assert tl.cuda.memory_allocated(0) == before
