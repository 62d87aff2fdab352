"""Ops with wrong gradients, which the checks must find.

Each is a mistake that people make, in an op of a few lines.
"""
from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

import tensorlite as tl
from tests.testing.gradient_cases import AXIS, bug, by_hand


def _ones_like(x: Any) -> Any:
    return x * 0.0 + 1.0


# ---- scale, sign, terms ---------------------------------------------------------------------


@bug("scale off by 1%", "(n)")
@tl.op(lambda g, x: 1.01 * g * tl.cos(x))
def sin_101(xp, x): return xp.sin(x)


@bug("scale off by 1e-3", "(n)", elements="moderate")
@tl.op(lambda g, out: 1.001 * g * out)
def exp_1001(xp, x): return xp.exp(x)


@bug("scale off by 1e-6", "(n)")
@tl.op(lambda g, out: (1 + 1e-6) * g * (1 - out * out))
def tanh_1e6(xp, x): return xp.tanh(x)


@bug("scale off by 1e-10", "(n)", missed="a relative error below rtol, 1e-8")
@tl.op(lambda g, x: (1 + 1e-10) * g * tl.cos(x))
def sin_1e10(xp, x): return xp.sin(x)


@bug("sign", "(n)")
@tl.op(lambda g, x: g * tl.sin(x))
def cos_sign(xp, x): return xp.cos(x)


@bug("sign, for one input only", "(n),(n)")
@tl.op(lambda g: g, lambda g: g)
def sub_sign(xp, x, y): return x - y


@bug("inputs swapped", "(n),(n)", elements="moderate")
@tl.op(lambda g, y: g * tl.sigmoid(y), lambda g, x: g * tl.sigmoid(x))
def softplus_of_product(xp, x, y): return xp.log1p(xp.exp(x)) + xp.log1p(xp.exp(y))


@bug("a term missing from the product rule", "(n)", elements="moderate")
@tl.op(lambda g, x: g * tl.sigmoid(x))
def swish_term(xp, x): return x / (1 + xp.exp(-x))


@bug("factor 2 missing", "(n)")
@tl.op(lambda g, x: g * x)
def square_half(xp, x): return x * x


@bug("factor missing for one of three inputs", "(n),(n),(n)", elements="moderate")
@tl.op(lambda g, t: g * (1 - t), lambda g: g, lambda g, x, y: g * (y - x))
def lerp_factor(xp, x, y, t): return x + t * (y - x)


@bug("epsilon left out", "(n)", elements="positive")
@tl.op(lambda g, x: g / x)
def log_eps(xp, x): return xp.log(x + 1e-6)


@bug("epsilon in another place", "(n)", elements="moderate")
@tl.op(lambda g, x: g * x / (abs(x) + 0.125))
def smooth_abs_eps(xp, x): return xp.sqrt(x * x + 0.125)


@bug("exponent's gradient without the logarithm", "(n),(n)", elements=["positive", "moderate"])
@tl.op(lambda g, x, y: g * y * x ** (y - 1), lambda g, out: g * out)
def power_log(xp, x, y): return x**y


@bug("a constant added", "(n)")
@tl.op(lambda g, x: g * tl.cos(x) + 1e-4)
def sin_constant(xp, x): return xp.sin(x)


@bug("gradient clipped", "(n)", elements="moderate")
@tl.op(lambda g, x: tl.clamp(g * 2.0 * x, -8.0, 8.0))
def square_clipped(xp, x): return x * x


@bug("gradient not linear in the cotangent", "(n)", elements="moderate")
@tl.op(lambda g, x: tl.sign(g) * 2.0 * x)
def square_sign(xp, x): return x * x


@bug("a straight-through estimator", "(n)")
@tl.op(lambda g: g)
def round_through(xp, x): return xp.round(x)


@bug("a path detached", "(n)", elements="moderate")
def swish_detached(x): return x * tl.sigmoid(x.detach())


@bug("a path through NumPy", "(n)", elements="moderate")
def softmax_numpy(x): return x - tl.tensor(float(np.real(x.detach().numpy()).sum()), dtype=x.dtype)


@bug("keyword argument left out", "(n)", elements="moderate", scale=st.sampled_from([1.0, 2.0, 0.5]))
def sigmoid_scale(x, scale): return _sigmoid_scale(x, scale)


