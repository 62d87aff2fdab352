"""Questions about whole tensors, answered by a Python value (``isclose`` by a tensor of booleans)."""

from __future__ import annotations

from . import ops
from .autograd import Variable
from .dtypes import is_floating
from .errors import ShapeError
from .tensor import Tensor

__all__ = ["allclose", "equal", "is_floating_point", "is_tensor", "isclose", "numel"]


def is_tensor(value: object) -> bool:
    """Whether it is a Tensor."""
    return isinstance(value, Variable)


def is_floating_point(x: Tensor) -> bool:
    """Whether the tensor's dtype is a floating point one."""
    return is_floating(x.dtype)


def numel(x: Tensor) -> int:
    """The number of entries."""
    return x.numel()


def _require_tensors(name: str, *values: object) -> None:
    for value in values:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected two Tensors, got {type(value).__name__}")


def equal(x: Tensor, y: Tensor) -> bool:
    """Whether both have the same shape and the same entries."""
    _require_tensors("equal", x, y)
    return x.shape == y.shape and bool(ops.all(ops.eq(x, y)))


def isclose(x: Tensor, y: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether ``|x - y| <= atol + rtol * |y|``, entry by entry; infinities are close to themselves alone."""
    _require_tensors("isclose", x, y)
    x, y = x.detach(), y.detach()
    near = ops.le(ops.abs(ops.sub(x, y)), ops.add(ops.mul(ops.abs(y), rtol), atol))
    same = ops.logical_or(ops.eq(x, y), ops.logical_and(near, ops.isfinite(y)))
    return ops.logical_or(same, ops.logical_and(ops.isnan(x), ops.isnan(y))) if equal_nan else same


def allclose(x: Tensor, y: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all entries are close, as :func:`isclose` says. Raises ShapeError if the shapes do not broadcast."""
    try:
        return bool(ops.all(isclose(x, y, rtol, atol, equal_nan)))
    except ShapeError:
        raise ShapeError(f"allclose: shapes {x.shape} and {y.shape} do not broadcast") from None
