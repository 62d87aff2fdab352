"""Adapters: the low-rank matrices of a model alone, in the layout of Hugging Face's package peft.

A folder has `adapter_config.json` and `adapter_model.safetensors`. The metadata of the second file has the fingerprint
of the base, which peft ignores. An adapter that peft has written has none, so its names and shapes alone are compared.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
from gpt.checkpoint.base import CheckpointError, damaged
from gpt.checkpoint.lora_targets import Plan, all_parts, known_family
from gpt.checkpoint.tensor_files import TensorSpec, read_floats, read_json, read_metadata, read_specs
from gpt.config import LoraConfig, ModelConfig
from gpt.errors import short
from gpt.model import GPT, parameter_shapes
from gpt.model.lora import Part, add_lora, fold_lora, linear_layers, lora_layers
from tensorlite import serialization

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
FOLDER = "adapter"  # the folder of an adapter in that of its run
PREFIX = "base_model.model."  # of all names in the file
KEY = "tensorlite.base"  # the key of the fingerprint in the metadata of the file
NAME = re.compile(r"(?P<part>.+)\.lora_(?P<matrix>[AB])\.weight")

# Keys of `adapter_config.json` that change what is computed, with the values that we compute.
REQUIRED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none",),
    # The other ways to initialise change the weights of the base.
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
}
# Keys that change nothing of what an adapter computes, or that the names of its tensors tell as well.
HARMLESS = {
    "alpha", "auto_mapping", "base_model_name_or_path", "eva_config", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout",
    "megatron_core", "peft_version", "qalora_group_size", "r", "revision", "target_modules", "runtime_config",
}  # fmt: skip


@dataclass(frozen=True)
class Adapter:
    """The description of an adapter, whose matrices are still in their file.

    specs: for the name of each part, where its matrices A and B are. scale: alpha / rank.
    base: the fingerprint of its base, "" if the file has none. base_name: what its base was called, "" if unknown.
    """

    folder: Path
    rank: int
    scale: float
    specs: Mapping[str, Mapping[str, TensorSpec]]
    base: str
    base_name: str


# ---- reading ------------------------------------------------------------------------------------


def is_adapter(folder: Path) -> bool:
    """Return whether a folder is that of an adapter."""
    return (folder / CONFIG).is_file()


def read_adapter(folder: str | Path) -> Adapter:
    """Return the adapter in a folder, or in the folder `adapter` of a run. Its matrices are not read yet.

    Raises CheckpointError if there is none, if it is damaged, and for an option of peft that we do not have.
    """
    folder = Path(folder).expanduser()
    if not is_adapter(folder) and is_adapter(folder / FOLDER):
        folder = folder / FOLDER
    if not is_adapter(folder):
        raise CheckpointError(
            f"there is no adapter in {str(folder)!r}: give a folder with {CONFIG} and {WEIGHTS}, which finetune and "
            "peft write, or the folder of a run of finetune"
        )
    values = read_json(folder / CONFIG)
    path = folder / CONFIG
    check_options(path, values)
    rank, alpha = values.get("r"), values.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank < 2**31:
        raise damaged(path, f"r: expected an integer of at least 1, got {short(rank)}")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < 2**100:
        raise damaged(path, f"lora_alpha: expected a number above 0, got {short(alpha)}")
    if not (folder / WEIGHTS).is_file() and (folder / PICKLED).is_file():
        raise CheckpointError(
            f"{str(folder / PICKLED)!r}: files of pickles can run any code, and are never read. Save it again with "
            "peft: model.save_pretrained(FOLDER)"
        )
    name = values.get("base_model_name_or_path")
    return Adapter(
        folder,
        rank,
        alpha / rank,
        group_specs(folder / WEIGHTS),
        read_metadata(folder / WEIGHTS).get(KEY, ""),
        name if isinstance(name, str) else "",
    )


def check_options(path: Path, values: Mapping[str, Any]) -> None:
    """Raise CheckpointError for an option of peft that changes what an adapter computes, and that we do not have."""
    for key, allowed in REQUIRED.items():
        value = values.get(key, allowed[0])
        if not any(type(value) is type(choice) and value == choice for choice in allowed):
            shown = " or ".join(map(repr, allowed))
            raise CheckpointError(f"{str(path)!r}: {key}: only {shown} is supported, got {short(value)}")
    for key, value in values.items():
        if key not in REQUIRED and key not in HARMLESS and value not in (None, False, {}, [], ""):
            raise CheckpointError(
                f"{str(path)!r}: {key:.80}: adapters with this option are not supported, got {short(value)}. Merge "
                "it with peft (merge_and_unload), and load the merged model"
            )


def group_specs(path: Path) -> dict[str, dict[str, TensorSpec]]:
    """Return where the matrices A and B of each part are. Raises CheckpointError for other names of tensors."""
    groups: dict[str, dict[str, TensorSpec]] = {}
    for name, spec in read_specs(path).items():
        match = NAME.fullmatch(name.removeprefix(PREFIX))
        if match is None:
            what = "an embedding" if "lora_embedding" in name else "something else"
            raise CheckpointError(
                f"{str(path)!r}: {short(name)}: only lora_A and lora_B of linear layers are supported, and this is of "
                f"{what}. Merge it with peft (merge_and_unload), and load the merged model"
            )
        matrices = groups.setdefault(match["part"], {})
        if match["matrix"] in matrices:
            raise damaged(path, f"{short(name)}: it is there twice, with and without {PREFIX}")
        matrices[match["matrix"]] = spec
    if not groups:
        raise damaged(path, "it has no tensors")
    for part, matrices in groups.items():
        for matrix in "AB":
            if matrix not in matrices:
                raise damaged(path, f"{PREFIX}{part}.lora_{matrix}.weight is missing")
    return groups


def plan_of(adapter: Adapter, config: ModelConfig) -> Plan:
    """Return the parts of a model that an adapter has matrices for.

    Raises CheckpointError, with the name, if the model has no such layer, or one of another shape. It needs no weights.
    """
    path, family = adapter.folder / WEIGHTS, known_family(config)
    prefix = "" if family is None else family.prefix
    left, shapes, plan = {name.removeprefix(prefix): name for name in adapter.specs}, parameter_shapes(config), Plan()
    if len(left) < len(adapter.specs):
        raise damaged(path, f"a layer is there twice, with and without {prefix}")
    for layer, parts in all_parts(config).items():
        inputs = shapes[f"{layer}.weight"][1]
        chosen = []
        for part in parts:
            if name := left.pop(part.name.removeprefix(prefix), None):
                check_shapes(path, adapter, name, part, inputs)
                chosen.append(Part(name, part.start, part.stop))
        if chosen:
            plan[layer] = tuple(chosen)
    if left:
        name = next(iter(left.values()))
        raise CheckpointError(
            f"{str(path)!r}: {short(name)}: the model has no linear layer of this name{of_base(adapter)}"
        )
    return plan


def check_shapes(path: Path, adapter: Adapter, name: str, part: Part, inputs: int) -> None:
    """Raise CheckpointError if the matrices of a part do not fit the model."""
    expected = {"A": (adapter.rank, inputs), "B": (part.stop - part.start, adapter.rank)}
    for matrix, shape in expected.items():
        found = adapter.specs[name][matrix].shape
        if found != shape:
            raise CheckpointError(
                f"{str(path)!r}: {PREFIX}{name}.lora_{matrix}.weight: the model needs {shape}, got "
                f"{found}{of_base(adapter)}"
            )


def of_base(adapter: Adapter) -> str:
    """Return what the message about another base ends with."""
    known = f" {adapter.base_name!r:.200}" if adapter.base_name else ", which it does not name"
    return f". The adapter was made for another base{known}"


def apply_adapter(model: GPT, adapter: Adapter) -> None:
    """Merge an adapter into the weights of a model, in place.

    Raises CheckpointError if the model is not the one that it was made for, and LoraError if its layers have
    quantized weights. The model is then as before.
    """
    plan = plan_of(adapter, model.config)
    linear_layers(model, plan)
    if adapter.base and fingerprint(model) != adapter.base:
        raise CheckpointError(
            f"the adapter {str(adapter.folder)!r} does not fit the model: the weights are not those that it was "
            f"trained on{of_base(adapter)}"
        )
    arrays = read_matrices(adapter, model.dtype)
    for layer in add_lora(model, plan, adapter.rank, adapter.scale):
        for low_rank in layer.parts:
            for matrix, parameter in (("A", low_rank.lora_A), ("B", low_rank.lora_B)):
                with tl.no_grad():
                    parameter.copy_(tl.from_numpy(arrays[low_rank.part.name][matrix]).to(parameter.device))
    fold_lora(model)


def read_matrices(adapter: Adapter, dtype: np.dtype[Any]) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the matrices A and B of each part in a dtype. Raises CheckpointError if they or B A are not finite."""
    path, largest = adapter.folder / WEIGHTS, float(np.finfo(dtype).max)
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for part, specs in adapter.specs.items():
        bound = max(1.0, adapter.scale) * adapter.rank
        for matrix, spec in specs.items():
            name = f"{PREFIX}{part}.lora_{matrix}.weight"
            array = read_floats(name, spec)
            if not np.isfinite(array).all():
                raise damaged(path, f"{name}: it has NaN or infinity")
            bound *= max(1.0, float(abs(array).max()))
            if not bound < largest:
                raise damaged(path, f"{name}: its numbers, or alpha, are too large for weights of {dtype}")
            found.setdefault(part, {})[matrix] = np.ascontiguousarray(array, dtype)
    return found


