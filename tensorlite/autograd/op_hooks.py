"""Run the functions of ops on raw arrays, through the profiler's hooks if there are any."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .thread_state import OpHooks, threads

__all__ = ["OpHooks", "run_op", "set_op_hooks"]


def set_op_hooks(hooks: OpHooks) -> OpHooks:
    """Set this thread's op hooks and return the previous ones. See :mod:`tensorlite.profiler`."""
    thread = threads.state
    before, thread.hooks = thread.hooks, hooks
    run = thread.run_without_hooks
    thread.run = run if hooks.forward is None else functools.partial(hooks.forward, run)
    return before


def run_op(f: Callable[..., Any], *args: Any) -> Any:
    """Return ``f(*args)``, computed without NumPy's warnings and through this thread's op hooks."""
    return threads.state.run(f, *args)
