"""PyTorch's functions that compare or describe tensors."""

from __future__ import annotations

from ..autograd.graph import Variable
from ..dtypes import is_floating
from .arguments import require_tensors
from .tensor import Tensor

__all__ = ["allclose", "equal", "is_floating_point", "is_tensor", "isclose", "numel"]


def is_tensor(value: object) -> bool:
    """Return whether the value is a Tensor."""
    return isinstance(value, Variable)


def is_floating_point(x: Tensor) -> bool:
    """Return whether the tensor's dtype is a floating point type."""
    return is_floating(x.dtype)


def numel(x: Tensor) -> int:
    """Return the number of entries."""
    return x.numel()


def equal(input: Tensor, other: Tensor) -> bool:
    """Return whether both tensors have the same shape and equal entries. A NaN equals nothing."""
    require_tensors("equal", input, other)
    return bool(input.equal(other))


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Return where ``|input - other| <= atol + rtol * |other|``, as booleans of the broadcast shape.

    Equal infinities are close. NaN is close to nothing, except to NaN with ``equal_nan``. Raises ShapeError if the
    shapes do not broadcast.
    """
    require_tensors("isclose", input, other)
    return input.isclose(other, rtol, atol, equal_nan)


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Return whether all entries are close: see :func:`isclose`. Raises ShapeError if the shapes do not broadcast."""
    require_tensors("allclose", input, other)
    return bool(input.allclose(other, rtol, atol, equal_nan))
