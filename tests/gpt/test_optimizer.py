"""Test configure_optimizer, and CombinedOptimizer with schedules, checkpoints and training."""

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import Config, ModelConfig, OptimConfig
from gpt.model import GPT
from gpt.model.size import memory, moments
from gpt.train import configure_optimizer, configure_schedule
from tensorlite import optim
from tensorlite.optim import CombinedOptimizer, lr_scheduler

MODEL = ModelConfig(vocab_size=7, block_size=4, n_layer=2, n_head=1, n_embd=4, bias=True)


def model_and_optimizer(seed=0, **options):
    tl.manual_seed(seed)
    model = GPT(MODEL).to(tl.float64)
    return model, configure_optimizer(model, OptimConfig(optimizer="muon", **options))


def step(model, optimizer, seed):
    ids = np.random.default_rng(seed).integers(0, 7, (2, 5))
    optimizer.zero_grad()
    model(tl.tensor(ids[:, :-1]), tl.tensor(ids[:, 1:]))[1].backward()
    optimizer.step()


def values(model):
    return [p.numpy().copy() for p in model.state_dict().values()]


def test_muon_updates_the_matrices_of_blocks_and_adamw_the_rest():
    model, optimizer = model_and_optimizer(muon_lr=0.05, lr=0.01, min_lr=0.0, weight_decay=0.3)
    names = {p: name for name, p in model.named_parameters()}
    muon, adamw = ([names[p] for p in o.param_groups[0]["params"]] for o in optimizer.optimizers)
    assert [type(o) for o in optimizer.optimizers] == [optim.Muon, optim.AdamW]
    assert sorted(muon) == sorted(n for n, p in model.named_parameters() if n.startswith("h.") and p.ndim == 2)
    assert sorted(muon + adamw) == sorted(names.values())
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.05, 0.3), (0.01, 0.0)]


def test_a_step_takes_one_step_of_each():
    model, combined = model_and_optimizer()
    twin, _ = model_and_optimizer()
    parts = [type(o)(twins(model, twin, o), **options(o)) for o in combined.optimizers]
    for seed in range(3):
        step(model, combined, seed)
        step(twin, Both(parts), seed)
    for a, b in zip(values(model), values(twin), strict=True):
        np.testing.assert_array_equal(a, b)


def twins(model, twin, optimizer):
    place = dict(zip(model.parameters(), twin.parameters(), strict=True))
    return [place[p] for p in optimizer.param_groups[0]["params"]]


def options(optimizer):
    group = optimizer.param_groups[0]
    return {key: group[key] for key in ("lr", "weight_decay", "betas", "eps", "momentum") if key in group}


class Both:
    def __init__(self, parts):
        self.parts = parts

    def zero_grad(self):
        for part in self.parts:
            part.zero_grad()

    def step(self):
        for part in self.parts:
            part.step()


def test_a_schedule_scales_both():
    _, optimizer = model_and_optimizer(muon_lr=0.04, lr=0.01, min_lr=0.0)
    schedule = lr_scheduler.CosineWithWarmup(optimizer, 4, 10)
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.04 * 2 / 5, 0.01 * 2 / 5])


def test_a_linear_schedule():
    config = {"muon_lr": 0.04, "lr": 0.01, "min_lr": 0.002, "warmup_steps": 3, "schedule": "linear"}
    _, optimizer = model_and_optimizer(**config)
    schedule = configure_schedule(optimizer, OptimConfig(**config), 8)
    found = []
    for _ in range(10):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    parts = np.array([1 / 4, 2 / 4, 3 / 4, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5, 0, 0])
    lowest = np.where(np.arange(10) < 3, 0, 0.002 * (1 - parts))
    np.testing.assert_allclose(found, np.stack([0.04 * parts + lowest, 0.01 * parts + lowest], 1), rtol=1e-12)
    _, again = model_and_optimizer(**config)
    again.load_state_dict(optimizer.state_dict())
    resumed = configure_schedule(again, OptimConfig(**config), 8, done=5)
    assert resumed.get_last_lr() == pytest.approx(found[5])


def test_the_schedule_wsd_scales_both_and_continues_with_more_steps():
    config = {"muon_lr": 0.04, "lr": 0.01, "min_lr": 0.002, "warmup_steps": 1, "schedule": "wsd"}
    config["decay_fraction"] = 0.25
    _, optimizer = model_and_optimizer(**config)
    schedule, found = configure_schedule(optimizer, OptimConfig(**config), 8), []
    for _ in range(9):
        found.append([group["lr"] for group in optimizer.param_groups])
        schedule.step()
    assert found[0] == [0.02, 0.005]
    assert found[1:7] == [[0.04, 0.01]] * 6
    np.testing.assert_allclose(found[7:], [[0.021, 0.006], [0.002, 0.002]], rtol=1e-12)
    longer = configure_schedule(optimizer, OptimConfig(**config), 16, done=6)
    assert longer.get_last_lr() == [0.04, 0.01]
    short = configure_schedule(optimizer, OptimConfig(**{**config, "warmup_steps": 20}), 8, done=8)
    assert short.get_last_lr() == pytest.approx([0.04 * 9 / 21, 0.01 * 9 / 21])


def test_the_momentum_of_muon():
    _, optimizer = model_and_optimizer(muon_momentum=0.8)
    assert optimizer.param_groups[0]["momentum"] == 0.8


def test_a_saved_state_resumes_exactly():
    model, optimizer = model_and_optimizer()
    for seed in range(3):
        step(model, optimizer, seed)
    state, weights = optimizer.state_dict(), {n: p.clone() for n, p in model.state_dict().items()}
    numbers = [k for group in state["param_groups"] for k in group["params"]]
    assert sorted(numbers) == list(range(len(list(model.parameters()))))
    again, other = model_and_optimizer(seed=1)
    again.load_state_dict(weights)
    other.load_state_dict({**state, "state": {str(k): v for k, v in state["state"].items()}})
    for seed in range(3, 6):
        step(model, optimizer, seed)
        step(again, other, seed)
    for a, b in zip(values(model), values(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_state_of_another_optimizer_is_an_error():
    model, optimizer = model_and_optimizer()
    adamw = configure_optimizer(model, OptimConfig())
    one = optim.AdamW(model.parameters())
    with pytest.raises(ValueError, match="expected 2 saved parameter groups, got 1"):
        optimizer.load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="Muon"):
        optimizer.load_state_dict(adamw.state_dict())


def test_a_closure_computes_the_loss_once():
    x = tl.ones(2, 2, requires_grad=True)
    y = tl.ones(2, requires_grad=True)
    combined = CombinedOptimizer(optim.Muon([x], lr=0.1), optim.SGD([y], lr=0.1))
    calls = []

    def closure():
        calls.append(1)
        loss = (x.sum() + y.sum()) * 2
        loss.backward()
        return loss

    assert combined.step(closure).item() == 12
    assert calls == [1]
    assert (x != 1).all()
    assert (y != 1).all()


def test_the_state_has_the_counted_size():
    config = Config.load("gpt-nano", {"optim.optimizer": "muon"})
    model = GPT(config.model)
    optimizer = configure_optimizer(model, config.optim)
    ids = tl.tensor(np.zeros((1, 2), np.int64))
    model(ids, ids)[1].backward()
    optimizer.step()
    kept = sum(v.numel() for s in optimizer.state_dict()["state"].values() for v in s.values() if hasattr(v, "numel"))
    assert kept == moments(config)
    assert memory(config)["optimizer state"] == 4 * moments(config)
