"""Describe the machine and the libraries that a result was measured with: the header of every results file."""

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
from typing import Any, TextIO

import numpy as np
from disturbance import Disturbance

import tensorlite as tl
from tensorlite.backends.cpu.cores import cpu_quota

RESULTS = Path(__file__).with_name("results")

# The instruction sets that decide how fast arithmetic is, and their flags in Linux's /proc/cpuinfo.
INSTRUCTION_SETS = {
    "AVX2": "avx2",
    "FMA": "fma",
    "AVX-512": "avx512f",
    "AVX-512 VNNI": "avx512_vnni",
    "AVX-512 BF16": "avx512_bf16",
    "AVX-512 FP16": "avx512_fp16",
    "AMX": "amx_tile",
    "AMX BF16": "amx_bf16",
    "NEON": "asimd",
    "BF16": "bf16",
    "SVE": "sve",
    "SVE2": "sve2",
    "SME": "sme",
}
# The beginnings of the environment variables that change the speed of a library.
PREFIXES = ("OPENBLAS_", "GOTO_", "OMP_", "KMP_", "MKL_", "ONEDNN_", "ATEN_", "NUMBA_", "MALLOC_", "TENSORLITE_")
# Read at import, because threadpoolctl sets KMP_DUPLICATE_LIB_OK when it is imported.
SETTINGS = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(PREFIXES)]


def cpu_info() -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo. Return {} where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def cpu_name() -> str:
    """Return the processor's name as the operating system gives it, with the numbers of its family and model.

    The numbers matter: in a virtual machine, processors of several generations can have the same name.
    """
    info = cpu_info()
    name = info.get("model name") or platform.processor() or "unknown processor"
    numbers = [f"{field.removeprefix('cpu ')} {info[field]}" for field in ("cpu family", "model") if field in info]
    return f"{name} {' '.join(numbers)}".strip()


def available_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def instruction_sets() -> list[str]:
    """Return the names of the processor's instruction sets: from Linux, or else those that NumPy finds."""
    info = cpu_info()
    flags = (info.get("flags") or info.get("Features") or "").split()
    if flags:
        return [name for name, flag in INSTRUCTION_SETS.items() if flag in flags]
    found = np.show_config(mode="dicts")["SIMD Extensions"]
    return [*found["baseline"], *found["found"]]


def loaded_blas() -> dict[str, Any] | None:
    """Return what threadpoolctl knows about NumPy's BLAS. Return None without threadpoolctl or for another BLAS."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return None
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    # SciPy's wheels bring a second OpenBLAS.
    found.sort(key=lambda library: "scipy.libs" in library["filepath"])
    return found[0] if found else None


def describe_limit() -> str:
    """Return the quota of this process's container as part of a sentence, or an empty string if there is none."""
    quota = cpu_quota()
    return "" if quota is None else f" with a quota of {quota:g}"


def numpy_threads() -> int:
    """Return how many threads NumPy's BLAS uses for a large product."""
    blas = loaded_blas()
    return int(blas["num_threads"]) if blas else available_cores()


def numpy_blas() -> str:
    """Return the name and version of NumPy's BLAS, and the processor that its kernels were written for."""
    build = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    blas = loaded_blas() or {}
    return f"{build['name']} {build['version']}, kernels {blas.get('architecture', 'unknown (see threadpoolctl)')}"


def torch_blas() -> str:
    """Return what PyTorch's BLAS and oneDNN report about themselves, and the instruction set of its own vector code.

    MKL prints a line at the first product if MKL_VERBOSE is 1. oneDNN, which computes products in bfloat16, does so if
    ONEDNN_VERBOSE is 1. So this runs both products in a process of its own.
    """
    script = (
        "import torch; x = torch.ones(64, 64); x @ x; x.bfloat16() @ x.bfloat16(); "
        "print(torch.backends.cpu.get_cpu_capability())"
    )
    verbose = {"MKL_VERBOSE": "1", "ONEDNN_VERBOSE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, **verbose}, capture_output=True, text=True)
    if done.returncode:
        return "BLAS unknown"
    *lines, vector_code = done.stdout.splitlines()
    mkl = re.search(r"(oneMKL|MKL) (.+?) Product build .* architecture (.+? processors)", "\n".join(lines))
    blas = f"{mkl[1]} {mkl[2]}, kernels for {mkl[3]}" if mkl else "BLAS unknown"
    onednn = re.search(r"info,cpu,isa:(.+)", "\n".join(lines))
    found = f"oneDNN for {onednn[1]}" if onednn else "oneDNN unknown"
    return f"{blas}; {found}; vector code {vector_code}"


def commit() -> str:
    """Return the commit that is measured, with a + if the files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "of an unknown commit"
    return f"at {done.stdout.strip()}"


def package_version(package: str) -> str:
    """Return the name and version of an installed package, or say that it is not installed."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"


def describe_environment(*packages: str) -> str:
    """Return lines that name the processor, its load, the libraries with their kernels, and this commit."""
    load = f"load average {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "load unknown"
    others = [package_version(package) for package in packages if package != "torch"]
    lines = [
        f"{platform.system()} {platform.machine()}, {cpu_name()}, {available_cores()} cores{describe_limit()}, {load} "
        "before the start",
        f"instruction sets: {', '.join(instruction_sets())}",
        ", ".join([f"Python {platform.python_version()}", f"tensorlite {tl.__version__} {commit()}", *others]),
        f"numpy {np.__version__}: {numpy_blas()}",
    ]
    if "torch" in packages:
        torch = package_version("torch")
        lines.append(torch if "not installed" in torch else f"{torch}: {torch_blas()}")
    lines.append(f"environment variables: {', '.join(SETTINGS) or 'no settings of BLAS, threads or malloc'}")
    return "\n".join(lines)


class _Tee:
    """A text stream that writes to two streams."""

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
def whole_run() -> Iterator[None]:
    """Print at the end of this block how much of the cores other processes used during it."""
    disturbance = Disturbance()
    with disturbance:
        yield
    print(f"\nin the whole run, {disturbance.describe()}")


@contextmanager
def saved(name: str, wanted: bool, folder: Path = RESULTS) -> Iterator[None]:
    """Write what is printed in this block also to NAME-DATE-PROCESSOR.txt in ``folder``, if ``wanted``.

    At the end, print how much of the cores other processes used.
    """
    if not wanted:
        with whole_run():
            yield
        return
    kernels = os.environ.get("OPENBLAS_CORETYPE", "")
    machine = re.sub(r"[^a-z0-9]+", "-", f"{cpu_name()} {available_cores()} cores {kernels}".lower()).strip("-")
    path = folder / f"{name}-{date.today()}-{machine}.txt"
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file, redirect_stdout(_Tee(sys.stdout, file)), whole_run():  # type: ignore[type-var]
        yield
    print(f"\nwritten to {path}")
