"""Attention of our own, for processors with the instructions: float32 with AVX-512, bfloat16 with AVX512_BF16.

``compiled/attention.py`` computes it. Elsewhere ``kernels.py`` does, with NumPy's BLAS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np

from .casts import is_bfloat16
from .products import has_amx_products, has_bfloat16_products, has_float32_products
from .thread_pool import run_parallel

__all__ = ["attend", "attend_backward", "prepare_attention", "takes"]

Array = Any

_FLOAT32 = np.dtype(np.float32)
_MIN_SHARED = 1 << 14  # entries of q, from which threads share the heads


def takes(q: Array, k: Array, v: Array) -> bool:
    """Return whether :func:`attend` takes arrays of these dtypes."""
    if not q.dtype == k.dtype == v.dtype:
        return False
    return has_float32_products() if q.dtype == _FLOAT32 else is_bfloat16(q.dtype) and has_bfloat16_products()


def _matrix(x: Array) -> tuple[int, int, int, int]:
    """Return the address of an array (B, H, rows, columns), and its strides."""
    return (x.__array_interface__["data"][0], *x.strides[:3])


@cache
def _load() -> Any:
    from .compiled import attention

    return attention


@lru_cache(64)
def _bits(number: float) -> int:
    """Return the bits of a number as float32."""
    return int(np.float32(number).view(np.int32))


def _sizes(q: Array, k: Array, v: Array, causal: bool, scale: float) -> tuple[int, ...]:
    narrow = q.itemsize == 2
    return (
        _load().PARTS, int(narrow), int(narrow and has_amx_products()), 1 + narrow, q.itemsize, q.shape[1], q.shape[2],
        k.shape[2], q.shape[3], v.shape[3], int(causal), _bits(scale),
    )  # fmt: skip


def _run(kernel: Any, q: Array, *args: Any) -> None:
    run_parallel(kernel, *args) if q.size >= _MIN_SHARED else kernel(0, *args)


def prepare_attention(
    name: str, arrays: Sequence[Array], top: Array, total: Array, causal: bool, scale: float
) -> Callable[[], None]:
    """Return a function that does what the one of this name does with the same arguments, which the caller keeps."""
    q, k, v, *_ = arrays if name == "attend" else arrays[1:]
    args = (
        _sizes(q, k, v, causal, scale), *map(_matrix, arrays), _address(top), _address(total), math.prod(q.shape[:2])
    )  # fmt: skip
    return partial(_run, getattr(_load(), name), q, *args)


def _address(x: Array) -> int:
    address: int = x.__array_interface__["data"][0]
    return address


def attend(arrays: Sequence[Array], top: Array, total: Array, causal: bool, scale: float) -> None:
    """Write ``softmax(scale q k^T) v`` into out, the maxima of the scores' rows, and their sums of ``exp(s - max)``.

    arrays: q (B, H, T, D), k (B, H, S, D), v (B, H, S, E), out (B, H, T, E): all float32 or all bfloat16, with
    contiguous rows. top, total: (B H, T), contiguous float32.
    """
    q, k, v, _ = arrays
    _run(
        _load().attend, q, _sizes(q, k, v, causal, scale), *map(_matrix, arrays), _address(top), _address(total),
        math.prod(q.shape[:2]),
    )  # fmt: skip


def attend_backward(arrays: Sequence[Array], top: Array, total: Array, causal: bool, scale: float) -> None:
    """Write the gradients of q, k and v, given that of the result.

    arrays: the gradient of the result, q, k, v, and their gradients, as :func:`attend` takes arrays. top, total: what
    :func:`attend` wrote.
    """
    _, q, k, v, *_ = arrays
    _run(
        _load().attend_backward, q, _sizes(q, k, v, causal, scale), *map(_matrix, arrays), _address(top),
        _address(total), math.prod(q.shape[:2]),
    )  # fmt: skip
