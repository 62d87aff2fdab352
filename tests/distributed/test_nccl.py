"""Arrays of a device between ranks: by NCCL, by a stand-in for it on the strict device, and through the host."""

import logging
import sys
import threading
import types

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.distributed as dist
import tensorlite.testing.strict
from tensorlite import nn, optim
from tensorlite.backends.cuda import nccl as bindings
from tensorlite.backends.registry import BACKENDS
from tensorlite.distributed import Group, reduction
from tensorlite.distributed.communicator import Communicator
from tensorlite.distributed.nccl import NcclEngine
from tensorlite.distributed.threads import Postings, ThreadEngine
from tensorlite.dtypes import as_dtype
from tensorlite.testing.strict.array import StrictArray
from tests.support import fake_nccl

STRICT = BACKENDS[type(tl.ones(1, device="strict").array)]
DTYPES = ["float32", "float16", "bfloat16", "int64", "bool"]


class Transports:
    """The transports of ranks that are threads. gpus: the index of the GPU of each rank. problems: by rank."""

    def __init__(self, gpus, problems=None):
        self.networks, self.logs, self.problems = {}, [[] for _ in gpus], problems or {}
        self.cupys = [fake_nccl.make_cupy(gpu, 9, self.networks, log) for gpu, log in zip(gpus, self.logs, strict=True)]
        self.of_thread = threading.local()

    def __getattr__(self, name):
        """Return a method of the transport of this thread's rank."""
        rank = dist.rank()
        found = (self.cupys[rank].cuda.nccl, "") if rank not in self.problems else (None, self.problems[rank])
        return getattr(bindings.NcclTransport(self.cupys[rank], lambda: found), name)


@pytest.fixture
def connected(monkeypatch):
    """Return a function that gives the strict device a stand-in for NCCL between GPUs, and returns its transports."""

    def connect(*gpus, problems=None):
        transports = Transports(gpus, problems)
        monkeypatch.setattr(STRICT, "peer_transport", transports)
        index = property(lambda self: types.SimpleNamespace(id=gpus[dist.rank()]))
        pointer = property(lambda self: types.SimpleNamespace(ptr=self.host.ctypes.data))
        monkeypatch.setattr(StrictArray, "device", index, raising=False)
        monkeypatch.setattr(StrictArray, "data", pointer, raising=False)
        monkeypatch.setattr(STRICT, "index_of", lambda array: array.device.id)
        return transports

    return connect


def run_engines(function, size, timeout=20.0):
    """Return what a function returns on ranks whose arrays of a device do not move by the engine of threads."""

    def run(group):
        engine = NcclEngine(group.communicator.engine)
        try:
            return function(Group(Communicator(engine, timeout)))
        finally:
            engine.close()

    return dist.run_ranks(run, size)


def every_collective(group, device):
    """Return the bytes of the results of every collective, for several dtypes, and the mean of gradients."""
    made = []
    for dtype in map(as_dtype, DTYPES):
        values = (np.random.default_rng(group.rank).standard_normal((5, 7)) * 9).astype(dtype)
        for array in (values, np.ascontiguousarray(values.T).T, values[:0]):
            x = tl.from_numpy(array).to(device)
            rows = tl.from_numpy(np.stack([array] * group.size)).to(device)
            op = "max" if dtype.kind == "b" else "sum"
            made += [group.all_reduce(x, op), group.reduce_scatter(rows, op)]
            made += [group.all_gather(x), group.broadcast(x, 1)]
    x = tl.full((3,), group.rank + 1.0, device=device, requires_grad=True)
    group.all_reduce(x * x).sum().backward()
    return [y.detach().cpu().numpy().tobytes() for y in [*made, x.grad]]


def train(group, device):
    """Return the parameters and the optimizer's state of a model that was trained with small buckets."""
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)).to(device)
    with tl.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_(tl.tensor(np.random.default_rng(k).standard_normal(p.shape).astype(np.float32), device=device))
    parallel = dist.DataParallel(model, group, bucket_cap_mb=1e-4)
    optimizer = dist.ZeroRedundancyOptimizer(model.parameters(), optim.AdamW, group, lr=0.01)
    for step in range(3):
        x = np.random.default_rng([step, group.rank]).standard_normal((4, 5)).astype(np.float32)
        optimizer.zero_grad()
        parallel(tl.tensor(x, device=device)).square().mean().backward()
        optimizer.step()
    optimizer.consolidate_state_dict()
    state = optimizer.state_dict()["state"] if group.rank == 0 else {}
    means = [values["exp_avg"] for values in state.values()]
    return [p.detach().cpu().numpy().tobytes() for p in [*model.parameters(), *means]]


