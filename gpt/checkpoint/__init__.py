"""Checkpoints: everything that a run needs to continue or to generate text, in one file."""

from gpt.checkpoint.base import Checkpoint, CheckpointError, corruption_errors
from gpt.checkpoint.formats import load, load_config
from gpt.checkpoint.native import save

__all__ = ["Checkpoint", "CheckpointError", "corruption_errors", "load", "load_config", "save"]
