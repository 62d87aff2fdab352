# Written by tools/make_stubs.py. To change it, change the signature of the op and run the script.

from typing import Literal

from ..tensors.tensor import Tensor

__all__ = [
    "elu",
    "gelu",
    "one_hot",
    "silu",
    "softplus",
]

def elu(input: Tensor, alpha: float = 1.0) -> Tensor: ...
def gelu(input: Tensor, approximate: Literal["none", "tanh"] = "none") -> Tensor: ...
def one_hot(input: Tensor, num_classes: int = -1) -> Tensor: ...
def silu(input: Tensor) -> Tensor: ...
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor: ...
