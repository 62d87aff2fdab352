"""Test that the plan of a captured step, whose results stay where they are, gives the bits of the plain step."""

import copy
import functools
import inspect
import math
from typing import Any

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import ModelConfig, OptimConfig
from gpt.model import GPT
from gpt.train import configure_optimizer
from tensorlite import nn, optim
from tensorlite.autograd.engine import sum_to_input_shape
from tensorlite.capture import plan as plan_module
from tensorlite.capture.plan import Plan
from tensorlite.capture.planners import PLANNERS

VOCABULARY, CONTEXT, BATCH = 65, 32, 8


class Training:
    """A GPT that is large enough for compiled kernels, and its step."""

    def __init__(self, compiled: bool, **options: Any) -> None:
        tl.manual_seed(0)
        sizes: dict[str, Any] = {"n_layer": 1, "n_head": 3, "n_embd": 48, **options}
        self.model = GPT(ModelConfig(vocab_size=VOCABULARY, block_size=CONTEXT, **sizes))
        self.parameters = list(self.model.parameters())
        self.optimizer = configure_optimizer(self.model, OptimConfig(lr=1e-2, weight_decay=0.1, grad_clip=1.0))
        model, parameters, optimizer = self.model, self.parameters, self.optimizer

        def step(x: tl.Tensor, y: tl.Tensor) -> Any:
            _, loss = model(x, y)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            return loss, norm

        self.taken: Any = None
        self.step: Any = tl.compile(step) if compiled else step

    def run(self, first: int, stop: int, arguments: Any = None, change: Any = None) -> list[Any]:
        """Return the bits of the results of steps, read after the last one, or their errors."""
        seen: list[Any] = []
        for k in range(first, stop):
            if change is not None:
                change(self, k)
            try:
                seen.append(self.step(*(arguments or batch)(k)))
            except IndexError as error:
                seen.append([str(error)])
        return [[t if isinstance(t, str) else t.array.tobytes() for t in results] for results in seen]

    def state(self) -> list[bytes]:
        return [p.array.tobytes() for p in self.parameters]

    @property
    def plan(self) -> Plan:
        [signature] = self.step._signatures.values()
        assert signature.capture.plan is not None
        return signature.capture.plan  # type: ignore[no-any-return]

    def called(self) -> int:
        """Return how many functions of ops a replay calls as on the tape."""
        return sum("_add_call" in getattr(call, "__qualname__", "") for call in self.plan.program)


def batch(k: int) -> tuple[tl.Tensor, tl.Tensor]:
    ids = np.random.default_rng(k).integers(0, VOCABULARY, (BATCH, CONTEXT + 1))
    return tl.tensor(ids[:, :-1].copy()), tl.tensor(ids[:, 1:].copy())


@pytest.fixture(autouse=True)
def _settings() -> Any:
    before = tl.get_num_threads()
    yield
    tl.set_num_threads(before)
    tl.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("threads", "fixed", "options", "called"),
    [
        (1, False, {}, 1),
        (2, False, {"dropout": 0.1}, 10),
        (2, True, {"bias": True, "mlp": "swiglu", "norm": "rms"}, 5),
        (1, True, {"mlp": "relu2", "qk_norm": True, "tied": False}, 1),
        (2, False, {"position": "rope", "previous_tokens": 2, "qk_norm": True, "norm": "rms", "mlp": "relu2"}, 1),
        (1, False, {"position": "sinusoidal", "sliding_window": 9, "n_kv_head": 1}, 7),
    ],
)
def test_bits_for_50_steps(threads: int, fixed: bool, options: dict[str, Any], called: int) -> None:
    tl.set_num_threads(threads)
    tl.use_deterministic_algorithms(fixed)
    runs = [Training(compiled, **options) for compiled in (False, True)]
    tl.manual_seed(1)
    plain = runs[0].run(0, 50)
    tl.manual_seed(1)
    assert runs[1].run(0, 50) == plain
    assert runs[1].state() == runs[0].state()
    assert runs[1].called() <= called


def test_planners_take_the_arguments_of_their_functions() -> None:
    for function, planner in PLANNERS.items():
        inner = planner.func if isinstance(planner, functools.partial) else planner
        taken = inspect.signature(inner).parameters.values()
        if any(p.kind is p.VAR_POSITIONAL for p in taken) or not inspect.isfunction(function):
            continue
        assert len(taken) - 1 == len(inspect.signature(function).parameters) or function is sum_to_input_shape


