"""Normalization of channels, as functions."""

from __future__ import annotations

import math

from ..autograd.grad_mode import no_grad
from ..dtypes import accumulate_dtype
from ..errors import ShapeError
from ..ops import nn as nn_ops
from ..ops.half_precision import rounds_once
from ..scalars import int_in, number_in
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


def _scale(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return ``x * weight + bias`` for each channel."""
    shape = (-1, *(1,) * (x.ndim - 2))
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


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
    dtype, x = input.dtype, input.to(accumulate_dtype(input.dtype))
    shape = (-1, *(1,) * (x.ndim - 2))
    if training:
        dims = (0, *range(2, x.ndim))
        count = math.prod(x.shape[d] for d in dims)
        if count <= 1:
            raise ShapeError(
                f"{name}({format_tensors(input)}): expected more than one number in each channel for training, got "
                f"{count}. Use a larger batch, or eval()."
            )
        mean = x.mean(dims)
        centred = x - mean.reshape(shape)
        centred = centred - centred.mean(dims, keepdim=True)  # what the rounding of a large mean left
        var = (centred * centred).mean(dims)
        with no_grad():
            for running, batch in ((running_mean, mean), (running_var, var * (count / (count - 1)))):
                if running is not None:
                    running.mul_(1.0 - momentum).add_((momentum * batch.detach()).to(running.dtype))
    elif running_mean is None or running_var is None:
        raise ValueError(f"{name}: expected running_mean and running_var, or training=True")
    else:
        centred, var = x - running_mean.to(x.dtype).reshape(shape), running_var.to(x.dtype)
    y = centred * (var + eps).rsqrt().reshape(shape)
    weight, bias = (None if t is None else t.to(x.dtype) for t in (weight, bias))
    return _scale(y, weight, bias).to(dtype)


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
    n, channels = input.shape[:2]
    if channels % num_groups:
        raise ShapeError(f"{name}({format_tensors(input)}): expected num_groups to divide C, got {num_groups}")
    size = channels // num_groups * math.prod(input.shape[2:])
    return _normalise_rows(input, (n, num_groups, size), weight, bias, number_in(name, "eps", eps))


@rounds_once
def _normalise_rows(
    x: Tensor, rows: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:  # fmt: skip
    """Normalise x along the last dimension of the shape ``rows``, then scale its channels."""
    return _scale(nn_ops.layer_norm_rows(x.reshape(rows), None, None, eps).reshape(x.shape), weight, bias)
