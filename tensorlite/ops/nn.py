"""Ops for neural networks: activations, softmax, normalization, embedding, losses, attention.

Most have a kernel and a gradient derived by hand, for speed, and name a *composite*: the same function in plain ops.
The composite is differentiated for gradients of higher order, and the tests compare the kernel with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from ..autograd.function import op
from ..autograd.graph import Value
from ..backends.reference import GELU_FAR, SILU_FAR
from ..backends.registry import BACKENDS, Array, Namespace
from ..errors import ShapeError
from ..scalars import int_in, number_in
from .arguments import array_of, dim_in, index_array, outlier, wide_index
from .comparison import eq
from .elementwise import clamp, convert, erf, exp, log, minimum, rsqrt, sigmoid, square, where
from .gather_scatter import gather
from .linalg import matmul
from .reduce import all, mean, sum
from .shape import reshape, transpose, unsqueeze

__all__ = ["log_softmax", "relu", "softmax"]

# ---- activations ----------------------------------------------------------------------------


@op(lambda h, y: _relu_slope(h, y), None)
def _relu_slope(xp: Namespace, g: Array, y: Array) -> Array:
    """Return the gradient of :func:`relu`, given that of its result."""
    return xp.relu_slope(g, y)


@op(lambda g, out: _relu_slope(g, array_of(out)))
def relu(xp: Namespace, x: Array) -> Array:
    """Return ``max(input, 0)``. At 0 the gradient is 0."""
    return xp.clamp(x, 0, None)


@op(lambda g, x, slope: where(x > 0, g, g * number_in("", "negative_slope", slope)), dtypes="floating", widen=True)
def _leaky_relu(xp: Namespace, x: Array, slope: float) -> Array:
    return xp.leaky(x, x, number_in("", "negative_slope", slope))


@op(
    backward=lambda xp, g, x, slope: (xp.leaky(g, x, number_in("", "negative_slope", slope)),),
    composite=_leaky_relu,
    dtypes="floating", widen=True,
)  # fmt: skip
def leaky_relu(xp: Namespace, x: Array, slope: float = 0.01) -> Array:
    """Return x where it is positive, otherwise ``slope * x``. Raises DTypeError for integers."""
    return xp.leaky(x, x, number_in("", "negative_slope", slope))


@op(
    lambda g, x, alpha: where(x > 0, g, g * (number_in("", "alpha", alpha) * exp(where(x > 0, 0.0, x)))),
    dtypes="floating", widen=True,
)
def elu(xp: Namespace, x: Array, alpha: float = 1.0) -> Array:
    """Return the input where it is positive, otherwise ``alpha * (exp(input) - 1)``. Raises DTypeError for integers.

    Source: Clevert, Unterthiner and Hochreiter, "Fast and Accurate Deep Network Learning by Exponential Linear Units",
    2015.
    """
    return xp.where(x > 0, x, number_in("", "alpha", alpha) * xp.expm1(xp.minimum(x, 0)))


def _silu_gradient(g: Value, x: Value, out: Value) -> Value:
    s = sigmoid(x)
    return g * (s + minimum(out, SILU_FAR) * (1.0 - s))


@op(_silu_gradient, dtypes="floating", widen=True)
def _silu(xp: Namespace, x: Array) -> Array:
    return xp.silu(x)


@op(
    backward=lambda xp, g, x, out: (xp.silu_backward(g, x, out),),
    composite=_silu,
    dtypes="floating", widen=True,
)
def silu(xp: Namespace, x: Array) -> Array:
    """Return ``input * sigmoid(input)``. Raises DTypeError for integers.

    Source: Elfwing, Uchibe and Doya, "Sigmoid-Weighted Linear Units", 2017.
    """
    return xp.silu(x)


@op(
    lambda g, x, beta, threshold: _softplus_gradient(g, x, *_softplus_numbers(beta, threshold)),
    dtypes="floating", widen=True,
)
def softplus(xp: Namespace, x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """Return ``log(1 + exp(beta * input)) / beta``, and the input where ``beta * input`` is above ``threshold``.

    Raises DTypeError for integers.
    """
    beta, threshold = _softplus_numbers(beta, threshold)
    z = x * beta
    return xp.where(z > threshold, x, xp.log1p(xp.exp(xp.minimum(z, threshold))) / beta)


def _softplus_numbers(beta: float, threshold: float) -> tuple[float, float]:
    """Return both as Python's numbers, which never upcast a tensor. Raises TypeError for anything else."""
    return number_in("", "beta", beta), number_in("", "threshold", threshold)


