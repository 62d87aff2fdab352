"""Checkpoints: everything a run needs to go on or to write text, in one file.

A checkpoint is a safetensors file. Its tensors are `model.<parameter>` and `optimizer.<index>.<moment>`; the rest,
configuration, tokenizer, step, and the state of the random numbers, is JSON in the file's metadata. One file, put in
place at once: weights and what they belong to cannot be mismatched. Nothing is pickled. The JSON holds a CRC-32 of
every tensor and one of its own, so that a file which changed on its way is found out.

A run's folder holds `checkpoint.safetensors`, the latest, and `best.safetensors`, that of the evaluation with the
lowest loss on the validation set.
"""

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

import tensorlite as tl
from gpt import tokenizer as tokenizers
from gpt.config import Config
from gpt.errors import UserError
from gpt.model import GPT
from gpt.tokenizer import Tokenizer
from tensorlite import optim, serialization

LATEST = "checkpoint.safetensors"
BEST = "best.safetensors"

KEY = "tensorlite.gpt"  # of our JSON in the metadata
FORMAT = 1


class CheckpointError(UserError, ValueError):
    """A checkpoint that is missing, broken, or not ours."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds. `step` steps were done; `optimizer` and `state` matter to training alone."""

    config: Config
    tokenizer: Tokenizer
    step: int
    model: GPT
    optimizer: dict[str, Any] | None
    state: dict[str, Any]


def save(
    path: Path,
    *,
    config: Config,
    tokenizer: Tokenizer,
    step: int,
    model: GPT,
    optimizer: optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Writes a checkpoint. Whatever goes wrong, `path` is the old file or the new one, whole.

    state: what else training needs to go on, in types that JSON has. Raises CheckpointError if it cannot be written.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    moments = optimizer.state_dict()
    numbers: dict[str, dict[str, Any]] = {}
    for index, entries in moments["state"].items():
        for name, value in entries.items():
            if isinstance(value, tl.Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    tensors = {name: value.detach().cpu() for name, value in tensors.items()}
    header = {
        "format": FORMAT,
        "config": config.to_dict(),
        "tokenizer": tokenizer.to_dict(),
        "step": step,
        "optimizer": {"numbers": numbers, "param_groups": moments["param_groups"]},
        "state": state,
        "crc32": {name: crc32(value.numpy()) for name, value in tensors.items()},
    }
    header["check"] = check(header)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        serialization.save(tensors, path, metadata={KEY: json.dumps(header, allow_nan=False)})
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint: {error}. What was saved before is kept") from error


def load(path: Path, device: str = "auto", *, training: bool = False) -> Checkpoint:
    """Reads a checkpoint onto `device` (as `train.device`). Raises CheckpointError, and DeviceError.

    training: read what the optimizer keeps, too; otherwise `optimizer` is None and the model is in evaluation mode.
    """
    with opened(path) as file:  # once: a run that replaces the file meanwhile cannot mix two checkpoints
        header = read_header(path, file)
        with damage(path):
            names = [name for name in file.keys() if training or name.startswith("model.")]
            arrays = {name: file.get_tensor(name) for name in names}
            sums = header.get("crc32", {})
            if wrong := [name for name in names if name in sums and crc32(arrays[name]) != sums[name]]:
                raise ValueError(f"the checksum of {wrong[0]} does not match")
    with damage(path):
        config = Config.from_dict(header["config"])
        tokenizer = tokenizers.from_dict(header["tokenizer"])
        model = build(config, device)
        model.load_state_dict(with_prefix("model.", arrays))
        if tokenizer.vocab_size != config.model.vocab_size:
            raise ValueError(f"{config.model.vocab_size} tokens in the model, {tokenizer.vocab_size} in its tokenizer")
        moments = optimizer_state(header["optimizer"], arrays) if training else None
        model.train(training)
        return Checkpoint(config, tokenizer, int(header["step"]), model, moments, dict(header["state"]))


def load_config(path: Path) -> Config:
    """The configuration in a checkpoint, without reading its weights. Raises CheckpointError."""
    with opened(path) as file:
        header = read_header(path, file)
    with damage(path):
        return Config.from_dict(header["config"])


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """What goes wrong inside is the file's fault: a CheckpointError. A DeviceError is not."""
    try:
        yield
    except tl.DeviceError:
        raise
    except (UserError, SafetensorError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged: {type(error).__name__}: {error}") from error


def crc32(array: Any) -> int:
    """The checksum of a NumPy array's numbers."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def check(header: dict[str, Any]) -> int:
    """The checksum of our JSON, which is what it was again after it was read."""
    return zlib.crc32(json.dumps(header).encode())


def build(config: Config, device: str) -> GPT:
    """A new model of the dtype that `config` asks for, on `device`: a name that tensorlite knows, or `auto`."""
    place = tl.device(None if device == "auto" else device)
    return GPT(config.model).to(place, getattr(tl, config.train.dtype))


def find(path: Path) -> Path:
    """The checkpoint that `path` means: a file, or the latest in the folder of a run. Raises CheckpointError."""
    if path.is_file():
        return path
    if (path / LATEST).is_file():
        return path / LATEST
    what = "give a checkpoint or the folder of a run, such as runs/NAME"
    if path.is_dir():
        raise CheckpointError(f"there is no {LATEST} in the folder {str(path)!r}: {what}")
    raise CheckpointError(f"there is no checkpoint {str(path)!r}: {what}")


def newest(folder: Path) -> Path:
    """The checkpoint below `folder` that was written last. Raises CheckpointError if there is none."""
    found = [path for path in folder.rglob(LATEST) if path.is_file()]
    if not found:
        raise CheckpointError(
            f"there is no checkpoint below {str(folder)!r}: train a model first (python -m gpt train), "
            "or name a checkpoint"
        )
    return max(found, key=lambda path: (path.stat().st_mtime_ns, str(path)))


def opened(path: Path) -> Any:
    """The safetensors file `path`, whose header has been read and fits its length."""
    try:
        path.open("rb").close()  # safe_open calls a file missing that may not be read
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {str(path)!r}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {str(path)!r}: {error.strerror}") from None
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{str(path)!r} is no checkpoint, or only a part of one is left (not a whole safetensors file: {error})"
        ) from error


def read_header(path: Path, file: Any) -> dict[str, Any]:
    """Our JSON in the metadata of an open file."""
    text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise CheckpointError(f"{str(path)!r} is a safetensors file, but no checkpoint of this program")
    try:
        header = json.loads(text)
        version = int(header["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged: its JSON does not parse ({error})") from error
    if version > FORMAT:
        raise CheckpointError(
            f"{str(path)!r} has format {version}, and this version of tensorlite reads formats up to {FORMAT}: "
            "upgrade it"
        )
    if "check" in header and header.pop("check") != check(header):
        raise CheckpointError(f"{str(path)!r} is damaged: the checksum of its JSON does not match")
    return dict(header)


def with_prefix(prefix: str, arrays: dict[str, Any]) -> dict[str, tl.Tensor]:
    """The arrays whose names begin with `prefix`, as Tensors under the rest of their names."""
    return {
        name.removeprefix(prefix): tl.from_numpy(array) for name, array in arrays.items() if name.startswith(prefix)
    }


def optimizer_state(header: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
    """What `Optimizer.state_dict` gave to `save`."""
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in header["numbers"].items()}
    for name, value in with_prefix("optimizer.", arrays).items():
        index, _, moment = name.partition(".")
        state.setdefault(int(index), {})[moment] = value
    return {"state": state, "param_groups": header["param_groups"]}
