"""Checkpoint formats, chosen by the suffix of the file."""

from pathlib import Path
from typing import Protocol

from gpt.checkpoint import native
from gpt.checkpoint.base import Checkpoint, Info
from gpt.config import Config


class Format(Protocol):
    """A module that reads one format."""

    def load(self, path: Path, device: str = "auto", *, training: bool = False) -> Checkpoint:
        """Read a checkpoint onto `device`."""
        ...

    def load_info(self, path: Path) -> Info:
        """Return the configuration and the step of a checkpoint."""
        ...


# To add a format, write its module and add a line here. Files with another suffix are read as the native format.
FORMATS: dict[str, Format] = {".safetensors": native}


def load(path: str | Path, device: str = "auto", *, training: bool = False) -> Checkpoint:
    """Read a checkpoint of any format onto `device` (see `train.device`). Raises CheckpointError and DeviceError.

    training: also read the state of the optimizer. Without it, `optimizer` is None and the model in evaluation mode.
    """
    return FORMATS.get(Path(path).suffix, native).load(Path(path), device, training=training)


def load_info(path: str | Path) -> Info:
    """Return the configuration and the step of a checkpoint of any format, without reading its weights.

    Raises CheckpointError.
    """
    return FORMATS.get(Path(path).suffix, native).load_info(Path(path))


def load_config(path: str | Path) -> Config:
    """Return the configuration in a checkpoint of any format, without reading its weights. Raises CheckpointError."""
    return load_info(path).config
