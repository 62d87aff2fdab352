"""Functions that make tensors: from data, filled, counted, or random.

All take ``dtype`` (None: float32 unless :func:`set_default_dtype` changed it, or what the data say), ``device`` (None:
the default device) and ``requires_grad``. Sizes are ints or one sequence of ints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import random
from ..autograd.graph import Variable, wrap
from ..backends.registry import Array, DeviceLike, Namespace, namespace
from ..backends.registry import device as as_device
from ..dtypes import DType, as_dtype, get_default_dtype, int64, promote_types
from ..errors import DTypeError, ShapeError
from ..ops.arguments import ints_in
from .arguments import check_sizes, require_tensors
from .convert import as_array
from .tensor import Tensor

__all__ = [
    "arange", "as_tensor", "empty", "empty_like", "eye", "from_numpy", "full", "full_like", "linspace", "ones",
    "ones_like", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "tensor", "zeros",
    "zeros_like",
]  # fmt: skip


def _made(array: Array, requires_grad: bool) -> Tensor:
    result: Tensor = wrap(array)
    if requires_grad:
        result.requires_grad = True
    return result


# ---- from data ------------------------------------------------------------------------------


def tensor(data: Any, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of the data: a number, nested sequences of numbers, an array or a Tensor.

    Python floats become float32 (the default dtype), ints int64, booleans bool; arrays keep their dtype.
    Raises ShapeError for rows of different lengths, TypeError for what is not a number.
    """
    array = as_array(data, dtype, device)
    source = data.array if isinstance(data, Variable) else data
    return _made(array.copy() if array is source else array, requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: DeviceLike = None) -> Tensor:
    """The data as a tensor, without a copy where none is needed. A Tensor that fits comes back as it is."""
    if isinstance(data, Tensor):
        return data.to(dtype=dtype, device=device)
    return _made(as_array(data, dtype, device), False)


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor on the CPU that shares the array's memory: a change of one is seen in the other.

    Raises TypeError if it is not an array of numbers or booleans in native byte order.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a numpy.ndarray, got {type(array).__name__}")
    if array.dtype.kind not in "biufc" or not array.dtype.isnative:
        raise TypeError(f"from_numpy: dtype {array.dtype} is not a native number type; convert with .astype()")
    return _made(array.view(np.ndarray), False)


# ---- filled ---------------------------------------------------------------------------------


def _filled(
    name: str, fill: Callable[[Namespace, tuple[int, ...], DType], Array], sizes: tuple[Any, ...], size: Any,
    dtype: Any, device: DeviceLike, requires_grad: bool,
) -> Tensor:  # fmt: skip
    xp, shape = namespace(as_device(device)), check_sizes(name, sizes, size)
    return _made(fill(xp, shape, get_default_dtype() if dtype is None else as_dtype(dtype)), requires_grad)


