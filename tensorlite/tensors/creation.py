"""Make tensors: from data, filled with a value, counted, or random.

Sizes are given one by one or as one sequence: ``zeros(2, 3)``, ``zeros((2, 3))`` or ``zeros(size=(2, 3))``.

dtype: None for the default dtype, float32 unless :func:`set_default_dtype` has changed it; see each function.
device: None for the default device.
requires_grad: whether ops on the result are recorded. Raises DTypeError unless the dtype is a floating point type.
generator: the source of random numbers; None for the default generator, see :func:`tensorlite.manual_seed`.

All raise TypeError if a size is not an int, and ShapeError if one is negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, overload

import numpy as np

from .. import random
from ..autograd.graph import Variable, wrap
from ..backends.registry import Array, DeviceLike, Namespace, namespace, plain_array
from ..backends.registry import device as as_device
from ..dtypes import (
    DType,
    DTypeLike,
    as_dtype,
    cast_array,
    check_number,
    get_default_dtype,
    int64,
    is_floating,
    kind_of,
    promote_types,
)
from ..errors import DTypeError
from ..scalars import as_number, int_in
from .arguments import check_sizes, require_tensors
from .convert import as_array, fill_number
from .tensor import Tensor

__all__ = [
    "arange", "as_tensor", "empty", "empty_like", "eye", "from_numpy", "full", "full_like", "linspace", "ones",
    "ones_like", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "tensor", "zeros",
    "zeros_like",
]  # fmt: skip

Sizes: TypeAlias = int | Sequence[int]
"""One size, or a sequence of sizes."""
Real: TypeAlias = float | np.number[Any] | Tensor
"""A real number; of a Tensor, its only entry."""


def _wrap(array: Array, requires_grad: bool) -> Tensor:
    """Return a Tensor around a raw array, which is not copied."""
    result: Tensor = wrap(array)
    if requires_grad is not False:
        result.requires_grad = requires_grad
    return result


# ---- from data ------------------------------------------------------------------------------


def tensor(data: Any, dtype: DTypeLike | None = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """Return a new tensor with a copy of the data: a number, nested sequences of numbers, an array or a Tensor.

    dtype: None keeps that of an array or a Tensor. Python floats become the default dtype, ints int64, booleans bool.

    Raises ShapeError if rows differ in length, TypeError for anything but numbers, DTypeError if a number does not fit
    into the dtype.
    """
    array = as_array(data, dtype, device)
    source = data.array if isinstance(data, Variable) else data
    return _wrap(array.copy() if array is source else array, requires_grad)


def as_tensor(data: Any, dtype: DTypeLike | None = None, device: DeviceLike = None) -> Tensor:
    """Return the data as a tensor that shares their memory if possible, otherwise a copy; see :func:`tensor`.

    A Tensor of this dtype and on this device is returned unchanged.
    """
    if isinstance(data, Tensor):
        return data.to(dtype=dtype, device=device)
    return _wrap(as_array(data, dtype, device), False)


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """Return a tensor on the CPU that shares the array's memory: a change of one is a change of the other.

    Raises TypeError if the argument is not an array of numbers or booleans in native byte order, or if it has a mask.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a numpy.ndarray, got {type(array).__name__}. Use tl.tensor().")
    if kind_of(array.dtype) not in "biufc" or not array.dtype.isnative:
        raise TypeError(f"from_numpy: expected native numbers, got {array.dtype}. Convert with .astype().")
    return _wrap(plain_array("from_numpy", array), False)


# ---- filled ---------------------------------------------------------------------------------


def _filled(
    name: str, fill: Callable[[Namespace, tuple[int, ...], DType], Array], sizes: tuple[Any, ...], size: Any,
    dtype: Any, device: DeviceLike, requires_grad: bool,
) -> Tensor:  # fmt: skip
    """Return the tensor that ``fill(xp, shape, dtype)`` makes; its sizes are checked first."""
    xp, shape = namespace(as_device(device)), check_sizes(name, sizes, size)
    return _wrap(fill(xp, shape, get_default_dtype() if dtype is None else as_dtype(dtype)), requires_grad)