@tl.op(lambda g, out: g * out * (1 - out), None)
def _sigmoid_scale(xp, x, scale): return 1 / (1 + xp.exp(-scale * x))


# ---- axes, sums, broadcasting ---------------------------------------------------------------


@bug("wrong axis", "(m,n>=1)", elements="moderate")
@tl.op(backward=lambda xp, g, out: (out * (g - (g * out).sum(0, keepdims=True)),), composite=lambda x: tl.softmax(x, 1))
def softmax_axis(xp, x):
    y = xp.exp(x - x.max(1, keepdims=True))
    return y / y.sum(1, keepdims=True)


@bug("wrong for 3-D only", "(...,m,n>=1)", elements="moderate")
@tl.op(
    backward=lambda xp, g, out: (out * (g - (g * out).sum(min(1, out.ndim - 1), keepdims=True)),),
    composite=lambda x: tl.softmax(x, -1),
)
def softmax_3d(xp, x):
    y = xp.exp(x - x.max(-1, keepdims=True))
    return y / y.sum(-1, keepdims=True)


@bug("wrong for 0-d only", "(...)")
@tl.op(lambda g, x: g * 2.0 * x if x.ndim else g * x)
def square_0d(xp, x): return x * x


def _mean_rule(g: Any, x: Any) -> Any:
    return g * _ones_like(x) * (1 / x.shape[0])


@bug("wrong for zero-size only", "(n)", order=1)
@tl.op(_mean_rule)
def mean_of_none(xp, x): return x.sum() / max(x.size, 1)


@bug("wrong for a size-1 axis", "(m,n)")
@tl.op(lambda g, x: g * _ones_like(x) * (2.0 if x.shape[1] == 1 else 1.0))
def sum_keepdim_one(xp, x): return x.sum(1, keepdims=True)


@bug("wrong for odd sizes", "(n)")
@tl.op(lambda g, x: g * (2.0 * x) if x.shape[0] % 2 == 0 else g * x)
def square_odd(xp, x): return x * x


@bug("wrong for a batch beyond the first", "(m,n),(n)")
@tl.op(lambda g, y: g[..., None] * y, lambda g, x: x[0] * g.sum() if x.shape[0] else g.sum() * x.sum(0))
def matvec_batch(xp, x, y): return x @ y


@bug("wrong beyond 16 entries", "(m>=3,n>=3)")
@tl.op(lambda g, x: g * (2.0 * x) if math.prod(x.shape) <= 16 else g * x)
def square_many(xp, x): return x * x


def _last_rows(g: Any, x: Any) -> Any:
    return g * (2.0 * x) * np.where(np.arange(x.shape[0]) < 64, 1.0, 1.01).astype(x.dtype.name)


@bug("wrong beyond the 64th entry", "(80)")
@tl.op(_last_rows)
def square_tail(xp, x): return x * x


@bug("wrong keepdim: fits square shapes only", "(m,n)")
@tl.op(lambda g, x: (g if x.shape[0] == x.shape[1] else g[:, None]) * _ones_like(x))
def sum_keepdim(xp, x): return x.sum(1)


@bug("mean divides by all entries", "(m,n>=1)")
@tl.op(lambda g, x: g[:, None] * _ones_like(x) * (1 / max(1, math.prod(x.shape))))
def mean_rows(xp, x): return x.sum(1) / x.shape[1]


@by_hand("transposition that fits square shapes only", "(m,k),(k,n)", lambda g, x, y: (
    g @ y if y.shape[0] == y.shape[1] else g @ y.T, x.T @ g))  # fmt: skip
def matmul_square(x, y): return x @ y


@by_hand("unbroadcast forgotten", "(m,n),(n)", lambda g, x, b: (g, g))
def add_bias_shape(x, b): return x + b


@by_hand("unbroadcast by the mean", "(m>=1,n),(n)", lambda g, x, b: (g, g.mean(0)))
def add_bias_mean(x, b): return x + b


@by_hand("unbroadcast ignores size-1 axes", "(m,n),(m,1)", lambda g, x, b: (g, g[:, :1] if g.shape[1] else 0 * b))
def add_column(x, b): return x + b


