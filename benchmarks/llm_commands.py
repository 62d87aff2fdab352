"""Measure a chat command in fresh processes: the time to its first token, and its peak memory.

tensorlite has the command `python -m gpt chat`. For llama.cpp, the shortest program that answers the same message
stands in for it. The files are in the operating system's cache, and compiled code in numba's, because one run warms up.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from environment import available_cores

MESSAGE = "What is the capital of France? Answer with one sentence."
ROOT = Path(__file__).resolve().parents[1]

# A process knows its own peak best: that of `getrusage` begins with the memory of the process that has started it.
PEAK = """
import pathlib, re, sys
def report():
    status = pathlib.Path("/proc/self/status").read_text()
    print("VmHWM", *re.findall(r"VmHWM:\\s+(\\d+) kB", status), file=sys.stderr)
"""
PROGRAMS = {
    "tensorlite": """
import runpy, sys
sys.argv = ["gpt", "chat", "--model", {path!r}, "--once", {message!r}, "--tokens", "{tokens}", "--temperature", "0"]
try:
    runpy.run_module("gpt", run_name="__main__", alter_sys=True)
except SystemExit as end:
    if end.code:
        raise
""",
    "llama-native": """
import llama_cpp
model = llama_cpp.Llama({path!r}, n_ctx={context}, n_threads={threads}, n_threads_batch={threads}, flash_attn=True,
                        verbose=False)
messages = [{{"role": "user", "content": {message!r}}}]
for part in model.create_chat_completion(messages, max_tokens={tokens}, temperature=0, stream=True):
    print(part["choices"][0]["delta"].get("content") or "", end="", flush=True)
""",
    "llama-wheel": """
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_gpu_layers, params.n_parallel, params.n_ctx = {path!r}, 0, 1, {context}
params.warmup, params.verbosity, params.cache_ram_mib = False, -1, 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = {threads}
messages = [{{"role": "user", "content": {message!r}}}]
def show(part):
    for piece in part if isinstance(part, list) else [part]:
        for choice in piece.get("choices", []):
            print(choice["delta"].get("content") or "", end="", flush=True)
xllamacpp.Server(params).handle_chat_completions(
    {{"messages": messages, "max_tokens": {tokens}, "temperature": 0, "stream": True}}, show)
""",
}


class CommandError(Exception):
    """A command that failed, or that wrote nothing."""


def command(side: str, path: str, tokens: int, context: int, peak: bool) -> list[str]:
    """Return the command line of a side. peak: whether it reports its peak memory at the end."""
    program = PROGRAMS[side].format(
        path=path, message=MESSAGE, tokens=tokens, threads=available_cores(), context=context
    )
    if side == "tensorlite" and not peak:  # what a user types
        return [sys.executable, "-m", "gpt", "chat", "--model", path, "--once", MESSAGE, "--tokens", str(tokens),
                "--temperature", "0"]  # fmt: skip
    return [sys.executable, "-c", f"{PEAK}{program}\nreport()" if peak else program]


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start a command whose output is read here."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def first_token(side: str, path: str, context: int) -> float:
    """Return the seconds from the start of a process to the first byte of its answer. Raises CommandError."""
    began = time.perf_counter()
    process = start(command(side, path, 1, context, False))
    assert process.stdout is not None
    first = process.stdout.read(1)
    seconds = time.perf_counter() - began
    _, errors = process.communicate()
    if process.returncode or not first.strip():
        raise CommandError(f"{side}: no first token (status {process.returncode}): {errors.decode()[-500:]}")
    return seconds


def peak_memory(side: str, path: str, tokens: int, context: int) -> int | None:
    """Return the peak of a process's memory in bytes, with the pages of mapped files; None if Linux does not tell."""
    if not Path("/proc/self/status").exists():
        return None
    process = start(command(side, path, tokens, context, True))
    _, errors = process.communicate()
    found = re.search(r"VmHWM (\d+)", errors.decode())
    if process.returncode or not found:
        raise CommandError(f"{side}: no peak memory (status {process.returncode}): {errors.decode()[-500:]}")
    return 1024 * int(found[1])