# ---- what differs from call to call ------------------------------------------------------------


def with_wrong_ids(k: int) -> tuple[tl.Tensor, tl.Tensor]:
    x, y = batch(k)
    if k in (3, 7, 8):
        x[1, 2] = VOCABULARY
    if k == 10:
        y[0, 0] = VOCABULARY
    return x, y


def with_ignored_targets(k: int) -> tuple[tl.Tensor, tl.Tensor]:
    x, y = batch(k)
    y[: k % 4] = -1  # the ignore_index of a GPT
    return x, y


def with_strides(k: int) -> tuple[tl.Tensor, tl.Tensor]:
    x, y = batch(k)
    return tl.tensor(x.numpy().T.copy()).T, tl.cat([y, y], dim=1)[:, :CONTEXT]


def change_state(run: Training, k: int) -> None:
    group, state = run.optimizer.param_groups[0], run.optimizer.state
    if k == 6:
        run.optimizer.load_state_dict(copy.deepcopy(run.optimizer.state_dict()))
    if k == 8:
        state[run.parameters[0]]["exp_avg"] = tl.zeros_like(run.parameters[0].detach())
    if k == 10:
        state[run.parameters[1]]["step"] = 2
        group["lr"], group["betas"] = 0.1, (0.5, 0.9)


def change_groups(run: Training, k: int) -> None:
    groups = run.optimizer.param_groups
    if k == 6:
        run.taken = groups[0]["params"].pop()
    if k == 10:
        run.optimizer.add_param_group({"params": [run.taken], "lr": 0.3})


def change_threads(run: Training, k: int) -> None:
    tl.set_num_threads(1 + k // 3 % 2)


def change_values(run: Training, k: int) -> None:
    table = run.parameters[0].array
    if k == 6:
        table[...] += 5e3  # Rows whose mean is far from 0 need care in a norm.
    if k == 8:
        table[...] *= 1e25
    if k == 10:
        table[3] = math.nan


@pytest.mark.parametrize("arguments", [with_wrong_ids, with_ignored_targets, with_strides])
def test_bits_for_other_arguments(arguments: Any) -> None:
    runs = [Training(compiled) for compiled in (False, True)]
    results = [run.run(0, 13, arguments=arguments) for run in runs]
    assert results[0] == results[1]
    assert runs[0].state() == runs[1].state()
    assert runs[1].plan.complete


@pytest.mark.parametrize("change", [change_state, change_groups, change_threads, change_values])
def test_bits_after_changes(change: Any) -> None:
    runs = []
    for compiled in (False, True):
        tl.set_num_threads(2)
        run = Training(compiled)
        runs.append((run.run(0, 13, change=change), run.state()))
    assert runs[0] == runs[1]
    [signature] = run.step._signatures.values()
    assert signature.replays >= 4


def test_gradients_that_outlive_the_step_are_not_those_of_the_plan() -> None:
    """The step returns without zero_grad(), so its gradients belong to the user."""
    runs = []
    for compiled in (False, True):
        model = Training(False).model
        optimizer = optim.AdamW(model.parameters())

        def backward(x: tl.Tensor, y: tl.Tensor, model: Any = model, optimizer: Any = optimizer) -> tl.Tensor:
            optimizer.zero_grad()
            _, loss = model(x, y)
            loss.backward()
            optimizer.step()
            return loss

        step = tl.compile(backward) if compiled else backward
        kept = []
        for k in range(8):
            step(*batch(k))
            kept.append([p.grad for p in model.parameters()])
        runs.append([g.array.tobytes() for gradients in kept for g in gradients if g is not None])
    assert runs[0] == runs[1]
    assert "5 replayed" in step.explain()


def test_a_plan_has_no_more_memory_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_MAX_BYTES", 1 << 12)
    runs = [Training(compiled) for compiled in (False, True)]
    assert runs[0].run(0, 7) == runs[1].run(0, 7)
    [signature] = runs[1].step._signatures.values()
    assert signature.replays == 4
    assert signature.capture.plan is None
