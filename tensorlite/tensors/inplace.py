"""Methods that change a tensor in place: their names end in ``_``, as in PyTorch.

An op computes the new value. It is written into the tensor's memory, and the tensor takes the op's place in the graph.
Views of the memory see the change. Where the graph had saved the old value, the backward pass raises VersionError.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Self

from .. import ops, random
from ..autograd import version_counter
from ..autograd.autocast_mode import casting, without_autocast
from ..autograd.grad_mode import is_grad_enabled
from ..autograd.graph import Variable, wrap
from ..autograd.retained_grad import set_node
from ..autograd.views import current_view_info, owns_memory, regenerate_view
from ..backends.registry import BACKENDS, device_of
from ..dtypes import is_floating, is_same_kind
from ..errors import DTypeError, GraphError, ShapeError
from ..ops.index import assign, index_put, with_view
from .convert import as_array, to_device, to_dtype

__all__ = ["InPlaceMethods", "in_place"]


def _check_leaf(x: Any, name: str) -> None:
    """Raise GraphError if x is a leaf that requires gradients and the grad mode is on."""
    if x.tracked and x.node is None and is_grad_enabled():
        raise GraphError(
            f"{name}: this leaf requires gradients, which a change in place would lose. Do it under no_grad(), or use "
            f"the op that returns a new tensor."
        )


def _check_writable(x: Any, name: str) -> None:
    """Raise ShapeError if the memory of x is read-only."""
    if not getattr(x.array.flags, "writeable", True):
        raise ShapeError(
            f"{name}: cannot write into a tensor of shape {x.array.shape}: its memory is read-only, as in an "
            f"expanded tensor or a diagonal. clone() it first."
        )


def _check_floating(x: Any, name: str) -> None:
    """Raise DTypeError if x holds no floating point numbers."""
    if not is_floating(x.array.dtype):
        raise DTypeError(f"{name}: expected a floating point tensor for random numbers, got {x.array.dtype}")


def _write(x: Any, name: str, write: Callable[[], None]) -> Any:
    """Change the memory of x by ``write()``, with no gradient, and count the change. Return x."""
    _check_leaf(x, name)
    _check_writable(x, name)
    try:
        write()
    except ValueError as error:
        raise ShapeError(f"{name}: cannot write into a tensor of shape {x.array.shape}: {error}") from None
    version_counter.bump_version(x.array)
    return x


def _assign(x: Any, name: str, index: Any, value: Any) -> Any:
    """Set ``x[index] = value`` and return x. Gradients flow to the value, not to the old entries."""
    if version_counter.inplace_in_graph and is_grad_enabled() and not x.tracked:
        regenerate_view(x)
    plain = not x.tracked and not (isinstance(value, Variable) and value.tracked)
    if plain or not is_grad_enabled():
        return _write(x, name, lambda: assign(x.array, index, value, name))
    return _update_in_place(x, name, index_put(x, index, value))


def _base_of(x: Any, name: str) -> tuple[Any, Any]:
    """Return the base of x, which changes when x does, and the view ops that lead from it to x.

    They are (x, None) unless x is a view. Raises GraphError if the change cannot be recorded on the base.
    """
    base, steps = current_view_info(x)
    _check_leaf(base, name)
    if not owns_memory(base) and (base.node is None or base.node.plan.is_view):
        raise GraphError(
            f"{name}: this tensor is a view, but the graph does not know its base, so it cannot record the change. "
            f"clone() it first, or change the base by indexing: base[...] = value."
        )
    return base, steps


def _update_in_place(x: Any, name: str, out: Any) -> Any:
    """Write ``out``, the result of an op, into the memory of x, and let x take its place in the graph. Return x."""
    _check_leaf(x, name)
    array = x.array
    if out.array.shape != array.shape:
        raise ShapeError(
            f"{name}: the result has shape {out.array.shape}, which does not fit in place into shape {array.shape}"
        )
    if out.array.dtype != array.dtype and not is_same_kind(out.array.dtype, array.dtype):
        raise DTypeError(f"{name}: the result is {out.array.dtype}, which cannot be stored in place as {array.dtype}")
    node = out.node
    if node is None:
        return _write(x, name, lambda: array.__setitem__(..., out.array))
    base, steps = _base_of(x, name)
    _check_writable(x, name)
    out = to_dtype(out, array.dtype)
    node = out.node
    assert node is not None
    if isinstance(node.saved, tuple):  # copy the saved values in this memory, because it is overwritten below
        memory = version_counter.base_array(array)
        node.saved = tuple(
            v.copy() if type(v) in BACKENDS and version_counter.base_array(v) is memory else v for v in node.saved
        )
    if steps is not None:  # x is a view: record the change as one of its base, then regenerate x from the base
        node = with_view(base, out, steps).node
        assert node is not None
    array[...] = out.array
    node.seq = version_counter.bump_version(array, in_graph=True)
    set_node(base, node)
    if steps is not None:
        regenerate_view(x)
    return x


def in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the method that writes an op's result into the tensor: ``x.exp_()`` from ``ops.exp``.

    It ignores ``autocast``, as in PyTorch, because the result has the tensor's dtype.
    """
    name = f"{function.__name__}_"

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        compute = functools.partial(without_autocast, function) if casting.active else function
        return _update_in_place(self, name, compute(self, *args, **kwargs))

    method.__name__, method.__qualname__ = name, f"OpMethods.{name}"
    method.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    first = f"Compute :func:`tensorlite.{function.__name__}` in place, and return this tensor."
    method.__doc__ = f"{first}\n\n{function.__doc__}"
    return method


