"""Measure the time to a loss: a preset of tensorlite against nanoGPT's documented run on PyTorch.

    python benchmarks/bench_speedrun.py                        three seeds, about five minutes
    python benchmarks/bench_speedrun.py --race 1.47 --seeds 1  half an hour or more

Both train on tiny Shakespeare until the loss on the whole validation set is the target, in windows of the context. Each
side has a process of its own, and they alternate in blocks of steps. The clock stops while the loss is evaluated, which
happens after a fixed number of steps, so a side's time is that of the first evaluation below the target. The table says
so if a side ends its schedule without reaching it.

The target of the race 1.898 is where nanoGPT's recipe for a CPU (shakespeare-char-cpu) ends. That of the race 1.47 is
the loss that nanoGPT states for its recipe for a GPU (shakespeare-char), 1.4697. On a CPU that takes hours, so a few of
its steps are measured, and the table has the time of all of them.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
from environment import describe_environment, saved
from gpt_cost import step_flops
from hardware import Limits, measure_limits
from processes import in_turn, start_process

import tensorlite as tl
from gpt.config import Config, OptimConfig
from gpt.data import Dataset, load_dataset
from gpt.evaluate import evaluate
from gpt.model import GPT
from gpt.train import configure_optimizer, configure_schedule
from gpt.train.precision import make_autocast


class Race(NamedTuple):
    """What two sides train, and how."""

    target: float  # nats a character
    presets: dict[str, str]
    evaluations: dict[str, tuple[int, int]]  # the step of the first evaluation, and the steps between evaluations
    blocks: dict[str, int]  # steps of a block
    measured: dict[str, int]  # of a side that does not train to the target: how many of its steps are measured


RACES = {
    "1.898": Race(
        1.898, {"tensorlite": "shakespeare-speedrun", "torch": "shakespeare-char-cpu"},
        {"tensorlite": (160, 10), "torch": (1500, 50)}, {"tensorlite": 11, "torch": 100}, {},
    ),
    "1.47": Race(
        1.4697, {"tensorlite": "shakespeare-speedrun-1.47", "torch": "shakespeare-char"},
        {"tensorlite": (1500, 100)}, {"tensorlite": 100, "torch": 1}, {"torch": 5},
    ),
}  # fmt: skip
PAUSE = 0.05  # seconds before a block, in which the idle threads of the other side stop spinning

Step = Callable[[np.ndarray, np.ndarray], None]
Training = tuple[Step, Callable[[], float]]
"""A training step on inputs and targets (B, T), and a function that returns the validation loss in nats."""


def tensorlite_run(config: Config, dataset: Dataset) -> Training:
    """Return the training step of tensorlite and its evaluation on the validation set."""
    tl.manual_seed(config.train.seed)
    model = GPT(config.model)
    optimizer = configure_optimizer(model, config.optim)
    o = config.optim
    schedule = configure_schedule(optimizer, o, config.train.steps)
    parameters = list(model.parameters())
    autocast = make_autocast(config.train, model)

    def step(x: np.ndarray, y: np.ndarray) -> None:
        optimizer.zero_grad()
        with autocast():
            _, loss = model(tl.tensor(x, device=model.device), tl.tensor(y, device=model.device))
        loss.backward()
        if o.grad_clip:
            tl.nn.utils.clip_grad_norm_(parameters, o.grad_clip)
        optimizer.step()
        schedule.step()

    return step, lambda: evaluate(model, dataset, "val")


def torch_run(config: Config, dataset: Dataset) -> Training:
    """Return the training step of PyTorch, eager, and its evaluation. The weights are drawn as GPT-2's."""
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


def lr_at(o: OptimConfig, steps: int, step: int) -> float:
    """Return the learning rate of a step, by the same schedule as tensorlite's."""
    if step < o.warmup_steps:
        return float(o.lr * (step + 1) / (o.warmup_steps + 1))
    part = (step - o.warmup_steps) / (steps - o.warmup_steps)
    return float(o.min_lr + 0.5 * (o.lr - o.min_lr) * (1 + np.cos(np.pi * part)))


class Progress(NamedTuple):
    """Where a training run is."""

    seconds: float  # of training so far
    steps: int
    loss: float  # of the last evaluation
    ended: bool  # whether it reached the target or its last step


