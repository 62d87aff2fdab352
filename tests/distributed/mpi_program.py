"""A program of several ranks, which `test_mpi.py` starts with mpiexec. Its argument says what it does."""

import os
import sys
import time

import numpy as np

import tensorlite as tl
import tensorlite.distributed as dist
import tensorlite.testing.strict
from tensorlite import nn
from tensorlite.distributed import Group, reduction

LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "empty": lambda x: x[:0],
}
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int8", "uint8", "bool")


def every_kind(group: Group) -> list[bytes]:
    """Return the bytes of the results of every collective, for every dtype and layout."""
    results = []
    for dtype in DTYPES:
        kind = tl.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
        for layout in LAYOUTS.values():
            values = np.random.default_rng(group.rank).standard_normal((40, 60)) * 9
            x = tl.from_numpy(layout(values.astype(kind)))
            rows = tl.from_numpy(np.moveaxis(np.stack([x.array] * group.size, axis=1), 1, 0))
            op = "max" if dtype == "bool" else "sum"
            made = group.all_reduce(x, op), group.reduce_scatter(rows, op), group.all_gather(x), group.broadcast(x, 1)
            results += [y.array.tobytes() for y in made]
    return results


def trained(group: Group, sharded: bool) -> list[bytes]:
    """Return the parameters of a model that was trained with small buckets, and the state of the optimizer on rank 1.

    sharded: whether the ranks divide the state of the optimizer among them.
    """
    model = nn.Sequential(nn.Linear(50, 60), nn.Tanh(), nn.Linear(60, 7))
    with tl.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(tl.tensor(np.random.default_rng(i).standard_normal(p.shape).astype(np.float32)))
    parallel = dist.DataParallel(model, group, bucket_cap_mb=0.01)
    optimizer: tl.optim.Optimizer
    if sharded:
        optimizer = zero = dist.ZeroRedundancyOptimizer(model.parameters(), tl.optim.Adam, group, lr=0.01)
    else:
        optimizer = tl.optim.Adam(model.parameters(), lr=0.01)
    for step in range(5):
        x = tl.tensor(np.random.default_rng([step, group.rank]).standard_normal((8, 50)).astype(np.float32))
        optimizer.zero_grad()
        parallel(x).square().mean().backward()
        optimizer.step()
    if sharded:
        zero.consolidate_state_dict(to=1)
    state = optimizer.state_dict()["state"] if group.rank == 1 else {}
    means = [state[k][name] for k in sorted(state) for name in ("exp_avg", "exp_avg_sq")]
    return [x.detach().numpy().tobytes() for x in [*model.parameters(), *means]]


def main(what: str) -> None:
    """Do what the argument says, and print what the test expects."""
    reduction.PIECE = 1 << 12  # so that several pieces are sent
    group = dist.init(timeout=3)
    if what == "compute":
        x = tl.tensor([0.1, -2.0]) * (group.rank + 1)
        assert group.all_reduce(x.to("strict")).tolist() == group.all_reduce(x).tolist()  # through the host
        mine = every_kind(group) + trained(group, sharded=True)
        assert trained(group, sharded=True) == trained(group, sharded=False)
        group.check_equal("threads", str(tl.get_num_threads()))
        assert group.local_rank == group.rank  # on one machine
        if group.rank == 0:
            alone = dist.run_ranks(lambda g: every_kind(g) + trained(g, sharded=True), group.size)
            assert mine == alone[0]
            shared = tl.get_num_threads() * group.size <= max(group.size, len(os.sched_getaffinity(0)))
            print("same", group.size, shared)
        return
    with group.activity("step 3"):
        group.barrier()
    if group.rank == 1:
        match what:
            case "raise":
                raise ValueError("mine")
            case "end":
                return
            case "hang":
                time.sleep(60)
            case "differ":
                group.barrier()
    group.all_reduce(tl.ones(3))


if __name__ == "__main__":
    main(sys.argv[1])
