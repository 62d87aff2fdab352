"""Checkpoint formats, chosen by the suffix of the file."""

from pathlib import Path
from typing import Protocol

from gpt.checkpoint import native
from gpt.checkpoint.base import Checkpoint
from gpt.config import Config


class Format(Protocol):
    """A module that reads one format."""

    def load(self, path: Path, device: str = "auto", *, training: bool = False) -> Checkpoint:
        """Read a checkpoint onto `device`."""
        ...

    def load_config(self, path: Path) -> Config:
        """Return the configuration in a checkpoint."""
        ...

    def load_step(self, path: Path) -> int:
        """Return the number of steps of a checkpoint."""
        ...


# To add a format, write its module and add a line here. Files with another suffix are read as the native format.
FORMATS: dict[str, Format] = {".safetensors": native}


def load(path: str | Path, device: str = "auto", *, training: bool = False) -> Checkpoint:
    """Read a checkpoint of any format onto `device` (see `train.device`). Raises CheckpointError and DeviceError.

    training: also read the state of the optimizer. Without it, `optimizer` is None and the model in evaluation mode.
    """
    return FORMATS.get(Path(path).suffix, native).load(Path(path), device, training=training)


def load_config(path: str | Path) -> Config:
    """Return the configuration in a checkpoint of any format, without reading its weights. Raises CheckpointError."""
    return FORMATS.get(Path(path).suffix, native).load_config(Path(path))


def load_step(path: str | Path) -> int:
    """Return the number of steps of a checkpoint of any format, without reading its weights. Raises CheckpointError."""
    return FORMATS.get(Path(path).suffix, native).load_step(Path(path))
