"""Checks of the arguments of tensor functions and methods."""

from __future__ import annotations

from typing import Any

from ..autograd.graph import Variable
from ..backends.registry import describe_array
from ..errors import DeviceError, DTypeError, GraphError, ShapeError
from ..scalars import ints_in

__all__ = ["check_sizes", "constructor_error", "flatten_sizes", "grad_error", "require_tensors"]


def flatten_sizes(sizes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the sizes as one tuple: ``f(2, 3)`` and ``f((2, 3))`` mean the same."""
    if len(sizes) != 1:
        return sizes
    (first,) = sizes
    if getattr(first, "ndim", 0) == 1:
        first = first.tolist()
    return tuple(first) if isinstance(first, (tuple, list, range)) else sizes


def check_sizes(name: str, sizes: tuple[Any, ...], size: Any = None) -> tuple[int, ...]:
    """Return the sizes of ``f(2, 3)``, ``f((2, 3))`` or ``f(size=(2, 3))`` as a tuple of ints.

    Raises TypeError if one is not an int, ShapeError if one is negative.
    """
    sizes = flatten_sizes(sizes if size is None else (*sizes, size))
    shape = ints_in(name, "sizes", sizes)
    if any(n < 0 for n in shape):
        raise ShapeError(f"{name}: sizes must not be negative, got {shape}")
    return shape


def require_tensors(name: str, *values: object) -> None:
    """Raise TypeError if one of the values is not a Tensor."""
    for value in values:
        if not isinstance(value, Variable):
            raise TypeError(f"{name}: expected a Tensor, got {type(value).__name__}")


def constructor_error(args: tuple[Any, ...], options: dict[str, Any]) -> TypeError:
    """Return the error for ``Tensor(2, 3)``, which is a shape in PyTorch, and for other wrong arguments."""
    if options:
        return TypeError(f"Tensor: unexpected {', '.join(options)}. Use tl.tensor(data, dtype=..., device=...).")
    given = ", ".join(f"{a!r:.40}" for a in args)
    if all(hasattr(a, "__index__") for a in args):
        sizes = ", ".join(str(a.__index__()) for a in args)
        return TypeError(f"Tensor: expected data, got sizes. For a shape use tl.empty({sizes}).")
    return TypeError(f"Tensor: expected data and a bool for requires_grad, got {given}. Use tl.tensor([...]).")


def grad_error(x: Variable, value: object) -> Exception:
    """Return the error for ``x.grad = value``, where the value is not a gradient for x."""
    expected = f"grad: expected None or a Tensor {describe_array(x.array)}, as the tensor itself"
    if not isinstance(value, Variable):
        kind = type(value)
        name = kind.__name__ if kind.__module__ in ("builtins", "tensorlite") else f"{kind.__module__}.{kind.__name__}"
        zero = isinstance(value, (int, float)) and value == 0
        advice = "To clear it write x.grad = None, or x.grad.zero_()." if zero else "Make one with tl.tensor()."
        return TypeError(f"{expected}, got {name}. {advice}")
    if value is x:
        return GraphError("grad: a tensor cannot be its own gradient. Assign a copy, x.detach().clone().")
    got = f"{expected}, got {describe_array(value.array)}"
    if type(value.array) is not type(x.array):
        return DeviceError(f"{got}. Move it with .to(device).")
    if value.array.shape != x.array.shape:
        return ShapeError(f"{got}. Give it the tensor's shape.")
    return DTypeError(f"{got}. Convert it with .to(dtype).")
