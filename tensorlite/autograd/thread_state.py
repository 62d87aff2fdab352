"""The state of each thread that op calls read: the grad mode, and what runs the functions of ops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, NamedTuple

import numpy as np

__all__ = ["OpHooks", "ThreadState", "threads"]


class OpHooks(NamedTuple):
    """The functions that a thread's ops run through; None for no hook.

    forward: called as ``forward(run, f, *args)`` for each op call. It has to return ``run(f, *args)``.
    backward: called as ``backward(run, node, *args)`` for each node of a backward pass. It has to call
        ``run(node, *args)``.
    """

    forward: Callable[..., Any] | None = None
    backward: Callable[..., Any] | None = None


class ThreadState:
    """The state of one thread.

    records: whether ops are recorded. inference: whether the thread is inside ``inference_mode()``.
    hooks: the hooks of ops. run: called as ``run(f, *args)``, it calls an op's function through the hook, if any.
    run_without_hooks: the same without the hook.
    """

    __slots__ = ("hooks", "inference", "records", "run", "run_without_hooks")

    def __init__(self) -> None:
        self.records, self.inference = True, False
        context = copy_context()
        context.run(np.seterr, all="ignore")  # log(0) is -inf without a warning, as on a GPU
        self.hooks = OpHooks()
        self.run: Callable[..., Any] = context.run
        self.run_without_hooks = self.run


class _Threads(threading.local):
    """Where each thread finds its state. One read costs 30 ns, so an op call reads once."""

    def __init__(self) -> None:
        self.state = ThreadState()


threads = _Threads()
