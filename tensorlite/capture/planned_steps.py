"""The gradients of leaves in a plan, and the calls that change parameters with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import numpy as np

from ..autograd import version_counter
from ..autograd.gradients import Ownership, accumulate_grad
from ..autograd.graph import wrap
from ..autograd.shared_state import shared_state
from ..backends.cpu.planned_kernels import plan_adam, plan_scale, plan_sum_squares
from ..nn.module import Module
from ..nn.utils import clip_grad_norm
from ..optim.adam import Adam, AdamW
from ..optim.optimizer import Optimizer
from .steps import CallOnGradients, Delivery, Repetition
from .tape import Tape

__all__ = ["GradientPlans"]

Array = Any
Calls = list[Callable[[], Any]] | None
"""The calls that stand for one of the tape, which have been done once; None if the call itself has to be done."""

_METHODS = {"step", "_optimizer_step", "_update_group", "_next_state", "zero_grad"}


class GradientPlans:
    """The gradients that a plan keeps in its own memory, because the step itself sets them to None at its end.

    tape: a finished tape.
    """

    def __init__(self, tape: Tape) -> None:
        self.steps = [row[0] for row in tape.program if isinstance(row[0], (Delivery, CallOnGradients, Repetition))]
        self.at = 0  # the number of calls that were planned
        self.given: dict[Any, Any] = {}  # the tensors of the gradients, by leaf

    def _are_cleared(self, leaves: Sequence[Any]) -> bool:
        """Return whether a later call sets the gradients of these leaves to None."""
        left = set(leaves)
        for f in self.steps[self.at :]:
            if isinstance(f, Repetition) and f.method in (Optimizer.zero_grad, Module.zero_grad):
                left -= set(_parameters_of(f.owner))
        return not left

    def deliver(self, f: Delivery, arrays: Sequence[Array]) -> Calls:
        """Plan the end of a backward pass, whose gradients are in these arrays."""
        self.at += 1
        known = [x.accumulated_grad is self.given.get(x) for x in f.leaves]
        if not self._are_cleared(f.leaves) or not all(known):
            return None
        if any(g.shape != x.array.shape for x, g in zip(f.leaves, arrays, strict=True)):
            return None
        ownership, calls, first, later = Ownership([f.seed]), [], [], []
        for x, g in zip(f.leaves, arrays, strict=True):
            before = x.accumulated_grad
            if before is not None:
                later.append((before.array, g))
                continue
            array = ownership.copy_if_shared(g)
            if array is not g:
                calls.append(_copy_call(array, g))
            self.given[x] = wrap(array)
            first.append((x, self.given[x]))

        def launch() -> None:
            with shared_state:
                for x, g in first:
                    if x.accumulated_grad is None:
                        x.accumulated_grad = g
                    else:  # another thread has added its own in the meantime
                        accumulate_grad(x, g.array.copy())
                for total, g in later:
                    total += g

        launch()
        return [*calls, launch]

    def call(self, f: CallOnGradients, args: Sequence[Any]) -> Calls:
        """Plan ``clip_grad_norm_`` with the 2-norm."""
        self.at += 1
        if f.function is not clip_grad_norm or args[1:] != [2.0, False] or not self._are_given(f.leaves):
            return None
        arrays, max_norm = [x.accumulated_grad.array for x in f.leaves], args[0]
        sum_squares, scale = plan_sum_squares(arrays), plan_scale(arrays)
        if sum_squares is None or scale is None:
            return None

        def launch() -> Array:
            total = np.asarray(np.sqrt(sum_squares()))
            scale(np.minimum(max_norm / (total + 1e-6), 1.0))
            return total

        return [launch]

    def repeat(self, f: Repetition) -> Calls:
        """Plan a step of Adam, or ``zero_grad()``."""
        self.at += 1
        owner = f.owner
        if f.method in (Optimizer.zero_grad, Module.zero_grad):
            call = _zero_grad_call(owner, _parameters_of(owner)) if isinstance(owner, Module) else _clear_groups(owner)
            call()
            return [call]
        if f.method is not Optimizer.step or type(owner) not in (Adam, AdamW) or _METHODS & vars(owner).keys():
            return None
        if not self._are_given(_parameters_of(owner)):
            return None
        owner.step()  # makes the state of new parameters
        groups = [_AdamGroup.of(owner, group) for group in owner.param_groups]
        return [_adam_call(owner, groups) if all(groups) else owner.step]

    def _are_given(self, leaves: Sequence[Any]) -> bool:
        return all(x.accumulated_grad is not None and x.accumulated_grad is self.given.get(x) for x in leaves)


def _parameters_of(owner: Any) -> list[Any]:
    """Return the parameters of a module or an optimizer."""
    if isinstance(owner, Module):
        return list(owner.parameters())
    return [p for group in owner.param_groups for p in group["params"]]


def _copy_call(target: Array, source: Array) -> Callable[[], None]:
    return lambda: np.copyto(target, source)


def _zero_grad_call(owner: Module, parameters: list[Any]) -> Callable[[], None]:
    def launch() -> None:
        for p in parameters:
            p.accumulated_grad = None

    return launch


def _clear_groups(owner: Any) -> Callable[[], None]:
    def launch() -> None:
        for group in owner.param_groups:
            for p in group["params"]:
                p.accumulated_grad = None

    return launch


class _AdamGroup:
    """The arrays of a parameter group of Adam.

    update: the call that updates all of them, which gets the numbers of ``adam_step``.
    """

    def __init__(self, params: list[Any], states: list[dict[str, Any]], update: Any) -> None:
        self.params, self.states, self.update = params, states, update
        self.arrays = [p.array for p in params]
        self.means = [s[key] for key in ("exp_avg", "exp_avg_sq") for s in states]
        self.mean_arrays = [mean.array for mean in self.means]

    @classmethod
    def of(cls, owner: Any, group: dict[str, Any]) -> _AdamGroup | None:
        """Return the arrays of a group, None where the compiled loop does not take them."""
        params = list(group["params"])
        states = [owner.state[p] for p in params]
        lists = [
            [p.array for p in params],
            [p.accumulated_grad.array for p in params],
            *([s[key].array for s in states] for key in ("exp_avg", "exp_avg_sq")),
        ]
        update = plan_adam(*lists)
        return None if update is None else cls(params, states, update)

    def is_current(self, owner: Any, group: dict[str, Any]) -> bool:
        """Return whether the group has these parameters, with these states, all after the same number of steps."""
        params, state, states = group["params"], owner.state, self.states
        try:
            means = [s[key] for key in ("exp_avg", "exp_avg_sq") for s in states]
            return (
                len(params) == len(self.params)
                and all(map(is_, params, self.params))
                and all(map(is_, map(state.__getitem__, params), states))
                and all(map(is_, means, self.means))
                and all(map(is_, [mean.array for mean in means], self.mean_arrays))
                and len({s["step"] for s in states}) == 1
            )
        except KeyError:
            return False


def _adam_call(owner: Any, groups: list[Any]) -> Callable[[], None]:
    """Return a function that does ``owner.step()`` on arrays that stay where they are."""

    def launch() -> None:
        current = len(groups) == len(owner.param_groups) and all(
            type(group["lr"]) is float and known.is_current(owner, group)
            for known, group in zip(groups, owner.param_groups, strict=True)
        )
        if not current:
            owner.step()
            return
        for known, group in zip(groups, owner.param_groups, strict=True):
            step = known.states[0]["step"] + 1
            for state in known.states:
                state["step"] = step
            beta1, beta2 = group["betas"]
            known.update(step, group["lr"], beta1, beta2, group["eps"], group["weight_decay"], type(owner) is AdamW,
                         group["maximize"])  # fmt: skip
            version_counter.bump_versions(known.arrays)

    return launch
