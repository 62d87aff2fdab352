"""Ops whose gradients are wrong in a part only, which the checks must find with nearly every seed.

Wrong for some sizes of numbers, for some lengths of rows, for equal arguments, at a higher order, for small integers.
"""
from __future__ import annotations

from typing import Any

import numpy as np

import tensorlite as tl
from tensorlite.testing import numpy_op
from tests.testing.gradient_cases import bug, by_hand

# ---- lengths of rows ------------------------------------------------------------------------


def _wrong_after_blocks(block: int) -> Any:
    """Return a rule for x * x that is wrong for the entries that whole blocks leave over."""

    def rule(g: Any, x: Any) -> Any:
        d = np.array(2 * g * x)
        size = x.shape[-1]
        if size > block:
            d[..., size - size % block :] *= x.dtype.type(1.5)
        return d

    return rule


@by_hand("only the rest of rows longer than 4", "(m,n)", _wrong_after_blocks(4))
def square_blocks_4(x): return x * x


@by_hand("only the rest of rows longer than 8", "(m,n)", _wrong_after_blocks(8))
def square_blocks_8(x): return x * x


@bug("only the part of rows beyond the 8th entry, composite", "(n)")
def relu_beyond_8(x):
    return tl.relu(x) if x.shape[0] <= 8 else tl.cat([tl.relu(x[:8]), tl.relu(x[8:].detach())])


# ---- sizes of numbers -----------------------------------------------------------------------


@bug("only in a narrow branch: smooth L1, beta 0.05", "(n)")
@tl.op(lambda g, x: g * tl.where(abs(x) < 0.05, 40.0 * x, tl.sign(x)))
def smooth_l1_narrow(xp, x): return xp.where(xp.abs(x) < 0.05, 10.0 * x * x, xp.abs(x) - 0.025)


@bug("only in a narrow branch of a difference", "(n),(n)")
def smooth_l1_loss_narrow(x, target): return smooth_l1_narrow(x - target)


@bug("only below 1e-6", "(n)")
@tl.op(lambda g, x: g * tl.where((abs(x) < 1e-6) & (x != 0.0), 0.5, tl.cos(x)))
def sin_tiny(xp, x): return xp.sin(x)


@bug("only below 1e-6: the logarithm is clamped", "(n)", elements="positive")
@tl.op(lambda g, x: g / tl.maximum(x, 1e-6))
def log_clamped(xp, x): return xp.log(x)


@bug("only between 4 and 800", "(n)")
@tl.op(lambda g, x: g * tl.where((x > 4.0) & (x < 800.0), 0.9, 1.0))
def identity_between(xp, x): return x * 1.0


@bug("only above 20", "(n)")
@tl.op(lambda g, x: g * tl.where(x > 20.0, 0.0, tl.sigmoid(x)))
def softplus_above_20(xp, x): return xp.logaddexp(x, 0.0 * x)


@bug("only above 5,000", "(n)")
@tl.op(lambda g, x: g * 2.0 * x * tl.where(x > 5000.0, 1.001, 1.0))
def square_above_5000(xp, x): return x * x


@bug("only above 5,000, 0-d", "()")
@tl.op(lambda g, x: g * 2.0 * x * tl.where(x > 5000.0, 1.001, 1.0))
def square_0d_above_5000(xp, x): return x * x


# ---- arguments that are one -----------------------------------------------------------------


@bug("doubled where two arguments are one Tensor", "(n),(n)")
def product_of_one(x, y): return 2.0 * tl.square(x) - tl.square(x).detach() if x is y else x * y


@by_hand("doubled where two arguments are one array", "(n),(n)", lambda g, x, y: (
    (2 * g * y, 2 * g * x) if np.may_share_memory(x, y) else (g * y, g * x)))  # fmt: skip
def product_of_shared(x, y): return x * y


# ---- orders ---------------------------------------------------------------------------------


def _constant(x: Any) -> Any:
    return x.detach() if isinstance(x, tl.Tensor) else x


@tl.op(lambda g, x: -g * tl.sin(_constant(x)))
def _cos_of_constant(xp, x): return xp.cos(x)


@bug("third order only", "(n)", order=3)
@tl.op(lambda g, x: g * _cos_of_constant(x))
def sin_third(xp, x): return xp.sin(x)


@bug("first order; at 0 it shows at second order", "(n),(n)")
def detached_gate(x, y): return x * tl.sigmoid(x.detach()) + y


# ---- indices, values that are overwritten, masks --------------------------------------------


def _rule_of_rows(g: Any, index: Any, in_shape: Any) -> Any:
    if isinstance(index, np.ndarray) and index.dtype.itemsize < 4:
        raise IndexError("arrays used as indices must be of int64")
    d = np.zeros(in_shape, g.dtype)
    np.add.at(d, index, g)
    return d


_rows = tl.op(_rule_of_rows, None)(lambda xp, x, index: x[index])


@bug("small integer indices fail in the backward pass", "(m>=1,n),(k)", elements=["real", "int"], order=1)
def rows_of_small_index(x, index): return _rows(x, index % x.shape[0])


@by_hand("values that are overwritten have a gradient", "(k),(k)", lambda g, x, i: (g[i % 3], None),
         elements=["nonzero", "int"])  # fmt: skip
def put_in_turn(x, i):
    z = np.zeros(3, x.dtype)
    for k, place in enumerate(i % 3):
        z[place] = x[k]
    return z


def _scores(x: Any, mask: Any) -> tuple[Any, Any]:
    s = np.where(mask, x, x.dtype.type(-1e30))
    return s, s.max(1, keepdims=True)


def _log_sum_added_to_maximum(g: Any, x: Any, v: Any, mask: Any) -> Any:
    s, top = _scores(x, mask)
    p = np.exp(s - (top + np.log(np.exp(s - top).sum(1, keepdims=True))))  # the logarithm is lost next to -1e30
    d = g[:, None] * v
    return p * (d - (d * p).sum(1, keepdims=True)) * mask, g[:, None] * p, None


@by_hand("logarithm of the sum lost next to a large offset", "(m,n>=1),(m,n),(m,n)", _log_sum_added_to_maximum,
         elements=["moderate", "moderate", "bool"])  # fmt: skip
def masked_attention(x, v, mask):
    s, top = _scores(x, mask)
    e = np.exp(s - top)
    return (e / e.sum(1, keepdims=True) * v).sum(1)


# ---- memory, the plain form of the adapter --------------------------------------------------


def _into_cotangent(g: Any, x: Any) -> Any:
    g *= 2 * x
    return g


def _into_input(g: Any, x: Any) -> Any:
    x *= 2
    return g * x


def _square(x: Any) -> Any:
    return x * x


bug("plain adapter: cotangent written over", "(n)", order=1)(numpy_op(_square, _into_cotangent, plain=True))
bug("plain adapter: input written over", "(n)", order=1)(numpy_op(_square, _into_input, plain=True))


@bug("the argument itself is returned: gradient reversal", "(n)")
@tl.op(lambda g: -g)
def reversal(xp, x): return x
