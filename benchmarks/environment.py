"""What a result was measured on: printed above every table, so that a number never travels without it."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO

import numpy as np

import tensorlite as tl


def cpu_name() -> str:
    """The processor's name, as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()  # Linux; platform knows no name there
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str:
    """The commit that was measured, with a + if the files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "of an unknown commit"
    return f"at {done.stdout.strip()}"


def described(*packages: str) -> str:
    """The machine and its load; Python, NumPy and its BLAS; tensorlite with its commit, and other packages."""
    found = [f"tensorlite {tl.__version__} {commit()}"]
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    kernels = f", kernels of {coretype}" if (coretype := os.environ.get("OPENBLAS_CORETYPE")) else ""
    load = f"load average {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "load unknown"
    return (
        f"{platform.system()} {platform.machine()}, {cpu_name()}, {cores()} cores, {load} before the start\n"
        f"Python {platform.python_version()}, numpy {np.__version__} with {blas['name']} {blas['version']}{kernels}\n"
        f"{', '.join(found)}"
    )


RESULTS = Path(__file__).with_name("results")


class _Both:
    """Writes what is printed to two streams."""

    def __init__(self, *streams: TextIO) -> None:
        self.streams = streams

    def write(self, text: str) -> int:
        for stream in self.streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()


@contextmanager
def saved(name: str, wanted: bool) -> Iterator[None]:
    """What is printed in this block goes to a file in results/ as well: NAME-DATE-MACHINE.txt."""
    if not wanted:
        yield
        return
    kernels = os.environ.get("OPENBLAS_CORETYPE", "")
    machine = re.sub(r"[^a-z0-9]+", "-", f"{cpu_name()} {cores()} cores {kernels}".lower()).strip("-")
    path = RESULTS / f"{name}-{date.today()}-{machine}.txt"
    RESULTS.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8") as file, redirect_stdout(_Both(sys.stdout, file)):  # type: ignore[type-var]
        yield
    print(f"\nwritten to {path}")
