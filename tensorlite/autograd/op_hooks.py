"""Run the functions of ops on raw arrays, through the profiler's hooks if there are any."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, NamedTuple

import numpy as np

__all__ = ["OpHooks", "op_runner", "run_op", "set_op_hooks"]


class OpHooks(NamedTuple):
    """The functions that a thread's ops run through; None for no hook.

    forward: called as ``forward(run, f, *args)`` for each op call. It has to return ``run(f, *args)``.
    backward: called as ``backward(run, node, *args)`` for each node of a backward pass. It has to call
        ``run(node, *args)``.
    """

    forward: Callable[..., Any] | None = None
    backward: Callable[..., Any] | None = None


class OpRunner(threading.local):
    """The per-thread state of op calls: ``run(f, *args)`` calls an op's function, ``hooks`` are the hooks."""

    hooks = OpHooks()

    def __init__(self) -> None:
        context = copy_context()
        context.run(np.seterr, all="ignore")  # log(0) is -inf without a warning, as on a GPU
        self.run: Callable[..., Any] = context.run
        self.run_without_hooks = self.run


op_runner = OpRunner()


def set_op_hooks(hooks: OpHooks) -> OpHooks:
    """Set this thread's op hooks and return the previous ones. See :mod:`tensorlite.profiler`."""
    before, op_runner.hooks = op_runner.hooks, hooks
    run = op_runner.run_without_hooks
    op_runner.run = run if hooks.forward is None else functools.partial(hooks.forward, run)
    return before


def run_op(f: Callable[..., Any], *args: Any) -> Any:
    """Return ``f(*args)``, computed without NumPy's warnings and through this thread's op hooks."""
    return op_runner.run(f, *args)
