"""Functions of neural networks, with PyTorch's names and signatures.

Import it as ``import tensorlite.nn.functional as F``. Every function checks its arguments, and its errors start with
its name. Shapes: N is a batch size, C a number of classes, and ``...`` stands for any number of dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .. import ops, random
from ..autograd.autocast_mode import can_combine
from ..autograd.graph import wrap
from ..autograd.op_hooks import run_op
from ..backends.registry import BACKENDS, Array
from ..dtypes import DType, DTypeLike, finfo, float32, int32, int64, is_floating
from ..errors import ShapeError
from ..missing_names import module_getattr as _module_getattr
from ..ops import nn as nn_ops
from ..ops import relu, sigmoid, tanh
from ..ops.distances import cosine_similarity
from ..ops.functional import elu, gelu, one_hot, silu, softplus
from ..ops.half_precision import rounds_once
from ..ops.shape import crop, pad_dims
from ..scalars import flag_in, fraction_in, int_in, ints_in, number_in
from ..tensors.tensor import Tensor
from .channel_norms import batch_norm, group_norm
from .checks import (
    check_attention,
    check_class_targets,
    check_class_weight,
    check_floating,
    check_linear,
    check_normalized_shape,
    check_reduction,
    check_same_shape,
    check_tensors,
    format_tensors,
)
from .functional_losses import (
    Reduction,
    binary_cross_entropy,
    cosine_embedding_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    margin_ranking_loss,
    multi_margin_loss,
    pairwise_distance,
    reduce_losses,
    smooth_l1_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from .spatial import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    conv1d,
    conv2d,
    conv_transpose1d,
    conv_transpose2d,
    max_pool1d,
    max_pool2d,
)

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "avg_pool1d",
    "avg_pool2d", "batch_norm", "binary_cross_entropy", "binary_cross_entropy_with_logits", "conv1d", "conv2d",
    "conv_transpose1d", "conv_transpose2d", "cosine_embedding_loss", "cosine_similarity", "cross_entropy", "dropout",
    "elu", "embedding", "gelu", "group_norm", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "layer_norm",
    "leaky_relu", "linear", "log_softmax", "margin_ranking_loss", "max_pool1d", "max_pool2d", "mse_loss",
    "multi_margin_loss", "nll_loss", "normalize", "one_hot", "pad", "pairwise_distance", "relu", "rms_norm",
    "scaled_dot_product_attention", "sigmoid", "silu", "smooth_l1_loss", "soft_margin_loss", "softmax", "softplus",
    "tanh", "triplet_margin_loss",
]  # fmt: skip

# ---- linear, normalisation, dropout ----------------------------------------------------


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``input @ weight.T + bias``.

    input: (..., in).
    weight: (out, in).
    bias: (out,), or None.

    Returns (..., out). Raises ShapeError for shapes that do not fit, DTypeError unless all have one floating point
    dtype, DeviceError for tensors on different devices.
    """
    check_linear(input, weight, bias)
    return nn_ops.linear(input, weight, bias)


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the last dimensions: ``(x - mean) / sqrt(variance + eps) * weight + bias``.

    input: (..., *normalized_shape).
    normalized_shape: the sizes of the dimensions over which mean and variance are taken.
    weight, bias: of shape ``normalized_shape``, or None.
    eps: a small number that keeps the root away from 0.

    Returns the shape of the input. Raises ShapeError for shapes that do not fit, DTypeError unless all have one
    floating point dtype.
    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016.
    """
    shape = check_normalized_shape("layer_norm", input, normalized_shape, weight, bias)
    if len(shape) == 1:
        return nn_ops.layer_norm_rows(input, weight, bias, number_in("layer_norm", "eps", eps))
    rows = input.flatten(-len(shape))
    flat_weight, flat_bias = (None if a is None else a.flatten() for a in (weight, bias))
    eps = number_in("layer_norm", "eps", eps)
    return nn_ops.layer_norm_rows(rows, flat_weight, flat_bias, eps).reshape(input.shape)


def rms_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Scale by the root mean square over the last dimensions: ``x / sqrt(mean(x^2) + eps) * weight``.

    input: (..., *normalized_shape).
    normalized_shape: the sizes of the dimensions over which the mean is taken.
    weight: of shape ``normalized_shape``, or None.
    eps: a small number that keeps the root away from 0. None is the machine epsilon of the input's dtype.

    Returns the shape of the input. Raises ShapeError for shapes that do not fit, DTypeError unless both have one
    floating point dtype.
    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    """
    shape = check_normalized_shape("rms_norm", input, normalized_shape, weight)
    computed = float32 if can_combine(input) else input.dtype
    eps = float(finfo(computed).eps) if eps is None else number_in("rms_norm", "eps", eps)
    if len(shape) == 1:
        return nn_ops.rms_norm_rows(input, weight, eps)
    flat = None if weight is None else weight.flatten()
    return nn_ops.rms_norm_rows(input.flatten(-len(shape)), flat, eps).reshape(input.shape)


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Set each entry to 0 with probability ``p``, and scale the others by ``1 / (1 - p)``.

    training: False returns the input itself.

    Raises ValueError if p is not from 0 to 1, DTypeError if the input is not of floating point.
    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.
    """
    p = fraction_in("dropout", "p", p)
    if not flag_in("dropout", "training", training) or p == 0:
        return input
    check_tensors("dropout", input=input)
    check_floating("dropout", input)
    return nn_ops.apply_dropout_mask(input, run_op(random.dropout_mask, input.array, p))


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Return the rows of ``weight`` with the indices ``input``.

    input: integers (...).
    weight: (V, D).
    padding_idx: a row that gets no gradient.

    Returns (..., D). Raises IndexError for an index that is not from 0 to V - 1 (on the CPU only: on a GPU the check
    would force a sync), DTypeError for indices that are not integers.
    """
    check_tensors("embedding", input=input, weight=weight)
    return nn_ops.embedding(weight, input, padding_idx)


