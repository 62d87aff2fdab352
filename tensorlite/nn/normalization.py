"""Layers that normalise over the last dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from ..backends.registry import DeviceLike
from ..dtypes import DTypeLike
from ..scalars import ints_in, number_in
from ..tensors.creation import ones, zeros
from ..tensors.tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["LayerNorm", "RMSNorm"]


class LayerNorm(Module):
    """A layer that computes ``(x - mean) / sqrt(variance + eps) * weight + bias`` over the last dimensions.

    normalized_shape: the sizes of these dimensions.
    eps: a small number that keeps the root away from 0.
    elementwise_affine: whether there are a weight and a bias.
    bias: whether there is a bias.
    device, dtype: those of both; None is the default.

    weight: starts as ones, bias as zeros. Both have the shape ``normalized_shape``.
    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = ints_in("LayerNorm", "normalized_shape", normalized_shape)
        self.eps, self.elementwise_affine = number_in("LayerNorm", "eps", eps), elementwise_affine
        size = self.normalized_shape
        self.weight = Parameter(ones(size, device=device, dtype=dtype)) if elementwise_affine else None
        self.bias = Parameter(zeros(size, device=device, dtype=dtype)) if elementwise_affine and bias else None

    def reset_parameters(self) -> None:
        """Set the weight to ones and the bias to zeros."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., *normalized_shape) to the same shape."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class RMSNorm(Module):
    """A layer that computes ``x / sqrt(mean(x^2) + eps) * weight`` over the last dimensions.

    normalized_shape: the sizes of these dimensions.
    eps: a small number that keeps the root away from 0. None is the machine epsilon of the input's dtype.
    elementwise_affine: whether there is a weight.
    device, dtype: those of the weight; None is the default.

    weight: starts as ones, in the shape ``normalized_shape``.
    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    """

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = ints_in("RMSNorm", "normalized_shape", normalized_shape)
        self.eps = None if eps is None else number_in("RMSNorm", "eps", eps)
        self.elementwise_affine = elementwise_affine
        self.weight = Parameter(ones(self.normalized_shape, device=device, dtype=dtype)) if elementwise_affine else None

    def reset_parameters(self) -> None:
        """Set the weight to ones."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., *normalized_shape) to the same shape."""
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
