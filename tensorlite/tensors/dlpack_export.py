"""DLPack: what a tensor's memory is to other libraries, on the CPU or on a GPU."""

from __future__ import annotations

from typing import Any

from ..backends.registry import Array, device_of

__all__ = ["device_code", "export_array"]


def device_code(array: Array) -> tuple[int, int]:
    """Return DLPack's code of the device of a raw array, and its index. Raises BufferError if there is none."""
    if not hasattr(array, "__dlpack_device__"):
        raise BufferError(f"__dlpack__: expected a tensor on the CPU or a GPU, got one on {device_of(array)}.")
    code, index = array.__dlpack_device__()
    return int(code), int(index)


def export_array(array: Array, tracked: bool, options: dict[str, Any]) -> Any:
    """Return DLPack's capsule of a raw array, for ``Tensor.__dlpack__``.

    tracked: whether its tensor requires gradients. options: the arguments of ``__dlpack__`` that are not None.

    Raises BufferError if the array cannot be exported.
    """
    if tracked:
        raise BufferError("__dlpack__: this tensor requires gradients, which others would lose. Use x.detach().")
    device_code(array)
    if array.dtype.kind == "V":
        raise BufferError("__dlpack__: expected a dtype that NumPy and CuPy export, got bfloat16. Use x.float().")
    try:
        return array.__dlpack__(**options)
    except (BufferError, RuntimeError, ValueError) as error:  # NumPy 2.5 raises ValueError for a stream
        raise BufferError(f"__dlpack__: {error}") from None