# ---- activations ----------------------------------------------------------------------------


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """Return x where it is positive, else ``negative_slope * x``. Raises DTypeError for integers."""
    return nn_ops.leaky_relu(input, number_in("leaky_relu", "negative_slope", negative_slope))


def softmax(input: Tensor, dim: int, dtype: DTypeLike | None = None) -> Tensor:
    """Return ``exp(x_i) / sum_j exp(x_j)`` along ``dim``, in the shape of the input.

    dtype: convert the input to this dtype first.

    Raises IndexError for a dim out of range, DTypeError for integers.
    """
    return ops.softmax(input if dtype is None else input.to(dtype=dtype), dim)


def log_softmax(input: Tensor, dim: int, dtype: DTypeLike | None = None) -> Tensor:
    """Return ``x_i - log(sum_j exp(x_j))`` along ``dim``, in the shape of the input.

    dtype: convert the input to this dtype first.

    Raises IndexError for a dim out of range, DTypeError for integers.
    """
    return ops.log_softmax(input if dtype is None else input.to(dtype=dtype), dim)


# ---- losses ---------------------------------------------------------------------------------


@rounds_once
def mse_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Return ``(input - target)^2``, reduced as ``reduction`` says.

    input, target: Tensors of one shape. They do not broadcast, because (N, 1) and (N,) would give (N, N).
    reduction: "mean", "sum", or "none" for the shape of the input.

    Raises ShapeError if the shapes differ, ValueError for another reduction.
    """
    check_same_shape("mse_loss", input, target, reduction)
    return nn_ops.squared_error(input, target, reduction)


@rounds_once
def l1_loss(input: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Return ``|input - target|``, reduced as ``reduction`` says.

    input, target: Tensors of one shape. They do not broadcast, because (N, 1) and (N,) would give (N, N).
    reduction: "mean", "sum", or "none" for the shape of the input.

    Raises ShapeError if the shapes differ, ValueError for another reduction.
    """
    check_same_shape("l1_loss", input, target, reduction)
    return reduce_losses(ops.abs(input - target), reduction)


