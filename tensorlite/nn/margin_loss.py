"""Losses with a margin as modules, and the distances of pairs of vectors that they use."""

from __future__ import annotations

from ..tensors.tensor import Tensor
from . import functional as F
from .functional_losses import Reduction
from .loss import ReducedLoss
from .module import Module

__all__ = [
    "CosineEmbeddingLoss", "CosineSimilarity", "HingeEmbeddingLoss", "MarginRankingLoss", "MultiMarginLoss",
    "PairwiseDistance", "SoftMarginLoss", "TripletMarginLoss",
]  # fmt: skip


class SoftMarginLoss(ReducedLoss):
    """A loss: ``log(1 + exp(-t x))`` of scores x and targets t of 1 or -1."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.soft_margin_loss`."""
        return F.soft_margin_loss(input, target, self.reduction)


class HingeEmbeddingLoss(ReducedLoss):
    """A loss: distances of similar pairs (target 1), and their lack to the margin for other pairs (target -1)."""

    def __init__(self, margin: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.hinge_embedding_loss`."""
        return F.hinge_embedding_loss(input, target, self.margin, self.reduction)


class MarginRankingLoss(ReducedLoss):
    """A loss: what one score lacks to be above another by the margin (target 1), or below it (target -1)."""

    def __init__(self, margin: float = 0.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.margin_ranking_loss`."""
        return F.margin_ranking_loss(input1, input2, target, self.margin, self.reduction)


class MultiMarginLoss(ReducedLoss):
    """A loss: the hinge loss of scores (N, C) with class indices (N,).

    p: 1 or 2, the power of each term. weight: a factor for each class (C,).
    """

    weight: Tensor | None

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.p, self.margin = p, margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.multi_margin_loss`."""
        return F.multi_margin_loss(input, target, self.p, self.margin, self.weight, self.reduction)


class CosineEmbeddingLoss(ReducedLoss):
    """A loss: ``1 - cos`` of similar vectors (target 1), and what exceeds the margin for other pairs (target -1)."""

    def __init__(self, margin: float = 0.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.cosine_embedding_loss`."""
        return F.cosine_embedding_loss(input1, input2, target, self.margin, self.reduction)


class TripletMarginLoss(ReducedLoss):
    """A loss: what a negative example lacks to be farther from the anchor than a positive one, by the margin.

    p, eps: those of :class:`PairwiseDistance`. swap: as in :func:`tensorlite.nn.functional.triplet_margin_loss`.
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.triplet_margin_loss`."""
        return F.triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, self.reduction
        )


class PairwiseDistance(Module):
    """A layer: the p-norm of ``x1 - x2 + eps`` along the last dimension."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.p, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.pairwise_distance`."""
        return F.pairwise_distance(x1, x2, self.p, self.eps, self.keepdim)


class CosineSimilarity(Module):
    """A layer: the cosine of the angle of two vectors along a dimension."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.cosine_similarity`."""
        return F.cosine_similarity(x1, x2, self.dim, self.eps)
