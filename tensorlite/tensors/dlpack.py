"""DLPack: tensors that show the memory of arrays of other libraries, on the CPU or on a GPU.

The protocol is that of the array API standard (https://data-apis.org/array-api/latest/design_topics/data_interchange).
NumPy and CuPy do the work.
"""

from __future__ import annotations

from typing import Any

from ..autograd.graph import wrap
from ..backends.registry import Device, DeviceLike, device_of, namespace
from ..backends.registry import device as as_device
from ..errors import DeviceError
from .tensor import Tensor

__all__ = ["from_dlpack"]

_TYPES = {1: "cpu", 2: "cuda", 3: "cpu", 13: "cuda"}
"""The type of device for DLPack's code: 3 is memory of the host that a GPU reads too, 13 memory that both manage."""


def from_dlpack(ext_tensor: Any, *, device: DeviceLike = None, copy: bool | None = None) -> Tensor:
    """Return a tensor that shares memory with an array of another library: a change of one is a change of the other.

    ext_tensor: an object with the methods ``__dlpack__`` and ``__dlpack_device__``, such as a tensor of PyTorch.
    device: where the tensor is to be; None is the device of the array. Another device needs a copy.
    copy: True copies in any case, False never, None if necessary.

    Raises TypeError for other objects, DeviceError for a device that cannot be used, BufferError if the array cannot be
    exported (it requires gradients, or NumPy has no such dtype) or if ``copy=False`` does not allow a copy.
    """
    if not (hasattr(ext_tensor, "__dlpack__") and hasattr(ext_tensor, "__dlpack_device__")):
        raise TypeError(
            f"from_dlpack: expected an object with __dlpack__ and __dlpack_device__, got "
            f"{type(ext_tensor).__name__}. Pass the array itself, not a capsule."
        )
    code, index = (int(n) for n in ext_tensor.__dlpack_device__())
    kind = _TYPES.get(code)
    if kind is None:
        raise DeviceError(f"from_dlpack: expected an array on the CPU or a CUDA GPU, got DLPack's device type {code}.")
    xp = namespace(Device(kind, None if kind == "cpu" else index))
    try:
        array = xp.from_dlpack(ext_tensor)
    except (BufferError, RuntimeError, ValueError) as error:
        raise BufferError(f"from_dlpack: the array cannot be shared: {error}. Convert or detach it first.") from None
    x: Tensor = wrap(array)
    where = device_of(array) if device is None else as_device(device)
    here = device_of(array)
    if where.type != here.type or where.index not in (None, here.index):
        if copy is False:
            raise BufferError(f"from_dlpack: expected device={str(here)!r} with copy=False, got {str(where)!r}.")
        return x.to(where)
    return x.clone() if copy else x
