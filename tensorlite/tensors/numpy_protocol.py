"""NumPy's functions on tensors: ``np.sin(x)`` calls the op of that name, which records it.

NumPy asks the class of an argument for ``__array_ufunc__`` (NEP 13) and ``__array_function__`` (NEP 18). A function
that has no op computes on the entries and returns NumPy's result. It is an error for a tensor that requires gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..autograd.graph import Variable
from ..backends.registry import describe_array
from ..errors import DeviceError, GraphError

__all__ = ["UfuncProtocol", "apply_function"]

_UFUNC_NAMES = {
    "arctan2": "atan2", "bitwise_invert": "bitwise_not", "equal": "eq", "fabs": "abs", "greater": "gt",
    "greater_equal": "ge", "invert": "bitwise_not", "left_shift": "bitwise_left_shift", "less": "lt",
    "less_equal": "le", "not_equal": "ne", "power": "pow", "right_shift": "bitwise_right_shift", "rint": "round",
}  # fmt: skip
"""The ops of the ufuncs that have another name. All others have the op of their own name, if there is one."""


class UfuncProtocol:
    """The attribute ``__array_ufunc__`` of a tensor.

    NumPy looks it up on the class and gets a function. CuPy looks it up on the tensor and gets None, which makes
    ``cupy_array * x`` call ``x.__rmul__``.
    """

    def __get__(self, instance: Any, owner: type) -> Callable[..., Any] | None:
        return _apply_ufunc if instance is None else None


def _apply_ufunc(self: Any, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """Return the result of a NumPy ufunc, of which one argument is a Tensor."""
    name = ufunc.__name__
    op = getattr(ops, _UFUNC_NAMES.get(name, name), None)
    if op is not None and method == "__call__" and not kwargs:
        return op(*inputs)
    name = name if method == "__call__" else f"{name}.{method}"
    return getattr(ufunc, method)(*_raw(name, inputs), **_raw(name, kwargs))


def apply_function(self: Any, function: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the result of a NumPy function, of which one argument is a Tensor."""
    op = _FUNCTIONS.get(function)
    if op is not None:
        return op(*args, **kwargs)
    name = f"{function.__module__.removeprefix('numpy').removeprefix('.')}.{function.__name__}".removeprefix(".")
    return function(*_raw(name, args), **_raw(name, kwargs))


def _raw(name: str, value: Any) -> Any:
    """Return the arguments with NumPy arrays for Tensors, also in lists and dicts. Raises GraphError, DeviceError."""
    if isinstance(value, (list, tuple)):
        return type(value)([_raw(name, item) for item in value]) if type(value) in (list, tuple) else value
    if isinstance(value, dict):
        return {key: _raw(name, item) for key, item in value.items()}
    if not isinstance(value, Variable):
        return value
    if value.tracked:
        raise GraphError(
            f"numpy.{name}: a tensor requires gradients, which NumPy would lose. Use the op of tensorlite if there is "
            f"one, or x.detach().numpy()."
        )
    if type(value.array) is not np.ndarray:
        raise DeviceError(f"numpy.{name}: a tensor is {describe_array(value.array)}. Use x.cpu().numpy().")
    return value.array


def _concatenate(arrays: Any, axis: int | None = 0) -> Any:
    return ops.cat([ops.reshape(a, (-1,)) for a in arrays], 0) if axis is None else ops.cat(list(arrays), axis)


def _stack(arrays: Any, axis: int = 0) -> Any:
    return ops.stack(list(arrays), axis)


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    return ops.clamp(a, min if a_min is None else a_min, max if a_max is None else a_max)


def _cumsum(a: Any, axis: int | None = None) -> Any:
    return ops.cumsum(ops.reshape(a, (-1,)), 0) if axis is None else ops.cumsum(a, axis)


def _transpose(a: Any, axes: Any = None) -> Any:
    return ops.permute(a, tuple(range(a.ndim))[::-1] if axes is None else tuple(axes))


def _squeeze(a: Any, axis: Any = None) -> Any:
    return ops.squeeze(a) if axis is None else ops.squeeze(a, axis)


def _spread(op: Callable[..., Any]) -> Callable[..., Any]:
    """Return NumPy's variance or deviation, which divides by the number of entries."""

    def spread(a: Any, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Any:
        return op(a, axis, ddof, keepdims)

    return spread


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.all: ops.all, np.amax: ops.amax, np.amin: ops.amin, np.any: ops.any, np.argmax: ops.argmax,
    np.argmin: ops.argmin, np.clip: _clip, np.concatenate: _concatenate, np.cumsum: _cumsum,
    np.einsum: ops.einsum, np.expand_dims: ops.unsqueeze, np.max: ops.amax, np.mean: ops.mean, np.min: ops.amin,
    np.moveaxis: ops.movedim, np.outer: ops.outer, np.prod: ops.prod, np.ravel: lambda a: ops.reshape(a, (-1,)),
    np.reshape: ops.reshape, np.round: ops.round, np.squeeze: _squeeze, np.stack: _stack, np.std: _spread(ops.std),
    np.sum: ops.sum, np.swapaxes: ops.transpose, np.trace: ops.trace, np.transpose: _transpose, np.tril: ops.tril,
    np.triu: ops.triu, np.var: _spread(ops.var), np.where: ops.where,
    np.ndim: lambda a: a.ndim, np.shape: lambda a: a.shape, np.size: lambda a: a.numel(),
}  # fmt: skip
"""The op of each function of NumPy that has one with the same arguments."""