def _softplus_gradient(g: Value, x: Value, beta: float, threshold: float) -> Value:
    return where(x * beta > threshold, g, g * sigmoid(x * beta))


@op(lambda g, x: g * sigmoid(-x), dtypes="floating", widen=True)
def log_sigmoid(xp: Namespace, x: Array) -> Array:
    """Return ``-log(1 + exp(-input))``, accurate for inputs of any size. Raises DTypeError for integers."""
    return xp.log_sigmoid(x)


def _gelu_composite(x: Value, approximate: str) -> Value:
    near = clamp(x, -GELU_FAR, GELU_FAR)
    if approximate == "tanh":
        cdf = sigmoid(2.0 * math.sqrt(2.0 / math.pi) * (near + 0.044715 * (near * near * near)))
    else:
        cdf = 0.5 * (1.0 + erf(near * math.sqrt(0.5)))
    return clamp(x, -GELU_FAR) * cdf


@op(
    backward=lambda xp, g, x, approximate: (xp.gelu_backward(g, x, approximate == "tanh"),),
    composite=_gelu_composite,
    dtypes="floating", widen=True,
)
def gelu(xp: Namespace, x: Array, approximate: Literal["none", "tanh"] = "none") -> Array:
    """Return ``input * cdf(input)`` with the cdf of the normal distribution.

    approximate: "tanh" computes ``0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))``, as GPT-2 does.

    Raises ValueError for another approximation, DTypeError for integers.
    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
    return xp.gelu(x, approximate == "tanh")


# ---- softmax --------------------------------------------------------------------------------


def _at_least_1d(x: Array) -> Array:
    """Return x, as a row of one entry if it is 0-d."""
    return x if x.ndim else x.reshape(1)


@op(
    lambda h, out, dim: _softmax_gradient(h, out, dim),
    lambda h, g, out, dim: h * (g - sum(g * out, dim, True)) - g * sum(h * out, dim, True),
)
def _softmax_gradient(xp: Namespace, g: Array, out: Array, dim: int) -> Array:
    """Return the gradient of a softmax, given that of its result."""
    return xp.softmax_backward(g, out, dim) if out.ndim and out.size else g * 0.0


@op(lambda g, out, dim: _softmax_gradient(g, out, dim), dtypes="floating", accepts_dtype=True, widen=True)
def softmax(xp: Namespace, x: Array, dim: int) -> Array:
    """Return ``exp(x_i) / sum_j exp(x_j)`` along a dimension, computed without overflow.

    dtype: convert the input first. Raises DTypeError for integers.
    """
    d = dim_in("", dim, x.ndim)
    return xp.softmax(_at_least_1d(x), d).reshape(x.shape) if x.size else x.copy()


@op(
    lambda h, out, dim: h - sum(h * exp(out), dim, True),
    lambda h, g, out, dim: -h * exp(out) * sum(g, dim, True),
)
def _log_softmax_gradient(xp: Namespace, g: Array, out: Array, dim: int) -> Array:
    """Return the gradient of the logarithm of a softmax, given that of its result."""
    return xp.log_softmax_backward(g, out, dim) if out.ndim and out.size else g * 0.0


@op(lambda g, out, dim: _log_softmax_gradient(g, out, dim), dtypes="floating", accepts_dtype=True, widen=True)
def log_softmax(xp: Namespace, x: Array, dim: int) -> Array:
    """Return ``x_i - log(sum_j exp(x_j))`` along a dimension, computed without overflow.

    dtype: convert the input first. Raises DTypeError for integers.
    """
    d = dim_in("", dim, x.ndim)
    return xp.log_softmax(_at_least_1d(x), d).reshape(x.shape) if x.size else x.copy()


# ---- affine maps and normalisation ----------------------------------------------------------


def _linear_composite(x: Value, weight: Value, bias: Value) -> Value:
    y = matmul(x, transpose(weight, 0, 1))
    return y if bias is None else y + bias


@op(
    backward=lambda xp, g, x, weight, needs, given_dtypes: xp.linear_backward(g, x, weight, needs, given_dtypes),
    composite=_linear_composite,
    dtypes="floating", bfloat16=True,
)
def linear(xp: Namespace, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return ``x @ weight.T + bias`` for x (..., in), weight (out, in) and bias (out,) or None, as (..., out)."""
    return xp.linear(x, weight, bias)


