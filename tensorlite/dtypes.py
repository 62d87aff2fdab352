"""Number types: names, promotion in ops.

The rules are PyTorch's (https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc). Among tensors
the wider category wins (bool < integer < float < complex), and within a category the wider type. 0-d tensors and Python
scalars decide only the category, never the width. So a Python scalar never upcasts.

bfloat16 is the dtype of that name of the package ml_dtypes, which is imported on first use. For NumPy its kind is "V",
as that of no other dtype here, so :func:`kind_of` takes the place of ``dtype.kind``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .errors import DTypeError

__all__ = ["DType", "as_dtype", "bool_", "cast_array", "check_number", "complex64", "complex128", "finfo", "float16",
           "float32", "float64", "get_default_dtype", "int8", "int16", "int32", "int64", "is_floating", "kind_of",
           "promote_types", "result_type", "set_default_dtype", "uint8"]  # fmt: skip

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

if TYPE_CHECKING:
    bfloat16: DType
else:

    def __getattr__(name: str) -> DType:
        """Return bfloat16, whose package is imported on first use. Raises AttributeError for others or without it."""
        if name != "bfloat16":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return _import_bfloat16()
        except DTypeError as error:
            raise AttributeError(str(error)) from None


def _import_bfloat16() -> DType:
    """Return the dtype bfloat16. Raises DTypeError without the package ml_dtypes."""
    try:
        import ml_dtypes
    except ImportError:
        raise DTypeError(
            "bfloat16: expected the package ml_dtypes, which is not installed. Run pip install 'tensorlite[bfloat16]'."
        ) from None
    found: DType = np.dtype(ml_dtypes.bfloat16)
    return found


_default: DType = float32
_RANK = {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2, "c": 3}
"""The category of each NumPy kind. "V" is the kind of bfloat16, because ``as_dtype`` takes no other dtype of it."""
_BFLOAT16 = "E"
"""NumPy's code of bfloat16, which no other dtype has."""


def get_default_dtype() -> DType:
    """Return the dtype of tensors made from Python floats: float32, or the one that was set last."""
    return _default


def set_default_dtype(dtype: DTypeLike) -> None:
    """Set the dtype of tensors made from Python floats. Raises DTypeError if it is not a floating point dtype."""
    global _default
    chosen = as_dtype(dtype)
    if not is_floating(chosen):
        raise DTypeError(f"set_default_dtype: expected a floating point dtype, got {chosen}")
    _default = chosen


def _numpy_dtype(dtype: DTypeLike) -> DType:
    """Return what ``np.dtype`` does, which knows the name "bfloat16" only after the import of its package."""
    return _import_bfloat16() if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype)


def as_dtype(dtype: DTypeLike) -> DType:
    """Return the dtype that ``float``, ``"int64"`` or the like names. Raises DTypeError if it is not a number type.

    Raises DTypeError as well for "bfloat16" without the package ml_dtypes.
    """
    try:
        found = _numpy_dtype(dtype)
    except DTypeError:
        raise
    except TypeError:
        found = np.dtype(object)
    if kind_of(found) not in "biufc" or not found.isnative or found.itemsize > (16 if found.kind == "c" else 8):
        raise DTypeError(f"dtype: expected a number type such as tensorlite.float32 or 'int64', got {dtype!r}")
    return found


def kind_of(dtype: DType) -> str:
    """Return ``dtype.kind``, and "f" for bfloat16: b boolean, i and u integers, f floating point, c complex."""
    return "f" if dtype.char == _BFLOAT16 else dtype.kind


def is_floating(dtype: DTypeLike) -> bool:
    """Return whether gradients can flow through values of this dtype."""
    return kind_of(_numpy_dtype(dtype)) == "f"


def finfo(dtype: Any) -> Any:
    """Return the limits of a floating point dtype: ``eps``, ``max``, ``min``, ``tiny`` and others; see numpy.finfo.

    Raises ValueError for a dtype without such limits.
    """
    try:
        found = as_dtype(dtype)
    except DTypeError:  # a number or an array, which NumPy takes for its dtype
        return np.finfo(dtype)
    if found.char != _BFLOAT16:
        return np.finfo(found)
    import ml_dtypes

    limits: Callable[[DType], Any] = ml_dtypes.finfo
    return limits(found)


