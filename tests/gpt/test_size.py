"""Test the parameters, memory and arithmetic of configurations."""

import pytest

from gpt.config import Config, ModelConfig
from gpt.model import size


@pytest.mark.parametrize(
    ("name", "count"),
    # GPT-2's published weights; nanoGPT's documented 0.80M and 10.65M (which leaves out 98,304 positions).
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("shakespeare-char-cpu", 804_096),
        ("shakespeare-char", 10_646_784 + 98_304),
    ],
)
def test_parameter_counts(name, count):
    assert size.parameter_count(Config.load(name).model) == count


def test_sinusoidal_positions_are_not_parameters():
    learned = ModelConfig(position="learned")
    fixed = ModelConfig(position="sinusoidal")
    assert size.parameter_count(learned) - size.parameter_count(fixed) == learned.block_size * learned.n_embd


def test_flops():
    config = Config.load("gpt2")
    # 6 N for the 123,653,376 parameters that multiply, and 12 L H Q T = 12 * 12 * 768 * 1024.
    assert size.flops_per_token(config.model) == 6 * 123_653_376 + 113_246_208
    assert size.tokens_per_step(config) == 491_520  # nanoGPT's half a million: 40 * 12 * 1024
    assert size.flops_per_step(config) == 491_520 * size.flops_per_token(config.model)


def test_memory():
    config = Config.load("gpt2")
    memory = size.memory(config)
    assert memory["parameters"] == memory["gradients"] == 4 * 124_439_808
    assert memory["optimizer state"] == 8 * 124_439_808
    double = size.memory(config.replace({"train.dtype": "float64", "train.batch_size": 24}))
    assert double["parameters"] == 2 * memory["parameters"]
    assert double["activations (estimate)"] == 4 * memory["activations (estimate)"]
    half = size.memory(config.replace({"train.dtype": "bfloat16"}))
    assert half["parameters"] == memory["parameters"]
    assert half["parameters in bfloat16"] == 2 * 124_439_808
    assert 0.5 < half["activations (estimate)"] / memory["activations (estimate)"] < 0.75


def test_summary_names_every_number_with_its_unit():
    summary = size.summary(Config.load("gpt2"))
    for part in ("124,439,808", "498 MB", "996 MB", "420 TFLOP", "491,520", "252 EFLOP"):
        assert part in summary


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_345, "12.3 kB"), (999_999, "1.00 MB")],
)
def test_format_si(value, text):
    assert size.format_si(value, "B") == text
