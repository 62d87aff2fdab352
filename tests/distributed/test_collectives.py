"""Collectives on tensors: values, bits, gradients and errors, on ranks that are threads."""

import numpy as np
import pytest

import tensorlite as tl
import tensorlite.distributed as dist
from tensorlite.distributed import DistributedError, Group, reduction

SIZES = [1, 2, 3, 4]
DTYPES = ["float32", "float64", "float16", "bfloat16", "int32", "uint8"]
LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "reversed": lambda x: x[::-1][::-1].copy()[::-1],
    "empty": lambda x: x[:0],
}


def numbers(rank: int, dtype: object, shape: tuple[int, ...] = (5, 7)) -> np.ndarray:
    """Return the numbers of a rank."""
    return (np.random.default_rng(rank).standard_normal(shape) * 9 + 20).astype(dtype)


def in_order(arrays: list[np.ndarray], op: str) -> np.ndarray:
    """Return the reduction of arrays from the first to the last, added up in float32 at least."""
    wide = np.float32 if arrays[0].dtype.itemsize == 2 and arrays[0].dtype.kind != "i" else arrays[0].dtype
    total = arrays[0].astype(wide)
    for array in arrays[1:]:
        other = array.astype(wide)
        total = total + other if op in ("sum", "mean") else {"max": np.maximum, "min": np.minimum}[op](total, other)
    return (total / np.dtype(wide).type(len(arrays)) if op == "mean" else total).astype(arrays[0].dtype)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("small", [0, reduction.SMALL])
def test_all_reduce_adds_in_the_order_of_the_ranks(size, dtype, small, monkeypatch):
    monkeypatch.setattr(reduction, "SMALL", small)
    dtype = tl.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    for op in ("sum", "max", "min") + (("mean",) if dtype.kind not in "iu" else ()):
        expected = in_order([numbers(r, dtype) for r in range(size)], op)
        for result in dist.run_ranks(lambda g, op=op: g.all_reduce(tl.tensor(numbers(g.rank, dtype)), op), size):
            assert result.dtype == dtype
            assert result.shape == (5, 7)
            assert result.array.tobytes() == expected.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 3])
def test_layouts(layout, size):
    def run(group):
        x = tl.from_numpy(LAYOUTS[layout](numbers(group.rank, "float32")))
        rows = tl.from_numpy(np.moveaxis(np.stack([x.array] * group.size, axis=1), 1, 0))
        return group.all_reduce(x), group.all_gather(x), group.broadcast(x, group.size - 1), group.reduce_scatter(rows)

    inputs = [LAYOUTS[layout](numbers(r, "float32")) for r in range(size)]
    for reduced, gathered, sent, scattered in dist.run_ranks(run, size):
        np.testing.assert_array_equal(reduced.array, in_order(inputs, "sum"))
        np.testing.assert_array_equal(scattered.array, in_order(inputs, "sum"))
        np.testing.assert_array_equal(gathered.array, np.stack(inputs))
        np.testing.assert_array_equal(sent.array, inputs[-1])


@pytest.mark.parametrize("piece", [8, 40, 1000])
def test_pieces_do_not_change_the_result(piece, monkeypatch):
    def run(group):
        x = tl.tensor(numbers(group.rank, "float32", (123,)))
        rows = tl.tensor(numbers(group.rank, "float32", (3, 41)))
        return group.all_reduce(x), group.all_gather(x), group.broadcast(x, 2), group.reduce_scatter(rows, "mean")

    whole = dist.run_ranks(run, 3)
    monkeypatch.setattr(reduction, "PIECE", piece)
    for before, after in zip(whole, dist.run_ranks(run, 3), strict=True):
        for a, b in zip(before, after, strict=True):
            assert a.array.tobytes() == b.array.tobytes()


def test_nan_goes_through_every_reduction():
    def run(group):
        x = tl.tensor([1.0, 2.0, 3.0])
        x[group.rank] = float("nan")
        return [group.all_reduce(x, op) for op in ("sum", "mean", "max", "min")]

    for results in dist.run_ranks(run, 3):
        for result in results:
            assert np.isnan(result.array).all()


