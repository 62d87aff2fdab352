"""Copy weights between our parameters and the tensors of other programs."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.model import parameter_shapes

A = TypeVar("A", NDArray[Any], tl.Tensor)


def copy_parameter(parameter: tl.Tensor, parts: Sequence[NDArray[Any]]) -> None:
    """Write parts, which follow each other along the first dimension, into a parameter. Call it under no_grad."""
    start = 0
    for part in parts:
        stop = start + len(part)
        if isinstance(parameter.array, np.ndarray):
            parameter.array[start:stop] = part
        else:
            parameter[start:stop] = tl.tensor(np.ascontiguousarray(part, parameter.dtype))
        start = stop


def split_rows(value: A, config: ModelConfig, name: str) -> list[A]:
    """Return the parts of queries, keys and values, or of gate and value, along the first dimension.

    value: the parameter `name` of a model with this configuration, an array or a Tensor.
    """
    if ".mlp." in name:
        sizes = [config.inner_size] * 2
    else:
        sizes = [n * config.head_size for n in (config.n_head, config.kv_heads, config.kv_heads)]
    ends = np.cumsum(sizes).tolist()
    return [value[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def absent_biases(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the biases that the linear layers and norms of a model could have, and have not, by name."""
    shapes = parameter_shapes(config)
    layers = {name.removesuffix("weight"): shape for name, shape in shapes.items() if name.endswith("weight")}
    return {
        f"{layer}bias": shape[:1]
        for layer, shape in layers.items()
        if not layer.startswith(("wte", "wpe", "lm_head")) and f"{layer}bias" not in shapes
    }
