"""The options of a command that trains in several processes, and what each of them does at its start and its end."""

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from gpt.cli.rank_process import go_on_in_a_child, launched

if TYPE_CHECKING:
    from pathlib import Path

    from gpt.cli.options import Callback
    from gpt.train import Interrupt

WAIT_FOR_FIRST = 1.0  # Seconds in which rank 0 tells of an error that all ranks have, and ends them.


def processes_options(command: "Callback") -> "Callback":
    """Add --processes and --timeout to a command."""
    count = click.option(
        "--processes",
        type=click.IntRange(min=1),
        metavar="N",
        help="Train in N processes on this machine, which share the rows of each batch and the cores. It needs the "
        "extra mpi. mpiexec -n N does the same on several machines.",
    )
    timeout = click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="With several processes: how long each waits for the others before all stop.  [default: 600]",
    )
    return count(timeout(command))


def start_processes(count: int | None) -> None:
    """Start the processes that --processes asks for, and exit with their status. Return if this is one of them.

    Call it before expensive packages are imported. Raises UsageError for another number than that of the launcher, and
    LaunchError.
    """
    found = launched()
    if found is None:
        if count is not None and count > 1:
            from gpt.cli.launch import launch

            raise click.exceptions.Exit(launch(count, sys.argv[1:]))
        return
    rank, size = found
    if None not in (count, size) and count != size:
        raise click.UsageError(f"--processes {count} does not fit: the launcher has started {size}. Leave it out")
    activity = go_on_in_a_child(rank)
    from gpt.train import Interrupt
    from gpt.train.output import silence
    from gpt.train.ranks import Ranks

    Interrupt.passed_on = True
    Interrupt.silent = rank > 0
    if activity is not None:
        Ranks.tell = activity.write
    if rank > 0:
        silence()


def waiting(timeout: float | None) -> dict[str, Any]:
    """Return the argument of `gpt.train.train` that --timeout gives, none if it is not given."""
    return {} if timeout is None else {"timeout": timeout}


def say_checkpoint(path: "Path", why: str = "") -> None:
    """Print to stderr from which checkpoint a run goes on. Of several processes, rank 0 does so."""
    if not is_follower():
        click.echo(f"checkpoint {path}{why}", err=True)


def exit_status(interrupt: "Interrupt") -> int:
    """Return the exit status of a run that a signal has stopped.

    Of several processes, those whose status is not 0 would be reported as failed, one after another.
    """
    return 0 if is_follower() else interrupt.exit_status


def is_follower() -> bool:
    """Return whether this is one of several processes, and not rank 0."""
    found = launched()
    return found is not None and found[0] > 0


def wait_before_error() -> None:
    """Wait while rank 0 tells of an error that all ranks have."""
    if is_follower():
        time.sleep(WAIT_FOR_FIRST)


def end_all(status: int) -> None:
    """End the other processes, too, after an error of this one."""
    if launched() is None or "tensorlite.distributed" not in sys.modules:
        return
    import tensorlite.distributed as dist

    dist.init().abort(status)