def by_one_process(kind: str, op: str, xs: list[tl.Tensor], weights: list[np.ndarray]) -> list[np.ndarray]:
    """Return the gradients of all ranks' inputs for the sum of all ranks' weighted results, by plain ops."""
    stacked = tl.stack(xs)
    total = {"sum": stacked.sum, "mean": stacked.mean, "max": stacked.amax, "min": stacked.amin}[op](0)
    outs = {
        "all_reduce": lambda r: total,
        "reduce_scatter": lambda r: total[r],
        "all_gather": lambda r: stacked,
        "broadcast": lambda r: xs[1],
    }[kind]
    loss = sum((outs(r) * tl.tensor(w)).square().sum() for r, w in enumerate(weights))
    return [tl.zeros_like(x) if g is None else g for x, g in zip(xs, tl.autograd.grad(loss, xs, allow_unused=True))]


@pytest.mark.parametrize(
    ("kind", "op"),
    [("all_reduce", "sum"), ("all_reduce", "mean"), ("all_reduce", "max"), ("all_reduce", "min"),
     ("reduce_scatter", "sum"), ("reduce_scatter", "mean"), ("all_gather", "sum"), ("broadcast", "sum")],
)  # fmt: skip
def test_gradients_are_those_of_one_process(kind, op):
    size, shape = 3, (3, 4)
    inputs = [np.round(numbers(r, "float64", shape)) for r in range(size)]  # with ties
    results = {"all_reduce": shape, "reduce_scatter": shape[1:], "all_gather": (size, *shape), "broadcast": shape}
    weights = [numbers(10 + r, "float64", results[kind]) for r in range(size)]

    def run(group):
        x = tl.tensor(inputs[group.rank], requires_grad=True)
        options = {"all_reduce": (op,), "reduce_scatter": (op,), "broadcast": (1,), "all_gather": ()}[kind]
        out = getattr(group, kind)(x, *options)
        (out * tl.tensor(weights[group.rank])).square().sum().backward(create_graph=True)
        second = tl.autograd.grad(x.grad.sum(), x)[0]
        return x.grad.detach().numpy(), second.numpy()

    xs = [tl.tensor(x, requires_grad=True) for x in inputs]
    for rank, (first, second) in enumerate(dist.run_ranks(run, size)):
        np.testing.assert_allclose(first, by_one_process(kind, op, xs, weights)[rank].numpy(), rtol=1e-12)
        assert np.isfinite(second).all()
        assert (kind == "broadcast" or second.any())


def test_a_group_of_one_copies():
    group = dist.init()
    x = tl.tensor([[1.0, 2.0]], requires_grad=True)
    for result in (group.all_reduce(x), group.broadcast(x), group.all_gather(x)[0], group.reduce_scatter(x)[None]):
        np.testing.assert_array_equal(result.detach().numpy(), x.detach().numpy())
        assert not np.shares_memory(result.array, x.array)
        (g,) = tl.autograd.grad(result.sum(), x)
        np.testing.assert_array_equal(g.numpy(), np.ones((1, 2)))
    assert (group.rank, group.size, dist.rank(), dist.size()) == (0, 1, 0, 1)
    assert group is dist.init()
    group.barrier()
    group.check_equal("data", "x")
    assert group.gather_bytes(b"x") == [b"x"]


