"""Checkpoints: everything a run needs to continue or to generate text, in one file."""

from gpt.checkpoint.native import (
    BEST,
    KEY,
    LATEST,
    Checkpoint,
    CheckpointError,
    build,
    damage,
    find,
    load,
    load_config,
    newest,
    save,
)

__all__ = [
    "BEST",
    "KEY",
    "LATEST",
    "Checkpoint",
    "CheckpointError",
    "build",
    "damage",
    "find",
    "load",
    "load_config",
    "newest",
    "save",
]
