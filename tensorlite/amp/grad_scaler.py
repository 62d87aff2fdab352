"""GradScaler: multiply the loss, so that small gradients do not vanish in float16."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..autograd import version_counter
from ..autograd.op_hooks import run_op
from ..backends.mixed_precision import is_present
from ..backends.registry import BACKENDS, Array
from ..dtypes import accumulate_dtype, float16
from ..errors import DTypeError, GraphError
from ..scalars import int_in, number_in
from ..tensors.tensor import Tensor
from .autocast_context import is_autocast_available

__all__ = ["GradScaler", "SteppedOptimizer"]


class SteppedOptimizer(Protocol):
    """What a GradScaler needs of an optimizer."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any:
        """Update the parameters."""


@dataclass
class _Progress:
    """What was done with an optimizer since the last ``update``.

    optimizer: the optimizer, kept so that no other one gets its id. finite: for each type of array a 0-d array that
    says whether all gradients were finite. skipped: whether its step was left out; None before ``step``.
    """

    optimizer: SteppedOptimizer
    finite: list[Array]
    skipped: bool | None = None


class GradScaler:
    """A factor of the loss that grows while all gradients are finite, and shrinks when one is not.

        scaler = tl.amp.GradScaler("cuda")
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)      # only to see or to clip the gradients
        scaler.step(optimizer)
        scaler.update()

    float16 has no numbers below 6e-8, so small gradients would become 0. bfloat16 has the range of float32 and needs
    no scaler.

    device: the type of device of the gradients. For "cuda" without a GPU the scaler warns and is disabled.
    init_scale: the first factor.
    growth_factor, backoff_factor: what the factor is multiplied by in the two cases, above 1 and below 1.
    growth_interval: the number of steps in a row with finite gradients before the factor grows.
    enabled: False makes every method do what happens without a scaler.

    Raises ValueError for numbers out of range or an unknown device. The methods, messages aside, are those of
    ``torch.amp.GradScaler``.
    Source: Micikevicius et al., "Mixed Precision Training", 2017, section 3.2.
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        if not is_autocast_available(device):
            raise ValueError(f"GradScaler: expected a type of device, such as 'cuda' or 'cpu', got {device!r:.60}.")
        self._enabled = bool(enabled)
        if self._enabled and not is_present(device):
            warnings.warn(
                f"GradScaler: expected a device of type {device!r}, found none, so the scaler is disabled. Pass "
                "enabled=False, or device='cpu'.",
                RuntimeWarning, stacklevel=2,
            )  # fmt: skip
            self._enabled = False
        self._scale = _positive("init_scale", init_scale)
        self.set_growth_factor(growth_factor)
        self.set_backoff_factor(backoff_factor)
        self.set_growth_interval(growth_interval)
        self._growth_tracker = 0
        self._scaled = False  # whether `scale` was called once
        self._progress: dict[int, _Progress] = {}

    # ---- one step ---------------------------------------------------------------------------

    def scale(self, outputs: Any) -> Any:
        """Return a Tensor times the factor, or a list, tuple or iterator of such products.

        outputs: a Tensor, such as the loss, or an iterable of Tensors. Raises TypeError for anything else.
        """
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            self._scaled = True
            return outputs * self._scale
        if not isinstance(outputs, Iterable) or isinstance(outputs, (str, bytes, Mapping)):
            raise TypeError(
                f"GradScaler.scale: expected a Tensor or an iterable of Tensors, got {type(outputs).__name__}."
            )
        products = map(self.scale, outputs)
        return type(outputs)(products) if isinstance(outputs, (list, tuple)) else products

    def unscale_(self, optimizer: SteppedOptimizer) -> None:
        """Divide the gradients of an optimizer's parameters by the factor, in place. Call it before clipping.

        ``step`` calls it if it was not called. Raises GraphError if it or ``step`` was called since the last
        ``update``, or if ``scale`` never was. Raises DTypeError for float16 gradients, in which the quotients would
        vanish. Forces no sync on a GPU.
        """
        if not self._enabled:
            return
        self._check_scaled("unscale_")
        done = self._progress.get(id(optimizer))
        if done is not None:
            raise GraphError(
                f"GradScaler.unscale_: expected one call for each update(), got "
                f"{'a second one' if done.skipped is None else 'one after step()'}. Call update() at the end of a step."
            )
        gradients = [
            p.accumulated_grad.array
            for group in optimizer.param_groups for p in group["params"] if p.accumulated_grad is not None
        ]  # fmt: skip
        if any(g.dtype == float16 for g in gradients):
            raise DTypeError(
                "GradScaler.unscale_: expected gradients of float32, got float16, in which small quotients vanish. "
                "Keep the parameters in float32, and use autocast."
            )
        by_kind: dict[type, list[Array]] = {}
        for g in gradients:
            by_kind.setdefault(type(g), []).append(g)
        finite = [run_op(_unscale, same, 1.0 / self._scale) for same in by_kind.values()]
        self._progress[id(optimizer)] = _Progress(optimizer, finite)

    def step(self, optimizer: SteppedOptimizer, *args: Any, **kwargs: Any) -> Any:
        """Unscale the gradients if that was not done, and call ``optimizer.step()`` unless one is not finite.

        args, kwargs: passed on to the optimizer; a closure is an error. Returns the result of the optimizer's step, or
        None if it was left out. Raises GraphError if it was called since the last ``update``, or if no parameter has
        a gradient. Reading whether all are finite forces one sync on a GPU.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs or any(callable(a) for a in args):
            raise TypeError(
                "GradScaler.step: expected no closure, because its gradients are scaled. Call backward() before step()."
            )
        self._check_scaled("step")
        done = self._progress.get(id(optimizer))
        if done is not None and done.skipped is not None:
            raise GraphError(
                "GradScaler.step: expected one call for each update(), got a second one. Call update() at the end of "
                "a step."
            )
        if done is None:
            self.unscale_(optimizer)
            done = self._progress[id(optimizer)]
        if not done.finite:
            del self._progress[id(optimizer)]
            raise GraphError(
                "GradScaler.step: expected gradients, got none for any parameter of the optimizer. Call "
                "scaler.scale(loss).backward() first."
            )
        done.skipped = _found_infinite(done)
        return None if done.skipped else optimizer.step(*args, **kwargs)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Set the factor for the next step. Call it once, after ``step`` of all optimizers.

        new_scale: a number or a Tensor with one, which becomes the factor. Otherwise the factor is multiplied by
            ``backoff_factor`` if a step was left out, and by ``growth_factor`` after ``growth_interval`` steps.

        Raises GraphError if neither ``step`` nor ``unscale_`` was called since the last update.
        """
        if not self._enabled:
            return
        self._check_scaled("update")
        if new_scale is not None:
            self._scale = _positive("new_scale", new_scale.item() if isinstance(new_scale, Tensor) else new_scale)
        else:
            done = [p for p in self._progress.values() if p.finite]
            if not done:
                raise GraphError("GradScaler.update: expected a call of step() since the last update(), got none.")
            found = [_found_infinite(p) if p.skipped is None else p.skipped for p in done]
            if any(found):
                self._scale, self._growth_tracker = self._scale * self._backoff_factor, 0
            else:
                self._growth_tracker += 1
                if self._growth_tracker >= self._growth_interval:
                    grown = self._scale * self._growth_factor
                    self._scale, self._growth_tracker = grown if grown < _LARGEST else self._scale, 0
        self._progress = {}

    def _check_scaled(self, method: str) -> None:
        """Raise GraphError if ``scale`` was never called."""
        if not self._scaled:
            raise GraphError(
                f"GradScaler.{method}: expected a call of scale() before it, got none. Call "
                f"scaler.scale(loss).backward() instead of loss.backward()."
            )

    # ---- numbers and state ------------------------------------------------------------------

    def is_enabled(self) -> bool:
        """Return whether the scaler scales."""
        return self._enabled

    def get_scale(self) -> float:
        """Return the factor, 1.0 if the scaler is disabled. It is a number of the host, so this forces no sync."""
        return self._scale if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """Return the number that the factor is multiplied by when it grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set the number that the factor is multiplied by when it grows. Raises ValueError unless it is above 1."""
        self._growth_factor = float(number_in("GradScaler", "growth_factor", new_factor))
        if not self._growth_factor > 1:
            raise ValueError(f"GradScaler: growth_factor must be above 1, got {new_factor}")

    def get_backoff_factor(self) -> float:
        """Return the number that the factor is multiplied by when it shrinks."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set the number that the factor is multiplied by when it shrinks. Raises ValueError unless from 0 to 1."""
        self._backoff_factor = float(number_in("GradScaler", "backoff_factor", new_factor))
        if not 0 < self._backoff_factor < 1:
            raise ValueError(f"GradScaler: backoff_factor must be between 0 and 1, got {new_factor}")

    def get_growth_interval(self) -> int:
        """Return the number of steps in a row with finite gradients before the factor grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set the number of steps before the factor grows. Raises ValueError unless it is 1 or more."""
        self._growth_interval = int_in("GradScaler", "growth_interval", new_interval)
        if self._growth_interval < 1:
            raise ValueError(f"GradScaler: growth_interval must be 1 or more, got {new_interval}")

    def state_dict(self) -> dict[str, Any]:
        """Return the factor, the options and the steps since it grew; an empty dict if the scaler is disabled.

        The keys are PyTorch's. Call it after ``update``.
        """
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from the result of :meth:`state_dict`, ours or PyTorch's. A disabled scaler ignores it.

        Raises ValueError if a key is missing, as in the state of a disabled scaler, or a number is out of range; then
        nothing is loaded.
        """
        if not self._enabled:
            return
        if missing := sorted(self.state_dict().keys() - state_dict.keys()):
            raise ValueError(
                f"GradScaler.load_state_dict: expected the state of an enabled scaler, got one without "
                f"{', '.join(missing)}."
            )
        loaded = GradScaler(
            "cpu", state_dict["scale"], state_dict["growth_factor"], state_dict["backoff_factor"],
            state_dict["growth_interval"],
        )  # fmt: skip
        tracker = int_in("GradScaler", "_growth_tracker", state_dict["_growth_tracker"])
        self._scale, self._growth_tracker = loaded.get_scale(), tracker
        self._growth_factor, self._backoff_factor = loaded.get_growth_factor(), loaded.get_backoff_factor()
        self._growth_interval = loaded.get_growth_interval()

    def __getstate__(self) -> dict[str, Any]:
        if self._progress:
            raise GraphError("GradScaler: expected a copy between update() and the next step, got one before update().")
        return dict(self.__dict__)


_LARGEST = 3.4028234663852886e38
"""The largest number of float32. A factor above it would make each loss infinite."""


def _positive(name: str, value: Any) -> float:
    """Return a factor as a number. Raises ValueError unless it is positive and finite."""
    number = float(number_in("GradScaler", name, value))
    if not 0 < number < math.inf:
        raise ValueError(f"GradScaler: {name} must be a positive number, got {number}")
    return number


def _unscale(gradients: list[Array], factor: float) -> Array:
    """Multiply gradients of one type of array in place. Return whether all were finite, as a 0-d array."""
    xp = BACKENDS[type(gradients[0])]
    finite = []
    for g in gradients:
        finite.append(xp.asarray(xp.isfinite(g).all()))
        wide = accumulate_dtype(g.dtype)
        if wide is g.dtype:
            g *= factor
        else:
            g[...] = (g.astype(wide) * factor).astype(g.dtype)
        version_counter.bump_version(g)
    return xp.stack(finite).all()


def _found_infinite(progress: _Progress) -> bool:
    """Return whether a gradient was not finite. This waits for the device."""
    return not all(bool(finite) for finite in progress.finite)
