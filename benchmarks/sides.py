"""A side of a comparison: a process of its own, so that its idle threads spin on nobody else's cores."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any


def started(side: str, work: Callable[..., None], *args: Any) -> tuple[BaseProcess, Connection]:
    """Start ``work(side, *args, pipe)`` in a new process; the process, and the other end of the pipe."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    # What tensorlite sets up in malloc is its own doing; PyTorch gets what its users have.
    os.environ["TENSORLITE_MALLOC"] = "keep" if side == "tensorlite" else "system"
    process = spawn.Process(target=work, args=(side, *args, theirs), daemon=True)
    process.start()
    theirs.close()  # so that a process that died is an EOFError here, not a wait
    return process, ours