def zeros(
    *sizes: Sizes,
    size: Sizes | None = None,
    dtype: DTypeLike | None = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a tensor of zeros. Its dtype is the default dtype unless one is given."""
    return _filled("zeros", lambda xp, shape, t: xp.zeros(shape, t), sizes, size, dtype, device, requires_grad)


def ones(
    *sizes: Sizes,
    size: Sizes | None = None,
    dtype: DTypeLike | None = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a tensor of ones. Its dtype is the default dtype unless one is given."""
    return _filled("ones", lambda xp, shape, t: xp.ones(shape, t), sizes, size, dtype, device, requires_grad)


def empty(
    *sizes: Sizes,
    size: Sizes | None = None,
    dtype: DTypeLike | None = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a tensor with arbitrary entries. Its dtype is the default dtype unless one is given."""
    return _filled("empty", lambda xp, shape, t: xp.empty(shape, t), sizes, size, dtype, device, requires_grad)


def full(
    size: Sizes, fill_value: Any, dtype: DTypeLike | None = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """Return a tensor with every entry ``fill_value``: a number, or a Tensor or an array with one entry.

    dtype: None for the dtype that :func:`tensor` gives ``fill_value``.

    Raises ShapeError if ``fill_value`` has more than one entry, DTypeError if it does not fit into the dtype.
    """
    kind = None if dtype is None else as_dtype(dtype)
    value, own = fill_number("full", fill_value, kind)
    if dtype is None:
        dtype = as_array(value).dtype if isinstance(fill_value, Variable) else own
    return _filled("full", lambda xp, shape, t: xp.full(shape, value, t), (size,), None, dtype, device, requires_grad)


def _like(input: Tensor, dtype: DTypeLike | None, device: DeviceLike) -> dict[str, Any]:
    """Return the options of a new tensor: those that are given, and otherwise the input's."""
    return {"dtype": input.dtype if dtype is None else dtype, "device": input.device if device is None else device}


def zeros_like(
    input: Tensor, dtype: DTypeLike | None = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """Return zeros of the input's shape, dtype and device, unless others are given."""
    require_tensors("zeros_like", input)
    return zeros(input.shape, **_like(input, dtype, device), requires_grad=requires_grad)


def ones_like(
    input: Tensor, dtype: DTypeLike | None = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """Return ones of the input's shape, dtype and device, unless others are given."""
    require_tensors("ones_like", input)
    return ones(input.shape, **_like(input, dtype, device), requires_grad=requires_grad)


def empty_like(
    input: Tensor, dtype: DTypeLike | None = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """Return arbitrary entries of the input's shape, dtype and device, unless others are given."""
    require_tensors("empty_like", input)
    return empty(input.shape, **_like(input, dtype, device), requires_grad=requires_grad)


def full_like(
    input: Tensor,
    fill_value: Any,
    dtype: DTypeLike | None = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return a tensor full of ``fill_value``, of the input's shape, dtype and device, unless others are given."""
    require_tensors("full_like", input)
    return full(input.shape, fill_value, **_like(input, dtype, device), requires_grad=requires_grad)


# ---- counted --------------------------------------------------------------------------------


def _finite_number(name: str, value: Any) -> Any:
    """Return a number, a NumPy scalar or a Tensor with one entry as a Python number. Raise ValueError if not finite."""
    number = as_number(value.detach().reshape(()) if isinstance(value, Tensor) and value.numel() == 1 else value)
    if number is None:
        raise TypeError(f"{name}: expected numbers, got {type(value).__name__}")
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected finite numbers, got {number}")
    return number


def _counting_dtype(name: str, dtype: DTypeLike) -> DType:
    """Return the dtype of counted numbers. Raises DTypeError for booleans."""
    found = as_dtype(dtype)
    if found.kind == "b":
        raise DTypeError(f"{name}: expected a dtype of numbers, got bool. Compare the numbers to get booleans.")
    return found


def arange(
    start: Real = 0,
    end: Real | None = None,
    step: Real = 1,
    dtype: DTypeLike | None = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return ``start``, ``start + step``, and so on up to but not including ``end``; ``arange(n)`` starts at 0.

    dtype: None for int64 if all arguments are ints, otherwise the default dtype. For an integer dtype the fractions of
        the arguments are cut off first.

    Raises ValueError if ``step`` is 0 or leads away from ``end``, TypeError for anything but numbers. Raises DTypeError
    for booleans, and if a number does not fit into the dtype.
    """
    if end is None:
        start, end = 0, start
    start, end, step = (_finite_number("arange", v) for v in (start, end, step))
    if dtype is not None and as_dtype(dtype).kind in "iu":
        start, end, step = int(start), int(end), int(step)  # as PyTorch does
    if step == 0:
        raise ValueError("arange: step must not be 0")
    if (end - start) * step < 0:
        raise ValueError(f"arange: step {step} does not lead from {start} to {end}")
    if dtype is None:
        dtype = int64 if all(isinstance(v, int) for v in (start, end, step)) else get_default_dtype()
    dtype = _counting_dtype("arange", dtype)
    if isinstance(start, int) and isinstance(end, int) and isinstance(step, int):
        n = -((start - end) // step)  # in integers, because (end - start) / step would be rounded
    else:
        n = math.ceil((end - start) / step)
    xp = namespace(as_device(device))
    for first_or_last in (start, start + (n - 1) * step)[: 2 * (n > 0)]:
        check_number("arange", first_or_last, dtype)
    if dtype.kind in "iu" and isinstance(start, int) and isinstance(step, int):
        wide = np.dtype(np.uint64) if dtype == np.uint64 else int64
        numbers = xp.arange(n, dtype=wide) if n else xp.zeros(0, wide)
        if n and (start, step) != (0, 1):
            numbers = numbers * step + start
        return _wrap(numbers.astype(dtype, copy=False), requires_grad)
    wide = promote_types(dtype, np.float64)
    return _wrap(cast_array(xp.arange(n).astype(wide) * step + start, dtype), requires_grad)


def linspace(
    start: Real,
    end: Real,
    steps: int,
    dtype: DTypeLike | None = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return ``steps`` evenly spaced numbers from ``start`` to ``end``, both included, in the default dtype.

    In an integer dtype the fractions of ``start``, ``end`` and the results are cut off. Raises DTypeError for booleans,
    and if ``start`` or ``end`` does not fit into the dtype.
    """
    xp, (n,) = namespace(as_device(device)), check_sizes("linspace", (int_in("linspace", "steps", steps),))
    kind = _counting_dtype("linspace", dtype or get_default_dtype())
    ends = (_finite_number("linspace", start), _finite_number("linspace", end))
    if kind.kind in "iu":
        ends = (int(ends[0]), int(ends[1]))
    for v in ends:
        check_number("linspace", v, kind)
    return _wrap(cast_array(xp.linspace(*ends, n), kind), requires_grad)


def eye(
    n: int, m: int | None = None, dtype: DTypeLike | None = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """Return the matrix (n, m) with ones on its diagonal and zeros elsewhere. It is square if m is left out."""
    n = int_in("eye", "n", n)
    sizes = (n, n if m is None else int_in("eye", "m", m))
    return _filled("eye", lambda xp, shape, t: xp.eye(*shape, dtype=t), sizes, None, dtype, device, requires_grad)


# ---- random ---------------------------------------------------------------------------------


def _source(generator: random.Generator | None) -> random.Generator:
    """Return the generator, or the default one for None. Raise TypeError for anything else."""
    if generator is not None and not isinstance(generator, random.Generator):
        raise TypeError(f"generator: expected a tensorlite.Generator, got {type(generator).__name__}")
    return generator or random.default_generator


def _drawn(
    name: str, draw: Callable[..., Array], sizes: tuple[Any, ...], size: Any, dtype: Any, device: DeviceLike,
    requires_grad: bool,
) -> Tensor:  # fmt: skip
    """Return the tensor that ``draw(xp, shape, dtype)`` makes; its sizes and its dtype are checked first."""
    kind = get_default_dtype() if dtype is None else as_dtype(dtype)
    if not is_floating(kind):
        raise DTypeError(f"{name}: expected a floating point dtype, got {kind}. For integers use randint().")
    return _wrap(draw(namespace(as_device(device)), check_sizes(name, sizes, size), kind), requires_grad)


def rand(
    *sizes: Sizes,
    size: Sizes | None = None,
    dtype: DTypeLike | None = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
    generator: random.Generator | None = None,
) -> Tensor:
    """Return random numbers, uniform on [0, 1). Raises DTypeError unless the dtype is a floating point type."""
    return _drawn("rand", _source(generator).uniform, sizes, size, dtype, device, requires_grad)


def randn(
    *sizes: Sizes,
    size: Sizes | None = None,
    dtype: DTypeLike | None = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
    generator: random.Generator | None = None,
) -> Tensor:
    """Return random numbers of the standard normal distribution: mean 0, variance 1.

    Raises DTypeError unless the dtype is a floating point type.
    """
    return _drawn("randn", _source(generator).normal, sizes, size, dtype, device, requires_grad)


@overload
def randint(
    high: int,
    size: Sizes,
    *,
    dtype: DTypeLike | None = None,
    device: DeviceLike = None,
    generator: random.Generator | None = None,
) -> Tensor: ...
@overload
def randint(
    low: int,
    high: int,
    size: Sizes,
    *,
    dtype: DTypeLike | None = None,
    device: DeviceLike = None,
    generator: random.Generator | None = None,
) -> Tensor: ...
def randint(  # type: ignore[misc]  # randint(high, size): the second argument has two names
    low: Any = 0,
    high: Any = None,
    size: Any = None,
    *,
    dtype: DTypeLike | None = None,
    device: DeviceLike = None,
    generator: random.Generator | None = None,
) -> Tensor:
    """Return random integers from ``low`` to ``high - 1``: ``randint(low, high, size)`` or ``randint(high, size)``.

    dtype: None for int64. Raises ValueError if ``high`` is not above ``low``, DTypeError if one does not fit.
    """
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    low, high = int_in("randint", "low", low), int_in("randint", "high", high)
    if high <= low:
        raise ValueError(f"randint: high must be above low, got low={low}, high={high}")
    kind = as_dtype(dtype or int64)
    if kind.kind in "iu" and not np.iinfo(kind).min <= low < high <= np.iinfo(kind).max + 1:
        raise DTypeError(f"randint: the integers from {low} to {high - 1} do not fit into {kind}")
    xp, shape = namespace(as_device(device)), check_sizes("randint", (size,))
    return _wrap(_source(generator).integers(xp, low, high, shape, kind), False)


def randperm(n: int, *, device: DeviceLike = None, generator: random.Generator | None = None) -> Tensor:
    """Return the integers from 0 to n - 1 in random order, shape (n,), int64."""
    (n,) = check_sizes("randperm", (int_in("randperm", "n", n),))
    return _wrap(_source(generator).permutation(namespace(as_device(device)), n), False)


def rand_like(
    input: Tensor, dtype: DTypeLike | None = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """Return uniform random numbers on [0, 1) of the input's shape, dtype and device, unless others are given."""
    require_tensors("rand_like", input)
    return rand(input.shape, **_like(input, dtype, device), requires_grad=requires_grad)


def randn_like(
    input: Tensor, dtype: DTypeLike | None = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """Return standard normal random numbers of the input's shape, dtype and device, unless others are given."""
    require_tensors("randn_like", input)
    return randn(input.shape, **_like(input, dtype, device), requires_grad=requires_grad)


def randint_like(
    input: Tensor, low: int, high: int | None = None, dtype: DTypeLike | None = None, device: DeviceLike = None
) -> Tensor:
    """Return random integers from ``low`` to ``high - 1``, of the input's shape, dtype and device by default."""
    require_tensors("randint_like", input)
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, input.shape, **_like(input, dtype, device))