_NARROW = "e" + _BFLOAT16
"""The codes of the dtypes that are added up in float32: float16 and bfloat16."""


def accumulate_dtype(dtype: DType) -> DType:
    """Return the dtype in which values of this dtype are added up: float32 for float16 and bfloat16, else the same."""
    return float32 if dtype.char in _NARROW else dtype


def narrow_dtype(values: Collection[Any]) -> DType | None:
    """Return the dtype of all floating point arrays among the values, if it is one that is added up in another dtype.

    Otherwise, or if they have several dtypes, return None. Other values and arrays of integers do not count.
    """
    found: DType | None = None
    for value in values:
        dtype = getattr(value, "dtype", None)
        if dtype is None or dtype is found or kind_of(dtype) not in "fc":
            continue
        if found is not None or dtype.char not in _NARROW:
            return None
        found = dtype
    return found


def bfloat16_among(values: Collection[Any]) -> DType | None:
    """Return bfloat16 if it is the dtype of all floating point arrays with dimensions among the values, else None."""
    found: DType | None = None
    for value in values:
        dtype = getattr(value, "dtype", None)
        if dtype is None or dtype is found:
            continue
        if dtype.char == _BFLOAT16:
            found = dtype
        elif dtype.kind in "fc" and value.ndim:
            return None
    return found


def narrow_beside_number(values: Collection[Any]) -> DType | None:
    """Return what :func:`narrow_dtype` does, if one of the values is a number that is not exact in that dtype.

    It is a number of Python, or a 0-d array of the dtype in which values are added up. Beside bfloat16 any value does.
    """
    found: DType | None = None
    for value in values:
        dtype = getattr(value, "dtype", None)
        if dtype is not None and dtype.char in _NARROW:
            found = dtype
    if found is None:
        return None
    if found.char == _BFLOAT16:
        return bfloat16_among(values)
    for value in values:
        dtype = getattr(value, "dtype", None)
        if (dtype is None and type(value) in (int, float) and not _is_exact(value, found)) or (
            dtype == float32 and not value.ndim
        ):
            return found
    return None


def _is_exact(number: float, dtype: DType) -> bool:
    """Return whether a number is one of a floating point dtype."""
    return abs(number) <= _LARGEST[dtype.char] and float(dtype.type(number)) == number


CASTS: dict[type, Callable[[Any, DType], Any]] = {}
"""For a type of arrays, a function that does the same as its method ``astype``, faster. A backend adds its own."""


def cast_array(array: Any, dtype: DType) -> Any:
    """Return a copy of a raw array in another dtype. A number is rounded once."""
    if dtype.char == _BFLOAT16 and array.dtype.itemsize >= 4 and array.dtype != float32:
        array = _float32_to_round(array)
    cast = CASTS.get(type(array))
    return array.astype(dtype) if cast is None else cast(array, dtype)


def _float32_to_round(array: Any) -> Any:
    """Return an array as float32 numbers that become the bfloat16 numbers which are nearest to its own.

    ml_dtypes rounds other numbers to float32 first, after which 1 + 2**-8 + 2**-30 is a tie and becomes 1. Here the
    last bit that is kept says whether one of those below it was set, so a number that is not a tie does not become one
    ("rounding to odd": Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    """
    shape = array.shape
    array = array.reshape(-1)  # because NumPy's operators turn 0-d arrays into scalars
    if array.dtype.kind == "c":
        array = array.real
    elif array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        array = array.copy()
        large = (array > 1 << 53) | (array < -(1 << 53)) if array.dtype.kind == "i" else array > 1 << 53
        array[large] = array[large] >> 12 << 12 | ((array[large] & 0xFFF) != 0).astype(array.dtype) << 11
    bits = array.astype(float64).view(int64)
    low = (1 << 42) - 1
    odd = bits & ~low | ((bits & low) != 0).astype(int64) << 41
    return odd.view(float64).astype(float32).reshape(shape)


def convert_arrays(values: Iterable[Any], source: DType, target: DType) -> list[Any]:
    """Return the values, with each array or Tensor of dtype ``source`` converted to ``target``.

    A number that is too large for the target becomes infinite, without a warning, as in other ops.
    """
    with np.errstate(over="ignore"):
        return [_converted(v, target) if getattr(v, "dtype", None) == source else v for v in values]


