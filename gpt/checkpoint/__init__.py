"""Checkpoints: everything that a run needs to continue or to generate text, in one file."""

from gpt.checkpoint.base import Checkpoint, CheckpointError, corruption_errors, damaged
from gpt.checkpoint.formats import load, load_config, load_step
from gpt.checkpoint.native import save

__all__ = ["Checkpoint", "CheckpointError", "corruption_errors", "damaged", "load", "load_config", "load_step", "save"]
