"""Layers of a GPT whose weights are kept in 4 or 8 bits. They predict, and compute no gradients.

A model that writes one token reads all its weights for it, so that fewer bytes of weights are more tokens a second. The
norms, the biases and the position embedding stay float32: they are a thousandth of the numbers.
"""

from typing import TypeVar

import numpy as np

import tensorlite as tl
from gpt.errors import UserError
from tensorlite import Tensor, nn
from tensorlite.quantized import KINDS, QuantizedMatrix, check_values, linear

M = TypeVar("M", bound=nn.Module)

# What a user calls a quantization of ours, and the kind of matrices of it.
CHOICES = {"int8": "q8_0", "int4": "q4_1"}


class QuantizationError(UserError, ValueError):
    """A model that cannot be quantized, or something that a quantized model cannot do."""


class QuantizedLinear(nn.Module):
    """A layer that computes ``x W^T + bias``, where W is quantized. It maps (..., in) to (..., out), in float32.

    matrix: W, (out, in). bias: float32, (out,), or None.
    """

    bias: nn.Parameter | None

    def __init__(self, matrix: QuantizedMatrix, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.matrix, self.bias = matrix, bias

    def forward(self, x: Tensor) -> Tensor:
        y = products(x, self.matrix)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.matrix!r}, bias={self.bias is not None}"


class QuantizedEmbedding(nn.Module):
    """A table of vectors, looked up by index, in a quantized matrix. It maps integers (...) to (..., width), float32.

    matrix: the table, (number of vectors, width).
    """

    def __init__(self, matrix: QuantizedMatrix) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, idx: Tensor) -> Tensor:
        if idx.dtype.kind not in "iu":
            raise tl.DTypeError(f"embedding: expected an index tensor of integers, got {idx.dtype}. Use .long()")
        return tl.from_numpy(self.matrix.dequantize(idx.numpy()))

    def logits(self, x: Tensor) -> Tensor:
        """Return the products of x, (..., width), with all vectors, (..., number of vectors): a tied head."""
        return products(x, self.matrix)

    def extra_repr(self) -> str:
        return repr(self.matrix)


def products(x: Tensor, matrix: QuantizedMatrix) -> Tensor:
    """Return ``x W^T``, float32 (..., out), for x, float32 (..., in), on the CPU. Raises QuantizationError."""
    if x.requires_grad:
        raise QuantizationError(
            "a quantized layer computes no gradients, and its input requires them. Load the model with "
            "quantize='none', or call it under no_grad()"
        )
    if x.dtype != tl.float32 or not isinstance(x.array, np.ndarray):
        raise QuantizationError(
            f"a quantized layer: expected float32 on the CPU, got {x.dtype} on {x.device}. Load the model with "
            "quantize='none'"
        )
    return tl.from_numpy(linear(x.array, matrix))


def is_quantized(model: nn.Module) -> bool:
    """Return whether a model has a quantized layer."""
    return any(isinstance(module, QuantizedLinear | QuantizedEmbedding) for module in model.modules())


def refuse_quantized(model: nn.Module, doing: str) -> None:
    """Raise QuantizationError if a model has a quantized layer. doing: what needs float32 weights."""
    if is_quantized(model):
        raise QuantizationError(f"{doing} needs the weights in float32. Load the model with quantize='none'")


def matrices(model: nn.Module) -> list[QuantizedMatrix]:
    """Return the quantized matrices of a model, each once."""
    layers = (QuantizedLinear, QuantizedEmbedding)
    found = [module.matrix for module in model.modules() if isinstance(module, layers)]
    return list({id(matrix): matrix for matrix in found}.values())


def quantizable(model: nn.Module) -> dict[str, nn.Linear | nn.Embedding]:
    """Return the layers of a model whose weights can be quantized, by name: linear ones and the token embedding."""
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear or (name == "wte" and type(module) is nn.Embedding)
    }


def replace_layer(model: nn.Module, name: str, matrix: QuantizedMatrix) -> None:
    """Put a quantized matrix in the place of the weight of a layer, of the same shape. The layer keeps its bias."""
    outer, _, last = name.rpartition(".")
    parent = model
    for step in outer.split(".") if outer else ():
        parent = getattr(parent, step)
    old = getattr(parent, last)
    if matrix.shape != tuple(old.weight.shape):
        raise ValueError(f"{name}: expected a matrix of shape {tuple(old.weight.shape)}, got {matrix!r}")
    new = QuantizedLinear(matrix, old.bias) if isinstance(old, nn.Linear) else QuantizedEmbedding(matrix)
    setattr(parent, last, new.train(old.training))


def quantize_model(model: M, kind: str) -> M:
    """Quantize the linear layers, the token embedding and the head of a model in place. Return the model, frozen.

    kind: int8, int4, or one of `tensorlite.quantized.KINDS`. A layer that is quantized already stays as it is. Matrices
    are replaced one after the other, so that this needs memory for one more.

    Raises QuantizationError for an unknown kind, a model that is not float32 on the CPU, or numbers that are not finite
    or that the kind cannot hold. Then the model is as it was.
    """
    found = kind_of(kind)
    layers = quantizable(model) if isinstance(model, nn.Module) else {}
    if "" in layers or not isinstance(model, nn.Module):
        raise QuantizationError(f"quantize_model: expected a model with layers in it, got {type(model).__name__}")
    for name in layers:
        check_layer(name, layers[name], found)
    weights = {name: id(layer.weight) for name, layer in layers.items()}
    made: dict[int, QuantizedMatrix] = {}  # by weight, because the user may have tied some
    for name, weight in weights.items():
        layer = layers.pop(name)
        if weight not in made:
            made[weight] = quantized(name, layer.weight.array, found)
        replace_layer(model, name, made[weight])
    return model.requires_grad_(False)


def check_layer(name: str, layer: nn.Linear | nn.Embedding, kind: str) -> None:
    """Raise QuantizationError, with the name, unless the weight of a layer can be quantized."""
    weight = layer.weight
    if weight.dtype != tl.float32 or not isinstance(weight.array, np.ndarray):
        raise QuantizationError(
            f"{name}: expected weights in float32 on the CPU, got {weight.dtype} on {weight.device}"
        )
    try:
        check_values(weight.array, kind)
    except ValueError as error:
        raise QuantizationError(f"{name}: {error}") from None


def quantized(name: str, values: "np.ndarray", kind: str) -> QuantizedMatrix:
    """Return a matrix of a kind. Raises QuantizationError, with the name, for numbers that the kind cannot hold."""
    try:
        return QuantizedMatrix.quantize(values, kind)
    except ValueError as error:
        raise QuantizationError(f"{name}: {error}") from None


def kind_of(choice: str) -> str:
    """Return the kind of matrices that a name means. Raises QuantizationError for an unknown one."""
    kind = CHOICES.get(choice, choice) if isinstance(choice, str) else choice
    if not isinstance(kind, str) or kind not in KINDS:
        raise QuantizationError(f"quantize_model: expected one of {', '.join([*CHOICES, *KINDS])}, got {choice!r:.80}")
    return kind