def _converted(value: Any, dtype: DType) -> Any:
    """Return an array or a Tensor in this dtype."""
    return value.to(dtype) if hasattr(value, "requires_grad") else cast_array(value, dtype)


def promote_types(a: DTypeLike, b: DTypeLike) -> DType:
    """Return the smallest dtype that both convert to, as in PyTorch: ``int64`` and ``float16`` give ``float16``."""
    x, y = _numpy_dtype(a), _numpy_dtype(b)
    if _RANK[x.kind] != _RANK[y.kind] and "c" not in (x.kind, y.kind):
        return x if _RANK[x.kind] > _RANK[y.kind] else y
    if x == y:
        return x
    x, y = (float32 if d.char == _BFLOAT16 else d for d in (x, y))  # NumPy has no rule for float16 with bfloat16
    return np.promote_types(x, y)


def is_same_kind(source: DType, target: DType) -> bool:
    """Return whether values of one dtype can be stored in another of its kind, or of a wider one."""
    a, b = (float32 if d.char == _BFLOAT16 else d for d in (source, target))  # ml_dtypes would store complex numbers
    return np.can_cast(a, b, "same_kind")


def _scalar_dtype(value: Any) -> DType | None:
    """Return the dtype of a Python scalar, None for anything else."""
    if isinstance(value, bool):
        return bool_
    if isinstance(value, int):
        return int64
    if isinstance(value, float):
        return _default
    if isinstance(value, complex):
        return promote_types(_default, complex64)
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
            result = dtype if result is None or kind_of(result) != "f" else promote_types(result, dtype)
    return result if result is not None else _default


_LARGEST = {"e": 65504.0, _BFLOAT16: 3.3895313892515355e38, "f": 3.4028234663852886e38, "d": 1.7976931348623157e308}
"""The largest finite number of each floating point type, by its code."""


DIGITS = {"e": 11, _BFLOAT16: 8, "f": 24, "d": 53}
"""The number of binary digits of the significand of each floating point type, by its code."""


def check_number(name: str, value: Any, dtype: DType) -> None:
    """Raise DTypeError if a number of Python that is to be stored in this dtype would become another number.

    An integer dtype has no NaN, infinity or number out of its range. A finite number may not become infinite, and a
    complex one may not lose its imaginary part. As in PyTorch a float loses its fraction in an integer dtype, and any
    number is true or false.
    """
    kind = kind_of(dtype)
    if isinstance(value, complex):
        fits = kind in "cb"
    elif isinstance(value, float) and not math.isfinite(value):
        fits = kind not in "iu"
    elif kind in "iu":
        fits = int(np.iinfo(dtype).min) <= int(value) <= int(np.iinfo(dtype).max)
    else:
        fits = kind != "f" or -_LARGEST[dtype.char] <= value <= _LARGEST[dtype.char]
    if not fits:
        raise DTypeError(f"{name}: {value} does not fit into a tensor of {dtype}. Convert one of them.")


Policy: TypeAlias = Callable[[str, list[Any]], list[Any]]
"""A function of an op's name and its raw differentiable arguments, which returns them in the dtypes to compute in.

It returns the same list if nothing had to be converted.
"""


def _convert(name: str, arrays: list[Any], dtype: DType) -> list[Any]:
    """Return the arrays in this dtype, with scalars unchanged. Raises DTypeError for an int out of an integer dtype."""
    if dtype.kind in "iu":
        _check_scalars(name, arrays, dtype)
    if all(getattr(a, "dtype", dtype) == dtype for a in arrays):
        return arrays
    with np.errstate(over="ignore"):  # a 0-d tensor too large for float16 becomes infinite, as a number does
        return [cast_array(a, dtype) if getattr(a, "dtype", dtype) != dtype else a for a in arrays]


def _check_scalars(name: str, arrays: list[Any], dtype: DType) -> None:
    """Raise DTypeError if a Python scalar among the arguments does not fit into a dtype."""
    for a in arrays:
        if type(a) is int and not 0 <= a <= 127:  # each dtype holds these
            check_number(f"{name}({_describe(arrays)})", a, dtype)


def _describe(arrays: list[Any]) -> str:
    """Return the dtypes and shapes of the arrays among the arguments, for messages."""
    return ", ".join(f"{a.dtype}{tuple(a.shape)}" for a in arrays if hasattr(a, "dtype"))