@rounds_once
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Return ``-(w t log s(x) + (1 - t) log(1 - s(x)))`` with the logistic function s, reduced as ``reduction`` says.

    input: logits x, of any shape.
    target: probabilities t of the positive class, in the shape of the input.
    weight: a factor for each entry; broadcasts to the input.
    reduction: "mean", "sum", or "none" for the shape of the input.
    pos_weight: the factor w of the positive class; broadcasts to the input.

    It stays finite for logits of any size. Raises ShapeError if input and target differ in shape, DTypeError unless all
    have one floating point dtype.
    """
    name = "binary_cross_entropy_with_logits"
    check_same_shape(name, input, target, reduction)
    check_floating(name, input, target, weight, pos_weight)
    if pos_weight is None:
        loss = nn_ops.logistic_cross_entropy(input, target)
    else:
        positive = target * pos_weight
        loss = -(positive * nn_ops.log_sigmoid(input) + (1.0 - target) * nn_ops.log_sigmoid(-input))
    return reduce_losses(loss if weight is None else loss * weight, reduction)


def _class_targets(
    name: str, input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Check the arguments, and return input and class indices as (N, C) and (N,).

    The shapes are (C,) and (), (N, C) and (N,), or (N, C, d1, ...) and (N, d1, ...).
    """
    classes = check_class_targets(name, input, target, weight, ignore_index)
    if target.dtype not in (int32, int64):
        target = target.long()
    if input.ndim == 2:
        return input, target
    rows = input if input.ndim < 3 else input.movedim(1, -1)
    return rows.reshape(target.numel(), classes), target.reshape(target.numel())


def _reduce_rows(
    loss: Tensor, factor: Tensor | None, target: Tensor, shape: tuple[int, ...], ignore_index: int, reduction: Reduction
) -> Tensor:
    """Reduce losses (N,), which are 0 where ignored. The mean is weighted, over the targets that are not ignored.

    factor: the weights of the targets, by which the losses are multiplied already; or None.
    """
    if reduction == "none":
        return loss.reshape(shape)
    if reduction == "sum":
        return loss.sum()
    if factor is not None:
        return loss.sum() / factor.sum()
    return loss.sum() / wrap(run_op(_count_targets, target.array, ignore_index, loss.dtype))


def _count_targets(target: Array, ignore_index: int, dtype: DType) -> Array:
    """Return the number of targets that are not ignored, 0-d."""
    xp = BACKENDS[type(target)]
    return xp.asarray(xp.count_nonzero(target != ignore_index), dtype)


def _weights_of(target: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor | None:
    """Return the weight of each target, 0 where it is ignored; None without weights."""
    if weight is None:
        return None
    counted = target != ignore_index
    return ops.where(counted, weight[ops.where(counted, target, 0)], 0.0)


@rounds_once
def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100, reduction: Reduction = "mean"
) -> Tensor:
    """Return the negative log-likelihood ``-weight[t] * input[t]`` of class indices t, reduced as ``reduction`` says.

    input: log-probabilities (C,), (N, C) or (N, C, d1, ...).

    The other arguments, the result and the errors are those of :func:`cross_entropy` with class indices.
    """
    check_reduction("nll_loss", reduction)
    ignore_index = int_in("nll_loss", "ignore_index", ignore_index)
    check_tensors("nll_loss", input=input, target=target)
    rows, indices = _class_targets("nll_loss", input, target, weight, ignore_index)
    factor = _weights_of(indices, weight, ignore_index)
    if factor is None and reduction != "none":
        return nn_ops.nll_rows(rows, indices, ignore_index, reduction)
    loss = nn_ops.nll_rows(rows, indices, ignore_index)
    loss = loss if factor is None else loss * factor
    return _reduce_rows(loss, factor, indices, target.shape, ignore_index, reduction)


