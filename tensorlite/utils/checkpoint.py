"""Activation checkpointing under PyTorch's name, ``utils.checkpoint.checkpoint``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..autograd import checkpointing

__all__ = ["checkpoint"]

R = TypeVar("R")


def checkpoint(
    function: Callable[..., R],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> R:
    """Return ``function(*args, **kwargs)`` as :func:`tensorlite.checkpoint` does.

    ``use_reentrant`` and ``preserve_rng_state`` are accepted for compatibility and ignored. The only variant is not
    reentrant, and it always replays the random numbers.
    """
    return checkpointing.checkpoint(function, *args, **kwargs)
