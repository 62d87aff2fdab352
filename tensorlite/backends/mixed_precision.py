"""The dtypes below float32 in which each type of device multiplies."""

from __future__ import annotations

from collections.abc import Callable

from ..dtypes import DType, float32
from .cpu.products import has_bfloat16_products
from .registry import cuda_is_available

__all__ = ["default_lower_dtype", "is_present", "product_dtype"]

_DEFAULTS = {"cpu": "bfloat16"}
"""The lower dtype of a type of device, by its name; float16 for others. PyTorch has the same."""
_PRESENT: dict[str, Callable[[], bool]] = {"cuda": lambda: cuda_is_available()}
"""What tells whether there is a device of a type; others are there."""
_MULTIPLIES: dict[tuple[str, str], Callable[[], bool]] = {("cpu", "bfloat16"): lambda: has_bfloat16_products()}
"""What tells whether a type of device multiplies in a dtype faster than in float32; others do."""


def default_lower_dtype(device_type: str) -> str:
    """Return the name of the dtype of mixed precision on a type of device, "bfloat16" or "float16"."""
    return _DEFAULTS.get(device_type, "float16")


def is_present(device_type: str) -> bool:
    """Return whether there is a device of this type."""
    return device_type not in _PRESENT or _PRESENT[device_type]()


def product_dtype(device_type: str, dtype: DType) -> DType:
    """Return the dtype in which products compute: float32 where a device has no arithmetic for the lower one."""
    can_multiply = _MULTIPLIES.get((device_type, dtype.name))
    return dtype if can_multiply is None or can_multiply() else float32
