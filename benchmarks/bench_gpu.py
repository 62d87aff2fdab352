"""Measure a training step and a generated token on a GPU, tensorlite against PyTorch eager, in float32.

    python benchmarks/bench_gpu.py                  every shape
    python benchmarks/bench_gpu.py --shape M --save

Both sides run in one process on one GPU and alternate in blocks of 10 steps. They start from the same weights, get the
same batches, and their losses are compared after every step. A step ends when its loss is on the host. TF32 is off.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from bench_step import OPTIM, TOLERANCE, VOCAB_SIZE, Weights
from environment import describe_environment, saved
from gpt_cost import step_flops

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.generation import SamplingConfig, generate
from gpt.model import GPT
from gpt.train import configure_optimizer

# layers, heads, width, context, batch
SHAPES = {
    "S": (3, 3, 48, 32, 16),
    "M": (4, 4, 128, 64, 12),
    "L": (6, 6, 384, 256, 64),
    "GPT-2": (12, 12, 768, 1024, 4),
}
BLOCK = 10  # steps of one side before the other's turn; the first of a block is not timed
TOKENS = 128

Step = Callable[[np.ndarray, np.ndarray], float]


def tensorlite_step(config: ModelConfig, weights: Weights) -> Step:
    model = GPT(config)
    model.load_state_dict({name: tl.from_numpy(value) for name, value in weights.items()})
    model.to("cuda")
    parameters = list(model.parameters())
    optimizer = configure_optimizer(model, OPTIM)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        _, loss = model(tl.tensor(x, device="cuda"), tl.tensor(y, device="cuda"))
        loss.backward()
        tl.nn.utils.clip_grad_norm_(parameters, OPTIM.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def torch_step(config: ModelConfig, weights: Weights) -> Step:
    import torch
    from torch_gpt import TorchGPT

    model = TorchGPT(config)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    model.to("cuda")
    parameters = list(model.parameters())
    optimizer = model.configure_optimizer(OPTIM)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        loss = model(torch.from_numpy(x).cuda(), torch.from_numpy(y).cuda())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, OPTIM.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def peaks() -> tuple[float, float, float]:
    """Return the peak of a float32 product in CuPy and PyTorch (TFLOP/s), and of a copy on the device (GB/s)."""
    import cupy
    import torch

    n = 8192
    a, t = cupy.ones((n, n), cupy.float32), torch.ones(n, n, device="cuda")
    out = cupy.empty_like(a)

    def best(f: Callable[[], object], synchronize: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            f()
            synchronize()
            times.append(time.perf_counter() - start)
        return min(times)

    wait = cupy.cuda.get_current_stream().synchronize
    ours = best(lambda: cupy.matmul(a, a, out=out), wait)
    theirs = best(lambda: t @ t, torch.cuda.synchronize)
    copy = best(lambda: cupy.copyto(out, a), wait)
    return 2 * n**3 / ours / 1e12, 2 * n**3 / theirs / 1e12, 2 * a.nbytes / copy / 1e9


def measure_step(shape: str, steps: int, peak: tuple[float, float]) -> bool:
    """Print the table of one shape. Return whether the losses agree."""
    n_layer, n_head, n_embd, block_size, batch_size = SHAPES[shape]
    config = ModelConfig(
        vocab_size=VOCAB_SIZE, block_size=block_size, n_layer=n_layer, n_head=n_head, n_embd=n_embd, bias=False
    )
    tl.manual_seed(0)
    weights = {name: value.numpy() for name, value in GPT(config).state_dict().items()}
    sides = {"tensorlite": tensorlite_step(config, weights), "torch": torch_step(config, weights)}
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    apart = 0.0
    for block in range(steps // BLOCK + 1):
        batches = [rng.integers(0, VOCAB_SIZE, (batch_size, block_size + 1)) for _ in range(BLOCK)]
        losses = []
        for name in sorted(sides, reverse=block % 2 == 1):
            done = []
            for i, ids in enumerate(batches):
                start = time.perf_counter()
                done.append(sides[name](ids[:, :-1].copy(), ids[:, 1:].copy()))
                if block and i:  # the first block warms up
                    seconds[name].append(time.perf_counter() - start)
            losses.append(done)
        apart = max(apart, *(abs(a - b) for a, b in zip(*losses, strict=True)))
    work = step_flops(config, batch_size)
    print(f"\nshape {shape}: {n_layer} layers, {n_embd} wide, context {block_size}, batch {batch_size}")
    print(f"{'ms a step':14}{'minimum':>10}{'median':>10}{'% of peak':>12}")
    for (name, times), top in zip(seconds.items(), peak, strict=True):
        low, median = min(times), statistics.median(times)
        print(f"{name:14}{1e3 * low:10.2f}{1e3 * median:10.2f}{100 * work / median / 1e12 / top:12.1f}")
    ours, theirs = seconds.values()
    print(f"{'ratio':14}{min(ours) / min(theirs):10.3f}{statistics.median(ours) / statistics.median(theirs):10.3f}")
    print(f"losses differ by at most {apart:.1e} nats" + ("" if apart <= TOLERANCE else ": TOO MUCH, NO RESULT"))
    return apart <= TOLERANCE


def measure_tokens(shape: str) -> None:
    """Print the time of a generated token of one shape, batch 1, with cached keys and values."""
    import torch
    from torch_gpt import TorchGPT

    n_layer, n_head, n_embd, block_size, _ = SHAPES[shape]
    config = ModelConfig(
        vocab_size=VOCAB_SIZE, block_size=max(block_size, 2 * TOKENS), n_layer=n_layer, n_head=n_head, n_embd=n_embd,
        bias=False,
    )  # fmt: skip
    ours = GPT(config).to("cuda").eval()
    theirs = TorchGPT(config).to("cuda").eval()

    def tensorlite_text() -> None:
        assert len(list(generate(ours, [1], TOKENS, SamplingConfig(temperature=0)))) == TOKENS

    @torch.no_grad()
    def torch_text() -> None:
        cache, ids = theirs.new_cache().cuda(), torch.tensor([[1]], device="cuda")
        for position in range(TOKENS):
            token = theirs.next_logits(ids, cache, position).argmax().item()
            ids = torch.tensor([[token]], device="cuda")

    times: dict[str, list[float]] = {"tensorlite": [], "torch": []}
    for turn in range(6):
        for name, text in (("tensorlite", tensorlite_text), ("torch", torch_text)):
            start = time.perf_counter()
            text()
            if turn:
                times[name].append((time.perf_counter() - start) / TOKENS)
    for name, values in times.items():
        print(f"{name + ' token':18}{1e3 * min(values):6.2f}{1e3 * statistics.median(values):10.2f} ms")
    a, b = (statistics.median(values) for values in times.values())
    print(f"{'ratio':18}{min(times['tensorlite']) / min(times['torch']):6.3f}{a / b:10.3f}")


def main() -> None:
    """Measure the chosen shapes and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=[*SHAPES, "all"], default="all", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=100, help="timed steps of each side (default: %(default)s)")
    parser.add_argument("--save", action="store_true", help="also write the tables to benchmarks/results")
    args = parser.parse_args()
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    with saved("gpu-" + name.lower().replace(" ", "-"), args.save):
        print(describe_environment("torch", "cupy-cuda13x"))
        ours, theirs, bandwidth = peaks()
        print(f"{name}; float32 product of 8192: CuPy {ours:.1f}, PyTorch {theirs:.1f} TFLOP/s")
        print(f"copy on the device: {bandwidth:.0f} GB/s, read and written")
        agreed = True
        for shape in SHAPES if args.shape == "all" else [args.shape]:
            agreed &= measure_step(shape, args.steps, (ours, theirs))
            measure_tokens(shape)
    sys.exit(not agreed)


if __name__ == "__main__":
    main()
