"""Two optimizers for one model: what is inside the network to one, what is at its ends to another."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

from .optimizer import Optimizer

Loss = TypeVar("Loss")


class CombinedOptimizer(Optimizer):
    """Several optimizers, each of its own parameters, that step, are scheduled and are saved as one.

    param_groups: those of all of them, in order. Their learning rates may differ; a schedule scales each.
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], Loss]) -> Loss: ...
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each, after `closure`, if given, has computed the loss, which is returned."""
        loss = closure() if closure is not None else None
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """As of one optimizer whose parameters are numbered through all of them."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        for optimizer, first in zip(self.optimizers, self.firsts(), strict=True):
            own = optimizer.state_dict()
            state |= {first + k: values for k, values in own["state"].items()}
            groups += [{**group, "params": [first + k for k in group["params"]]} for group in own["param_groups"]]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Any) -> None:
        """Goes on from what `state_dict` gave. Raises ValueError if it is not for such optimizers."""
        groups = list(state_dict["param_groups"])
        if len(groups) != len(self.param_groups):
            mine = len(self.param_groups)
            raise ValueError(f"there are {len(groups)} saved groups of parameters, and {mine} of these optimizers")
        for optimizer, first in zip(self.optimizers, self.firsts(), strict=True):
            count = len(optimizer.param_groups)
            own, groups = groups[:count], groups[count:]
            numbers = {int(k) for group in own for k in group["params"]}
            state = {int(k) - first: v for k, v in state_dict["state"].items() if int(k) in numbers}
            shifted = [{**group, "params": [int(k) - first for k in group["params"]]} for group in own]
            optimizer.load_state_dict({"state": state, "param_groups": shifted})

    def firsts(self) -> list[int]:
        """The number of each optimizer's first parameter."""
        counts = [sum(len(group["params"]) for group in optimizer.param_groups) for optimizer in self.optimizers]
        return [sum(counts[:i]) for i in range(len(counts))]
