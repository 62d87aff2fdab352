"""Several optimizers that act as one."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

from .optimizer import Optimizer

Loss = TypeVar("Loss")


class CombinedOptimizer(Optimizer):
    """Several optimizers, each with its own parameters, that step, are scheduled and are saved as one.

    param_groups: the groups of all optimizers, in order. Their learning rates may differ; a schedule scales each.
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the groups of all optimizers, in order."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], Loss]) -> Loss: ...
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step with each optimizer. Return the loss that `closure`, if given, computed before."""
        loss = closure() if closure is not None else None
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients of all parameters, to None or to zeros."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all optimizers as of one, whose parameters are numbered consecutively."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        for optimizer, first in zip(self.optimizers, self.first_indices(), strict=True):
            own = optimizer.state_dict()
            state |= {first + k: values for k, values in own["state"].items()}
            groups += [{**group, "params": [first + k for k in group["params"]]} for group in own["param_groups"]]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Any) -> None:
        """Restore what `state_dict` returned. Raises ValueError if it belongs to other optimizers."""
        groups = list(state_dict["param_groups"])
        if len(groups) != len(self.param_groups):
            raise ValueError(
                f"CombinedOptimizer: expected {len(self.param_groups)} saved parameter groups, got {len(groups)}. "
                "Load a state of the same optimizers"
            )
        for optimizer, first in zip(self.optimizers, self.first_indices(), strict=True):
            count = len(optimizer.param_groups)
            own, groups = groups[:count], groups[count:]
            numbers = {int(k) for group in own for k in group["params"]}
            state = {int(k) - first: v for k, v in state_dict["state"].items() if int(k) in numbers}
            shifted = [{**group, "params": [int(k) - first for k in group["params"]]} for group in own]
            optimizer.load_state_dict({"state": state, "param_groups": shifted})

    def first_indices(self) -> list[int]:
        """Return the index of the first parameter of each optimizer."""
        counts = [sum(len(group["params"]) for group in optimizer.param_groups) for optimizer in self.optimizers]
        return [sum(counts[:i]) for i in range(len(counts))]
