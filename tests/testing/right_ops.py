"""Ops with right gradients that are difficult to check, which the checks must not report."""
from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

import tensorlite as tl
from tensorlite.nn import functional as F
from tensorlite.testing import numpy_op
from tests.testing.gradient_cases import AXIS, right

right("(m,n)")(tl.relu)
right("(m,n)")(tl.abs)
right("(m,n)", "sqrt", elements="positive")(tl.sqrt)
right("(m,n)", "sqrt at 0")(lambda x: tl.sqrt(tl.relu(x) + 1.0) - 1.0)
right("(m,n)", elements="positive")(tl.log1p)
right("(m,n)")(tl.erf)
right("(m,n)")(F.softplus)
right("(m,n)")(F.gelu)
right("(m,n)")(tl.floor)
right("(m,n)")(tl.round)
right("(m,n)")(tl.sign)
right("(...,n),(n)")(tl.atan2)
right("(...,n),(n)")(tl.minimum)
# 1 % 1e-12 has a kink at each 1e-24, which no step of finite differences shows.
right("(m,n),(m,n)", elements=["moderate", st.floats(0.25, 8.0)])(tl.remainder)


@right("(m>=1,n>=1)", "max with ties", dim=AXIS)
def amax(x, dim): return tl.amax(x, dim)


@right("(m,n>=1)", "max and its index, with ties")
def max_and_index(x): return tl.max(x, dim=1)


@right("(m,n)", "norm, with 0 at 0")
def norm(x): return tl.norm(x)


def _safe_norm(g: Any, out: Any, x: Any) -> Any:
    return g * tl.where(out == 0.0, 0.0, x / tl.where(out == 0.0, 1.0, out))


@right("(m,n)", "norm of rows with a custom rule", elements="moderate")
@tl.op(_safe_norm)
def own_norm(xp, x): return xp.sqrt((x * x).sum(1, keepdims=True))


@right("(m>=1,n>=1)", dim=AXIS)
def logsumexp(x, dim): return tl.logsumexp(x, dim)


@right("(...,n>=1)")
def softmax(x): return tl.softmax(x, -1)


@right("(...,n>=1)")
def log_softmax(x): return tl.log_softmax(x, -1)


_NEARLY = st.sampled_from([1.0, 1.0 + 2.0**-12, 1.0 - 2.0**-12, 1.0 + 2.0**-8])


@right("(m,n>=1),(n),(n)", "layer norm at nearly constant rows", elements=[_NEARLY, "moderate", "real"])
def layer_norm(x, weight, bias): return F.layer_norm(x, (x.shape[-1],), weight, bias)


@right("(m,n>=1)", "layer norm at constant rows, tiny epsilon", elements="unit")
def layer_norm_constant(x): return F.layer_norm(x, (x.shape[-1],), eps=1e-12)


@right("(...,n>=1),(n)")
def rms_norm(x, weight): return x / (x.square().mean(-1, keepdim=True) + 0.125).sqrt() * weight


@right("(n)", "x |x|")
def signed_square(x): return x * tl.abs(x)


@right("(m,n)")
def huber(x): return tl.where(tl.abs(x) <= 1.0, 0.5 * x * x, tl.abs(x) - 0.5)


@right("(m,n)")
def clamp(x): return tl.clamp(x, -1.0, 1.0)


@right("(m,n),(m,n)", "where with a condition on an input")
def where(x, y): return tl.where(x > 0.0, x, y * y)


@right("(m,n),(m,n)", "where, where the other branch is NaN", elements=["moderate", "moderate"])
def where_nan(x, y): return tl.where(x > 0.0, tl.log(tl.where(x > 0.0, x, 1.0)), y)


@right("(m,n)", "sort with ties", dim=AXIS)
def sort(x, dim): return tl.sort(x, dim)


@right("(m,n>=2)", "topk with ties")
def topk(x): return tl.topk(x, 2, 1)


@right("(m>=1,n),(k,n)", "gather with duplicates", elements=["real", "int"])
def gather(x, index): return tl.gather(x, 0, index % x.shape[0])


@right("(m>=1,n),(k)", "indexing with duplicates", elements=["real", "int"])
def index_rows(x, index): return x[index % x.shape[0]]


@right("(m>=1,n),(k)", elements=["real", "int"])
def embedding(x, index): return F.embedding(index % x.shape[0], x)


@right("(m,n)", dim=AXIS)
def cumsum(x, dim): return tl.cumsum(x, dim)


@right("(m,n)", "prod with zeros", elements="moderate")
def prod(x): return tl.prod(x)


@right("(m,n>=2)", elements="real")
def variance(x): return tl.var(x, 1)


@right("(m,n>=2)", "standard deviation, away from constant rows", elements="moderate")
def standard_deviation(x): return tl.sqrt(tl.var(x, 1) + 0.125)


@right("(m,n)", "sin(1e4 x)")
def sin_fast(x): return tl.sin(1e4 * x)


@right("(m,n)", "exp near overflow")
def exp_large(x): return tl.exp(0.875 * x)


@right("(m,n)", "exp near underflow")
def exp_small(x): return tl.exp(-700.0 - x / 8.0)


@right("(m,n)", "x ** 3")
def cube(x): return x**3


