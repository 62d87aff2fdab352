"""The kernels that differ from ``reference`` on CuPy's arrays, under the same names.

``elementwise.cu`` is compiled when one of its kernels is first called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from ...dtypes import is_floating
from .. import reference

__all__ = ["adam_step", "erf", "gelu", "gelu_backward", "scatter_add_into"]

Array = Any
XP = Any


def erf(xp: XP, x: Array) -> Array:
    """Compute the same as the reference, by CUDA's own function."""
    from cupyx.scipy.special import erf as cuda_erf

    return cuda_erf(x).astype(x.dtype, copy=False)  # CuPy returns a wider dtype for float16


def scatter_add_into(xp: XP, out: Array, index: Any, source: Array) -> Array:
    """Compute the same as the reference, by atomic operations, so the last bits may differ from run to run."""
    if out.dtype == np.int64:  # CuPy has no atomic addition for int64; uint64 adds the same bits
        xp.add.at(out.view(np.uint64), index, source.astype(np.int64, copy=False).view(np.uint64))
    elif out.dtype.itemsize < 4:
        wide = out.astype(np.float32 if is_floating(out.dtype) else np.int32)
        xp.add.at(wide, index, source.astype(wide.dtype))
        out[...] = wide
    else:
        xp.add.at(out, index, source)
    return out


# ---- elementwise.cu -------------------------------------------------------------------------

_BLOCK = 256
_MAX_BLOCKS = 4096  # enough to fill any GPU; each thread loops over the remaining entries


@cache
def _module(raw_module: Callable[..., Any]) -> Any:
    source = resources.files(__package__).joinpath("elementwise.cu").read_text("utf-8")
    return raw_module(code=source, options=("-std=c++17",))


@cache
def _kernel(raw_module: Callable[..., Any], name: str) -> Any:
    return _module(raw_module).get_function(name)


def _is_contiguous_float(*arrays: Array) -> bool:
    """Return whether the arrays are contiguous float32 or float64 of one shape on one device, as kernels require."""
    first = arrays[0]
    return first.dtype in (np.float32, np.float64) and all(
        a.dtype == first.dtype and a.shape == first.shape and a.flags.c_contiguous and a.device.id == first.device.id
        for a in arrays
    )


def _launch(xp: XP, name: str, arrays: tuple[Array, ...], *numbers: float) -> None:
    """Launch a kernel of elementwise.cu, with its numbers in the arrays' dtype, because CuPy does not convert them."""
    first = arrays[0]
    if not first.size:
        return  # CUDA refuses a grid without blocks
    kernel = _kernel(xp.RawModule, f"{name}_{first.dtype}")
    grid = min(-(-first.size // _BLOCK), _MAX_BLOCKS)
    with first.device:
        kernel((grid,), (_BLOCK,), (*arrays, np.int64(first.size), *map(first.dtype.type, numbers)))


def gelu(xp: XP, x: Array, tanh: bool) -> Array:
    """Compute the same as the reference, in one pass over memory."""
    if not _is_contiguous_float(x):
        return reference.gelu(xp, x, tanh)
    out = xp.empty_like(x)
    _launch(xp, "gelu_tanh" if tanh else "gelu", (x, out))
    return out


def gelu_backward(xp: XP, g: Array, x: Array, tanh: bool) -> Array:
    """Compute the same as the reference, in one pass over memory."""
    if not _is_contiguous_float(g, x):
        return reference.gelu_backward(xp, g, x, tanh)
    dx = xp.empty_like(x)
    _launch(xp, "gelu_tanh_backward" if tanh else "gelu_backward", (g, x, dx))
    return dx


def adam_step(
    xp: XP, p: Array, g: Array, m: Array, v: Array, t: int, lr: float, beta1: float, beta2: float, eps: float,
    decay: float, decoupled: bool, maximize: bool,
) -> None:  # fmt: skip
    """Compute the same as the reference, in one pass over memory."""
    if not _is_contiguous_float(p, g, m, v):
        reference.adam_step(xp, p, g, m, v, t, lr, beta1, beta2, eps, decay, decoupled, maximize)
        return
    coefficients = reference.adam_coefficients(t, lr, beta1, beta2, eps, decay, decoupled, maximize)
    _launch(xp, "adam_step", (p, g, m, v), *coefficients)
