"""Convert data: Python numbers and lists to arrays, arrays to other dtypes and devices."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.function import op
from ..autograd.graph import Variable, wrap
from ..backends.registry import BACKENDS, Array, Device, DeviceLike, Namespace, device_of, namespace
from ..backends.registry import device as as_device
from ..dtypes import DType, as_dtype, cast_array, check_number, is_floating
from ..errors import DTypeError, ShapeError
from ..ops.elementwise import convert, convert_to_discrete
from .python_data import array_from_python

__all__ = ["as_array", "fill_number", "is_dtype_name", "tensor_of", "to_device", "to_dtype", "transfer"]


def as_array(data: Any, dtype: Any = None, where: DeviceLike = None) -> Array:
    """Return a raw array of a Tensor, a raw array, a number, or nested sequences of these. Copy only if necessary.

    Python floats become the default dtype, ints int64; arrays keep their dtype. The dtype of mixed entries is that to
    which they are promoted. Raises TypeError if the data are not numbers or have a mask, ShapeError if rows differ in
    length, DTypeError if a number does not fit into the dtype.
    """
    raw = data.array if isinstance(data, Variable) else data
    target = None if dtype is None else as_dtype(dtype)
    if type(raw) not in BACKENDS:
        raw = array_from_python(raw, target)
    elif target is None:
        target = as_dtype(raw.dtype.newbyteorder("="))
    if target is not None and raw.dtype != target:
        with np.errstate(all="ignore"):
            raw = cast_array(raw, target)
    if where is None and (isinstance(data, Variable) or type(data) in BACKENDS):
        return raw
    return _move(raw, as_device(where))


def fill_number(name: str, value: Any, dtype: DType | None) -> tuple[Any, DType]:
    """Return the number to fill a tensor of this dtype with, from a number, a Tensor or an array; and its own dtype.

    Raises ShapeError if there is not exactly one number, DTypeError if it does not fit into the dtype.
    """
    given = as_array(value, dtype if isinstance(value, int) else None, "cpu")
    if given.size != 1:
        raise ShapeError(f"{name}: fill_value must be one number, got shape {given.shape}")
    number = given.item()
    number = value if isinstance(value, (int, float)) else number  # because a float of Python has more digits
    if dtype is not None:
        check_number(name, number, dtype)
    return number, given.dtype


def tensor_of(value: Any) -> Any:
    """Return a Tensor for an array of NumPy, PyTorch or another library. Anything else is returned unchanged.

    Raises TypeError, with the reason, if the array cannot be read, such as one of float8 numbers or on a GPU.
    """
    if isinstance(value, Variable) or not hasattr(value, "__array__"):
        return value
    try:
        return wrap(as_array(value, where="cpu"))
    except (TypeError, DTypeError) as error:
        kind = type(value)
        raise TypeError(
            f"a {kind.__module__}.{kind.__name__} cannot be read: {error}. Convert it with .float().cpu() first."
        ) from None


def _move(array: Array, where: Device) -> Array:
    """Return the array on this device: the same array if it is there already."""
    here = device_of(array)
    if here.type == where.type and where.index in (None, here.index):
        return array
    return namespace(where).from_numpy(BACKENDS[type(array)].to_numpy(array), where.index)


@op(lambda g, source, target: transfer(g, source, target), bfloat16=True)
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
        return name == "bfloat16"  # which NumPy knows after its package was imported
    return True
