"""Checkpoints: everything that a run needs to continue or to generate text, in one file."""

from gpt.checkpoint.base import Checkpoint, CheckpointError, Info, corruption_errors, damaged
from gpt.checkpoint.formats import load, load_config, load_info
from gpt.checkpoint.native import SHARED_ON, Snapshot, save, snapshot

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Info",
    "SHARED_ON",
    "Snapshot",
    "corruption_errors",
    "damaged",
    "load",
    "load_config",
    "load_info",
    "save",
    "snapshot",
]
