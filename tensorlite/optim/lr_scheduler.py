"""Learning rates that change as training goes on.

Each scheduler gives every group's learning rate as a function of its first one and of the number of steps done. Call
``scheduler.step()`` once after every ``optimizer.step()``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .optimizer import Optimizer, require_number

__all__ = ["ConstantLR", "CosineAnnealingLR", "CosineWithWarmup", "LRScheduler", "LambdaLR", "LinearLR"]


class LRScheduler:
    """Base class of the schedulers. A subclass defines ``_lr(base, step)``: the rate at a step, from the first rate.

    base_lrs: the first learning rate of each group.
    last_epoch: the number of steps done; to go on with a run, pass how many it had done, less one.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        name = type(self).__name__
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{name}: expected an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group["initial_lr"] = group["lr"]
            elif "initial_lr" not in group:
                raise ValueError(f"{name}: to go on from step {last_epoch}, group {i} needs an 'initial_lr'")
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def _lr(self, base: float, step: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} does not define _lr()")

    def _lrs(self, step: int) -> list[float]:
        return [self._lr(base, step) for base in self.base_lrs]

    def step(self) -> None:
        """Count a step, and set the learning rate of every group for the next one."""
        self.last_epoch += 1
        for group, lr in zip(self.optimizer.param_groups, self._lrs(self.last_epoch), strict=False):
            require_number(type(self).__name__, "the learning rate", lr, least=-math.inf)
            group["lr"] = lr

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's numbers, which JSON can hold; functions are left out."""
        return {
            key: list(value) if isinstance(value, list) else value
            for key, value in vars(self).items()
            if key not in ("optimizer", "lr_lambdas")
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave, and set the learning rates. Raises ValueError for other keys."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"{type(self).__name__}: expected a state_dict(), got {type(state_dict).__name__}")
        expected = self.state_dict().keys()
        if state_dict.keys() != expected:
            raise ValueError(
                f"{type(self).__name__}: expected a state with {', '.join(sorted(expected))}, "
                f"got {', '.join(sorted(state_dict))}"
            )
        if len(state_dict["base_lrs"]) != len(self.optimizer.param_groups):
            raise ValueError(
                f"{type(self).__name__}: the state is for {len(state_dict['base_lrs'])} groups, "
                f"the optimizer has {len(self.optimizer.param_groups)}"
            )
        vars(self).update({**state_dict, "base_lrs": list(state_dict["base_lrs"])})
        self.last_epoch -= 1
        self.step()


def _require_steps(name: str, what: str, value: Any, least: int = 0) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: {what} must be a whole number of at least {least}, got {value!r}")


class LambdaLR(LRScheduler):
    """The first rate times ``lr_lambda(step)``: one function for all groups, or a list of one for each."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        groups = len(getattr(optimizer, "param_groups", ()))
        if not callable(lr_lambda) and not isinstance(lr_lambda, (list, tuple)):
            raise TypeError(f"LambdaLR: expected a function or a list of them, got {type(lr_lambda).__name__}")
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"LambdaLR: expected {groups} functions, one for each group, got {len(self.lr_lambdas)}")
        super().__init__(optimizer, last_epoch)

    def _lrs(self, step: int) -> list[float]:
        return [base * f(step) for base, f in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class ConstantLR(LRScheduler):
    """The first rate times ``factor`` for the first ``total_iters`` steps, and the first rate from then on."""

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3.0, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        if not 0.0 <= factor <= 1.0:
            raise ValueError(f"ConstantLR: factor must be from 0 to 1, got {factor!r}")
        _require_steps("ConstantLR", "total_iters", total_iters)
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        return base * self.factor if step < self.total_iters else base


class LinearLR(LRScheduler):
    """The first rate times a factor that goes from ``start_factor`` to ``end_factor`` linearly in ``total_iters``."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3.0,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0.0 < start_factor <= 1.0 or not 0.0 <= end_factor <= 1.0:
            raise ValueError(
                f"LinearLR: start_factor must be above 0, and both factors from 0 to 1, got {start_factor!r} and "
                f"{end_factor!r}"
            )
        _require_steps("LinearLR", "total_iters", total_iters, least=1)
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        done = min(step, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


def _cosine(start: float, end: float, done: float) -> float:
    """From start at ``done == 0`` to end at ``done == 1``, along half a cosine."""
    return end + (start - end) * (1.0 + math.cos(math.pi * done)) / 2.0


class CosineAnnealingLR(LRScheduler):
    """From the first rate to ``eta_min`` in ``T_max`` steps, along half a cosine; then back up again, and so on.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        _require_steps("CosineAnnealingLR", "T_max", T_max, least=1)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        return _cosine(base, self.eta_min, step / self.T_max)


class CosineWithWarmup(LRScheduler):
    """How GPTs are trained: up linearly, down along half a cosine, and on at the lowest rate.

    warmup_steps: step k of them has the first rate times ``(k + 1) / (warmup_steps + 1)``.
    total_steps: the step at which ``min_lr`` is reached, and kept.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, total_steps: int, min_lr: float = 0.0, last_epoch: int = -1
    ) -> None:
        _require_steps("CosineWithWarmup", "warmup_steps", warmup_steps)
        _require_steps("CosineWithWarmup", "total_steps", total_steps, least=warmup_steps)
        if not min_lr >= 0:
            raise ValueError(f"CosineWithWarmup: min_lr must not be negative, got {min_lr!r}")
        self.warmup_steps, self.total_steps, self.min_lr = warmup_steps, total_steps, min_lr
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        if step < self.warmup_steps:
            return base * (step + 1) / (self.warmup_steps + 1)
        if step >= self.total_steps:
            return self.min_lr
        return _cosine(base, self.min_lr, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
