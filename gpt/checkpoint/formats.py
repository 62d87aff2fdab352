"""Checkpoint formats, chosen by the suffix of the file. A folder is one of Hugging Face's."""

import pkgutil
from pathlib import Path
from typing import Protocol

from gpt.checkpoint.base import Checkpoint, Info
from gpt.checkpoint.tensor_files import PICKLED
from gpt.config import Config


class Format(Protocol):
    """A module that reads one format."""

    def load(
        self,
        path: Path,
        device: str = "auto",
        *,
        training: bool = False,
        dtype: str = "float32",
        quantize: str = "none",
    ) -> Checkpoint:
        """Read a checkpoint onto `device`."""
        ...

    def load_info(self, path: Path) -> Info:
        """Return the configuration and the step of a checkpoint."""
        ...


# To add a format, write its module and add a line here. Files with another suffix are read as the native format.
NATIVE, FOLDER = "gpt.checkpoint.native", "gpt.checkpoint.huggingface"
FOLDER_FILES = ("config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json", *PICKLED)
FORMATS = {".safetensors": NATIVE, ".gguf": "gpt.checkpoint.gguf"}


def format_of(path: Path) -> Format:
    """Return the module that reads a path."""
    name = FOLDER if is_model_folder(path) else FORMATS.get(path.suffix, NATIVE)
    module: Format = pkgutil.resolve_name(name)
    return module


def is_model_folder(path: Path) -> bool:
    """Return whether a path is a folder with a file of a Hugging Face folder, whole or not."""
    return any((path / name).is_file() for name in FOLDER_FILES)


def load(
    path: str | Path,
    device: str = "auto",
    *,
    training: bool = False,
    dtype: str = "float32",
    quantize: str = "none",
) -> Checkpoint:
    """Read a checkpoint of any format onto `device` (see `train.device`). Raises CheckpointError and DeviceError.

    training: also read the state of the optimizer. Without it, `optimizer` is None and the model in evaluation mode.
    dtype: float32 or float64, for a folder or a GGUF file; a checkpoint of ours keeps its own.
    quantize: none; auto, which keeps Q8_0, Q4_0 and Q4_1 of a GGUF file as they are; int8 or int4. A quantized model
        predicts in float32 on the CPU, and cannot be trained.
    """
    return format_of(Path(path)).load(Path(path), device, training=training, dtype=dtype, quantize=quantize)


def load_info(path: str | Path) -> Info:
    """Return the configuration and the step of a checkpoint of any format, without reading its weights.

    Raises CheckpointError.
    """
    return format_of(Path(path)).load_info(Path(path))


def load_config(path: str | Path) -> Config:
    """Return the configuration in a checkpoint of any format, without reading its weights. Raises CheckpointError."""
    return load_info(path).config