@bug("broadcast inputs are taken for full ones", "(m,n)")
@tl.op(lambda g, x: g * tl.cos(x) * (0.5 if 0 in getattr(x, "array", x).strides and np.size(x) > 1 else 1.0))
def sin_stride0(xp, x): return xp.sin(x)


@bug("wrong for negative dims", "(m,n)", elements="moderate", dim=AXIS)
def cumsum_negative(x, dim): return _cumsum_negative(x, dim)


@tl.op(lambda g, dim: tl.flip(tl.cumsum(tl.flip(g, [max(dim, 0)]), max(dim, 0)), [max(dim, 0)]), None)
def _cumsum_negative(xp, x, dim): return xp.cumsum(x, dim)


@bug("cumsum not reversed", "(n)", elements="moderate")
@tl.op(lambda g: tl.cumsum(g, 0))
def cumsum_forward(xp, x): return xp.cumsum(x, 0)


@bug("flip forgotten", "(m,n)")
@tl.op(lambda g: g)
def flip_forgotten(xp, x): return xp.flip(x, 1).copy()


@bug("permutation not inverted", "(l,m,n)")
@tl.op(lambda g: tl.permute(g, (1, 2, 0)) if g.shape[1:] + g.shape[:1] != g.shape else tl.permute(g, (2, 0, 1)))
def permute_again(xp, x): return xp.transpose(x, (2, 0, 1)).copy()