@right("(m,n),(m,n)", "x ** y", elements=["positive", "moderate"])
def power(x, y): return x**y


@right("(m,n),(m,n)", "division by small numbers", elements=["real", "nonzero"])
def division(x, y): return x / (1e-6 * y)


@right("(m,n),(m,n)", "division, zeros too")
def division_zero(x, y): return x / y


@right("(i,j),(j,k),(k)", elements="moderate")
def einsum(x, y, z): return tl.einsum("ij,jk,k->ik", x, y, z)


@right("(...,m,k),(k,n)")
def matmul(x, y): return x @ y


@right("(m>=1,k>=1),(m,k),(m,k)", "causal attention", elements="moderate")
def attention_causal(q, k, v): return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@right("(m>=1,k>=1),(n>=1,k),(n,k),(m,n)", "masked attention", elements=["moderate", "moderate", "moderate", "bool"])
def attention_masked(q, k, v, mask):
    first = tl.tensor(np.arange(mask.shape[1]) == 0)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask | first)


@right("(m,n>=1),(m)", "cross entropy", elements=["real", "int"])
def cross_entropy(x, target): return F.cross_entropy(x, target % x.shape[1], reduction="sum")


@right("(m>=1,n>=2),(m)", "cross entropy, ignored rows", elements=["real", "int"])
def cross_entropy_ignored(x, target):
    return F.cross_entropy(x, target % x.shape[1], ignore_index=0, reduction="sum")


@right("(m,n)", "relu(x) - relu(-x)")
def relu_pair(x): return tl.relu(x) - tl.relu(-x)


@right("(m,n)", "max(x, -x)")
def maximum_pair(x): return tl.maximum(x, -x)


@right("(m,n)", "|x| + x, relu of it, clamp of that")
def kinks_in_a_row(x): return tl.clamp(tl.relu(tl.abs(x) + x), -1.0, 2.0)


@right("(m,n)", "relu(relu(x) - relu(x - 1))")
def kinks_nested(x): return tl.relu(tl.relu(x) - tl.relu(x - 1.0))


@right("(m,n),(m,n)", "|x - y| + max(x, y)")
def kinks_of_two(x, y): return tl.abs(x - y) + tl.maximum(x, y)


@right("(m,n)", "steps: floor(x) + x")
def steps(x): return tl.floor(x) + x


@right("(m,n)", "large dynamic range: exp(4x) + 1e-8 x")
def dynamic_range(x): return tl.exp(4.0 * tl.clamp(x, -8.0, 8.0)) + 1e-8 * x


@right("(m,n)", "large dynamic range in one sum")
def dynamic_sum(x): return tl.sum(x * x * x) + tl.sum(1e-3 * tl.sin(x))


@right("(m,n)", "difference of nearly equal numbers", elements="moderate")
def cancelling(x): return (x + 64.0) * (x + 64.0) - 4096.0


@right("(m,n)", "variance as a difference of squares", elements="moderate")
def variance_cancelling(x): return tl.sum(tl.square(x + 64.0)) - tl.square(tl.sum(x + 64.0))


@right("(m,n)", "1 / (x^2 + 1e-4): a narrow peak")
def narrow_peak(x): return 1.0 / (x * x + 1e-4)


@right("(m,n)", "tanh(100 x): a steep step")
def steep_step(x): return tl.tanh(100.0 * x)


@right("(m,n)", "x^(1/3) of numbers away from 0", elements="positive")
def cube_root(x): return x ** (1 / 3)


@right("(m),(n)", "cat of a list")
def concatenate(x, y): return tl.cat([x, y, x])


@right("(m,n),(m,n)", "stack of a list")
def stacked(x, y): return tl.stack([x, y], dim=1)


@right("(m,n>=1)", "two results")
def mean_and_square(x): return x.mean(1), tl.square(x)


@right("(m,n)", "nothing to differentiate in one result")
def with_integers(x): return tl.exp(-tl.abs(x)), x > 0.0


@right("(m,n)", "a keyword argument", scale=st.sampled_from([0.5, 2.0, 1e3]))
def scaled(x, scale): return tl.tanh(x * scale)


@right("(n,c,l>=3)", "convolution and pooling", elements="moderate")
def pooled(x): return tl.relu(x[..., 1:] - 0.5 * x[..., :-1]).sum(-1)


right("(m,n)", "hand-written gradient", order=1)(numpy_op(np.arctan, lambda g, x: g / (1 + x * x), "arctan"))
right("(n),(n)", "hand-written, (g, g)", order=1)(numpy_op(lambda x, y: x + y, lambda g, x, y: (g, g), "add_gg"))
right("(n)", "hand-written, a view of the cotangent", order=1)(numpy_op(lambda x: x[::-1], lambda g, x: g[::-1], "rev"))
right("(m,n),(n)", "hand-written, None for one input", order=1, elements=["real", "bool"])(
    numpy_op(lambda x, mask: np.where(mask, x, 0 * x), lambda g, x, mask: (g * mask, None), "masked_fill")
)
right("(m,n),(n)", "hand-written, unbroadcast", order=1)(
    numpy_op(lambda x, b: x + b, lambda g, x, b: (g, g.sum(0)), "add_bias")
)
