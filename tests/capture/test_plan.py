"""Test that the plan of a captured step, whose results stay where they are, gives the bits of the plain step."""

import functools
import inspect
from typing import Any

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import ModelConfig, OptimConfig
from gpt.model import GPT
from gpt.train import configure_optimizer
from tensorlite import nn
from tensorlite.autograd.engine import sum_to_input_shape
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

        self.step = tl.compile(step) if compiled else step

    def run(self, first: int, stop: int) -> list[Any]:
        seen = []
        for k in range(first, stop):
            try:
                seen.append([t.array.tobytes() for t in self.step(*batch(k))])
            except IndexError as error:
                seen.append([str(error).encode()])
        return seen

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
        (1, False, {}, 6),
        (2, False, {"dropout": 0.1}, 24),
        (2, True, {"bias": True, "mlp": "swiglu", "norm": "rms"}, 30),
        (1, True, {"mlp": "relu2", "qk_norm": True, "tied": False}, 40),
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
