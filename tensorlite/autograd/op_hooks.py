"""How an op's function is run on arrays: without NumPy's warnings, and seen by the profiler."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Watchers", "op_runner", "quietly", "watch"]


class OpRunner(threading.local):
    """What each thread has for itself: a context in which NumPy does not warn, and who watches."""

    watchers: Watchers = (None, None)

    def __init__(self) -> None:
        context = copy_context()
        context.run(np.seterr, all="ignore")  # log(0) is -inf and no warning, as on a GPU
        self.quietly: Callable[..., Any] = context.run
        self.unwatched = self.quietly


Watchers: TypeAlias = tuple[Callable[..., Any] | None, Callable[..., Any] | None]

op_runner = OpRunner()


def watch(forward: Callable[..., Any] | None, backward: Callable[..., Any] | None) -> Watchers:
    """Have this thread's ops run through these functions, or through none. Returns those that were there.

    ``forward(run, f, *args)`` has to return ``run(f, *args)``, and ``backward(run, node, *args)`` has to call
    ``run(node, *args)``; see :mod:`tensorlite.profiler`.
    """
    before, op_runner.watchers = op_runner.watchers, (forward, backward)
    run = op_runner.unwatched
    op_runner.quietly = run if forward is None else functools.partial(forward, run)
    return before


def quietly(f: Callable[..., Any], *args: Any) -> Any:
    """``f(*args)``, without NumPy's warnings, and seen by who watches."""
    return op_runner.quietly(f, *args)
