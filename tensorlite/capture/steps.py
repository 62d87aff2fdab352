"""The calls of a captured step that are no ops: gradients of leaves, parameters, learning rates, new tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..autograd.gradients import deliver_gradients
from ..autograd.graph import Variable

__all__ = ["CallOnGradients", "Creation", "Delivery", "Repetition"]


@dataclass(frozen=True)
class Delivery:
    """The end of a backward pass, which adds gradients to the ``grad`` of leaves.

    seed: the gradient that the pass started with.
    """

    leaves: list[Variable]
    seed: Any

    def __call__(self, *gradients: Any) -> None:
        """Add these gradients, in the order of the leaves."""
        leaves = {x: x for x in self.leaves}
        deliver_gradients(leaves, dict(zip(self.leaves, gradients, strict=True)), [self.seed], False)


@dataclass(frozen=True)
class CallOnGradients:
    """A call whose first argument is the list of the gradients of leaves, such as that of ``clip_grad_norm_``."""

    function: Callable[..., Any]
    leaves: list[Variable]

    def __call__(self, *args: Any) -> Any:
        """Return the result of the function."""
        return self.function([x.accumulated_grad for x in self.leaves], *args)


@dataclass(frozen=True)
class Repetition:
    """A method of an optimizer, a module or a schedule, which is called as it is."""

    method: Callable[..., Any]
    owner: Any

    def __call__(self) -> None:
        """Call the method."""
        self.method(self.owner)


@dataclass(frozen=True)
class Creation:
    """A call that makes a tensor of constants, such as ``zeros(3)``.

    array: a copy of what it made.
    """

    array: Any

    def __call__(self) -> Any:
        """Return the array, for itself."""
        return self.array.copy(order="K")
