"""Losses that :mod:`tensorlite.nn.functional` exports: of single entries, of distributions, of pairs of vectors.

reduction: "mean" (of all losses), "sum", or "none" for one loss each. Another one raises ValueError.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from .. import ops
from ..errors import DTypeError, ShapeError
from ..ops import nn as nn_ops
from ..ops.half_precision import rounds_once
from ..ops.norms import vector_norm
from ..scalars import flag_in, number_in
from ..tensors.tensor import Tensor
from .checks import check_floating, check_reduction, check_same_shape, check_tensors, format_tensors

__all__ = [
    "Reduction", "binary_cross_entropy", "cosine_embedding_loss", "hinge_embedding_loss", "huber_loss", "kl_div",
    "margin_ranking_loss", "multi_margin_loss", "pairwise_distance", "reduce_losses", "smooth_l1_loss",
    "soft_margin_loss", "triplet_margin_loss",
]  # fmt: skip

Reduction: TypeAlias = Literal["none", "mean", "sum"]
"""The way to combine the losses of all entries: keep them, average them, or add them up."""


def reduce_losses(loss: Tensor, reduction: Reduction) -> Tensor:
    """Return the losses combined as ``reduction`` says."""
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()


# ---- losses of entries ----------------------------------------------------------------------


@rounds_once
def huber_loss(
    input: Tensor, target: Tensor, reduction: Reduction = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Return ``d^2 / 2`` for differences d up to ``delta``, and ``delta (|d| - delta / 2)`` for larger ones.

    input, target: Tensors of one shape and dtype.
    delta: a positive number.
    weight: a factor for each entry; broadcasts to the input.

    Raises ShapeError if the shapes differ, ValueError for another delta.
    Source: Huber, "Robust estimation of a location parameter", 1964.
    """
    check_same_shape("huber_loss", input, target, reduction)
    delta = number_in("huber_loss", "delta", delta)
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be a positive number, got {delta!r}")
    loss = nn_ops.huber(input, target, delta)
    if weight is None:
        return reduce_losses(loss, reduction)
    check_tensors("huber_loss", input=input, weight=weight)
    return reduce_losses(loss * weight, reduction)


@rounds_once
def smooth_l1_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean", beta: float = 1.0) -> Tensor:
    """Return ``d^2 / (2 beta)`` for differences d up to ``beta``, and ``|d| - beta / 2`` for larger ones.

    input, target: Tensors of one shape and dtype.
    beta: a number that is not negative; 0 gives :func:`l1_loss`.

    Raises ShapeError if the shapes differ, ValueError for another beta.
    Source: Girshick, "Fast R-CNN", 2015, equation 3.
    """
    check_same_shape("smooth_l1_loss", input, target, reduction)
    beta = number_in("smooth_l1_loss", "beta", beta)
    if not beta >= 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, got {beta!r}")
    loss = ops.abs(input - target) if beta == 0 else nn_ops.huber(input, target, beta)
    loss = loss if beta in (0, 1) else loss / beta
    return reduce_losses(loss, reduction)


@rounds_once
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """Return ``-(t log p + (1 - t) log(1 - p))`` for probabilities p and targets t.

    input: probabilities, from 0 to 1. :func:`binary_cross_entropy_with_logits` is more accurate.
    target: probabilities in the shape of the input.
    weight: a factor for each entry; broadcasts to the input.

    A logarithm is at least -100 and a slope at most 1e12, as in PyTorch, so that both stay finite. Raises ShapeError if
    the shapes differ, DTypeError unless all have one floating point dtype.
    """
    name = "binary_cross_entropy"
    check_same_shape(name, input, target, reduction)
    check_floating(name, input, target, weight)
    loss = nn_ops.bernoulli_cross_entropy(input, target)
    return reduce_losses(loss if weight is None else loss * weight, reduction)


