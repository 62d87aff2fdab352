"""The content of a checkpoint, in any format."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorlite as tl
from gpt.config import Config
from gpt.errors import UserError, extra
from gpt.model import GPT
from gpt.model.quantized import QuantizationError
from gpt.tokenizer import Tokenizer


class CheckpointError(UserError, ValueError):
    """A checkpoint that is missing, damaged, or of another program."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint, after `step` steps. Only training uses `optimizer`, `state` and `average`.

    average: the averaged weights by name, of a run with `train.ema_decay`; otherwise None, as without training.
    """

    config: Config
    tokenizer: Tokenizer
    step: int
    model: GPT
    optimizer: dict[str, Any] | None
    state: dict[str, Any]
    average: dict[str, tl.Tensor] | None = None


@dataclass(frozen=True)
class Info:
    """What a checkpoint says about itself, without its weights: its configuration, after `step` steps."""

    config: Config
    step: int


def damaged(path: Path, what: str) -> CheckpointError:
    """Return the error for a file with wrong content."""
    return CheckpointError(f"{str(path)!r} is damaged: {what}")


def refuse_pointer(path: Path, begin: bytes) -> None:
    """Raise CheckpointError if a file, by its first bytes, is what Git has instead of a large file."""
    if begin.startswith(b"version https://git-lfs"[: len(begin)]) and len(begin) >= 4:
        raise CheckpointError(f"{str(path)!r} is a pointer of Git LFS, not the file itself. Run: git lfs pull")


@contextmanager
def corruption_errors(path: Path, part: str = "") -> Iterator[None]:
    """Context manager that turns an error about the content of a file into a CheckpointError. DeviceError passes.

    part: the key of the content, which begins the message.
    """
    with extra():
        from safetensors import SafetensorError

    try:
        yield
    except (tl.DeviceError, CheckpointError, QuantizationError):
        raise
    except (UserError, SafetensorError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError,
            RuntimeError) as error:  # fmt: skip
        prefix = f"{part}: " if part else ""
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise damaged(path, f"{prefix}{kind}{error}") from error
