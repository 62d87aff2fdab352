"""Parameter: a tensor that training changes."""

from __future__ import annotations

from collections.abc import Iterable

from ..tensors.tensor import Tensor

__all__ = ["Parameter", "clear_grads"]


class Parameter(Tensor):
    """A Tensor that requires gradients, and that becomes part of a Module when it is assigned to an attribute.

    data: a Tensor of floating point numbers. The Parameter shares its memory, and is a leaf.
    requires_grad: False freezes it.

    Raises TypeError if ``data`` is not a Tensor, DTypeError if it is not of floating point.
    """

    def __init__(self, data: Tensor, requires_grad: bool = True) -> None:
        if not isinstance(data, Tensor):
            raise TypeError(f"Parameter: expected a Tensor, got {type(data).__name__}. Make one with tl.tensor(...).")
        self.array = data.array
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


def clear_grads(parameters: Iterable[Tensor], set_to_none: bool = True) -> None:
    """Set the gradients of tensors to None, or to zeros in place if ``set_to_none`` is False."""
    for p in parameters:
        if set_to_none or p.grad is None:
            p.grad = None
        else:
            if p.grad.requires_grad:  # made with create_graph, so copy it, because the graph needs the values
                p.grad = p.grad.detach().clone()
            p.grad.zero_()