@rounds_once
def kl_div(
    input: Tensor,
    target: Tensor,
    reduction: Literal["none", "mean", "sum", "batchmean"] = "mean",
    log_target: bool = False,
) -> Tensor:
    """Return ``t (log t - input)``, the terms of the Kullback-Leibler divergence of the target from the input.

    input: log-probabilities.
    target: probabilities t, or log-probabilities if ``log_target``. It broadcasts with the input.
    reduction: also "batchmean", the sum divided by the first size of the input: the divergence itself. "mean" divides
        by the number of all terms.

    A term with t = 0 is 0. Raises ValueError for another reduction, DTypeError unless both have one floating point
    dtype.
    """
    if reduction not in ("none", "mean", "sum", "batchmean"):
        raise ValueError(f"kl_div: reduction must be 'none', 'mean', 'sum' or 'batchmean', got {reduction!r}")
    check_tensors("kl_div", input=input, target=target)
    check_floating("kl_div", input, target)
    if flag_in("kl_div", "log_target", log_target):
        loss = ops.exp(target) * (target - input)
    else:
        zero = target == 0
        loss = ops.where(zero, 0.0, target * (ops.log(ops.where(zero, 1.0, target)) - input))
    if reduction == "batchmean":
        return loss.sum() / (input.shape[0] if input.shape else 1)
    return reduce_losses(loss, reduction)


@rounds_once
def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    """Return the input x where the target is 1, and ``max(0, margin - x)`` where it is -1.

    input: distances, of any shape. target: 1 or -1, in the shape of the input or broadcasting with it.

    For ``max(0, 1 - t x)``, the hinge loss of classifiers, write ``relu(1 - t * x)``.
    """
    check_reduction("hinge_embedding_loss", reduction)
    check_tensors("hinge_embedding_loss", input=input, target=target)
    margin = number_in("hinge_embedding_loss", "margin", margin)
    apart = ops.where(target != 1, ops.clamp(margin - input, min=0.0), 0.0)
    return reduce_losses(apart + ops.where(target != -1, input, 0.0), reduction)


@rounds_once
def soft_margin_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Return ``log(1 + exp(-t x))`` for scores x and targets t of 1 or -1, without overflow."""
    check_same_shape("soft_margin_loss", input, target, reduction)
    return reduce_losses(ops.logaddexp(-target * input, 0.0), reduction)


# ---- losses of rankings ---------------------------------------------------------------------


@rounds_once
def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """Return ``max(0, -t (x1 - x2) + margin)``: 0 where x1 is above x2 by the margin for t = 1, below it for t = -1.

    input1, input2, target: Tensors of the same number of dimensions, which broadcast. Raises ShapeError for others.
    """
    check_reduction("margin_ranking_loss", reduction)
    check_tensors("margin_ranking_loss", input1=input1, input2=input2, target=target)
    margin = number_in("margin_ranking_loss", "margin", margin)
    if not input1.ndim == input2.ndim == target.ndim:
        raise ShapeError(
            f"margin_ranking_loss({format_tensors(input1, input2, target)}): expected tensors of the same number of "
            f"dimensions"
        )
    return reduce_losses(ops.clamp(-target * (input1 - input2) + margin, min=0.0), reduction)


@rounds_once
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return the hinge loss of several classes: the mean over classes c of ``max(0, margin - x_t + x_c)^p``, c not t.

    input: scores x, (N, C) or (C,).
    target: class indices t, (N,) or ().
    p: 1 or 2.
    weight: a factor for each class (C,), which applies to the rows with that target.

    Raises ValueError for another p, ShapeError for shapes that do not fit, DTypeError for targets that are not
    integers. Source: Crammer and Singer, "On the algorithmic implementation of multiclass kernel-based vector
    machines", 2001.
    """
    name = "multi_margin_loss"
    check_reduction(name, reduction)
    check_tensors(name, input=input, target=target)
    margin = number_in(name, "margin", margin)
    if p not in (1, 2):
        raise ValueError(f"{name}: p must be 1 or 2, got {p!r}")
    classes = input.shape[-1] if input.shape else 1
    rows = input.reshape(-1, classes)
    if input.ndim > 2 or target.ndim > 1 or target.numel() != rows.shape[0]:
        raise ShapeError(
            f"{name}({format_tensors(input, target)}): expected input (N, C) or (C,), and target (N,) or ()"
        )
    if target.dtype.kind not in "iu":
        raise DTypeError(
            f"{name}({format_tensors(input, target)}): class indices must be integers. Convert with .long()."
        )
    indices = target.reshape(-1)
    slack = ops.clamp(rows - rows.gather(1, indices.unsqueeze(1)) + margin, min=0.0)
    loss = slack if p == 1 else slack * slack
    if weight is not None:
        loss = loss * weight[indices].unsqueeze(1)
    own = nn_ops.one_hot(indices, classes) == 1
    loss = ops.where(own, 0.0, loss).sum(1) / classes
    return reduce_losses(loss.reshape(input.shape[:-1]), reduction)


