"""Convert Python's data, numbers and nested sequences of them, to NumPy arrays.

The dtype is PyTorch's: that to which all entries are promoted. An int counts as int64 and a float as the default dtype.
A Tensor, an array or a NumPy scalar among the entries counts as its own dtype.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd.graph import Variable
from ..backends.registry import BACKENDS, plain_array
from ..dtypes import DType, as_dtype, bool_, cast_array, complex64, get_default_dtype, int64, kind_of, promote_types
from ..errors import DTypeError, ShapeError
from ..ops.arguments import check_fit

__all__ = ["array_from_python"]

_NUMBERS: set[type] = {bool, int, float}
_MAX_DEPTH = 64  # the number of dimensions that a NumPy array can have


def array_from_python(data: Any, dtype: DType | None = None) -> np.ndarray[Any, Any]:
    """Return a new array of a number, a foreign array, or nested sequences of numbers, arrays and Tensors.

    dtype: None for the one to which all entries are promoted.

    Raises TypeError for anything but numbers, and ShapeError if rows differ in length. Raises DTypeError for a number
    that does not fit into the dtype. As in PyTorch a float is cut to an integer, and a large one becomes an infinity.
    """
    kinds: set[type | DType] = set()
    plain = _collect(data, kinds, 0)
    dtype_of = {bool: bool_, int: int64, float: get_default_dtype()}
    found = {kind if isinstance(kind, np.dtype) else dtype_of[kind] for kind in kinds}
    natural = functools.reduce(promote_types, sorted(found, key=_by_category)) if found else get_default_dtype()
    if dtype is None and kind_of(natural) == "f" and found and all(kind.kind in "biu" for kind in found):
        raise DTypeError("tensor: no integer type holds both uint64 and signed integers. Give a dtype.")
    target = natural if dtype is None else dtype
    array = _build(data, plain, natural, target)
    if array.dtype != target:
        _check_fit(array, target)
        with np.errstate(all="ignore"):
            array = cast_array(array, target)
    return array


def _by_category(dtype: DType) -> int:
    """Return a key that sorts floating point types first, because an integer type changes nothing after them."""
    return -"biufc".index(kind_of(dtype))


# ---- the dtypes of the entries --------------------------------------------------------------


def _collect(data: Any, found: set[type | DType], depth: int) -> Any:
    """Add the types or dtypes of all entries to ``found``. Return the data with arrays instead of Tensors."""
    kind = type(data)
    if kind in (list, tuple):
        return _collect_items(data, found, depth)
    if isinstance(data, Variable):
        data = _array_of_entry(data)
    if isinstance(data, np.ndarray):
        data = plain_array("tensor", data)
    dtype = _entry_dtype(kind, data)
    if dtype is None and isinstance(data, Sequence) and not isinstance(data, (str, bytes, bytearray, memoryview)):
        return _collect_items(list(data), found, depth)
    if dtype is None:
        array = _foreign_array(data)
        found.add(array.dtype)
        return array
    found.add(dtype)
    return data


def _collect_items(data: Sequence[Any], found: set[type | DType], depth: int) -> Any:
    """Do the work of :func:`_collect` for a sequence. A sequence of Python's numbers needs no loop over them."""
    if depth > _MAX_DEPTH:
        raise ShapeError(f"tensor: the sequences are nested more than {_MAX_DEPTH} deep")
    kinds = set(map(type, data))
    if kinds <= _NUMBERS:
        found |= kinds
        return data
    return [_collect(item, found, depth + 1) for item in data]


def _python_dtype(kind: type) -> DType | None:
    """Return the dtype of numbers of a type, None for other types."""
    if issubclass(kind, np.generic):
        return as_dtype(kind) if kind_of(np.dtype(kind)) in "biufc" else None
    if issubclass(kind, bool):
        return bool_
    if issubclass(kind, int):
        return int64
    if issubclass(kind, float):
        return get_default_dtype()
    return promote_types(get_default_dtype(), complex64) if issubclass(kind, complex) else None


def _entry_dtype(kind: type, value: Any) -> DType | None:
    """Return the dtype of an array or a number, None for anything else. Raises DTypeError for other arrays."""
    if isinstance(value, np.ndarray):
        return as_dtype(value.dtype.newbyteorder("="))
    return _python_dtype(kind)


def _array_of_entry(x: Any) -> np.ndarray[Any, Any]:
    """Return the entries of a Tensor in a list, on the CPU, with a warning if their gradients are lost."""
    if x.tracked:
        warnings.warn(
            "tensor: a Tensor that requires gradients is copied as numbers, so no gradient reaches it. To keep its "
            "history use tl.stack() or tl.cat(). To say that none is wanted use x.detach().",
            UserWarning, stacklevel=2,
        )  # fmt: skip
    return np.asarray(BACKENDS[type(x.array)].to_numpy(x.array))


def _foreign_array(data: Any) -> np.ndarray[Any, Any]:
    """Return the array that an object of another library stands for. Raises TypeError if it is not one of numbers."""
    if not isinstance(data, (str, bytes, type(None))) and not _is_number_like(data):
        if callable(detach := getattr(data, "detach", None)):  # PyTorch's tensors
            data = detach()
        if str(getattr(data, "dtype", "")) == "torch.bfloat16":  # of which PyTorch makes no NumPy array
            array = np.asarray(data.view(sys.modules["torch"].int16)).view(as_dtype("bfloat16"))
        else:
            array = np.asarray(data)
        if kind_of(array.dtype) in "biufc":
            return array.astype(as_dtype(array.dtype.newbyteorder("=")), copy=False)
    raise TypeError(f"tensor: expected numbers or booleans, got {type(data).__name__} {data!r:.60}")


def _is_number_like(data: Any) -> bool:
    """Return whether an object is a single value that is not one of Python's numbers, such as a Fraction."""
    return not hasattr(data, "__array__") and not hasattr(data, "__len__") and not hasattr(data, "__array_interface__")


# ---- the array ------------------------------------------------------------------------------


def _build(data: Any, plain: Any, natural: DType, target: DType) -> np.ndarray[Any, Any]:
    """Return the array of the data in the widest dtype of its kind, so that a conversion rounds once."""
    if isinstance(plain, np.ndarray):
        return np.array(plain)
    unsigned = np.dtype(np.uint64) in (natural, target)
    wide = {"b": bool_, "u": np.uint64 if unsigned else int64, "i": np.uint64 if unsigned else int64, "f": np.float64}
    try:
        try:
            return np.array(plain, dtype=wide.get(kind_of(natural), np.complex128))
        except OverflowError:
            if kind_of(target) not in "fc":
                raise
            return np.array(plain, dtype=np.float64)
    except OverflowError:
        what = f"{data} does" if isinstance(data, int) else f"a number of {data!r:.60} does"
        raise DTypeError(f"tensor: {what} not fit into {target}") from None
    except (ValueError, TypeError):
        raise ShapeError(
            "tensor: the nested sequences have different lengths. Give every row the same number of entries."
        ) from None


def _check_fit(array: np.ndarray[Any, Any], target: DType) -> None:
    """Raise DTypeError if Python's numbers would wrap around in an integer dtype, or cannot be of this kind at all."""
    if array.dtype.kind == "c" and target.kind not in "cb":
        raise DTypeError(f"tensor: complex numbers do not fit into {target}. Take .real of them.")
    check_fit("tensor", array, target)
