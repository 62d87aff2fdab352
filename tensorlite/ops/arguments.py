"""Checks of the arguments of ops: dimensions, sizes, shapes, index tensors."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any, SupportsIndex, TypeAlias, TypeVar, cast

import numpy as np

from ..autograd.graph import Variable
from ..backends.registry import BACKENDS, Array, describe_array
from ..dtypes import DType, kind_of
from ..errors import DeviceError, DTypeError
from ..scalars import int_in, ints_in

Number: TypeAlias = int | float | complex | np.number[Any] | np.bool_
"""A number of Python or a scalar of NumPy."""
ArrayOrNumber: TypeAlias = Number | np.ndarray[Any, Any]
"""What an op of several arguments accepts next to a Tensor."""
Operand: TypeAlias = Any
"""A Tensor, an array or a number. The function of an op gets a raw array or a number."""
BasicIndex: TypeAlias = SupportsIndex | slice | EllipsisType | list[Any] | range | np.ndarray[Any, Any] | None
Index: TypeAlias = BasicIndex | tuple[BasicIndex, ...]
"""An index of a Tensor, ``x[index]``. Index tensors and masks count as SupportsIndex: a Tensor has ``__index__``."""
Dim: TypeAlias = int | Sequence[int] | None
"""One dimension, several, or all."""

_INDEX_DTYPES = (np.dtype(np.int64), np.dtype(np.int32))

F = TypeVar("F", bound=Callable[..., Any])


def numpy_names(f: F) -> F:
    """Make f accept NumPy's names of arguments too, as in PyTorch: ``axis`` is ``dim``, ``keepdims`` is ``keepdim``."""

    @functools.wraps(f)
    def named(*args: Any, **kwargs: Any) -> Any:
        for theirs, ours in (("axis", "dim"), ("keepdims", "keepdim")):
            if theirs in kwargs and ours not in kwargs:
                kwargs[ours] = kwargs.pop(theirs)
        return f(*args, **kwargs)

    return cast(F, named)


def dim_in(name: str, dim: int, ndim: int) -> int:
    """Return a dimension counted from the front. A 0-d tensor counts as 1-d.

    name: the function to name in messages. Inside an op it is "", because the op adds its own name.

    Raises IndexError if the dimension is out of range, TypeError if it is not an integer.
    """
    if type(dim) is not int:
        dim = int_in(name, "dim", dim)
    n = max(ndim, 1)
    if not -n <= dim < n:
        raise IndexError(
            f"{name}{': ' * bool(name)}dim {dim} is out of range for a tensor with {ndim} dimensions (expected {-n} to "
            f"{n - 1})"
        )
    return dim % n


def dims_in(name: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """Return one dimension or several, counted from the front. The dimension of a 0-d tensor is left out.

    Raises IndexError if one is out of range, TypeError if it is not an integer, ValueError if it is named twice.
    """
    if type(dim) is int and 0 <= dim < ndim:
        return (dim,)
    dims = tuple(dim_in(name, d, ndim) for d in ints_in(name, "dim", dim))
    if len(set(dims)) < len(dims):
        raise ValueError(f"{name}{': ' * bool(name)}dim {dim} names a dimension twice")
    return dims if ndim else ()


def all_or_dims_in(name: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """Return dimensions as :func:`dims_in` does; all of them for None or an empty sequence, as PyTorch's sums do."""
    if dim is None or (type(dim) in (tuple, list) and not dim):
        return tuple(range(ndim))
    return dims_in(name, dim, ndim)


def shape_of(name: str, x: Any) -> tuple[int, ...]:
    """Return the shape of a Tensor, a raw array or a NumPy scalar. Raises TypeError for anything else."""
    array = x.array if isinstance(x, Variable) else x
    if type(array) not in BACKENDS and not isinstance(array, np.generic):
        raise TypeError(f"{name}: expected a Tensor, got {type(x).__name__}")
    return tuple(array.shape)


def without_scalar(x: Any) -> Any:
    """Return a NumPy scalar as a 0-d array, and anything else unchanged. Operators make scalars of 0-d arrays."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def array_of(x: Any) -> Any:
    """Return the raw array of a Tensor, and anything else unchanged."""
    return x.array if isinstance(x, Variable) else x


def outlier(index: Array, size: int, lowest: int = 0) -> str:
    """Return the first index out of range and its position, as text; "" if there is none.

    The check runs on the CPU only, because on a GPU it would force a sync.
    """
    if type(index) is not np.ndarray or not index.size or _is_below(index, size, lowest):
        return ""
    at = tuple(map(int, np.argwhere((index < lowest) | (index >= size))[0]))
    return f"{index[at]} at position {at}"


def _is_below(index: Array, size: int, lowest: int) -> bool:
    """Return whether all indices are from ``lowest`` to ``size - 1``."""
    if lowest == 0 and index.dtype == np.int64:
        return bool(index.view(np.uint64).max() < size)  # because negative ones are then the largest
    return bool(lowest <= index.min() and index.max() < size)


def check_range(name: str, index: Array, dim: int, size: int, lowest: int = 0) -> None:
    """Raise IndexError if an index is not from ``lowest`` to ``size - 1``."""
    if found := outlier(index, size, lowest):
        raise IndexError(f"{name}: index {found} is out of range for dim {dim} of size {size}")


def check_fit(name: str, array: Any, dtype: DType) -> None:
    """Raise DTypeError if an array on the CPU holds a number out of the range of an integer dtype, or NaN.

    The fractions of floats do not count. Other arrays are not checked, because on a GPU it would force a sync.
    """
    if type(array) is not np.ndarray or dtype.kind not in "iu" or kind_of(array.dtype) not in "iuf" or not array.size:
        return
    if np.can_cast(array.dtype, dtype):
        return
    limits = [n if isinstance(n, int) or not math.isfinite(n) else math.trunc(n)
              for n in (array.min().item(), array.max().item())]  # fmt: skip
    if not int(np.iinfo(dtype).min) <= limits[0] <= limits[1] <= int(np.iinfo(dtype).max):
        raise DTypeError(f"{name}: the numbers from {limits[0]} to {limits[1]} do not fit into {dtype}.")


def index_array(name: str, x: Any, index: Any) -> Array:
    """Return the raw array of an index tensor for x, as int64 unless it is int64 or int32.

    Raises DTypeError if it does not hold integers, DeviceError if it is on another device than x.
    """
    ids, array = array_of(index), array_of(x)
    if type(ids) not in BACKENDS or ids.dtype.kind not in "iu":
        raise DTypeError(f"{name}: expected an index tensor of integers, got {describe_array(ids)}")
    if type(ids) is not type(array) and not isinstance(array, np.generic):
        raise DeviceError(f"{name}: the index is {describe_array(ids)}, but the tensor is {describe_array(array)}")
    return wide_index(ids)


def wide_index(ids: Array) -> Array:
    """Return integer indices as int64, or unchanged if they are int64 or int32: kernels know only these two.

    A uint64 that int64 cannot hold becomes the largest int64, which is out of every range.
    """
    if ids.dtype in _INDEX_DTYPES:
        return ids
    if ids.dtype == np.uint64:
        ids = BACKENDS[type(ids)].minimum(ids, np.iinfo(np.int64).max)
    return ids.astype(np.int64)
