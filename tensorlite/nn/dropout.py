"""Dropout: entries of the input switched off at random, in training only."""

from __future__ import annotations

from ..tensors.tensor import Tensor
from . import functional as F
from .checks import check_probability
from .module import Module

__all__ = ["Dropout"]


class Dropout(Module):
    """In training, each entry is made 0 with probability p, and the others are scaled by ``1 / (1 - p)``."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        check_probability("Dropout", "p", p)
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        """Maps any shape to the same shape."""
        return F.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"
