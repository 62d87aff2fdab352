"""How long a training step takes: tensorlite against PyTorch, eager, on the same GPT.

    python benchmarks/bench_step.py                 all shapes
    python benchmarks/bench_step.py --shape M       that of `make train`

A step is forward, backward, clipping of the gradient and AdamW, in float32 on the CPU, written as users of each library
write it. Both sides start from the same weights, get the same batches, and take turns of a few steps, so whatever else
the machine does meets both. Each has a process of its own: in one, the idle threads of either library would spin on the
cores that the other needs. Their losses are compared step by step: a side that computed something else, or less, would
be found out.
"""

import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
from processes import options, started, tables

import tensorlite as tl
from gpt.config import ModelConfig, OptimConfig
from gpt.model import GPT
from gpt.train import configure_optimizer

# layers, heads, width, context, batch
SHAPES = {
    "S": (3, 3, 48, 32, 16),
    "M": (4, 4, 128, 64, 12),
    "L": (6, 6, 384, 256, 8),
}
VOCAB_SIZE = 65
TOLERANCE = 1e-4  # nats: how far the two losses may be apart, after any step

OPTIM = OptimConfig(lr=1e-3, weight_decay=0.1, grad_clip=1.0)

TURN = 10  # steps of one side before it is the other's turn; the first of a turn, with cold caches, is not timed

Weights = dict[str, np.ndarray]
Step = Callable[[np.ndarray, np.ndarray], float]


def tensorlite_step(config: ModelConfig, weights: Weights) -> Step:
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


def peak() -> float:
    """The most memory that this process has used so far, in MiB; NaN where the system does not say."""
    try:
        import resource
    except ImportError:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def work(side: str, config: ModelConfig, weights: Weights, batch_size: int, pipe: Connection) -> None:
    """A side's process: takes a number of steps for each number that it is sent, and sends times and losses back.

    At the end it sends how much memory it took beyond that of a small model, with all that it had to import.
    """
    small = ModelConfig(vocab_size=VOCAB_SIZE, block_size=16, n_layer=1, n_head=2, n_embd=64, bias=False)
    initial = {name: value.numpy() for name, value in GPT(small).state_dict().items()}
    SIDES[side](small, initial)(np.zeros((8, 16), np.int64), np.zeros((8, 16), np.int64))
    before = peak()
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
    pipe.send(peak() - before)


class Side:
    """The parent's end of a side's process."""

    def __init__(self, name: str, config: ModelConfig, weights: Weights, batch_size: int) -> None:
        self.process, self.pipe = started(name, work, config, weights, batch_size)
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def turn(self, steps: int, timed: bool) -> None:
        self.pipe.send(steps)
        seconds, losses = zip(*self.pipe.recv(), strict=True)
        self.losses += losses
        if timed:
            self.seconds += seconds[1:] or seconds

    def stop(self) -> None:
        self.pipe.send(0)
        self.memory = self.pipe.recv()
        self.process.join()


def measure(shape: str, steps: int, warmup: int, only: str | None) -> bool:
    """Prints the table of one shape. Returns whether the losses agreed, as far as there are two."""
    n_layer, n_head, n_embd, block_size, batch_size = SHAPES[shape]
    config = ModelConfig(
        vocab_size=VOCAB_SIZE, block_size=block_size, n_layer=n_layer, n_head=n_head, n_embd=n_embd, bias=False
    )
    tl.manual_seed(0)
    weights = {name: value.numpy() for name, value in GPT(config).state_dict().items()}
    sides = {name: Side(name, config, weights, batch_size) for name in SIDES if only in (None, name)}
    turns = [(warmup, False)] + [(TURN, True)] * (steps // TURN) + ([(steps % TURN, True)] if steps % TURN else [])
    for i, turn in enumerate(turns):
        for name in sorted(sides, reverse=i % 2 == 1):  # neither side always goes first
            sides[name].turn(*turn)
    for side in sides.values():
        side.stop()

    timed = len(next(iter(sides.values())).seconds)
    print(
        f"\nshape {shape}: {n_layer} layers, {n_head} heads, {n_embd} wide, context {block_size}, batch {batch_size}, "
        f"vocabulary {VOCAB_SIZE}; {timed} timed steps each, after {warmup} to warm up"
    )
    print(f"{'ms a step':14}{'minimum':>10}{'median':>10}{'90% below':>12}{'peak MiB':>12}")
    for name, side in sides.items():
        times = side.seconds
        low, median, high = min(times), statistics.median(times), float(np.quantile(times, 0.9))
        print(f"{name:14}{1e3 * low:10.2f}{1e3 * median:10.2f}{1e3 * high:12.2f}{side.memory:12.1f}")
    if only:
        return True
    ours, theirs = sides.values()
    low = min(ours.seconds) / min(theirs.seconds)
    median = statistics.median(ours.seconds) / statistics.median(theirs.seconds)
    memory = ours.memory / theirs.memory
    print(f"{'ratio':14}{low:10.3f}{median:10.3f}{'':12}{memory:12.3f}   (below 1: tensorlite is faster, or smaller)")
    apart = max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True))
    agreed = apart <= TOLERANCE
    print(f"losses differ by at most {apart:.1e} nats" + ("" if agreed else f": MORE THAN {TOLERANCE}, NO RESULT"))
    return agreed


def main() -> None:
    parser = options(__doc__.splitlines()[0], SHAPES, SIDES)
    parser.add_argument("--steps", type=int, default=100, help="timed steps of each side (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=10, help="steps before them (default: %(default)s)")
    args = parser.parse_args()
    tables("step", args, SHAPES, lambda shape: measure(shape, args.steps, args.warmup, args.only))


if __name__ == "__main__":
    main()
