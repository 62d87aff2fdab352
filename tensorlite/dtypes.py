"""Number types: names, promotion in ops.

The rules are PyTorch's (https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc). Among tensors
the wider category wins (bool < integer < float < complex), and within a category the wider type. 0-d tensors and Python
scalars decide only the category, never the width. So a Python scalar never upcasts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .errors import DTypeError

__all__ = ["DType", "as_dtype", "bool_", "complex64", "complex128", "float16", "float32", "float64",
           "get_default_dtype", "int8", "int16", "int32", "int64", "is_floating", "promote_types", "result_type",
           "set_default_dtype", "uint8"]  # fmt: skip

DType: TypeAlias = np.dtype[Any]
DTypeLike: TypeAlias = DType | str | type[Any]
"""A dtype, its name, or a type of Python or NumPy that stands for one."""

bool_: DType = np.dtype(np.bool_)
uint8: DType = np.dtype(np.uint8)
int8: DType = np.dtype(np.int8)
int16: DType = np.dtype(np.int16)
int32: DType = np.dtype(np.int32)
int64: DType = np.dtype(np.int64)
float16: DType = np.dtype(np.float16)
float32: DType = np.dtype(np.float32)
float64: DType = np.dtype(np.float64)
complex64: DType = np.dtype(np.complex64)
complex128: DType = np.dtype(np.complex128)

_default: DType = float32
_RANK = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}


def get_default_dtype() -> DType:
    """Return the dtype of tensors made from Python floats: float32, or the one that was set last."""
    return _default


def set_default_dtype(dtype: DTypeLike) -> None:
    """Set the dtype of tensors made from Python floats. Raises DTypeError if it is not a floating point dtype."""
    global _default
    chosen = as_dtype(dtype)
    if chosen.kind != "f":
        raise DTypeError(f"set_default_dtype: expected a floating point dtype, got {chosen}")
    _default = chosen


def as_dtype(dtype: DTypeLike) -> DType:
    """Return the dtype that ``float``, ``"int64"`` or the like names. Raises DTypeError if it is not a number type."""
    try:
        found: DType = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found.kind not in _RANK or not found.isnative or found.itemsize > (16 if found.kind == "c" else 8):
        raise DTypeError(f"dtype: expected a number type such as tensorlite.float32 or 'int64', got {dtype!r}")
    return found


def is_floating(dtype: DTypeLike) -> bool:
    """Return whether gradients can flow through values of this dtype."""
    return bool(np.dtype(dtype).kind == "f")


def promote_types(a: DTypeLike, b: DTypeLike) -> DType:
    """Return the smallest dtype that both convert to, as in PyTorch: ``int64`` and ``float16`` give ``float16``."""
    x: DType = np.dtype(a)
    y: DType = np.dtype(b)
    if _RANK[x.kind] != _RANK[y.kind] and "c" not in (x.kind, y.kind):
        return x if _RANK[x.kind] > _RANK[y.kind] else y
    return np.promote_types(x, y)


def _scalar_dtype(value: Any) -> DType | None:
    """Return the dtype of a Python scalar, None for anything else."""
    if isinstance(value, bool):
        return bool_
    if isinstance(value, int):
        return int64
    if isinstance(value, float):
        return _default
    if isinstance(value, complex):
        return np.promote_types(_default, complex64)
    return None


def result_type(*values: Any) -> DType:
    """Return the dtype of an elementwise op on these arrays, Tensors and Python scalars."""
    # Priority: arrays with dimensions, 0-d arrays, Python scalars. A lower group counts only if its category is wider.
    groups: list[DType | None] = [None, None, None]
    for value in values:
        dtype = getattr(value, "dtype", None)
        group = 2 if dtype is None else 0 if value.ndim else 1
        if dtype is None:
            dtype = _scalar_dtype(value)
        if dtype is not None:
            seen = groups[group]
            groups[group] = dtype if seen is None else promote_types(seen, dtype)
    result: DType | None = None
    for dtype in groups:
        if dtype is None:
            continue
        if result is None or _RANK[dtype.kind] > _RANK[result.kind]:
            result = dtype if result is None or result.kind != "f" else promote_types(result, dtype)
    return result if result is not None else _default


Policy: TypeAlias = Callable[[str, list[Any]], list[Any]]
"""A function of an op's name and its raw differentiable arguments, which returns them in the dtypes to compute in.

It returns the same list if nothing had to be converted.
"""


def _convert(arrays: list[Any], dtype: DType) -> list[Any]:
    """Return the arrays in this dtype, with scalars unchanged."""
    if all(getattr(a, "dtype", dtype) == dtype for a in arrays):
        return arrays
    return [a.astype(dtype) if getattr(a, "dtype", dtype) != dtype else a for a in arrays]


def _promote(name: str, arrays: list[Any]) -> list[Any]:
    return _convert(arrays, result_type(*arrays))


def _float(name: str, arrays: list[Any]) -> list[Any]:
    dtype = result_type(*arrays)
    return _convert(arrays, dtype if dtype.kind in "fc" else _default)


def _choose(name: str, arrays: list[Any]) -> list[Any]:
    choices = arrays[1:]  # the first argument is a condition
    converted = _promote(name, choices)
    return arrays if converted is choices else [arrays[0], *converted]


def _same(name: str, arrays: list[Any]) -> list[Any]:
    seen = [a.dtype for a in arrays if hasattr(a, "dtype")]
    if any(d != seen[0] for d in seen):
        given = ", ".join(f"{a.dtype}{tuple(a.shape)}" for a in arrays if hasattr(a, "dtype"))
        raise DTypeError(f"{name}({given}): expected tensors of one dtype. Convert with .to(dtype).")
    return arrays


def _floating(name: str, arrays: list[Any]) -> list[Any]:
    for a in arrays:
        if hasattr(a, "dtype") and a.dtype.kind not in "fc":
            raise DTypeError(
                f"{name}({a.dtype}{tuple(a.shape)}): expected floating point numbers. Convert with .float()."
            )
    return _same(name, arrays)


POLICIES: dict[str, Policy] = {
    "promote": _promote,
    "float": _float,
    "choose": _choose,
    "same": _same,
    "floating": _floating,
}
"""The policies that the ``dtypes`` argument of :func:`tensorlite.op` can name; its documentation describes them."""
