"""The kernels that take bfloat16 arrays as they are, under the names of ``reference``.

An op gets them instead of float32 copies of its arrays where :func:`covers` says so. The bits of an activation are
those of the float32 kernel's result, rounded once. Attention (see ``compiled/attention.py``) and the ops that are
products of matrices multiply in bfloat16. Other ops convert their arrays, which takes 0.05 ns a number on one core of
Zen 4: a quarter of the time of LayerNorm.

There are 65,536 numbers of bfloat16. So a function of one number is a table of its results, 128 KB, of which the
activations of a model use a few KB. To look a result up takes less time than to compute it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from ...dtypes import DType, cast_array
from . import kernels
from .casts import bits_of, is_bfloat16
from .compiled_loops import load_loops
from .products import has_bfloat16_products
from .thread_pool import run_parallel

__all__ = ["attention", "attention_backward", "gelu", "gelu_backward", "silu", "silu_backward"]

Array = Any
XP = Any

_FLOAT32 = np.dtype(np.float32)
_MIN_COMPILED = 1 << 11  # entries, from which a compiled loop pays
_MIN_SHARED = 1 << 14  # entries, from which threads share it


def _launch(kernel: Any, size: int, *args: Any) -> Any:
    return run_parallel(kernel, *args) if size >= _MIN_SHARED else kernel(0, *args)


def _flat(x: Array) -> Array:
    return bits_of(x).reshape(-1)  # a copy if x is not contiguous


# ---- functions by table ---------------------------------------------------------------------


def _every_number() -> Array:
    """Return all bfloat16 numbers in the order of their bits, as float32."""
    return (np.arange(1 << 16, dtype=np.uint32) << 16).view(_FLOAT32)


@cache
def _gelu_tables(tanh: bool, dtype: DType) -> tuple[Array, Array]:
    """Return GELU of all numbers as bits of bfloat16, and its slope there in float32."""
    x = _every_number()
    values = bits_of(cast_array(kernels.gelu(np, x, tanh), dtype))
    return values, kernels.gelu_backward(np, np.ones_like(x), x, tanh)


@cache
def _silu_tables(dtype: DType) -> tuple[Array, Array]:
    """Return SiLU of all numbers as bits of bfloat16, and its slope there in float32."""
    x = _every_number()
    y = kernels.silu(np, x)
    return bits_of(cast_array(y, dtype)), kernels.silu_backward(np, np.ones_like(x), x, y)


def _look_up(x: Array, table: Array) -> Array:
    y = np.empty(x.shape, x.dtype)
    _launch(load_loops("bfloats").look_up, x.size, _flat(x), table, _flat(y))
    return y


def _look_up_product(g: Array, x: Array, table: Array) -> Array:
    y = np.empty(x.shape, x.dtype)
    _launch(load_loops("bfloats").look_up_product, x.size, _flat(g), _flat(x), table, _flat(y))
    return y


def gelu(xp: XP, x: Array, tanh: bool) -> Array:
    """Compute the same as the reference."""
    return _look_up(x, _gelu_tables(tanh, x.dtype)[0])


def gelu_backward(xp: XP, g: Array, x: Array, tanh: bool) -> Array:
    """Compute the same as the reference."""
    return _look_up_product(g, x, _gelu_tables(tanh, x.dtype)[1])


def silu(xp: XP, x: Array) -> Array:
    """Compute the same as the reference."""
    return _look_up(x, _silu_tables(x.dtype)[0])


def silu_backward(xp: XP, g: Array, x: Array, y: Array) -> Array:
    """Compute the same as the reference, from the SiLU of x before it was rounded to y."""
    return _look_up_product(g, x, _silu_tables(x.dtype)[1])


# ---- attention ------------------------------------------------------------------------------


def attention(
    xp: XP, q: Array, k: Array, v: Array, mask: Array | None, dropout_mask: Array | None, causal: bool, scale: float
) -> tuple[Array, Array, Array]:
    """Compute the same as the reference: the result in bfloat16, the maxima and sums in float32."""
    return kernels.attention(xp, q, k, v, mask, dropout_mask, causal, scale)


def attention_backward(
    xp: XP, g: Array, q: Array, k: Array, v: Array, mask: Array | None, dropout_mask: Array | None, top: Array,
    total: Array, causal: bool, scale: float,
) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
    """Compute the same as the reference, in bfloat16."""
    return kernels.attention_backward(xp, g, q, k, v, mask, dropout_mask, top, total, causal, scale)


# ---- which calls are covered ----------------------------------------------------------------


def _covers_table(arguments: Sequence[Any]) -> bool:
    return (
        arguments[0].size >= _MIN_COMPILED and load_loops("bfloats") is not None
        and all(is_bfloat16(a.dtype) for a in arguments if isinstance(a, np.ndarray))
    )  # fmt: skip


def _covers_attention(arguments: Sequence[Any]) -> bool:
    has_gradient = len(arguments) > 7
    if has_gradient and not is_bfloat16(arguments[0].dtype):
        return False
    return kernels.covers_bfloat16_attention(*arguments[has_gradient : has_gradient + 5])


def _covers_products(arguments: Sequence[Any]) -> bool:
    return has_bfloat16_products() and all(is_bfloat16(a.dtype) for a in arguments if isinstance(a, np.ndarray))


_MANY = 16  # channels, from which a convolution in bfloat16 is faster than the loops over float32


def _covers_convolution(arguments: Sequence[Any]) -> bool:
    """Return whether to convolve in bfloat16: in one group, with many channels.

    The first two arguments are an image or a result, (N, G, ...), and an image or a kernel, of whose shape the third
    number is that of channels.
    """
    x, y = arguments[0], arguments[1] if len(arguments) > 1 else None
    is_large = isinstance(y, np.ndarray) and x.shape[1] == 1 and y.shape[2] >= _MANY
    return is_large and _covers_products(arguments)


_COVERS = {
    "gelu": _covers_table, "silu": _covers_table, "attention": _covers_attention, "addmm": _covers_products,
    "correlate": _covers_convolution, "correlate_input": _covers_convolution, "correlate_weight": _covers_convolution,
}  # fmt: skip
"""By op, what tells whether its arguments are covered."""


def covers(op: str, arguments: Sequence[Any]) -> bool:
    """Return whether the kernels here take these arguments of an op, or of its backward function, as they are."""
    check = _COVERS.get(op)
    return check is not None and check(arguments)
