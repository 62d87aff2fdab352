"""Learning rate schedulers.

A scheduler computes the learning rate of each parameter group from the group's initial learning rate and the number of
steps done. Call ``scheduler.step()`` once after every ``optimizer.step()``. Steps are whole numbers; they are called
epochs where PyTorch calls them so.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from ..missing_names import CheckedArguments
from ..scalars import as_integer, fraction_in
from .optimizer import Optimizer, require_number

__all__ = ["ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CosineWithWarmup",
           "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "OneCycleLR", "PolynomialLR",
           "ReduceLROnPlateau", "SequentialLR", "StepLR", "WarmupStableDecay"]  # fmt: skip


class LRScheduler(CheckedArguments):
    """Base class of the schedulers. A subclass defines ``get_lr()``, which returns the rate of each group.

    The initial learning rate of a group is ``group["initial_lr"]``. The first scheduler of an optimizer sets it to the
    group's learning rate.

    optimizer: the Optimizer whose groups get the learning rates.
    last_epoch: the number of the last step done. -1 starts a new run. To continue a run after n steps, pass n - 1; then
        every group must have an ``initial_lr``.

    base_lrs: the initial learning rate of each group.

    Several schedulers may change one optimizer, each with a ``step()`` of its own, as in PyTorch. Schedules that are a
    factor, and CosineAnnealingLR, then multiply what the others, or an assignment to ``group["lr"]``, made of the rate.
    The other schedules replace it.

    Raises TypeError if ``optimizer`` is not an Optimizer, ValueError for options out of range.
    """

    _chains: ClassVar[bool] = False
    """Whether a step multiplies the rate that it finds, instead of replacing it."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        name = type(self).__name__
        _require_optimizer(name, optimizer)
        last_epoch = _require_steps(name, "last_epoch", last_epoch, least=-1)
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ValueError(
                    f"{name}: to continue from step {last_epoch}, group {i} needs an 'initial_lr'. Load the "
                    f"optimizer's state_dict() first."
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._advance(keep_changes=last_epoch == -1)

    def _lr(self, base: float, step: int) -> float:
        """Return the learning rate at a step for an initial rate."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr()")

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group at the step ``last_epoch``, without what other schedulers do."""
        return [self._lr(base, self.last_epoch) for base in self.base_lrs]

    def _set_options(self) -> None:
        """Set the options of every group to their values at the step ``last_epoch``."""
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=False):
            group["lr"] = require_number(type(self).__name__, "the learning rate", lr, least=-math.inf)

    def _advance(self, keep_changes: bool) -> None:
        self.last_epoch += 1
        found = self.get_last_lr()
        self._set_options()
        if keep_changes and self._chains:
            for group, base, lr in zip(self.optimizer.param_groups, self.base_lrs, found, strict=False):
                before = self._lr(base, self.last_epoch - 1) if self.last_epoch else base
                if lr != before:  # equal rates keep the exact value that is set already
                    group["lr"] = self._from(lr, before, group["lr"])
        self._last_lr = self.get_last_lr()

    def _from(self, lr: float, before: float, after: float) -> float:
        """Return the rate after a step for the one found, if the step of this schedule alone is before -> after."""
        return lr * after / before if before else lr

    def step(self) -> None:
        """Count a step, and set the learning rate of every group for the next one."""
        self._advance(keep_changes=True)

    def get_last_lr(self) -> list[float]:
        """Return the current learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's numbers, which JSON can hold. Functions are left out."""
        return {
            key: list(value) if isinstance(value, list) else value
            for key, value in vars(self).items()
            if key not in ("optimizer", "lr_lambdas")
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from the result of :meth:`state_dict`, and set the learning rates. The options are loaded too.

        Raises TypeError if ``state_dict`` is not a mapping, ValueError if it has other keys or another number of
        groups; then nothing is changed.
        """
        self._check_state(state_dict)
        self._load(state_dict)
        self._set_options()
        for group, lr in zip(self.optimizer.param_groups, state_dict.get("_last_lr", ()), strict=False):
            group["lr"] = lr
        self._last_lr = self.get_last_lr()

    def _check_state(self, state_dict: Mapping[str, Any]) -> None:
        """Raise an error if the state is not for a scheduler such as this."""
        name = type(self).__name__
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"{name}: expected a state_dict(), got {type(state_dict).__name__}")
        expected = self.state_dict().keys()
        if state_dict.keys() | {"_last_lr"} != expected:  # older states lack it
            listed, given = (", ".join(sorted(keys - {"_last_lr"})) for keys in (expected, state_dict.keys()))
            raise ValueError(f"{name}: expected a state with {listed}, got {given}")
        saved, groups = len(state_dict["base_lrs"]), len(self.optimizer.param_groups)
        if saved != groups:
            raise ValueError(f"{name}: the state is for {saved} groups, the optimizer has {groups}")

    def _load(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state that has been checked."""
        vars(self).update((key, list(value) if isinstance(value, list) else value) for key, value in state_dict.items())


def _require_optimizer(name: str, optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{name}: expected an Optimizer, got {type(optimizer).__name__}")


def _require_steps(name: str, what: str, value: Any, least: int = 0) -> int:
    """Return a number of steps as an int. Raises ValueError unless it is an integer of at least ``least``."""
    steps = as_integer(value)
    if steps is None or steps < least:
        raise ValueError(f"{name}: {what} must be a whole number of at least {least}, got {value!r}")
    return steps


def _require_milestones(name: str, milestones: Iterable[int], *, distinct: bool) -> list[int]:
    """Return milestones as ints. Raises ValueError unless they are whole numbers in increasing order."""
    steps = [_require_steps(name, "each of milestones", milestone) for milestone in milestones]
    if any(a > b or (distinct and a == b) for a, b in pairwise(steps)):
        raise ValueError(f"{name}: milestones must be in increasing order, got {steps}")
    return steps


def _for_each_group(name: str, what: str, value: Any, optimizer: Optimizer) -> list[float]:
    """Return one number for each group, from a number for all of them or a list."""
    groups = len(optimizer.param_groups)
    values = list(value) if isinstance(value, (list, tuple)) else [value] * groups
    if len(values) != groups:
        raise ValueError(f"{name}: {what} must be a number or a list of {groups}, one for each group, got {value!r}")
    return [require_number(name, what, v) for v in values]


class LambdaLR(LRScheduler):
    """A schedule: the initial rate times ``lr_lambda(step)``.

    lr_lambda: one function for all groups, or a list with a function for each group.
    """

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

    def get_lr(self) -> list[float]:
        """Return the initial rates times the results of the functions."""
        return [base * f(self.last_epoch) for base, f in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class ConstantLR(LRScheduler):
    """A schedule: the initial rate times ``factor`` for the first ``total_iters`` steps, then the initial rate."""

    _chains = True

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3.0, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        self.factor = fraction_in("ConstantLR", "factor", factor)
        self.total_iters = _require_steps("ConstantLR", "total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        return base * self.factor if step < self.total_iters else base


class LinearLR(LRScheduler):
    """A schedule: the initial rate times a factor that changes linearly.

    It goes from ``start_factor`` to ``end_factor`` in ``total_iters`` steps.
    """

    _chains = True

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3.0,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor = fraction_in("LinearLR", "start_factor", start_factor)
        self.end_factor = fraction_in("LinearLR", "end_factor", end_factor)
        if not self.start_factor:
            raise ValueError(f"LinearLR: start_factor must be above 0, got {start_factor!r}")
        self.total_iters = _require_steps("LinearLR", "total_iters", total_iters, least=1)
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        done = min(step, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class PolynomialLR(LRScheduler):
    """A schedule: the initial rate times ``(1 - step / total_iters) ** power``, until it is 0."""

    _chains = True

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        self.total_iters = _require_steps("PolynomialLR", "total_iters", total_iters, least=1)
        self.power = require_number("PolynomialLR", "power", power)
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        return base * (1.0 - min(step, self.total_iters) / self.total_iters) ** self.power


class StepLR(LRScheduler):
    """A schedule: the initial rate times ``gamma ** (step // step_size)``."""

    _chains = True

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = _require_steps("StepLR", "step_size", step_size, least=1)
        self.gamma = require_number("StepLR", "gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        return base * self.gamma ** (step // self.step_size)


class MultiStepLR(LRScheduler):
    """A schedule: the initial rate times a factor ``gamma`` for every milestone reached.

    milestones: steps in increasing order; one that is listed twice counts twice.
    """

    _chains = True

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones = _require_milestones("MultiStepLR", milestones, distinct=False)
        self.gamma = require_number("MultiStepLR", "gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        return base * self.gamma ** bisect_right(self.milestones, step)


class ExponentialLR(LRScheduler):
    """A schedule: the initial rate times ``gamma ** step``."""

    _chains = True

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = require_number("ExponentialLR", "gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        return base * self.gamma**step


def _cosine(start: float, end: float, done: float) -> float:
    """Return the value at ``done`` (from 0 to 1) of half a cosine that goes from ``start`` to ``end``."""
    return end + (start - end) * (1.0 + math.cos(math.pi * done)) / 2.0


def _linear(start: float, end: float, done: float) -> float:
    return (end - start) * done + start


class CosineAnnealingLR(LRScheduler):
    """A schedule: half a cosine from the initial rate to ``eta_min`` in ``T_max`` steps, then back up, and so on.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.
    """

    _chains = True

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = _require_steps("CosineAnnealingLR", "T_max", T_max, least=1)
        self.eta_min = require_number("CosineAnnealingLR", "eta_min", eta_min, least=-math.inf)
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        return _cosine(base, self.eta_min, step / self.T_max)

    def _from(self, lr: float, before: float, after: float) -> float:
        if before == self.eta_min:
            return lr - before + after
        return self.eta_min + (lr - self.eta_min) * (after - self.eta_min) / (before - self.eta_min)


class CosineAnnealingWarmRestarts(LRScheduler):
    """A schedule: half a cosine from the initial rate to ``eta_min``, then again from the initial rate, and so on.

    T_0: the length of the first cosine in steps.
    T_mult: each cosine is this many times as long as the one before.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        name = "CosineAnnealingWarmRestarts"
        self.T_0 = _require_steps(name, "T_0", T_0, least=1)
        self.T_mult = _require_steps(name, "T_mult", T_mult, least=1)
        self.eta_min = require_number(name, "eta_min", eta_min, least=-math.inf)
        self.fraction = 0.0
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        position, length = step + self.fraction, self.T_0
        if self.T_mult == 1:
            position %= length
        while position >= length:
            position, length = position - length, length * self.T_mult
        return _cosine(base, self.eta_min, position / length)

    def step(self, epoch: float | None = None) -> None:
        """Count a step, or go to the step ``epoch``, which may be a fraction. Set the rates for it."""
        if epoch is not None:
            number = require_number("CosineAnnealingWarmRestarts", "epoch", epoch)
            self.last_epoch = math.floor(number) - 1
            self.fraction = number - math.floor(number)
        super().step()


class CosineWithWarmup(LRScheduler):
    """A schedule for GPTs: linear warm-up, then half a cosine down to ``min_lr``, which is kept.

    warmup_steps: the length of the warm-up. Step k of it has the initial rate times ``(k + 1) / (warmup_steps + 1)``.
    total_steps: the step at which ``min_lr`` is reached.
    min_lr: the lowest learning rate, of all groups. A group whose initial rate is below it keeps its initial rate.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, total_steps: int, min_lr: float = 0.0, last_epoch: int = -1
    ) -> None:
        warmup_steps = _require_steps("CosineWithWarmup", "warmup_steps", warmup_steps)
        total_steps = _require_steps("CosineWithWarmup", "total_steps", total_steps, least=warmup_steps)
        self.min_lr = require_number("CosineWithWarmup", "min_lr", min_lr)
        self.warmup_steps, self.total_steps = warmup_steps, total_steps
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        if step < self.warmup_steps:
            return base * (step + 1) / (self.warmup_steps + 1)
        if step >= self.total_steps:
            return min(self.min_lr, base)
        done = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return _cosine(base, min(self.min_lr, base), done)


def _one_minus_sqrt(start: float, end: float, done: float) -> float:
    """Return the way from ``start`` to ``end`` that falls with the root of the part done."""
    return start + (end - start) * math.sqrt(done)


_DECAYS = {"linear": _linear, "cosine": _cosine, "1-sqrt": _one_minus_sqrt}


class WarmupStableDecay(LRScheduler):
    """A schedule for GPTs: linear warm-up, then the initial rate, then a decay to ``min_lr``, which is kept.

    Before the decay the rates do not depend on ``total_steps``, so that a longer run may continue from there.

    warmup_steps: the length of the warm-up. Step k of it has the initial rate times ``(k + 1) / (warmup_steps + 1)``.
    decay_steps: the length of the decay, which begins at ``total_steps - decay_steps``.
    total_steps: the step at which ``min_lr`` is reached.
    min_lr: the lowest learning rate, of all groups. A group whose initial rate is below it keeps its initial rate.
    decay: how the rate falls: "linear", "cosine" for half a cosine, or "1-sqrt" for one minus the root of the part
        done.

    Source: Hu et al., "MiniCPM", 2024 (arXiv 2404.06395), section 4; Hagele et al., "Scaling Laws and Compute-Optimal
    Training Beyond Fixed Training Durations", 2024 (arXiv 2405.18392), for the shapes of the decay.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        decay_steps: int,
        total_steps: int,
        min_lr: float = 0.0,
        decay: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        name = "WarmupStableDecay"
        self.warmup_steps = _require_steps(name, "warmup_steps", warmup_steps)
        self.decay_steps = _require_steps(name, "decay_steps", decay_steps)
        least = self.warmup_steps + self.decay_steps
        self.total_steps = _require_steps(name, "total_steps", total_steps, least=least)
        self.min_lr = require_number(name, "min_lr", min_lr)
        if decay not in _DECAYS:
            raise ValueError(f"{name}: decay must be one of {', '.join(map(repr, _DECAYS))}, got {decay!r}")
        self.decay = decay
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, step: int) -> float:
        if step < self.warmup_steps:
            return base * (step + 1) / (self.warmup_steps + 1)
        left = self.total_steps - step
        if left <= 0:
            return min(self.min_lr, base)
        if left >= self.decay_steps:
            return base
        return _DECAYS[self.decay](base, min(self.min_lr, base), 1 - left / self.decay_steps)


_ANNEALING = {"cos": _cosine, "linear": _linear}


class OneCycleLR(LRScheduler):
    """A schedule, the 1cycle policy: up from ``max_lr / div_factor`` to ``max_lr``, then down to far below the start.

    The momentum goes the other way: it is lowest where the learning rate is highest.

    max_lr: the highest learning rate, a number or one for each group.
    total_steps: the length of the cycle; ``epochs * steps_per_epoch`` if it is None. Stepping further is an error.
    pct_start: the fraction of the cycle in which the rate rises, 0 to 1.
    anneal_strategy: "cos" or "linear", the form of the curves between the lowest and the highest rate.
    cycle_momentum: whether the momentum (of Adam and AdamW: the first of betas) changes too.
    base_momentum, max_momentum: the lowest and the highest momentum, a number or one for each group.
    div_factor: the first rate is ``max_lr / div_factor``; it becomes the initial rate of the group.
    final_div_factor: the last rate is the first one divided by this.
    three_phase: whether the rate goes down to the first rate as fast as up, and only then to the last one.

    Source: Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
    2019.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        name = "OneCycleLR"
        _require_optimizer(name, optimizer)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError(f"{name}: expected total_steps, or epochs and steps_per_epoch")
            epochs = _require_steps(name, "epochs", epochs, least=1)
            total_steps = epochs * _require_steps(name, "steps_per_epoch", steps_per_epoch, least=1)
        total_steps = _require_steps(name, "total_steps", total_steps, least=1)
        pct_start = fraction_in(name, "pct_start", pct_start)
        if anneal_strategy not in _ANNEALING:
            raise ValueError(f"{name}: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        div_factor = require_number(name, "div_factor", div_factor)
        final_div_factor = require_number(name, "final_div_factor", final_div_factor)
        for what, factor in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            if factor == 0:
                raise ValueError(f"{name}: {what} must not be 0")
        if cycle_momentum and not {"momentum", "betas"} & optimizer.defaults.keys():
            raise ValueError(
                f"{name}: {type(optimizer).__name__} has no momentum to change. Pass cycle_momentum=False."
            )
        self.total_steps, self.pct_start, self.anneal_strategy = total_steps, pct_start, anneal_strategy
        self.max_lrs = _for_each_group(name, "max_lr", max_lr, optimizer)
        self.cycle_momentum, self.three_phase = cycle_momentum, three_phase
        self.base_momentums = _for_each_group(name, "base_momentum", base_momentum, optimizer)
        self.max_momentums = _for_each_group(name, "max_momentum", max_momentum, optimizer)
        self.final_div_factor = final_div_factor
        if last_epoch == -1:
            for group, lr in zip(optimizer.param_groups, self.max_lrs, strict=True):
                group["initial_lr"] = lr / div_factor
        super().__init__(optimizer, last_epoch)

    def _phase(self, step: int) -> tuple[int, float]:
        """Return the phase of a step, and the fraction of it that is done. Phases: 0 is up, 1 down, 2 further down."""
        if step > self.total_steps:
            raise ValueError(f"OneCycleLR: step {step} is beyond the cycle, which has total_steps={self.total_steps}")
        up = float(self.pct_start * self.total_steps) - 1
        ends = [up, *([2 * up] if self.three_phase else []), self.total_steps - 1]
        phase = next((i for i, end in enumerate(ends) if step <= end), len(ends) - 1)
        start = ends[phase - 1] if phase else 0.0
        length = ends[phase] - start
        return phase, (step - start) / length if length else 1.0

    def _between(self, points: Sequence[float], phase: int, done: float) -> float:
        return _ANNEALING[self.anneal_strategy](points[phase], points[phase + 1], done)

    def get_lr(self) -> list[float]:
        """Return the rates of the cycle. Raises ValueError beyond its end."""
        phase, done = self._phase(self.last_epoch)
        rates = []
        for initial, highest in zip(self.base_lrs, self.max_lrs, strict=True):
            lowest = initial / self.final_div_factor
            points = [initial, highest, initial, lowest] if self.three_phase else [initial, highest, lowest]
            rates.append(self._between(points, phase, done))
        return rates

    def _set_options(self) -> None:
        super()._set_options()
        if not self.cycle_momentum:
            return
        phase, done = self._phase(self.last_epoch)
        groups = zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=False)
        for group, lowest, highest in groups:
            momentum = self._between([highest, lowest, highest, highest], phase, done)
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum


class SequentialLR(LRScheduler):
    """A schedule of several schedulers, one after the other. Each starts at its own step 0.

    schedulers: schedulers of this optimizer. The SequentialLR makes their steps.
    milestones: the steps at which the second scheduler, the third, ... take over, in increasing order.

    Raises ValueError if a scheduler is for another optimizer, or if the number of milestones does not fit.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        name = "SequentialLR"
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        if not self.schedulers:
            raise ValueError(f"{name}: expected at least one scheduler")
        for i, scheduler in enumerate(self.schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(f"{name}: expected schedulers, got {type(scheduler).__name__} at index {i}")
            if scheduler.optimizer is not optimizer:
                raise ValueError(f"{name}: the {type(scheduler).__name__} at index {i} is for another optimizer")
        if len(self.milestones) != len(self.schedulers) - 1:
            raise ValueError(
                f"{name}: expected {len(self.schedulers) - 1} milestones for {len(self.schedulers)} schedulers, got "
                f"{len(self.milestones)}"
            )
        self.milestones = _require_milestones(name, self.milestones, distinct=True)
        super().__init__(optimizer, last_epoch)

    def _set_options(self) -> None:
        index = bisect_right(self.milestones, self.last_epoch)
        start = self.milestones[index - 1] if index else 0
        scheduler = self.schedulers[index]
        scheduler.last_epoch = self.last_epoch - start
        scheduler._set_options()

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers of this scheduler and, under "schedulers", of the others. JSON can hold them."""
        return {**super().state_dict(), "schedulers": [scheduler.state_dict() for scheduler in self.schedulers]}

    def _check_state(self, state_dict: Mapping[str, Any]) -> None:
        super()._check_state(state_dict)
        states = state_dict["schedulers"]
        if len(states) != len(self.schedulers):
            raise ValueError(f"SequentialLR: the state is for {len(states)} schedulers, not {len(self.schedulers)}")
        for scheduler, state in zip(self.schedulers, states, strict=True):
            scheduler._check_state(state)

    def _load(self, state_dict: Mapping[str, Any]) -> None:
        for scheduler, state in zip(self.schedulers, state_dict["schedulers"], strict=True):
            scheduler._load(state)
        super()._load({key: value for key, value in state_dict.items() if key != "schedulers"})


class ChainedScheduler:
    """Several schedulers of one optimizer, each of which makes every step, in this order.

    Raises ValueError without schedulers, and for schedulers of different optimizers.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        self.schedulers = list(schedulers)
        if not self.schedulers:
            raise ValueError("ChainedScheduler: expected at least one scheduler")
        for i, scheduler in enumerate(self.schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(f"ChainedScheduler: expected schedulers, got {type(scheduler).__name__} at index {i}")
        self.optimizer = optimizer or self.schedulers[0].optimizer
        if any(scheduler.optimizer is not self.optimizer for scheduler in self.schedulers):
            raise ValueError("ChainedScheduler: expected schedulers of one optimizer")

    def step(self) -> None:
        """Make a step of every scheduler."""
        for scheduler in self.schedulers:
            scheduler.step()

    def get_last_lr(self) -> list[float]:
        """Return the current learning rate of each group."""
        return self.schedulers[-1].get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the schedulers under "schedulers". JSON can hold them."""
        return {"schedulers": [scheduler.state_dict() for scheduler in self.schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from the result of :meth:`state_dict`. Raises ValueError for another number of schedulers."""
        states = list(state_dict["schedulers"])
        if len(states) != len(self.schedulers):
            raise ValueError(
                f"ChainedScheduler: the state is for {len(states)} schedulers, not {len(self.schedulers)}"
            )
        for scheduler, state in zip(self.schedulers, states, strict=True):
            scheduler.load_state_dict(state)


class ReduceLROnPlateau:
    """A schedule that multiplies the rates by ``factor`` when a measured number has stopped improving.

    Call ``scheduler.step(loss)`` after each evaluation.

    mode: "min" if a smaller number is better, "max" if a larger one is.
    factor: a number below 1.
    patience: how many evaluations in a row without improvement are allowed.
    threshold: an improvement is one by more than this part of the best number ("rel"), or by more than this ("abs").
    threshold_mode: "rel" or "abs".
    cooldown: how many evaluations after a reduction are not counted.
    min_lr: the lowest rate, a number or one for each group.
    eps: a smaller change of a rate is not made.

    Raises ValueError for options out of range. The algorithm is PyTorch's.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        name = "ReduceLROnPlateau"
        _require_optimizer(name, optimizer)
        if mode not in ("min", "max"):
            raise ValueError(f"{name}: mode must be 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"{name}: threshold_mode must be 'rel' or 'abs', got {threshold_mode!r}")
        self.optimizer, self.mode, self.threshold_mode = optimizer, mode, threshold_mode
        self.factor = require_number(name, "factor", factor, below=1.0)
        self.patience = _require_steps(name, "patience", patience)
        self.threshold = require_number(name, "threshold", threshold)
        self.cooldown = _require_steps(name, "cooldown", cooldown)
        self.min_lrs = _for_each_group(name, "min_lr", min_lr, optimizer)
        self.eps = require_number(name, "eps", eps)
        self.best: float | None = None
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

    def step(self, metrics: Any) -> None:
        """Read the measured number, a number or a Tensor of one entry, and reduce the rates if it is time to."""
        current = float(metrics)
        self.last_epoch += 1
        if self._improves(current):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, lowest in zip(self.optimizer.param_groups, self.min_lrs, strict=False):
                lr = max(group["lr"] * self.factor, lowest)
                if group["lr"] - lr > self.eps:
                    group["lr"] = lr
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _improves(self, current: float) -> bool:
        if self.best is None:
            return not math.isnan(current)
        sign = 1.0 if self.mode == "min" else -1.0
        least = self.threshold * (self.best if self.threshold_mode == "rel" else 1.0)
        return sign * current < sign * self.best - least

    def get_last_lr(self) -> list[float]:
        """Return the current learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's numbers, which JSON can hold."""
        return {key: value for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from the result of :meth:`state_dict`; the rates are those of the optimizer's own state.

        Raises ValueError if the state has other keys.
        """
        if state_dict.keys() != self.state_dict().keys():
            raise ValueError(f"ReduceLROnPlateau: expected a state of its own, got {', '.join(sorted(state_dict))}")
        vars(self).update(state_dict)
