"""Time to a loss: the preset shakespeare-speedrun against nanoGPT's documented CPU run on PyTorch.

    python benchmarks/bench_speedrun.py              three seeds, about five minutes

Both train on tiny Shakespeare until the loss on the whole validation set, in windows of 64, is 1.898 or less: what
nanoGPT's recipe (shakespeare-char-cpu) ends at. Each side is a process of its own, one after the other, and the other
one first for every second seed. The clock stands still while the loss is evaluated, which is done every so many steps,
so the time is that of the first evaluation that is low enough. A side that gets to the end of its schedule without is
said so.
"""

import argparse
import statistics
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from environment import described, saved
from processes import started

import tensorlite as tl
from gpt.config import Config
from gpt.data import Dataset, load_dataset
from gpt.evaluate import evaluate
from gpt.model import GPT
from gpt.train import configure_optimizer
from tensorlite.optim import lr_scheduler

TARGET = 1.898  # nats a character
PRESETS = {"tensorlite": "shakespeare-speedrun", "torch": "shakespeare-char-cpu"}
# Steps from which, and after how many, the loss is evaluated.
EVALUATIONS = {"tensorlite": (350, 10), "torch": (1500, 50)}


def tensorlite_run(config: Config, dataset: Dataset) -> Any:
    """Its step, and how its loss is evaluated."""
    tl.manual_seed(config.train.seed)
    model = GPT(config.model)
    optimizer = configure_optimizer(model, config.optim)
    o = config.optim
    schedule = lr_scheduler.CosineWithWarmup(optimizer, o.warmup_steps, config.train.steps, o.min_lr)
    parameters = list(model.parameters())

    def step(x: np.ndarray, y: np.ndarray) -> None:
        optimizer.zero_grad()
        model(tl.tensor(x, device=model.device), tl.tensor(y, device=model.device))[1].backward()
        if o.grad_clip:
            tl.nn.utils.clip_grad_norm_(parameters, o.grad_clip)
        optimizer.step()
        schedule.step()

    return step, lambda: evaluate(model, dataset, "val")


def torch_run(config: Config, dataset: Dataset) -> Any:
    """The same in PyTorch, eager, from weights drawn as GPT-2's."""
    import torch
    from torch_gpt import TorchGPT

    tl.manual_seed(config.train.seed)
    weights = {name: torch.from_numpy(value.numpy()) for name, value in GPT(config.model).state_dict().items()}
    model = TorchGPT(config.model)
    model.load_state_dict(weights)
    o = config.optim
    optimizer = model.configure_optimizer(o)
    parameters = list(model.parameters())
    taken = 0

    def step(x: np.ndarray, y: np.ndarray) -> None:
        nonlocal taken
        for group in optimizer.param_groups:
            group["lr"] = lr_at(o, config.train.steps, taken)
        taken += 1
        optimizer.zero_grad(set_to_none=True)
        model(torch.from_numpy(x), torch.from_numpy(y)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, o.grad_clip)
        optimizer.step()

    def loss() -> float:
        total = count = 0.0
        with torch.no_grad():
            for x, y in dataset.windows("val", 64, config.model.block_size):
                total += model(torch.from_numpy(x), torch.from_numpy(y)).item() * y.size
                count += y.size
        return total / count

    return step, loss


def lr_at(o: Any, steps: int, step: int) -> float:
    """The learning rate of a step: the schedule that the other side has."""
    if step < o.warmup_steps:
        return float(o.lr * (step + 1) / (o.warmup_steps + 1))
    part = (step - o.warmup_steps) / (steps - o.warmup_steps)
    return float(o.min_lr + 0.5 * (o.lr - o.min_lr) * (1 + np.cos(np.pi * part)))


def run(side: str, seed: int, pipe: Connection) -> None:
    """Trains, and sends the seconds, the steps and the loss at which it stopped."""
    config = Config.load(PRESETS[side], {"train.seed": seed})
    dataset = load_dataset(config.data, config.model.block_size)
    config = config.with_vocab_size(dataset.tokenizer.vocab_size)
    step, loss = {"tensorlite": tensorlite_run, "torch": torch_run}[side](config, dataset)
    rng = np.random.default_rng(seed)
    first, every = EVALUATIONS[side]
    seconds, value = 0.0, float("inf")
    for number in range(1, config.train.steps + 1):
        began = time.perf_counter()
        step(*dataset.batch(rng, "train", config.train.batch_size, config.model.block_size))
        seconds += time.perf_counter() - began
        if number == config.train.steps or (number >= first and (number - first) % every == 0):
            value = loss()
            if value <= TARGET:
                break
    pipe.send((seconds, number, value))


def measured(side: str, seed: int) -> tuple[float, int, float]:
    process, pipe = started(side, run, seed)
    result: tuple[float, int, float] = pipe.recv()
    process.join()
    return result


def compare(seeds: int) -> bool:
    """Prints the table. Returns whether every run got to the target."""
    print(described("torch", "numba"))
    print(f"\nseconds of training to a loss of {TARGET} on the whole validation set; {seeds} seeds\n")
    print(f"{'side':12}{'preset':24}{'seed':>5}{'seconds':>10}{'steps':>7}{'loss':>9}")
    times: dict[str, list[float]] = {side: [] for side in PRESETS}
    reached = True
    for seed in range(1, seeds + 1):
        for side in sorted(PRESETS, reverse=seed % 2 == 0):
            seconds, steps, loss = measured(side, seed)
            times[side].append(seconds)
            reached = reached and loss <= TARGET
            note = "" if loss <= TARGET else "  not reached"
            print(f"{side:12}{PRESETS[side]:24}{seed:5}{seconds:10.1f}{steps:7}{loss:9.4f}{note}", flush=True)
    print()
    for side, values in times.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{side:12}{statistics.mean(values):8.1f} s, standard deviation {spread:.1f}")
    ratio = statistics.mean(times["tensorlite"]) / statistics.mean(times["torch"])
    print(f"{'ratio':12}{ratio:8.3f}   (below 1: tensorlite is faster)")
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="runs of each side (default: %(default)s)")
    parser.add_argument("--save", action="store_true", help="write the table to benchmarks/results, too")
    args = parser.parse_args()
    with saved("speedrun", args.save):
        compare(args.seeds)


if __name__ == "__main__":
    sys.exit(main())
