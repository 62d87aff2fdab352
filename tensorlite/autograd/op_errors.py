"""Translate the errors that NumPy and CuPy raise in an op into errors that name the op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backends.registry import BACKENDS, describe_array
from ..errors import DeviceError, DTypeError, ShapeError

__all__ = ["translate_error"]


def translate_error(name: str, error: Exception, args: Sequence[Any]) -> Exception:
    """Return the error to raise instead of ``error``, which the function of the op ``name`` raised.

    args: the raw arguments of the call. The message gives their dtypes and shapes.
    """
    message = str(error)
    from_tensorlite = type(error).__module__.startswith("tensorlite.")
    if isinstance(error, Warning) or (from_tensorlite and message.startswith(name)):
        return error
    arrays = [a for a in args if type(a) in BACKENDS]
    call = f"{name}({', '.join(map(describe_array, arrays))})"
    devices = {BACKENDS[type(a)].device_type for a in arrays}
    if len(devices) > 1:
        return DeviceError(
            f"{call}: tensors on different devices ({', '.join(sorted(devices))}). Move them with .to(device)."
        )
    if from_tensorlite:
        return type(error)(f"{call}: {message}")
    if isinstance(error, IndexError):
        return IndexError(f"{call}: {message}")
    if isinstance(error, OverflowError):
        ints = [a for a in args if type(a) is int]
        wrong = [str(n) for n in ints for a in arrays if a.dtype.kind in "iu" and not _fits(n, a.dtype)]
        return DTypeError(f"{call}: {', '.join(wrong) or message} does not fit into the dtype. Convert with .to().")
    if isinstance(error, ValueError):
        if "broadcast" in message:
            return ShapeError(
                f"{call}: the shapes do not broadcast. From the last dimension on, two sizes must be equal, or one of "
                f"them 1."
            )
        return ValueError(f"{call}: {message}")
    if any(word in message for word in ("ufunc", "numpy", "cupy", "operand type")):
        call = f"{name}({', '.join(describe_array(a) if type(a) in BACKENDS else f'{a!r:.40}' for a in args)})"
        kinds = {a.dtype.kind for a in arrays}
        advice = " Convert booleans with .int()." if kinds == {"b"} else ""
        if name.startswith("bitwise") and "f" in kinds:
            advice = " Convert to integers with .long(), or to booleans with a comparison."
        return DTypeError(f"{call}: this op is not defined for arguments of these types.{advice}")
    return TypeError(f"{call}: {message}")


def _fits(number: int, dtype: Any) -> bool:
    """Return whether an integer dtype can hold the number."""
    return int(np.iinfo(dtype).min) <= number <= int(np.iinfo(dtype).max)
