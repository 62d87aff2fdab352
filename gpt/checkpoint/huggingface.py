"""Folders as Hugging Face's transformers writes them: `config.json`, weights in safetensors, and a tokenizer.

The weights of GPT-2, Llama, Mistral, Qwen2 and Qwen3 become a `GPT`, and a `GPT` becomes such a folder. Some rows of a
tensor are read at a time, so loading needs the memory of the model once.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
from gpt.checkpoint.base import Checkpoint, CheckpointError, Info, damaged
from gpt.checkpoint.families import FAMILIES, Family, KeyErrorInConfig, family_of
from gpt.checkpoint.foreign import foreign_checkpoint, foreign_config, refuse_training
from gpt.checkpoint.quantization import check_quantize, quantize_parts
from gpt.checkpoint.tensor_files import SINGLE, TensorSpec, find_tensors, read_floats, read_json, read_rows
from gpt.checkpoint.transfer import absent_biases, build_from_parts, check_parts, split_rows
from gpt.config import ModelConfig
from gpt.errors import short
from gpt.model import GPT, parameter_shapes
from gpt.model.quantized import kind_of
from gpt.tokenizer.folder import from_folder
from tensorlite import serialization
from tensorlite.quantized import QuantizedMatrix

CONFIG = "config.json"
HEAD = "lm_head.weight"  # the only tensor that never has the prefix of its family


def load(
    path: Path, device: str = "auto", *, training: bool = False, dtype: str = "float32", quantize: str = "none"
) -> Checkpoint:
    """Return the model and the tokenizer in a folder, as a checkpoint after 0 steps. See `load_model`.

    Raises TokenizerError, too.
    """
    refuse_training(path, training)
    model = load_model(path, device, dtype, quantize)
    tokenizer = from_folder(path, model.config.vocab_size)
    return foreign_checkpoint(path, model, tokenizer, dtype)


def load_info(path: Path) -> Info:
    """Return the configuration of the model in a folder, without reading its weights. Raises CheckpointError."""
    return Info(foreign_config(path, read_config(path)[1]), 0)


def load_model(folder: str | Path, device: str = "auto", dtype: str = "float32", quantize: str = "none") -> GPT:
    """Return the model in a folder, in evaluation mode.

    device: see `train.device`. dtype: float32 or float64, whatever type the file has. quantize: int8 or int4 quantizes
        each matrix as soon as it is read; none and auto do not.
    Raises CheckpointError, with the file and the key, if the folder has no model that can be used, and DeviceError.
    """
    folder = Path(folder)
    choice = check_quantize(quantize, device, dtype)
    family, config = read_config(folder)
    specs = find_tensors(folder)
    sources = match_names(family, config, specs, folder)

    def parts_of(name: str) -> Iterator[NDArray[Any]]:
        for source in sources[name]:
            if family.is_transposed(name):
                yield read_floats(source, specs[source]).T
            else:
                yield from read_rows(source, specs[source])

    def matrix_of(name: str) -> QuantizedMatrix:
        return quantize_parts(f"{str(folder)!r}: {name}", parts_of(name), kind_of(choice))

    return build_from_parts(config, device, dtype, parts_of, None if choice in ("none", "auto") else matrix_of)


def read_config(folder: Path) -> tuple[Family, ModelConfig]:
    """Return the family and the configuration of a folder. Raises CheckpointError."""
    values = read_json(folder / CONFIG)
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise CheckpointError(
            f"{str(folder / CONFIG)!r}: model_type: expected one of {', '.join(FAMILIES)}, got {short(kind)}"
        )
    if values.get("quantization_config") is not None:
        raise CheckpointError(
            f"{str(folder / CONFIG)!r}: quantization_config: only weights that are not quantized are supported. Take "
            "the original model, or a GGUF file"
        )
    try:
        return FAMILIES[kind], FAMILIES[kind].config(values)
    except KeyErrorInConfig as error:
        raise KeyErrorInConfig(f"{str(folder / CONFIG)!r}: {error}") from None


def match_names(
    family: Family, config: ModelConfig, specs: Mapping[str, TensorSpec], folder: Path
) -> dict[str, list[str]]:
    """Return the names in the files for each parameter. Raises CheckpointError for a wrong set, shape or type."""
    # Base models are saved without the prefix. The head has none in either.
    known = {name.removeprefix(family.prefix): name for name in specs}
    sources: dict[str, list[str]] = {}
    for parameter, shape in parameter_shapes(config).items():
        names = family.names_of(parameter)
        missing = [name for name in names if name not in known]
        if missing:
            prefix = "" if missing[0] == HEAD else family.prefix
            raise damaged(folder, f"the tensor {prefix}{missing[0]} is missing")
        found = {known[name]: specs[known[name]].shape for name in names}
        check_parts(folder, parameter, shape, found, CONFIG, family.is_transposed(parameter))
        sources[parameter] = [known.pop(name) for name in names]
    if head := known.pop(HEAD, None):  # Some files have a copy of a tied head.
        check_tied(head, sources["wte.weight"][0], specs)
    left = [name for short_name, name in known.items() if not short_name.endswith(family.ignored)]
    if left:
        raise damaged(folder, f"unexpected tensor {short(left[0])}: config.json describes a model without it")
    return sources


def check_tied(head: str, embedding: str, specs: Mapping[str, TensorSpec]) -> None:
    """Raise CheckpointError if a head that should be the token embedding has other numbers."""
    ours, theirs = specs[embedding], specs[head]
    if ours.shape != theirs.shape or not np.array_equal(read_floats(embedding, ours), read_floats(head, theirs)):
        raise damaged(
            theirs.path,
            f"{head} is not {embedding}, and {CONFIG} says that it is. Set tie_word_embeddings in {CONFIG} to false",
        )


def save_model(model: GPT, folder: str | Path) -> None:
    """Write `config.json` and the weights, float32 or float64, so that transformers loads them.

    The folder is made if it does not exist. Raises CheckpointError if no family has such a model, and OSError.
    """
    folder, config = Path(folder), model.config
    kind = family_of(config)
    family = FAMILIES[kind]
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    for name, shape in missing_biases(kind, config).items():  # A bias of zeros changes nothing.
        state[name] = tl.zeros(shape, dtype=model.dtype)
    tensors: dict[str, tl.Tensor] = {}
    for name, value in state.items():
        names = family.names_of(name)
        parts = split_rows(value, config, name) if len(names) > 1 else [value]
        for theirs, part in zip(names, parts, strict=True):
            prefix = "" if theirs == HEAD else family.prefix
            tensors[prefix + theirs] = (part.T if family.is_transposed(name) else part).contiguous()
    values = {
        "architectures": [family.architecture],
        "model_type": kind,
        **family.keys(config),
        "dtype": str(model.dtype),
        "torch_dtype": str(model.dtype),  # Readers of before transformers 5 look here.
    }
    folder.mkdir(parents=True, exist_ok=True)
    with serialization.atomic_write(folder / SINGLE) as temporary:
        serialization.write(tensors, temporary, metadata={"format": "pt"})
    with serialization.atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def missing_biases(kind: str, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the biases that each model of a family has, and this one has not, by our names."""
    if kind == "gpt2":
        return absent_biases(config)
    if kind == "qwen2":
        return {name: shape for name, shape in absent_biases(config).items() if name.endswith("c_attn.bias")}
    return {}
