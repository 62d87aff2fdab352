"""A side of a comparison: a process of its own, so that its idle threads spin on nobody else's cores.

And what the scripts that compare two of them on shapes have in common: options, and tables one after the other.
"""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from environment import described, saved


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


def options(about: str, shapes: Iterable[str], names: Iterable[str]) -> argparse.ArgumentParser:
    """A command line with the options that choose shapes and sides, and save."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--shape", choices=[*shapes, "all"], default="all", help="default: %(default)s")
    parser.add_argument("--save", action="store_true", help="write the tables to benchmarks/results, too")
    parser.add_argument("--only", choices=list(names), help="measure one side, without the other")
    return parser


def tables(name: str, args: argparse.Namespace, shapes: Iterable[str], measure: Callable[[str], bool]) -> None:
    """Print what ``measure`` has to say of each shape that was asked for; exit with 1 if the sides did not agree."""
    with saved(name, args.save):
        print(described("torch", "numba"))
        agreed = [measure(shape) for shape in (shapes if args.shape == "all" else [args.shape])]
    sys.exit(not all(agreed))
