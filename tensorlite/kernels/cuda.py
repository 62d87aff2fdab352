"""CuPy: how to find it, what the backend must know of it, and the kernels that differ from ``reference`` there.

Nothing is imported from CuPy before someone asks for the GPU.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import DeviceError

__all__ = ["erf", "scatter_add_into"]

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
    """As the reference, by atomic additions: their order, and so the last bits, may differ from run to run."""
    import cupyx

    if out.dtype == np.int64:  # not among the atomic types, but adding is the same on the same bits without a sign
        cupyx.scatter_add(out.view(np.uint64), index, source.astype(np.int64, copy=False).view(np.uint64))
    elif out.dtype.itemsize < 4:
        wide = out.astype(np.float32 if out.dtype.kind == "f" else np.int32)
        cupyx.scatter_add(wide, index, source.astype(wide.dtype))
        out[...] = wide
    else:
        cupyx.scatter_add(out, index, source)
    return out
