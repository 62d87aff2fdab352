"""Watch the loss and the gradient of each step for spikes, before the weights change.

A value is a spike if it is above ``median + spike_factor * s`` of the last WINDOW steps, where s is 1.4826 times the
median distance from the median, or a hundredth of the median if that is more. For normal values s estimates the
standard deviation; unlike it, s does not grow by the spikes themselves. Values of spikes count as well, so that a level
that stays is normal after half a window. A value that is not finite is always a spike.
"""

import math
import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gpt.config import TrainConfig
from tensorlite.optim import Optimizer

WINDOW = 100  # Steps whose values decide what a spike is.
LEAST = 20  # Steps before which there are no spikes, except for values that are not finite.
LOST = 10  # Steps in a row without a finite value that end a run which skips spikes.
LOWEST = 1 / 64  # The smallest factor of the learning rate.


@dataclass(frozen=True)
class Spike:
    """A step with a spike. limits: those of the loss and the norm, infinite before there is one."""

    action: str
    step: int
    loss: float
    norm: float
    limits: tuple[float, float]
    scale: float

    def is_finite(self) -> bool:
        """Return whether the loss and the norm of its gradient are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)

    def values(self) -> str:
        """Return the values with their limits as text."""
        texts = [
            f"{name} is {value:.4g}" + (f" (limit {limit:.4g})" if self.is_finite() else "")
            for name, value, limit in zip(("the loss", "the norm of its gradient"), (self.loss, self.norm), self.limits)
        ]
        return ", ".join(texts)

    def text(self) -> str:
        """Return a line about a spike after which the run goes on."""
        what = {"skip": "The update is left out", "lower": f"The learning rate is {self.scale:g} of its schedule"}
        return f"Spike at step {self.step}: {self.values()}. {what[self.action]} (--on-spike {self.action})"

    def record(self) -> dict[str, Any]:
        """Return a line of metrics. A value that is not finite is null."""
        values = {"spike_loss": self.loss, "spike_grad_norm": self.norm, "loss_limit": self.limits[0],
                  "grad_norm_limit": self.limits[1]}  # fmt: skip
        shown = {key: value if math.isfinite(value) else None for key, value in values.items()}
        return {"step": self.step, "spike": self.action, **shown, "lr_scale": self.scale}


class SpikeWatch:
    """What decides about the update of each step.

    action: `train.on_spike`. scale: the factor of the learning rate; `lower` halves it at each spike, and doubles it
    after each WINDOW steps without one. skipped: the number of updates that were left out.
    """

    def __init__(self, options: TrainConfig) -> None:
        self.action, self.factor = options.on_spike, options.spike_factor
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.norms: deque[float] = deque(maxlen=WINDOW)
        self.scale = 1.0
        self.calm = self.skipped = self.lost = 0  # Steps since a spike; left out; in a row that were not finite.
        self.skips = False  # Whether the update of this step is left out.

    def is_on(self) -> bool:
        """Return whether the watch looks at the steps."""
        return self.action != "none"

    def judge(self, step: int, loss: float, norm: float) -> Spike | None:
        """Look at a step, and change `scale` and `skips`. Return the spike, None if there is none."""
        limits = limit(self.losses, self.factor), limit(self.norms, self.factor)
        finite = math.isfinite(loss) and math.isfinite(norm)
        is_spike = not finite or loss > limits[0] or norm > limits[1]
        if finite:
            self.losses.append(loss)
            self.norms.append(norm)
        self.lost = 0 if finite else self.lost + 1
        self.calm = 0 if is_spike else self.calm + 1
        self.skips = is_spike and self.action == "skip"
        self.skipped += self.skips
        if is_spike and self.action == "lower":
            self.scale = max(LOWEST, self.scale / 2)
        elif self.calm and self.calm % WINDOW == 0:
            self.scale = min(1.0, self.scale * 2)
        return Spike(self.action, step, loss, norm, limits, self.scale) if is_spike else None

    def ends(self, spike: Spike) -> bool:
        """Return whether the run cannot go on after a spike."""
        if self.action == "skip":
            return self.lost >= LOST
        return self.action == "stop" or not spike.is_finite()

    def get_state(self) -> dict[str, Any] | None:
        """Return the state in types that JSON has; None if nothing was ever watched."""
        if not self.is_on() and not self.skipped:
            return None
        return {
            "losses": list(self.losses), "norms": list(self.norms), "scale": self.scale, "calm": self.calm,
            "skipped": self.skipped, "lost": self.lost,
        }  # fmt: skip

    def set_state(self, state: Mapping[str, Any] | None) -> None:
        """Continue from a state that `get_state` returned. Another `on_spike` takes what it needs of it.

        Raises KeyError, TypeError or ValueError.
        """
        if state is None:
            return
        if not LOWEST <= state["scale"] <= 1:
            raise ValueError(f"state.spikes.scale: expected a number from {LOWEST} to 1, got {state['scale']!r:.80}")
        self.skipped = int(state["skipped"])
        if self.is_on():
            self.losses.extend(map(float, state["losses"]))
            self.norms.extend(map(float, state["norms"]))
            self.calm, self.lost = int(state["calm"]), int(state["lost"])
        if self.action == "lower":
            self.scale = float(state["scale"])


def limit(values: deque[float], factor: float) -> float:
    """Return the value above which the next one is a spike; infinity before there are LEAST values."""
    if len(values) < LEAST:
        return math.inf
    median = statistics.median(values)
    spread = 1.4826 * statistics.median(abs(value - median) for value in values)
    return median + factor * max(spread, 0.01 * median)


@contextmanager
def scaled_rates(optimizer: Optimizer, scale: float) -> Iterator[None]:
    """Context manager in which the learning rates of an optimizer are multiplied by a factor."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] *= scale
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate
