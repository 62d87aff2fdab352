"""Parameters: the tensors of a module that training changes."""

from __future__ import annotations

from collections.abc import Iterable

from ..tensors.tensor import Tensor

__all__ = ["Parameter", "clear_grads"]


class Parameter(Tensor):
    """A Tensor that requires gradients and that a Module it is assigned to counts as its own.

    It shares memory with ``data``, a Tensor of floating point numbers, and has none of its history. Raises TypeError if
    ``data`` is not a Tensor, GraphError if it cannot require gradients.
    """

    def __init__(self, data: Tensor, requires_grad: bool = True) -> None:
        if not isinstance(data, Tensor):
            raise TypeError(f"Parameter: expected a Tensor, got {type(data).__name__}; make one with tl.tensor(...)")
        self.array = data.array
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


def clear_grads(parameters: Iterable[Tensor], set_to_none: bool = True) -> None:
    """Forget the gradients of these tensors, or make them zero in place."""
    for p in parameters:
        if set_to_none or p.grad is None:
            p.grad = None
        else:
            if p.grad.requires_grad:  # made with create_graph: who holds the graph keeps the values
                p.grad = p.grad.detach().clone()
            p.grad.zero_()
