"""Run the sides of a comparison in processes of their own, so that each has all cores in its turn.

Within one process, the idle threads of one library spin on the cores that the other library needs.
"""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any


def start_process(side: str, work: Callable[..., None], *args: Any) -> tuple[BaseProcess, Connection]:
    """Start ``work(side, *args, pipe)`` in a new process. Return the process and the other end of the pipe."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    before = os.environ.get("TENSORLITE_MALLOC")
    # tensorlite changes malloc's settings when it is imported, which PyTorch's users do not have.
    os.environ["TENSORLITE_MALLOC"] = "" if side == "tensorlite" else "system"
    process = spawn.Process(target=work, args=(side, *args, theirs), daemon=True)
    process.start()
    if before is None:
        del os.environ["TENSORLITE_MALLOC"]
    else:
        os.environ["TENSORLITE_MALLOC"] = before
    theirs.close()  # so that a process that died raises EOFError here, instead of a wait without end
    return process, ours


def in_turn(names: Iterable[str], number: int) -> list[str]:
    """Return the names in the order of this round: it is reversed in every second round."""
    return list(names)[:: -1 if number % 2 else 1]


def add_save_or_quick(parser: argparse.ArgumentParser) -> None:
    """Add the options that save the tables, or measure the limits of the machine with small arrays."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--save", action="store_true", help="write the tables to benchmarks/results, too")
    group.add_argument("--quick", action="store_true", help="measure little, with wrong limits, to test a benchmark")


def options(about: str, shapes: Iterable[str], names: Iterable[str]) -> argparse.ArgumentParser:
    """Return a command line with the options that choose shapes and sides, and whether to save."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--shape", choices=[*shapes, "all"], default="all", help="default: %(default)s")
    add_save_or_quick(parser)
    parser.add_argument("--only", choices=list(names), help="measure one side, without the other")
    return parser


def exit_unless(agreed: Iterable[bool]) -> None:
    """Exit with status 1 if the two sides of any table did not compute the same."""
    sys.exit(not all(agreed))