@pytest.mark.parametrize(("size", "small"), [(2, reduction.SMALL), (3, 0)])
def test_devices_give_the_bits_of_the_host(size, small, connected, monkeypatch):
    monkeypatch.setattr(reduction, "SMALL", small)
    monkeypatch.setattr(reduction, "PIECE", 64)
    expected = dist.run_ranks(lambda g: every_collective(g, "cpu"), size)
    assert dist.run_ranks(lambda g: every_collective(g, "strict"), size) == expected
    assert run_engines(lambda g: every_collective(g, "strict"), size) == expected  # through the host
    transports = connected(*range(size))
    assert run_engines(lambda g: every_collective(g, "strict"), size) == expected
    assert all({"send", "recv", "destroy"} <= set(log) for log in transports.logs)
    assert len(transports.networks) == 1


def test_training_on_devices(connected):
    host = run_engines(lambda g: train(g, "strict"), 3)
    connected(0, 1, 2)
    assert run_engines(lambda g: train(g, "strict"), 3) == host
    assert host[1] == host[2] == host[0][: len(host[1])]


def test_a_transfer_comes_after_the_work_of_the_current_stream(connected):
    transports = connected(0, 1)

    def run(group):
        engine = group.communicator.engine
        group.all_reduce(tl.ones(2, device="strict"))  # connects
        sent, received = (tl.full((2, 3), group.rank, device="strict").array for _ in range(2))
        log = transports.logs[group.rank]
        log.clear()
        with tl.testing.strict.forbid_syncs():
            request = engine.exchange(sent, received)
            early = request.test()
            while not request.test():
                pass
        return early, list(log), received.host.tolist()

    calls = ["record", "wait for the current stream", "enter stream", "exit stream", "send", "recv", "record"]
    assert run_engines(run, 2) == [(False, calls, [[0.0] * 3, [1.0] * 3])] * 2


def test_empty_arrays_are_not_sent(connected):
    transports = connected(0, 1)

    def run(group):
        group.all_gather(tl.ones(2, device="strict"))
        before = transports.logs[group.rank].count("send")
        shape = group.all_gather(tl.ones(0, 3, device="strict")).shape
        return shape, transports.logs[group.rank].count("send") - before

    assert run_engines(run, 2) == [((2, 0, 3), 0)] * 2


@pytest.mark.parametrize(
    ("gpus", "problems", "reason"),
    [
        ((0, 1), {1: "CuPy cannot load the library NCCL"}, "of rank 1: CuPy cannot load the library NCCL"),
        ((3, 3), {}, "ranks 0 and 1 use the same device, 0000:03:00.0 of "),
    ],
)
def test_arrays_are_copied_through_the_host_where_devices_cannot_be_connected(
    gpus, problems, reason, connected, caplog
):
    transports = connected(*gpus, problems=problems)
    with caplog.at_level(logging.INFO, "tensorlite.distributed"):
        totals = run_engines(lambda g: [g.all_reduce(tl.ones(2, device="strict")).tolist() for _ in range(3)], 2)
    assert totals == [[[2.0, 2.0]] * 3] * 2
    assert [record.levelname for record in caplog.records] == ["INFO"]
    text = f"arrays on strict are copied through the host, because {reason}"
    assert caplog.records[0].getMessage().startswith(text)
    assert not transports.networks


def test_a_backend_without_transfers_is_copied_through_the_host(caplog):
    with caplog.at_level(logging.INFO, "tensorlite.distributed"):
        run_engines(lambda g: g.all_reduce(tl.ones(2, device="strict")), 2)
    words = "arrays on strict are copied through the host, because of rank 0: strict has no transfers between processes"
    assert caplog.messages == [words]


