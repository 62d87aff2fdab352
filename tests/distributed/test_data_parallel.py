"""DataParallel: the gradients of N ranks are those of one process with all their batches."""

import threading
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorlite as tl
import tensorlite.distributed as dist
from tensorlite import nn
from tensorlite.distributed import DistributedError

LOCK = threading.Lock()  # because the ranks share the random numbers of the process


class Net(nn.Module):
    """A random network: tied weights, a parameter that only some inputs use, and one that none uses."""

    def __init__(self, widths: list[int], tied: bool, optional: bool, unused: bool, seed: int) -> None:
        super().__init__()
        with LOCK:
            tl.manual_seed(seed)
            self.first = nn.Linear(3, widths[0])
            self.hidden = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(widths)])
            self.last = nn.Linear(widths[-1], 2)
            self.again = self.first.weight if tied else None
            self.extra = nn.Linear(2, 2) if optional else None
            self.unused = nn.Linear(4, 4) if unused else None

    def forward(self, x: tl.Tensor) -> tl.Tensor:
        positive = bool((x.sum() > 0).item())
        h = self.first(x).tanh()
        for layer in self.hidden:
            h = layer(h).tanh()
        y = self.last(h)
        if self.again is not None:
            y = y + (x @ self.again.T)[:, :1]
        return self.extra(y) if self.extra is not None and positive else y


