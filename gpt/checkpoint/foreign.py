"""What the formats of other programs share: the checkpoint that becomes of their model and tokenizer."""

import re
from pathlib import Path

from gpt.checkpoint.base import Checkpoint, CheckpointError
from gpt.config import Config, DataConfig, ModelConfig, TrainConfig
from gpt.model import GPT
from gpt.tokenizer import Tokenizer


def foreign_checkpoint(path: Path, model: GPT, tokenizer: Tokenizer, dtype: str) -> Checkpoint:
    """Return a model and its tokenizer as a checkpoint after 0 steps, without a state of training."""
    return Checkpoint(foreign_config(path, model.config, dtype), tokenizer, 0, model, None, {})


def foreign_config(path: Path, model: ModelConfig, dtype: str = "float32") -> Config:
    """Return the configuration of a model that another program has trained. Its name is that of the folder or file."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", (path.resolve().stem if path.is_file() else path.resolve().name))
    data, train = DataConfig(tokenizer="huggingface"), TrainConfig(dtype=dtype)
    return Config(name=name.strip("-._") or "model", data=data, model=model, train=train)


def refuse_training(path: Path, training: bool) -> None:
    """Raise CheckpointError if a run should resume from a file that has no state of training."""
    if training:
        raise CheckpointError(
            f"{str(path)!r} has a model, but no state of training, so no run can resume from it. "
            "Start a run from its weights: --init-from"
        )
