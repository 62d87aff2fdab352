"""The benchmarks run and print their tables. How fast anything is, is not for tests to say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, *args: str) -> str:
    command = [sys.executable, "-W", "error", str(ROOT / "benchmarks" / name), *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_compared(output: str, differ: str, unit: str) -> None:
    """A table of both sides, whose results are no farther apart than rounding."""
    for side in ("tensorlite", "torch", "ratio"):
        assert re.search(rf"^{side} +\d+\.\d+ +\d+\.\d+", output, re.MULTILINE), output
    assert float(re.search(rf"{differ} (\S+) {unit}$", output, re.MULTILINE)[1]) <= 1e-4


def test_a_step_does_the_same_on_both_sides():
    pytest.importorskip("torch")
    output = run("bench_step.py", "--shape", "S", "--steps", "3", "--warmup", "1")
    assert "shape S: 3 layers, 3 heads, 48 wide, context 32, batch 16" in output
    assert_compared(output, "losses differ by at most", "nats")


def test_a_side_alone():
    pytest.importorskip("torch")
    output = run("bench_step.py", "--shape", "S", "--steps", "2", "--warmup", "1", "--only", "tensorlite")
    assert re.search(r"^tensorlite +\d", output, re.MULTILINE)
    assert "ratio" not in output


def test_a_text_is_the_same_on_both_sides():
    pytest.importorskip("torch")
    output = run("bench_generate.py", "--shape", "M", "--texts", "1", "--tokens", "3")
    assert "shape M: 4 layers, 4 heads, 128 wide, context 64, vocabulary 65, batch 1; 1 texts each" in output
    assert_compared(output, "logits differ by at most", "of the largest")


def test_overhead_of_ops():
    output = run("bench_ops.py", "--number", "1", "--repeats", "1")
    small, large = output.split("activations of 12 x 64 tokens")
    rows = re.findall(r"^(add|multiply|sin|tanh|matmul) +(.+)$", small, re.MULTILINE)
    assert len(rows) == 5
    for _, numbers in rows:
        assert len(numbers.split()) in (4, 7, 10)  # NumPy, and three columns a library
        assert float(numbers.split()[0]) > 0
    rows = re.findall(r"^([a-z_]+) +(forward|both) +(.+)$", large, re.MULTILINE)
    assert len(rows) == 18
    for op, kind, numbers in rows:
        sides = re.findall(r"(\d+) +\((\d+)\)", numbers)
        assert len(sides) >= (2 if kind == "forward" and op != "gelu" else 1)  # NumPy has no GELU
        for median, low in sides:
            assert int(median) >= int(low) > 0