@by_hand("pieces of a concatenation cut equally", "(m),(n)", lambda g, x, y: (
    np.resize(g[: g.size // 2], x.shape), np.resize(g[g.size // 2 :], y.shape)))  # fmt: skip
def cat_halves(x, y): return np.concatenate([x, y])


@by_hand("kernel not flipped", "(n>=3)", lambda g, x: np.convolve(g, [1.0, 2.0, 4.0], "full")[: x.size])
def convolve_valid(x): return np.convolve(x, np.array([1.0, 2.0, 4.0], x.dtype), "valid")


@bug("two results swapped", "(n),(n)")
@tl.op(lambda g: g[1], lambda g: g[0], multi_output=True)
def identity_swapped(xp, x, y): return 1.0 * x, 1.0 * y


# ---- reductions and normalisations ----------------------------------------------------------


@bug("softmax without the correction", "(m,n>=1)", elements="moderate")
@tl.op(lambda g, out: g * out)
def softmax_diagonal(xp, x):
    y = xp.exp(x - x.max(1, keepdims=True))
    return y / y.sum(1, keepdims=True)


@bug("log-softmax without the sum", "(m,n>=1)", elements="moderate")
@tl.op(lambda g, out: g - tl.exp(out) * g)
def log_softmax_sum(xp, x):
    x = x - x.max(1, keepdims=True)
    return x - xp.log(xp.exp(x).sum(1, keepdims=True))


def _normalised(x: Any) -> tuple[Any, Any]:
    centered = x - _mean(x)
    scale = 1.0 / tl.sqrt(tl.mean(tl.square(centered), -1, True) + 0.01)
    return centered * scale, scale


def _mean(x: Any) -> Any:
    return tl.mean(x, -1, True)


def _layer_norm_without_mean(g: Any, x: Any) -> Any:
    y, scale = _normalised(x)
    return scale * (g - y * _mean(g * y))


def _layer_norm_without_variance(g: Any, x: Any) -> Any:
    _, scale = _normalised(x)
    return scale * (g - _mean(g))


@bug("layer norm without the mean's term", "(m,n>=1)", elements="moderate")
@tl.op(_layer_norm_without_mean)
def layer_norm_mean(xp, x): return _normalised(x)[0]


@bug("layer norm without the variance's term", "(m,n>=1)", elements="moderate")
@tl.op(_layer_norm_without_variance)
def layer_norm_variance(xp, x): return _normalised(x)[0]


@bug("rms norm: the weight's gradient without the norm", "(m,n>=1),(n)", elements="moderate")
@tl.op(lambda g, x, w: _rms_rule(g, x, w), lambda g, x: g * x)
def rms_norm_weight(xp, x, w): return x / xp.sqrt((x * x).mean(-1, keepdims=True) + 0.125) * w


def _rms_rule(g: Any, x: Any, w: Any) -> Any:
    scale = 1.0 / tl.sqrt(_mean(tl.square(x)) + 0.125)
    y = x * scale
    return scale * (g * w - y * _mean(g * w * y))


@bug("variance: n instead of n - 1", "(m,n>=2)", elements="moderate")
@tl.op(lambda g, x: g * 2.0 * (x - tl.mean(x, 1, True)) * (1 / x.shape[1]))
def variance_biased(xp, x): return x.var(1, ddof=1, keepdims=True)


def _targets(x: Any, t: Any) -> Any:
    return t % x.shape[1]


def _cross_entropy(x: Any, t: Any) -> Any:
    x = x - x.max(1, keepdims=True)
    return np.log(np.exp(x).sum(1)) - x[np.arange(len(x)), _targets(x, t)]


def _probabilities(x: Any) -> Any:
    y = np.exp(x - x.max(1, keepdims=True))
    return y / y.sum(1, keepdims=True)


def _cross_entropy_repeats(g: Any, x: Any, t: Any) -> Any:
    d, t = _probabilities(x) * g[:, None], _targets(x, t)
    _, first = np.unique(t, return_index=True)
    d[first, t[first]] -= g[first]
    return d, None


@by_hand("cross entropy: wrong where a target repeats", "(m,n>=1),(m)", _cross_entropy_repeats,
         elements=["moderate", "int"])  # fmt: skip
def cross_entropy_repeats(x, t): return _cross_entropy(x, t)


def _ignoring(g: Any, x: Any, t: Any) -> Any:
    d, t = _probabilities(x) * g[:, None], _targets(x, t)
    kept = t != 0
    d[kept, t[kept]] -= g[kept]
    return d, None


@by_hand("cross entropy: ignored rows get a gradient", "(m,n>=2),(m)", _ignoring, elements=["moderate", "int"])
def cross_entropy_ignore(x, t): return np.where(_targets(x, t) != 0, _cross_entropy(x, t), x.dtype.type(0))


@bug("product by division: NaN at zeros", "(n)", elements="moderate")
@tl.op(lambda g, x, out: g * out / x)
def prod_division(xp, x): return xp.prod(x)


def _product_guarded(g: Any, x: Any) -> Any:
    zeros = x == 0
    return np.where(zeros, 0.0, g * np.prod(x) / np.where(zeros, 1.0, x))


@by_hand("product: zeros get no gradient", "(n)", _product_guarded, elements="moderate")
def prod_guarded(x): return np.prod(x)


# ---- kinks, ties, single points -------------------------------------------------------------


@bug("ties: the maximum gives each of them the whole", "(m,n>=1)")
@tl.op(lambda g, x, out: g * (x == out))
def amax_ties(xp, x): return x.max(1, keepdims=True)


@bug("ties: maximum of two gives nothing", "(n),(n)")
@tl.op(lambda g, x, y: g * (x > y), lambda g, x, y: g * (y > x))
def maximum_ties(xp, x, y): return xp.maximum(x, y)


@bug("ties: minimum gives both the whole", "(n),(n)")
@tl.op(lambda g, x, y: g * (x <= y), lambda g, x, y: g * (y <= x))
def minimum_ties(xp, x, y): return xp.minimum(x, y)


@bug("kink: slope 2 at 0", "(n)")
@tl.op(lambda g, x: g * ((x > 0) * 1.0 + (x == 0) * 2.0))
def relu_kink(xp, x): return xp.maximum(x, 0.0)


@bug("kink: slope -0.1 at 0", "(n)")
@tl.op(lambda g, x: g * ((x > 0) * 1.0 - (x == 0) * 0.1))
def relu_below(xp, x): return xp.maximum(x, 0.0)


@bug("kink: NaN at 0", "(n)")
@tl.op(lambda g, x: g * x / abs(x))
def abs_nan(xp, x): return xp.abs(x)


@bug("norm: NaN at 0", "(n>=1)")
@tl.op(lambda g, x, out: g * x / out)
def norm_nan(xp, x): return xp.sqrt((x * x).sum(keepdims=True))


@bug("only at exactly 0", "(n)")
@tl.op(lambda g, x: g * tl.where(x == 0.0, 1.0, 2.0 * abs(x)))
def signed_square_zero(xp, x): return x * xp.abs(x)


@bug("sinc: NaN at 0", "(n)", elements="moderate", order=1)
@tl.op(lambda g, x: g * (tl.cos(x) / x - tl.sin(x) / (x * x)))
def sinc_zero(xp, x): return xp.sinc(x / math.pi)


@bug("only at negative values", "(n)")
@tl.op(lambda g, x: g * tl.where(x > 0.0, 1.0, 0.1))
def leaky_relu_negative(xp, x): return xp.where(x > 0, x, 0.01 * x)


@bug("only at large values", "(n)")
@tl.op(lambda g, x: g * tl.where(x > 500.0, 0.0, tl.sigmoid(x)))
def softplus_large(xp, x): return xp.logaddexp(x, 0.0 * x)


@bug("only at one number that is not drawn", "(n)",
     missed="0.3 is not a multiple of 1/8, and numbers near 0.3 are right")  # fmt: skip
@tl.op(lambda g, x: g * tl.where(x == 0.3, 1.0, 2.0 * x))
def square_at_03(xp, x): return x * x


@bug("clamp: gradient outside", "(n)")
@tl.op(lambda g, x: g * (x > -1.0))
def clamp_above(xp, x): return xp.clip(x, -1.0, 1.0)


@bug("huber: threshold of the gradient is another", "(n)")
@tl.op(lambda g, x: g * tl.clamp(x, -2.0, 2.0))
def huber_threshold(xp, x): return xp.where(xp.abs(x) <= 1, 0.5 * x * x, xp.abs(x) - 0.5)


@bug("where: condition inverted", "(n),(n)")
@tl.op(lambda g, x: g * (x <= 0), lambda g, x: g * (x > 0))
def where_inverted(xp, x, y): return xp.where(x > 0, x, y)


@bug("remainder: the divisor's gradient left out", "(n),(n)", elements=["moderate", "nonzero"])
@tl.op(lambda g: g, lambda g, y: 0.0 * g * y)
def remainder_divisor(xp, x, y): return x % y


# ---- indices and masks ----------------------------------------------------------------------


def _assigned(g: Any, x: Any, index: Any) -> Any:
    d = np.zeros_like(x)
    d[index % len(x)] = g
    return d, None


@by_hand("duplicates in an index: assignment instead of addition", "(m>=1,n),(k)", _assigned, elements=["real", "int"])
def embedding_assign(x, index): return x[index % len(x)]


@by_hand("sort: permutation not inverted", "(n)", lambda g, x: g[np.argsort(x, kind="stable")])
def sort_permutation(x): return np.sort(x, kind="stable")


def _causal(g: Any) -> Any:
    return g * np.tril(np.ones(g.shape), -1)


@by_hand("mask off by one", "(m,n)", lambda g, x: _causal(g))
def tril_mask(x): return np.tril(x)


@by_hand("dropout: mask not rescaled", "(n),(n)", lambda g, x, mask: (g * mask, None), elements=["real", "bool"])
def dropout_scale(x, mask): return x * mask * x.dtype.type(2)


@by_hand("masked mean: mask missing from the gradient", "(n>=1,k),(n)", lambda g, x, mask: (
    np.repeat(g, len(x), 0) / len(x), None), elements=["moderate", "bool"])  # fmt: skip
def masked_mean(x, mask):
    mask = mask if mask.any() else ~mask
    return (x * mask[:, None]).sum(0, keepdims=True) / x.dtype.type(mask.sum())


@by_hand("negative indices: gradient at another place", "(m>=1,n),(k)", lambda g, x, i: (
    _scattered(np.abs(i) % len(x), g, x), None), elements=["real", "int"])  # fmt: skip
def gather_negative(x, i): return x[i % len(x)]


def _scattered(index: Any, g: Any, x: Any) -> Any:
    d = np.zeros_like(x)
    np.add.at(d, index, g)
    return d


@by_hand("diagonal: written off the diagonal", "(n,n)", lambda g, x: np.flip(np.diag(g), 1))
def diagonal_flip(x): return np.diag(x).copy()


# ---- overflow and precision -----------------------------------------------------------------


@bug("overflow: softplus, NaN at 800", "(n)")
@tl.op(lambda g, x: g * tl.exp(x) / (1.0 + tl.exp(x)))
def softplus_overflow(xp, x): return xp.logaddexp(x, 0.0 * x)


@bug("overflow: logsumexp, NaN at 800", "(m,n>=1)")
@tl.op(lambda g, x: g * tl.exp(x) / tl.sum(tl.exp(x), 1, True))
def logsumexp_overflow(xp, x):
    top = x.max(1, keepdims=True)
    return top + xp.log(xp.exp(x - top).sum(1, keepdims=True))


@bug("overflow: sigmoid, NaN at -800", "(n)")
@tl.op(lambda g, x: g * tl.exp(-x) / tl.square(1.0 + tl.exp(-x)))
def sigmoid_overflow(xp, x): return xp.exp(-xp.logaddexp(-x, 0.0 * x))


@bug("underflow: log-sigmoid, NaN at -800", "(n)")
@tl.op(lambda g, x: g * tl.sigmoid(x) * (1.0 - tl.sigmoid(x)) / tl.sigmoid(x))
def log_sigmoid_underflow(xp, x): return -xp.logaddexp(-x, 0.0 * x)


@bug("underflow: 0 instead of -2x far out", "(n)")
@tl.op(lambda g, x: g * -2.0 * x * tl.exp(-x * x) / (tl.exp(-x * x) + 1e-300))
def log_gauss_underflow(xp, x): return -x * x


@bug("digits lost in a sum with a large number", "(n)", elements="moderate", order=1)
@tl.op(lambda g, x: g * ((tl.sin(x) + 1e9) - 1e9))
def cos_cancelled(xp, x): return -xp.cos(x)


@bug("float32 loses digits: variance as a difference of squares", "(n>=2)", elements="moderate")
def variance_float32(x): return tl.mean(tl.square(x + 4096.0)) - tl.square(tl.mean(x + 4096.0))


@by_hand("float32 inside float64", "(n)", lambda g, x: g * np.exp(x.astype(np.float32)).astype(x.dtype),
         elements="moderate")  # fmt: skip
def exp_float32(x): return np.exp(x)


@by_hand("float32 cotangent inside float64", "(n)", lambda g, x: (
    (g * np.cos(x)).astype(np.float32).astype(x.dtype)))  # fmt: skip
def sin_float32(x): return np.sin(x)


@by_hand("gradient of another dtype", "(n)", lambda g, x: (2 * g * x).astype(np.float32))
def square_float32(x): return x * x


@bug("float32 result widened", "(n)")
@tl.op(lambda g, x: g * _half(x))
def scaled_widened(xp, x): return x * np.float64(0.5)


def _half(x: Any) -> Any:
    return np.asarray(0.5, x.dtype)


@bug("float32 overflows: values of the wrong formula", "(n)", order=1)
@tl.op(lambda g, x: g * tl.sigmoid(x))
def softplus_narrow(xp, x): return xp.where(x > 500.0, xp.log(xp.exp(x / 8.0)) * 8.0, xp.logaddexp(x, 0.0 * x))


# ---- memory ---------------------------------------------------------------------------------


def _mutating(xp: Any, g: Any, x: Any) -> Any:
    g *= 2 * x
    return (g,)


@bug("cotangent changed in place", "(n)")
@tl.op(backward=_mutating, composite=lambda x: x * x)
def square_mutates(xp, x): return x * x


def _zeroing(xp: Any, g: Any, x: Any) -> Any:
    g[x <= 0] = 0
    return (g,)


@bug("cotangent changed for some inputs", "(n)")
@tl.op(backward=_zeroing, composite=tl.relu)
def relu_mutates(xp, x): return xp.maximum(x, 0.0)


_buffers: dict[Any, Any] = {}


def _cached(g: Any, x: Any) -> Any:
    return np.multiply(g, 2 * x, out=_buffers.setdefault((x.shape, x.dtype), np.empty_like(x, order="C")))


@by_hand("cached buffer returned", "(n)", _cached)
def square_cached(x): return x * x


def _of_result(xp: Any, g: Any, out: Any) -> Any:
    out *= g
    return (out,)


@bug("gradient is written over the result", "(n)", elements="moderate")
@tl.op(backward=_of_result, composite=tl.exp)
def exp_into_result(xp, x): return xp.exp(x)


def _of_input(xp: Any, g: Any, x: Any) -> Any:
    x *= g
    return (x,)


@bug("gradient is written over the input", "(n)")
@tl.op(backward=_of_input, composite=lambda x: 0.5 * x * x)
def half_square_into_input(xp, x): return 0.5 * x * x


@bug("forward changes its input", "(m,n>=1)")
@tl.op(lambda g: g)
def shift_in_place(xp, x):
    x += 1.0
    return x.copy()


@bug("result shares memory with the input", "(n)")
def identity_alias(x):
    y = x * 1.0
    y.array = x.array  # by hand, because an op copies such a result
    return y


@by_hand("wrong for transposed inputs", "(m,n)", lambda g, x: g * np.cos(x.ravel(order="K").reshape(x.shape)))
def sin_transposed(x): return np.sin(x)


def _memory_of(a: Any) -> Any:
    """Return entries in memory order, as a kernel that ignores strides reads them."""
    flat = a.base if a.base is not None and a.base.dtype == a.dtype else a
    flat = flat.ravel(order="K")
    return flat[: a.size].reshape(a.shape) if flat.size >= a.size else a


@by_hand("wrong for strided inputs", "(n)", lambda g, x: g * np.cos(_memory_of(x)))
def sin_strided(x): return np.sin(x)


@by_hand("wrong for strided cotangents", "(n)", lambda g, x: _memory_of(g) * np.cos(x))
def sin_strided_cotangent(x): return np.sin(x)


@by_hand("forward wrong for strided inputs", "(n)", lambda g, x: g * np.cos(x))
def sin_strided_forward(x): return np.sin(_memory_of(x))


_calls = itertools.count()


@by_hand("not deterministic: 1 in 3 calls", "(n)", lambda g, x: g * 2 * x * (1 if next(_calls) % 3 else 1.5))
def square_sometimes(x): return x * x


_noise = np.random.default_rng(0)


@bug("random numbers in the forward pass", "(n)")
def dropout_unseeded(x):
    return x * tl.tensor((_noise.random(x.shape) < 0.5).astype(x.dtype.name), dtype=x.dtype)


# ---- second order ---------------------------------------------------------------------------


def _raw(x: Any) -> Any:
    return x.detach() if isinstance(x, tl.Tensor) else x


@bug("second order: argument detached", "(n)", elements="moderate")
@tl.op(lambda g, x: g * tl.cos(_raw(x)))
def sin_detached(xp, x): return xp.sin(x)


@bug("second order: cotangent detached", "(n)", elements="moderate")
@tl.op(lambda g, x: _raw(g) * tl.cos(x))
def sin_cotangent(xp, x): return xp.sin(x)


@bug("second order: cross term detached", "(n),(n)", elements="moderate")
@tl.op(lambda g, y: g * _raw(y), lambda g, x: g * x)
def mul_cross(xp, x, y): return x * y


@bug("second order: composite of another function", "(n)", elements="moderate")
@tl.op(backward=lambda xp, g, x: (g * xp.cos(x),), composite=lambda x: 1.01 * tl.sin(x))
def sin_composite(xp, x): return xp.sin(x)


@bug("second order: composite right at first order only", "(n)", elements="moderate")
@tl.op(backward=lambda xp, g, x: (2 * g * x,), composite=lambda x: 2.0 * x * x.detach())
def square_composite(xp, x): return x * x


@bug("second order: composite NaN at 0", "(n)", elements="moderate")
@tl.op(backward=lambda xp, g, x: (g * xp.sign(x) * 2 * xp.abs(x),), composite=lambda x: tl.sqrt(x * x * x * x))
def square_sqrt(xp, x): return x * x


@bug("second order: wrong rule inside a right one", "(n)", elements="moderate")
@tl.op(lambda g, x: g * sin_101(x))
def minus_cos(xp, x): return -xp.cos(x)


@bug("second order: composite without a weight", "(m,n),(n)", elements="moderate")
@tl.op(
    backward=lambda xp, g, x, w: (g * 2 * x * w, (g * x * x).sum(0)),
    composite=lambda x, w: x * x * (w.detach() + 0.0) + (x * x).detach() * (w - w.detach()),
)
def weighted_square(xp, x, w): return x * x * w