def zeros(
    *sizes: Any, size: Any = None, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of zeros."""
    return _filled("zeros", lambda xp, shape, t: xp.zeros(shape, t), sizes, size, dtype, device, requires_grad)


def ones(
    *sizes: Any, size: Any = None, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of ones."""
    return _filled("ones", lambda xp, shape, t: xp.ones(shape, t), sizes, size, dtype, device, requires_grad)


def empty(
    *sizes: Any, size: Any = None, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """A tensor whose entries are whatever the memory holds."""
    return _filled("empty", lambda xp, shape, t: xp.empty(shape, t), sizes, size, dtype, device, requires_grad)


def full(
    size: Any, fill_value: Any, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """A tensor with every entry ``fill_value``, whose type decides the dtype unless one is given."""
    value = fill_value.tolist() if isinstance(fill_value, Variable) else fill_value  # type: ignore[attr-defined]
    given = as_array(fill_value, where="cpu")
    if given.size != 1:
        raise ShapeError(f"full: fill_value must be one number, got shape {given.shape}")
    if dtype is None:
        dtype = as_array(value, where="cpu").dtype
    return _filled("full", lambda xp, shape, t: xp.full(shape, value, t), (size,), None, dtype, device, requires_grad)


def zeros_like(input: Tensor, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """Zeros in the shape, dtype and on the device of the input."""
    require_tensors("zeros_like", input)
    return zeros(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def ones_like(input: Tensor, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """Ones in the shape, dtype and on the device of the input."""
    require_tensors("ones_like", input)
    return ones(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def empty_like(input: Tensor, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """Unset entries in the shape, dtype and on the device of the input."""
    require_tensors("empty_like", input)
    return empty(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def full_like(
    input: Tensor, fill_value: Any, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """``fill_value`` in the shape, dtype and on the device of the input."""
    require_tensors("full_like", input)
    return full(input.shape, fill_value, dtype or input.dtype, device or input.device, requires_grad)


# ---- counted --------------------------------------------------------------------------------


def _number(name: str, value: Any) -> Any:
    """A finite Python number, from one, or from a NumPy scalar or a Tensor."""
    value = value.item() if isinstance(value, (Tensor, np.generic)) else value
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected numbers, got {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected finite numbers, got {value}")
    return value


def arange(
    start: Any = 0,
    end: Any = None,
    step: Any = 1,
    dtype: Any = None,
    device: DeviceLike = None,
    requires_grad: bool = False,
) -> Tensor:
    """The numbers from ``start`` (0 if only an end is given) up to but without ``end``: int64 if all are ints.

    Raises ValueError if ``step`` does not lead from one to the other, TypeError for what is not a number.
    """
    if end is None:
        start, end = 0, start
    start, end, step = (_number("arange", v) for v in (start, end, step))
    if step == 0:
        raise ValueError("arange: step must not be 0")
    if (end - start) * step < 0:
        raise ValueError(f"arange: step {step} does not lead from {start} to {end}")
    if dtype is None:
        dtype = int64 if all(isinstance(v, int) for v in (start, end, step)) else get_default_dtype()
    dtype = as_dtype(dtype)
    n = math.ceil((end - start) / step)
    counted = namespace(as_device(device)).arange(n)
    wide = promote_types(dtype, np.float64) if dtype.kind == "f" else dtype
    return _made((counted.astype(wide) * step + start).astype(dtype), requires_grad)


def linspace(
    start: float, end: float, steps: int, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """``steps`` evenly spaced numbers from ``start`` to ``end``, both included."""
    xp, (n,) = namespace(as_device(device)), check_sizes("linspace", (steps,))
    spaced = xp.linspace(_number("linspace", start), _number("linspace", end), n)
    return _made(spaced.astype(as_dtype(dtype or get_default_dtype())), requires_grad)


def eye(
    n: int, m: int | None = None, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False
) -> Tensor:
    """The (n, m) matrix with ones on its diagonal, zeros elsewhere; square without m."""
    sizes = (n, n if m is None else m)
    return _filled("eye", lambda xp, shape, t: xp.eye(*shape, dtype=t), sizes, None, dtype, device, requires_grad)


# ---- random ---------------------------------------------------------------------------------


def _source(generator: random.Generator | None) -> random.Generator:
    if generator is not None and not isinstance(generator, random.Generator):
        raise TypeError(f"generator: expected a tensorlite.Generator, got {type(generator).__name__}")
    return generator or random.default_generator


def _drawn(
    name: str, draw: Callable[..., Array], sizes: tuple[Any, ...], size: Any, dtype: Any, device: DeviceLike,
    requires_grad: bool,
) -> Tensor:  # fmt: skip
    kind = get_default_dtype() if dtype is None else as_dtype(dtype)
    if kind.kind != "f":
        raise DTypeError(f"{name}: random numbers need a floating point dtype, got {kind}; see randint()")
    return _made(draw(namespace(as_device(device)), check_sizes(name, sizes, size), kind), requires_grad)


def rand(
    *sizes: Any, size: Any = None, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False,
    generator: random.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Random numbers, uniform on [0, 1)."""
    return _drawn("rand", _source(generator).uniform, sizes, size, dtype, device, requires_grad)


def randn(
    *sizes: Any, size: Any = None, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False,
    generator: random.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Random numbers from the standard normal distribution."""
    return _drawn("randn", _source(generator).normal, sizes, size, dtype, device, requires_grad)


def randint(
    low: Any = 0, high: Any = None, size: Any = None, *, dtype: Any = None, device: DeviceLike = None,
    generator: random.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Random integers from ``low`` to ``high - 1``, int64: ``randint(low, high, size)`` or ``randint(high, size)``.

    Raises ValueError if there are none, DTypeError if the dtype does not have them all.
    """
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    low, high = ints_in("randint", "low and high", (low, high))
    if high <= low:
        raise ValueError(f"randint: high must be above low, got low={low}, high={high}")
    kind = as_dtype(dtype or int64)
    if kind.kind in "iu" and not np.iinfo(kind).min <= low < high <= np.iinfo(kind).max + 1:
        raise DTypeError(f"randint: the integers from {low} to {high - 1} do not fit into {kind}")
    source = _source(generator)
    return _made(
        source.integers(namespace(as_device(device)), low, high, check_sizes("randint", (size,)), kind),
        False,
    )


def randperm(n: int, *, device: DeviceLike = None, generator: random.Generator | None = None) -> Tensor:
    """The integers below n in random order, int64."""
    (n,) = check_sizes("randperm", (n,))
    return _made(_source(generator).permutation(namespace(as_device(device)), n), False)


def rand_like(input: Tensor, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """Uniform random numbers in the shape, dtype and on the device of the input."""
    require_tensors("rand_like", input)
    return rand(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def randn_like(input: Tensor, dtype: Any = None, device: DeviceLike = None, requires_grad: bool = False) -> Tensor:
    """Normal random numbers in the shape, dtype and on the device of the input."""
    require_tensors("randn_like", input)
    return randn(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def randint_like(
    input: Tensor, low: int, high: int | None = None, dtype: Any = None, device: DeviceLike = None
) -> Tensor:
    """Random integers in the shape, dtype and on the device of the input."""
    require_tensors("randint_like", input)
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, input.shape, dtype=dtype or input.dtype, device=device or input.device)

