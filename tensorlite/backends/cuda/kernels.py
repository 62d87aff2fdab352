"""CuPy: how to find it, what the backend must know of it, and the kernels that differ from ``reference`` there.

Nothing is imported from CuPy before someone asks for the GPU. ``elementwise.cu`` is compiled when one of its kernels is
first called.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from importlib import resources
from types import ModuleType
from typing import Any

import numpy as np

from ...errors import DeviceError
from .. import reference

__all__ = ["adam_step", "erf", "gelu", "gelu_backward", "scatter_add_into"]

Array = Any
XP = Any


@cache
def find_cupy() -> tuple[ModuleType | None, str]:
    """The cupy module if a GPU computes through it; else None, and why."""
    install = "pip install 'tensorlite[cuda12]' or 'tensorlite[cuda13]', to match the driver"
    try:
        import cupy
    except ImportError as error:
        return None, f"CuPy is not installed ({error}); {install}"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return None, f"CuPy finds no CUDA driver or device ({error})"
    if count == 0:
        return None, "CuPy finds no CUDA device"
    try:  # a driver alone is not enough: the first kernel needs the compiler, the first product cuBLAS
        a = cupy.arange(4.0).reshape(2, 2)
        if float((a @ a + 1.0).sum()) != 26.0:
            return None, "a small product on the GPU gave a wrong result"
    except Exception as error:
        return (
            None,
            f"CuPy cannot compute on the GPU ({type(error).__name__}: {error}); is it the right build? {install}",
        )
    return cupy, ""


def describe(cupy: Any) -> dict[str, Any]:
    """What a namespace has beside functions: see ``backend.Namespace``."""
    count = cupy.cuda.runtime.getDeviceCount()

    def select(index: int) -> None:
        if index >= count:
            raise DeviceError(f"device 'cuda:{index}' is not there: CuPy finds {count}, the first is cuda:0")
        cupy.cuda.Device(index).use()

    def from_numpy(array: Any, index: int | None) -> Any:
        with cupy.cuda.Device(0 if index is None else index):
            return cupy.asarray(array)

    return {
        "device_type": "cuda",
        "array_type": cupy.ndarray,
        "from_numpy": from_numpy,
        "to_numpy": cupy.asnumpy,
        "index_of": lambda array: array.device.id,
        "select": select,
    }


def erf(xp: XP, x: Array) -> Array:
    """As the reference, by CUDA's own function."""
    from cupyx.scipy.special import erf as cuda_erf

    return cuda_erf(x).astype(x.dtype, copy=False)  # of float16 it makes a wider type


def scatter_add_into(xp: XP, out: Array, index: Any, source: Array) -> Array:
    """Add by atomic operations, as the reference does in order. The last bits may differ from run to run."""
    if out.dtype == np.int64:  # CuPy has no atomic addition for int64; uint64 adds the same bits
        xp.add.at(out.view(np.uint64), index, source.astype(np.int64, copy=False).view(np.uint64))
    elif out.dtype.itemsize < 4:
        wide = out.astype(np.float32 if out.dtype.kind == "f" else np.int32)
        xp.add.at(wide, index, source.astype(wide.dtype))
        out[...] = wide
    else:
        xp.add.at(out, index, source)
    return out


# ---- elementwise.cu -------------------------------------------------------------------------

_BLOCK = 256
_MOST_BLOCKS = 4096  # enough to fill any GPU; each thread walks on through what is left


@cache
def _module(raw_module: Callable[..., Any]) -> Any:
    source = resources.files(__package__).joinpath("elementwise.cu").read_text("utf-8")
    return raw_module(code=source, options=("-std=c++17",))


@cache
def _kernel(raw_module: Callable[..., Any], name: str) -> Any:
    return _module(raw_module).get_function(name)


def _is_plain(*arrays: Array) -> bool:
    """Whether a kernel of elementwise.cu can take these: it knows no strides, and no dtypes but two."""
    first = arrays[0]
    return first.dtype in (np.float32, np.float64) and all(
        a.dtype == first.dtype and a.shape == first.shape and a.flags.c_contiguous and a.device.id == first.device.id
        for a in arrays
    )


def _launch(xp: XP, name: str, arrays: tuple[Array, ...], *numbers: float) -> None:
    """Run a kernel on plain arrays. Its numbers have to be of the arrays' type exactly: nothing converts them."""
    first = arrays[0]
    if not first.size:
        return  # a grid of no blocks is an error
    kernel = _kernel(xp.RawModule, f"{name}_{first.dtype}")
    grid = min(-(-first.size // _BLOCK), _MOST_BLOCKS)
    with first.device:
        kernel((grid,), (_BLOCK,), (*arrays, np.int64(first.size), *map(first.dtype.type, numbers)))


def gelu(xp: XP, x: Array, tanh: bool) -> Array:
    """As the reference, in one pass."""
    if not _is_plain(x):
        return reference.gelu(xp, x, tanh)
    out = xp.empty_like(x)
    _launch(xp, "gelu_tanh" if tanh else "gelu", (x, out))
    return out


def gelu_backward(xp: XP, g: Array, x: Array, tanh: bool) -> Array:
    """As the reference, in one pass."""
    if not _is_plain(g, x):
        return reference.gelu_backward(xp, g, x, tanh)
    dx = xp.empty_like(x)
    _launch(xp, "gelu_tanh_backward" if tanh else "gelu_backward", (g, x, dx))
    return dx


def adam_step(
    xp: XP, p: Array, g: Array, m: Array, v: Array, t: int, lr: float, beta1: float, beta2: float, eps: float,
    decay: float, decoupled: bool, maximize: bool,
) -> None:  # fmt: skip
    """As the reference, in one pass."""
    if not _is_plain(p, g, m, v):
        reference.adam_step(xp, p, g, m, v, t, lr, beta1, beta2, eps, decay, decoupled, maximize)
        return
    _launch(
        xp, "adam_step", (p, g, m, v), -1.0 if maximize else 1.0, 1.0 - lr * decay if decoupled else 1.0,
        0.0 if decoupled else decay, beta1, 1.0 - beta1, beta2, 1.0 - beta2, math.sqrt(1.0 - beta2**t), eps,
        lr / (1.0 - beta1**t),
    )  # fmt: skip
