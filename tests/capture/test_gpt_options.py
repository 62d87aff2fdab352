"""Test that the step of a GPT with each value of each option is recorded, and replayed with the bits of a plain one."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import tensorlite as tl
from gpt.config import ModelConfig, OptimConfig
from gpt.config.fields import ConfigError
from gpt.config.sections import NEEDS
from gpt.model import GPT
from gpt.train import configure_optimizer, configure_schedule
from gpt.train.step import Stepper

SIZES: dict[str, Any] = {"vocab_size": 11, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}

# Values of the options that have no list of values; of numbers those that take another way through the code.
VALUES: dict[str, list[Any]] = {
    "vocab_size": [2], "block_size": [9], "n_layer": [2], "n_head": [1, 4], "n_embd": [12], "dropout": [0.2],
    "previous_tokens": [1, 3], "norm_eps": [1e-3], "n_inner": [5], "n_kv_head": [1, 2], "head_dim": [6],
    "init_std": [0.5], "sliding_window": [1, 3, 99], "full_layers": [1], "rope_theta": [50.0],
    "rope_factor": [4.0], "rope_original_context": [3], "rope_low_freq_factor": [2.0], "rope_high_freq_factor": [9.0],
    "rope_beta_fast": [4.0], "rope_beta_slow": [0.1], "rope_attention_factor": [1.5],
    "muon_lr": [0.1], "muon_momentum": [0.5], "lr": [0.1], "min_lr": [0.0], "decay_fraction": [0.5],
    "warmup_steps": [0], "beta1": [0.5],
    "beta2": [0.5], "eps": [1e-3], "weight_decay": [0.0], "grad_clip": [0.0, 0.1],
}  # fmt: skip
# What an option needs, where `NEEDS` does not say all.
WITH: dict[str, dict[str, Any]] = {
    "attention_dropout": {"dropout": 0.2}, "full_layers": {"sliding_window": 3, "n_layer": 2},
    "n_kv_head": {"n_head": 4}, "rope_scaling": {"position": "rope", "rope_factor": 4.0},
    "rope_factor": {"position": "rope", "rope_scaling": "yarn"},
    "muon_lr": {"optimizer": "muon"}, "muon_momentum": {"optimizer": "muon"},
    "decay_fraction": {"schedule": "wsd"}, "decay_shape": {"schedule": "wsd"},
}  # fmt: skip
TOGETHER: list[dict[str, Any]] = [
    {"position": "rope", "previous_tokens": 2, "sliding_window": 3, "n_kv_head": 1, "qk_norm": True, "dropout": 0.2},
    {"position": "sinusoidal", "previous_tokens": 2, "sliding_window": 3, "n_layer": 2, "full_layers": 1,
     "mlp": "swiglu"},
    {"position": "rope", "previous_tokens": 2, "norm": "rms", "mlp": "relu2", "qk_norm": True, "tied": False,
     "zero_init": True, "optimizer": "muon", "grad_clip": 0.0, "schedule": "linear"},
    {"position": "rope", "rope_scaling": "dynamic", "rope_factor": 4.0, "rope_original_context": 2, "n_kv_head": 1},
]  # fmt: skip


def needs(name: str) -> dict[str, Any]:
    """Return other options with which an option has an effect."""
    if name in WITH or name not in NEEDS:
        return WITH.get(name, {})
    other, accepted = NEEDS[name]
    return needs(other) | {other: accepted[0]}


def values_of(field: Any) -> list[Any]:
    """Return the values of an option that are not its default."""
    choices = field.metadata["choices"] or ([False, True] if isinstance(field.default, bool) else VALUES[field.name])
    return [value for value in choices if value != field.default]


def configs(options: dict[str, Any]) -> tuple[ModelConfig, OptimConfig]:
    """Return a configuration with these options. Raises ConfigError."""
    of_model = {f.name for f in dataclasses.fields(ModelConfig)}
    return (
        ModelConfig(**SIZES | {k: v for k, v in options.items() if k in of_model}),
        OptimConfig(**{"warmup_steps": 2} | {k: v for k, v in options.items() if k not in of_model}),
    )


def cases() -> list[dict[str, Any]]:
    """Return a few sets of options, such that each value of each option is in one of them."""
    found: list[dict[str, Any]] = []
    for section in (ModelConfig, OptimConfig):
        for field in dataclasses.fields(section):
            for value in values_of(field):
                new = {**needs(field.name), field.name: value}
                for case in found:
                    if not any(case.get(k, v) != v for k, v in new.items()) and is_valid(case | new):
                        case.update(new)
                        break
                else:
                    found.append(new)
    return found


def is_valid(options: dict[str, Any]) -> bool:
    try:
        return bool(configs(options))
    except ConfigError:
        return False


def train(options: dict[str, Any], compiled: bool) -> tuple[list[bytes], Any]:
    """Return the bits of losses, norms and parameters after 6 steps, of which a compiled step replays 3."""
    tl.manual_seed(0)
    config, optim = configs(options)
    model = GPT(config)
    optimizer = configure_optimizer(model, optim)
    schedule = configure_schedule(optimizer, optim, 6)
    stepper = Stepper(
        model, optimizer, schedule, list(model.parameters()), optim.grad_clip or math.inf, autocast=None, scaler=None
    )
    step: Any = tl.compile(stepper.step_and_clear) if compiled else stepper.step_and_clear
    bits = []
    for k in range(6):
        ids = np.random.default_rng(k).integers(0, config.vocab_size, (2, 2, config.block_size))
        bits += [t.array.tobytes() for t in step([(tl.tensor(ids[0]), tl.tensor(ids[1]))])]
    return bits + [p.array.tobytes() for p in model.parameters()], step


@pytest.mark.parametrize("options", [*cases(), *TOGETHER])
def test_each_option_is_replayed_with_the_same_bits(options: dict[str, Any]) -> None:
    plain, _ = train(options, False)
    replayed, step = train(options, True)
    assert replayed == plain
    assert step.explain().endswith("6 calls, 3 replayed; captured")
