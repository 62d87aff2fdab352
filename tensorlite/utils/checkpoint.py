"""Activation checkpointing under PyTorch's name, ``utils.checkpoint.checkpoint``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd import checkpointing

__all__ = ["checkpoint"]


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """Return ``function(*args, **kwargs)`` as :func:`tensorlite.checkpoint` does.

    ``use_reentrant`` and ``preserve_rng_state`` are accepted for compatibility and ignored. The only variant is not
    reentrant, and it always replays the random numbers.
    """
    return checkpointing.checkpoint(function, *args, **kwargs)
