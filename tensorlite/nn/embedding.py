"""Embedding: a table with one vector for each index."""

from __future__ import annotations

from ..backends.registry import DeviceLike
from ..dtypes import DTypeLike
from ..scalars import int_in, int_or_none_in
from ..tensors.creation import empty
from ..tensors.tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["Embedding"]


class Embedding(Module):
    """A table of ``num_embeddings`` vectors, looked up by index. It maps integers (...) to (..., embedding_dim).

    weight: (num_embeddings, embedding_dim). Its entries start from the standard normal distribution.
    padding_idx: a row that starts as zeros and gets no gradient.
    device, dtype: those of the weight; None is the default.

    Raises ValueError if padding_idx is out of range.
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__()
        num_embeddings = int_in("Embedding", "num_embeddings", num_embeddings)
        embedding_dim = int_in("Embedding", "embedding_dim", embedding_dim)
        padding_idx = int_or_none_in("Embedding", "padding_idx", padding_idx)
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(f"Embedding: padding_idx {padding_idx} is out of range for {num_embeddings} rows")
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = Parameter(empty(num_embeddings, embedding_dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values for the weight. Row ``padding_idx`` becomes zeros."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.detach()[self.padding_idx] = 0.0

    def forward(self, input: Tensor) -> Tensor:
        """Map integers (...) to (..., embedding_dim).

        Raises the errors of :func:`tensorlite.nn.functional.embedding`.
        """
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
