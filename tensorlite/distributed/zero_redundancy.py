"""ZeroRedundancyOptimizer: each rank keeps the optimizer's state of its share of the parameters alone."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload

from ..autograd import version_counter
from ..autograd.grad_mode import enable_grad
from ..optim import Optimizer
from ..optim.optimizer import Params
from ..tensors.tensor import Tensor
from .communicator import DistributedError
from .group import Group
from .optimizer_states import collect_states
from .shares import assign_ranks, broadcast_shares
from .state import current

__all__ = ["ZeroRedundancyOptimizer"]

Loss = TypeVar("Loss")


class ZeroRedundancyOptimizer(Optimizer):
    """An optimizer whose state is divided among the ranks of a group: stage 1 of ZeRO.

        model = dist.DataParallel(model)
        optimizer = dist.ZeroRedundancyOptimizer(model.parameters(), tl.optim.AdamW, lr=1e-3)

    Each rank updates its share of the parameters, keeps the state of these alone, and sends their new values to the
    other ranks. Shares consist of whole parameters, so the bits are those of the optimizer itself. Of N ranks, each
    keeps about an Nth of the state. The largest share has at least that of the largest parameter. A group of size 1
    changes nothing.

    params: Tensors, named Tensors, or groups with their own options, in the same order on every rank.
    optimizer_class: the class of the optimizer, or a function ``(params, **defaults)`` that returns one, which may be a
        CombinedOptimizer. It must update each parameter by its own gradient alone, and use nothing but its state.
    group: the group, by default that of :func:`init`.
    defaults: the options of the optimizer.

    optim: the optimizer, with the state of this rank's share.

    All ranks need the same gradients and options: use DataParallel or `average_gradients`. The first step compares a
    hash of the gradients, and every step the learning rates and which parameters have a gradient. Learning rate
    schedulers, GradScaler and the functions that clip gradients work as with any optimizer.

    Raises TypeError if optimizer_class does not return an Optimizer, the errors of the optimizer itself, and
    DistributedError if the parameters of the ranks differ.
    Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", 2020, section
    5.1. The interface is that of ``torch.distributed.optim.ZeroRedundancyOptimizer``.
    """

    def __init__(
        self, params: Params, optimizer_class: Callable[..., Optimizer], group: Group | None = None, **defaults: Any
    ) -> None:
        if not callable(optimizer_class):
            raise TypeError(
                f"ZeroRedundancyOptimizer: expected the class of an optimizer, got {type(optimizer_class).__name__}. "
                f"Pass the class, such as tl.optim.AdamW, and its options as keywords."
            )
        optim = optimizer_class(params, **defaults)
        if not isinstance(optim, Optimizer):
            raise TypeError(
                f"ZeroRedundancyOptimizer: expected optimizer_class to return an Optimizer, got {type(optim).__name__}"
            )
        self.optim = optim
        self.group = current("ZeroRedundancyOptimizer") if group is None else group
        self.loads = [0] * self.group.size
        self.owners: dict[Tensor, int] = {}
        self._first_step = True
        self._consolidated: dict[int, dict[str, Any]] | None = None
        self._assign()

    def _assign(self) -> None:
        """Give each new parameter to a rank. Raises DistributedError if those of the ranks differ."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        if self.group.size > 1:
            kinds = "\n".join(f"{tuple(p.shape)} {p.dtype}" for p in parameters)
            self.group.check_equal("ZeroRedundancyOptimizer: shapes and dtypes of the parameters", kinds)
        new = [p for p in parameters if p not in self.owners]
        owners = assign_ranks([p.numel() for p in new], self.loads)
        self.owners.update(zip(new, owners, strict=True))

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """Return the options of the optimizer, and their values in groups that do not set them."""
        return self.optim.defaults

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the groups of all parameters, with their options."""
        return self.optim.param_groups

    @property
    def state(self) -> dict[Tensor, dict[str, Any]]:  # type: ignore[override]
        """Return the state of the parameters of this rank's share."""
        return self.optim.state

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group, on every rank. Its parameters are divided among the ranks; the others stay where they are.

        Raises the errors of :meth:`Optimizer.add_param_group`, and DistributedError if the groups of the ranks differ.
        """
        self.optim.add_param_group(param_group)
        self._consolidated = None
        self._assign()

    # ---- steps ------------------------------------------------------------------------------

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], Loss]) -> Loss: ...
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters of this rank's share, and get the new values of the others from their ranks.

        closure: a function that computes the loss and the gradients; it is called first, with gradients enabled.

        Returns the result of the closure, or None. Raises DistributedError if the gradients of the ranks differ, and
        the errors of :meth:`Optimizer.step`.
        """
        if self.group.size == 1:
            return self.optim.step() if closure is None else self.optim.step(closure)
        loss = None
        if closure is not None:
            if not callable(closure):
                raise TypeError(
                    f"ZeroRedundancyOptimizer.step: expected a function or nothing, got {type(closure).__name__}. "
                    f"Call loss.backward() first, then step()."
                )
            with enable_grad():
                loss = closure()
        self._consolidated = None
        ready = {k: p for k, p in enumerate(self.owners) if p.accumulated_grad is not None}
        if self._first_step:
            self._check_gradients(ready.values())
            self._first_step = False
        with without_gradients(p for p in ready.values() if self.owners[p] != self.group.rank):
            self.optim.step()
        self._exchange(ready)
        return loss

    def _check_gradients(self, ready: Iterable[Tensor]) -> None:
        """Raise DistributedError unless all ranks have the same gradients."""
        digest = hashlib.sha256()
        for p in ready:
            digest.update(p.accumulated_grad.detach().cpu().contiguous().array.tobytes())
        self.group.check_equal(
            "ZeroRedundancyOptimizer: gradients at the first step (average them with DataParallel)", digest.hexdigest()
        )

    def _exchange(self, ready: Mapping[int, Tensor]) -> None:
        """Send the new values of this rank's share, and get those of the others. ready: parameters by their number."""
        communicator = self.group.communicator
        assert communicator is not None
        shares: list[list[Any]] = [[] for _ in range(self.group.size)]
        for p in ready.values():
            shares[self.owners[p]].append(p.array)
        rates = ", ".join(dict.fromkeys(f"{group.get('lr')!r}" for group in self.param_groups))
        call = f"step of ZeroRedundancyOptimizer with lr {shorten(rates)} for parameters {shorten(ranges(ready))}"
        communicator.submit(call, broadcast_shares(communicator.engine, shares)).wait()
        received = [p.array for p in ready.values() if self.owners[p] != self.group.rank]
        version_counter.bump_versions(received)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of all parameters to None, or to zeros in place if ``set_to_none`` is False."""
        self.optim.zero_grad(set_to_none)

    # ---- state ------------------------------------------------------------------------------

    def consolidate_state_dict(self, to: int = 0) -> None:
        """Collect the state of all ranks on the rank ``to``, whose :meth:`state_dict` then has it until the next step.

        Every rank has to call it. The Tensors of the state are copied into the memory of the host, so the rank ``to``
        needs as much of it as the whole state. The other ranks need memory for one Tensor more.

        Raises ValueError if there is no such rank, and DistributedError.
        """
        to = self.group.check_rank("consolidate_state_dict", to)
        if self.group.size > 1:
            self._consolidated = collect_states(self.group, self.optim.state_dict()["state"], to)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the whole optimizer, as :meth:`Optimizer.state_dict` of a single process does.

        So it can be loaded by any number of ranks. Raises DistributedError on a rank to which
        :meth:`consolidate_state_dict` has not sent the state since the last step. A group of size 1 has it always.
        """
        own = self.optim.state_dict()
        if self.group.size == 1:
            return own
        if self._consolidated is None:
            rank = self.group.rank
            raise DistributedError(
                f"ZeroRedundancyOptimizer.state_dict: expected the state of all ranks on rank {rank}, got that of its "
                f"share. Call consolidate_state_dict(to={rank}) on every rank after the last step."
            )
        return {**own, "state": {k: dict(values) for k, values in self._consolidated.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from the result of :meth:`state_dict` of any number of ranks, or of the optimizer itself.

        Every rank passes the whole state, keeps that of its share, and loads all options. Raises the errors of
        :meth:`Optimizer.load_state_dict`; then nothing is loaded.
        """
        self.optim.load_state_dict(self._without_others(state_dict) if self.group.size > 1 else state_dict)
        self._consolidated = None

    def _without_others(self, state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a state without what belongs to other ranks' shares. The optimizer reports a state it cannot read."""
        try:
            order = [int(k) for group in state_dict["param_groups"] for k in group["params"]]
            others = {k for k, owner in zip(order, self.owners.values(), strict=True) if owner != self.group.rank}
            return {**state_dict, "state": {k: v for k, v in state_dict["state"].items() if int(k) not in others}}
        except (KeyError, TypeError, ValueError, AttributeError):
            return state_dict

    def __repr__(self) -> str:
        kept, total = self.loads[self.group.rank], sum(self.loads)
        return f"ZeroRedundancyOptimizer of {kept:,} of {total:,} numbers on {self.group!r}: {self.optim!r}"


@contextlib.contextmanager
def without_gradients(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Context manager in which parameters have no gradients, so that an optimizer leaves them as they are."""
    gradients = {p: p.accumulated_grad for p in parameters}
    for p in gradients:
        p.accumulated_grad = None
    try:
        yield
    finally:
        for p, g in gradients.items():
            p.accumulated_grad = g


def ranges(numbers: Iterable[int]) -> str:
    """Return increasing numbers as text, such as "0-5, 7"."""
    found: list[list[int]] = []
    for k in numbers:
        if found and found[-1][1] == k - 1:
            found[-1][1] = k
        else:
            found.append([k, k])
    return ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in found) or "none"


def shorten(text: str) -> str:
    """Return a text of up to 100 characters as it is, and a longer one with its SHA-256 in place of its end."""
    return text if len(text) <= 100 else f"{text[:60]}... (SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:32]})"
