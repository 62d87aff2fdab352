"""Copy weights between our parameters and the tensors of other programs."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
from gpt.checkpoint.base import damaged
from gpt.config import ModelConfig
from gpt.model import GPT, build_model, parameter_shapes
from gpt.model.quantized import is_quantized, quantizable, replace_layer
from tensorlite import nn
from tensorlite.quantized import QuantizedMatrix

A = TypeVar("A", NDArray[Any], tl.Tensor)


def build_from_parts(
    config: ModelConfig,
    device: str,
    dtype: str,
    parts_of: Callable[[str], Iterable[NDArray[Any]]],
    matrix_of: Callable[[str], QuantizedMatrix | None] | None = None,
) -> GPT:
    """Return a model, in evaluation mode, whose parameters are read one at a time.

    parts_of: a function from the name of a parameter to its parts, which follow each other along the first dimension.
    matrix_of: a function from the name of a matrix to the quantized one in its place, or to None for none. A model that
        has one computes no gradients.
    """
    with nn.init.skip_init():  # The weights are loaded below.
        model = build_model(config, device, dtype)
    return fill_from_parts(model, parts_of, matrix_of)


def fill_from_parts(
    model: GPT,
    parts_of: Callable[[str], Iterable[NDArray[Any]]],
    matrix_of: Callable[[str], QuantizedMatrix | None] | None = None,
) -> GPT:
    """Set the parameters of a model one at a time; return it in evaluation mode. See `build_from_parts`."""
    layers = {} if matrix_of is None else {f"{name}.weight": name for name in quantizable(model)}
    with tl.no_grad():
        for name, parameter in list(model.named_parameters()):
            matrix = matrix_of(name) if matrix_of is not None and name in layers else None
            if matrix is None:
                copy_parameter(parameter, parts_of(name))
            else:
                replace_layer(model, layers[name], matrix)
    return (model.requires_grad_(False) if is_quantized(model) else model).eval()


def with_config(model: GPT, config: ModelConfig, dtype: str) -> GPT:
    """Return a model with the weights of another one, and another dropout, a shorter context, or another dtype.

    It shares the weights, which get the dtype: float32 or float64.
    """
    with nn.init.skip_init():
        made = build_model(config, str(model.device), str(model.wte.weight.dtype))
    for name, parameter in list(model.named_parameters()):
        layer, _, last = name.rpartition(".")
        if name == "wpe.weight":
            parameter = nn.Parameter(parameter.detach()[: config.block_size].clone())
        setattr(made.get_submodule(layer), last, parameter)
    return made.to(getattr(tl, dtype)).train(model.training)


def check_parts(
    path: Path,
    parameter: str,
    shape: tuple[int, ...],
    found: Mapping[str, tuple[int, ...]],
    origin: str,
    transposed: bool = False,
) -> None:
    """Raise CheckpointError unless parts, which follow each other along the first dimension, make up a parameter.

    found: the shape of each part in the file by its name. origin: what gives the shape of the parameter.
    """
    parts = [part[::-1] if transposed else part for part in found.values()]
    if any(part[1:] != shape[1:] for part in parts) or sum(part[0] if part else 0 for part in parts) != shape[0]:
        shown = ", ".join(f"{name} {part}" for name, part in found.items())
        raise damaged(path, f"wrong shape: {shown}, where {origin} gives {parameter} {shape}")


def copy_parameter(parameter: tl.Tensor, parts: Iterable[NDArray[Any]]) -> None:
    """Write parts, which follow each other along the first dimension, into a parameter. Call it under no_grad."""
    start = 0
    for part in parts:
        stop = start + len(part)
        if isinstance(parameter.array, np.ndarray):
            parameter.array[start:stop] = part
        else:
            parameter[start:stop] = tl.tensor(np.ascontiguousarray(part, parameter.dtype), device=parameter.device)
        start = stop


def split_rows(value: A, config: ModelConfig, name: str) -> list[A]:
    """Return the parts of queries, keys and values, or of gate and value, along the first dimension.

    value: the parameter `name` of a model with this configuration, an array or a Tensor.
    """
    sizes = row_sizes(config, name)
    ends = np.cumsum(sizes).tolist()
    return [value[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def row_sizes(config: ModelConfig, name: str) -> list[int]:
    """Return how many rows of a parameter are gate and value, or queries, keys and values."""
    if ".mlp." in name:
        return [config.inner_size] * 2
    return [n * config.head_size for n in (config.n_head, config.kv_heads, config.kv_heads)]


def absent_biases(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the biases that the linear layers and norms of a model could have, and have not, by name."""
    shapes = parameter_shapes(config)
    layers = {name.removesuffix("weight"): shape for name, shape in shapes.items() if name.endswith("weight")}
    return {
        f"{layer}bias": shape[:1]
        for layer, shape in layers.items()
        if not layer.startswith(("wte", "wpe", "previous", "lm_head")) and f"{layer}bias" not in shapes
    }