@rounds_once
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return ``-sum_c q_c weight_c log softmax(x)_c``, where q is the target's distribution over the classes.

    input: logits x, (C,), (N, C) or (N, C, d1, ...).
    target: class indices, integers of the input's shape without C; or probabilities q in the shape of the input.
    weight: a factor for each class (C,).
    ignore_index: a class index whose loss is 0. The mean leaves it out.
    reduction: "mean" (divided by the sum of the targets' weights), "sum", or "none" for one loss for each target.
    label_smoothing: the part of q, from 0 to 1, that is spread over all classes equally.

    Raises IndexError for a class index out of range (on the CPU only: on a GPU the check would force a sync). Raises
    DTypeError for targets that are neither class indices nor probabilities, ShapeError for shapes that do not fit.
    Source of the smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016.
    """
    name = "cross_entropy"
    check_reduction(name, reduction)
    check_tensors(name, input=input, target=target)
    label_smoothing = fraction_in(name, "label_smoothing", label_smoothing)
    ignore_index = int_in(name, "ignore_index", ignore_index)
    if target.shape == input.shape and input.shape and is_floating(target.dtype):
        return _cross_entropy_of_probabilities(input, target, weight, reduction, label_smoothing)
    rows, indices = _class_targets(name, input, target, weight, ignore_index)
    if weight is None and reduction != "none":
        return nn_ops.cross_entropy_rows(rows, indices, ignore_index, label_smoothing, reduction)
    factor = _weights_of(indices, weight, ignore_index)
    if weight is None or factor is None or not label_smoothing:
        loss = nn_ops.cross_entropy_rows(rows, indices, ignore_index, label_smoothing)
        loss = loss if factor is None else loss * factor
    else:
        logp = ops.log_softmax(rows, 1)
        smooth = ops.where(indices != ignore_index, (logp @ weight) * (-1.0 / rows.shape[1]), 0.0)
        loss = nn_ops.nll_rows(logp, indices, ignore_index) * factor
        loss = (1.0 - label_smoothing) * loss + label_smoothing * smooth
    return _reduce_rows(loss, factor, indices, target.shape, ignore_index, reduction)


def _cross_entropy_of_probabilities(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: Reduction, label_smoothing: float
) -> Tensor:
    dim = min(1, input.ndim - 1)
    classes = input.shape[dim]
    check_floating("cross_entropy", input, target, weight)
    check_class_weight("cross_entropy", input, target, weight, classes)
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / classes
    if weight is not None:
        target = target * weight.reshape(classes, *[1] * (input.ndim - dim - 1))
    return reduce_losses(-(ops.log_softmax(input, dim) * target).sum(dim), reduction)


# ---- attention ------------------------------------------------------------------------------


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return ``softmax(scale * query @ key^T + mask) @ value``.

    query: (..., T, D), one row for each of T queries.
    key: (..., S, D).
    value: (..., S, E). All three have one floating point dtype, and their leading dimensions broadcast.
    attn_mask: broadcastable to (..., T, S). Booleans, where True means that the query sees the key; or numbers of the
        query's dtype, which are added.
    dropout_p: the probability that an attention weight is dropped. Pass 0 in evaluation.
    is_causal: whether query t sees only keys 0 to t. It can be combined with a mask.
    scale: the factor of the scores; None is ``1 / sqrt(D)``.
    enable_gqa: whether the heads, dimension -3, of key and value serve several heads of the query each; their number
        divides that of the query.

    Returns (..., T, E); zeros for a query that sees no key. Raises ShapeError, DTypeError, and ValueError if dropout_p
    is not from 0 to 1.
    Source: Vaswani et al., "Attention Is All You Need", 2017.
    """
    is_causal = flag_in("scaled_dot_product_attention", "is_causal", is_causal)
    if flag_in("scaled_dot_product_attention", "enable_gqa", enable_gqa):
        key, value = (_repeated_heads(query, x) for x in (key, value))
    weights, dropout_p = check_attention(query, key, value, attn_mask, dropout_p)
    dropout_mask = None
    if dropout_p:
        dropout_mask = run_op(_dropout_mask_of_shape, query.array, weights, dropout_p)
    width = max(query.shape[-1], 1)  # all scores are 0 if the width is 0
    factor = 1.0 / math.sqrt(width) if scale is None else number_in("scaled_dot_product_attention", "scale", scale)
    return nn_ops.attention(query, key, value, attn_mask, dropout_mask, is_causal, factor)


def _dropout_mask_of_shape(like: Array, shape: tuple[int, ...], p: float) -> Array:
    """Return dropout's factors in a shape, in the dtype and on the device of an array."""
    return random.dropout_mask(BACKENDS[type(like)].empty(shape, like.dtype), p)


def _repeated_heads(query: Tensor, x: Tensor) -> Tensor:
    """Return keys or values with each head repeated until there are as many as the query has."""
    check_tensors("scaled_dot_product_attention", query=query, key=x)
    heads, own = (t.shape[-3] if t.ndim > 2 else 0 for t in (query, x))
    if not own or heads % own:
        raise ShapeError(
            f"scaled_dot_product_attention({format_tensors(query, x)}): enable_gqa expects a number of heads, in "
            f"dimension -3, that divides the query's"
        )
    return x if heads == own else x.repeat_interleave(heads // own, -3)


# ---- padding and distances ------------------------------------------------------------------

Positions: TypeAlias = np.ndarray[Any, Any]
"""Positions along a dimension."""


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Add entries around the input, or cut some off where a width is negative.

    pad: two widths (left, right) for the last dimension, then two for the dimension before it, and so on.
    mode: "constant" puts ``value``. "reflect" mirrors the entries without repeating the border, "replicate" repeats
        the border, "circular" continues with the other end of what is not cut off.
    value: a number for the mode "constant"; None is 0.

    Raises ShapeError for widths that do not fit, ValueError for another mode or a value without "constant".
    """
    check_tensors("pad", input=input)
    pad = ints_in("pad", "widths", pad)
    if value is not None:
        value = number_in("pad", "value", value)
    widths = list(zip(pad[::2], pad[1::2], strict=False))
    if len(pad) % 2 or len(widths) > input.ndim:
        raise ShapeError(
            f"pad({format_tensors(input)}): expected two widths for each of at most {input.ndim} dimensions, got "
            f"{tuple(pad)}"
        )
    if mode == "constant":
        every = [(0, 0)] * (input.ndim - len(widths)) + widths[::-1]
        return _pad_constant(input, every, 0.0 if value is None else value)
    if mode not in _PADDING:
        raise ValueError(f"pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got {mode!r}")
    if value:
        raise ValueError(f"pad: value must be None in mode {mode!r}, got {value!r}. Use mode 'constant'.")
    for i, (left, right) in enumerate(widths):
        input = _pad_dim(input, input.ndim - 1 - i, left, right, mode)
    return input


def _around(at: Positions, first: int, end: int) -> Positions:
    """Return positions continued from the other end of the entries from ``first`` to ``end - 1``."""
    return first + (at - first) % max(end - first, 1)


_PADDING: dict[str, tuple[Callable[[int, int, int], float], Callable[[Positions, int, int, int], Positions]]] = {
    "reflect": (lambda n, left, right: n - 1, lambda at, n, left, right: n - 1 - abs(n - 1 - abs(at))),
    "replicate": (lambda n, left, right: math.inf if n else 0, lambda at, n, left, right: np.clip(at, 0, n - 1)),
    "circular": (
        lambda n, left, right: n + min(left, 0) + min(right, 0),
        lambda at, n, left, right: _around(at, max(-left, 0), n + min(right, 0)),
    ),
}
"""The largest width for n entries, and the entry that each position from ``-left`` to ``n + right - 1`` shows."""


def _pad_dim(input: Tensor, dim: int, left: int, right: int, mode: str) -> Tensor:
    """Pad one dimension with the input's own entries."""
    n = input.shape[dim]
    largest, shown = _PADDING[mode]
    most = largest(n, left, right)
    if max(left, right) > most or n + left + right < min(n, 1):
        raise ShapeError(
            f"pad({format_tensors(input)}): widths {left, right} of dim {dim} must be at most {most} in mode {mode!r}, "
            f"and leave at least one entry"
        )
    if left == right == 0:
        return input
    xp = BACKENDS[type(input.array)]
    source = shown(np.arange(-left, n + right), n, left, right)
    return input[(slice(None),) * dim + (xp.asarray(source),)]


def _pad_constant(input: Tensor, widths: list[tuple[int, int]], value: float) -> Tensor:
    """Pad with a value, where a negative width cuts off."""
    shape = input.shape
    if any(n + min(a, 0) + min(b, 0) < 0 for n, (a, b) in zip(shape, widths, strict=True)):
        raise ShapeError(f"pad({format_tensors(input)}): widths {widths} cut off more entries than there are")
    if any(min(ab) < 0 for ab in widths):
        starts = [max(-a, 0) for a, _ in widths]
        input = crop(input, starts, [n + min(a, 0) + min(b, 0) for n, (a, b) in zip(shape, widths, strict=True)])
    return pad_dims(input, [(max(a, 0), max(b, 0)) for a, b in widths], value)


@rounds_once
def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Return ``x / max(norm(x), eps)`` with the p-norm along ``dim``, in the shape of the input."""
    return input / ops.clamp(ops.norm(input, p, dim, True), eps)


if not TYPE_CHECKING:  # because a type checker would then accept any name of this module
    __getattr__ = _module_getattr(__name__, globals())
