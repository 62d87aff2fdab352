"""Questions about whole tensors, answered by a Python value (``isclose`` by a tensor of booleans)."""

from __future__ import annotations

from ..autograd.graph import Variable
from ..dtypes import is_floating
from .arguments import require_tensors
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


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and the same entries."""
    require_tensors("equal", input, other)
    return bool(input.equal(other))


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether ``|input - other| <= atol + rtol * |other|``, entry by entry; infinities are close to themselves."""
    require_tensors("isclose", input, other)
    return input.isclose(other, rtol, atol, equal_nan)


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all entries are close, as :func:`isclose` says. Raises ShapeError if the shapes do not broadcast."""
    require_tensors("allclose", input, other)
    return bool(input.allclose(other, rtol, atol, equal_nan))