def test_a_connection_that_fails_is_an_error(connected, monkeypatch):
    connected(4, 4)
    monkeypatch.setattr("socket.gethostname", lambda: str(dist.rank()))  # so that the GPUs seem to be different
    words = "NCCL: expected a connection of 2 GPUs, got .*Duplicate GPU detected. Set NCCL_DEBUG=INFO to see the reason"
    with pytest.raises(tl.DeviceError, match=words):
        run_engines(lambda g: g.all_reduce(tl.ones(2, device="strict")), 2)


def test_a_transfer_that_fails_is_an_error(connected, monkeypatch):
    connected(0, 1)
    monkeypatch.setattr(fake_nccl.Event, "done", False)

    def run(group):
        engine = group.communicator.engine
        request = engine.spread(tl.ones(2, device="strict").array, 0)
        while not engine._connections or not engine._connections[StrictArray].done:
            assert not request.test()
        assert not request.test()
        engine._connections[StrictArray].result.communicator.failed = True
        request.test()

    with pytest.raises(tl.DeviceError, match="the end of a transfer between GPUs, got NCCL_ERROR_SYSTEM_ERROR"):
        run_engines(run, 2)


def test_another_device_of_a_rank_is_an_error(connected, monkeypatch):
    connected(0, 1)

    def run(group):
        group.all_reduce(tl.ones(2, device="strict"))
        x = tl.ones(2, device="strict")
        group.barrier()
        STRICT.index_of = lambda array: array.device.id + 5
        group.all_reduce(x)

    words = r"expected arrays on strict:[01], which the first transfer of this rank used, got one on strict:[56]"
    with pytest.raises(tl.DeviceError, match=words):
        run_engines(run, 2)


def test_an_error_ends_the_connection_at_once(connected):
    transports = connected(0, 1)

    def run(group):
        group.all_reduce(tl.ones(2, device="strict"))
        group.communicator.engine.close(ValueError("mine"))

    with pytest.raises(ValueError, match="mine"):
        run_engines(run, 2)
    assert all("abort" in log and "destroy" not in log for log in transports.logs)


def test_reasons_against_nccl(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    bindings.find_nccl.cache_clear()
    try:
        module, reason = bindings.find_nccl()
    finally:
        bindings.find_nccl.cache_clear()
    assert module is None
    assert reason.startswith("CuPy cannot use the library NCCL (ModuleNotFoundError")
    assert reason.endswith("pip install nvidia-nccl-cu12 or nvidia-nccl-cu13, to match the driver")


def test_a_module_that_only_imports_is_not_enough(monkeypatch):
    """CuPy's module exists without the library, and then has no functions."""
    stand_in = types.ModuleType("cupy.cuda")
    for nccl, words in (
        (types.SimpleNamespace(available=False), "CuPy cannot load the library NCCL; pip install"),
        (types.SimpleNamespace(available=True), "CuPy cannot use the library NCCL (AttributeError"),
    ):
        stand_in.nccl = nccl
        monkeypatch.setitem(sys.modules, "cupy", types.ModuleType("cupy"))
        monkeypatch.setitem(sys.modules, "cupy.cuda", stand_in)
        bindings.find_nccl.cache_clear()
        assert bindings.find_nccl()[1].startswith(words)
    bindings.find_nccl.cache_clear()


def test_one_rank_on_a_device(other_device):
    """On a GPU with NCCL this runs the library itself, with a communicator of size 1."""
    engine = NcclEngine(ThreadEngine(Postings(1), 0))
    x = tl.tensor([[1.5, float("nan"), -0.0]], device=other_device).array
    sent, gathered, exchanged = x.reshape(-1), BACKENDS[type(x)].zeros_like(x), BACKENDS[type(x)].zeros_like(x)
    for request in (engine.gather(sent, gathered), engine.exchange(x, exchanged), engine.spread(sent, 0)):
        while not request.test():
            pass
    for result in (gathered, exchanged, sent):
        values = BACKENDS[type(x)].to_numpy(result).reshape(-1)
        assert values.tobytes() == np.array([1.5, np.nan, -0.0], np.float32).tobytes()
    transport = BACKENDS[type(x)].peer_transport
    can_connect = transport is not None and not transport.problem()
    assert (engine._connections[type(x)].result is not None) == can_connect
    engine.close()