def load(preset: str, seed: int) -> tuple[Config, Dataset]:
    """Return a side's configuration and its data."""
    config = Config.load(preset, {"train.seed": seed})
    dataset = load_dataset(config.data, config.model.block_size)
    return config.with_vocab_size(dataset.tokenizer.vocab_size), dataset


def train(side: str, race: Race, seed: int, pipe: Connection) -> None:
    """Run in a process of its own: for each message received, train for a block of steps, and send the progress."""
    config, dataset = load(race.presets[side], seed)
    step, loss = {"tensorlite": tensorlite_run, "torch": torch_run}[side](config, dataset)
    rng = np.random.default_rng(seed)
    last = race.measured.get(side, config.train.steps)
    first, every = race.evaluations.get(side, (last + 1, 1))
    progress = Progress(0.0, 0, float("inf"), False)
    while not progress.ended:
        pipe.recv()
        time.sleep(PAUSE)
        for _ in range(race.blocks[side]):
            seconds, number, value, _ = progress
            began = time.perf_counter()
            step(*dataset.batch(rng, "train", config.train.batch_size, config.model.block_size))
            seconds, number = seconds + time.perf_counter() - began, number + 1
            trained = number == last and side not in race.measured
            if trained or (number >= first and (number - first) % every == 0):
                value = loss()
            progress = Progress(seconds, number, value, value <= race.target or number == last)
            if progress.ended:
                break
        pipe.send(progress)


def run_race(race: Race, seed: int) -> dict[str, Progress]:
    """Train both sides in alternating blocks until each has ended. Return where they ended."""
    sides = {side: start_process(side, train, race, seed) for side in race.presets}
    ended: dict[str, Progress] = {}
    number = 0
    while len(ended) < len(sides):
        for side in in_turn([side for side in sides if side not in ended], number):
            pipe = sides[side][1]
            pipe.send(None)
            progress = pipe.recv()
            if progress.ended:
                ended[side] = progress
        number += 1
    for process, _ in sides.values():
        process.join()
    return ended


def compare(race: Race, limits: Limits, seeds: int) -> None:
    """Print the table."""
    print(f"\nseconds of training to a loss of {race.target} on the whole validation set; {seeds} seeds\n")
    print(f"{'side':12}{'preset':27}{'seed':>5}{'seconds':>10}{'steps':>7}{'loss':>9}{'% of peak':>11}")
    times: dict[str, list[float]] = {side: [] for side in race.presets}
    for seed in range(1, seeds + 1):
        ended = run_race(race, seed)
        for side, preset in race.presets.items():
            seconds, steps, loss, _ = ended[side]
            config, _ = load(preset, seed)
            flops = steps * step_flops(config.model, config.train.batch_size)
            percent = limits.percent_of_peak(flops, seconds, config.train.dtype)
            note = "" if loss <= race.target else "  not reached"
            if side in race.measured:
                note = f"  {steps} steps in {seconds:.1f} s"
                seconds, steps = seconds / steps * config.train.steps, config.train.steps
            times[side].append(seconds)
            value = f"{loss:9.4f}" if loss < float("inf") else f"{'-':>9}"
            print(f"{side:12}{preset:27}{seed:5}{seconds:10.1f}{steps:7}{value}{percent:11.1f}{note}", flush=True)
    print()
    for side, values in times.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{side:12}{statistics.mean(values):8.1f} s, standard deviation {spread:.1f}")
    ours, theirs = times.values()
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(
        f"{'ratio':12}{statistics.mean(ours) / statistics.mean(theirs):8.3f}   minimum {min(ratios):.3f}, median "
        f"{statistics.median(ratios):.3f} by seed   (below 1: tensorlite is faster)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="runs of each side (default: %(default)s)")
    parser.add_argument("--race", choices=RACES, default="1.898", help="the loss to reach (default: %(default)s)")
    parser.add_argument("--save", action="store_true", help="write the table to benchmarks/results, too")
    args = parser.parse_args()
    with saved("speedrun" if args.race == "1.898" else "long-speedrun", args.save):
        print(describe_environment("torch", "numba"))
        limits = measure_limits()
        print(limits.describe())
        compare(RACES[args.race], limits, args.seeds)


if __name__ == "__main__":
    main()
