"""CombinedOptimizer, several optimizers in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from ..autograd.grad_mode import enable_grad
from ..tensors.tensor import Tensor
from .optimizer import Optimizer

__all__ = ["CombinedOptimizer"]

Loss = TypeVar("Loss")


class CombinedOptimizer(Optimizer):
    """An optimizer that steps, schedules and saves several optimizers as one.

    optimizers: optimizers of different parameters, for example Muon for the matrices inside a network and AdamW for
        the rest.

    param_groups: the groups of all optimizers, in order. Their learning rates may differ; a scheduler scales each.
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """Return the options of all optimizers; the first one that has an option decides its value."""
        return {key: value for optimizer in reversed(self.optimizers) for key, value in optimizer.defaults.items()}

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the groups of all optimizers, in order."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @property
    def state(self) -> dict[Tensor, dict[str, Any]]:  # type: ignore[override]
        """Return the state of all parameters."""
        return {p: state for optimizer in self.optimizers for p, state in optimizer.state.items()}

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Raise TypeError, because the group does not say which optimizer it is for."""
        raise TypeError("CombinedOptimizer: add the group to one of its optimizers: optimizers[i].add_param_group(...)")

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], Loss]) -> Loss: ...
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make a step with each optimizer. The closure is called once, before; see :meth:`Optimizer.step`."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of all parameters to None, or to zeros in place if ``set_to_none`` is False."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as that of one optimizer, with parameters numbered through all groups."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        for optimizer, first in zip(self.optimizers, self._first_indices(), strict=True):
            own = optimizer.state_dict()
            state |= {first + k: values for k, values in own["state"].items()}
            groups += [{**group, "params": [first + k for k in group["params"]]} for group in own["param_groups"]]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from the result of :meth:`state_dict`. Raises the errors of :meth:`Optimizer.load_state_dict`."""
        groups, count = list(state_dict["param_groups"]), len(self.param_groups)
        if len(groups) != count:
            raise ValueError(
                f"CombinedOptimizer: expected {count} saved parameter groups, got {len(groups)}. Load a state of the "
                f"same optimizers."
            )
        before = [optimizer.state_dict() for optimizer in self.optimizers]
        try:
            for optimizer, first in zip(self.optimizers, self._first_indices(), strict=True):
                count = len(optimizer.param_groups)
                own, groups = groups[:count], groups[count:]
                numbers = {int(k) for group in own for k in group["params"]}
                state = {int(k) - first: v for k, v in state_dict["state"].items() if int(k) in numbers}
                shifted = [{**group, "params": [int(k) - first for k in group["params"]]} for group in own]
                optimizer.load_state_dict({"state": state, "param_groups": shifted})
        except Exception:
            for optimizer, old in zip(self.optimizers, before, strict=True):
                optimizer.load_state_dict(old)
            raise

    def _first_indices(self) -> list[int]:
        """Return the number of each optimizer's first parameter."""
        counts = [sum(len(group["params"]) for group in optimizer.param_groups) for optimizer in self.optimizers]
        return [sum(counts[:i]) for i in range(len(counts))]
