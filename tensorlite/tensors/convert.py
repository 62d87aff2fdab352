"""Convert data: Python numbers and lists to arrays, arrays to other dtypes and devices."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.function import op
from ..autograd.graph import Variable
from ..backends.registry import BACKENDS, Array, Device, DeviceLike, Namespace, device_of, namespace
from ..backends.registry import device as as_device
from ..dtypes import DType, as_dtype, get_default_dtype, is_floating
from ..errors import DTypeError, ShapeError
from ..ops.elementwise import convert, convert_to_discrete

__all__ = ["as_array", "is_dtype_name", "to_device", "to_dtype", "transfer"]


def as_array(data: Any, dtype: Any = None, where: DeviceLike = None) -> Array:
    """Return a raw array of a Tensor, a raw array, a number, or nested sequences of these. Copy only if necessary.

    Python floats become the default dtype, ints int64; arrays keep their dtype. Raises TypeError if the data are not
    numbers, ShapeError if rows differ in length, DTypeError if a number does not fit into the dtype.
    """
    raw = data.array if isinstance(data, Variable) else data
    if type(raw) not in BACKENDS:
        raw = _from_python(raw, dtype)
        _check_range(raw, dtype)
    target = as_dtype(raw.dtype.newbyteorder("=") if dtype is None else dtype)
    if raw.dtype != target:
        raw = raw.astype(target)
    if where is None and (isinstance(data, Variable) or type(data) in BACKENDS):
        return raw
    return _move(raw, as_device(where))


def _from_python(data: Any, dtype: Any = None) -> Array:
    if isinstance(data, (list, tuple)) and any(isinstance(item, Variable) for item in data):
        data = [item.array.tolist() if isinstance(item, Variable) else item for item in data]
    try:
        array = np.array(data)
    except ValueError:
        raise ShapeError(
            "tensor: the nested sequences have different lengths. Give every row the same number of entries."
        ) from None
    if array.dtype == np.object_ and isinstance(data, int):
        raise DTypeError(f"tensor: {data} does not fit into int64")
    if array.dtype.kind not in "biufc":
        raise TypeError(f"tensor: expected numbers or booleans, got {type(data).__name__} {data!r:.60}")
    if dtype is not None:
        return array  # as_array converts it from Python's precision, so that nothing is rounded twice
    first = data
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if array.dtype == np.float64 and not isinstance(first, (np.generic, np.ndarray)):
        return array.astype(get_default_dtype())
    if array.dtype == np.complex128 and not isinstance(first, (np.generic, np.ndarray)):
        return array.astype(np.complex64)
    return array


def _check_range(array: Array, dtype: Any) -> None:
    """Raise DTypeError if Python's numbers would wrap around in an integer dtype, or cannot be integers at all."""
    if dtype is None or (target := as_dtype(dtype)).kind not in "iu" or not array.size or array.dtype.kind not in "iuf":
        return
    low, high = array.min(), array.max()
    if not np.iinfo(target).min <= low <= high <= np.iinfo(target).max:
        raise DTypeError(f"tensor: the numbers from {low} to {high} do not fit into {target}")


def _move(array: Array, where: Device) -> Array:
    """Return the array on this device: the same array if it is there already."""
    here = device_of(array)
    if here.type == where.type and where.index in (None, here.index):
        return array
    return namespace(where).from_numpy(BACKENDS[type(array)].to_numpy(array), where.index)


@op(lambda g, source, target: transfer(g, source, target))
def transfer(xp: Namespace, x: Array, target: Device, source: Device) -> Array:
    """Copy x to another device. Its gradient goes back to ``source``, the device of x."""
    return _move(x, target)


def to_dtype(x: Any, target: DType) -> Any:
    """Return the Tensor x in this dtype, or x itself if it has it. Gradients flow between floating point dtypes."""
    dtype = x.array.dtype
    if target == dtype:
        return x
    if is_floating(target) and is_floating(dtype):
        return convert(x, target, dtype)
    return convert_to_discrete(x, target)


def to_device(x: Any, target: Device) -> Any:
    """Return the Tensor x on this device, or x itself if it is there. Gradients flow through the copy."""
    here = device_of(x.array)
    if here.type == target.type and target.index in (None, here.index):
        return x
    return transfer(x, target, here)


def is_dtype_name(name: str) -> bool:
    """Return whether a string names a dtype; otherwise it is a device."""
    try:
        np.dtype(name)
    except TypeError:
        return False
    return True
