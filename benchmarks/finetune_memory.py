"""Measure the memory and the time of a step of fine-tuning, with all weights and with low-rank matrices.

    python benchmarks/finetune_memory.py --model smollm2-135m-instruct --tokens 128 --ranks 0 8 64

Each row is a process of its own, because the peak of a process stays. Rank 0 trains all weights.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import tensorlite as tl
from gpt import sources
from gpt.checkpoint import lora_targets
from gpt.config import LoraConfig, OptimConfig
from gpt.model.lora import add_lora
from gpt.train import configure_optimizer
from tensorlite import nn

STEPS = 3


def measure(model: str, batch: int, tokens: int, rank: int) -> dict[str, float]:
    """Return what a few steps take: memory in MB, and milliseconds of the fastest step."""
    loaded = sources.load(model, "cpu").model.train()
    before = memory()
    if rank:
        lora = LoraConfig(rank=rank)
        add_lora(loaded, lora_targets.choose(loaded.config, lora), rank, lora.scale)
    trained = [p for p in loaded.parameters() if p.requires_grad]
    optimizer = configure_optimizer(loaded, OptimConfig())
    ids = tl.tensor(np.random.default_rng(0).integers(0, loaded.config.vocab_size, (batch, tokens)))
    wall, cpu = [], []
    for _ in range(STEPS):
        began, used = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        loaded(ids, ids)[1].backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    return {
        "trained": sum(p.numel() for p in trained), "loaded_mb": before, "peak_mb": memory(),
        "step_ms": 1000 * min(wall), "step_cpu_ms": 1000 * min(cpu),
    }  # fmt: skip


def memory() -> float:
    """Return the largest memory that this process has had, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB; in bytes on macOS
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def main() -> None:
    """Print a row for each rank."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--ranks", type=int, nargs="+", default=[0, 8])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(measure(given.model, given.batch, given.tokens, given.one)))
        return
    print(f"{given.model}, {given.batch} x {given.tokens} tokens, float32, AdamW")
    print(f"{'':<16}{'trained':>14}{'peak MB':>10}{'loaded MB':>11}{'ms/step':>10}{'CPU ms/step':>13}")
    for rank in given.ranks:
        command = [sys.executable, str(Path(__file__).resolve()), "--one", str(rank), "--model", given.model]
        command += ["--batch", str(given.batch), "--tokens", str(given.tokens)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        name = f"LoRA, rank {rank}" if rank else "all weights"
        print(
            f"{name:<16}{row['trained']:>14,}{row['peak_mb']:>10.0f}{row['loaded_mb']:>11.0f}{row['step_ms']:>10.0f}"
            f"{row['step_cpu_ms']:>13.0f}"
        )


if __name__ == "__main__":
    main()