# ---- losses of pairs of vectors -------------------------------------------------------------


@rounds_once
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """Return the p-norm of ``x1 - x2 + eps`` along the last dimension. The tensors broadcast.

    eps: a small number that keeps the gradient of equal vectors away from 0.
    """
    check_tensors("pairwise_distance", x1=x1, x2=x2)
    return vector_norm(x1 - x2 + number_in("pairwise_distance", "eps", eps), p, -1, keepdim)


@rounds_once
def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """Return ``1 - cos(x1, x2)`` where the target is 1, and ``max(0, cos(x1, x2) - margin)`` where it is -1.

    input1, input2: vectors (N, D) or (D,).
    target: 1 or -1, (N,) or ().
    """
    name = "cosine_embedding_loss"
    check_reduction(name, reduction)
    check_tensors(name, input1=input1, input2=input2, target=target)
    margin = number_in(name, "margin", margin)
    if input1.ndim not in (1, 2) or input2.ndim not in (1, 2) or target.ndim != max(input1.ndim, input2.ndim) - 1:
        raise ShapeError(
            f"{name}({format_tensors(input1, input2, target)}): expected inputs (N, D) or (D,), and target (N,) or ()"
        )
    input1, input2 = (x if x.is_floating_point() else x.float() for x in (input1, input2))
    # PyTorch adds this number to the squared lengths here, where cosine_similarity has a smallest length.
    tiny = 1e-12
    squares = ((input1 * input1).sum(-1) + tiny) * ((input2 * input2).sum(-1) + tiny)
    cosine = (input1 * input2).sum(-1) / ops.sqrt(squares)
    loss = ops.where(target == 1, 1.0 - cosine, 0.0) + ops.where(target == -1, ops.clamp(cosine - margin, min=0.0), 0.0)
    return reduce_losses(loss, reduction)


@rounds_once
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return ``max(0, |a - p| - |a - n| + margin)`` for the vectors a, p and n along the last dimension.

    anchor, positive, negative: (N, D) or (D,).
    p, eps: those of :func:`pairwise_distance`.
    swap: use the distance of positive and negative where it is smaller than that of anchor and negative.

    Raises ValueError unless the margin is positive, ShapeError for different numbers of dimensions.
    Source: Schroff, Kalenichenko and Philbin, "FaceNet: A Unified Embedding for Face Recognition and Clustering", 2015.
    """
    name = "triplet_margin_loss"
    check_reduction(name, reduction)
    check_tensors(name, anchor=anchor, positive=positive, negative=negative)
    margin = number_in(name, "margin", margin)
    if not margin > 0:
        raise ValueError(f"{name}: margin must be a positive number, got {margin!r}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise ShapeError(
            f"{name}({format_tensors(anchor, positive, negative)}): expected tensors of the same number of dimensions"
        )
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if flag_in(name, "swap", swap):
        far = ops.minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduce_losses(ops.clamp(near - far + margin, min=0.0), reduction)