def test_bytes_and_values():
    def run(group):
        group.check_equal("steps", "100")
        return group.gather_bytes(b"x" * (10 * group.rank)), dist.rank(), dist.size(), dist.init() is group

    for rank, result in enumerate(dist.run_ranks(run, 3)):
        assert result == ([b"", b"x" * 10, b"x" * 20], rank, 3, True)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda g: g.all_reduce(np.ones(3)), TypeError, "all_reduce: expected a Tensor, got ndarray"),
        (lambda g: g.all_reduce(tl.ones(3), "product"), ValueError, "op must be 'sum', 'mean', 'max' or 'min'"),
        (lambda g: g.all_reduce(tl.ones(3, dtype=tl.bool_)), tl.DTypeError, "expected numbers for a sum"),
        (lambda g: g.all_reduce(tl.ones(3, dtype=tl.int32), "mean"), tl.DTypeError, "floating point numbers for a mea"),
        (lambda g: g.reduce_scatter(tl.ones(5)), tl.ShapeError, r"expected a tensor of shape \(2, ...\)"),
        (lambda g: g.reduce_scatter(tl.ones(())), tl.ShapeError, "reduce_scatter"),
        (lambda g: g.broadcast(tl.ones(3), 2), ValueError, "expected a rank from 0 to 1, got 2"),
        (lambda g: g.broadcast(tl.ones(3), -1), ValueError, "expected a rank from 0 to 1, got -1"),
        (lambda g: g.broadcast(tl.ones(3), 0.5), ValueError, "expected a rank"),
    ],
)
def test_errors_of_arguments(call, error, words):
    with pytest.raises(error, match=words):
        dist.run_ranks(call, 2)


def test_different_calls_name_the_ranks():
    def run(group):
        with group.activity(f"step {group.rank}"):
            if group.rank == 2:
                group.barrier()
            else:
                group.all_reduce(tl.ones(3))

    with pytest.raises(DistributedError, match=r"ranks 0 and 1 called all_reduce.* \(step 0\); rank 2 called barrier"):
        dist.run_ranks(run, 3)


@pytest.mark.parametrize("other", [tl.ones(4), tl.ones(3, dtype=tl.float64), tl.ones(3, 1)])
def test_different_tensors_are_an_error(other):
    with pytest.raises(DistributedError, match=r"rank 0 called all_reduce\(sum\) of .*; rank 1 called all_reduce"):
        dist.run_ranks(lambda g: g.all_reduce(tl.ones(3) if g.rank == 0 else other), 2)


def test_a_rank_that_ends_is_named():
    def run(group):
        with group.activity("step 7"):
            group.barrier()
        if group.rank != 1:
            group.all_reduce(tl.ones(3))

    with pytest.raises(DistributedError, match=r"rank 1 ended .*The last call of rank 1 was barrier \(step 7\)"):
        dist.run_ranks(run, 3)


def test_the_error_of_a_rank_is_raised():
    def run(group: Group):
        if group.rank == 1:
            raise KeyError("mine")
        group.barrier()

    with pytest.raises(KeyError, match="mine"):
        dist.run_ranks(run, 3)


def test_a_rank_that_hangs_is_named(monkeypatch):
    monkeypatch.setattr("tensorlite.distributed.communicator.ROLL_CALL", 0.05)
    monkeypatch.setattr("tensorlite.distributed.threads.GRACE", 0.1)
    import threading

    release = threading.Event()

    def run(group):
        group.barrier()
        if group.rank == 2:
            release.wait(20)
        group.all_reduce(tl.ones(3))

    try:
        with pytest.raises(DistributedError, match=r"rank 2 did not call all_reduce.* within 0.2 seconds\. The"):
            dist.run_ranks(run, 3, timeout=0.2)
    finally:
        release.set()


def test_different_values_name_the_ranks():
    with pytest.raises(DistributedError, match="steps: expected the same on all ranks, but ranks 0 and 1 got"):
        dist.run_ranks(lambda g: g.check_equal("steps", "5" if g.rank < 2 else "6"), 3)


@pytest.mark.parametrize("timeout", [0, -1, "1", None, float("nan")])
def test_init_checks_the_timeout(timeout):
    with pytest.raises(ValueError, match="init: expected a timeout in seconds"):
        dist.init(timeout)


def test_each_rank_of_a_machine_has_a_device_of_its_own(monkeypatch):
    monkeypatch.setattr(tl.cuda, "device_count", lambda: 2)
    devices = dist.run_ranks(lambda group: [str(group.local_device(name)) for name in ("cuda", "cuda:1", "cpu")], 3)
    assert devices == [["cuda:0", "cuda:1", "cpu"], ["cuda:1", "cuda:1", "cpu"], ["cuda:0", "cuda:1", "cpu"]]
    assert str(dist.Group().local_device("cuda")) == "cuda:0"
    with pytest.raises(tl.DeviceError, match="expected one of"):
        dist.Group().local_device("gpu")
