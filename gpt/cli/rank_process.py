"""A process that `mpiexec` has started: a parent that tells how it ended, and a child that does the work.

A process that is killed cannot say so, and `mpiexec` knows neither its rank nor what it was doing. So the command goes
on in a child, and its parent waits for it. Neither goes on alone after the end of the process that has started it.
"""

import mmap
import os
import select
import signal
import sys
from contextlib import suppress
from types import FrameType

# What launchers call the number of a process and how many there are: MPICH, Intel MPI and Slurm's PMI-2; Open MPI;
# MVAPICH; a step of Slurm. PMIx gives no size.
LAUNCHERS = (
    ("PMI_RANK", "PMI_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)  # fmt: skip
PMIX_RANK = "PMIX_RANK"
LENGTH = 256  # bytes of an activity
START = "before the first step"  # the activity of a child that may not have connected with the others yet
LOOK = 1.0  # Seconds between two looks at whether the process that has started this one still runs.
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Activity:
    """What a child is doing, in memory that it shares with its parent."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, LENGTH)

    def write(self, text: str) -> None:
        """Say what this process is doing."""
        self.memory[:] = text.encode()[:LENGTH].ljust(LENGTH, b"\0")

    def read(self) -> str:
        """Return what was written last."""
        return bytes(self.memory).rstrip(b"\0").decode(errors="replace")


def launched() -> tuple[int, int | None] | None:
    """Return the number that a launcher gave this process, and how many it started, None if that is not known.

    Return None for a process that no launcher started, or that it started alone.
    """
    for names in LAUNCHERS:
        values = [os.environ.get(name, "") for name in names]
        if all(value.isdigit() for value in values):
            rank, size = map(int, values)
            return (rank, size) if size > 1 else None
    return (int(os.environ[PMIX_RANK]), None) if os.environ.get(PMIX_RANK, "").isdigit() else None


def go_on_in_a_child(rank: int) -> Activity | None:
    """Return in a child of this process, which writes to the activity what it is doing. None where fork is missing.

    The parent waits. If a signal kills the child, it prints one line that names the rank and the activity. Call this
    before threads start, because a child has none of them.
    """
    if not hasattr(os, "fork"):
        return None
    activity = Activity()
    activity.write(START)
    sys.stdout.flush()
    sys.stderr.flush()
    launcher, parent = os.getppid(), os.getpid()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)  # The other end stays open until the end of this process, which the parent notices so.
        end_with_parent(parent, signal.SIGKILL)
        return activity
    os.close(writer)

    def pass_on(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    status = wait_for(child, reader, launcher)
    if status < 0:
        with suppress(OSError):
            os.write(2, f"{ended_by(rank, -status, activity.read())}\n".encode())
        if activity.read() == START:
            # To mpiexec, a process that only exits is none that the others wait for, if it has not connected with them.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), -status if -status in (signal.SIGKILL, signal.SIGTERM) else signal.SIGKILL)
    sys.exit(status if status >= 0 else 128 - status)


def wait_for(child: int, reader: int, launcher: int) -> int:
    """Return the exit status of a child, negative for a signal. Kill it if the launcher ends before it.

    reader: a pipe that is at its end when the child is. launcher: the process that has started this one.
    """
    while True:
        select.select([reader], [], [], LOOK)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if os.getppid() != launcher:  # mpiexec cannot end the ranks of a machine whose helper was killed.
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            sys.exit(1)


def end_with_parent(parent: int, number: int) -> None:
    """Let the system send this process a signal when its parent ends. On Linux only; elsewhere it goes on alone."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # It has ended before.
        os.kill(os.getpid(), number)


def ended_by(rank: int, number: int, doing: str) -> str:
    """Return the message about a rank that a signal has killed."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    reason = " The system kills a process that needs more memory than there is." if name == "SIGKILL" else ""
    return (
        f"Error: rank {rank} was killed by {name} ({doing}), and all processes stop.{reason} The last checkpoint is "
        "whole; --resume continues from it"
    )
