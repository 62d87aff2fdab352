"""Measure a training step of a GPT: tensorlite against PyTorch, eager, on the same model and batches.

    python benchmarks/bench_step.py                 all shapes
    python benchmarks/bench_step.py --shape M       the model of `make train`

A step is forward, backward, clipping of the gradient and AdamW, in float32 on the CPU, written as users of each library
write it. Both sides start from the same weights and get the same batches. They alternate in blocks of a few steps, each
in a process of its own, so that a disturbance meets both. The losses are compared step by step.
"""

import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
from environment import describe_environment, saved
from gpt_cost import step_flops
from hardware import Limits, measure_limits
from processes import exit_unless, in_turn, options, start_process
from ratios import flatten, ratio

import tensorlite as tl
from gpt.config import ModelConfig, OptimConfig
from gpt.model import GPT
from gpt.train import configure_optimizer

# Layers, heads, width, context, batch; and the steps of a block, which take from a tenth of a second to a few seconds.
SHAPES = {
    "S": (3, 3, 48, 32, 16, 30),
    "M": (4, 4, 128, 64, 12, 15),
    "L": (6, 6, 384, 256, 8, 4),
}
VOCAB_SIZE = 65
TOLERANCE = 1e-4  # nats that the two losses may differ by, after any step

OPTIM = OptimConfig(lr=1e-3, weight_decay=0.1, grad_clip=1.0)

Weights = dict[str, np.ndarray]
Step = Callable[[np.ndarray, np.ndarray], float]


def tensorlite_step(config: ModelConfig, weights: Weights) -> Step:
    """Return a function that takes a training step with tensorlite and returns the loss."""
    model = GPT(config)
    model.load_state_dict({name: tl.from_numpy(value) for name, value in weights.items()})
    parameters = list(model.parameters())
    optimizer = configure_optimizer(model, OPTIM)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        _, loss = model(tl.from_numpy(x), tl.from_numpy(y))
        loss.backward()
        tl.nn.utils.clip_grad_norm_(parameters, OPTIM.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def torch_step(config: ModelConfig, weights: Weights) -> Step:
    """Return a function that takes a training step with PyTorch and returns the loss."""
    import torch
    from torch_gpt import TorchGPT

    model = TorchGPT(config)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
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


SIDES = {"tensorlite": tensorlite_step, "torch": torch_step}


def peak_memory() -> float:
    """Return the most memory that this process has used so far, in MiB; NaN where the system does not say."""
    try:
        import resource
    except ImportError:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def train(side: str, config: ModelConfig, weights: Weights, batch_size: int, pipe: Connection) -> None:
    """Run in a process of its own: for each number received, take as many steps, and send their times and losses.

    At the end, send how much memory the model took beyond a small model, which needs all imports as well.
    """
    small = ModelConfig(vocab_size=VOCAB_SIZE, block_size=16, n_layer=1, n_head=2, n_embd=64, bias=False)
    initial = {name: value.numpy() for name, value in GPT(small).state_dict().items()}
    SIDES[side](small, initial)(np.zeros((8, 16), np.int64), np.zeros((8, 16), np.int64))
    before = peak_memory()
    step = SIDES[side](config, weights)
    rng = np.random.default_rng(0)
    while steps := pipe.recv():
        done = []
        for _ in range(steps):
            ids = rng.integers(0, VOCAB_SIZE, (batch_size, config.block_size + 1))
            x, y = ids[:, :-1].copy(), ids[:, 1:].copy()
            start = time.perf_counter()
            loss = step(x, y)
            done.append((time.perf_counter() - start, loss))
        pipe.send(done)
    pipe.send(peak_memory() - before)


class Side:
    """One library: its process, and what it has measured."""

    def __init__(self, name: str, config: ModelConfig, weights: Weights, batch_size: int) -> None:
        self.process, self.pipe = start_process(name, train, config, weights, batch_size)
        self.blocks: list[list[float]] = []
        self.losses: list[float] = []

    def run(self, steps: int, timed: bool) -> None:
        """Take some steps. The time of the first one does not count, because the caches are cold."""
        self.pipe.send(steps)
        seconds, losses = zip(*self.pipe.recv(), strict=True)
        self.losses += losses
        if timed:
            self.blocks.append(list(seconds[1:] or seconds))

    def stop(self) -> None:
        self.pipe.send(0)
        self.memory = self.pipe.recv()
        self.process.join()


def measure(shape: str, limits: Limits, rounds: int, only: str | None) -> bool:
    """Print the table of one shape. Return whether the losses agree; True if only one side is measured."""
    n_layer, n_head, n_embd, block_size, batch_size, steps = SHAPES[shape]
    config = ModelConfig(
        vocab_size=VOCAB_SIZE, block_size=block_size, n_layer=n_layer, n_head=n_head, n_embd=n_embd, bias=False
    )
    tl.manual_seed(0)
    weights = {name: value.numpy() for name, value in GPT(config).state_dict().items()}
    sides = {name: Side(name, config, weights, batch_size) for name in SIDES if only in (None, name)}
    for number in range(rounds + 1):  # the first round warms up
        for name in in_turn(sides, number):
            sides[name].run(steps, number > 0)
    for side in sides.values():
        side.stop()

    flops = step_flops(config, batch_size)
    print(
        f"\nshape {shape}: {n_layer} layers, {n_head} heads, {n_embd} wide, context {block_size}, batch {batch_size}, "
        f"vocabulary {VOCAB_SIZE}; {flops / 1e9:.3g} GFLOP a step; {rounds} rounds of {steps - 1} timed steps each"
    )
    print(f"{'ms a step':14}{'minimum':>10}{'median':>10}{'90% below':>12}{'% of peak':>12}{'peak MiB':>12}")
    for name, side in sides.items():
        times = flatten(side.blocks)
        low, median, high = min(times), statistics.median(times), float(np.quantile(times, 0.9))
        percent = limits.percent_of_peak(flops, median)
        print(f"{name:14}{1e3 * low:10.2f}{1e3 * median:10.2f}{1e3 * high:12.2f}{percent:12.1f}{side.memory:12.1f}")
    if only:
        return True
    ours, theirs = sides.values()
    r, memory = ratio(ours.blocks, theirs.blocks), ours.memory / theirs.memory
    print(f"{'ratio':14}{r.minimum:10.3f}{r.median:10.3f}{'':24}{memory:12.3f}   (below 1: tensorlite is better)")
    print(r.by_round())
    apart = max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True))
    agreed = apart <= TOLERANCE
    print(f"losses differ by at most {apart:.1e} nats" + ("" if agreed else f": MORE THAN {TOLERANCE}, NO RESULT"))
    return agreed


def main() -> None:
    parser = options(__doc__.splitlines()[0], SHAPES, SIDES)
    parser.add_argument("--rounds", type=int, default=15, help="timed blocks of each side (default: %(default)s)")
    args = parser.parse_args()
    with saved("step", args.save):
        print(describe_environment("torch", "numba"))
        limits = measure_limits(args.quick)
        print(limits.describe())
        shapes = SHAPES if args.shape == "all" else [args.shape]
        agreed = [measure(shape, limits, args.rounds, args.only) for shape in shapes]
    exit_unless(agreed)


if __name__ == "__main__":
    main()
