"""The layers Linear, Identity, Flatten."""

from __future__ import annotations

import math
from typing import Any

from ..backends.registry import DeviceLike
from ..dtypes import DTypeLike
from ..scalars import int_in
from ..tensors.creation import empty
from ..tensors.tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["Flatten", "Identity", "Linear"]


class Linear(Module):
    """A layer that computes ``x @ weight.T + bias``. It maps (..., in_features) to (..., out_features).

    weight: (out_features, in_features).
    bias: (out_features,), or None without ``bias``.
    device, dtype: those of both; None is the default.

    Their entries start from the uniform distribution between ``-1 / sqrt(in_features)`` and ``1 / sqrt(in_features)``.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        in_features = self.in_features = int_in("Linear", "in_features", in_features)
        out_features = self.out_features = int_in("Linear", "out_features", out_features)
        self.weight = Parameter(empty(out_features, in_features, device=device, dtype=dtype))
        self.bias = Parameter(empty(out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values for weight and bias."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1.0 / math.sqrt(max(1, self.in_features))
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features).

        Raises the errors of :func:`tensorlite.nn.functional.linear`.
        """
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Identity(Module):
    """A layer that returns its input. It accepts and ignores any arguments, so that it can replace any layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """Return the input."""
        return input


class Flatten(Module):
    """A layer that merges dimensions ``start_dim`` to ``end_dim`` into one, by default all except the first."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, d1, d2, ...) to (N, d1 * d2 * ...), with the default options."""
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
