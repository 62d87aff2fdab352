"""How long a training step takes: tensorlite against PyTorch, eager, on the same GPT.

    python benchmarks/bench_step.py                 the shape of `make train`
    python benchmarks/bench_step.py --shape all

A step is forward, backward, clipping of the gradient and AdamW, in float32 on the CPU, written as users of each library
write it. Both sides start from the same weights, get the same batches, and take turns within one process, so whatever
else the machine does meets both. Their losses are compared after every step: a side that computed something else, or
less, would be found out.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from machine import described
from torch_gpt import TorchGPT

import tensorlite as tl
from gpt.config import ModelConfig, OptimConfig
from gpt.model import GPT

# layers, heads, width, context, batch
SHAPES = {
    "S": (3, 3, 48, 32, 16),
    "M": (4, 4, 128, 64, 12),
    "L": (6, 6, 384, 256, 8),
}
VOCAB_SIZE = 65
TOLERANCE = 1e-4  # nats: how far the two losses may be apart, after any step

OPTIM = OptimConfig(lr=1e-3, weight_decay=0.1, grad_clip=1.0)

Step = Callable[[np.ndarray, np.ndarray], float]


def tensorlite_step(model: GPT) -> Step:
    parameters = list(model.parameters())
    optimizer = model.configure_optimizer(OPTIM)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        _, loss = model(tl.from_numpy(x), tl.from_numpy(y))
        loss.backward()
        tl.nn.utils.clip_grad_norm_(parameters, OPTIM.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def torch_step(model: TorchGPT) -> Step:
    parameters = list(model.parameters())
    optimizer = model.configure_optimizer(OPTIM)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        loss = model(torch.from_numpy(x), torch.from_numpy(y))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, OPTIM.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def contenders(config: ModelConfig) -> dict[str, Step]:
    """A step function of each side, over models with the same weights."""
    tl.manual_seed(0)
    ours, theirs = GPT(config), TorchGPT(config)
    theirs.load_state_dict({name: torch.from_numpy(p.numpy().copy()) for name, p in ours.state_dict().items()})
    return {"tensorlite": tensorlite_step(ours), "torch": torch_step(theirs)}


def measure(shape: str, steps: int, warmup: int, only: str | None) -> bool:
    """Prints the table of one shape. Returns whether the losses agreed, as far as there are two."""
    n_layer, n_head, n_embd, block_size, batch_size = SHAPES[shape]
    config = ModelConfig(
        vocab_size=VOCAB_SIZE, block_size=block_size, n_layer=n_layer, n_head=n_head, n_embd=n_embd, bias=False
    )
    sides = {name: step for name, step in contenders(config).items() if only in (None, name)}
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    apart = 0.0
    for i in range(warmup + steps):
        ids = rng.integers(0, VOCAB_SIZE, (batch_size, block_size + 1))
        x, y = ids[:, :-1].copy(), ids[:, 1:].copy()
        losses = []
        for name in sorted(sides, reverse=i % 2 == 1):  # neither side always goes first
            start = time.perf_counter()
            losses.append(sides[name](x, y))
            if i >= warmup:
                seconds[name].append(time.perf_counter() - start)
        apart = max(apart, max(losses) - min(losses))

    print(
        f"\nshape {shape}: {n_layer} layers, {n_head} heads, {n_embd} wide, context {block_size}, batch {batch_size}, "
        f"vocabulary {VOCAB_SIZE}; {steps} steps each, after {warmup} to warm up"
    )
    print(f"{'ms a step':14}{'minimum':>10}{'median':>10}{'90% below':>12}")
    for name, times in seconds.items():
        low, median, high = min(times), statistics.median(times), float(np.quantile(times, 0.9))
        print(f"{name:14}{1e3 * low:10.2f}{1e3 * median:10.2f}{1e3 * high:12.2f}")
    if only:
        return True
    ours, theirs = seconds.values()
    low, median = min(ours) / min(theirs), statistics.median(ours) / statistics.median(theirs)
    print(f"{'ratio':14}{low:10.3f}{median:10.3f}   (below 1: tensorlite is faster)")
    agreed = apart <= TOLERANCE
    print(f"losses differ by at most {apart:.1e} nats" + ("" if agreed else f": MORE THAN {TOLERANCE}, NO RESULT"))
    return agreed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=[*SHAPES, "all"], default="M", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=100, help="timed steps of each side (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=10, help="steps before them (default: %(default)s)")
    parser.add_argument("--only", choices=["tensorlite", "torch"], help="measure one side, without the other beside it")
    args = parser.parse_args()

    print(described("torch"))
    print(f"torch uses {torch.get_num_threads()} threads")
    shapes = SHAPES if args.shape == "all" else [args.shape]
    agreed = [measure(shape, args.steps, args.warmup, args.only) for shape in shapes]
    sys.exit(not all(agreed))


if __name__ == "__main__":
    main()