# ---- writing ------------------------------------------------------------------------------------


def save_adapter(model: GPT, folder: str | Path, lora: LoraConfig, base: str, base_name: str = "") -> None:
    """Write the low-rank matrices of a model as peft reads them.

    base: the fingerprint of the model without them. base_name: what the user calls that model.
    Raises OSError.
    """
    folder = Path(folder)
    parts = [low_rank for _, layer in lora_layers(model) for low_rank in layer.parts]
    tensors = {
        f"{PREFIX}{low_rank.part.name}.lora_{matrix}.weight": value.detach().cpu().contiguous()
        for low_rank in parts
        for matrix, value in (("A", low_rank.lora_A), ("B", low_rank.lora_B))
    }
    family = known_family(model.config)
    alpha = lora.scale * (lora.rank or 0)
    values = {
        "base_model_name_or_path": base_name or None,
        "bias": "none",
        "fan_in_fan_out": bool(family and family.transposed),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": lora.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": target_modules(model.config, [low_rank.part.name for low_rank in parts]),
        "task_type": "CAUSAL_LM",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with serialization.atomic_write(folder / WEIGHTS) as temporary:
        serialization.write(tensors, temporary, metadata={KEY: base})  # Several keys would come in any order.
    with serialization.atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def target_modules(config: ModelConfig, names: list[str]) -> list[str]:
    """Return ends of names that mean these layers and no others; whole names where the ends mean others, too."""
    ends = {name.rpartition(".")[2] for name in names}
    every = [part.name for parts in all_parts(config).values() for part in parts]
    meant = {name for name in every if name.rpartition(".")[2] in ends}
    return sorted(ends if meant == set(names) else names)


def fingerprint(model: GPT) -> str:
    """Return a SHA-256 of the names, the shapes and the values, as float32, of the parameters of a model.

    A model without low-rank matrices has the same one on every device, and from every file with these weights.
    """
    sha = hashlib.sha256()
    for name, parameter in model.named_parameters():
        sha.update(f"{name} {tuple(parameter.shape)}\n".encode())
        sha.update(np.ascontiguousarray(parameter.numpy(force=True), "<f4").data)
    return sha.hexdigest()
