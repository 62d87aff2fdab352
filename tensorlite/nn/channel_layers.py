"""Layers that normalise channels: batch norm, group norm."""

from __future__ import annotations

from typing import ClassVar

from ..backends.registry import DeviceLike
from ..dtypes import DTypeLike, int64
from ..errors import ShapeError
from ..scalars import int_in, number_in
from ..tensors.creation import ones, tensor, zeros
from ..tensors.tensor import Tensor
from . import functional as F
from . import init
from .checks import format_tensors
from .module import Module
from .parameter import Parameter

__all__ = ["BatchNorm1d", "BatchNorm2d", "GroupNorm"]


class BatchNorm1d(Module):
    """A layer that normalises each channel over the batch, :func:`tensorlite.nn.functional.batch_norm`.

    It maps (N, C) and (N, C, L) to the same shape. In training it uses the statistics of the batch and keeps running
    ones, which it uses after ``eval()``.

    num_features: the number of channels, C.
    eps: a small number that keeps the root away from 0.
    momentum: the part of a batch in the running statistics. None averages over all batches instead.
    affine: whether there are a weight and a bias.
    track_running_stats: False always uses the statistics of the batch.
    device, dtype: those of the parameters and buffers; None is the default.
    bias: False leaves out the bias of ``affine``.

    weight: starts as ones, bias as zeros, running_mean as zeros, running_var as ones; all are (C,).
    num_batches_tracked: the number of batches seen in training.
    Source: Ioffe and Szegedy, "Batch Normalization", 2015.
    """

    ranks: ClassVar[tuple[int, ...]] = (2, 3)
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.num_features, self.eps = int_in(name, "num_features", num_features), number_in(name, "eps", eps)
        self.momentum = None if momentum is None else number_in(name, "momentum", momentum)
        self.affine, self.track_running_stats = affine, track_running_stats
        n = self.num_features
        self.weight = Parameter(ones(n, device=device, dtype=dtype)) if affine else None
        self.bias = Parameter(zeros(n, device=device, dtype=dtype)) if affine and bias else None
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(n, device=device, dtype=dtype) if tracked else None)
        self.register_buffer("running_var", ones(n, device=device, dtype=dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", tensor(0, dtype=int64, device=device) if tracked else None)

    def reset_running_stats(self) -> None:
        """Set the running mean to zeros, the running variance to ones, and the number of batches to 0."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Set the weight to ones and the bias to zeros, and reset the running statistics."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, ...) to the same shape. Raises ShapeError for another number of dimensions or channels."""
        if input.ndim not in self.ranks or input.shape[1] != self.num_features:
            wanted = " or ".join(f"{rank} dimensions" for rank in self.ranks)
            raise ShapeError(
                f"{type(self).__name__}({format_tensors(input)}): expected (N, {self.num_features}, ...) with {wanted}"
            )
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked.item())
        training = self.training or self.running_mean is None
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, training, momentum, self.eps
        )

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm2d(BatchNorm1d):
    """A layer that normalises each channel of images, (N, C, H, W). The options are those of :class:`BatchNorm1d`."""

    ranks = (4,)


class GroupNorm(Module):
    """A layer that normalises the channels of each group together, :func:`tensorlite.nn.functional.group_norm`.

    num_groups: a number of groups that divides the number of channels.
    num_channels: the number of channels, C.
    eps: a small number that keeps the root away from 0.
    affine: whether there are a weight and a bias.
    device, dtype: those of both; None is the default.
    bias: False leaves out the bias of ``affine``.

    weight: starts as ones, bias as zeros; both are (C,). Raises ValueError unless the groups divide the channels.
    Source: Wu and He, "Group Normalization", 2018.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: DeviceLike = None,
        dtype: DTypeLike | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_groups = int_in("GroupNorm", "num_groups", num_groups)
        self.num_channels = int_in("GroupNorm", "num_channels", num_channels)
        if self.num_groups < 1 or self.num_channels % self.num_groups:
            raise ValueError(
                f"GroupNorm: expected num_groups that divide num_channels, got {num_groups} for {num_channels}"
            )
        self.eps, self.affine = number_in("GroupNorm", "eps", eps), affine
        n = self.num_channels
        self.weight = Parameter(ones(n, device=device, dtype=dtype)) if affine else None
        self.bias = Parameter(zeros(n, device=device, dtype=dtype)) if affine and bias else None

    def reset_parameters(self) -> None:
        """Set the weight to ones and the bias to zeros."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, ...) to the same shape."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the options for ``repr``."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