def _layer_norm_composite(x: Value, weight: Value, bias: Value, eps: float) -> Value:
    centred = x - mean(x, -1, True)
    centred = centred - mean(centred, -1, True)  # what the rounding of a large mean left
    y = centred * rsqrt(mean(centred * centred, -1, True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _layer_norm_backward(
    xp: Namespace, g: Array, x: Array, weight: Array, mean: Array, rstd: Array
) -> tuple[Array, ...]:
    return xp.layer_norm_backward(g, x, weight, mean, rstd)


@op(backward=_layer_norm_backward, composite=_layer_norm_composite, aux=("mean", "rstd"), dtypes="floating", widen=True)
def layer_norm_rows(
    xp: Namespace, x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> tuple[Array, ...]:
    """Return ``(x - mean) / sqrt(variance + eps) * weight + bias`` along the last dimension.

    weight, bias: of the size of that dimension, or None. The second and third results are the mean and
        ``1 / sqrt(variance + eps)``.

    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016.
    """
    return xp.layer_norm(x, weight, bias, eps)


def _rms_norm_composite(x: Value, weight: Value, eps: float) -> Value:
    y = x * rsqrt(mean(x * x, -1, True) + eps)
    return y if weight is None else y * weight


@op(
    backward=lambda xp, g, x, weight, rrms: xp.rms_norm_backward(g, x, weight, rrms),
    composite=_rms_norm_composite,
    aux=("rrms",),
    dtypes="floating", widen=True,
)
def rms_norm_rows(xp: Namespace, x: Array, weight: Array | None = None, eps: float = 1e-6) -> tuple[Array, Array]:
    """Return ``x / sqrt(mean(x**2) + eps) * weight`` along the last dimension.

    weight: of the size of that dimension, or None. The second result is ``1 / sqrt(mean(x**2) + eps)``.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    """
    return xp.rms_norm(x, weight, eps)


@op(lambda g, dropout_mask: g * dropout_mask)
def apply_dropout_mask(xp: Namespace, x: Array, dropout_mask: Array) -> Array:
    """Return ``x * dropout_mask``. The factors of the mask are 0 or ``1 / (1 - p)``."""
    return x * dropout_mask


# ---- tables ----------------------------------------------------------------------------------


def _embedding_gradient(g: Value, input: Array, in_shape: Sequence[int], padding_idx: int | None) -> Value:
    if padding_idx is not None:
        row = int_in("", "padding_idx", padding_idx) % in_shape[0]
        g = where(unsqueeze(eq(input, row), -1), 0.0, g)
    return _embedding_backward(g, wide_index(array_of(input)), in_shape[0])


@op(_embedding_gradient, None, bfloat16=True)
def embedding(xp: Namespace, weight: Array, input: Array, padding_idx: int | None = None) -> Array:
    """Return the rows of ``weight`` (V, C) that the integers ``input`` (...) select, as (..., C).

    padding_idx: a row that gets no gradient.

    Raises IndexError for an integer that is not from 0 to V - 1 (on the CPU only: on a GPU the check would force a
    sync). Raises ShapeError if ``weight`` is not a matrix, DTypeError if ``input`` does not hold integers.
    """
    ids = index_array("embedding", weight, input)
    if weight.ndim != 2:
        raise ShapeError(f"expected a table (V, C), got shape {weight.shape}")
    rows = weight.shape[0]
    if padding_idx is not None and not -rows <= int_in("", "padding_idx", padding_idx) < rows:
        raise IndexError(f"padding_idx {padding_idx} is out of range for a table of {rows} rows")
    try:
        return xp.take_slices(weight, 0, ids)
    except IndexError:
        raise IndexError(f"id {outlier(ids, rows)} is not in the table of {rows} rows (0 to {rows - 1})") from None


@op(lambda g, input: embedding(g, input), None, bfloat16=True)
def _embedding_backward(xp: Namespace, g: Array, input: Array, rows: int) -> Array:
    """Return a table in which row i is the sum of the rows of g (..., C) whose ``input`` is i."""
    return xp.embedding_backward(g, input, rows)


@op()
def one_hot(xp: Namespace, x: Array, num_classes: int = -1) -> Array:
    """Return vectors with a 1 at the class and 0 elsewhere, int64, for classes (...) as (..., num_classes).

    num_classes: -1 means ``max + 1``, which forces a sync on a GPU.

    Raises IndexError for a negative or too large class, on the CPU only. Raises ValueError for a negative
    ``num_classes``, DTypeError if the classes are not integers.
    """
    ids, num_classes = index_array("one_hot", x, x), int_in("", "num_classes", num_classes)
    if num_classes == -1:
        if not x.size:
            raise ValueError("the number of classes cannot be found from an empty tensor. Pass num_classes.")
        num_classes = max(int(x.max()), 0) + 1
    elif num_classes < 0:
        raise ValueError(f"num_classes must not be negative (-1 means max + 1), got {num_classes}")
    if found := outlier(ids, num_classes):
        raise IndexError(f"class {found} is not one of {num_classes} (0 to {num_classes - 1})")
    out = xp.zeros((ids.size, num_classes), xp.int64)
    out[xp.arange(ids.size), ids.reshape(-1)] = 1
    return out.reshape(*ids.shape, num_classes)


# ---- losses ---------------------------------------------------------------------------------


def _squared_error_composite(x: Value, y: Value, reduction: str) -> Value:
    loss = square(x - y)
    return loss if reduction == "none" else sum(loss) if reduction == "sum" else mean(loss)


def _squared_error_backward(
    xp: Namespace, g: Array, difference: Array, reduction: str, needs: Sequence[int]
) -> tuple[Array | None, Array | None]:
    d = difference * (2.0 * (g / difference.size if reduction == "mean" else g))
    return d if 0 in needs else None, -d if 1 in needs else None


@op(
    backward=_squared_error_backward,
    composite=_squared_error_composite,
    aux=("difference",),
    dtypes="floating", widen=True,
)  # fmt: skip
def squared_error(xp: Namespace, x: Array, y: Array, reduction: str = "none") -> tuple[Array, Array]:
    """Return ``(x - y)**2``, or its sum or mean. The second result is ``x - y``."""
    d = xp.asarray(x - y)
    if reduction == "none":
        return d * d, d
    total = xp.sum_squares_of_all([d])
    return xp.asarray(total if reduction == "sum" else total / d.size, d.dtype), d


@op(
    lambda g, x, y, delta: g * clamp(x - y, -delta, delta),
    lambda g, x, y, delta: -g * clamp(x - y, -delta, delta),
    dtypes="floating",
    widen=True,
)
def _huber(xp: Namespace, x: Array, y: Array, delta: float) -> Array:
    return xp.huber(x, y, delta)


def _huber_backward(
    xp: Namespace, g: Array, x: Array, y: Array, delta: float, needs: Sequence[int]
) -> tuple[Array | None, Array | None]:
    d = xp.huber_slope(x, y, delta)
    d *= g
    return d if 0 in needs else None, -d if 1 in needs else None


@op(backward=_huber_backward, composite=_huber, dtypes="floating", widen=True)
def huber(xp: Namespace, x: Array, y: Array, delta: float) -> Array:
    """Return ``d^2 / 2`` for d = x - y up to delta in size, else ``delta (|d| - delta / 2)``.

    With c, which is d kept between -delta and delta, both are ``c (d - c / 2)``.
    """
    return xp.huber(x, y, delta)


@op(lambda g, x, y: g * (sigmoid(x) - y), lambda g, x: -g * x, dtypes="floating", widen=True)
def logistic_cross_entropy(xp: Namespace, x: Array, y: Array) -> Array:
    """Return ``-(y log s(x) + (1 - y) log(1 - s(x)))`` for logits x, probabilities y and the logistic function s.

    It is ``((x > 0) - y) x + log(1 + exp(-|x|))``, which stays finite for logits of any size.
    """
    loss = xp.asarray(((x > 0) - y) * x)
    loss -= xp.log_sigmoid(xp.abs(x))
    return loss


def _least_log(x: Value) -> Value:
    """Return ``log(x)``, and at least -100."""
    return clamp(log(x), min=-100.0)


@op(
    lambda g, x, y: g * (x - y) / clamp(x * (1.0 - x), min=1e-12),
    lambda g, x: g * (_least_log(1.0 - x) - _least_log(x)),
    dtypes="floating",
    widen=True,
)
def bernoulli_cross_entropy(xp: Namespace, x: Array, y: Array) -> Array:
    """Return ``-(y log x + (1 - y) log(1 - x))`` for probabilities x and y, with logarithms of at least -100."""
    return (y - 1.0) * _least_log(1.0 - x) - y * _least_log(x)


def _cross_entropy_composite(
    logits: Value, target: Array, ignore_index: int, smoothing: float, reduction: str
) -> Value:  # fmt: skip
    kept = target != ignore_index
    logp = log_softmax(logits, -1)
    picked = reshape(gather(logp, -1, unsqueeze(where(kept, target, 0), -1)), target.shape)
    loss = -(1.0 - smoothing) * picked - (smoothing * mean(logp, -1) if smoothing else 0.0)
    loss = where(kept, loss, 0.0)
    if reduction == "none":
        return loss
    return sum(loss) if reduction == "sum" else sum(loss) / sum(convert(kept, loss.dtype, None))


def _each_loss(xp: Namespace, g: Array, target: Array, count: Array | None) -> Array:
    """Return the gradient of each loss, given that of their sum, or of their mean over ``count`` targets."""
    return g if g.ndim else xp.broadcast_to(g if count is None else g / count, target.shape)


@op(
    backward=lambda xp, g, logits, target, top, total, count, ignore_index, smoothing: (
        xp.cross_entropy_backward(
            _each_loss(xp, g, target, count), logits, target, top, total, ignore_index, smoothing
        ),
        None,
    ),
    composite=_cross_entropy_composite,
    aux=("top", "total", "count"), widen=True,
)
def cross_entropy_rows(
    xp: Namespace, logits: Array, target: Array, ignore_index: int = -100, smoothing: float = 0.0,
    reduction: str = "none",
) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
    """Return the cross-entropy of each row of logits (N, C) with the class index target (N,), as (N,).

    It is ``-(1 - smoothing) * log_softmax(x)[target] - smoothing * mean(log_softmax(x))``, and 0 where the target is
    ``ignore_index``. The further results are the maximum of each row, and its sum of ``exp(x - max)``.

    reduction: "sum" adds the losses up. "mean" divides that by the number of targets that are not ignored, the last
        result.
    """
    loss, top, total = xp.cross_entropy(logits, target, ignore_index, smoothing)
    if reduction == "none":
        return loss, top, total, None
    loss = xp.sum_over(loss, (0,))
    if reduction == "sum":
        return loss, top, total, None
    count = xp.asarray(xp.count_nonzero(target != ignore_index), loss.dtype)
    return loss / count, top, total, count


def _class_places(xp: Namespace, target: Array, ignore_index: int) -> tuple[Array, tuple[Array, Array]]:
    """Return which targets (N,) count, and where a matrix (N, C) has their entries; class 0 where one is ignored."""
    kept = target != ignore_index
    return kept, (xp.arange(target.size), xp.where(kept, target, 0))


@op(
    lambda g, target, ignore_index, reduction, in_shape: _nll_gradient(g, target, in_shape, ignore_index, reduction),
    None, widen=True,
)  # fmt: skip
def nll_rows(
    xp: Namespace, logp: Array, target: Array, ignore_index: int = -100, reduction: str = "none"
) -> Array:  # fmt: skip
    """Return ``-logp[target]`` for each row of logp (N, C) and class index target (N,), as (N,).

    It is 0 where the target is ``ignore_index``. reduction: "sum" and "mean" as in :func:`cross_entropy_rows`.
    """
    kept, places = _class_places(xp, target, ignore_index)
    loss = xp.where(kept, -logp[places], 0.0)
    if reduction == "none":
        return loss
    loss = xp.sum_over(loss, (0,))
    return loss if reduction == "sum" else loss / xp.asarray(xp.count_nonzero(kept), logp.dtype)


@op(lambda h, target, ignore_index, reduction: nll_rows(h, target, ignore_index, reduction), None, widen=True)
def _nll_gradient(
    xp: Namespace, g: Array, target: Array, shape: Sequence[int], ignore_index: int, reduction: str
) -> Array:  # fmt: skip
    """Return the gradient of the rows of :func:`nll_rows`, given that of its result."""
    kept, places = _class_places(xp, target, ignore_index)
    each = g / xp.asarray(xp.count_nonzero(kept), g.dtype) if reduction == "mean" else g
    out = xp.zeros(shape, g.dtype)
    out[places] = xp.where(kept, -each, 0.0)
    return out


# ---- attention ------------------------------------------------------------------------------


def _attention_composite(
    q: Value, k: Value, v: Value, mask: Value, dropout_mask: Value, causal: bool, scale: float
) -> Value:
    scores = matmul(q, transpose(k, -1, -2)) * scale
    if causal:
        seen = BACKENDS[type(array_of(q))].tri(q.shape[-2], k.shape[-2], dtype=bool)
        scores = where(seen, scores, -math.inf)
    if mask is not None:
        scores = where(mask, scores, -math.inf) if mask.dtype.kind == "b" else scores + mask
    blind = all(scores == -math.inf, -1, True)
    p = where(blind, 0.0, softmax(where(blind, 0.0, scores), -1))
    return matmul(p if dropout_mask is None else p * dropout_mask, v)


def _attention_backward(
    xp: Namespace, g: Array, q: Array, k: Array, v: Array, mask: Array, dropout_mask: Array, top: Array, total: Array,
    causal: bool, scale: float,
) -> tuple[Array, ...]:  # fmt: skip
    return xp.attention_backward(g, q, k, v, mask, dropout_mask, top, total, causal, scale)


@op(backward=_attention_backward, composite=_attention_composite, aux=("top", "total"), widen=True)
def attention(
    xp: Namespace, q: Array, k: Array, v: Array, mask: Array | None, dropout_mask: Array | None, causal: bool,
    scale: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return ``softmax(scale * q k^T + mask) v`` for q (..., T, D), k (..., S, D) and v (..., S, E), as (..., T, E).

    mask: booleans (True takes part) or numbers to add, broadcastable to (..., T, S), or None.
    dropout_mask: factors of the softmax, or None.
    causal: query t uses the keys 0 to t.

    A query that may use no key gives zeros. The further results are the maximum of each row of scores, and its sum of
    ``exp(s - max)``.
    Source: Vaswani et al., "Attention Is All You Need", 2017.
    """
    return xp.attention(q, k, v, mask, dropout_mask, causal, scale)
