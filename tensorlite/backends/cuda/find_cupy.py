"""Detection of a GPU that CuPy can compute on.

CuPy is imported when a GPU is first used.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

from ...errors import DeviceError

__all__ = ["find_cupy", "require_cupy"]


@cache
def find_cupy() -> tuple[ModuleType | None, str]:
    """Return CuPy's module and an empty string, or None and the reason why it cannot be used."""
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
    try:  # a driver alone is not enough, because the first kernel needs the compiler and the first product cuBLAS
        a = cupy.arange(4.0).reshape(2, 2)
        if float((a @ a + 1.0).sum()) != 26.0:
            return None, "a small product on the GPU gave a wrong result"
    except Exception as error:
        return (
            None,
            f"CuPy cannot compute on the GPU ({type(error).__name__}: {error}); is it the right build? {install}",
        )
    return cupy, ""


def require_cupy() -> ModuleType:
    """Return CuPy's module. Raises DeviceError, with the reason, if it cannot be used."""
    module, reason = find_cupy()
    if module is None:
        raise DeviceError(f"device 'cuda' cannot be used: {reason}")
    return module
