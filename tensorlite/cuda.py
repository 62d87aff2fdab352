"""Functions for GPUs: their number, their memory, synchronization. The names are those of ``torch.cuda``.

    >>> import tensorlite as tl
    >>> device = tl.device("cuda" if tl.cuda.is_available() else "cpu")

``device`` is the index of a GPU, a name such as ``"cuda:1"``, or a Device; None is the current GPU. Every function
except ``is_available`` and ``device_count`` raises DeviceError, with the reason, if no GPU can be used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING as _TYPE_CHECKING

from .backends.registry import Device, cuda_is_available
from .backends.registry import device as as_device
from .missing_names import module_getattr as _module_getattr
from .scalars import as_integer

__all__ = [
    "current_device", "device_count", "empty_cache", "is_available", "mem_get_info", "memory_allocated",
    "memory_reserved", "synchronize",
]  # fmt: skip


def is_available() -> bool:
    """Return whether a GPU can be used. The first call imports CuPy and computes a small product on the GPU."""
    return cuda_is_available()


def device_count() -> int:
    """Return the number of GPUs, 0 if none can be used."""
    from .backends.cuda import devices

    return devices.device_count() if is_available() else 0


def current_device() -> int:
    """Return the index of the current GPU, the one that was named last."""
    from .backends.cuda import devices

    return devices.current_device()


def synchronize(device: Device | str | int | None = None) -> None:
    """Wait until a GPU has completed all the work it was given."""
    from .backends.cuda import devices

    devices.synchronize(_index("synchronize", device))


def mem_get_info(device: Device | str | int | None = None) -> tuple[int, int]:
    """Return the free and the total memory of a GPU, in bytes."""
    from .backends.cuda import devices

    return devices.mem_get_info(_index("mem_get_info", device))


def memory_allocated(device: Device | str | int | None = None) -> int:
    """Return the bytes that the tensors of this process use on a GPU."""
    from .backends.cuda import devices

    return devices.memory_allocated(_index("memory_allocated", device))


def memory_reserved(device: Device | str | int | None = None) -> int:
    """Return the bytes that this process holds on a GPU for its tensors, used or not."""
    from .backends.cuda import devices

    return devices.memory_reserved(_index("memory_reserved", device))


def empty_cache() -> None:
    """Release memory of the current GPU that this process holds but does not use."""
    from .backends.cuda import devices

    devices.empty_cache()


def _index(name: str, device: Device | str | int | None) -> int | None:
    """Return the index of a GPU. Raises ValueError for a device of another type."""
    if device is None or (index := as_integer(device)) is not None:
        return None if device is None else index
    found = as_device(device)  # type: ignore[arg-type]  # an int has been returned
    if found.type != "cuda":
        raise ValueError(f"{name}: expected a device of type 'cuda', got {str(found)!r}")
    return found.index

if not _TYPE_CHECKING:  # because a type checker would then accept any name of this module
    __getattr__ = _module_getattr(__name__, globals())
