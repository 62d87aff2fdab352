"""Loss functions as modules. Each is called with ``(input, target)``.

Their ``reduction`` is "mean", "sum", or "none" for one loss for each entry. Another one raises ValueError.
"""

from __future__ import annotations

from typing import Literal

from ..scalars import fraction_in
from ..tensors.tensor import Tensor
from . import functional as F
from .checks import check_reduction
from .functional_losses import Reduction
from .module import Module

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "KLDivLoss", "L1Loss", "MSELoss", "NLLLoss",
    "ReducedLoss", "SmoothL1Loss",
]  # fmt: skip


class ReducedLoss(Module):
    """Base class of the losses. It checks and stores ``reduction``."""

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(type(self).__name__, reduction)
        self.reduction = reduction


class MSELoss(ReducedLoss):
    """A loss: the squared error ``(input - target)^2`` of Tensors of one shape."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.mse_loss`."""
        return F.mse_loss(input, target, self.reduction)


class L1Loss(ReducedLoss):
    """A loss: the absolute error ``|input - target|`` of Tensors of one shape."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.l1_loss`."""
        return F.l1_loss(input, target, self.reduction)


class HuberLoss(ReducedLoss):
    """A loss: half of the squared difference up to ``delta``, and a multiple of the absolute one beyond it.

    delta: a positive number.
    """

    def __init__(self, reduction: Reduction = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.huber_loss`."""
        return F.huber_loss(input, target, self.reduction, self.delta)


class SmoothL1Loss(ReducedLoss):
    """A loss: the absolute difference, with a parabola instead of the kink up to ``beta``.

    beta: a number that is not negative.
    """

    def __init__(self, reduction: Reduction = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.smooth_l1_loss`."""
        return F.smooth_l1_loss(input, target, self.reduction, self.beta)


class KLDivLoss(Module):
    """A loss: the Kullback-Leibler divergence of a target distribution from log-probabilities.

    reduction: "none", "mean", "sum", or "batchmean", which divides by the first size alone.
    log_target: whether the target holds log-probabilities, too.
    """

    def __init__(
        self, reduction: Literal["none", "mean", "sum", "batchmean"] = "mean", log_target: bool = False
    ) -> None:
        super().__init__()
        if reduction != "batchmean":
            check_reduction("KLDivLoss", reduction)
        self.reduction, self.log_target = reduction, log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.kl_div`."""
        return F.kl_div(input, target, self.reduction, self.log_target)


class BCELoss(ReducedLoss):
    """A loss: the binary cross-entropy of probabilities with probabilities of the same shape.

    weight: a factor for each entry; broadcasts to the input.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.binary_cross_entropy`."""
        return F.binary_cross_entropy(input, target, self.weight, self.reduction)


class NLLLoss(ReducedLoss):
    """A loss: the negative log-likelihood of log-probabilities (N, C, ...) and class indices (N, ...).

    weight: a factor for each class (C,).
    ignore_index: a class index whose loss is 0. The mean leaves it out.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.nll_loss`."""
        return F.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)


class CrossEntropyLoss(ReducedLoss):
    """A loss: the cross-entropy of logits (N, C, ...) with class indices (N, ...) or probabilities (N, C, ...).

    weight: a factor for each class (C,).
    ignore_index: a class index whose loss is 0. The mean leaves it out.
    label_smoothing: the part of the target, from 0 to 1, that is spread over all classes equally.
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        fraction_in("CrossEntropyLoss", "label_smoothing", label_smoothing)
        self.register_buffer("weight", weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.cross_entropy`."""
        return F.cross_entropy(input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing)


class BCEWithLogitsLoss(ReducedLoss):
    """A loss: the binary cross-entropy of logits with probabilities of the same shape.

    weight: a factor for each entry; broadcasts to the input.
    pos_weight: a factor of the positive class; broadcasts to the input.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self, weight: Tensor | None = None, reduction: Reduction = "mean", pos_weight: Tensor | None = None
    ) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Apply :func:`tensorlite.nn.functional.binary_cross_entropy_with_logits`."""
        return F.binary_cross_entropy_with_logits(input, target, self.weight, self.reduction, self.pos_weight)
