"""Stop a run early: after evaluations in which the validation loss has not improved."""

import math
from typing import Any

from gpt.config import Config, ConfigError, TrainConfig
from gpt.data import Dataset


class Patience:
    """What counts the evaluations since the validation loss improved.

    A loss is an improvement if it is below the reference, the loss of the last improvement, by more than 0 and by at
    least `min_delta`. limit: the number of evaluations without one that ends the run, None for none.
    """

    def __init__(self, options: TrainConfig) -> None:
        self.limit, self.min_delta = options.patience, options.min_delta
        self.reference = math.inf
        self.stale = 0  # Evaluations since the last improvement.

    def add(self, loss: float) -> dict[str, Any]:
        """Count an evaluation. Return what its line of metrics has in addition: nothing without a limit."""
        if self.limit is None:
            return {}
        if loss < self.reference and self.reference - loss >= self.min_delta:
            self.reference, self.stale = loss, 0
        else:
            self.stale += 1
        return {"evaluations_without_improvement": self.stale}

    def is_over(self) -> bool:
        """Return whether the run ends now."""
        return self.limit is not None and self.stale >= self.limit

    def text(self) -> str:
        """Return a line about the end of the run."""
        least = f" by {self.min_delta:g} or more" if self.min_delta else ""
        return (
            f"Stopped early: in {self.stale} evaluations the validation loss has not fallen{least} below "
            f"{self.reference:.4f} (--patience {self.limit}). --resume with a higher --patience continues"
        )

    def get_state(self) -> dict[str, Any] | None:
        """Return the reference and the count, in types that JSON has; None without a limit."""
        if self.limit is None:
            return None
        return {"reference": self.reference if math.isfinite(self.reference) else None, "stale": self.stale}

    def set_state(self, state: dict[str, Any] | None, best: float) -> None:
        """Continue from a state that `get_state` returned.

        best: the lowest loss of a run that had no limit until now, which is then the reference.
        """
        if state is None:
            self.reference, self.stale = best, 0
        else:
            self.reference = math.inf if state["reference"] is None else float(state["reference"])
            self.stale = int(state["stale"])


def check_patience(config: Config, dataset: Dataset) -> None:
    """Raise ConfigError if a run stops early by the loss on a validation set that it does not have."""
    if config.train.patience is not None and not dataset.size("val"):
        raise ConfigError(
            f"train.patience = {config.train.patience}: expected a validation set, got none (data.val_fraction = "
            f"{config.data.val_fraction:g}). Leave --patience out, or set --val-fraction"
        )
