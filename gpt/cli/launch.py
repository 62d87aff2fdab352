"""Start several processes of a command with `mpiexec`, as `--processes N` asks for."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from gpt.cli.rank_process import SIGNALS, end_with_parent
from gpt.errors import UserError

# Open MPI would give each process one core, and it does not run as root without being asked.
OPEN_MPI = ["--bind-to", "none", "--oversubscribe"]
OPEN_MPI_ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
PROGRESS = "TENSORLITE_GPT_PROGRESS"  # In the environment of processes whose output goes to a terminal, by mpiexec.


class LaunchError(UserError):
    """Several processes that cannot be started."""


def find_mpiexec() -> str:
    """Return the path of mpiexec: that of the running Python's packages, or else that on PATH. Raises LaunchError."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    found = shutil.which("mpiexec", path=os.pathsep.join(folders))
    if found is None:
        raise LaunchError(
            "--processes: expected the program mpiexec, which is not installed. Run pip install 'tensorlite[mpi]'"
        )
    return found


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run `python -m gpt` with these arguments in several processes, and return the exit status.

    Signals go to all of them. Raises LaunchError if they cannot be started.
    """
    mpiexec = find_mpiexec()
    environment = dict(os.environ)
    command = [mpiexec, "-n", str(count)]
    version = version_of(mpiexec).lower()
    if "open mpi" in version or "openrte" in version:
        command += OPEN_MPI
        environment |= OPEN_MPI_ENVIRONMENT
    if sys.stderr.isatty():
        environment[PROGRESS] = "1"
    command += [sys.executable, "-m", "gpt", *arguments]
    # In a session of its own, so that Ctrl-C reaches it once, from here. If this process is killed, all stop and save.
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
        preexec_fn=partial(end_with_parent, os.getpid(), signal.SIGTERM),
    )  # fmt: skip

    def pass_on(number: int, frame: FrameType | None) -> None:
        # mpiexec passes on SIGINT and SIGTERM. SIGHUP would end it, and leave the processes alone.
        process.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        status = process.wait()
        return status if status >= 0 else 128 - status
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def version_of(mpiexec: str) -> str:
    """Return what `mpiexec --version` prints. Raises LaunchError if it does not run."""
    try:
        return subprocess.run([mpiexec, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"--processes: {mpiexec} does not run: {error}") from error