class InPlaceMethods(Variable):
    """A Variable with the methods that change it in place: a base class of :class:`tensorlite.Tensor`.

    All of them return the tensor. They raise GraphError for a leaf that requires gradients, and DTypeError if the
    tensor's dtype cannot hold the result. They raise ShapeError if the result has another shape or the memory is
    read-only.
    """

    def clamp_min_(self, min: Any) -> Self:
        """Raise the entries below ``min`` to it, in place."""
        return _update_in_place(self, "clamp_min_", ops.clamp(self, min, None))  # type: ignore[arg-type]

    def clamp_max_(self, max: Any) -> Self:
        """Lower the entries above ``max`` to it, in place."""
        return _update_in_place(self, "clamp_max_", ops.clamp(self, None, max))  # type: ignore[arg-type]

    def __setitem__(self, index: Any, value: Any) -> None:
        _assign(self, "setitem", index, value)

    def copy_(self, source: Any) -> Self:
        """Set the entries to those of ``source``, broadcast to this shape and converted to this dtype and device.

        source: a Tensor, an array, a number, or nested sequences of numbers. Gradients flow to a Tensor.
        """
        device = device_of(self.array)
        value = source if isinstance(source, Variable) else wrap(as_array(source, where=device))
        return _assign(self, "copy_", ..., to_device(to_dtype(value, self.array.dtype), device))

    def fill_(self, value: Any) -> Self:
        """Set every entry to a number or a 0-d Tensor. Gradients flow to a Tensor."""
        return self.copy_(value) if isinstance(value, Variable) else _assign(self, "fill_", ..., value)

    def zero_(self) -> Self:
        """Set every entry to 0."""
        return _assign(self, "zero_", ..., 0)

    def uniform_(self, low: float = 0.0, high: float = 1.0, *, generator: random.Generator | None = None) -> Self:
        """Set the entries to random numbers, uniform on [low, high). Raises DTypeError for integers."""
        _check_floating(self, "uniform_")
        xp, array = BACKENDS[type(self.array)], self.array
        draw = (generator or random.default_generator).uniform(xp, array.shape, array.dtype)
        return _assign(self, "uniform_", ..., draw * (high - low) + low)

    def normal_(self, mean: float = 0.0, std: float = 1.0, *, generator: random.Generator | None = None) -> Self:
        """Set the entries to random numbers of the normal distribution. Raises DTypeError for integers."""
        _check_floating(self, "normal_")
        xp, array = BACKENDS[type(self.array)], self.array
        draw = (generator or random.default_generator).normal(xp, array.shape, array.dtype)
        return _assign(self, "normal_", ..., draw * std + mean)
