"""The layer Dropout."""

from __future__ import annotations

from ..scalars import fraction_in
from ..tensors.tensor import Tensor
from . import functional as F
from .module import Module

__all__ = ["Dropout"]


class Dropout(Module):
    """A layer that sets entries to 0 with probability ``p`` in training, and scales the others by ``1 / (1 - p)``.

    In evaluation it returns the input itself. Raises ValueError if p is not from 0 to 1.
    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = fraction_in("Dropout", "p", p)

    def forward(self, input: Tensor) -> Tensor:
        """Map a Tensor of any shape to the same shape."""
        return F.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"p={self.p}"
