"""Activation functions as modules. Each maps a Tensor of any shape to the same shape."""

from __future__ import annotations

from typing import Literal

from ..tensors.tensor import Tensor
from . import functional as F
from .module import Module

__all__ = ["ELU", "GELU", "LeakyReLU", "LogSoftmax", "ReLU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh"]


class ReLU(Module):
    """A module that computes ``max(x, 0)``.

    inplace: write the result into the memory of the input.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.relu`."""
        return input.relu_() if self.inplace else F.relu(input)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return "inplace=True" if self.inplace else ""


class GELU(Module):
    """A module that computes ``x * cdf(x)``, with the cdf of the standard normal distribution.

    approximate: "none", or "tanh" for the approximation that GPT-2 uses.

    Raises ValueError for another approximation. Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.gelu`."""
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """A module that computes ``x * sigmoid(x)``, also known as swish.

    Source: Elfwing, Uchibe and Doya, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation in
    Reinforcement Learning", 2017.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.silu`."""
        return F.silu(input)


class Sigmoid(Module):
    """A module that computes ``1 / (1 + exp(-x))``."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.sigmoid`."""
        return F.sigmoid(input)


class Tanh(Module):
    """A module that computes the hyperbolic tangent."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.tanh`."""
        return F.tanh(input)


class Softplus(Module):
    """A module that computes ``log(1 + exp(beta * x)) / beta``, or x where ``beta * x`` is above ``threshold``."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.softplus`."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"beta={self.beta}, threshold={self.threshold}"


class LeakyReLU(Module):
    """A module that computes x where it is positive, else ``negative_slope * x``."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.leaky_relu`."""
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """A module that computes x where it is positive, else ``alpha * (exp(x) - 1)``.

    Source: Clevert, Unterthiner and Hochreiter, "Fast and Accurate Deep Network Learning by Exponential Linear Units",
    2015.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.elu`."""
        return F.elu(input, self.alpha)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"alpha={self.alpha}"


class Softmax(Module):
    """A module that computes ``exp(x_i) / sum_j exp(x_j)`` along the dimension ``dim``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.softmax`."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """A module that computes the logarithm of the softmax along the dimension ``dim``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.log_softmax`."""
        return F.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"dim={self.dim}"
