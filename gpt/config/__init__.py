"""Configurations: frozen dataclasses, read from presets or TOML files, with every field checked."""

from gpt.config.config import (
    DEFAULT_PRESET,
    SECTIONS,
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
    options,
    preset_names,
)

__all__ = [
    "DEFAULT_PRESET",
    "SECTIONS",
    "Config",
    "ConfigError",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "TrainConfig",
    "options",
    "preset_names",
]
