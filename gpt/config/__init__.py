"""Configurations: frozen dataclasses that validate every field, read from presets or TOML files.

A `Config` has a name and five sections: `data`, `model`, `lora`, `optim`, `train`. Each field describes itself, and the
command line makes an option from that description. Configurations are data: TOML is parsed, never executed.
"""

from gpt.config.config import DEFAULT_PRESET, Config
from gpt.config.fields import ConfigError, Field, Section, value_type
from gpt.config.sections import (
    JSON_LINES,
    OPTIMIZERS,
    QUANTIZATIONS,
    SECTIONS,
    TOKENIZERS,
    DataConfig,
    LoraConfig,
    ModelConfig,
    OptimConfig,
    SamplingConfig,
    TrainConfig,
)
from gpt.config.toml import preset_names

__all__ = [
    "DEFAULT_PRESET",
    "JSON_LINES",
    "OPTIMIZERS",
    "QUANTIZATIONS",
    "SECTIONS",
    "TOKENIZERS",
    "Config",
    "ConfigError",
    "DataConfig",
    "Field",
    "LoraConfig",
    "ModelConfig",
    "OptimConfig",
    "SamplingConfig",
    "Section",
    "TrainConfig",
    "preset_names",
    "value_type",
]
