"""The GPUs that CuPy finds.

An index is the ordinal of a GPU; None is the current one. All functions raise DeviceError if no GPU can be used.
"""

from __future__ import annotations

from typing import Any

from ...errors import DeviceError
from .find_cupy import require_cupy
from .nccl import NcclTransport

__all__ = [
    "current_device", "device_count", "empty_cache", "mem_get_info", "memory_allocated", "memory_reserved",
    "namespace_attributes", "synchronize",
]  # fmt: skip


def namespace_attributes(cupy: Any) -> dict[str, Any]:
    """Return the attributes of the namespace of CuPy's arrays that are not kernels: see ``registry.Namespace``."""
    count = cupy.cuda.runtime.getDeviceCount()

    def select(index: int) -> None:
        if index >= count:
            raise DeviceError(f"device: expected one of {count} GPUs, cuda:0 to cuda:{count - 1}, got cuda:{index}")
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
        "peer_transport": NcclTransport(cupy),
        "memory_offset": lambda array, owner: array.data.ptr - owner.data.ptr,
        "view_at": lambda owner, offset, shape, dtype, strides: cupy.ndarray(
            shape, dtype, owner.data + (offset if 0 not in shape else 0), strides
        ),
    }


def device_count() -> int:
    """Return the number of GPUs."""
    return int(require_cupy().cuda.runtime.getDeviceCount())


def current_device() -> int:
    """Return the index of the current GPU."""
    return int(require_cupy().cuda.runtime.getDevice())


def _device(index: int | None) -> Any:
    cupy = require_cupy()
    return cupy.cuda.Device() if index is None else cupy.cuda.Device(index)


def synchronize(index: int | None = None) -> None:
    """Wait until a GPU has completed all its work."""
    _device(index).synchronize()


def mem_get_info(index: int | None = None) -> tuple[int, int]:
    """Return the free and the total memory of a GPU, in bytes."""
    free, total = _device(index).mem_info
    return int(free), int(total)


def memory_allocated(index: int | None = None) -> int:
    """Return the bytes that arrays of this process use on a GPU."""
    with _device(index):
        return int(require_cupy().get_default_memory_pool().used_bytes())


def memory_reserved(index: int | None = None) -> int:
    """Return the bytes that CuPy's memory pool holds on a GPU for this process, used or not."""
    with _device(index):
        return int(require_cupy().get_default_memory_pool().total_bytes())


def empty_cache(index: int | None = None) -> None:
    """Release the unused memory of CuPy's pool on a GPU."""
    with _device(index):
        require_cupy().get_default_memory_pool().free_all_blocks()