def batch(seed: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs and targets of a rank, whose sums have different signs."""
    rng = np.random.default_rng([seed, rank])
    return rng.standard_normal((4, 3)) + (1 if rank % 2 else -1), rng.standard_normal((4, 2))


def loss_of(model: nn.Module, seed: int, rank: int) -> tl.Tensor:
    """Return the loss of a rank's batch."""
    x, y = batch(seed, rank)
    return (model(tl.tensor(x)) - tl.tensor(y)).square().mean()


def train_alone(make, size, seed, steps=3, accumulate=1):
    """Train on the batches of all ranks in one process, and return the parameters and the gradients at the end."""
    model = make()
    optimizer = tl.optim.Adam(model.parameters(), lr=0.01)
    for step in range(steps):
        optimizer.zero_grad()
        for part in range(accumulate):
            sum(loss_of(model, seed + step * 10 + part, rank) for rank in range(size)).div(size).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return state_of(model)


def state_of(model: nn.Module) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Return the values and gradients of the parameters."""
    return [(p.detach().numpy().copy(), None if p.grad is None else p.grad.numpy().copy()) for p in model.parameters()]


def train_together(make, size, seed, steps=3, accumulate=1, bucket_cap_mb=4.0, how="overlap"):
    """Train on ``size`` ranks, and return the state of each."""

    def run(group):
        model = make()
        if group.rank:
            with tl.no_grad():
                for p in model.parameters():
                    p.add_(1.0)  # Rank 0 decides.
        parallel = dist.DataParallel(model, group, bucket_cap_mb)
        optimizer = tl.optim.Adam(model.parameters(), lr=0.01)
        for step in range(steps):
            optimizer.zero_grad()
            for part in range(accumulate):
                last = part == accumulate - 1
                if last and how == "overlap":
                    loss_of(parallel, seed + step * 10 + part, group.rank).backward()
                else:
                    with parallel.no_sync():
                        loss_of(parallel, seed + step * 10 + part, group.rank).backward()
            if how == "after":
                dist.average_gradients(model.parameters(), group)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        return state_of(model)

    return dist.run_ranks(run, size)


def assert_same_bits(a, b):
    for (p, g), (q, h) in zip(a, b, strict=True):
        assert p.tobytes() == q.tobytes()
        assert (g is None) == (h is None)
        assert g is None or g.tobytes() == h.tobytes()


@settings(deadline=None, max_examples=25)
@given(
    size=st.integers(1, 4),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    accumulate=st.integers(1, 3),
    megabytes=st.sampled_from([1e-6, 1e-4, 3e-4, 4.0]),
    seed=st.integers(0, 5),
)
def test_ranks_train_as_one_process(size, widths, flags, accumulate, megabytes, seed):
    def make():
        return Net(widths, *flags, seed)

    tl.set_default_dtype(tl.float64)
    try:
        alone = train_alone(make, size, seed, accumulate=accumulate)
        ranks = train_together(make, size, seed, accumulate=accumulate, bucket_cap_mb=megabytes)
        other = train_together(make, size, seed, accumulate=accumulate, how="after")
    finally:
        tl.set_default_dtype(tl.float32)
    for state in (*ranks[1:], *other):
        assert_same_bits(state, ranks[0])
    for (p, g), (q, h) in zip(alone, ranks[0], strict=True):
        np.testing.assert_allclose(q, p, rtol=1e-9, atol=1e-12)
        assert (g is None) == (h is None)
        if g is not None:
            np.testing.assert_allclose(h, g, rtol=1e-7, atol=1e-12)


def test_gradients_start_while_the_pass_goes_on():
    def run(group):
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        parallel = dist.DataParallel(model, group, bucket_cap_mb=1e-6)
        started = []

        def look(g):
            started.append(parallel.reducer.started)

        h = model[1](model[0](tl.ones(1, 3)))
        h.register_hook(look)
        model[2](h).sum().backward()
        return started

    assert dist.run_ranks(run, 2) == [[2], [2]]


def test_transfers_go_on_after_each_node():
    def run(group):
        last, first = nn.Linear(4, 2, bias=False), nn.Linear(3, 4, bias=False)
        parallel = dist.DataParallel(nn.ModuleList([first, last]), group, bucket_cap_mb=1e-6)
        polled = []
        progress = group.communicator.progress
        group.communicator.progress = lambda: (polled.append(parallel.reducer.started), progress())
        h = first(tl.ones(1, 3))
        for _ in range(5):
            h = h.tanh()
        last(h).sum().backward()
        return polled.count(1)

    assert min(dist.run_ranks(run, 2)) > 5


def test_hooks_of_parameters_run_before_the_average():
    def run(group):
        model = nn.Linear(1, 1, bias=False)
        parallel = dist.DataParallel(model, group)
        model.weight.register_hook(lambda g: g * 10)
        parallel(tl.full((1, 1), group.rank + 1.0)).sum().backward()
        return model.weight.grad.item()

    assert dist.run_ranks(run, 2) == [15.0, 15.0]


def test_an_existing_gradient_is_changed_in_place():
    def run(group):
        model = nn.Linear(1, 1, bias=False)
        parallel = dist.DataParallel(model, group)
        model.weight.grad = mine = tl.ones(1, 1)
        parallel(tl.full((1, 1), group.rank + 1.0)).sum().backward()
        return mine.item(), model.weight.grad is mine

    assert dist.run_ranks(run, 2) == [(2.5, True), (2.5, True)]


def test_autograd_grad_is_that_of_the_rank():
    def run(group):
        model = dist.DataParallel(nn.Linear(1, 1, bias=False), group)
        y = model(tl.full((1, 1), group.rank + 1.0)).sum()
        return tl.autograd.grad(y, model.module.weight)[0].item()

    assert dist.run_ranks(run, 2) == [1.0, 2.0]


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_step_that_averages_is_not_recorded(wrapped):
    def run(group):
        model = nn.Linear(1, 1, bias=False)
        parallel = dist.DataParallel(model, group)

        @tl.compile
        def step(x):
            loss = (parallel if wrapped else model)(x).sum()
            loss.backward()
            return loss

        gradients = []
        for k in range(6):
            model.weight.grad = None
            step(tl.full((1, 1), float(group.rank + k)))
            gradients.append(model.weight.grad.item())
        return gradients

    assert dist.run_ranks(run, 2) == [[0.5 + k for k in range(6)]] * 2


def test_a_recorded_step_averages_gradients_and_values():
    """The whole step is replayed, and has the bits of the plain one. A step that sends by itself is a plain one."""

    def train(group, record):
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
        with tl.no_grad():
            for i, p in enumerate(model.parameters()):
                p.copy_(tl.tensor(np.random.default_rng(i).standard_normal(p.shape).astype(np.float32)))
        parallel = dist.DataParallel(model, group, values=1)
        optimizer = tl.optim.AdamW(model.parameters(), lr=0.1)

        def step(x):
            loss = model(x).square().mean()
            loss.backward()
            mean = parallel.average_gradients(loss.detach().reshape(1))
            norm = nn.utils.clip_grad_norm_(parallel.trained, 0.3)
            optimizer.step()
            optimizer.zero_grad()
            return mean, norm

        recorded = tl.compile(step) if record else step
        results = []
        for k in range(8):
            with parallel.no_sync():
                x = np.random.default_rng([k, group.rank]).standard_normal((5, 3)).astype(np.float32)
                results += [value.numpy().tobytes() for value in recorded(tl.tensor(x))]
        if record:
            assert "5 replayed; captured" in recorded.explain()
            recorded(tl.tensor(x))  # Its backward pass sends by itself, so this is a plain step.
            assert "5 replayed; captured" in recorded.explain()
        return results

    plain = dist.run_ranks(lambda group: train(group, False), 2)
    recorded = dist.run_ranks(lambda group: train(group, True), 2)
    assert recorded == plain
    assert plain[0][::2] == plain[1][::2]


def test_values_are_averaged_with_the_gradients():
    def run(group):
        model = nn.Linear(2, 1)
        parallel = dist.DataParallel(model, group, values=2)
        parallel.set_values(tl.tensor([1.0 + group.rank, 5.0]))
        parallel(tl.ones(1, 2)).sum().backward()
        return parallel.mean_values().tolist(), len(list(parallel.parameters()))

    assert dist.run_ranks(run, 3) == [([2.0, 5.0], 2)] * 3
    alone = dist.DataParallel(nn.Linear(2, 1), values=1)
    assert alone.average_gradients(tl.tensor([3.0])).tolist() == [3.0]
    with pytest.raises(ValueError, match="mean_values: expected values to be set before the backward pass"):
        dist.DataParallel(nn.Linear(2, 1), values=1).mean_values()
    with pytest.raises(ValueError, match="set_values: expected a DataParallel with values, got one without"):
        dist.DataParallel(nn.Linear(2, 1)).set_values(tl.ones(1))
    with pytest.raises(tl.ShapeError, match=r"average_gradients: expected float32\(1,\), got float32\(2,\)"):
        alone.average_gradients(tl.ones(2))
    with pytest.raises(ValueError, match="values must not be negative, got -1"):
        dist.DataParallel(nn.Linear(2, 1), values=-1)


def test_other_models_are_an_error():
    with pytest.raises(DistributedError, match="names, shapes and dtypes of the module"):
        dist.run_ranks(lambda g: dist.DataParallel(nn.Linear(1, 1 + g.rank), g), 2)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (lambda: (len,), TypeError, "DataParallel: expected a Module, got builtin_function_or_method"),
        (lambda: (nn.Linear(1, 1), None, 0), ValueError, "bucket_cap_mb must be positive"),
        (lambda: (nn.Linear(1, 1), None, "1"), TypeError, "bucket_cap_mb"),
    ],
)
def test_errors(arguments, error, words):
    with pytest.raises(error, match=words):
        dist.DataParallel(*arguments())


def test_one_process_has_no_observer():
    from tensorlite.autograd.gradient_observers import gradient_observers

    before = len(gradient_observers)
    model = dist.DataParallel(nn.Linear(2, 1))
    model(tl.ones(1, 2)).sum().backward()
    dist.average_gradients(model.parameters())
    assert len(gradient_observers) == before
    np.testing.assert_array_equal(model.module.weight.grad.numpy(), [[1.0, 1.0]])
