"""The checkpoint format of this project: one safetensors file.

Its tensors are `model.<parameter>` and `optimizer.<index>.<moment>`. The rest is JSON in the metadata of the file:
configuration, tokenizer, step, and the state of the random numbers. The file is replaced as a whole, so that weights
always match their configuration. Nothing is pickled. The JSON holds a CRC-32 of every tensor and of itself, so that
damage in storage or transfer is detected.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import tensorlite as tl
from gpt import tokenizer as tokenizers
from gpt.checkpoint.base import Checkpoint, CheckpointError, corruption_errors
from gpt.config import Config
from gpt.model import GPT, build_model
from gpt.tokenizer import Tokenizer
from tensorlite import nn, optim, serialization

KEY = "tensorlite.gpt"  # The key of our JSON in the metadata.
FORMAT = 1


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
    """Write a checkpoint. After any error `path` still holds the previous file.

    state: what else training needs to continue, in types that JSON has. Raises CheckpointError if the file cannot be
    written.
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
    header["check"] = header_checksum(header)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        serialization.save(tensors, path, metadata={KEY: json.dumps(header, allow_nan=False)})
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint: {error}. The previous one is kept") from error


def load(path: Path, device: str = "auto", *, training: bool = False) -> Checkpoint:
    """Read a checkpoint onto `device` (see `train.device`). Raises CheckpointError and DeviceError.

    training: also read the state of the optimizer. Without it, `optimizer` is None and the model in evaluation mode.
    """
    # The file is opened once, so that a run that replaces it meanwhile cannot mix two checkpoints.
    with open_checkpoint(path) as file:
        header = read_header(path, file)
        with corruption_errors(path):
            names = [name for name in file.keys() if training or name.startswith("model.")]
            arrays = {name: file.get_tensor(name) for name in names}
            sums = header.get("crc32", {})
            if wrong := [name for name in names if name in sums and crc32(arrays[name]) != sums[name]]:
                raise ValueError(f"the checksum of {wrong[0]} does not match")
    with corruption_errors(path):
        config = Config.from_dict(header["config"])
        tokenizer = tokenizers.from_dict(header["tokenizer"])
        with nn.init.skip_init():  # The weights are loaded below.
            model = build_model(config.model, device, config.train.dtype)
        model.load_state_dict(with_prefix("model.", arrays))
        if tokenizer.vocab_size != config.model.vocab_size:
            raise ValueError(f"{config.model.vocab_size} tokens in the model, {tokenizer.vocab_size} in its tokenizer")
        moments = optimizer_state(header["optimizer"], arrays) if training else None
        model.train(training)
        return Checkpoint(config, tokenizer, int(header["step"]), model, moments, dict(header["state"]))


def load_config(path: Path) -> Config:
    """Return the configuration in a checkpoint, without reading its weights. Raises CheckpointError."""
    with open_checkpoint(path) as file:
        header = read_header(path, file)
    with corruption_errors(path):
        return Config.from_dict(header["config"])


def open_checkpoint(path: Path) -> Any:
    """Return the open safetensors file `path`. Raises CheckpointError if it is missing, unreadable or truncated."""
    from safetensors import SafetensorError, safe_open

    try:
        path.open("rb").close()  # Open it first, because safe_open reports an unreadable file as missing.
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {str(path)!r}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {str(path)!r}: {error.strerror}") from None
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{str(path)!r} is not a checkpoint, or only a part of one (not a whole safetensors file: {error})"
        ) from error


def read_header(path: Path, file: Any) -> dict[str, Any]:
    """Return our JSON from the metadata of an open file. Raises CheckpointError."""
    text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise CheckpointError(f"{str(path)!r} is a safetensors file, but not a checkpoint of this program")
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
    if "check" in header and header.pop("check") != header_checksum(header):
        raise CheckpointError(f"{str(path)!r} is damaged: the checksum of its JSON does not match")
    return dict(header)


def crc32(array: Any) -> int:
    """Return the CRC-32 of the values of a NumPy array."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def header_checksum(header: dict[str, Any]) -> int:
    """Return the CRC-32 of our JSON, which does not change when it is parsed and written again."""
    return zlib.crc32(json.dumps(header).encode())


def with_prefix(prefix: str, arrays: dict[str, Any]) -> dict[str, tl.Tensor]:
    """Return as Tensors the arrays with names that begin with `prefix`, and remove the prefix from the names."""
    return {
        name.removeprefix(prefix): tl.from_numpy(array) for name, array in arrays.items() if name.startswith(prefix)
    }


def optimizer_state(header: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the `Optimizer.state_dict` that `save` stored."""
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in header["numbers"].items()}
    for name, value in with_prefix("optimizer.", arrays).items():
        index, _, moment = name.partition(".")
        state.setdefault(int(index), {})[moment] = value
    return {"state": state, "param_groups": header["param_groups"]}
