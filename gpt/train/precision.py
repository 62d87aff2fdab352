"""Mixed precision in a run: the context of its forward passes, and the factor of its loss."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorlite as tl
from gpt.config import Config, ConfigError, TrainConfig
from gpt.model import GPT
from tensorlite.amp import GradScaler

SLOW_IN_FLOAT16 = ("cpu",)  # Types of devices that have no arithmetic for float16.


def check_precision(config: Config) -> None:
    """Raise ConfigError for float16 on a CPU, which has no arithmetic for it, and for bfloat16 without its package."""
    t = config.train
    device = tl.device(None if t.device == "auto" else t.device)
    if t.dtype == "float16" and device.type in SLOW_IN_FLOAT16:
        raise ConfigError(
            "train.dtype = 'float16' needs a GPU, because a CPU computes it more slowly than float32. "
            "Use --dtype bfloat16 or float32, or --device cuda"
        )
    if t.dtype == "bfloat16":
        try:
            tl.autocast(device.type, dtype=t.dtype, enabled=False)
        except tl.DTypeError as error:
            raise ConfigError(f"train.dtype = 'bfloat16': {error}") from error


def make_autocast(train: TrainConfig, model: GPT) -> Callable[[], AbstractContextManager[Any]]:
    """Return what makes the context in which the model computes: ``tl.autocast``, or one that does nothing."""
    if not train.is_mixed:
        return nullcontext
    return lambda: tl.autocast(model.device.type, dtype=train.dtype)


def make_scaler(train: TrainConfig, model: GPT) -> GradScaler:
    """Return the scaler of the loss, which only float16 enables: small gradients vanish in it."""
    return GradScaler(model.device.type, enabled=train.dtype == "float16")


def precision_text(train: TrainConfig) -> str:
    """Return the dtypes of a run as text."""
    return f"{train.dtype}, parameters {train.parameter_dtype}" if train.is_mixed else train.dtype
