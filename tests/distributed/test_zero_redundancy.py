"""ZeroRedundancyOptimizer: N ranks with a share of the state each make the steps of the optimizer itself."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorlite as tl
import tensorlite.distributed as dist
from tensorlite import nn, optim
from tensorlite.distributed import DistributedError, shares
from tensorlite.dtypes import as_dtype
from tensorlite.optim import lr_scheduler

OPTIMIZERS = {
    "SGD": (optim.SGD, {"lr": 0.1}),
    "SGD momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adam": (optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
    "AdamW": (optim.AdamW, {"lr": 0.01}),
    "RMSprop": (optim.RMSprop, {"lr": 0.01, "centered": True, "momentum": 0.5}),
    "Adagrad": (optim.Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.5}),
    "Lion": (optim.Lion, {"lr": 0.01, "weight_decay": 0.1}),
    "Muon": (optim.Muon, {"lr": 0.1}),
}
DTYPES = ["float32", "float64", "float16", "bfloat16"]


class Problem:
    """Parameters with gradients that are the same on every rank: kinds has their shapes, dtypes and layouts."""

    def __init__(self, kinds, groups=1):
        self.parameters = []
        for k, (shape, dtype, transposed) in enumerate(kinds):
            x = np.random.default_rng(k).standard_normal(shape).astype(as_dtype(dtype))
            x = np.asarray(x.T).copy().T if transposed else x
            self.parameters.append(tl.from_numpy(x).requires_grad_())
        parts = [self.parameters[i::groups] for i in range(groups)]
        self.groups = [{"params": part, "lr": 0.01 * (i + 1)} for i, part in enumerate(parts) if part]

    def set_gradients(self, step, missing=()):
        for k, p in enumerate(self.parameters):
            g = np.random.default_rng([k, step]).standard_normal(p.shape).astype(p.dtype)
            p.grad = None if (k, step) in missing else tl.tensor(g)

    def values(self):
        return [p.array.tobytes() for p in self.parameters]


def as_bytes(state_dict):
    """Return a state with bytes instead of Tensors, for comparisons."""


    def plain(value):
        return (value.dtype, value.shape, value.numpy().tobytes()) if isinstance(value, tl.Tensor) else value

    state = {int(k): {n: plain(v) for n, v in values.items()} for k, values in state_dict["state"].items()}
    return {"param_groups": state_dict["param_groups"], "state": state}


def state_bytes(optimizer):
    """Return the bytes of the Tensors in the state."""
    return sum(x.nbytes for s in optimizer.state.values() for x in s.values() if isinstance(x, tl.Tensor))


def linear():
    """Return two vectors with gradients, for tests of errors."""
    p, q = (tl.ones(3, requires_grad=True) for _ in range(2))
    p.grad, q.grad = tl.ones(3), tl.ones(3)
    return p, q


KINDS = st.tuples(
    st.one_of(st.just(()), st.tuples(st.integers(0, 9)), st.tuples(st.integers(1, 9), st.integers(1, 9))),
    st.sampled_from(DTYPES), st.booleans(),
)  # fmt: skip
MATRICES = st.tuples(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.sampled_from(DTYPES), st.booleans())


@settings(deadline=None, max_examples=40)
@given(data=st.data(), name=st.sampled_from(list(OPTIMIZERS)), size=st.integers(1, 4), after=st.integers(1, 4),
       groups=st.integers(1, 3), steps=st.integers(1, 3), pack=st.sampled_from([1, 40, 1 << 22]))  # fmt: skip
def test_ranks_make_the_steps_of_one_process(data, name, size, after, groups, steps, pack):
    kinds = data.draw(st.lists(MATRICES if name == "Muon" else KINDS, min_size=1, max_size=7))
    missing = data.draw(st.sets(st.tuples(st.integers(0, len(kinds) - 1), st.integers(0, 2 * steps))))
    to = data.draw(st.integers(0, size - 1))
    cls, options = OPTIMIZERS[name]

    def train(optimizer, problem, start):
        for step in range(start, start + steps):
            problem.set_gradients(step, missing)
            optimizer.step()

    alone = Problem(kinds, groups)
    optimizer = cls(alone.groups, **options)
    train(optimizer, alone, 0)
    middle, saved = alone.values(), as_bytes(optimizer.state_dict())
    train(optimizer, alone, steps)

    def run(group):
        mine = Problem(kinds, groups)
        zero = dist.ZeroRedundancyOptimizer(mine.groups, cls, group, **options)
        train(zero, mine, 0)
        zero.consolidate_state_dict(to)
        state = zero.state_dict() if group.rank == to else None
        assert {zero.owners[p] for p in zero.state} <= {group.rank}
        return mine.values(), state, state_bytes(zero)

    def resume(group):
        mine = Problem(kinds, groups)
        for p, value in zip(mine.parameters, middle, strict=True):
            p.array[...] = np.frombuffer(value, p.dtype).reshape(p.shape)
        zero = dist.ZeroRedundancyOptimizer(mine.groups, cls, group, **options)
        zero.load_state_dict(state)
        train(zero, mine, steps)
        return mine.values()

    before, shares.PACK = shares.PACK, pack
    try:
        ranks = dist.run_ranks(run, size)
        state = ranks[to][1]
        assert all(values == middle for values, _, _ in ranks)
        assert as_bytes(state) == saved
        assert sum(kept for _, _, kept in ranks) == sum(v.nbytes for s in state["state"].values() for v in s.values()
                                                        if isinstance(v, tl.Tensor))  # fmt: skip
        assert all(values == alone.values() for values in dist.run_ranks(resume, after))
    finally:
        shares.PACK = before


@given(sizes=st.lists(st.integers(0, 1000), max_size=30), ranks=st.integers(1, 6))
def test_shares_are_even(sizes, ranks):
    loads = [0] * ranks
    owners = shares.assign_ranks(sizes, loads)
    assert loads == [sum(n for n, owner in zip(sizes, owners, strict=True) if owner == r) for r in range(ranks)]
    assert max(loads) - min(loads) <= max(sizes, default=0)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_memory_of_a_rank(size):
    """Each rank keeps its share of the two means of AdamW: 8 bytes a number."""

    def run(group):
        model = dist.DataParallel(nn.Sequential(*(nn.Linear(32, 32) for _ in range(8))), group)
        optimizer = dist.ZeroRedundancyOptimizer(model.parameters(), optim.AdamW, group, lr=1e-3)
        model(tl.ones(2, 32)).sum().backward()
        optimizer.step()
        return state_bytes(optimizer)

    assert dist.run_ranks(run, size) == [8 * 8 * (32 * 32 + 32) // size] * size


@pytest.mark.parametrize("cls", [optim.SGD, optim.AdamW])
def test_training_gives_the_bits_of_the_optimizer_itself(cls):
    def run(group, sharded):
        model = nn.Sequential(nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, 1))
        with tl.no_grad():
            for k, p in enumerate(model.parameters()):
                p.copy_(tl.tensor(np.random.default_rng(k).standard_normal(p.shape).astype(np.float32)))
        parallel = dist.DataParallel(model, group)
        make = (lambda p, **o: dist.ZeroRedundancyOptimizer(p, cls, group, **o)) if sharded else cls
        optimizer = make(parallel.parameters(), lr=0.05)
        schedule = lr_scheduler.CosineAnnealingLR(optimizer, 10)
        scaler = tl.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        for step in range(6):
            x = tl.tensor(np.random.default_rng([step, group.rank]).standard_normal((4, 3)).astype(np.float32))
            loss = parallel(x).square().mean()
            scaler.scale(loss * float("inf") if step == 2 and group.rank == 0 else loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parallel.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            optimizer.zero_grad()
        return [p.array.tobytes() for p in model.parameters()], scaler.get_scale(), optimizer.param_groups[0]["lr"]

    plain = dist.run_ranks(lambda g: run(g, False), 3)
    assert len({str(result) for result in plain}) == 1
    assert plain[0][1] == 8.0 * 2 / 2 * 2
    assert dist.run_ranks(lambda g: run(g, True), 3) == plain


def test_a_closure():
    def run(group):
        p, q = linear()
        optimizer = dist.ZeroRedundancyOptimizer([p, q], optim.SGD, group, lr=0.5)

        def closure():
            optimizer.zero_grad()
            loss = p.sum() + q.sum() * 2
            loss.backward()
            return loss

        with tl.no_grad():
            loss = optimizer.step(closure)
        return loss.item(), p.tolist(), q.tolist(), p.grad.tolist(), q.grad.tolist()

    assert dist.run_ranks(run, 1) == [(9.0, [0.5] * 3, [0.0] * 3, [1.0] * 3, [2.0] * 3)]
    assert dist.run_ranks(run, 2) == dist.run_ranks(run, 1) * 2


def test_a_group_that_is_added():
    def run(group):
        problem = Problem([((4, 4), "float32", False), ((3,), "float32", False), ((5, 5), "float32", False)])
        first, second, third = problem.parameters
        optimizer = dist.ZeroRedundancyOptimizer([first, second], optim.AdamW, group, lr=0.1)
        for step in range(4):
            if step == 2:
                optimizer.add_param_group({"params": third, "lr": 0.01})
            problem.set_gradients(step)
            optimizer.step()
        optimizer.consolidate_state_dict()
        state = as_bytes(optimizer.state_dict()) if group.rank == 0 else None
        return problem.values(), state, [optimizer.owners[p] for p in problem.parameters]

    alone, ranks = dist.run_ranks(run, 1)[0], dist.run_ranks(run, 2)
    assert ranks[0][:2] == alone[:2]
    assert ranks[1][0] == alone[0]
    assert ranks[0][2] == [0, 1, 1]


def test_a_function_may_make_the_optimizer():
    """A combined optimizer has its state divided as one, with parameters numbered through all groups."""

    def make(params, lr):
        matrices = [p for p in params if p.ndim == 2]
        return optim.CombinedOptimizer(optim.Muon(matrices, lr), optim.AdamW([p for p in params if p.ndim < 2], lr))

    def run(group):
        problem = Problem([((4, 4), "float32", False), ((3,), "float32", False), ((5, 2), "float32", True)])
        optimizer = dist.ZeroRedundancyOptimizer(problem.parameters, make, group, lr=0.1)
        for step in range(2):
            problem.set_gradients(step)
            optimizer.step()
        optimizer.consolidate_state_dict()
        saved = optimizer.state_dict() if group.rank == 0 else None
        text = json.dumps([saved["param_groups"] if saved else None])
        optimizer.load_state_dict(saved or states[0])
        problem.set_gradients(2)
        optimizer.step()
        states.append(saved)
        return problem.values(), text, as_bytes(saved) if saved else None

    states = []
    alone = dist.run_ranks(run, 1)[0]
    ranks = dist.run_ranks(run, 2)
    assert ranks[0] == alone
    assert ranks[1][0] == alone[0]


def test_a_graph_that_saved_an_old_value_fails_on_every_rank():
    def run(group):
        p, q = linear()
        optimizer = dist.ZeroRedundancyOptimizer([p, q], optim.SGD, group, lr=0.5)
        loss = (p * p).sum() + (q * q).sum()
        optimizer.step()
        with pytest.raises(tl.VersionError, match="changed in place since"):
            loss.backward()
        return all(p.accumulated_grad is not None for p in (p, q))

    assert dist.run_ranks(run, 2) == [True, True]


def test_a_compiled_step():
    def run(group):
        model = nn.Linear(2, 1)
        with tl.no_grad():
            for p in model.parameters():
                p.fill_(1.0)
        optimizer = dist.ZeroRedundancyOptimizer(model.parameters(), optim.AdamW, group, lr=0.1)

        @tl.compile
        def step(x):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        losses = [step(tl.ones(3, 2)).item() for _ in range(6)]
        assert ("replayed; captured" in step.explain()) == (group.size == 1)
        return losses

    alone = dist.run_ranks(run, 1)[0]
    assert all(b < a for a, b in pairwise(alone))
    assert dist.run_ranks(run, 2) == [alone, alone]


def test_state_of_a_share_is_not_a_state_dict():
    def run(group):
        p, q = linear()
        optimizer = dist.ZeroRedundancyOptimizer([p, q], optim.AdamW, group)
        optimizer.step()
        words = rf"state_dict: expected the state of all ranks on rank {group.rank}.*dict\(to={group.rank}\) on every"
        with pytest.raises(DistributedError, match=words):
            optimizer.state_dict()
        optimizer.consolidate_state_dict(to=1)
        if group.rank == 0:
            with pytest.raises(DistributedError, match=words):
                optimizer.state_dict()
        optimizer.param_groups[0]["lr"] = 0.5
        if group.rank == 1:
            saved = optimizer.state_dict()
            assert set(saved["state"]) == {0, 1}
            assert saved["param_groups"][0]["lr"] == 0.5
        optimizer.step()
        if group.rank == 1:
            assert saved["state"][0]["step"] == 1
            assert float(saved["state"][1]["exp_avg"][0]) == pytest.approx(0.1)
        with pytest.raises(DistributedError, match=words):
            optimizer.state_dict()
        with pytest.raises(ValueError, match="consolidate_state_dict: expected a rank from 0 to 1, got 2"):
            optimizer.consolidate_state_dict(2)

    dist.run_ranks(run, 2)


def test_a_state_that_does_not_fit_changes_nothing():
    def run(group):
        p, q = linear()
        optimizer = dist.ZeroRedundancyOptimizer([p, q], optim.AdamW, group, lr=0.25)
        optimizer.step()
        optimizer.consolidate_state_dict(group.size - 1)
        group.barrier()
        good = optimizer.optim.state_dict()
        options = good["param_groups"][0]
        for bad, words in (
            ({}, "expected the result of state_dict"),
            ({"state": {7: {}}, "param_groups": good["param_groups"]}, r"lists parameters \[7\]"),
            ({"state": {}, "param_groups": [{**options, "lr": -1}]}, "AdamW: lr"),
            ({"state": {}, "param_groups": [{**options, "params": [0]}]}, r"groups of \[2\] parameters"),
        ):
            with pytest.raises(ValueError, match=words):
                optimizer.load_state_dict(bad)
        assert optimizer.param_groups[0]["lr"] == 0.25
        return len(optimizer.state)

    assert dist.run_ranks(run, 2) == [1, 1]
    assert dist.run_ranks(run, 1) == [2]


def different_gradients(group):
    p, q = linear()
    q.grad = tl.full((3,), float(group.rank))
    dist.ZeroRedundancyOptimizer([p, q], optim.SGD, group).step()


def different_rates(group):
    dist.ZeroRedundancyOptimizer(linear(), optim.SGD, group, lr=0.1 * (group.rank + 1)).step()


def different_sets(group):
    p, q = linear()
    optimizer = dist.ZeroRedundancyOptimizer([p, q], optim.SGD, group, lr=0.1)
    optimizer.step()
    q.grad = None if group.rank else q.grad
    optimizer.step()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda g: dist.ZeroRedundancyOptimizer([tl.ones(2 + g.rank, requires_grad=True)], optim.SGD, g),
         "ZeroRedundancyOptimizer: shapes and dtypes of the parameters: expected the same on all ranks, but rank 0 got "
         r"'\(2,\) float32', rank 1 got '\(3,\) float32'"),
        (different_gradients, r"gradients at the first step \(average them with DataParallel\): expected the same on"),
        (different_rates, "rank 0 called step of ZeroRedundancyOptimizer with lr 0.1 for parameters 0-1; rank 1 called "
                          "step of ZeroRedundancyOptimizer with lr 0.2 for parameters 0-1"),
        (different_sets, "with lr 0.1 for parameters 0-1; rank 1 called .* with lr 0.1 for parameters 0"),
    ],
)  # fmt: skip
def test_ranks_that_differ_are_an_error(function, words):
    with pytest.raises(DistributedError, match=words):
        dist.run_ranks(function, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((optim.SGD([tl.ones(1, requires_grad=True)]),), TypeError, "expected the class of an optimizer, got SGD"),
        ((lambda params: None,), TypeError, "expected optimizer_class to return an Optimizer, got NoneType"),
        ((), TypeError, "missing a required argument: 'optimizer_class'"),
    ],
)
def test_errors(arguments, error, words):
    with pytest.raises(error, match=f"^ZeroRedundancyOptimizer: .*{words}"):
        dist.ZeroRedundancyOptimizer(linear(), *arguments)


def test_errors_of_the_optimizer_itself():
    with pytest.raises(ValueError, match="AdamW: lr must be"):
        dist.ZeroRedundancyOptimizer(linear(), optim.AdamW, lr=math.nan)
    with pytest.raises(TypeError, match=r"AdamW: .*'learning_rate'; its signature is"):
        dist.ZeroRedundancyOptimizer(linear(), optim.AdamW, learning_rate=0.1)
    with pytest.raises(TypeError, match=r"step: expected a function or nothing, got float"):
        dist.run_ranks(lambda g: dist.ZeroRedundancyOptimizer(linear(), optim.SGD, g).step(1.0), 2)


def test_values_that_json_cannot_hold():
    class Strange(optim.SGD):
        def _update(self, p, g, state, group):
            state["note"] = object()

    def run(group):
        optimizer = dist.ZeroRedundancyOptimizer(linear(), Strange, group)
        optimizer.step()
        optimizer.consolidate_state_dict()

    with pytest.raises(TypeError, match="in the state of parameter 0, got object as 'note'"):
        dist.run_ranks(run, 2)


def test_repr():
    text = repr(dist.ZeroRedundancyOptimizer(linear(), optim.SGD))
    assert text.startswith("ZeroRedundancyOptimizer of 6 of 6 numbers on Group(rank=0, size=1): SGD (")
