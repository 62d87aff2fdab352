"""Normalization of channels, as functions."""

from __future__ import annotations

import math
from typing import overload

from ..autograd.op_hooks import run_op
from ..autograd.version_counter import bump_version
from ..backends.registry import Array
from ..dtypes import DType, accumulate_dtype
from ..errors import ShapeError
from ..ops.channel_norms import normalize_channels, scale_channels
from ..scalars import int_in, number_in
from ..tensors.creation import zeros_like
from ..tensors.tensor import Tensor
from .checks import check_floating, check_tensors_or_none, format_tensors

__all__ = ["batch_norm", "group_norm"]


def _check(name: str, input: Tensor, **channels: Tensor | None) -> None:
    """Raise an error unless the input is (N, C, ...) and the other tensors are (C,), of one floating point dtype."""
    check_tensors_or_none(name, input=input, **channels)
    check_floating(name, input, *channels.values())
    shape = input.shape
    if len(shape) < 2 or any(t is not None and t.shape != (shape[1],) for t in channels.values()):
        raise ShapeError(
            f"{name}({format_tensors(input, *channels.values())}): expected an input (N, C, ...) and "
            f"{', '.join(channels)} of shape (C,), or None"
        )


@overload
def _widened(x: Tensor, dtype: DType) -> Tensor: ...
@overload
def _widened(x: None, dtype: DType) -> None: ...
def _widened(x: Tensor | None, dtype: DType) -> Tensor | None:
    """Return a tensor in this dtype; None for None."""
    return x if x is None or x.dtype == dtype else x.to(dtype)


def _update(running: Tensor, batch: Array, momentum: float) -> None:
    """Set running statistics to ``(1 - momentum) running + momentum batch`` in place."""

    def update(array: Array, batch: Array) -> None:
        array *= 1.0 - momentum
        array += (momentum * batch).astype(array.dtype)

    try:
        run_op(update, running.array, batch.reshape(-1))
    except ValueError as error:
        raise ShapeError(f"batch_norm: cannot write into running statistics of {running.shape}: {error}") from None
    bump_version(running.array)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel: ``(x - mean) / sqrt(variance + eps) * weight + bias``.

    input: (N, C, ...). The other tensors are (C,), or None.
    running_mean, running_var: the mean and variance if ``training`` is False. If it is True, mean and variance are
        those of the batch, and ``running = (1 - momentum) running + momentum batch`` is set in place, with the
        unbiased variance.
    eps: a small number that keeps the root away from 0.

    Returns the shape of the input. Raises ShapeError for shapes that do not fit, and for training with one number in a
    channel; DTypeError unless all have one floating point dtype; ValueError without statistics and training.
    Source: Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
    Shift", 2015.
    """
    name = "batch_norm"
    _check(name, input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    eps, momentum = number_in(name, "eps", eps), number_in(name, "momentum", momentum)
    dtype = accumulate_dtype(input.dtype)
    x, weight, bias = _widened(input, dtype), _widened(weight, dtype), _widened(bias, dtype)
    if not training:
        mean, var = _widened(running_mean, dtype), _widened(running_var, dtype)
        if mean is None or var is None:
            raise ValueError(f"{name}: expected running_mean and running_var, or training=True")
        factor = (var + eps).rsqrt()
        factor = factor if weight is None else factor * weight
        y = scale_channels(x, mean, factor, zeros_like(mean) if bias is None else bias)
        return y if dtype == input.dtype else y.to(input.dtype)
    count = input.shape[0] * math.prod(input.shape[2:])
    if count <= 1:
        raise ShapeError(
            f"{name}({format_tensors(input)}): expected more than one number in each channel for training, got "
            f"{count}. Use a larger batch, or eval()."
        )
    moments: list[Array] = []
    y = normalize_channels(x, weight, bias, None, eps, moments)
    if running_mean is not None or running_var is not None:
        variance = moments[0] * moments[0] * (count / (count - 1))
        for running, batch in ((running_mean, moments[1]), (running_var, variance)):
            if running is not None:
                _update(running, batch, momentum)
    return y if dtype == input.dtype else y.to(input.dtype)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise the channels of each group together: ``(x - mean) / sqrt(variance + eps) * weight + bias``.

    input: (N, C, ...). num_groups: a number of groups that divides C. weight, bias: (C,), or None.
    eps: a small number that keeps the root away from 0.

    Returns the shape of the input. Raises ShapeError for shapes that do not fit, DTypeError unless all have one
    floating point dtype, ValueError for a number of groups below 1.
    Source: Wu and He, "Group Normalization", 2018.
    """
    name = "group_norm"
    _check(name, input, weight=weight, bias=bias)
    num_groups = int_in(name, "num_groups", num_groups)
    if num_groups < 1:
        raise ValueError(f"{name}: expected num_groups of 1 or more, got {num_groups}")
    if input.shape[1] % num_groups:
        raise ShapeError(f"{name}({format_tensors(input)}): expected num_groups to divide C, got {num_groups}")
    return normalize_channels(input, weight, bias, num_groups, number_in(name, "eps", eps))