def _promote(name: str, arrays: list[Any]) -> list[Any]:
    dtype = getattr(arrays[0], "dtype", None)
    if dtype is not None and all(getattr(a, "dtype", None) is dtype for a in arrays):
        return arrays
    return _convert(name, arrays, result_type(*arrays))


def _round(name: str, arrays: list[Any]) -> list[Any]:
    return _rounded_numbers(_promote(name, arrays))


def _float(name: str, arrays: list[Any]) -> list[Any]:
    dtype = result_type(*arrays)
    return _convert(name, arrays, dtype if kind_of(dtype) in "fc" else _default)


def _scale(name: str, arrays: list[Any]) -> list[Any]:
    return _with_wide_numbers(arrays, _promote(name, arrays))


def _float_scale(name: str, arrays: list[Any]) -> list[Any]:
    return _with_wide_numbers(arrays, _float(name, arrays))


def _with_wide_numbers(arrays: list[Any], converted: list[Any]) -> list[Any]:
    """Return the converted arrays, with float32 for each 0-d array that narrow arrays were promoted with.

    The factor 1e-8 would be 0 in float16.
    """
    if converted is arrays or not any(hasattr(a, "dtype") and a.dtype.char in _NARROW for a in converted):
        return converted
    with np.errstate(over="ignore"):
        return [a.astype(float32) if a is not c and not a.ndim and c.dtype.char in _NARROW else c
                for a, c in zip(arrays, converted, strict=True)]  # fmt: skip


def _choose(name: str, arrays: list[Any]) -> list[Any]:
    choices = arrays[1:]  # the first argument is a condition
    converted = _promote(name, choices)
    return arrays if converted is choices else [arrays[0], *converted]


def _compare(name: str, arrays: list[Any]) -> list[Any]:
    # NumPy compares integers of all widths exactly, and integers with floats in float64. Only among floats does a 0-d
    # array not decide the width, and NumPy would compare int8 with a Python float in float16.
    kinds = {a.dtype.kind for a in arrays if hasattr(a, "dtype")}
    if kinds <= {"f", "V"}:
        return _round(name, arrays) if "V" in kinds else _promote(name, arrays)
    if kinds <= {"i", "u"} and any(type(a) is float for a in arrays):
        return _convert(name, arrays, float64)
    return arrays


def _rounded_numbers(arrays: list[Any]) -> list[Any]:
    """Return the arguments with numbers of Python rounded to bfloat16, if that is the dtype of the arrays.

    NumPy compares an array of its own with a number in the dtype of the array, as PyTorch does.
    """
    dtype = next((a.dtype for a in arrays if hasattr(a, "dtype")), float32)
    if dtype.char != _BFLOAT16:
        return arrays
    with np.errstate(over="ignore"):
        return [float(dtype.type(a)) if type(a) in (int, float) else a for a in arrays]


def _bits(name: str, arrays: list[Any]) -> list[Any]:
    dtype = result_type(*arrays)
    if dtype.kind not in "biu" or any(type(a) is float for a in arrays):
        given = ", ".join(_describe([a]) or f"{a!r:.40}" for a in arrays)
        raise DTypeError(f"{name}({given}): this op is not defined for arguments of these types. It needs integers.")
    return _convert(name, arrays, dtype)


def _same(name: str, arrays: list[Any]) -> list[Any]:
    seen = [a.dtype for a in arrays if hasattr(a, "dtype")]
    if any(d != seen[0] for d in seen):
        raise DTypeError(f"{name}({_describe(arrays)}): expected tensors of one dtype. Convert with .to(dtype).")
    return arrays


def _floating(name: str, arrays: list[Any]) -> list[Any]:
    for a in arrays:
        if hasattr(a, "dtype") and kind_of(a.dtype) not in "fc":
            raise DTypeError(
                f"{name}({a.dtype}{tuple(a.shape)}): expected floating point numbers. Convert with .float()."
            )
    return _same(name, arrays)


POLICIES: dict[str, Policy] = {
    "promote": _promote,
    "round": _round,
    "float": _float,
    "scale": _scale,
    "float_scale": _float_scale,
    "choose": _choose,
    "compare": _compare,
    "bits": _bits,
    "same": _same,
    "floating": _floating,
}
"""The policies that the ``dtypes`` argument of :func:`tensorlite.op` can name; its documentation describes them."""
