"""Say why a run cannot go on, or does not learn, with what to try."""

import math
from pathlib import Path

from gpt.config import OptimConfig
from gpt.errors import UserError
from gpt.train.spikes import Spike


class TrainingError(UserError, RuntimeError):
    """A run that cannot continue."""


def diverged(optim: OptimConfig, latest: Path, step: int, what: str, details: str) -> TrainingError:
    """Return the error for a value that is not finite. latest: the last checkpoint. details: sentences about `what`."""
    kept = f"{latest} is kept, from an earlier step" if latest.exists() else "there is no checkpoint yet"
    return TrainingError(
        f"training diverged at step {step}: {what}. {details}{' ' if details else ''}"
        f"Start again with {remedy(optim)}. "
        f"Nothing was saved since; {kept}."
    )


def stopped_by_spike(optim: OptimConfig, latest: Path, spike: Spike) -> TrainingError:
    """Return the error for a spike that stops the run. latest: the last checkpoint."""
    then = f"Resume from {latest}, of an earlier step," if latest.exists() else "Nothing was saved yet; start again"
    return TrainingError(
        f"spike at step {spike.step}: {spike.values()}. The update was not made. {then} with --on-spike skip or "
        f"lower, or start again with {remedy(optim)}."
    )


def above_chance(optim: OptimConfig, vocab_size: int, step: int, loss: float) -> str | None:
    """Return a warning if the loss is far above that of guessing, and otherwise None.

    A new model guesses: its loss is ln V, and at most 0.4 more with the presets. Training lowers it.
    """
    chance = math.log(vocab_size)
    if loss <= 1.2 * chance + 0.5:
        return None
    return (
        f"Warning: the loss is {loss:.3g} at step {step}, and guessing among the {vocab_size:,} tokens gives "
        f"ln {vocab_size} = {chance:.2f}. The model does not learn. Stop (Ctrl-C) and start again with "
        f"{remedy(optim)}."
    )


def remedy(optim: OptimConfig) -> str:
    """Return what to try where the loss grows."""
    rates = f"a lower --lr (it is {optim.lr:g})"
    if optim.optimizer == "muon":
        rates = f"a lower --muon-lr ({optim.muon_lr:g}) and --lr ({optim.lr:g})"
    clip = f"a lower --grad-clip ({optim.grad_clip:g})" if optim.grad_clip else "--grad-clip 1 (it is off)"
    return f"{rates}, more --warmup-steps ({optim.warmup_steps}) or {clip}"
